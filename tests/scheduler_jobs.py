"""Work for the scheduler's tests: functions that other processes can import."""

import os
import signal
import time
from itertools import count
from pathlib import Path

from notbugs.errors import InputError
from notbugs.runs.scheduler import Progress
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


def rows(number: int, report_progress: Progress) -> list[CategoryRow]:
    """One row of a table."""
    report_progress("", 0.5, "half")
    return [CategoryRow(category="robust", files=number, n=10)]


def fail_once(path: Path, report_progress: Progress) -> list[CategoryRow]:
    """Raises until the file exists."""
    if not path.exists():
        raise InputError("DATASET", "must be readable")
    return rows(7, report_progress)
