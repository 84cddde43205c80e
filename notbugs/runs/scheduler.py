"""Stages side by side, each in a process of its own, in an order that respects what each needs."""

import os
import platform
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Generic, TypeVar

from notbugs.errors import InputError
from notbugs.runs.workers import Progress, Reported, Worker, WorkerEndedError, first_to_say

__all__ = ["Job", "Progress", "default_workers", "describe_machine", "ignore_progress", "run_graph"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job(Generic[Result]):
    """Work that must pickle, and the names of the jobs it needs."""

    needs: tuple[str, ...]
    work: Callable[[Progress], Result]


def ignore_progress(stage: str, share: float, words: str) -> None:
    """For callers that report no progress."""


def default_workers(device: str) -> int:
    """Stages at once if nobody says: one per core that this process may use, 1 on a GPU."""
    if device != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2


def describe_machine(device: str) -> str:
    """The machine, in a few words."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{platform.machine()}, {os.cpu_count()} cores"


def run_graph(
    jobs: Mapping[str, Job[Result]], workers: int, report_progress: Progress
) -> Generator[tuple[str, Result], None, None]:
    """Run jobs in the order of their needs; yields name and result of each as it finishes.

    Parameters
    ----------
    jobs : mapping
        Jobs by name. Of those that are ready, the first of the mapping starts first.
    workers : int
        1: run here, in order. More: each worker is a new process with one thread.
    report_progress : callable

    Raises
    ------
    InputError
        A job's own, or if its worker process was killed: once the jobs beside it have finished. Any other error ends all at
        once, and so does Ctrl-C.
    """
    order = {name: number for number, name in enumerate(jobs)}
    graph: TopologicalSorter[str] = TopologicalSorter({name: job.needs for name, job in jobs.items()})
    graph.prepare()
    if workers <= 1 or len(jobs) <= 1:
        yield from _run_here(jobs, graph, order, report_progress)
    else:
        yield from _run_in_processes(jobs, graph, order, workers, report_progress)


def _run_here(
    jobs: Mapping[str, Job[Result]], graph: "TopologicalSorter[str]", order: Mapping[str, int], report_progress: Progress
) -> Generator[tuple[str, Result], None, None]:
    ready: list[str] = []
    while graph.is_active():
        ready = sorted([*ready, *graph.get_ready()], key=order.__getitem__)
        name = ready.pop(0)
        report_progress(name, 0.0, "")
        result = jobs[name].work(report_progress)
        graph.done(name)
        yield name, result
        report_progress(name, 1.0, "")


def _run_in_processes(
    jobs: Mapping[str, Job[Result]],
    graph: "TopologicalSorter[str]",
    order: Mapping[str, int],
    workers: int,
    report_progress: Progress,
) -> Generator[tuple[str, Result], None, None]:
    started: list[Worker[Result]] = []
    running: dict[Worker[Result], str] = {}
    ready: list[str] = []
    failed: InputError | None = None
    try:
        while running or (graph.is_active() and failed is None):
            if failed is None:
                ready = sorted([*ready, *graph.get_ready()], key=order.__getitem__)
            while ready and len(running) < workers and failed is None:
                name = ready.pop(0)
                try:
                    running[_started(jobs[name], started, running)] = name
                    report_progress(name, 0.0, "")
                except WorkerEndedError as error:
                    failed = _without_process(name, error)
            for worker in first_to_say(running):
                try:
                    said = worker.said()
                    if isinstance(said, Reported):
                        report_progress(*said)
                        continue
                    name, result = running.pop(worker), said.result()
                except WorkerEndedError as error:
                    failed = failed or _without_process(running.pop(worker), error)
                except InputError as error:
                    failed = failed or error
                else:
                    graph.done(name)
                    yield name, result
                    report_progress(name, 1.0, "")  # only now: the caller has kept the result
        if failed:
            raise failed
    finally:
        for worker in started:
            worker.end()


def _started(job: Job[Result], started: list[Worker[Result]], running: Mapping[Worker[Result], str]) -> Worker[Result]:
    """A worker that does a job: one that has done another, or a new one. Raises WorkerEndedError."""
    worker = next((each for each in started if each not in running and each.alive), None)
    if worker is None:
        worker = Worker()
        started.append(worker)  # first: an interrupt while it starts ends it, too
        worker.start()
    worker.give(job.work)
    return worker


def _without_process(name: str, error: WorkerEndedError) -> InputError:
    return InputError(name, f"its process {error}", remedy="if memory ran out, use --workers 1")
