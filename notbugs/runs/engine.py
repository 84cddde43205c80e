"""Where stages get done: any executor, how many jobs it has at once, and what its errors mean. Progress goes through small files.

A job tells how far it is in a file of its own, which the process that waits for it reads: that works for every executor whose
workers see the same disk, without connections or locks that a killed worker could hold.
"""

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Executor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from notbugs.atomic import part_of
from notbugs.errors import InputError, one_line
from notbugs.extensions.registry import check_as_in_command
from notbugs.runs.ranks import is_follower

Progress = Callable[[str, float, str], None]  # stage, share done in [0, 1], a few words
Result = TypeVar("Result")

SECONDS_BETWEEN = 0.25  # of two writings of a progress file
AGAIN = "repeat the command: it resumes with what is not finished"


@dataclass(frozen=True)
class Engine:
    """An executor and how it is used.

    Attributes
    ----------
    executor : Executor
    at_once : callable
        How many jobs it is given at once, asked again before each.
    lost : callable
        The error for a job that the executor gave up: of its name, its future and what that raised.
    check : callable
        Called now and then while jobs wait. Raises InputError if nobody can do them.
    device : callable, optional
        The device of a stage, asked where it is done: it pickles. None: as the configuration says.
    remote : bool
        Whether stages are done outside of this machine's processes: they look for the run folder first.
    together : Executor, optional
        Does a job in all processes together, where the jobs can share it (`Job.together`).
    """

    executor: Executor
    at_once: Callable[[], int]
    lost: Callable[[str, object, BaseException], InputError]
    check: Callable[[], None] = lambda: None
    device: Callable[[], str] | None = None
    remote: bool = False
    together: Executor | None = None


class Outcome(NamedTuple, Generic[Result]):
    """What a job comes to: its result, or the error that it raised. What a future raises itself is of the executor."""

    results: tuple[Result, ...]
    error: Exception | None = None

    def result(self) -> Result:
        """The result. Raises the job's error."""
        if self.error:
            raise self.error
        return self.results[0]


def attempt(work: Callable[[Progress], Result], progress: Path, extensions: Mapping[str, str] | None = None) -> Outcome[Result]:
    """Do a job, where the executor does it.

    progress: the file of its progress. extensions: `Extensions.hashes` of the command, which a worker must have, too.
    """
    try:
        if extensions is not None:
            check_as_in_command(extensions)
        return Outcome((work((lambda *_: None) if is_follower() else _Teller(progress)),))
    except Exception as error:
        return Outcome((), portable(error))


def portable(error: Exception) -> Exception:
    """An error for another process, with where it was raised as a note; its text, if it cannot be pickled."""
    import pickle

    if isinstance(error, InputError):
        return error
    where = "in a worker process:\n" + "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class of a library or of a user
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(where)
    return error


def lost(name: str, future: object, error: BaseException) -> InputError:
    """The error for a job that some executor gave up."""
    if isinstance(error, CancelledError):
        return InputError("--executor", "must stay reachable, and cancel no stage", f"{name} cancelled", AGAIN)
    text = one_line(f"{type(error).__name__}: {error}")
    return InputError(name, "must be done by a worker of --executor", text, AGAIN)


# ---- progress ----------------------------------------------------------------------------------------------------------------


class _Teller:
    """Writes the progress of a job to a file: at once, then a few times a second at most."""

    def __init__(self, path: Path) -> None:
        self.path, self.written = path, -SECONDS_BETWEEN

    def __call__(self, stage: str, share: float, words: str) -> None:
        if (now := time.monotonic()) - self.written < SECONDS_BETWEEN:
            return
        self.written = now
        fresh = part_of(self.path)  # another attempt may tell, too
        with suppress(OSError):  # a full disk, or one that nobody shares, ends the work itself
            fresh.write_text(json.dumps([stage, share, words]))
            os.replace(fresh, self.path)


def told(path: Path) -> tuple[str, float, str] | None:
    """What a job told last; None if it has told nothing yet."""
    try:
        stage, share, words = json.loads(path.read_text())
        return str(stage), float(share), str(words)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
