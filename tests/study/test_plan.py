"""What a study is going to do: passes that can be counted by hand, and the time of stages that share workers."""

from dataclasses import replace

import pytest
import torch
from study.conftest import QUICK_STUDY

from notbugs.study import plan
from notbugs.study.config import load, resolve
from notbugs.study.graph import StageId, StudyStage, study_graph

NOTHING = StudyStage((), lambda *_: [])


def stage(kind: str, name: str) -> StageId:
    return StageId(0, kind, name)  # type: ignore[arg-type]


def test_passes_are_images_times_steps() -> None:
    splits = load(QUICK_STUDY)
    config = replace(resolve(QUICK_STUDY, splits), epochs=7, invert_steps=30, relabel_steps=11, adversarial_steps=4, versions=2)
    train, test = len(splits.train), len(splits.test)
    standard, adversarial = (test * 2 * plan.ENSEMBLE_PASSES[name] for name in ("standard", "adversarial"))
    passes = {each: plan.stage_passes(stage(*each), config, splits) for each in (
        ("dataset", "robust"), ("dataset", "next-labels"), ("dataset", "random-labels-shuffled"), ("model", "standard"),
        ("model", "adversarial"))}  # fmt: skip
    assert list(passes.values()) == [train * 2 * 30, train * 11, 0, train * 7 + standard, train * 7 * 5 + adversarial]


def test_a_plan_has_what_is_left_and_its_time_is_measured() -> None:
    splits = load(QUICK_STUDY)
    config = resolve(QUICK_STUDY, splits)
    graph = study_graph(config)
    threads = torch.get_num_threads()
    made = plan.make_plan(config, splits, graph, list(graph)[3:], workers=2)
    assert list(made.stages) == [str(each) for each in list(graph)[3:]] and torch.get_num_threads() == threads
    assert sum(made.stages.values()) / 2 <= made.seconds * (1 + 1e-9) and made.seconds < sum(made.stages.values())
    assert made.distances.same_class < made.distances.other_class < made.distances.norm
    nothing = plan.make_plan(config, splits, graph, [])
    assert nothing.seconds == 0 and not nothing.stages


@pytest.mark.parametrize(("workers", "seconds"), [(1, 16.0), (2, 9.0), (3, 9.0)])
def test_stages_share_workers_in_the_order_of_their_needs(workers: int, seconds: float) -> None:
    """a (3) before b (6); c (5), d (2) at any time."""
    a, b, c, d = (stage("task", name) for name in "abcd")
    graph = {a: NOTHING, b: StudyStage((a,), NOTHING.work), c: NOTHING, d: NOTHING}
    assert plan._makespan(graph, {a: 3.0, b: 6.0, c: 5.0, d: 2.0}, workers) == seconds
    assert plan._makespan(graph, {b: 6.0}, workers) == 6.0  # what it needs is done
