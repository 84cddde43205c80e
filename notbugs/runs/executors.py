"""Executors that users name: the scheduler of a Dask cluster, or what a function of their own returns."""

import asyncio
import importlib
import json
import logging
import os
import re
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from notbugs.atomic import read_at_most
from notbugs.errors import InputError, NotbugsWarning, one_line
from notbugs.runs.engine import AGAIN, Engine, Outcome, lost
from notbugs.user_modules import working_directory_first

if TYPE_CHECKING:
    from distributed import Client

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

SECONDS_TO_CONNECT = 30.0
SECONDS_TO_WRITE = 2.0  # a scheduler writes its file in place: for a moment it is empty, or ends in the middle
SECONDS_FOR_AN_ANSWER = 5.0  # milliseconds, as a rule
SECONDS_TO_ANSWER = 60.0  # after which a scheduler is taken for gone
SECONDS_WITHOUT_WORKERS = 300.0  # at the start, and after the last one has gone
SECONDS_BETWEEN_QUESTIONS = 1.0
ADDRESS = re.compile(r"(tcp|tls|ucx|wss?)://(\[[0-9A-Fa-f:.]+\]|[^/:\s]+):\d{1,5}")
FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
MOST_BYTES = 2**20  # of a scheduler file, which has 1 kB and some for each worker
TOKEN = secrets.token_hex(8)
REACHABLE = "start `dask scheduler`, and give the file or the address that it names"
KINDS = "must be the scheduler file or the address (tcp://…) of a Dask cluster, or module:function that returns an Executor"


@contextmanager
def open_engine(name: str, workers: int | None, device: Callable[[], str] | None = None) -> Iterator[Engine]:
    """The executor of a name, as long as the block lasts.

    Parameters
    ----------
    name : str
        A scheduler file or the address of a Dask scheduler, or `module:function`, which is called without arguments.
    workers : int, optional
        Jobs at once. Default: as many as Dask has workers; another executor gets all that are ready.
    device : callable, optional
        The device of a stage, asked where it is done.

    Raises
    ------
    InputError
        If there is no such executor, or no worker comes.
    """
    if "://" in name or Path(name).is_file():
        with _dask(name if "://" in name else _address_in(Path(name)), workers, device) as engine:
            yield engine
    elif FUNCTION.fullmatch(name):
        with _users_executor(name) as executor:
            yield Engine(_InOtherProcesses(executor), lambda: workers or sys.maxsize, lost, device=device, remote=True)
    else:
        raise InputError("--executor", KINDS, f"{name}, which is no file")


@contextmanager
def _users_executor(name: str) -> Iterator[Executor]:
    """What the user's function returns. This runs the user's code; the working directory is searched first."""
    module, _, function = name.partition(":")
    try:
        with working_directory_first():
            executor = getattr(importlib.import_module(module), function)()
    except (Exception, SystemExit) as error:  # a user's own code may raise anything
        raise InputError("--executor", f"{name} must be a function() that returns an Executor", _line(error)) from None
    if not isinstance(executor, Executor):
        rule = f"{name} must return a concurrent.futures.Executor"
        raise InputError("--executor", rule, type(executor).__name__)
    try:
        yield executor
    finally:
        try:
            executor.shutdown(wait=False)
        except Exception as error:  # all results are there
            warnings.warn(f"--executor: {name} could not be shut down: {_line(error)}", NotbugsWarning, stacklevel=2)


