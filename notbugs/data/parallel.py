"""One function applied to many items: in this thread, in several, or in several processes, whichever is faster."""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Generic, NamedTuple, TypeVar

from notbugs.data.names import Unreadable, first_line
from notbugs.decoding.headers import EncodedImage
from notbugs.decoding.processes import available_cores, map_in_processes

Item = TypeVar("Item")
Value = TypeVar("Value")
Kept = TypeVar("Kept")

MOST = 16
THREADS = min(MOST, os.cpu_count() or 1)  # also in a process of a pool: on a slow disk they wait for files
TIMED = 5  # items; most of them must be long
LONG, WAITING = 4e-4, 4e-3  # seconds for one: of CPU time, and of any time, which a slow disk takes
UNTIMED, FIRST_AHEAD = 50, 250  # items that this thread, or others, take before some are timed again
WORTH_PROCESSES = 3.0  # seconds of CPU time that are left: two processes take 0.4 of them to start


def map_images(
    function: Callable[[EncodedImage], Value],
    elsewhere: Callable[[EncodedImage], Value],
    images: Sequence[EncodedImage],
    locations: Sequence[str],
    keep: Callable[[int, Value], Kept],
) -> tuple[list[Kept | None], list[Unreadable]]:
    """Apply a function to each image, in threads or processes where that is faster.

    Parameters
    ----------
    function : callable
        Decodes an image, or reads its header.
    elsewhere : callable
        The same for other processes: see `map_in_processes`. What it refuses is left to `function`.
    images : sequence of EncodedImage
    locations : sequence of str
        Where each image is, for messages.
    keep : callable
        Called with the number of each image and the function's result. Returns what is kept of it.

    Returns
    -------
    (list, list of Unreadable)
        What is kept of each image, None where one of the two failed; and the failures.
    """
    failures: dict[int, Unreadable] = {}  # not with the results: 30,000 more tuples, and the search for cycles among them

    def attempt(row: int, found: Value | None = None) -> Kept | None:
        try:
            return keep(row, function(images[row]) if found is None else found)
        except Exception as error:  # damaged files make decoders raise almost anything
            failures[row] = Unreadable(locations[row], f"cannot be read as an image ({first_line(error)})")
            return None

    processes = min(MOST, available_cores())

    def in_processes(rows: Sequence[int]) -> list[Kept | None]:
        found = map_in_processes(elsewhere, lambda number: images[rows[number]], len(rows), processes)
        return [attempt(row, value) for row, value in zip(rows, found, strict=True)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings on big images and odd metadata: we refuse, or it does not matter
        results = in_threads(attempt, range(len(images)), in_processes if processes > 1 else None)
    return results, [failures[row] for row in sorted(failures)]


def in_threads(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    in_processes: Callable[[Sequence[Item]], list[Value]] | None = None,
) -> list[Value]:
    """One result per item, in order. A few items are timed first, and again later: if they are short, they stay in this thread.

    Pillow decodes without the interpreter lock, but small images wait longer for that lock than they take: two threads need
    0.31 ms for an image of 32x32 pixels, one needs 0.16; of 224x224 pixels 0.75 and 1.31 ms. CPU time decides, because on a busy
    machine small images take long, too. Short items that take seconds in all go to `in_processes`, if it is given.
    """
    results: list[Value] = []
    ahead = FIRST_AHEAD
    with ThreadPoolExecutor(THREADS) as pool:
        while len(results) < len(items):
            timed = [_timed(function, item) for item in items[len(results) : len(results) + TIMED]]
            results += [each.value for each in timed]
            rest = items[len(results) :]
            if 2 * sum(each.is_long for each in timed) > len(timed):  # one says little: Python may have freed memory in it
                results += pool.map(function, rest[:ahead])
                ahead *= 2
                continue
            ahead = FIRST_AHEAD
            if in_processes and median(each.cpu_seconds for each in timed) * len(rest) > WORTH_PROCESSES:
                return results + in_processes(rest)
            results += map(function, rest[:UNTIMED])
    return results


class Timed(NamedTuple, Generic[Value]):
    """A function's result, the CPU time that it took, and whether that, or its waiting, was long."""

    value: Value
    cpu_seconds: float
    is_long: bool


def _timed(function: Callable[[Item], Value], item: Item) -> Timed[Value]:
    began, worked = time.perf_counter(), time.thread_time()
    value = function(item)
    worked = time.thread_time() - worked
    return Timed(value, worked, worked > LONG or time.perf_counter() - began > WAITING)
