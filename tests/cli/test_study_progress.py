"""What the terminal shows of a study."""

import io
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn
from study.conftest import QUICK_STUDY

from notbugs.attacks import ensemble_name
from notbugs.cli import study_progress
from notbugs.cli.study_progress import StudyProgress, duration, faster_options, found_in, plan_lines
from notbugs.data.names import Unreadable
from notbugs.runs.tables.study import AccuracyRow, SetRow, TrainingRow
from notbugs.study.config import load
from notbugs.study.epsilon import NeighborDistances, as_on_cifar
from notbugs.study.plan import Plan
from notbugs.study.resolve import resolve

SEEDS: Any = {"seed": 0, "ci_low": 0.0, "ci_high": 1.0, "correct": 1, "n": 20, "trained_on": "robust", "norm": "l2"}


@pytest.fixture(scope="module")
def plan() -> Plan:
    splits = load(QUICK_STUDY)
    stages = {"seed0/standard": 30.0, "seed0/dataset-robust": 10.0}
    titles = {"seed0/standard": "training: standard model", "seed0/dataset-robust": "construction: D_R"}
    distances = NeighborDistances(1.08, 1.89, 3.9, same_scene=False)
    needs: dict[str, tuple[str, ...]] = {"seed0/standard": (), "seed0/dataset-robust": ("seed0/standard",)}
    return Plan(resolve(QUICK_STUDY, splits), splits, distances, stages, 2, 40.0, titles=titles, needs=needs)


def row(epsilon: float, accuracy: float, model: str = "trained-on-robust", budget: str = "") -> AccuracyRow:
    attack = ensemble_name(budget) if budget else "none"
    return AccuracyRow(model=model, set="test", epsilon=epsilon, attack=attack, accuracy=accuracy, **SEEDS)


