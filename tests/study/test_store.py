"""Where a study's parts are, and their random seeds."""

import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from study.conftest import ignore, resolved

from notbugs import data
from notbugs.data.names import MissingError
from notbugs.errors import InputError, NotbugsWarning
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.analyses import SaliencyRow
from notbugs.runs.tables.study import SetRow, TrainingRow
from notbugs.study import pipeline, resume, store
from notbugs.study.catalog.models import MODELS, trained_on
from notbugs.study.classifiers import train_model
from notbugs.study.config import StudyConfig
from notbugs.study.graph import StageId, study_graph
from notbugs.study.store import dataset_path, derive_seed, examples_path, model_path

CONFIG = StudyConfig("digits", limit=60, seeds=1)
VANISHED = r"must be where this run wrote it, got nothing; put it back, or begin a new run$"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    """A run that has constructed D_R, which is in its folder, and has not found enough images for another set."""
    with RunFolder.open(tmp_path / "run", {"kind": "study"}) as record:
        common = {"seed": 0, "made_from": "adversarial", "seconds": 1.0}
        record.record_stage("seed0/dataset-robust", 1.0, [SetRow(set="robust", n=40, written=True, **common)])
        record.record_stage(
            "seed0/dataset-misclassified-only", 1.0, [SetRow(set="misclassified-only", n=3, written=False, **common)]
        )
        row = TrainingRow(model="standard", seed=0, epoch=1, loss=1.0, accuracy=0.5, learning_rate=0.1, seconds=1.0)
        record.record_stage("seed0/standard", 1.0, [row])
        original = data.load("digits").train.select(slice(0, 40))
        data.export(original, record.folder / "datasets/robust", "folder", card="D_R")
        yield record


def test_a_set_that_vanished_is_named_and_one_that_was_never_constructed_is_none(run: RunFolder) -> None:
    config, name = resolved(CONFIG), trained_on("robust")
    assert len(store.load_dataset(config, run.folder, 0, "robust")) == 40
    shutil.rmtree(run.folder / "datasets/robust")
    assert store.has_dataset(config, run.folder, 0, "robust")
    with pytest.raises(InputError, match="robust: " + VANISHED):
        train_model(config, run.folder, 0, ignore, spec=MODELS[name])  # before, this was done without a row
    few = MODELS[trained_on("misclassified-only")]
    assert train_model(config, run.folder, 0, ignore, spec=few) == []


def test_a_file_of_a_set_that_vanished_is_named(run: RunFolder) -> None:
    config, folder = resolved(CONFIG), run.folder / "datasets/robust"
    image = sorted(folder.rglob("*.png"))[7]
    image.rename(run.folder / "away.png")
    damaged = f"{re.escape(str(image))}: cannot be read as an image .*; put it back, or begin a new run$"  # no file of the user's
    with pytest.raises(InputError, match=damaged):
        store.load_dataset(config, run.folder, 0, "robust")
    image.write_bytes((run.folder / "away.png").read_bytes()[:60])
    with pytest.raises(InputError, match=damaged):
        store.load_dataset(config, run.folder, 0, "robust")
    (run.folder / "away.png").rename(image)
    for file in ("manifest.csv", "README.md"):
        (folder / file).unlink()
        with pytest.raises(InputError, match=file.replace(".", r"\.")):
            store.load_dataset(config, run.folder, 0, "robust")


def test_a_model_that_vanished_is_named(run: RunFolder) -> None:
    config = resolved(CONFIG)
    assert store.has_model(config, run.folder, 0, "standard") and not store.has_model(config, run.folder, 0, "adversarial")
    with pytest.raises(InputError, match=r"standard\.safetensors: " + VANISHED):
        store.load_model(config, run.folder, 0, "standard")


def test_what_vanished_is_named_before_any_work_and_said_where_nothing_needs_it(run: RunFolder) -> None:
    config, model = resolved(CONFIG), run.folder / "models/standard.safetensors"
    graph = study_graph(config)
    with pytest.raises(InputError, match=r"standard\.safetensors: " + VANISHED):
        resume.check_nothing_vanished(run, config, graph, [StageId(0, "dataset", "nonrobust")])
    with pytest.warns(NotbugsWarning, match=r"standard\.safetensors is missing, which nothing that is left to do needs$"):
        resume.check_nothing_vanished(run, config, graph, [])
    row = TrainingRow(model="adversarial", seed=0, epoch=1, loss=1.0, accuracy=0.5, learning_rate=0.1, seconds=1.0)
    run.record_stage("seed0/adversarial", 1.0, [row])
    with pytest.warns(NotbugsWarning) as warned:  # one line for all of them
        resume.check_nothing_vanished(run, config, graph, [])
    assert len(warned) == 1
    assert str(warned[0].message).startswith("2 files of finished stages, ")
    assert str(warned[0].message).endswith(" among them, are missing, which nothing that is left to do needs")
    model.parent.mkdir()
    model.touch()
    (model.parent / "adversarial.safetensors").touch()
    resume.check_nothing_vanished(run, config, graph, [StageId(0, "dataset", "nonrobust")])


def test_analyses_done_before_the_stronger_d_r_was_added_are_named(run: RunFolder) -> None:
    row = SaliencyRow(model="standard", method="gradient", measure="alignment", seed=0, value=0.1, n=9)
    run.record_stage("seed0/saliency", 1.0, [row])
    said = r"^saliency was measured before the stronger D_R was added to .*: it has no figures of it$"
    with pytest.warns(NotbugsWarning, match=said):
        pipeline._say_made_before_the_stronger(run, replace(CONFIG, robust_strong=True), ("saliency", "ntk", "fourier"))
    pipeline._say_made_before_the_stronger(run, CONFIG, ("saliency",))


def test_the_first_seeds_files_have_the_plain_name() -> None:
    config, folder = resolved(StudyConfig("digits", seed=5, seeds=2)), Path("run")
    assert model_path(config, folder, 5, "standard") == folder / "models/standard.safetensors"
    assert model_path(config, folder, 6, "standard") == folder / "models/standard-seed6.safetensors"
    assert dataset_path(config, folder, 5, "robust") == folder / "datasets/robust"
    assert dataset_path(config, folder, 6, "robust") == folder / "datasets/robust-seed6"
    assert examples_path(config, folder, 6, "standard") == folder / "examples/standard-seed6.npz"


def test_a_seed_is_that_of_its_key() -> None:
    assert derive_seed(3, "on-robust") == zlib.crc32(b"3/on-robust")
    assert len({derive_seed(seed, key) for seed in (0, 1) for key in ("standard", "adversarial")}) == 4


def test_a_data_set_that_is_gone_names_the_run_it_belongs_to(tmp_path: Path) -> None:
    with (
        pytest.raises(
            InputError, match=r"^data: does not exist; run\.json of runs/a names it as the data set, got no access; put it"
        ),
        resume.naming_run(Path("runs/a"), "data"),
    ):
        raise MissingError("data", "does not exist", "no access", "check the path")
    with pytest.raises(InputError, match=r"^data: must have classes$"), resume.naming_run(Path("runs/a"), "data"):
        raise InputError("data", "must have classes")
