"""One function on many items: in this thread if they are short, else in several; in processes if they are short and many."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.conftest import equal, image_folder, save
from PIL import Image

from notbugs import data
from notbugs.data import images, parallel
from notbugs.data.names import Unreadable
from notbugs.data.parallel import TIMED, in_threads, map_images
from notbugs.decoding import processes


@pytest.mark.parametrize("count", [0, 1, TIMED, TIMED + 1, 400])
def test_one_result_for_each_item_in_order(count: int) -> None:
    threads = set()

    def double(item: int) -> int:
        threads.add(threading.get_ident())
        return 2 * item

    assert in_threads(double, range(count)) == [2 * item for item in range(count)]
    assert count > 5 * TIMED or threads <= {threading.get_ident()}


def test_long_items_are_left_to_threads() -> None:
    threads = []

    def wait(item: int) -> int:
        threads.append(threading.get_ident())
        time.sleep(0.006)
        return item

    assert in_threads(wait, range(20)) == list(range(20))
    assert threads[:TIMED] == [threading.get_ident()] * TIMED and threading.get_ident() not in threads[TIMED:]


def test_failures_are_listed_with_the_place_of_their_item() -> None:
    found, failures = map_images(
        bytes.decode, bytes.decode, [b"x", b"\xff", b"y"], ["a", "b", "c"], lambda row, text: f"{row}{text}"
    )
    reason = "cannot be read as an image ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte)"
    assert found == ["0x", None, "2y"] and failures == [Unreadable("b", reason)]


@pytest.fixture
def all_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, any item can take long."""
    for name in ("LONG", "WAITING"):
        monkeypatch.setattr(parallel, name, float("inf"))


@pytest.mark.usefixtures("all_short")
def test_short_items_go_to_processes_if_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(rest: range) -> list[int]:
        return [-item for item in rest]

    assert in_threads(abs, range(20), elsewhere) == [*range(20)]
    monkeypatch.setattr(parallel, "WORTH_PROCESSES", 0)
    assert in_threads(abs, range(20), elsewhere) == [*range(TIMED), *range(-TIMED, -20, -1)]


@pytest.mark.usefixtures("all_short")
@pytest.mark.parametrize("cores", [1, 2])
def test_one_core_starts_no_processes(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    asked = []
    monkeypatch.setattr(parallel, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(parallel, "available_cores", lambda: cores)
    monkeypatch.setattr(parallel, "map_in_processes", lambda *arguments: asked.append(arguments) or [None] * arguments[2])
    assert map_images(len, len, [b"x"] * 20, ["a"] * 20, lambda row, length: row + length) == ([*range(1, 21)], [])
    assert len(asked) == cores - 1


@pytest.mark.slow
@pytest.mark.usefixtures("all_short")
def test_processes_find_the_pixels_notes_and_failures_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path, each=9)
    save(Image.fromarray(np.linspace(0, 900, 54).reshape(6, 9).astype(np.uint16)), tmp_path / "train/dog/deep.png")
    (tmp_path / "train/dog/damaged.png").write_bytes((tmp_path / "train/dog/1.png").read_bytes()[:60])
    (tmp_path / "test/dog/none.png").write_bytes(b"")
    one = data.load(tmp_path, skip_unreadable=True, resize=4)
    assert len(one.left_out) == 2 and len(one.notes) == 3
    values = []

    def recorded(*arguments: Any) -> Iterator[Any]:
        for value in processes.map_in_processes(*arguments):
            values.append(value)
            yield value

    monkeypatch.setattr(parallel, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(parallel, "map_in_processes", recorded)
    monkeypatch.setattr(processes, "CHUNK", 2)
    monkeypatch.setattr(images, "SAMPLE", TIMED)  # headers that are read first
    monkeypatch.setattr(parallel, "available_cores", lambda: 3)
    several = data.load(tmp_path, skip_unreadable=True, resize=4)
    assert equal(several.train, one.train) and equal(several.test, one.test)
    assert several.notes == one.notes and several.left_out == one.left_out
    assert len(values) == 39 - TIMED and values.count(None) == 2
