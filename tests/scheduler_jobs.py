"""Work for the scheduler's tests: functions that other processes can import."""

import gc
import os
import signal
import stat
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

from notbugs.errors import InputError
from notbugs.runs.attempts import Attempt
from notbugs.runs.engine import Progress
from notbugs.runs.tables.files import CategoryRow


def square(number: int, report_progress: Progress) -> int:
    """The square of a number; reports progress under an empty name."""
    report_progress("", 0.5, f"squaring {number}")
    return number**2


def process_id(report_progress: Progress) -> int:
    """Which process this is."""
    return os.getpid()


def threads(report_progress: Progress) -> int:
    """How many threads torch uses here."""
    import torch

    return torch.get_num_threads()


def fail(report_progress: Progress) -> int:
    """Raises the error that a user can fix."""
    raise InputError("--epsilon", "must be above 0", -1, "give another")


def fail_otherwise(report_progress: Progress) -> int:
    """Raises another error."""
    raise KeyError("bug")


def die(report_progress: Progress) -> int:
    """Ends its process at once, as the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def leave(report_progress: Progress) -> int:
    """Ends its process, as a crash in a library may."""
    os._exit(9)


def write_for_ever(folder: Path, report_progress: Progress) -> int:
    """Writes a file of its own again and again."""
    for number in count():
        (folder / f"{os.getpid()}.count").write_text(str(number))
    return 0


def wait_for(path: Path, report_progress: Progress) -> int:
    """Returns once a file exists."""
    while not path.exists():
        time.sleep(0.01)
    return 1


def touch(path: Path, report_progress: Progress) -> int:
    """Creates a file."""
    path.touch()
    return 2


def environment(name: str, seconds: float) -> str | None:
    """An environment variable here, after some seconds."""
    time.sleep(seconds)
    return os.environ.get(name)


def rows(number: int, report_progress: Progress) -> list[CategoryRow]:
    """One row of a table."""
    report_progress("", 0.5, "half")
    return [CategoryRow(category="robust", files=number, n=10)]


def fail_once(path: Path, report_progress: Progress) -> list[CategoryRow]:
    """Raises until the file exists."""
    if not path.exists():
        raise InputError("DATASET", "must be readable")
    return rows(7, report_progress)


def write_files(contents: Mapping[str, str], run: Path, attempt: Attempt) -> list[CategoryRow]:
    """Writes files into the folder of the attempt."""
    for name, content in contents.items():
        (attempt.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (attempt.folder / name).write_text(content)
    return [CategoryRow(category="robust", files=len(contents), n=10)]


def copy_file(source: str, name: str, run: Path, attempt: Attempt) -> list[CategoryRow]:
    """Reads a file of the run folder, and writes it under another name."""
    return write_files({name: (run / source).read_text()}, run, attempt)


def write_and_fail(attempt: Attempt) -> list[CategoryRow]:
    """Writes a file, then raises the error that a user can fix."""
    write_files({"models/a.json": "half"}, attempt.folder, attempt)
    raise InputError("--epsilon", "must be above 0", -1, "give another")


def write_own_place(name: str, attempt: Attempt) -> list[CategoryRow]:
    """Writes the place of a file into it, as code that loads it would name it."""
    return write_files({name: f"folder = {str((attempt.folder / name).parent)!r}"}, attempt.folder, attempt)


def end_in_half_a_message() -> None:
    """Killed as it answers: what it says stops in the middle."""
    found = [each for each in gc.get_objects() if isinstance(each, Connection) and not each.closed and each.writable]
    (connection,) = [each for each in found if stat.S_ISSOCK(os.fstat(each.fileno()).st_mode)]
    os.write(connection.fileno(), (1000).to_bytes(4, "big") + b"the begin")
    os.kill(os.getpid(), signal.SIGKILL)


# ---- executors of a user -------------------------------------------------------------------------------------------------------

KIND = ""


def ends() -> Executor:
    """Ends the process, as a script without its cluster may."""
    raise SystemExit("no cluster today")


def threads_of_this_process() -> Executor:
    """Threads, where stages would share what a process has once."""
    return ThreadPoolExecutor(2)


class Odd(ThreadPoolExecutor):
    """An executor that does not do as it should."""

    def submit(self, function: Callable[..., object], /, *args: object, **kwargs: object) -> "Future[object]":  # type: ignore[override]
        if KIND == "refuses":
            raise ValueError("the queue is full")
        if KIND == "other":
            return 3  # type: ignore[return-value]
        return super().submit(lambda: "hello")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if KIND == "stays":
            raise OSError("it stays")
        super().shutdown(wait, cancel_futures=cancel_futures)


def odd() -> Executor:
    """An executor of this kind."""
    return Odd(1)
