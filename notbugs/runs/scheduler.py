"""Stages side by side, each in a process of its own, in an order that respects what each needs."""

import multiprocessing
import multiprocessing.context
import multiprocessing.process
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, Generic, TypeVar

from notbugs.allocator import keep_freed_memory
from notbugs.errors import InputError

Progress = Callable[[str, float, str], None]  # stage, share done in [0, 1], a few words
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


def run_graph(jobs: Mapping[str, Job[Result]], workers: int, report_progress: Progress) -> Iterator[tuple[str, Result]]:
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
        A job's own, once the jobs beside it have finished; or if a worker process was killed. Any other error ends everything at
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
) -> Iterator[tuple[str, Result]]:
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
) -> Iterator[tuple[str, Result]]:
    start_server(workers)
    context = _context()
    queue = context.SimpleQueue()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (queue,))
    running: dict[Future[Result], str] = {}
    ready: list[str] = []
    failed: InputError | None = None
    try:
        while running or (graph.is_active() and failed is None):
            if failed is None:
                ready = sorted([*ready, *graph.get_ready()], key=order.__getitem__)
                while ready and len(running) < workers:
                    name = ready.pop(0)
                    running[pool.submit(_run_job, jobs[name].work)] = name
                    report_progress(name, 0.0, "")
            done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            while not queue.empty():
                report_progress(*queue.get())
            for future in done:
                name = running.pop(future)
                try:
                    result = future.result()
                except InputError as error:  # jobs beside it may still finish, and are kept; no new one starts
                    failed = failed or error
                    continue
                except BrokenProcessPool:
                    raise InputError(name, "its process was killed", remedy="if memory ran out, use --workers 1") from None
                graph.done(name)
                yield name, result
                report_progress(name, 1.0, "")  # only now: the caller has kept the result
        if failed:
            raise failed
    except BaseException:
        _terminate(pool)
        raise
    pool.shutdown()


def _context() -> multiprocessing.context.BaseContext:
    """How workers start: on Linux as forks of a server that has imported torch once, elsewhere as new interpreters.

    The server has no threads and has not touched a GPU: what makes forks of a process that uses torch unsafe is not in it.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo"])  # the second is imported by the first optimizer of a process
    return context


def start_server(workers: int) -> None:
    """Start the server that workers are forked from, if there will be any: it imports torch while this process goes on.

    Ctrl-C reaches every process of a terminal. In the server and its workers it is blocked, while they import, too: this process
    stops them.
    """
    context = _context()
    if workers > 1 and context.get_start_method() == "forkserver":
        from multiprocessing import forkserver, resource_tracker  # not there on Windows

        resource_tracker.ensure_running()  # the server would start it, and it unblocks the signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by what is started
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    """What a worker process holds: the queue for progress."""

    queue: Any = None


def _start_worker(queue: Any) -> None:
    """In a new worker: Ctrl-C is the parent's to handle; one thread, since processes with two each compete for cores."""
    import torch

    _Worker.queue = queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_freed_memory()
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: multiprocessing.process.BaseProcess) -> None:
    """A parent that was killed cannot stop its workers: they wait for its end themselves."""
    parent.join()
    os._exit(1)


def _run_job(work: Callable[[Progress], Result]) -> Result:
    return work(lambda stage, share, words: _Worker.queue.put((stage, share, words)))


def _terminate(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(wait=False, cancel_futures=True)
