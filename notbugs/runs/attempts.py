"""One attempt at a stage: it writes into a folder of its own, and the process that holds the run folder publishes it.

Of two attempts at one stage (a worker was cut off, and another did its stage again) the second is discarded whole.
"""

import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from notbugs import __version__
from notbugs.allocator import give_back
from notbugs.atomic import atomic_write_text, not_writable
from notbugs.errors import InputError
from notbugs.runs import ranks, workers
from notbugs.runs.engine import Progress
from notbugs.runs.folder import ATTEMPTS, UNFINISHED, RunFolder
from notbugs.runs.tables.row import Row

Result = TypeVar("Result")

SECONDS_TO_SEE = 60.0  # that disks of the network take at most to show a new file (Snakemake waits as long)
SECONDS_BETWEEN_LOOKS = 0.2
CARDS = "datasets/*/README.md"  # which name the folder that they are in


@dataclass(frozen=True)
class Attempt:
    """What a stage is given to write and to say. Called, it reports progress.

    Attributes
    ----------
    folder : Path
        Where the stage writes, as in the run folder: models/, datasets/, pictures/ and so on. It reads the run folder only.
    report : callable
    unfinished : Path
        What the stage resumes from after it was killed: it may write there, too. Removed once the stage is recorded.
    """

    folder: Path
    report: Progress
    unfinished: Path

    @property
    def publishes(self) -> bool:
        """Whether what is written here is published. Of ranks that do a stage together, only the first one's is."""
        return not ranks.is_follower()

    def __call__(self, stage: str, share: float, words: str) -> None:
        self.report(stage, share, words)


class Finished(NamedTuple):
    """What an attempt at a stage came to.

    Attributes
    ----------
    folder : Path
        Of the attempt.
    files : tuple of str
        What is in it, from there: files, and folders as a whole.
    rows : sequence of Row
    seconds : float
    ran_on : dict
        What the stage's entry in run.json says besides.
    """

    folder: Path
    files: tuple[str, ...]
    rows: Sequence[Row]
    seconds: float
    ran_on: dict[str, object]


def make_attempt(
    run: Path,
    name: str,
    work: Callable[[Attempt], Sequence[Row]],
    describe: Callable[[], dict[str, object]],
    shared: "Shared | None",
    report_progress: Progress,
) -> Finished:
    """Do a stage where a worker does it; its progress is reported under its name. What a failed attempt wrote is removed."""
    kept = unfinished_folder(run, name)
    with there(shared, run), ranks.in_stage(kept, run):
        began, folder = time.perf_counter(), run / ATTEMPTS / secrets.token_hex(8)
        try:
            rows = work(Attempt(folder, lambda _, share, words: report_progress(name, share, words), kept))
            if ranks.is_follower():
                shutil.rmtree(folder, ignore_errors=True)
            for card in folder.glob(CARDS):
                text = card.read_text(encoding="utf-8")
                card.write_text(text.replace(f"{ATTEMPTS}{os.sep}{folder.name}{os.sep}", ""), encoding="utf-8")
            files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*")))
            several = {"world_size": ranks.world_size()} if ranks.world_size() > 1 else {}
            return Finished(folder, files, rows, time.perf_counter() - began, describe() | several)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            give_back()


def publish(attempt: Finished, run: Path) -> None:
    """Rename what an attempt wrote into place; what a killed command has published of the same stage is replaced.

    Raises
    ------
    InputError
        If the run folder cannot be written.
    """
    try:
        for name in attempt.files:
            fresh, place = attempt.folder / name, run / name
            _wait_for(fresh)
            place.parent.mkdir(exist_ok=True)
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            os.replace(fresh, place)
    except OSError as error:
        raise not_writable(run / name, error) from None
    shutil.rmtree(attempt.folder, ignore_errors=True)


