"""Small studies on digits that several files check, and how their parts are found: `from study.conftest import ...`."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import datasets
import numpy
import pytest
import small_budgets
from conftest import shared_folder
from PIL import Image

from notbugs import data
from notbugs.attacks import ensemble, further
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import SetRow
from notbugs.study import evaluation, pipeline
from notbugs.study.analyses import ANALYSES
from notbugs.study.catalog.datasets import REPLICATION_DATASETS
from notbugs.study.catalog.models import ANALYZED_MODELS
from notbugs.study.config import ResolvedConfig, StudyConfig, load
from notbugs.study.resolve import check_constructions, resolve

QUICK_STUDY = StudyConfig("digits", limit=200, epochs=2, seeds=1, width=8, invert_steps=3, relabel_steps=3, patience=0)
FULL_STUDY = StudyConfig("digits", limit=240, epochs=2, seeds=1, width=8, invert_steps=2, relabel_steps=4, patience=0)
ANALYZED_STUDY = StudyConfig("digits", limit=400, epochs=3, seeds=1, width=8, invert_steps=4)
ATTACKED_IMAGES = 10  # of each training set of the full study, instead of 100
COMMAND = "notbugs run digits --limit 400"

Row = TypeVar("Row")


class AnalyzedStudy(NamedTuple):
    """before: the study alone; run: with all analyses; seconds: that these took."""

    before: RunFolder
    run: RunFolder
    seconds: float


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = shared_folder(tmp_path_factory, "quick", lambda made: pipeline.run(QUICK_STUDY, made / "run", workers=1))
    return RunFolder.read(folder / "run")


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A quick study that became a full one, and then a replication."""

    def make(made: Path) -> None:
        folder = made / "full"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluation, "ATTACKED_IMAGES", ATTACKED_IMAGES)
            patch.setattr(evaluation, "CURVE", ())  # no other perturbation sizes: `quick_run` has them
            patch.setattr(ensemble, "BUDGETS", small_budgets.with_queries(5))
            patch.setattr(further, "FURTHER_ATTACKS", tuple(each._replace(steps=2) for each in small_budgets.FEW))
            patch.setattr(further, "REFINED_STEPS", 2)
            pipeline.run(FULL_STUDY, folder, only=("standard",), workers=1)
            full = pipeline.run(replace(FULL_STUDY, full=True), folder, workers=1)
            assert full.metadata["finished"] and not full.metadata["replicate"]
            assert not {*REPLICATION_DATASETS} & {row.set for row in full.rows(SetRow)}
            pipeline.run(replace(FULL_STUDY, replicate=True), folder, workers=1)

    return RunFolder.read(shared_folder(tmp_path_factory, "full", make) / "full")


@pytest.fixture(scope="session")
def analyzed(tmp_path_factory: pytest.TempPathFactory) -> AnalyzedStudy:
    def make(made: Path) -> None:
        pipeline.run(ANALYZED_STUDY, made / "run", only=(*ANALYZED_MODELS, "evaluation-adversarial"), workers=1, command=COMMAND)
        shutil.copytree(made / "run", made / "before")
        began = time.perf_counter()
        pipeline.run_analyses(made / "run", (*ANALYSES,), workers=1)
        (made / "seconds").write_text(str(time.perf_counter() - began))

    folder = shared_folder(tmp_path_factory, "analyzed", make)
    before, run = RunFolder.read(folder / "before"), RunFolder.read(folder / "run")
    return AnalyzedStudy(before, run, float((folder / "seconds").read_text()))


def resolved(config: StudyConfig) -> ResolvedConfig:
    splits = load(config)
    found = resolve(config, splits)
    check_constructions(found, splits)  # as a study does
    return found


def only(rows: Sequence[Row], **cells: Any) -> Row:
    """The one row with these cells."""
    (row,) = [row for row in rows if all(getattr(row, name) == cell for name, cell in cells.items())]
    return row


def ignore(stage: str, share: float, words: str) -> None:
    """No progress."""


def store_digits(splits: data.Splits, folder: Path, form: str) -> Path:
    """Digits as users have them on disk; form: npz, parquet or saved."""
    if form == "npz":
        arrays = {f"{name}_images": part.images[:].numpy()[:, 0] for name, part in parts(splits).items()}
        arrays |= {f"{name}_labels": part.labels.numpy() for name, part in parts(splits).items()}
        numpy.savez(folder / "set.npz", **arrays)
        return folder / "set.npz"
    kind = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(splits.train.classes))})
    columns = {
        name: {"image": [Image.fromarray(image[0].numpy()) for image in part.images[:]], "label": part.labels.tolist()}
        for name, part in parts(splits).items()
    }
    both = datasets.DatasetDict({name: datasets.Dataset.from_dict(columns[name], features=kind) for name in columns})
    if form == "saved":
        both.save_to_disk(folder / "set")
    else:
        (folder / "set").mkdir()
        for name, part in both.items():
            part.to_parquet(folder / "set" / f"{name}.parquet")
    return folder / "set"


def parts(splits: data.Splits) -> dict[str, data.Dataset]:
    return {"train": splits.train, "test": splits.test}


def first(splits: data.Splits, train: int = 60, test: int = 40) -> data.Splits:
    """Only the first images of each part."""
    return splits._replace(train=splits.train.select(slice(0, train)), test=splits.test.select(slice(0, test)))
