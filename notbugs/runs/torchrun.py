"""A command in several processes that torchrun started: rank 0 executes it, the others do what it gives them.

Rank 0 alone reads the options, holds the run folder, publishes and prints. A job is done by all ranks together, or by one of them
beside others. Jobs and results go through the store of torchrun. What a stage reads and writes is on a disk that all ranks see.
"""

import base64
import os
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from typing import ParamSpec, TypeVar

from notbugs import __version__
from notbugs.errors import InputError
from notbugs.runs import ranks
from notbugs.runs.engine import AGAIN, Engine, Outcome, portable
from notbugs.runs.ranks import Ranks, Store

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

SECONDS_BETWEEN_LOOKS = 0.02
SECONDS_TO_JOIN = 600.0  # from the first process to the last one, which may import torch from a disk of the network
SECONDS_TO_BE_ENDED = 30.0  # by torchrun, once rank 0 has said why
PIECE = 2**22  # bytes: a value of the store has 8 MiB at most
DAY = timedelta(days=1)  # torchrun ends the ranks that wait for one that has ended: they need no shorter limit
END, ENDED, DONE, ERROR = "end", "ended", "done", "error"
LOST = ("Connection closed", "Connection reset", "gloo", "NCCL", "Broken pipe")  # in what torch says of a rank that has ended


@dataclass(frozen=True)
class Connection:
    """This process among those of torchrun.

    Attributes
    ----------
    rank, count : int
    store : Store
    """

    rank: int
    count: int
    store: Store

    def put(self, key: str, value: object) -> None:
        """Give a value to another rank; it must pickle."""
        text = base64.b64encode(pickle.dumps(value)).decode()
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        for number, piece in enumerate(pieces):
            self.store.set(f"{key}/{number}", piece)
        self.store.set(key, str(len(pieces)))  # last: now it is there

    def has(self, key: str) -> bool:
        """Whether a value is there."""
        return self.store.check([key])

    def take(self, key: str) -> object:
        """A value that another rank gives, once it is there."""
        while not self.has(key):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        pieces = [self.store.get(f"{key}/{number}") for number in range(int(self.store.get(key)))]
        return pickle.loads(base64.b64decode(b"".join(pieces)))

    def join(self) -> None:
        """Tell rank 0 that this process is there, and what it is."""
        import torch

        self.put(f"joined/{self.rank}", (__version__, torch.cuda.is_available()))


@cache
def connect() -> Connection:
    """The store of torchrun, and this process's place."""
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]  # documented, but not in __all__

    store, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=SECONDS_TO_JOIN)))
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Connection(rank, count, PrefixStore(f"notbugs/{again}", store))


def open_group(together: ranks.Together) -> None:
    """Open the process group, for trainings, if it is not open. All ranks of the job call this."""
    import torch
    from torch.distributed import PrefixStore, init_process_group, is_initialized  # type: ignore[attr-defined]

    if not is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store = PrefixStore("group", together.ranks.store)  # type: ignore[arg-type]  # what is used of one
        init_process_group(backend, store=store, rank=together.rank, world_size=together.count, timeout=DAY)


def close_group() -> None:
    """Close the process group, if it is open."""
    from torch.distributed import destroy_process_group, is_initialized

    if is_initialized():
        destroy_process_group()


# ---- rank 0 ------------------------------------------------------------------------------------------------------------------


@contextmanager
def open_engine(device: Callable[[], str], connection: Connection) -> Iterator[Engine]:
    """The ranks as an engine, once all are there.

    Parameters
    ----------
    device : callable
        The device of a stage, asked where it is done.
    connection : Connection

    Raises
    ------
    InputError
        If a rank does not come, or is another version or without a GPU where others have one.
    """
    connection.join()
    _check_joined(connection)
    pool = _Pool(connection)
    check = partial(_check, connection)
    yield Engine(pool.one, lambda: connection.count, _lost, check, device, remote=True, together=pool.all)


def _check_joined(connection: Connection) -> None:
    began, found = time.monotonic(), list[tuple[str, bool]]()
    for rank in range(connection.count):
        while not connection.has(f"joined/{rank}"):
            if time.monotonic() - began > SECONDS_TO_JOIN:
                raise InputError("torchrun", f"must start {connection.count} processes", f"no answer of rank {rank}")
            time.sleep(SECONDS_BETWEEN_LOOKS)
        found.append(connection.take(f"joined/{rank}"))  # type: ignore[arg-type]  # as `Connection.join` gave it
    if len(set(found)) > 1:
        words = [f"rank {rank}: {version}{' with a GPU' if gpu else ''}" for rank, (version, gpu) in enumerate(found)]
        raise InputError("torchrun", "must start one version of notbugs, and one process per GPU", ", ".join(words))


def _check(connection: Connection) -> None:
    """Raises what a rank has failed with."""
    if connection.has(ERROR):
        error = connection.take(ERROR)
        assert isinstance(error, Exception)
        raise error


def _lost(name: str, future: object, error: BaseException) -> InputError:
    return InputError(name, "must be done by a process of torchrun", f"{type(error).__name__}: {error}", AGAIN)


