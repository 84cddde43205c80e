"""A full study on real digits, small: every control, every learner and every table, each figure found again from the files."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import sync_playwright

from notbugs import models, predict, report
from notbugs.models import sklearn_learners
from notbugs.report import results, weighed
from notbugs.runs.folder import RunFolder
from notbugs.search import NormBall
from notbugs.study import config as plan_of
from notbugs.study import controls, datasets, pipeline, tasks
from notbugs.study.config import StudyConfig

SMALL = StudyConfig(source="digits", limit=240, epochs=2, seeds=1, width=8, invert_steps=2, relabel_steps=4, patience=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A quick study that became a full one, and then one by the paper's recipe."""
    folder = tmp_path_factory.mktemp("runs") / "full"
    pipeline.run(SMALL, folder, only=("standard",), workers=1)
    full = pipeline.run(replace(SMALL, full=True), folder, workers=1)
    assert (
        full.metadata["finished"]
        and not full.metadata["paper"]
        and not {*datasets.PAPER} & {row["set"] for row in full.table("sets")}
    )
    return pipeline.run(replace(SMALL, recipe="paper"), folder, workers=1)


@pytest.fixture(scope="module")
def plan(run: RunFolder) -> StudyConfig:
    return plan_of.resolve(SMALL, plan_of.load(SMALL))


def model(plan: StudyConfig, run: RunFolder, name: str) -> models.Model:
    return models.load(tasks.model_path(plan, run.folder, 0, name))[0]


def test_a_full_run_trains_and_measures_everyone(run: RunFolder) -> None:
    made = {str(row["set"]): row for row in run.table("sets")}
    assert set(made) == set(datasets.ALL)
    absent = {f"on-{name}" for name in made if not (run.folder / "datasets" / name).exists()}
    assert absent <= {"on-errors-only", "on-photographs"}  # of a model that hardly learnt: too few, or all of one class
    lessons = {*controls.extra_models(), *(f"on-{name}" for name in datasets.PAPER)}
    everyone = {"standard", "adversarial", *(f"on-{name}" for name in datasets.QUICK), *lessons} - absent
    rows = run.table("accuracy")
    assert {row["model"] for row in rows if row["set"] == "test"} == everyone
    story = set(controls.MAIN_MODELS) - absent
    for attacked in (False, True):
        crossed = {(row["model"], row["set"]) for row in rows if bool(row["epsilon"]) == attacked}
        wanted = {"test", "original", *datasets.SETS} - {name.removeprefix("on-") for name in absent}
        assert {(one, on) for one, on in crossed if one in story and on != "test-next"} == {
            (one, on) for one in story for on in wanted
        }
    assert run.metadata["full"] and run.metadata["paper"] and run.metadata["finished"]


def test_what_was_asked_once_stays_so(run: RunFolder, tmp_path: Path) -> None:
    """The plain command goes on with the paper's recipe, and says of a run that lacks some of it that it is not finished."""
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    facts = json.loads((folder / "run.json").read_text())
    del facts["stages"]["seed0/versions"]
    (folder / "run.json").write_text(json.dumps(facts | {"finished": False}))
    (folder / "tables/versions.csv").unlink()
    asked = pipeline.run_analyses(folder, ("frequencies",), workers=1)
    assert not asked.metadata["finished"] and not asked.table("versions") and asked.metadata["paper"]
    again = pipeline.run(SMALL, folder, workers=1)
    assert again.metadata["finished"] and again.metadata["paper"] and again.metadata["full"] and len(again.table("versions")) == 9


def test_the_curve_of_a_relabelled_set_ends_in_its_accuracy(run: RunFolder) -> None:
    curves = [row for row in run.table("training") if row["model"] == "on-random-labels"]
    [last] = [
        row for row in run.table("accuracy") if (row["model"], row["set"], row["epsilon"]) == ("on-random-labels", "test", 0)
    ]
    assert curves[-1]["test_accuracy"] == last["accuracy"]  # the weights are the last pass's, whatever passes before it read


def test_controls_are_differences_of_the_accuracies_beside_them(run: RunFolder, plan: StudyConfig) -> None:
    clean = {str(row["model"]): row for row in run.table("accuracy") if (row["set"], row["epsilon"]) == ("test", 0)}
    labels = plan_of.load(plan).test.labels
    rows = run.table("controls")
    told = {(str(row["result"]), str(row["control"])) for row in rows}
    trained = {(result, control) for result, all in controls.CONTROLS_OF.items() for control in all if control in clean}
    assert {pair for pair in told if not pair[1].startswith("probe")} == trained
    for row in rows:
        assert row["excess"] == pytest.approx(float(row["accuracy"]) - float(row["control_accuracy"]))
        assert float(row["excess_low"]) <= float(row["excess"]) <= float(row["excess_high"])
        assert row["accuracy"] == clean[str(row["result"])]["accuracy"]
        assert row["over_guessing"] == pytest.approx(float(row["accuracy"]) - labels.bincount().max().item() / len(labels))
        if row["control"] in clean:
            assert row["control_accuracy"] == clean[str(row["control"])]["accuracy"]


