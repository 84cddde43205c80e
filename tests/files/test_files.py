"""Scores of files: what is ranked, what is held back, and the folders that come of it."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import sync_playwright
from pyarrow import parquet
from torch import Tensor

from notbugs import construct, data, metrics, models, predict, report, train
from notbugs.data import Dataset, synthetic
from notbugs.errors import InputError
from notbugs.files import crossfit, scores
from notbugs.runs.folder import RunFolder
from notbugs.search import NormBall

QUICK = crossfit.CrossfitConfig(NormBall("l2", 0.75), "small", 8, epochs=2, batch_size=32, adversarial_steps=1, invert_steps=2)


@pytest.fixture(scope="module")
def few(digits: data.Splits) -> Dataset:
    """120 training digits."""
    return digits.train.select(slice(0, 120))


# ---- folds, ranks, words ------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=30, max_size=80), st.integers(2, 4), st.integers(0, 99))
def test_folds_are_even_over_the_classes(labels: list[int], folds: int, seed: int) -> None:
    counts = np.bincount(labels)
    if counts[counts > 0].min() < folds:
        with pytest.raises(InputError, match=r"^--folds: must be from 2 to|two files or more of each class"):
            crossfit.stratified_folds(torch.tensor(labels), folds, seed)
        return
    dealt = crossfit.stratified_folds(torch.tensor(labels), folds, seed)
    assert int(dealt.min()) == 0 and int(dealt.max()) == folds - 1
    for label in set(labels):
        shares = dealt[torch.tensor(labels) == label].bincount(minlength=folds)
        assert int(shares.max() - shares.min()) <= 1
    assert int(dealt.bincount().max() - dealt.bincount().min()) <= 1


def test_ranks_are_within_classes_and_ties_share_theirs() -> None:
    values, labels = np.array([3.0, 1.0, 2.0, 2.0, 9.0, 5.0, 7.0]), np.array([0, 0, 0, 0, 1, 1, 2])
    assert scores.class_ranks(values, labels).tolist() == pytest.approx([1, 0, 0.5, 0.5, 1, 0, 0.5])


def test_robustness_is_what_ordinary_evidence_does_not_explain() -> None:
    """Robust evidence = ordinary evidence + something else: the ranks are that something's, whatever the rest does.

    As far as ordinary readers read at all: of readers that guess nothing is taken off.
    """
    chance = np.random.default_rng(0)
    labels, shared, own = np.arange(2000) % 2, 9 + chance.normal(size=2000), chance.normal(size=2000)
    mean = dict.fromkeys(scores.STANDARD_EVIDENCE, shared) | dict.fromkeys(scores.ROBUST_EVIDENCE, shared + own)
    found = scores.robustness_score(mean, labels)
    assert np.corrcoef(found, own)[0, 1] > 0.8
    assert found.min() == 0 and found.max() == 1
    assert found[labels == 0].mean() == pytest.approx(0.5)
    guessing = scores.robustness_score({**mean, "standard_lead": shared - np.median(shared)}, labels)
    assert np.corrcoef(guessing, scores.class_ranks(shared + own, labels))[0, 1] > 0.999


def test_who_looks_mislabelled() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    sure, torn = [0.9, 0.1], [0.45, 0.55]
    one = np.array([sure, sure, sure[::-1], sure[::-1], sure[::-1], torn])
    mean = {"standard_probabilities": one, "robust_probabilities": one}
    assert scores.likely_label_errors(mean, ["standard", "robust"], labels).tolist() == [False, False, True, False, False, False]
    other = one.copy()
    other[2] = sure  # one reader agrees with the label
    mean["robust_probabilities"] = other
    assert not scores.likely_label_errors(mean, ["standard", "robust"], labels).any()


@pytest.mark.parametrize("top", [0.5, 0.2, 0.04])
def test_halves_are_balanced_and_hold_the_ends(top: float) -> None:
    chance = np.random.default_rng(0)
    rows = [{"label": "abc"[number % 3], "robustness": float(chance.random())} for number in range(100)]
    high, low = scores.top_and_bottom(rows, top)
    assert not {*high} & {*low} and high == sorted(high)
    for label in "abc":
        own = [number for number in range(100) if rows[number]["label"] == label]
        count = int(top * len(own) + 1e-9)
        ranked = sorted(own, key=lambda number: rows[number]["robustness"])
        assert {number for number in low if rows[number]["label"] == label} == {*ranked[:count]}
        assert {number for number in high if rows[number]["label"] == label} == {*ranked[len(own) - count :]}
    for wrong in (0.0, 0.51, float("nan"), 0.02):  # of 33 files the last leaves none
        with pytest.raises(InputError, match=r"^--top"):
            scores.top_and_bottom(rows, wrong)


# ---- readers ------------------------------------------------------------------------------------------------------------------


def test_no_reader_scores_a_file_that_it_was_trained_on(few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[set[str]] = []
    fit = train.fit

    def watched(model: Any, part: Any, *args: Any, **options: Any) -> Any:
        taught.append({*part.names})
        return fit(model, part, *args, **options)

    grown: list[set[str]] = []
    invert = construct.invert_features

    def grower(model: Any, part: Any, **options: Any) -> Any:
        grown.append({*part.names})
        return invert(model, part, **options)

    monkeypatch.setattr(train, "fit", watched)
    monkeypatch.setattr(construct, "invert_features", grower)
    held = crossfit.stratified_folds(few.labels, 3, 0) == 1
    found = crossfit.score_fold(few, QUICK, held, seed=5)
    mine = {name for name, out in zip(few.names, held.tolist(), strict=True) if out}
    assert len(taught) == 4  # standard, robust, and of either version
    assert all(not names & mine and len(names) == len(few) - len(mine) for names in taught)
    assert len(grown) == 3  # either version of the others, and the robust one of these: each from images of its own set
    assert all(not names & mine or names == mine for names in grown)
    assert all(len(column) == len(mine) for column in found.values())


def test_a_row_a_file_in_order_every_score_in_its_range_and_the_same_again(few: Dataset, digits: data.Splits) -> None:
    rows = scores.per_file(few, QUICK, folds=2, repeats=2, seed=3, test=digits.test)
    assert [row["file"] for row in rows] == [*few.names]
    assert [row["number"] for row in rows] == [*range(120)]
    assert [row["label"] for row in rows] == [few.classes[label] for label in few.labels.tolist()]
    assert {*rows[0]} == {"number", "file", "label", *scores.COLUMNS}
    for name, (span, high, about) in scores.COLUMNS.items():
        assert about
        if span == "":
            continue
        assert high
        values = np.array([row[name] for row in rows])
        assert np.isfinite(values).all(), name
        low, _, top = span.partition(" to ")
        if span != "any":
            assert values.min() >= float(low.split()[0]) - 1e-6, name
        if top:
            assert values.max() <= float(top) + 1e-6, name
    assert {row["kind"] for row in rows} <= {"robust", "non-robust", "mislabelled-looking", "ambiguous"}
    again = scores.per_file(few, QUICK, folds=2, repeats=2, seed=3, test=digits.test)
    assert rows == again


def test_without_versions_two_readers_are_trained_and_their_scores_are_left_out(few: Dataset) -> None:
    rows = scores.per_file(few, replace(QUICK, versions=False), folds=2, repeats=1)
    assert {*scores.COLUMNS} - {*rows[0]} == {
        "on_robust_right", "on_robust_lead", "on_nonrobust_right", "on_nonrobust_lead", "carried_spurious",
    }  # fmt: skip
    assert np.isfinite([row["robustness"] for row in rows]).all()


def test_steadiness_is_how_well_repetitions_agree() -> None:
    chance = np.random.default_rng(0)
    labels, true = np.arange(900) % 3, chance.normal(size=900)

    def seen(noise: float) -> crossfit.FoldScores:
        names = (*scores.ROBUST_EVIDENCE, *scores.STANDARD_EVIDENCE)
        own = {name: true if name in scores.ROBUST_EVIDENCE else 0 * true for name in names}
        return {name: value + noise * chance.normal(size=900) for name, value in own.items()}

    sure, torn = scores.rank_reliability([seen(0.1), seen(0.1)], labels), scores.rank_reliability([seen(2.0), seen(2.0)], labels)
    assert sure > 0.95 > 0.8 > torn > 0.1
    assert scores.rank_reliability([seen(2.0) for _ in range(8)], labels) > torn
    assert np.isnan(scores.rank_reliability([seen(0.1)], labels))
    opposed = seen(0.0)
    assert -1 <= scores.rank_reliability([opposed, {name: -value for name, value in opposed.items()}], labels) < 0


def test_carried_parts_add_up_to_the_lead_less_its_mean(few: Dataset, digits: data.Splits) -> None:
    model = models.build("small", shape=few.shape, classes=10, width=8)
    train.fit(model, few, epochs=3)
    found = crossfit._margin_by_features(model, few, few, digits.test, "cpu")
    values = predict.features(model, few)
    weights = model.get_submodule("head").weight.detach()
    logits = values @ weights.T + model.get_submodule("head").bias.detach()
    rival = logits.scatter(1, few.labels[:, None], -torch.inf).argmax(1)
    wanted = ((weights[few.labels] - weights[rival]) * (values - values.mean(0))).sum(1)
    assert found["carried_robust"] + found["carried_nonrobust"] == pytest.approx(wanted.numpy(), abs=1e-4)
    assert found["carried_nonrobust"] == pytest.approx(0, abs=1e-4)  # the version is the set itself: all is kept
    assert np.abs(found["carried_spurious"]).max() > 0


class Odd(torch.nn.Module):
    """A user's network whose last linear layer does not make the logits."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.hidden = how, torch.nn.Linear(8 if how == "tokens" else 64, 10 if how == "tokens" else 32)
        self.last = torch.nn.Parameter(torch.randn(32, 10))

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "tokens":
            return self.hidden(images.flatten(2)[:, 0].reshape(-1, 8, 8)).mean(1)  # type: ignore[no-any-return]
        return self.hidden(images.flatten(1)) @ self.last  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["tokens", "hidden"])
