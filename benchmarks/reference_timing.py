"""Turns of notbugs and the paper's library for reference_library.py: the shortest round of each, and ratios."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from harness import Row
from torch import Tensor


class Clock(NamedTuple):
    """A point in time, or the time between two. cpu: of all threads of this process."""

    seconds: float
    cpu: float

    @classmethod
    def now(cls, device: str) -> "Clock":
        """After all work on the device."""
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: "Clock") -> "Clock":
        """Time from another point to this one."""
        return Clock(self.seconds - start.seconds, self.cpu - start.cpu)


Run = Callable[[int], tuple[Clock, Tensor | None]]  # steps -> time, and the uint8 images if it constructs any
Method = tuple[str, int]  # method and steps: what identifies a row


class Work(NamedTuple):
    """One tool's method for the work of a part."""

    tool: str
    method: str
    steps: int
    run: Run


def timed(function: Callable[[int], Tensor], device: str) -> Run:
    """The time of a function of the number of steps."""

    def run(steps: int) -> tuple[Clock, Tensor | None]:
        start = Clock.now(device)
        images = function(steps)
        return Clock.now(device).since(start), images

    return run


def in_turns(works: list[Work], n: int, rounds: int, evaluate: Callable[[Tensor], Row], **columns: float) -> Iterator[Row]:
    """A row for each after its last round: its shortest time, and what `evaluate` says of its images.

    Before the first round, one step of each to warm up.
    """
    for work in works:
        work.run(1)
    shortest = [Clock(float("inf"), float("inf"))] * len(works)
    for number in range(rounds):
        for place, work in enumerate(works):
            spent, images = work.run(work.steps)
            shortest[place] = Clock(*map(min, shortest[place], spent))
            if number + 1 == rounds:
                yield _row(work, n, rounds, shortest[place], columns) | _evaluated(work, n, shortest[place], images, evaluate)


def _row(work: Work, n: int, rounds: int, spent: Clock, columns: Mapping[str, float]) -> Row:
    times = {"seconds": spent.seconds, "cpu_seconds": spent.cpu, "images_per_second": n / spent.seconds}
    return {"tool": work.tool, "method": work.method, "steps": work.steps, "n": n, **columns, "rounds": rounds, **times}


def _evaluated(work: Work, n: int, spent: Clock, images: Tensor | None, evaluate: Callable[[Tensor], Row]) -> Row:
    if images is None:
        return {}
    return {"seconds_per_step_and_image": spent.seconds / n / work.steps, **evaluate(images)}


def with_ratios(rows: Iterator[Row], pairs: Mapping[str, tuple[Method, Method]]) -> Iterator[Row]:
    """The rows, then the ratios of pairs of them: method and steps of notbugs and of the library, by name."""
    known: dict[Method, Row] = {}
    for row in rows:
        known[row["method"], row["steps"]] = row
        yield row
    for name, (own, other) in pairs.items():
        yield _ratios(name, own, other, known[own], known[other])


def _ratios(name: str, own: Method, other: Method, row: Row, reference: Row) -> Row:
    found: Row = {
        "comparison": name,
        "notbugs": " ".join(map(str, own)),
        "robustness": " ".join(map(str, other)),
        "n": row["n"],
        "images_per_second_ratio": reference["seconds"] / row["seconds"],
        "cpu_time_ratio": reference["cpu_seconds"] / row["cpu_seconds"],
    }
    if "seconds_per_step_and_image" in row:
        found["time_per_step_ratio"] = reference["seconds_per_step_and_image"] / row["seconds_per_step_and_image"]
    return found
