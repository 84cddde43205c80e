"""The study end to end on real images: what a run folder holds, stopping and going on, and the claims on digits."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import datasets
import numpy
import pytest
import torch
from PIL import Image

from notbugs import data, models, report
from notbugs.errors import InputError
from notbugs.review import answers
from notbugs.runs.folder import RunFolder
from notbugs.study import config as plan_of
from notbugs.study import datasets as study_datasets
from notbugs.study import pipeline, tasks
from notbugs.study.config import StudyConfig

SMALL = StudyConfig(source="digits", limit=200, epochs=2, seeds=1, width=8, invert_steps=3, relabel_steps=3, patience=0)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return pipeline.run(SMALL, tmp_path_factory.mktemp("runs") / "small", workers=1)


def test_a_run_holds_every_model_set_and_row(small_run: RunFolder) -> None:
    rows = small_run.table("accuracy")
    models = {"standard", "adversarial", *(f"on-{name}" for name in study_datasets.QUICK)}
    assert list(rows[0]) == list(tasks.ACCURACY)
    on_test = {(row["model"], row["epsilon"]) for row in rows if row["set"] == "test"}
    assert on_test == {(model, epsilon) for model in models for epsilon in (0, 0.375, 0.75)}
    clean = {(row["model"], row["set"]) for row in rows if row["set"] not in ("test", "test-next")}
    assert clean == {(model, name) for model in models for name in ("original", *study_datasets.QUICK)}
    for row in rows:
        assert row["accuracy"] == row["correct"] / row["n"]
        assert row["low"] <= row["accuracy"] <= row["high"]
    assert {row["set"] for row in small_run.table("sets")} == set(study_datasets.QUICK)
    assert {row["model"] for row in small_run.table("training")} == models
    assert small_run.metadata["finished"]
    for row in small_run.table("pictures"):
        with Image.open(small_run.folder / str(row["picture"])) as picture:
            assert picture.size == (8, 8)
    assert report.write(small_run.folder).stat().st_size > 100_000


def test_what_is_stored_is_what_was_measured(small_run: RunFolder) -> None:
    plan = plan_of.resolve(SMALL, plan_of.load(SMALL))
    original = plan_of.load(plan).train
    made = {str(row["set"]): row for row in small_run.table("sets")}
    for name in ("random-labels", "random-labels-any", "next-labels", "random-labels-noise"):
        stored = tasks.load_dataset(plan, small_run.folder, 0, name)
        assert stored.names == original.names
        change = stored.pixels(slice(None)) - original.pixels(slice(None))
        sizes = change.double().flatten(1).norm(dim=1)
        assert sizes.max() <= 1.5 + 1e-6
        assert sizes.mean() == pytest.approx(made[name]["mean_l2"], abs=1e-4)
        if name != "random-labels-any":
            assert (stored.labels != original.labels).all()
    model = models.load(tasks.model_path(plan, small_run.folder, 0, "standard"))[0]
    stored = tasks.load_dataset(plan, small_run.folder, 0, "random-labels")
    with torch.no_grad():
        read = model(stored.pixels(slice(None))).argmax(1)
    assert (read == stored.labels).float().mean() == pytest.approx(made["random-labels"]["target_reached"])


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(small_run: RunFolder, tmp_path: Path) -> None:
    again = pipeline.run(SMALL, tmp_path / "again", workers=2)
    assert sorted(map(str, again.table("accuracy"))) == sorted(map(str, small_run.table("accuracy")))
    for weights in (small_run.folder / "models").glob("*.safetensors"):
        assert weights.read_bytes() == (again.folder / "models" / weights.name).read_bytes()


@pytest.mark.parametrize(
    ("radius", "text"), [(0.5, "0.5"), (0.8, "0.8"), (8 / 255, "8/255"), (1 / 255, "1/255"), (0.031, "0.031")]
)
def test_a_radius_is_written_as_people_write_it(radius: float, text: str) -> None:
    assert pipeline._radius_text(radius) == text


def test_settings_follow_the_images_and_bad_ones_are_named(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(10):
            pixels = numpy.random.default_rng([ord(name), number]).integers(0, 255, (64, 9), dtype=numpy.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    tall = StudyConfig(source=str(tmp_path))
    assert plan_of.resolve(tall, plan_of.load(tall)).shift == 1
    with pytest.raises(InputError, match=r"^--shift: must be below 9"):
        plan_of.resolve(replace(tall, shift=9), plan_of.load(tall))
    with pytest.raises(InputError, match=r"^--resize"):
        plan_of.load(StudyConfig(source="planted", resize=64))
    planted = StudyConfig(source="planted", limit=80)
    first, second = (plan_of.load(planted, seed).train.images[:] for seed in (0, 1))
    assert not torch.equal(first, second)  # each repetition has a world of its own


def test_a_finished_run_does_nothing_and_more_seeds_only_add(small_run: RunFolder, tmp_path: Path) -> None:
    worked: list[str] = []
    pipeline.run(SMALL, small_run.folder, workers=1, report_progress=lambda stage, share, words: worked.append(stage))
    assert not worked
    only = pipeline.run(SMALL, tmp_path / "split", only=("set-robust",), workers=1)
    assert set(only.metadata["stages"]) == {"seed0/adversarial", "seed0/set-robust"}
    assert not only.metadata["finished"]


def test_a_run_goes_on_only_with_the_same_arguments_and_data(small_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--epochs"):
        pipeline.run(replace(SMALL, epochs=3), small_run.folder)
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(InputError, match="--out"):
        pipeline.run(SMALL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_at_any_moment_it_goes_on_with_what_is_not_whole(tmp_path: Path, number: signal.Signals) -> None:
    words = [
        "digits",
        "--limit=200",
        "--epochs=3",
        "--seeds=1",
        "--width=8",
        "--invert-steps=3",
        "--relabel-steps=3",
        "--patience=0",
    ]
    command = [sys.executable, "-m", "notbugs", "run", *words, "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "set-nonrobust" in line:
                break
        process.send_signal(number)
        said = process.stderr.read()
        code = process.wait(timeout=60)
    before = RunFolder.read(tmp_path / "run").metadata["stages"]
    assert "seed0/set-nonrobust" in before
    assert "seed0/every-set" not in before
    if number != signal.SIGKILL:
        assert code == 130
        assert said.strip().splitlines()[-1].startswith("notbugs: stopped.")
        assert "Traceback" not in said
        if number == signal.SIGTERM:
            return  # going on is the same after each
    else:
        time.sleep(2)  # the workers see for themselves that their parent is gone
    after = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert after.returncode == 0, after.stderr
    again = {line.strip() for line in after.stderr.splitlines()}
    assert "done: seed0/every-set" in again
    assert not again & {f"done: {stage}" for stage in before}
    run = RunFolder.read(tmp_path / "run")
    assert run.metadata["finished"]
    keys = [(row["model"], row["set"], row["epsilon"]) for row in run.table("accuracy")]
    assert len(keys) == len(set(keys)) == 8 * 3 + 8 * 7 + 1  # the last: next labels by the next label
    assert not list(tmp_path.rglob("*.part"))


def stored(part: data.Splits, place: Path, form: str) -> Path:
    """Digits as someone else would have them on disk."""
    columns = {
        name: {"image": [Image.fromarray(image[0].numpy()) for image in one.images[:]], "label": one.labels.tolist()}
        for name, one in (("train", part.train), ("test", part.test))
    }
    if form == "npz":
        arrays = {f"{name}_images": one.images[:].numpy()[:, 0] for name, one in (("train", part.train), ("test", part.test))}
        arrays |= {f"{name}_labels": one.labels.numpy() for name, one in (("train", part.train), ("test", part.test))}
        numpy.savez(place / "set.npz", **arrays)
        return place / "set.npz"
    kind = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(part.train.classes))})
    both = datasets.DatasetDict({name: datasets.Dataset.from_dict(columns[name], features=kind) for name in columns})
    if form == "saved":
        both.save_to_disk(place / "set")
    else:
        (place / "set").mkdir()
        for name, one in both.items():
            one.to_parquet(place / "set" / f"{name}.parquet")
    return place / "set"


@pytest.mark.parametrize("form", ["npz", "parquet", "saved"])
def test_a_study_of_any_form_writes_that_form(digits: data.Splits, tmp_path: Path, form: str) -> None:
    part = digits._replace(train=digits.train.select(slice(0, 60)), test=digits.test.select(slice(0, 40)))
    plan = StudyConfig(source=str(stored(part, tmp_path, form)), epochs=1, width=8, invert_steps=2)
    run = pipeline.run(plan, tmp_path / "run", only=("on-nonrobust",), workers=1)
    made = data.load_part(run.folder / "datasets" / "nonrobust", form)
    assert made.names == plan_of.load(plan).train.names
    assert torch.equal(made.labels, part.train.labels)
    assert made.shape == (1, 8, 8)
    assert not torch.equal(made.images[:], part.train.images[:])
    assert [row["n"] for row in run.table("accuracy") if row["model"] == "on-nonrobust"] == [40] * 3


@pytest.mark.parametrize("form", ["folder", "npz"])
def test_several_versions_of_each_file_are_trained_on_in_as_many_steps(digits: data.Splits, tmp_path: Path, form: str) -> None:
    part = digits._replace(train=digits.train.select(slice(0, 60)), test=digits.test.select(slice(0, 40)))
    source = str(stored(part, tmp_path, "npz"))
    if form == "folder":
        data.export(part.train, tmp_path / "files", "folder", card="")
        source = str(tmp_path / "files")
    plan = StudyConfig(source=source, epochs=4, width=8, invert_steps=2, invert_times=2)
    run = pipeline.run(plan, tmp_path / "run", only=("on-robust", "on-random-labels"), workers=1)
    original = plan_of.load(plan).train
    made = data.load_part(run.folder / "datasets" / "robust", form)
    assert len(made) == len(set(made.names)) == 2 * len(original) and made.names[: len(original)] == original.names
    assert torch.equal(made.labels, original.labels.repeat(2))
    assert answers._load_datasets(run, plan, ["robust"])["robust"].names == original.names, "nobody is to see one file twice"
    passes = {name: len([row for row in run.table("training") if row["model"] == name]) for name in ("adversarial", "on-robust")}
    assert passes == {"adversarial": 4, "on-robust": 2}
    assert {row["set"]: row["n"] for row in run.table("sets")} == {
        "robust": 2 * len(original),
        "random-labels": len(original),
    }


def test_versions_that_cannot_be_are_refused_before_anything_is_done(digits: data.Splits, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--invert-times: must be at most 2, the epochs.*got 3"):
        pipeline.run(replace(SMALL, invert_times=3), tmp_path / "run")
    source = stored(
        digits._replace(train=digits.train.select(slice(0, 60)), test=digits.test.select(slice(0, 40))), tmp_path, "npz"
    )
    with numpy.load(source) as arrays:
        numpy.savez(source, **arrays, train_names=["a.png", "a~2.png", *digits.train.names[2:60]])
    with pytest.raises(InputError, match=r"need file names that are not taken"):
        pipeline.run(StudyConfig(str(source), epochs=2, width=8, invert_times=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "invert_times" not in plan_of.resumable_arguments(SMALL), "a run that is older than the setting goes on"


def test_hostile_names_and_a_folder_with_only_classes(tmp_path: Path) -> None:
    pixels = torch.Generator().manual_seed(0)
    for name in ("<b>cat</b> & co", "kärlek ü", "..dots"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(12):
            image = (torch.rand(12, 10, 3, generator=pixels) * 255).byte().numpy()
            Image.fromarray(image).save(tmp_path / "set" / name / f"{number} <i>.png")
    plan = StudyConfig(source=str(tmp_path / "set"), epochs=1, width=8, invert_steps=1, relabel_steps=1, epsilon=0.3,
                      relabel_epsilon=0.3, patience=0)  # fmt: skip
    run = pipeline.run(plan, tmp_path / "run", workers=1)
    assert "set aside" in run.metadata["data"]["note"]
    page = report.write(run.folder).read_text()
    assert "<b>cat" not in page
    assert "&lt;b&gt;cat" in page
    part = data.load_part(run.folder / "datasets" / "robust", "folder")
    assert part.classes == plan_of.load(plan).train.classes
    inside = [path.resolve().is_relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*")]
    assert all(inside)


def test_the_claims_on_digits(tmp_path: Path) -> None:
    """The floors of one seed of the demo. The split is left out: at 8x8 its gap is small, see docs/results.md."""
    run = pipeline.run(StudyConfig(source="digits", seeds=1), tmp_path / "run",
                    only=("adversarial", "on-random-labels", "on-next-labels", "on-random-labels-noise"),
                    workers=len(os.sched_getaffinity(0)))  # fmt: skip
    read = {(row["model"], row["epsilon"]): row["accuracy"] for row in run.table("accuracy") if row["set"] == "test"}
    assert read["standard", 0] >= 0.97
    assert read["adversarial", 0.75] >= read["standard", 0.75] + 0.3
    assert read["on-random-labels", 0] >= 0.85
    assert read["on-random-labels-noise", 0] <= 0.15
    assert read["on-next-labels", 0] >= 0.55  # one seed; the mean of three is above 0.65


def _slow(report_progress: object) -> str:
    time.sleep(1.0)
    return "kept"


def _refused(report_progress: object) -> str:
    raise InputError("file", "must be good")


def test_what_runs_beside_a_failure_is_kept() -> None:
    from notbugs.runs.scheduler import run_graph

    jobs = {"bad": ((), _refused), "beside": ((), _slow), "after": (("bad",), _slow)}
    found = run_graph(jobs, 2, lambda *_: None)
    assert next(found) == ("beside", "kept")
    with pytest.raises(InputError, match=r"^file: must be good"):
        next(found)