def test_next_labels_are_scored_by_both_labels(run: RunFolder, plan: StudyConfig) -> None:
    test = plan_of.load(plan).test
    for name in ("on-next-labels", "on-next-labels-bugs", "vgg-on-next-labels"):
        read = predict.predict(model(plan, run, name), test)
        found = {str(row["set"]): row["correct"] for row in run.table("accuracy") if row["model"] == name and not row["epsilon"]}
        assert found["test"] == int((read == test.labels).sum())
        assert found["test-next"] == int((read == (test.labels + 1) % 10).sum())


def test_models_with_the_same_start_begin_alike_and_others_do_not(plan: StudyConfig) -> None:
    def first(name: str, start: str = "") -> torch.Tensor:
        network, *_ = tasks.train_classifier(
            replace(plan, epochs=1, learning_rate=1e-12, weight_decay=0.0), plan_of.load(plan).train, name,
            loss="plain", on="original", seed=0, path=None, report_progress=lambda *_: None, start=start,
        )  # fmt: skip
        return torch.cat([weight.flatten() for weight in network.parameters()])

    torch.testing.assert_close(first("same-start", "standard"), first("standard"), rtol=0, atol=1e-6)
    assert (first("fresh-1") - first("standard")).abs().max() > 0.01


def test_the_sources_of_the_sweep_were_trained_at_their_radius(run: RunFolder, plan: StudyConfig) -> None:
    for name, share in controls.SWEEP.items():
        said = models.load(tasks.model_path(plan, run.folder, 0, name))[1]["training"]
        assert (said["loss"], said["epsilon"]) == ("adversarial", share * 0.75)


def test_transfer_counts_are_found_again(run: RunFolder, plan: StudyConfig) -> None:
    rows, test = run.table("transfer"), plan_of.load(plan).test
    pairs = {(row["source"], row["target"]) for row in rows}
    networks = {(one, other) for one in controls.SOURCES for other in controls.TARGETS if one != other}
    assert pairs == networks | {("standard", name) for name in sklearn_learners.LEARNERS}
    kept = np.load(run.folder / "examples" / "standard.npz")
    change = (kept["untargeted"].astype(float) - test.images[:].numpy()) / 255
    sizes = np.sqrt((change**2).sum((1, 2, 3)))
    assert sizes.max() <= 0.75 + 1e-6
    scattered = (kept["random"].astype(float) - test.images[:].numpy()) / 255
    np.testing.assert_allclose(np.sqrt((scattered**2).sum((1, 2, 3))), sizes, atol=1e-6)
    standard, target = model(plan, run, "standard"), model(plan, run, "fresh-1")
    both = (predict.predict(standard, test) == test.labels) & (predict.predict(target, test) == test.labels)
    read = predict.predict(target, test.with_images(torch.from_numpy(kept["untargeted"])))
    [row] = [row for row in rows if (row["source"], row["target"], row["change"]) == ("standard", "fresh-1", "untargeted")]
    assert row["n"] == int(both.sum())
    assert row["unfooled"] == int((both & (read == test.labels)).sum())
    for row in rows:
        assert int(row["unfooled"]) + int(row["same"]) + int(row["other"]) == row["n"]


def test_bugs_mislead_their_model_and_not_those_that_were_to_be_left_alone(run: RunFolder, plan: StudyConfig) -> None:
    audited = {str(row["set"]): row for row in run.table("poison")}
    assert float(audited["next-labels-bugs"]["others_read_it"]) <= float(audited["next-labels"]["others_read_it"])
    stored, original = tasks.load_dataset(plan, run.folder, 0, "next-labels-bugs"), plan_of.load(plan).train
    assert (stored.labels == (original.labels + 1) % 10).all()
    change = (stored.pixels(slice(None)) - original.pixels(slice(None))).flatten(1).norm(dim=1)
    assert change.max() <= NormBall("l2", 1.5).epsilon + 1e-6


def test_the_page_tells_all_of_it_and_fits(run: RunFolder) -> None:
    page_file = report.write(run.folder)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(page_file.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached", timeout=15_000)
        assert complaints == []
        for place in ("controls", "transfer", "agreement", "crossed-attacked"):
            assert page.locator(f"#{place}").count() == 1
        assert page.locator("tbody tr:not(:has(th[scope=row]))").count() == 0
        lines = page.locator("table[aria-labelledby=controls-caption] >> nth=0 >> tbody tr")
        assert lines.count() == len(weighed.control_results(run).excesses())
        first = weighed.control_results(run).excesses()[0]
        assert first.excess.points in lines.first.inner_text()
        for chart in ("sweep-chart", "follows-chart"):
            assert page.locator(f"#{chart} svg").count() == 1
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()


def test_the_story_has_no_more_models_than_a_quick_one_has(run: RunFolder) -> None:
    columns, rows = results.accuracy_table(run)
    assert [row[0] for row in rows] == list(results.MODELS)
    assert columns[0] == "model"
    found = weighed.control_results(run).follows(results.accuracy_results(run))
    assert found is not None
    assert len(found.points) == 6
    assert -1 <= found.correlation.low <= found.correlation.mean <= found.correlation.high <= 1
    assert not math.isnan(found.correlation.mean)


def test_what_is_whole_is_not_done_again(run: RunFolder, tmp_path: Path) -> None:
    worked: list[str] = []
    pipeline.run(SMALL, run.folder, workers=1, report_progress=lambda stage, share, words: worked.append(stage))
    assert not worked
    assert RunFolder.read(run.folder).metadata["full"]  # a quick command on a full folder forgets nothing
