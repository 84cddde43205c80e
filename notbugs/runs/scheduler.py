"""Stages side by side on any executor, in an order that respects what each needs."""

import os
import platform
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

from notbugs.errors import InputError, printable
from notbugs.extensions.registry import registered
from notbugs.runs.engine import Engine, Outcome, Progress, attempt, told
from notbugs.runs.workers import worker_processes

__all__ = [
    "Job",
    "Progress",
    "default_workers",
    "describe_machine",
    "ignore_progress",
    "run_graph",
    "start_seconds",
    "times_longer",
]

Result = TypeVar("Result")

SECONDS_BETWEEN_LOOKS = 0.2  # at the progress of jobs
START_SECONDS = 3.0  # of CPU time: loading, writing
MOST_TIMES_LONGER = 2.0
WORKER_SECONDS = 6.0  # of CPU time: each process of several stages at once imports PyTorch


@dataclass(frozen=True)
class Job(Generic[Result]):
    """Work that must pickle, and the names of the jobs it needs.

    together: whether several processes can share it, each of which does it (`Engine.together`).
    """

    needs: tuple[str, ...]
    work: Callable[[Progress], Result]
    together: bool = False


def ignore_progress(stage: str, share: float, words: str) -> None:
    """For callers that report no progress."""


def default_workers(device: str) -> int:
    """Stages at once if nobody says: one per core that this process may use; one per GPU, or 1 on a GPU that is named."""
    if device == "cpu":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    import torch

    return max(1, torch.cuda.device_count()) if device == "cuda" else 1


def times_longer(wall: float, processor: float) -> float:
    """How many times longer work takes on a busy machine than its CPU time, from what a few passes took; 1 to 2.

    More is a cold disk, or a moment: without a limit 19 minutes were said of a run that took 5.
    """
    return min(MOST_TIMES_LONGER, max(1.0, wall / max(1e-3, processor)))


def start_seconds(at_once: int) -> float:
    """CPU seconds of a run besides its stages: loading and writing, and what each of several worker processes imports."""
    return START_SECONDS + (WORKER_SECONDS if at_once > 1 else 0)


def describe_machine(device: str) -> str:
    """The machine, in a few words."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {os.cpu_count()} cores"


@cache
def _processor() -> str:
    """The name of the processor where Linux says it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return printable(names[0]) if names and names[0] else platform.machine()


def run_graph(
    jobs: Mapping[str, Job[Result]],
    workers: int,
    report_progress: Progress,
    *,
    engine: Engine | None = None,
    progress_in: Path | None = None,
) -> Generator[tuple[str, Result], None, None]:
    """Run jobs in the order of their needs; yields name and result of each as it finishes.

    Parameters
    ----------
    jobs : mapping
        Jobs by name. Of those that are ready, the first of the mapping starts first.
    workers : int
        1, or a single job: run here, in order. More: each worker is a new process with one thread.
    report_progress : callable
    engine : Engine, optional
        Does the jobs in place of worker processes, also a single one.
    progress_in : Path, optional
        A folder for files of progress, which workers see. Default: a temporary one.

    Raises
    ------
    InputError
        A job's own, or if its worker was killed: once the jobs beside it have finished. Any other error ends all at once, and so
        does Ctrl-C.
    """
    order = {name: number for number, name in enumerate(jobs)}
    graph: TopologicalSorter[str] = TopologicalSorter({name: job.needs for name, job in jobs.items()})
    graph.prepare()
    if engine is None and (workers <= 1 or len(jobs) <= 1):
        yield from _run_here(jobs, graph, order, report_progress)
        return
    with ExitStack() as stack:
        if progress_in is None:
            progress_in = Path(stack.enter_context(TemporaryDirectory()))
        if engine is None:
            engine = stack.enter_context(worker_processes(workers))
        yield from _Run(jobs, graph, order, engine, progress_in, report_progress).results()


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


class _Run(Generic[Result]):
    """Jobs on an engine: those that run, and those that are ready."""

    def __init__(
        self,
        jobs: Mapping[str, Job[Result]],
        graph: "TopologicalSorter[str]",
        order: Mapping[str, int],
        engine: Engine,
        progress_in: Path,
        report_progress: Progress,
    ) -> None:
        self.jobs, self.graph, self.order, self.engine = jobs, graph, order, engine
        self.progress_in, self.report_progress = progress_in, report_progress
        self.running: dict[Future[Outcome[Result]], str] = {}
        self.ready: list[str] = []
        self.failed: InputError | None = None
        self.seen: dict[str, tuple[str, float, str]] = {}

    def results(self) -> Generator[tuple[str, Result], None, None]:
        """Name and result of each job as it finishes."""
        try:
            while self.running or (self.graph.is_active() and self.failed is None):
                self._start_ready()
                for future in self._finished():
                    name = self.running.pop(future)
                    try:
                        outcome = future.result()
                        if not isinstance(outcome, Outcome):
                            raise TypeError(f"its future has {type(outcome).__name__}, not what the stage returned")
                    except Exception as error:  # the executor's: those of the job are in its outcome
                        self.failed = self.failed or self.engine.lost(name, future, error)
                        continue
                    try:
                        result = outcome.result()
                    except InputError as error:
                        self.failed = self.failed or error
                        continue
                    self._look(name)
                    self.graph.done(name)
                    yield name, result
                    self.report_progress(name, 1.0, "")  # only now: the caller has kept the result
            if self.failed:
                raise self.failed
        finally:
            for future in self.running:
                future.cancel()

    def _start_ready(self) -> None:
        if self.failed is None:
            self.ready = sorted([*self.ready, *self.graph.get_ready()], key=self.order.__getitem__)
        while self.ready and self.failed is None and len(self.running) < self.engine.at_once():
            name = self.ready.pop(0)
            executor = (self.engine.together if self.jobs[name].together else None) or self.engine.executor
            try:
                future = executor.submit(attempt, self.jobs[name].work, self._progress_of(name), registered().hashes())
                if not isinstance(future, Future):
                    raise TypeError(f"submit returned {type(future).__name__}, no Future")
            except InputError as error:
                self.failed = error
                return
            except Exception as error:  # of workers that ended, or of a user's executor: one that was shut down, for example
                self.failed = self.engine.lost(name, Future(), error)
                return
            self.running[future] = name
            self.report_progress(name, 0.0, "")

    def _finished(self) -> list["Future[Outcome[Result]]"]:
        """Those that have ended, in the order of the jobs; waits a moment for the first one, and tells how far the others are."""
        if not self.running:
            if self.failed is None:
                self._check()
                time.sleep(SECONDS_BETWEEN_LOOKS)  # nobody can be given a job yet
            return []
        wait(self.running, SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
        done = [future for future in self.running if future.done()]  # not all executors say that they cancelled one
        if not done:
            self._check()
            for name in self.running.values():
                self._look(name)
        return sorted(done, key=lambda future: self.order[self.running[future]])

    def _check(self) -> None:
        try:
            self.engine.check()
        except InputError as error:  # nobody is there: what runs cannot finish
            self.failed = self.failed or error
            for future in self.running:
                future.cancel()
            self.running = {}

    def _progress_of(self, name: str) -> Path:
        return self.progress_in / f"{self.order[name]}.json"

    def _look(self, name: str) -> None:
        """Report what a job has told since the last look."""
        if (now := told(self._progress_of(name))) and now != self.seen.get(name):
            self.seen[name] = now
            self.report_progress(*now)