def test_a_model_whose_head_is_not_linear_has_no_carried_parts(how: str, few: Dataset, digits: data.Splits) -> None:
    model = models.wrap(Odd(how), few.pixels(slice(0, 2)))
    assert crossfit.linear_head(model, few.pixels(slice(0, 2))) is None
    found = crossfit._margin_by_features(model, few, few, digits.test, "cpu")
    assert all(np.isnan(column).all() and len(column) == len(few) for column in found.values())


# ---- cues ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_planted_background_is_found_and_named(seed: int) -> None:
    world = synthetic.make_synthetic(seed=seed)
    names, here = metrics.cue_values(world.train)
    _, there = metrics.cue_values(world.test)
    found = metrics.spurious_features(names, here, world.train.labels, there, world.test.labels, world.train.classes)
    assert [row["fall"] for row in found if row["spurious"]] == sorted((r["fall"] for r in found if r["spurious"]), reverse=True)
    assert "background brightness" in [row["name"] for row in found if row["spurious"]][:2]
    light = there[:, names.index("background brightness")] > 0.5
    assert (light.numpy() == world.test_truth.light_background).mean() > 0.99


def test_where_nothing_is_spurious_nothing_is_called_so(digits: data.Splits) -> None:
    """Test digits come from where training digits do; and of two draws of one world without a cue the same is true."""
    names, here = metrics.cue_values(digits.train)
    _, there = metrics.cue_values(digits.test)
    found = metrics.spurious_features(names, here, digits.train.labels, there, digits.test.labels, digits.train.classes)
    assert not any(row["spurious"] for row in found)
    world = synthetic.make_synthetic(background=0.5)
    (names, here), (_, there) = metrics.cue_values(world.train), metrics.cue_values(world.test)
    found = metrics.spurious_features(names, here, world.train.labels, there, world.test.labels, synthetic.CLASSES)
    assert not any(row["spurious"] for row in found)


