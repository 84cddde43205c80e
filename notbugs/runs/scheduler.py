"""Several stages at once, each in a process of its own, in an order that respects what each needs."""

import multiprocessing
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from notbugs.errors import InputError

Progress = Callable[[str, float, str], None]  # stage, share done in [0, 1], a few words
Job = Callable[[Progress], Any]

_queue: Any = None


def default_workers(device: str) -> int:
    """How many stages are done at once where nobody says: one a core that this process may use, 1 on a GPU."""
    if device != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2


def describe_machine(device: str) -> str:
    """What a run is done on, in a few words."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{platform.machine()}, {os.cpu_count()} cores"


def run_graph(jobs: Mapping[str, tuple[tuple[str, ...], Job]], workers: int, tell: Progress) -> Iterator[tuple[str, Any]]:
    """Name and result of every job as it finishes: {name: (names it waits for, job)}, started in the mapping's order.

    Jobs must pickle. With one worker they run here, in order; otherwise each worker is a fresh process with one thread.
    A job's BadInput is raised once those beside it have finished; anything else that a job raises ends all, and so does Ctrl-C.
    """
    if workers <= 1 or len(jobs) <= 1:
        yield from _run_in_process(jobs, tell)
        return
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (queue,))
    left, finished = dict(jobs), set[str]()
    running: dict[Future[Any], str] = {}
    failed: InputError | None = None
    try:
        while left or running:
            ready = [name for name, (needs, _) in left.items() if finished.issuperset(needs)]
            for name in ready[: workers - len(running)]:
                running[pool.submit(_run_job, left.pop(name)[1])] = name
                tell(name, 0.0, "")
            done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            while not queue.empty():
                tell(*queue.get())
            for future in done:
                name = running.pop(future)
                finished.add(name)
                try:
                    result = future.result()
                except InputError as error:  # what runs beside it may still finish, and is kept; nothing new is begun
                    failed, left = failed or error, {}
                    continue
                except BrokenProcessPool:
                    raise InputError(
                        name, "its process was ended from outside", remedy="if memory ran out, use --workers 1"
                    ) from None
                yield name, result
                tell(name, 1.0, "")  # only now: the caller has kept the result
        if failed:
            raise failed
    except BaseException:
        _terminate(pool)
        raise
    pool.shutdown()


def _run_in_process(jobs: Mapping[str, tuple[tuple[str, ...], Job]], tell: Progress) -> Iterator[tuple[str, Any]]:
    left, finished = dict(jobs), set[str]()
    while left:
        name = next(name for name, (needs, _) in left.items() if finished.issuperset(needs))
        tell(name, 0.0, "")
        result = left.pop(name)[1](tell)
        finished.add(name)
        yield name, result
        tell(name, 1.0, "")


def _start_worker(queue: Any) -> None:
    """In a new worker: Ctrl-C is the parent's business; one thread, since processes with two threads each fight for cores."""
    import torch

    global _queue
    _queue = queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    """A parent that was killed outright cannot stop its workers: they look for themselves."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run_job(job: Job) -> Any:
    return job(lambda stage, share, words: _queue.put((stage, share, words)))


def _terminate(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(wait=False, cancel_futures=True)
