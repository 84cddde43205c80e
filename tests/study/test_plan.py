"""What a study is going to do, and the time of stages that share workers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from study.conftest import QUICK_STUDY

from notbugs import models
from notbugs.runs.scheduler import start_seconds, times_longer
from notbugs.study import cost, plan
from notbugs.study.config import StudyConfig, load
from notbugs.study.cost import Speed
from notbugs.study.given import given_model
from notbugs.study.graph import StageId, StudyStage, study_graph
from notbugs.study.resolve import resolve
from notbugs.study.time_left import makespan

NOTHING = StudyStage((), lambda *_: [])
SPEED = Speed(train=1e-3, gradient=1e-4, call=1e-2, query=1e-5)


def stage(kind: str, name: str) -> StageId:
    return StageId(0, kind, name)  # type: ignore[arg-type]


def test_a_plan_has_what_is_left_and_its_time_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "measure_speed", lambda *_, **__: SPEED)
    splits = load(QUICK_STUDY)
    config = resolve(QUICK_STUDY, splits)
    graph = study_graph(config)
    made = plan.make_plan(config, splits, graph, list(graph)[3:], workers=1)
    assert list(made.stages) == [str(each) for each in list(graph)[3:]]
    assert list(made.titles.values()) == [each.title for each in list(graph)[3:]]
    several = plan.make_plan(replace(config, seeds=2), splits, graph, list(graph)[:1], workers=1)
    assert [*several.titles.values()] == ["training: adversarially trained model, seed 0"]
    assert made.seconds == pytest.approx(start_seconds(1) + sum(made.stages.values())) and min(made.stages.values()) > 0
    assert start_seconds(2) > start_seconds(1) > 0
    assert [times_longer(wall, 2) for wall in (1, 3, 9)] == [1, 1.5, 2]
    ticks = iter([0.0, 3.0])
    monkeypatch.setattr(plan.cost, "CLOCK", lambda: next(ticks))  # three seconds pass while two are computed
    monkeypatch.setattr(plan.time, "process_time", iter([0.0, 2.0]).__next__)
    assert plan.make_plan(config, splits, graph, list(graph)[-1:], workers=2).seconds == pytest.approx(
        1.5 * (start_seconds(2) + made.stages[str(list(graph)[-1])])
    )
    monkeypatch.undo()
    nothing = plan.make_plan(config, splits, graph, [])
    assert nothing.seconds == 0 and not nothing.stages


@pytest.mark.slow
def test_each_network_is_timed_once_with_the_threads_of_a_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    splits = load(QUICK_STUDY)
    models.save(models.build("small", shape=splits.train.shape, classes=10, width=4), tmp_path / "mine.safetensors")
    config = resolve(replace(QUICK_STUDY, model=str(tmp_path / "mine.safetensors"), full=True), splits)
    timed: list[tuple[str, bool, bool]] = []

    def measure(_: object, __: object, model: models.Model, *, one_thread: bool, trained: bool = True) -> Speed:
        timed.append((str(model.architecture["name"]), one_thread, trained))
        return SPEED

    monkeypatch.setattr(plan, "measure_speed", measure)
    graph, given = study_graph(config), given_model(config)
    made = plan.make_plan(config, splits, graph, list(graph), workers=2, given=given)
    assert sorted(timed) == sorted(
        [("small", True, True), ("small", True, False)]
        + [(name, True, True) for name in ("linear", "vgg", "resnet", "densenet", "inception", "mixer")]
    )
    assert made.given is given and made.given_accuracy and made.given_accuracy.n == len(splits.test)


@pytest.mark.slow
def test_speed_is_measured_and_leaves_the_network_and_the_threads_as_they_were() -> None:
    splits = load(QUICK_STUDY)
    config, threads = resolve(QUICK_STUDY, splits), torch.get_num_threads()
    model = models.build("small", shape=splits.train.shape, classes=10, width=8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    speed = cost.measure_speed(config, splits.train, model, one_thread=True)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert 0 < speed.gradient < 0.01 and 0 < speed.train < 0.01 and 0 <= speed.call < 1 and 0 < speed.query < 0.1
    assert cost.measure_speed(config, splits.train, model, trained=False).train == 0


# ---- what stages cost --------------------------------------------------------------------------------------------------------


def test_training_and_constructions_cost_images_times_steps() -> None:
    splits = load(QUICK_STUDY)
    config = replace(resolve(QUICK_STUDY, splits), epochs=7, invert_steps=30, relabel_steps=11, adversarial_steps=4, versions=2)
    count = len(splits.train)  # 200 in batches of 250, or of 128 in training

    def seconds(kind: str, name: str) -> float:
        return cost.stage_seconds(stage(kind, name), config, splits, SPEED) - cost.STAGE_SECONDS

    written = count * cost.WRITE_SECONDS
    assert seconds("dataset", "robust") == pytest.approx(31 * (2 * count * 1e-4 + 2 * 1e-2) + 2 * written)
    assert seconds("dataset", "next-labels") == pytest.approx(11 * (count * 1e-4 + 1e-2) + written)
    assert seconds("dataset", "random-labels-shuffled") == pytest.approx(written)
    assert seconds("model", "adversarial") == pytest.approx(7 * (count * 1e-3 + 4 * (count * 1e-4 + 2 * 1e-2)))
    assert seconds("learner", "boosting") == pytest.approx(10 * count * 64 * 2e-6)  # by class
    assert seconds("learner", "rbf-svm") == pytest.approx(count**2 * 64 * 6e-10)
    assert seconds("learner", "nearest-neighbors") == pytest.approx(count * 64 * 5e-7)
    attacked = cost._ensemble_seconds(cost.MODELS["adversarial"], config, splits, SPEED)
    assert seconds("evaluation", "adversarial") == pytest.approx(attacked)


def test_an_ensemble_costs_its_steps_and_the_quick_one_black_box_queries_in_few_pixels() -> None:
    splits = load(QUICK_STUDY)
    config = resolve(QUICK_STUDY, splits)
    found = cost._ensemble_seconds(cost.MODELS["standard"], config, splits, SPEED)
    gradients = 2 * ((19 * 0.52 + 43) * len(splits.test) * 1e-4 + (19 * 1.0 + 280) * 1e-2)
    curve = cost.CURVE_PASSES * (len(splits.test) * 1e-4 + 1e-2)
    assert found == pytest.approx(gradients + curve)
    quick = cost._ensemble_seconds(cost.MODELS["reinit-1"], config, splits, SPEED)
    steps = 19 * (0.52 * len(splits.test) * 1e-4 + 1.0 * 1e-2)
    assert quick == pytest.approx(steps + (len(splits.test) / 50) * 100 * 1e-5)
    large = StudyConfig("planted", limit=40)
    quick = cost._ensemble_seconds(cost.MODELS["reinit-1"], resolve(large, load(large)), load(large), SPEED)
    assert quick == pytest.approx(19 * (0.52 * len(load(large).test) * 1e-4 + 1.0 * 1e-2))


def test_a_given_model_costs_its_attacks_once() -> None:
    splits = load(QUICK_STUDY)
    config = replace(resolve(QUICK_STUDY, splits), model="mine:net", seeds=2)
    first, second = (cost.stage_seconds(StageId(seed, "evaluation", "standard"), config, splits, SPEED) for seed in (0, 1))
    attacked = cost._ensemble_seconds(cost.MODELS["standard"], config, splits, SPEED)
    assert (first, second) == (pytest.approx(cost.STAGE_SECONDS + attacked), cost.STAGE_SECONDS)
    assert (
        cost.network_of(stage("dataset", "nonrobust"), config)
        == cost.network_of(stage("evaluation", "standard"), config)
        == "standard"
    )
    assert cost.network_of(stage("dataset", "robust"), config) == "" and cost.network_of(stage("model", "vgg"), config) == "vgg"


@pytest.mark.parametrize(("workers", "seconds"), [(1, 16.0), (2, 9.0), (3, 9.0)])
def test_stages_share_workers_in_the_order_of_their_needs(workers: int, seconds: float) -> None:
    """a (3) before b (6); c (5), d (2) at any time."""
    a, b, c, d = (stage("task", name) for name in "abcd")
    needs: dict[StageId, tuple[StageId, ...]] = {a: (), b: (a,), c: (), d: ()}
    assert makespan(needs, {a: 3.0, b: 6.0, c: 5.0, d: 2.0}, workers) == seconds
    assert makespan(needs, {b: 6.0}, workers) == 6.0  # what it needs is done
