"""Worker processes that end with the work, and whose failures are left to the caller."""

import os
import subprocess
from typing import Any

import pytest

from notbugs.decoding import processes
from notbugs.decoding.processes import available_cores, map_in_processes


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started."""
    found, start = [], subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        found.append(start(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    return found


def test_results_come_in_order_and_failures_are_none(
    monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]
) -> None:
    monkeypatch.setattr(processes, "CHUNK", 3)
    found = map_in_processes(int, [*"12x4567"].__getitem__, 7, 2)
    assert next(found) == 1 and all(each.poll() is None for each in started)
    assert list(found) == [2, None, 4, 5, 6, 7]
    assert len(started) == 2 and all(each.poll() is not None for each in started)


def test_processes_end_when_the_caller_stops(started: list[subprocess.Popen[bytes]]) -> None:
    found = map_in_processes(abs, int, 1000, 1)
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]
    assert started[0].poll() is not None


def test_what_a_dead_process_did_not_do_is_left_to_the_caller() -> None:
    assert list(map_in_processes(os._exit, int, 3, 1)) == [None] * 3


def test_an_item_that_cannot_be_made_is_left_to_the_caller() -> None:
    assert list(map_in_processes(abs, [1].__getitem__, 2, 1)) == [None] * 2


def test_a_process_of_a_pool_has_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    assert available_cores() == 1
