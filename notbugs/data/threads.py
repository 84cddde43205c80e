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
TIMED = 5  # items; most of them must be long
LONG, WAITING = 4e-4, 4e-3  # seconds for one: of CPU time, and of any time, which a slow disk takes
UNTIMED, FIRST_AHEAD = 50, 250  # items that this thread, or others, take before some are timed again


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
            timed = [_timed(function, item) for item in items[len(results) : len(results) + TIMED]]
            results += [value for value, _ in timed]
            if 2 * sum(long for _, long in timed) <= len(timed):  # a single one says little: Python may have freed memory in it
                results += map(function, items[len(results) : len(results) + UNTIMED])
                ahead = FIRST_AHEAD
                continue
            results += pool.map(function, items[len(results) : len(results) + ahead])
            ahead *= 2
    return results


def _timed(function: Callable[[Item], Value], item: Item) -> tuple[Value, bool]:
    """The function's result, and whether it took long."""
    began, worked = time.perf_counter(), time.thread_time()
    value = function(item)
    return value, time.thread_time() - worked > LONG or time.perf_counter() - began > WAITING


def _attempt(function: Callable[[Item], Value], item: Item) -> tuple[Value | None, str]:
    """The function's result and no reason, or None and the reason for its failure."""
    try:
        return function(item), ""
    except Exception as error:  # damaged files make decoders raise almost anything
        return None, f"cannot be read as an image ({first_line(error)})"
