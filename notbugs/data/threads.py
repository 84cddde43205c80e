"""One function applied to many items, in threads where that is faster."""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from notbugs.data.names import Unreadable, first_line

Item = TypeVar("Item")
Value = TypeVar("Value")

THREADS = min(16, os.cpu_count() or 1)
LEAST_TIMED, TIMED = 5, 15  # items
LONG, WAITING = 4e-4, 4e-3  # seconds for one: of CPU time, and of any time, which a slow disk takes
FIRST_AHEAD = 250  # items that threads take before some are timed again


def map_in_threads(
    function: Callable[[Item], Value], items: Sequence[Item], locations: Sequence[str]
) -> tuple[list[Value | None], list[Unreadable]]:
    """Apply a function to each item, in threads where that is faster.

    Parameters
    ----------
    function : callable
        Decodes an image, or reads its header.
    items : sequence
    locations : sequence of str
        Where each item is, for messages.

    Returns
    -------
    (list, list of Unreadable)
        One result per item, None where the function failed; and the failures.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings on big images and odd metadata: we refuse, or it does not matter
        results = in_threads(lambda item: _attempt(function, item), items)
    failures = [Unreadable(location, reason) for location, (_, reason) in zip(locations, results, strict=True) if reason]
    return [value for value, _ in results], failures


def in_threads(function: Callable[[Item], Value], items: Sequence[Item]) -> list[Value]:
    """One result per item, in order. A few items are timed first, and again later: if they are short, they stay in this thread.

    Pillow decodes without the interpreter lock, but small images wait longer for that lock than they take: two threads need
    0.31 ms for an image of 32x32 pixels, one needs 0.16; of 224x224 pixels 0.75 and 1.31 ms. CPU time decides, because on a busy
    machine small images take long, too.
    """
    results: list[Value] = []
    ahead = FIRST_AHEAD
    with ThreadPoolExecutor(THREADS) as pool:
        while len(results) < len(items):
            began, worked = time.perf_counter(), time.thread_time()
            for count, item in enumerate(items[len(results) : len(results) + TIMED], start=1):
                results.append(function(item))
                least = max(LEAST_TIMED, count)
                if time.thread_time() - worked > LONG * least or time.perf_counter() - began > WAITING * least:
                    results += pool.map(function, items[len(results) : len(results) + ahead])
                    ahead *= 2
                    break
    return results


def _attempt(function: Callable[[Item], Value], item: Item) -> tuple[Value | None, str]:
    """The function's result and no reason, or None and the reason for its failure."""
    try:
        return function(item), ""
    except Exception as error:  # damaged files make decoders raise almost anything
        return None, f"cannot be read as an image ({first_line(error)})"
