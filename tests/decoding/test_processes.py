"""Worker processes that end with the work, and whose failures are left to the caller."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sessions import python, wait_until_empty

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
    monkeypatch.setattr(processes, "MOST_BYTES", 2)
    found = map_in_processes(int, [bytes([sign]) for sign in b"12x4567"].__getitem__, 7, 2)
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


@pytest.mark.parametrize("cell", [False, True])
def test_few_large_items_go_to_a_process_at_once(monkeypatch: pytest.MonkeyPatch, cell: bool) -> None:
    monkeypatch.setattr(processes, "MOST_BYTES", 10)
    contents = [b"1234", b"12345678", b"12", b"1" * 20, b"12345678", b"1"]
    items = [{"bytes": content, "path": None} if cell else content for content in contents]
    asked, numbers = list[int](), range(len(items))
    while numbers:
        asked.append(len(processes._first_items(items.__getitem__, numbers)))
        numbers = numbers[asked[-1] :]
    assert asked == [2, 2, 2], "until they have 10 bytes"
    assert len(processes._first_items(str, range(9))) == 9, "paths"


def test_a_process_of_a_pool_has_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    assert available_cores() == 1


DECODING = """
import sys
from sessions import touch_and_sleep
from notbugs.decoding.processes import map_in_processes
list(map_in_processes(touch_and_sleep, lambda number: sys.argv[1], 1, 1))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process does first what it was given")
def test_processes_end_with_a_caller_that_is_killed(tmp_path: Path) -> None:
    with python(DECODING, tmp_path / "begun") as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.kill()
        assert wait_until_empty(process.pid) == []
        assert process.communicate()[1] == ""