def _wait_for(path: Path) -> None:
    """Wait for a file that a worker elsewhere has just written."""
    deadline = time.monotonic() + SECONDS_TO_SEE
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN_LOOKS)


def clear_attempts(run: Path) -> None:
    """Remove all attempts of a run, finished or not: only the process that may write into it does so."""
    shutil.rmtree(run / ATTEMPTS, ignore_errors=True)


def unfinished_folder(run: Path, name: str) -> Path:
    """Where a stage keeps what it goes on from.

    Examples
    --------
    >>> unfinished_folder(Path("run"), "seed0/dataset-robust").name
    'seed0-dataset-robust-a42e70c6'
    """
    return run / UNFINISHED / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)[:80]}-{zlib.crc32(name.encode()):08x}"


def clear_unfinished(run: Path, names: Iterable[str]) -> None:
    """Remove what finished stages would have gone on from."""
    for name in names:
        shutil.rmtree(unfinished_folder(run, name), ignore_errors=True)
    with suppress(OSError):  # of other stages, or not there
        (run / UNFINISHED).rmdir()


def make_room(run: Path) -> Path:
    """The empty folder of attempts, and of files of progress. Raises InputError if it cannot be made."""
    clear_attempts(run)
    folder = run / ATTEMPTS
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise not_writable(run, error) from None
    return folder


# ---- disks that several machines share -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shared:
    """What a worker outside of this machine's processes must see before it begins a stage.

    Attributes
    ----------
    here : str
        The working directory, in which names of files and of the user's functions are looked for.
    version : str
        Of notbugs.
    token : str
        A file of the attempts: not every folder of that name is this run's. "" where no run folder is needed.
    stages, files : tuple of str
        What the stage needs: finished stages, and files in the run folder.
    """

    here: str
    version: str
    token: str
    stages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def wait(self, run: Path) -> None:
        """Wait until all is there, `SECONDS_TO_SEE` at most: network disks show files late. Raises InputError if it is not."""
        host = socket.gethostname()
        if self.version != __version__:
            raise InputError("--executor", f"must have workers with notbugs {self.version}", f"{__version__} on {host}")
        deadline = time.monotonic() + SECONDS_TO_SEE
        while unseen := self._unseen(run):
            if time.monotonic() > deadline:
                got = f"{unseen}, which {host} does not see"
                raise InputError("--out", "must be on a disk that all workers share", got, "name another folder")
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _unseen(self, run: Path) -> str:
        """What is not there yet; "" if all is."""
        if self.token and not (run / ATTEMPTS / self.token).exists():
            return str(run)
        if missing := next((name for name in self.files if not (run / name).exists()), None):
            return str(run / missing)
        if self.stages:
            record = RunFolder.read(run)
            if not all(map(record.done, self.stages)):
                return str(run / "run.json")
        return ""


def share(run: Path) -> Shared:
    """What workers elsewhere look for, with a token that is written now."""
    token = secrets.token_hex(8)
    atomic_write_text(run / ATTEMPTS / token, "")
    return replace(no_run_folder(), token=token)


def no_run_folder() -> Shared:
    """What workers elsewhere look for where nothing is written."""
    return Shared(os.getcwd(), __version__, "")


def done_there(shared: Shared | None, work: Callable[[Progress], Result], report_progress: Progress) -> Result:
    """Do a job that needs no run folder, in one of our processes (shared: None) or elsewhere."""
    with there(shared, Path()):
        return work(report_progress)


@contextmanager
def there(shared: Shared | None, run: Path) -> Iterator[None]:
    """In a worker elsewhere: as in one of ours, in the working directory of the command, once the run folder is there.

    shared: None in our own processes.
    """
    if shared is None:
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(chdir(shared.here))
        except OSError as error:
            got = f"{shared.here}, which {socket.gethostname()} does not see ({error.strerror})"
            raise InputError("--executor", "must have workers that see the working directory", got) from None
        shared.wait(run)
        workers.one_thread()
        yield
