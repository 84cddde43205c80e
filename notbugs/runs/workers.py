"""Worker processes: each does one job after the other, and ends with the process that started it, however that ends.

Every worker is a pool of the standard library of its own: one that is killed breaks that pool alone. Workers share nothing: a
lock that a killed one holds would stop all others.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from copy import copy
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from typing import ParamSpec, Self, TypeVar

from notbugs.allocator import keep_freed_memory
from notbugs.errors import InputError
from notbugs.runs import server
from notbugs.runs.engine import Engine

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

SECONDS_TO_END = 1.0  # a killed process takes milliseconds; one that waits for a disk of the network may take for ever
VISIBLE = "CUDA_VISIBLE_DEVICES"


class WorkerEndedError(Exception):
    """A worker ended before its job did. The text says how."""


@contextmanager
def worker_processes(workers: int) -> Iterator[Engine]:
    """Worker processes as an engine; they end with the block."""
    with WorkerProcesses(workers) as executor:
        yield Engine(executor, lambda: workers, executor.lost)


class WorkerProcesses(Executor):
    """An executor of worker processes, each of which has a pool of its own.

    Parameters
    ----------
    workers : int
    environments : sequence of mapping, optional
        Environment variables of each worker, in turns. Default: with several GPUs each sees one of them.
    """

    def __init__(self, workers: int, environments: Sequence[Mapping[str, str]] | None = None) -> None:
        found = one_gpu_each() if environments is None else environments
        self._slots = [_Slot(found[number % len(found)] if found else {}) for number in range(workers)]

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> "Future[Result]":
        """Give a worker a job: one that has nothing to do and has done another, or a new one. Raises WorkerEndedError."""
        slot = min(self._slots, key=lambda each: (each.busy, not each.alive))
        return slot.submit(function, *args, **kwargs)

    def lost(self, name: str, future: object, error: BaseException) -> InputError:
        """The error for a job whose worker ended."""
        slot = next((each for each in self._slots if each.future is future), None)
        said = slot.how_it_ended() if slot and isinstance(error, BrokenProcessPool) else str(error)
        return InputError(name, f"its process {said}", remedy="if memory ran out, use --workers 1")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Kill all workers: what they have done is kept by then, and nobody waits for what they do."""
        for slot in self._slots:
            slot.end()

    def __exit__(self, *error: object) -> None:
        self.shutdown()

    def __enter__(self) -> Self:
        return self


