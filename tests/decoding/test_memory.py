"""Memory that threads share."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from notbugs.decoding.memory import Memory


def test_one_that_needs_more_than_is_left_waits() -> None:
    memory, waits = Memory(4), Event()

    def take(needed: int) -> bool:
        waits.set()
        with memory.taken(needed):
            return held

    with ThreadPoolExecutor(1) as pool:
        held = True
        with memory.taken(3):
            with memory.taken(1):  # fits beside it
                pass
            other = pool.submit(take, 2)
            waits.wait()
            with pytest.raises(TimeoutError):
                other.result(0.01)
            held = False
        assert other.result() is False


def test_one_that_needs_more_than_all_is_alone() -> None:
    memory = Memory(4)
    with ThreadPoolExecutor(1) as pool:
        with memory.taken(100):
            other = pool.submit(memory.taken(1).__enter__)
            with pytest.raises(TimeoutError):
                other.result(0.01)
        other.result()


def test_memory_is_given_back_after_an_error() -> None:
    memory = Memory(4)
    for _ in range(2):
        with pytest.raises(RuntimeError), memory.taken(4):
            raise RuntimeError