@pytest.mark.parametrize(("classes", "count", "test"), [(10, 32, 20), (10, 32, 120), (2, 32, 40), (4, 64, 60)])
def test_chance_alone_is_seldom_called_spurious(classes: int, count: int, test: int) -> None:
    """Train and test drawn alike, sparse features as networks have them: at most one set in twenty may have one called so."""
    false = 0
    for seed in range(40):
        chance = np.random.default_rng(seed)
        labels, others = (np.arange(n) % classes for n in (400, test))
        mean = chance.normal(size=(classes, count))
        values, there = (np.maximum(mean[own] - 0.5 + chance.normal(size=(len(own), count)), 0) for own in (labels, others))
        given = [torch.from_numpy(each) for each in (values, labels, there, others)]
        false += any(
            row["spurious"] for row in metrics.spurious_features([*map(str, range(count))], *given, [*map(str, range(classes))])
        )
    assert false <= 4


def test_of_two_classes_a_feature_is_called_by_the_one_that_it_speaks_for() -> None:
    rows = [{"feature": 0, "class": name, "usefulness": 0.5, "sign": sign} for name, sign in (("a", -1), ("b", 1))]
    assert [row["class"] for row in metrics.best_class_rows(rows)] == ["b"]


def test_leaning_is_the_gap_between_usual_and_unusual() -> None:
    values, labels = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]), torch.zeros(8, dtype=torch.int64)
    right = torch.tensor([True, True, True, True, True, False, False, False])
    training = (torch.tensor([1.0, 0.0]), torch.tensor([0, 1]))
    found = metrics.accuracy_gap(values, labels, right, label=0, training=training)
    assert (found["usual"], found["unusual"], found["gap"]) == (1.0, 0.25, 0.75)
    assert -1 <= found["gap_low"] < 0.75 < found["gap_high"] <= 1.01
    assert np.isnan(metrics.accuracy_gap(values[:4], labels[:4], right[:4], label=0, training=training)["gap"])


