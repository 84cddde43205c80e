"""One function on many items: in this thread if they are short, else in several."""

import threading
import time

import pytest

from notbugs.data.names import Unreadable
from notbugs.data.threads import TIMED, in_threads, map_in_threads


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
    found, failures = map_in_threads(lambda item: 6 // item, [3, 0, 2], ["a", "b", "c"])
    reason = "cannot be read as an image (integer division or modulo by zero)"
    assert found == [2, None, 3] and failures == [Unreadable("b", reason)]