class _Slot:
    """A worker process and its pool; a new one in place of one that ended."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.pool: ProcessPoolExecutor | None = None
        self.process: BaseProcess | None = None
        self.future: Future[object] | None = None
        self.results: SimpleQueue[object] | None = None

    @property
    def busy(self) -> bool:
        """Whether it has a job that is not done."""
        return self.future is not None and not self.future.done()

    @property
    def alive(self) -> bool:
        """Whether there is a process. Only looked at: the thread of the pool waits for its exit code."""
        return self.process is not None and self.process.pid is not None and not wait([self.process.sentinel], 0)

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> "Future[Result]":
        try:
            if self.pool is None or not self.alive:
                self.end()
                start_server(2)  # again, if it was killed
                self.pool = ProcessPoolExecutor(1, _single_worker(self._keep), _begin, (self.environment, _start_worker))
            found = self.pool.submit(function, *args, **kwargs)
            # half a message of a killed worker would never end while this process could write, too
            self.results._writer.close()  # type: ignore[union-attr]
        except BrokenProcessPool:
            raise WorkerEndedError(self.how_it_ended()) from None
        except (OSError, EOFError) as error:  # no memory, no more processes; its server was killed
            raise WorkerEndedError(f"could not be started ({error or type(error).__name__})") from None
        self.future = found  # type: ignore[assignment]  # of any result
        return found

    def how_it_ended(self) -> str:
        """In words."""
        if self.pool is not None:
            self.pool.shutdown()  # waits until its thread has seen the end
        code = self.process.exitcode if self.process is not None else None
        killed = code is None or code < 0 or code == 255  # unknown: of a worker whose server was killed, too
        return "was killed" if killed else f"ended with exit code {code}"

    def end(self) -> None:
        """Kill it, if it is there. Safe to call twice."""
        if self.process is not None and self.process.pid is not None:
            self.process.kill()
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)
        if self.process is not None and self.process.pid is not None:
            self.process.join(SECONDS_TO_END)
        self.pool = self.process = self.future = None

    def _keep(self, process: BaseProcess, results: "SimpleQueue[object]") -> None:
        self.process, self.results = process, results


class _NoLock:
    """In place of the locks of a pool's queues: with one worker they have one reader and one writer, and one job at a time.

    Real ones are semaphores of the system that a command which is killed leaves behind, with a line on them; and if the process
    that keeps count of them was killed, a later one prints a traceback.
    """

    def __init__(self, value: int = 1) -> None:
        self._semlock = self  # `Queue.full` asks it

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        return True

    def release(self) -> None:
        pass

    def locked(self) -> bool:
        return False

    def _is_zero(self) -> bool:
        return False

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *error: object) -> None:
        pass


def _single_worker(keep: "Callable[[BaseProcess, SimpleQueue[object]], None]") -> BaseContext:
    """The context of a pool of one worker; its process and the queue of its results are handed to `keep` before it starts."""
    context = copy(_context())
    make = context.Process  # type: ignore[attr-defined]

    def process(*, target: Callable[..., object], args: tuple[object, ...]) -> BaseProcess:
        made: BaseProcess = make(target=target, args=args)
        assert isinstance(args[1], SimpleQueue)
        keep(made, args[1])
        return made

    vars(context).update(Process=process, Lock=_NoLock, BoundedSemaphore=_NoLock)
    return context


def one_gpu_each() -> list[dict[str, str]]:
    """The environments in which workers see one GPU each, in turns; [] unless this process sees several."""
    import torch

    count = torch.cuda.device_count()
    names = os.environ.get(VISIBLE, "").split(",") if os.environ.get(VISIBLE) else [str(number) for number in range(count)]
    return [{VISIBLE: name.strip()} for name in names[:count]] if count > 1 else []


def _context() -> BaseContext:
    """How workers start: on Linux as forks of a server that has imported torch once, elsewhere as new interpreters.

    The server has no threads and has not touched a GPU: what makes forks of a process that uses torch unsafe is not in it.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # the last is imported by the first optimizer of a process
    context.set_forkserver_preload([server.__name__, "torch", "torch._dynamo"])
    return context


def start_server(workers: int) -> None:
    """Start the server that workers are forked from, if there will be any: it imports torch while this process goes on.

    Ctrl-C and the end of a terminal reach every process in it. In the server and its workers these signals are blocked, also
    while they import: this process stops them.
    """
    context = _context()
    if workers <= 1 or context.get_start_method() != "forkserver":
        return
    from multiprocessing import forkserver, resource_tracker  # not there on Windows

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # what is started inherits it
    if threading.current_thread() is threading.main_thread():  # another may end before the server does: see `end_with_parent`
        os.environ[server.PARENT] = str(os.getpid())
    try:
        resource_tracker.ensure_running()  # the server would start it, and it unblocks Ctrl-C
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        forkserver.ensure_running()
    finally:
        os.environ.pop(server.PARENT, None)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- in the worker ---------------------------------------------------------------------------------------------------------


def one_thread() -> None:
    """Processes with two threads each compete for cores; and how many there are decides the last bits of a sum."""
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()


def _start_worker() -> None:
    one_thread()


def _begin(environment: Mapping[str, str], prepare: Callable[[], None]) -> None:
    """Before the first job of a worker. environment: read by CUDA at its first use, which is later than the import of torch."""
    if parent := multiprocessing.parent_process():
        # The system kills this process with its parent on Linux, if nothing is unusual: see `start_server`
        threading.Thread(target=_exit_after, args=(parent.join,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)
    prepare()


def _exit_after(join: Callable[[], None]) -> None:
    join()
    os._exit(1)