def test_features_are_called_by_the_cue_they_go_with() -> None:
    cues = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    values = torch.stack([2 * cues[:, 1] + 1, -cues[:, 2]], dim=1)
    assert [(name, round(r, 3)) for name, r in metrics.nearest_cue(values, ["a", "b", "c"], cues)] == [("b", 1.0), ("c", -1.0)]


# ---- the command --------------------------------------------------------------------------------------------------------------


def call(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "notbugs", *map(str, words)], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], subprocess.CompletedProcess[str]]:
    """A folder of pictures, scored and split by file; the folder, the command's words, and what it printed."""
    where = tmp_path_factory.mktemp("files")
    digits = data.load("digits")
    part = digits.train.select(slice(0, 150))
    data.export(part, where / "set", "folder", card="Some digits.")
    words = ["split", str(where / "set"), "--by-file", "--top", "0.4", "--repeats", "1", "--folds", "2", "--epochs", "2"]
    words += ["--width", "8", "--epsilon", "0.75", "--workers", "1", "--out", str(where / "run")]
    return where, words, call(*words)


def test_two_folders_and_a_manifest_in_the_form_of_the_input(done: tuple[Path, list[str], Any]) -> None:
    where, _, printed = done
    assert printed.returncode == 0, printed.stderr
    run = where / "run"
    table = parquet.read_table(run / "tables" / "files.parquet").to_pylist()
    with (run / "tables" / "files.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(table) == len(rows) > 100
    assert [row["file"] for row in table] == [row["file"] for row in rows]
    assert [row["robustness"] for row in table] == pytest.approx([float(row["robustness"]) for row in rows])
    with (run / "tables" / "halves.csv").open(newline="") as stream:
        listed = list(csv.DictReader(stream))
    sets = {name: data.load_part(run / "datasets" / f"{name}-files", "folder") for name in ("robust", "nonrobust")}
    scored = {row["file"]: float(row["robustness"]) for row in rows}
    for name, part in sets.items():
        assert [row["file"] for row in listed if row["half"] == name] == [*part.names]
        assert f"{name:10}  {len(part)} files" in printed.stdout
        assert len({*part.names}) == len(part)
    assert torch.equal(sets["robust"].labels.bincount(minlength=10), sets["nonrobust"].labels.bincount(minlength=10))
    assert not {*sets["robust"].names} & {*sets["nonrobust"].names}
    means = [np.mean([scored[name] for name in sets[half].names]) for half in ("robust", "nonrobust")]
    assert means[0] > means[1] + 0.3


def test_pixels_of_sorted_files_are_untouched(done: tuple[Path, list[str], Any]) -> None:
    where, _, _ = done
    before = data.load(str(where / "set"))
    known = {name: before.train.images[[number]] for number, name in enumerate(before.train.names)}
    half = data.load_part(where / "run" / "datasets" / "robust-files", "folder")
    assert all(torch.equal(half.images[[number]], known[name]) for number, name in enumerate(half.names))


def test_the_same_command_goes_on_and_another_is_refused(done: tuple[Path, list[str], Any]) -> None:
    where, words, _ = done
    run = where / "run"
    facts = json.loads((run / "run.json").read_text())
    gone = "repeat 1, fold 2"
    before = (run / "tables" / "files.csv").read_text()
    del facts["stages"][gone], facts["stages"]["summary"]
    (run / "run.json").write_text(json.dumps(facts))
    again = call(*words)
    assert again.returncode == 0, again.stderr
    assert [line for line in again.stderr.splitlines() if line.startswith("done:")] == [f"done: {gone}"]
    assert (run / "tables" / "files.csv").read_text() == before
    more = [*words]
    more[more.index("--repeats") + 1] = "2"
    grown = call(*more)
    told = [line for line in grown.stderr.splitlines() if line.startswith("done:")]
    assert told == ["done: repeat 2, fold 1", "done: repeat 2, fold 2"]
    assert "steadiness: another such run" in grown.stdout
    assert len(RunFolder.read(run).table("files")) == len(before.splitlines()) - 1
    assert (run / "tables" / "files.csv").read_text() != before
    study = call("run", str(where / "set"), "--out", str(run))
    assert study.returncode == 2 and "which holds a sorting of files" in study.stderr
    words[words.index("--folds") + 1] = "3"
    other = call(*words)
    assert other.returncode == 2 and "--folds: must be as before" in other.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["files", "digits", "--folds", "1"], "--folds: must be from 2 to"),
        (["files", "digits", "--folds", "5000"], "--folds: must be from 2 to"),
        (["files", "digits", "--repeats", "0"], "--repeats: must be 1 or more"),
        (["split", "digits", "--by-file", "--top", "0.7"], "--top: is a share of each class"),
        (["split", "digits", "--by-file", "--top", "0.001"], "--top: must leave a file of each class"),
        (["files", "digits", "--workers", "0"], "--workers: must be 1 or more"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(words: list[str], says: str, tmp_path: Path) -> None:
    found = call(*words, "--out", tmp_path / "run")
    assert found.returncode == 2
    assert says in found.stderr and len(found.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


# ---- the page -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(done: tuple[Path, list[str], Any]) -> Iterator[Any]:
    path = report.write(done[0] / "run")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        problems: list[str] = []
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-ready=yes]")
        yield tab
        assert problems == []
        browser.close()


def test_the_page_shows_files_and_features_as_the_tables_hold_them(page: Any, done: tuple[Path, list[str], Any]) -> None:
    run = RunFolder.read(done[0] / "run")
    text = page.inner_text("body")
    for row in run.table("kinds"):
        assert str(row["kind"]) in text and f"{row['files']}" in text
    for row in run.table("pictures"):
        assert str(row["file"]) in text
    assert page.locator(".files img").count() == len(run.table("pictures"))
    assert page.locator(".pictures img").count() == len(run.table("feature_pictures")) > 0
    assert all(page.evaluate("[...document.images].map(image => image.naturalWidth > 0)"))
    assert page.locator("#evidence svg .mark-symbol.role-mark path").count() == len(run.table("files"))
    for column in scores.COLUMNS:
        assert column in text
    for width in (390, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_spurious_cues_are_shown_and_strangers_names_do_nothing(done: tuple[Path, list[str], Any], tmp_path: Path) -> None:
    evil, before = "<img src=x onerror=alert(1)>", RunFolder.read(done[0] / "run")
    names = ("kinds", "files", "columns", "words", "feature_pictures", "features")
    with RunFolder.open(tmp_path / "run", {"kind": "files"}) as run:
        run.update_metadata(
            **{**before.metadata, "asked": run.metadata["asked"], "stages": {}, "source": evil, "finished": False}
        )
        cues = [{**row, "spurious": int(place == 0), "class": evil} for place, row in enumerate(before.table("cues"))]
        pictures = [{**row, "file": evil, "label": evil, "suggested": evil} for row in before.table("pictures")]
        tables = {name: before.table(name) for name in names}
        run.record_stage("all", 1.0, {**tables, "cues": cues, "pictures": pictures})
    text = report.write(tmp_path / "run").read_text(encoding="utf-8")
    assert evil not in text
    assert str(cues[0]["name"]) in text and "Read correctly" in text
    assert "This run is not finished" in text
    with RunFolder.open(tmp_path / "none", {"kind": "files"}) as run:
        run.update_metadata(kind="files")
    assert report.write(tmp_path / "none").is_file()