def shown(terminal: bool) -> tuple[StudyProgress, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    display = Progress(TextColumn("{task.description} {task.fields[words]}"), console=console, disable=not terminal)
    return StudyProgress(display), out


def test_the_plan_says_what_epsilon_is_beside_distances_and_how_long_it_takes(plan: Plan) -> None:
    data, few, fixed, limited, epsilon, network, time = plan_lines(plan)
    counts = "200 of 1,347 training and 20 of 450 test images"
    assert limited == f"Data: --limit 200: {counts}, the first of each class. Listed in tables/data_files.csv."
    assert fixed == "Data: the test part is 25% of each class, 450 images, the same for every seed."
    assert data == "digits: 200 training and 20 test images, 8x8, gray, 10 classes."
    assert few == (
        "Few test images: with 20 a difference between two accuracies is hardly seen below 31 percentage points. "
        "For 10 about 200 are needed."
    )
    many = replace(plan, splits=plan.splits._replace(test=plan.splits.train))
    assert not [line for line in plan_lines(many) if line.startswith("Few")]
    assert epsilon == (
        "L2 ε = 0.75. It was chosen by notbugs (--epsilon changes it), for this data set. The nearest image of another class is "
        "1.89 away (median), of the same class 1.08. A typical image has norm 3.9."
    )
    assert list(plan_lines(replace(plan, relabels=True)))[4] == f"{epsilon} Relabeling: ε = 1.5."
    assert network == "small of width 8, 2 epochs, 1 seed, on cpu."
    flips = list(plan_lines(replace(plan, config=replace(plan.config, flip=True))))
    assert flips[5] == "small of width 8, 2 epochs, 1 seed, random horizontal flips, on cpu."
    assert time == "2 stages, 2 at once: about 40 seconds, estimated from timed batches."
    again = list(plan_lines(replace(plan, begun=["seed0/standard"])))
    assert again[-2:] == [time, "Less than that: what was interrupted resumes where it was (training: standard model)."]
    set_by_option = replace(plan, config=replace(plan.config, epsilon_from="option"))
    assert list(plan_lines(set_by_option))[4].startswith("L2 ε = 0.75. It was set by --epsilon. The nearest image")
    scenes = replace(plan, distances=plan.distances._replace(same_scene=True))
    assert "Keep all images of a scene in one part, with --group" in list(plan_lines(scenes))[5]
    splits = plan.splits._replace(notes=("no test part",), left_out=(Unreadable("a.png", "is damaged"),))
    noted = replace(plan, splits=splits, stages={})
    lines = list(plan_lines(noted))
    assert lines[2] == "Data: no test part." and lines[3].startswith("Left out: 1 file (1: is damaged).")
    assert lines[-1] == "Everything is done already."


def test_an_epsilon_from_distances_stands_beside_that_by_the_number_of_pixels(plan: Plan) -> None:
    def said(epsilon: float, epsilon_from: str) -> str:
        config = replace(plan.config, epsilon=epsilon, epsilon_from=epsilon_from)
        return "\n".join(plan_lines(replace(plan, config=config)))

    usual = as_on_cifar(plan.splits.train.shape)
    assert f"1.5 times as much per pixel as 0.5 on CIFAR-10: as much would be --epsilon {usual:.4g}." in said(1.5 * usual, "gap")
    assert f"a person can see such perturbations. For perturbations that are hardly visible: --epsilon {usual:.4g}." in said(
        3 * usual, "gap"
    )
    assert "per pixel as 0.5" not in said(usual, "gap") + said(3 * usual, "option")


def test_a_long_study_names_what_would_be_faster(plan: Plan) -> None:
    splits, config = SimpleNamespace(train=Sized((3, 256, 224), 4000)), SimpleNamespace(seeds=2)
    large = SimpleNamespace(seconds=8 * 3600.0, splits=splits, config=config)
    assert faster_options(large) == [  # type: ignore[arg-type]
        "--resize 64 (about 30 minutes)",
        "--limit 1000 (about 2 hours)",
        "--seeds 1 (about 4 hours)",
    ]
    assert faster_options(plan) == []


class Sized:
    """As much of a data set as the plan looks at."""

    def __init__(self, shape: tuple[int, ...], count: int) -> None:
        self.shape, self.count = shape, count

    def __len__(self) -> int:
        return self.count


def test_what_a_stage_found_is_in_its_line() -> None:
    assert found_in([row(0.0, 0.957), row(0.75, 0.853)]) == "95.7 % clean, 85.3 % at L2 0.75"
    curve = [row(0.0, 0.957), row(0.5, 0.9, budget="quick"), row(0.75, 0.853, budget="standard")]
    assert found_in(curve) == "95.7 % clean, 85.3 % at L2 0.75" and found_in(curve[:2]) == "95.7 % clean, 90.0 % at L2 0.5"
    assert found_in([row(0.0, 0.9), row(0.0, 0.8, "standard")]) == "" and found_in([]) == ""
    epochs = [
        TrainingRow(model="standard", seed=0, epoch=n, loss=1.0, accuracy=n / 4, learning_rate=0.1, seconds=1.0) for n in (1, 3)
    ]
    assert found_in(epochs) == "accuracy in training 75.0 %"
    common: Any = {"seed": 0, "n": 9, "made_from": "standard", "seconds": 1.0}
    assert found_in([SetRow(set="robust", feature_error=0.0581, **common)]) == "feature error 0.058"
    assert found_in([SetRow(set="next-labels", target_reached=0.94, epsilon=1.5, **common)]) == (
        "new label reached for 94.0 % of the images within ε = 1.5"
    )
    few = SetRow(set="random-labels", target_reached=1.0, empty_classes="cat, dog", **common)
    assert found_in([few]).endswith("100.0 % of the images; WARNING: no image has the label cat, dog")


def test_without_a_terminal_stages_are_lines_and_silence_is_broken(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(study_progress.time, "monotonic", lambda: now[0])
    progress, out = shown(False)
    progress.on_plan(plan)
    progress.on_progress("seed0/standard", 0.0, "")
    now[0] += 45
    progress.on_progress("seed0/standard", 0.25, "epoch 1 of 4")
    assert "running" not in out.getvalue()
    now[0] += 45  # half of 30 s took 90: another 90, and then 60 of the stage that needs it
    progress.on_progress("seed0/standard", 0.5, "epoch 2 of 4")
    said = "running: stage 1 of 2: training: standard model 50 %; 0 of 2 stages done, about 2 minutes left\n"
    assert said in out.getvalue() and progress.left is not None and progress.left.seconds(now[0]) == 150
    progress.on_stage("seed0/standard", [row(0.0, 0.5)], 91.0)
    progress.on_progress("seed0/standard", 1.0, "")
    assert out.getvalue().endswith("done: training: standard model (1 of 2, 91 s): 50.0 % clean\n")
    assert progress.share == 0.75


def test_a_long_start_is_not_silent(plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = "Reading and checking the images; then a few batches are timed.\n"
    monkeypatch.setattr(study_progress, "SILENT", 0.05)
    with study_progress.study_progress():
        time.sleep(0.3)
    assert capsys.readouterr().err == said
    with study_progress.study_progress() as quick:
        quick.on_plan(plan)
        capsys.readouterr()
        time.sleep(0.3)
    assert capsys.readouterr().err == ""


def test_time_left_counts_what_this_command_did(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier command had half of a stage done: a third of it takes 60 s, so that the last sixth takes 30, and the next 60."""
    now = [100.0]
    monkeypatch.setattr(study_progress.time, "monotonic", lambda: now[0])
    progress, _ = shown(True)
    progress.on_plan(replace(plan, begun=["seed0/standard"]))
    for share in (0.0, 0.5):
        progress.on_progress("seed0/standard", share, "")
    now[0] += 60
    progress.on_progress("seed0/standard", 5 / 6, "")
    assert progress.share == pytest.approx(5 / 8)
    assert progress.left is not None and progress.left.seconds(now[0]) == pytest.approx(90)
    assert progress.display.tasks[0].fields["words"] == "about 90 seconds left"


def test_a_terminal_has_a_bar_for_all_stages_and_one_for_each_that_runs(plan: Plan) -> None:
    progress, _ = shown(True)
    progress.on_plan(plan)
    progress.on_progress("seed0/dataset-robust", 0.5, "step 1")
    described = {task.description: task.completed for task in progress.display.tasks}
    assert described == {"all stages: 0 of 2 done": 0.125, "stage 1 of 2: construction: D_R": 0.5}
    progress.on_stage("seed0/dataset-robust", [], 9.0)
    progress.on_progress("seed0/dataset-robust", 1.0, "")
    assert {task.description: task.completed for task in progress.display.tasks} == {"all stages: 1 of 2 done": 0.25}


def test_long_titles_leave_room_for_the_percentage(plan: Plan) -> None:
    progress, _ = shown(True)
    progress.on_plan(replace(plan, titles={"seed0/standard": "evaluation: " + "long " * 30}))
    progress.on_progress("seed0/standard", 0.5, "step 1")
    (_, task) = progress.display.tasks
    assert task.description.startswith("stage 1 of 2: evaluation: long") and task.description.endswith("…")
    assert len(task.description) == 100 - study_progress.BESIDE


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "10 seconds"), (44, "40 seconds"), (89, "90 seconds"), (100, "2 minutes"), (3500, "58 minutes"), (18000, "5 hours")],
)
def test_a_duration_is_no_more_precise_than_an_estimate(seconds: float, text: str) -> None:
    assert duration(seconds) == f"about {text}"
