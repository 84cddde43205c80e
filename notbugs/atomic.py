"""Files appear whole or not at all, have one writer at a time, and are read whole only up to a limit. Imports no torch."""

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from notbugs.errors import InputError

if TYPE_CHECKING:
    from filelock import FileLock

StrPath = str | os.PathLike[str]  # what public functions take as a path
FEW = 64  # files that are written to the disk one by one
_writing: set[Path] = set()  # locks of this process beside the files that it writes
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a name that nobody else has first, then rename it.

    Parameters
    ----------
    path : Path
        Its folder is created. An existing file is replaced in one step.
    write : callable
        Writes the content into a binary stream.

    Raises
    ------
    InputError
        If the disk is full, the folder cannot be written, or the path is a device. It names the path: some commands that write
        have no --out.
    """
    check_no_device(path)
    fresh = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())  # or a power cut could leave the new name without its content
        fresh.replace(path)
    except BaseException as error:
        with suppress(OSError):  # its folder may be a file
            fresh.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise not_writable(path, error) from None
        raise


def check_no_device(path: Path) -> None:
    """Raises InputError for a device, whose place a file would take: as root also that of /dev/null, for all processes."""
    folder = os.path.realpath(path.parent)
    if folder == "/dev" or folder.startswith("/proc/") or path.is_char_device() or path.is_block_device():
        raise InputError(str(path), "must be a file", "a device", "name a file")


@contextmanager
def only_writer(path: Path, option: str = "--out") -> Iterator[None]:
    """No other process writes a file as long as the block lasts, on any machine. Its folder must be there.

    Raises
    ------
    InputError
        If another process writes it.
    """
    place = path.with_name(f".{sha256(os.fsencode(path.name)).hexdigest()[:16]}.lock")  # a longer name may be too long
    lock = acquire_lock(place, f"{path}, which another command is writing", option)
    if lock:
        _writing.add(place)
    try:
        yield
    finally:
        if lock:
            _remove_lock(place)
            lock.release(force=True)


def remove_locks() -> None:
    """Remove the files by which `only_writer` locks others: for a process that ends at once, without leaving its blocks."""
    for place in [*_writing]:
        _remove_lock(place)


def _remove_lock(place: Path) -> None:
    with suppress(OSError):  # on Windows no open file can be removed
        place.unlink()
    _writing.discard(place)


def acquire_lock(place: Path, taken: str, option: str = "--out") -> "FileLock | None":
    """Lock a file for this process, until the lock is released or the process ends, however it ends.

    taken: what the error says where another process has it. None where the disk has no locks, as some network disks: there the
    user has to take care.
    """
    from filelock import FileLock, Timeout  # only where it is used: --help is fast

    lock = FileLock(place, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(option, "must not be in use", taken, "wait for it or name another") from None
    except PermissionError as error:  # of another account, whose process may be writing
        raise InputError(option, "must be a place that you can write", f"{place}: {error.strerror}", "name another") from None
    except (NotImplementedError, OSError):
        return None
    return lock


def sync_folder(folder: Path) -> None:
    """Write a new folder to the disk before it gets its name, as `atomic_write` does with a file.

    Many files go at once, with all else that the system holds: one by one 3,000 took 10 s, together 0.4.
    """
    found = [folder, *folder.rglob("*")]
    if len(found) > FEW:
        os.sync()
        return
    for path in found:
        sync(path)


def sync(path: Path) -> None:
    """Write a file or folder to the disk, so that a power cut cannot leave its next name without its content."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def part_of(path: Path) -> Path:
    """A name beside a file for what is not whole yet: two processes, also of two machines, never choose the same."""
    return path.with_name(f".{secrets.token_hex(8)}.part")


def not_writable(path: Path, error: OSError) -> InputError:
    """What a user can do about a disk that is full, or a place that cannot be written."""
    if error.errno in NO_ROOM:
        return InputError(str(path), "must be on a disk with room", "a full one", "free some and repeat")
    return InputError(str(path), "must be in a folder that can be written", error.strerror or str(error))


def atomic_write_text(path: Path, text: str) -> None:
    """The same for text, in UTF-8; a lone surrogate (of a file name, say) becomes a question mark."""
    atomic_write(path, lambda stream: stream.write(text.encode("utf-8", errors="replace")))


def read_at_most(path: Path, most: int) -> bytes:
    """The content of a file. Raises InputError if it has more bytes than such a file ever has, or cannot be read."""
    try:
        if not path.is_file():  # a pipe would wait for ever
            raise InputError(str(path), "must be a file", remedy="name another")
        with path.open("rb") as stream:
            content = stream.read(min(most, path.stat().st_size) + 1)
    except OSError as error:
        raise InputError(str(path), "cannot be read", error.strerror, "make it readable, or name another") from None
    if len(content) > most:
        raise InputError(str(path), f"must have at most {most:,} bytes", "more", "name the file that was written")
    return content
