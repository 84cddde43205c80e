"""Jobs run in the order of their needs, here or in processes of their own; errors end what they must and nothing else."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import scheduler_jobs as jobs

from notbugs.errors import InputError
from notbugs.runs.scheduler import Job, default_workers, describe_machine, ignore_progress, run_graph


def squares(**needs: tuple[str, ...]) -> dict[str, Job[int]]:
    return {name: Job(need, partial(jobs.square, number)) for number, (name, need) in enumerate(needs.items())}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_results_come_in_an_order_that_respects_needs(workers: int) -> None:
    graph = squares(d=("b", "c"), b=("a",), c=("a",), a=())
    found = dict(run_graph(graph, workers, ignore_progress))
    assert found == {"d": 0, "b": 1, "c": 4, "a": 9}
    order = list(found)
    assert order[0] == "a" and order[-1] == "d"


def test_of_ready_jobs_the_first_of_the_mapping_starts_first() -> None:
    assert [name for name, _ in run_graph(squares(c=(), a=("c",), b=()), 1, ignore_progress)] == ["c", "a", "b"]


@pytest.mark.slow
def test_one_worker_runs_here_and_more_run_in_processes_of_their_own() -> None:
    graph = {name: Job((), jobs.process_id) for name in "ab"}
    assert {pid for _, pid in run_graph(graph, 1, ignore_progress)} == {os.getpid()}
    assert os.getpid() not in {pid for _, pid in run_graph(graph, 2, ignore_progress)}
    assert [pid for _, pid in run_graph({"a": graph["a"]}, 2, ignore_progress)] == [os.getpid()]  # one job needs no process


@pytest.mark.slow
def test_a_worker_has_one_thread() -> None:
    graph = {name: Job((), jobs.threads) for name in "ab"}
    assert {count for _, count in run_graph(graph, 2, ignore_progress)} == {1}


@pytest.mark.slow
def test_jobs_run_at_the_same_time(tmp_path: Path) -> None:
    graph = {"wait": Job((), partial(jobs.wait_for, tmp_path / "a")), "touch": Job((), partial(jobs.touch, tmp_path / "a"))}
    assert dict(run_graph(graph, 2, ignore_progress)) == {"wait": 1, "touch": 2}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_progress_starts_at_0_and_ends_at_1_once_the_result_is_kept(workers: int) -> None:
    events: list[Any] = []
    for name, _ in run_graph(squares(a=(), b=("a",)), workers, lambda *event: events.append(event)):
        events.append(("kept", name))
    for name in "ab":
        start, kept, end = (events.index(event) for event in ((name, 0.0, ""), ("kept", name), (name, 1.0, "")))
        assert start < kept < end
    assert events.index(("a", 1.0, "")) < events.index(("b", 0.0, ""))
    assert ("", 0.5, "squaring 1") in events


@pytest.mark.slow
def test_an_input_error_lets_the_jobs_beside_it_finish_and_starts_no_new_one(tmp_path: Path) -> None:
    graph = {
        "fails": Job((), jobs.fail),
        "beside": Job((), partial(jobs.square, 3)),
        "after": Job(("beside",), partial(jobs.touch, tmp_path / "a")),
    }
    found: dict[str, int] = {}
    with pytest.raises(InputError, match=r"^--epsilon: must be above 0, got -1; give another$"):
        found.update(run_graph(graph, 2, ignore_progress))
    assert found in ({"beside": 9}, {"beside": 9, "after": 2})  # after, if it had started before the failure was seen


@pytest.mark.slow
def test_another_error_ends_everything() -> None:
    with pytest.raises(KeyError, match="bug"):
        list(run_graph({"a": Job((), jobs.fail_otherwise), "b": Job((), partial(jobs.square, 3))}, 2, ignore_progress))
    with pytest.raises(KeyError, match="bug"):
        list(run_graph({"a": Job((), jobs.fail_otherwise)}, 1, ignore_progress))


@pytest.mark.slow
def test_a_killed_process_is_one_line_and_what_finished_beside_it_is_kept() -> None:
    graph = {"a": Job((), jobs.die), "b": Job((), partial(jobs.square, 3)), "c": Job(("a",), partial(jobs.square, 4))}
    found: dict[str, int] = {}
    with pytest.raises(InputError, match=r"^a: its process was killed; if memory ran out, use --workers 1$"):
        found.update(run_graph(graph, 2, ignore_progress))
    assert found == {"b": 9}
    with pytest.raises(InputError, match=r"^a: its process ended with exit code 9; if memory ran out"):
        list(run_graph({**graph, "a": Job((), jobs.leave)}, 2, ignore_progress))


def test_a_circle_is_an_error() -> None:
    from graphlib import CycleError

    with pytest.raises(CycleError):
        list(run_graph(squares(a=("b",), b=("a",)), 1, ignore_progress))


def test_workers_and_machine() -> None:
    assert default_workers("cuda") == 1 and 1 <= default_workers("cpu") <= (os.cpu_count() or 1)
    assert describe_machine("cpu").endswith(" cores")
