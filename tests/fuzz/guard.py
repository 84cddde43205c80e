"""What a case may do: work, or end with an InputError of one line; within its memory, time and folder; and run nothing."""

import faulthandler
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from notbugs.decoding.processes import CODE
from notbugs.errors import InputError
from notbugs.models.trial import Trial, attempt

MEMORY = 3 * 2**29  # bytes more than before: any file may expand to 2**30
SECONDS = 20.0  # of CPU time
ADDRESSES = 200 * 2**30  # more address space than before: what is set aside and never touched takes no memory; V8 wants 64 GB
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STARTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "socket.connect",
    "pty.spawn",
    "webbrowser.open",
)
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")


class Forbidden(BaseException):
    """What no case may do. Not an Exception: readers catch those."""


class Watch:
    """What the case that runs may write to, and what it did that it must not."""

    folder: Path | None = None
    found: str = ""


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if Watch.folder is None or Watch.found:
        return
    if event in STARTS and CODE not in str(arguments) and not _compiles():  # CODE: processes that decode images
        Watch.found = f"started: {event} {arguments}"[:300]
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        _check_place(arguments[0])
    elif event in CHANGES:
        _check_place(arguments[0] if event not in ("os.link", "os.symlink") else arguments[1])


def _compiles() -> bool:
    """Whether the arguments of the command have --compile: PyTorch then starts a compiler, and tries what it compiled."""
    words = Path(Watch.folder or "", "arguments")
    return words.exists() and b'"--compile"' in words.read_bytes()


def _check_place(place: object) -> None:
    if isinstance(place, str | bytes | os.PathLike) and Watch.folder is not None:
        path = os.path.realpath(os.fsdecode(place))
        cache = os.path.realpath(os.environ["XDG_CACHE_HOME"])
        temporary = [
            os.path.join(os.path.realpath(tempfile.gettempdir()), name) for name in ("tmp", "torchinductor_")
        ]  # of imports
        if (
            not path.startswith((str(Watch.folder), cache, *temporary, "/dev/", "/proc/", sys.prefix))
            and "__pycache__" not in path
        ):
            Watch.found = f"written outside: {path}"


sys.addaudithook(_audit)


def _peak(*, reset: bool = False) -> int:
    """The most memory that this process has had since it was last reset, where the system tells it."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        return 0


def _addresses() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@contextmanager
def _limits() -> Iterator[None]:
    """No more CPU time than SECONDS, no more address space than ADDRESSES."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Forbidden(f"took more than {SECONDS:g} s")

    before, (_, hard) = signal.signal(signal.SIGPROF, stop), resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_addresses() + ADDRESSES, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def in_a_fork(trial: Trial) -> tuple[int, bytes]:
    """In place of the new process in which a program is tried first, which takes two seconds to import PyTorch."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            faulthandler.disable()  # it would print where the process ended
            attempt(trial, writing)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        content = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), content


def outcome(case: Callable[[], object], folder: Path) -> str:
    """Run a case in its folder, which is the working directory: "works" or "refused".

    Raises
    ------
    Forbidden
        For all else.
    """
    here, began, base = Path.cwd(), time.process_time(), _peak(reset=True)
    os.chdir(folder)
    Watch.folder, Watch.found = Path(os.path.realpath(folder)), ""
    try:
        with _limits(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case()
        found = "works"
    except InputError as error:
        found = "refused"
        if "\n" in str(error) or len(str(error)) > 3000:
            raise Forbidden(f"more than one line: {str(error)[:200]!r}") from None
    except Forbidden:
        raise
    except SystemExit as end:
        raise Forbidden(f"left with {end.code!r}") from end
    except Exception as error:
        raise Forbidden(f"traceback: {type(error).__name__}: {error}"[:300]) from error
    finally:
        Watch.folder = None
        os.chdir(here)
    if Watch.found:
        raise Forbidden(Watch.found)
    if list(folder.rglob("CANARY")):
        raise Forbidden("executed: a pickle ran")
    if (grown := _peak() - base) > MEMORY:
        raise Forbidden(f"took {grown / 2**20:,.0f} MB")
    if time.process_time() - began > SECONDS:
        raise Forbidden(f"took more than {SECONDS:g} s")
    return found
