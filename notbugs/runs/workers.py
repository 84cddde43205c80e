"""Worker processes: each does one job after the other, and ends with the process that started it, however that ends.

Pools of the standard library break as a whole when one worker is killed, and their workers share locks that a killed one may
hold. Here every worker has a connection of its own: what it says comes whole or not at all, and the end of the connection is the
end of the worker, or of the process that started it.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import ParamSpec, Self, TypeVar

from notbugs.allocator import keep_freed_memory
from notbugs.errors import InputError, one_line
from notbugs.runs import server
from notbugs.runs.engine import Engine, portable
from notbugs.runs.ranks import VISIBLE

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

SECONDS_FOR_A_CODE = 0.3  # an exit code comes a moment after the end of the connection
SECONDS_TO_END = 1.0  # a killed process takes milliseconds; one that waits for a disk of the network may take for ever


class WorkerEndedError(Exception):
    """A worker ended before its job did. `how` says in words how it ended."""

    def __init__(self, process: BaseProcess | None, text: str = "") -> None:
        super().__init__(text)
        self.process = process

    def how(self) -> str:
        """How it ended. In the thread that started the process: two that ask for an exit code take it from each other."""
        return str(self) or how_it_ended(self.process)


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
        said = error.how() if isinstance(error, WorkerEndedError) else one_line(f"{type(error).__name__}: {error}")
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
    """A worker process and its connection; a new one in place of one that ended."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.process: BaseProcess | None = None
        self.connection: Connection | None = None
        self.future: Future[object] | None = None

    @property
    def busy(self) -> bool:
        """Whether it has a job that is not done."""
        return self.future is not None and not self.future.done()

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.is_alive()

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> "Future[Result]":
        job, found = pickle.dumps(partial(function, *args, **kwargs)), Future[Result]()
        connection = self._send(job)
        found.set_running_or_notify_cancel()  # its worker has it: it can be killed, not cancelled
        self.future = found  # type: ignore[assignment]  # of any result
        threading.Thread(target=_wait_for_result, args=(self.process, connection, found), daemon=True).start()
        return found

    def _send(self, job: bytes) -> Connection:
        """Give the process a job, or a new one if it was killed before it had it. Returns the connection."""
        if self.alive and self.connection:
            with suppress(OSError):  # killed since it was looked at
                self.connection.send_bytes(job)
                return self.connection
        connection = self._start()
        try:
            connection.send_bytes(job)
        except OSError:
            raise WorkerEndedError(self.process) from None
        return connection

    def _start(self) -> Connection:
        self.end()
        start_server(2)  # again, if it was killed
        context = _context()
        ours, theirs = context.Pipe()
        # Not a daemon: these may have no processes of their own, which a user's model may want
        made: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=_work, args=(theirs, self.environment, _start_worker)
        )
        self.process = made  # first: an interrupt while it starts ends it, too
        try:
            made.start()
        except (OSError, EOFError) as error:  # no memory, no more processes; its server was killed
            raise WorkerEndedError(made, f"could not be started ({error or type(error).__name__})") from None
        finally:
            theirs.close()  # or the end of the worker would not end the connection
        self.connection = ours
        return ours

    def end(self) -> None:
        """Kill it, if it is there. Safe to call twice."""
        if self.process is not None and self.process.pid is not None:
            self.process.kill()
            self.process.join(SECONDS_TO_END)
        self.process = self.connection = self.future = None


def how_it_ended(process: BaseProcess | None) -> str:
    """How a process ended, in words; waits a moment for its exit code."""
    if process is not None and process.pid is not None:
        process.join(SECONDS_FOR_A_CODE)
    code = process.exitcode if process is not None else None
    killed = code is None or code < 0 or code == 255  # unknown: of a worker whose server was killed, too
    return "was killed" if killed else f"ended with exit code {code}"


def _wait_for_result(process: BaseProcess | None, connection: Connection, future: "Future[Result]") -> None:
    """In a thread: what a worker answers is the result of a job; the end of the connection is the end of the worker."""
    try:
        result, error = pickle.loads(connection.recv_bytes())
    except (EOFError, OSError):
        future.set_exception(WorkerEndedError(process))
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


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


def _work(connection: Connection, environment: Mapping[str, str], prepare: Callable[[], None]) -> None:
    """Do the jobs that come, until the connection ends. environment: read by CUDA at its first use, after the import of torch."""
    if parent := multiprocessing.parent_process():
        # The system kills this process with its parent on Linux, if nothing is unusual: see `start_server`
        threading.Thread(target=_exit_after, args=(parent.join,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)
    with suppress(EOFError, OSError):
        prepare()
        while True:
            connection.send_bytes(_answer(connection.recv_bytes()))


def _answer(job: bytes) -> bytes:
    """Result and error of a job, for `_wait_for_result`."""
    try:
        return pickle.dumps((pickle.loads(job)(), None))
    except Exception as error:
        return pickle.dumps((None, portable(error)))


def _exit_after(join: Callable[[], None]) -> None:
    join()
    os._exit(1)