class _InOtherProcesses(Executor):
    """An executor whose jobs are refused in this process.

    Threads share the state of PyTorch's random numbers, the working directory, and what torch.fx changes while it traces: stages
    side by side would write other results.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> "Future[Result]":
        """Give a job to the executor."""
        return self.executor.submit(_in_another_process, _process(), function, *args, **kwargs)  # type: ignore[arg-type]


def _in_another_process(
    command: str, function: Callable[..., Result], *args: object, **kwargs: object
) -> Result | Outcome[object]:
    """Do a job, unless this is the process of the command."""
    if command == _process():
        rule = "must do stages in processes of their own"
        remedy = "return a ProcessPoolExecutor, or one of a cluster"
        return Outcome((), InputError("--executor", rule, "threads of the command's process", remedy))
    return function(*args, **kwargs)


def _process() -> str:
    """This process, on any machine: a fork has the same token, and another number."""
    return f"{TOKEN}-{os.getpid()}"


# ---- Dask --------------------------------------------------------------------------------------------------------------------


@contextmanager
def _dask(address: str, workers: int | None, device: Callable[[], str] | None) -> Iterator[Engine]:
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("--executor", "needs notbugs[dask]", _line(error), "pip install 'notbugs[dask]'") from None
    for logger in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # what they say of lost connections is said in one line of ours
    if not ADDRESS.fullmatch(address):
        raise InputError("--executor", "must be an address like tcp://HOST:PORT", address, REACHABLE)
    try:
        # a client that fails stays behind, and keeps the command from ending for a minute. In a thread: notebooks have a loop
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _reach(address)).result()
        client = Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except Exception as error:  # of any server, and of TLS
        rule = "must be the scheduler of a Dask cluster that can be reached"
        raise InputError("--executor", rule, f"{_line(error) if str(error) else 'no answer'} at {address}", REACHABLE) from None
    try:
        cluster = _Cluster(client, workers)
        cluster.wait()
        executor: Executor = _InOtherProcesses(client.get_executor())
        yield Engine(executor, cluster.at_once, lost, cluster.check, device, remote=True)
    finally:
        client.close(timeout=2)


def _address_in(file: Path) -> str:
    """What a scheduler file says, which `dask scheduler` and `Client.write_scheduler_file` write. Half of one is read again."""
    until = time.monotonic() + SECONDS_TO_WRITE
    while True:
        try:
            return str(json.loads(read_at_most(file, MOST_BYTES))["address"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, json.JSONDecodeError) and time.monotonic() < until:
                time.sleep(0.05)
                continue
            raise InputError(
                "--executor", "must be a file that `dask scheduler --scheduler-file` wrote", f"{file}: {_line(error)}"
            ) from None


async def _reach(address: str) -> None:
    from distributed.core import connect
    from distributed.security import Security

    async with asyncio.timeout(SECONDS_TO_CONNECT + 1):  # a server that says nothing is waited for longer
        connection = await connect(address, timeout=SECONDS_TO_CONNECT, **Security().get_connection_args("client"))
    await connection.close()


class _Cluster:
    """The workers of a Dask cluster, asked for now and then."""

    def __init__(self, client: "Client", at_most: int | None) -> None:
        self.client, self.at_most = client, at_most
        self.asked = -SECONDS_BETWEEN_QUESTIONS
        self.answered = self.seen = time.monotonic()
        self.count = 0

    def at_once(self) -> int:
        """Stages at once: one for each worker that is there, or as many as were asked for."""
        self._ask()
        return self.count if self.at_most is None else self.at_most

    def check(self) -> None:
        """Raises InputError if there was no answer for `SECONDS_TO_ANSWER`, or no worker for `SECONDS_WITHOUT_WORKERS`."""
        self._ask()
        now = time.monotonic()
        if now - self.answered > SECONDS_TO_ANSWER:
            raise InputError("--executor", "must stay reachable", f"no answer for {SECONDS_TO_ANSWER:.0f} seconds", AGAIN)
        if now - self.seen > SECONDS_WITHOUT_WORKERS:
            rule = f"must have a worker within {SECONDS_WITHOUT_WORKERS:.0f} seconds"
            raise InputError("--executor", rule, "none", f"start workers, then {AGAIN}")

    def wait(self) -> None:
        """Wait for the first worker. Raises InputError if none comes, or if one does several stages at once."""
        while not self.at_once() or not self.count:
            self.check()
            time.sleep(SECONDS_BETWEEN_QUESTIONS / 5)
            self.asked = -SECONDS_BETWEEN_QUESTIONS

    def _ask(self) -> None:
        now = time.monotonic()
        if now - self.asked < SECONDS_BETWEEN_QUESTIONS or self.client.status != "running":
            return  # while it looks for its scheduler, the jobs that it gave up say so themselves
        self.asked = now
        try:
            found = self.client.sync(self.client.scheduler.ncores, workers=None, callback_timeout=SECONDS_FOR_AN_ANSWER)
        except (OSError, TimeoutError, ValueError, RuntimeError):  # busy, or gone: `check` says so after a while
            return
        self.answered, self.count = time.monotonic(), len(found)
        if found:
            self.seen = self.answered
        if several := next((worker for worker, threads in found.items() if threads != 1), None):
            rule = "must have workers that do one stage at a time"
            raise InputError("--executor", rule, several, "start them with `dask worker --nthreads 1`")


def _line(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")