def end(connection: Connection) -> None:
    """Tell the other ranks that there is no more to do, and wait until they know: the store may end with this process."""
    for rank in range(1, connection.count):
        connection.put(f"{END}/{rank}", None)
    deadline = time.monotonic() + SECONDS_TO_BE_ENDED
    while connection.store.add(ENDED, 0) < connection.count - 1 and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    close_group()


class _Pool:
    """The ranks: each job waits in line until the one, or all, that it needs have nothing to do."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.one, self.all = _Ranks(self, together=False), _Ranks(self, together=True)
        self.free = set(range(connection.count))
        self.given = [0] * connection.count
        self.line: deque[object] = deque()
        self.jobs = 0
        self.changed = threading.Condition()

    def start(self, call: Callable[[], Result], found: "Future[Result]", *, together: bool) -> None:
        """Do a job in a thread, so that its progress can be shown meanwhile."""
        self.line.append(found)
        threading.Thread(target=self._do, args=(call, found, together), daemon=True).start()

    def _do(self, call: Callable[[], Result], found: "Future[Result]", together: bool) -> None:
        needed = self.connection.count if together else 1
        with self.changed:
            self.changed.wait_for(lambda: self.line[0] is found and len(self.free) >= needed)
            self.line.popleft()
            taken = sorted(self.free)[:needed]
            self.free -= {*taken}
            self.jobs += 1
            job = f"job{self.jobs}"
            self.changed.notify_all()
        try:
            found.set_result(self._answer(call, job, taken, together=together))
        except BaseException as error:
            found.set_exception(error)
        finally:
            with self.changed:
                self.free |= {*taken}
                self.changed.notify_all()

    def _answer(self, call: Callable[[], Result], job: str, taken: list[int], *, together: bool) -> Result:
        for rank in taken:
            if rank:
                self.connection.put(f"job/{rank}/{self.given[rank]}", (job, together, call))
                self.given[rank] += 1
        if together:
            found = _done(call, self.connection, job, together=True)
            if not (isinstance(found, Outcome) and found.error):
                self._wait_for_others(job)
            return found
        if taken == [0]:
            return _done(call, self.connection, job, together=False)
        answer: Result = self.connection.take(f"result/{job}")  # type: ignore[assignment]  # of the call
        return answer

    def _wait_for_others(self, job: str) -> None:
        """Wait until all other ranks have done a job, too. One that fails ends the command: see `_check`."""
        while self.connection.store.add(f"{DONE}/{job}", 0) < self.connection.count - 1:
            time.sleep(SECONDS_BETWEEN_LOOKS)


class _Ranks(Executor):
    """An executor that gives each job to one rank, or to all."""

    def __init__(self, pool: _Pool, *, together: bool) -> None:
        self.pool, self.together = pool, together

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> "Future[Result]":
        """Give a job to a rank, or to all."""
        found = Future[Result]()
        found.set_running_or_notify_cancel()
        self.pool.start(partial(function, *args, **kwargs), found, together=self.together)
        return found


def _done(call: Callable[[], Result], connection: Connection, job: str, *, together: bool) -> Result:
    """What a job comes to, here."""
    place = Ranks(connection.rank, connection.count, connection.store, job)
    with ranks.in_job(place) if together else nullcontext():
        answer = call()
    if together and isinstance(answer, Outcome) and _is_lost(answer.error):
        error = InputError("torchrun", "must keep all of its processes", "one that ended", AGAIN)
        return Outcome((), error)  # type: ignore[return-value]  # as the call
    return answer


def _is_lost(error: Exception | None) -> bool:
    """Whether an error of torch says that another rank has ended."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in LOST)


# ---- the other ranks -----------------------------------------------------------------------------------------------------------


def follow(connection: Connection, keeping: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
    """Do the jobs that rank 0 gives, until there is no more to do.

    Parameters
    ----------
    connection : Connection
    keeping : callable
        A context in which data sets are loaded once.
    """
    connection.join()
    number, rank = 0, connection.rank
    with keeping():
        while True:
            while not (connection.has(f"job/{rank}/{number}") or connection.has(f"{END}/{rank}")):
                time.sleep(SECONDS_BETWEEN_LOOKS)
            if not connection.has(f"job/{rank}/{number}"):
                connection.store.add(ENDED, 1)
                close_group()
                return
            _follow(connection, *connection.take(f"job/{rank}/{number}"))  # type: ignore[misc]  # as `_answer` gave it
            number += 1


def _follow(connection: Connection, job: str, together: bool, call: Callable[[], object]) -> None:
    """Do one job. A rank that fails in one that all do says why, and waits to be ended: rank 0 prints it first."""
    try:
        answer = _done(call, connection, job, together=together)
    except Exception as error:
        answer = Outcome((), portable(error))
    if not together:
        connection.put(f"result/{job}", answer)
    elif isinstance(answer, Outcome) and answer.error:
        connection.put(ERROR, answer.error)
        time.sleep(SECONDS_TO_BE_ENDED)
        sys.exit(2)
    else:
        connection.store.add(f"{DONE}/{job}", 1)
