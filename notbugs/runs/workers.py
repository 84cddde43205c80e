"""Worker processes: each does one job after the other, and ends with the process that started it, however that ends.

Every worker has a connection of its own. What it says comes whole or not at all, and the end of the connection is the end of the
worker, or of the process that started it. Workers share nothing: a lock that a killed one holds would stop all others.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Generic, NamedTuple, TypeVar

from notbugs.allocator import keep_freed_memory
from notbugs.errors import InputError
from notbugs.runs import server

Progress = Callable[[str, float, str], None]  # stage, share done in [0, 1], a few words
Result = TypeVar("Result")

SECONDS_TO_END = 1.0  # a killed process takes milliseconds; one that waits for a disk of the network may take for ever
SECONDS_FOR_A_CODE = 0.3  # an exit code comes a moment after the end of the connection


class Reported(NamedTuple):
    """What a worker says while it works: the arguments of `Progress`."""

    stage: str
    share: float
    words: str


class Finished(NamedTuple, Generic[Result]):
    """What a worker says at the end of a job: its result, or the error that it raised."""

    results: tuple[Result, ...]
    error: Exception | None = None

    def result(self) -> Result:
        """The result. Raises the job's error."""
        if self.error:
            raise self.error
        return self.results[0]


class WorkerEndedError(Exception):
    """A worker ended before its job did. The text says how."""


class Worker(Generic[Result]):
    """One worker process, which has been started by `start`."""

    def __init__(self) -> None:
        context = _context()
        self.connection, self._theirs = context.Pipe()
        # Not a daemon: these may have no processes of their own, which a user's model may want
        self._process = context.Process(target=_work, args=(self._theirs, _start_worker))  # type: ignore[attr-defined]

    def start(self) -> None:
        """Start the process. Raises WorkerEndedError if that cannot be done."""
        start_server(2)  # again, if it was killed
        try:
            self._process.start()
        except (OSError, EOFError) as error:  # no memory, no more processes; its server was killed
            raise WorkerEndedError(f"could not be started ({error or type(error).__name__})") from None
        finally:
            self._theirs.close()

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return bool(self._process.is_alive())

    def give(self, job: Callable[[Progress], Result]) -> None:
        """Give it a job. Raises WorkerEndedError if it has ended."""
        content = pickle.dumps(job)
        with self._ended():
            self.connection.send_bytes(content)

    def said(self) -> Reported | Finished[Result]:
        """What it says next; waits for that. Raises WorkerEndedError if it has ended."""
        with self._ended():
            content = self.connection.recv_bytes()
        found: Reported | Finished[Result] = pickle.loads(content)
        return found

    def end(self) -> None:
        """Kill it, if it is there. Safe to call twice."""
        self.connection.close()
        if self._process.pid is not None:
            self._process.kill()
            self._process.join(SECONDS_TO_END)

    @contextmanager
    def _ended(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            self._process.join(SECONDS_FOR_A_CODE)
            code = self._process.exitcode
            killed = code is None or code < 0 or code == 255  # unknown: of a worker whose server was killed, too
            raise WorkerEndedError("was killed" if killed else f"ended with exit code {code}") from None


def first_to_say(workers: Iterable[Worker[Result]]) -> list[Worker[Result]]:
    """Those that have said something, or have ended; waits for the first, if there is any worker."""
    by_connection = {worker.connection: worker for worker in workers}
    if not by_connection:
        return []
    return [by_connection[each] for each in wait(list(by_connection))]  # type: ignore[index]  # sockets are waited for, too


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


def _start_worker() -> None:
    """One thread: processes with two each compete for cores."""
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()


def _work(connection: Connection, prepare: Callable[[], None]) -> None:
    """Do the jobs that come, until the connection ends."""
    if parent := multiprocessing.parent_process():
        # The system kills this process with its parent on Linux, if nothing is unusual: see `start_server`
        threading.Thread(target=_exit_after, args=(parent.join,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        prepare()
        while True:
            connection.send_bytes(_answer(connection.recv_bytes(), connection))


def _exit_after(join: Callable[[], None]) -> None:
    join()
    os._exit(1)


def _answer(job: bytes, connection: Connection) -> bytes:
    """The outcome of a job, for `Worker.said`."""

    def report(stage: str, share: float, words: str) -> None:
        connection.send_bytes(pickle.dumps(Reported(stage, share, words)))

    try:
        return pickle.dumps(Finished((pickle.loads(job)(report),)))
    except Exception as error:
        return pickle.dumps(Finished((), _portable(error)))


def _portable(error: Exception) -> Exception:
    """An error for another process, with where it was raised as a note; its text, if it cannot be pickled."""
    if isinstance(error, InputError):
        return error
    where = "in a worker process:\n" + "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class of a library or of a user
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(where)
    return error
