"""Processes that do one stage together: the ranks of a process group, as torchrun starts them. Imports no torch.

Image-wise work is cut into blocks. Each rank claims the next block that nobody has, and writes its results whole into the stage's
folder of unfinished work. Then every rank reads all blocks: nothing is sent, and what a killed rank has finished is not done
again. A block does not depend on who does it, so that the results are the same for any number of ranks. A process that works
alone keeps blocks of large data sets, for the same reason.
"""

import os
import secrets
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from notbugs.errors import InputError

SECONDS_BETWEEN_LOOKS = 0.02  # at blocks of other ranks
VISIBLE = "CUDA_VISIBLE_DEVICES"
STARTED_BY = "TORCHELASTIC_RUN_ID"  # an environment variable that torchrun sets in what it starts


def started_by_torchrun() -> bool:
    """Whether this process is one of those of torchrun."""
    return STARTED_BY in os.environ


def is_first() -> bool:
    """Whether this process is rank 0, or was not started by torchrun."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


class Counting(Protocol):
    """Counts for all ranks."""

    def add(self, key: str, amount: int, /) -> int: ...


class Store(Counting, Protocol):
    """What all ranks see, in memory: a `torch.distributed.Store`."""

    def set(self, key: str, value: str, /) -> None: ...
    def get(self, key: str, /) -> bytes: ...
    def check(self, keys: list[str], /) -> bool: ...


def see_one_gpu() -> None:
    """Let this process see the GPU of its place on the machine, and no other. Read by CUDA at its first use."""
    place = int(os.environ["LOCAL_RANK"])
    given = os.environ.get(VISIBLE)
    names = [str(place)] * (place + 1) if given is None else given.split(",")
    os.environ[VISIBLE] = names[place].strip() if place < len(names) else ""


class _Counters:
    """A store for a process that works alone: it sees what it has counted."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, key: str, amount: int, /) -> int:
        """The sum of all amounts so far."""
        self.counts[key] += amount
        return self.counts[key]


@dataclass(frozen=True)
class Ranks:
    """The ranks that do a job.

    Attributes
    ----------
    rank : int
        This one's, from 0.
    count : int
        The world size.
    store : Counting
    job : str
        Another text for each job.
    """

    rank: int
    count: int
    store: Counting
    job: str


@dataclass
class Together:
    """A stage that all ranks do, in the same order of calls, or one process alone.

    Attributes
    ----------
    ranks : Ranks
    folder : Path
        Of the stage's unfinished work, which all ranks see. It is there again when the stage was killed.
    calls : int
        Maps over batches so far.
    trained : bool
        Whether the stage has trained a network: another attempt would not have the same weights to the last bit, so that blocks
        from then on are of this attempt alone.
    """

    ranks: Ranks
    folder: Path
    calls: int = 0
    trained: bool = False

    @property
    def rank(self) -> int:
        """This process."""
        return self.ranks.rank

    @property
    def count(self) -> int:
        """How many there are."""
        return self.ranks.count

    def by_itself(self) -> "Together":
        """A stage whose blocks this process does alone, and which no other attempt uses."""
        token = secrets.token_hex(8)
        return Together(Ranks(0, 1, _Counters(), token), self.folder, self.calls, trained=True)

    def blocks(self, work: str, count: int) -> "Blocks":
        """The blocks of the next map. work: what is done, in words; blocks of other work in the same place are not used."""
        self.calls += 1
        attempt = f"-{self.ranks.job}" if self.trained else ""
        name = f"{self.calls:04d}-{zlib.crc32(f'{work}, {count}'.encode()):08x}{attempt}"
        place, counter = self.folder / "blocks" / name, f"{self.ranks.job}/{self.calls}"
        return Blocks(place, counter, count, self.ranks.store, alone=self.count == 1)


@dataclass(frozen=True)
class Blocks:
    """Numbered files, each of which is written by the rank that claims it.

    Attributes
    ----------
    folder : Path
    counter : str
        A key of the store: how many are claimed.
    count : int
    store : Counting
    alone : bool
        Whether one process does all.
    """

    folder: Path
    counter: str
    count: int
    store: Counting
    alone: bool = False

    def path(self, number: int) -> Path:
        """The file of a block."""
        return self.folder / f"{number:06d}.pt"

    def claimed(self) -> Iterator[int]:
        """The blocks that this rank is to look at, one after the other; those that an earlier attempt finished, too."""
        while (number := self.store.add(self.counter, 1) - 1) < self.count:
            yield number

    def wait(self) -> None:
        """Wait until all blocks are there. A rank that fails ends all others: see `torchrun`.

        Raises
        ------
        InputError
            If somebody removed blocks of a process that works alone: another attempt has finished the stage.
        """
        missing = {self.path(number).name for number in range(self.count)}
        while missing := missing - set(os.listdir(self.folder) if self.folder.exists() else ()):
            if self.alone:
                got = f"{len(missing)} files removed"
                raise InputError(str(self.folder), "must keep what is unfinished", got, "repeat the command")
            time.sleep(SECONDS_BETWEEN_LOOKS)


_job: ContextVar[Ranks | None] = ContextVar("_job", default=None)
_stage: ContextVar[Together | None] = ContextVar("_stage", default=None)
_run: ContextVar[Path | None] = ContextVar("_run", default=None)


def together() -> Together | None:
    """The stage that this process does together with others; None: it works alone."""
    return None if _job.get() is None else _stage.get()


def stage() -> Together | None:
    """The stage that this process does, with others or alone; None outside of stages, and within a block."""
    return _stage.get()


def run_folder() -> Path | None:
    """The run folder of the stage; None outside of stages."""
    return _run.get()


def is_follower() -> bool:
    """Whether another rank publishes what this process does."""
    return (job := _job.get()) is not None and job.rank > 0


def world_size() -> int:
    """How many processes do this job together."""
    return 1 if (job := _job.get()) is None else job.count


@contextmanager
def in_job(ranks: Ranks) -> Iterator[None]:
    """Do a job as one of its ranks."""
    token = _job.set(ranks)
    try:
        yield
    finally:
        _job.reset(token)


@contextmanager
def in_stage(folder: Path, run: Path | None = None) -> Iterator[None]:
    """Do a stage of a run, together with the ranks of this job, if there are any. folder: of its unfinished work."""
    job = _job.get() or Ranks(0, 1, _Counters(), secrets.token_hex(8))
    runs, token = _run.set(run), _stage.set(Together(job, folder))
    try:
        yield
    finally:
        _stage.reset(token)
        _run.reset(runs)


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process shares nothing: what it does is part of a block, or the same on all ranks."""
    token = _stage.set(None)
    try:
        yield
    finally:
        _stage.reset(token)
