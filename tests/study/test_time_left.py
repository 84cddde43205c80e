"""How long a study still takes."""

import pytest

from notbugs.study.time_left import TimeLeft

ESTIMATES = {"standard": 10.0, "adversarial": 30.0, "set of standard": 20.0, "set of adversarial": 20.0}
NEEDS = {"standard": (), "adversarial": (), "set of standard": ("standard",), "set of adversarial": ("adversarial",)}
KINDS = {"standard": "model", "adversarial": "model", "set of standard": "dataset", "set of adversarial": "dataset"}


def time_left(workers: int = 2, slower: float = 1.0) -> TimeLeft:
    return TimeLeft(ESTIMATES, NEEDS, KINDS, workers, slower)


def test_before_any_progress_it_is_the_schedule_of_the_estimates() -> None:
    assert time_left().seconds(0) == 50 and time_left(1).seconds(0) == 80 and time_left(slower=1.5).seconds(0) == 75


def test_stages_of_a_kind_are_as_much_longer_than_estimated_as_each_other() -> None:
    """The model took thrice as long, and the set half as long: the other model takes 90 s, and then the other set 10."""
    left = time_left(1)
    left.report("standard", 0.0, 0)
    left.ended("standard", 30)
    assert left.seconds(30) == 3 * (30 + 20 + 20)  # nothing is known of sets
    left.report("set of standard", 0.0, 30)
    left.report("set of standard", 0.5, 35)
    assert left.seconds(35) == 5 + 90 + 10
    left.ended("set of standard", 40)
    assert left.seconds(40) == 90 + 10


def test_time_runs_between_reports_and_late_progress_makes_a_stage_longer() -> None:
    left = TimeLeft({"a": 1.0}, {"a": ()}, {}, 1)
    left.report("a", 0.0, 0)
    left.report("a", 0.25, 10)
    assert left.seconds(10) == 30 and left.seconds(18) == 22
    assert left.seconds(40) == pytest.approx(80 * 0.75 - 30)  # still less than half in 40 s
    left.report("a", 0.25, 44)  # the same again is no progress
    assert left.seconds(40) == pytest.approx(30)


def test_what_an_earlier_command_did_is_not_counted() -> None:
    left = TimeLeft({"a": 1.0, "b": 1.0}, {"a": (), "b": ()}, {}, 1)
    left.report("a", 0.0, 0)
    left.goes_on("a", 0.8, 5)
    left.report("a", 0.9, 15)
    assert left.seconds(15) == pytest.approx(10 + 100)
    left.ended("a", 25)
    assert left.seconds(25) == pytest.approx(100)


def test_a_set_that_is_constructed_again_begins_again() -> None:
    left = TimeLeft({"a": 1.0}, {"a": ()}, {}, 1)
    left.report("a", 0.0, 0)
    left.report("a", 1.0, 100)
    left.report("a", 0.01, 101)
    assert left.seconds(101) > 0.5
    left.report("a", 0.11, 111)
    assert left.seconds(111) == pytest.approx(89)


def test_the_rest_of_a_stage_that_was_nearly_done_says_nothing_of_others() -> None:
    left = TimeLeft({"a": 10.0, "b": 10.0}, {"a": (), "b": ()}, {}, 1)
    left.goes_on("a", 0.995, 0)
    left.ended("a", 30)  # loading and writing
    assert left.seconds(30) == 10


def test_what_waits_in_an_executor_does_not_work() -> None:
    """16 trainings were given to a pool of 4."""
    names = [str(number) for number in range(16)]
    left = TimeLeft(dict.fromkeys(names, 100.0), dict.fromkeys(names, ()), {}, None)
    for name in names:
        left.report(name, 0.0, 0)
    assert left.seconds(0) == 1600  # nobody knows how many work
    for name in names[:4]:
        left.report(name, 0.01, 10)
        left.report(name, 0.11, 20)
    assert left.seconds(20) == pytest.approx(89 + 3 * 100)


def test_stages_that_are_not_foreseen_or_cost_nothing_change_nothing() -> None:
    left = TimeLeft({"a": 0.0, "b": 5.0}, {"a": (), "b": ("a",)}, {}, 2)
    left.report("other", 0.5, 0)
    left.ended("other", 3)
    left.ended("a", 3)
    assert left.seconds(3) == 5
