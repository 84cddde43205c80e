"""A .zip file as a folder: unpacked once, into a private folder of the user, under limits, and found again by later runs."""

import os
import re
import shutil
import stat
import zipfile
from hashlib import sha256
from pathlib import Path, PurePosixPath

from filelock import FileLock

from notbugs.data.names import first_line, is_printable, printable
from notbugs.data.sources.limits import CHUNK, check_expansion, check_members, is_long_path
from notbugs.errors import InputError

DISK_BLOCK = 4096  # bytes on the disk that any file takes besides its content, which is a whole number of them
ENCRYPTED = 1  # a bit in the flags of a file
UNPACK = "unpack it and pass the folder"


def cache_folder() -> Path:
    """Where unpacked files are kept: `notbugs` in $XDG_CACHE_HOME, or in ~/.cache. Others cannot look into it.

    Raises
    ------
    InputError
        If it belongs to someone else, or cannot be made.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "notbugs"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
            raise InputError(
                printable(str(folder)), "must be a folder of your own", remedy="set XDG_CACHE_HOME to another folder"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise InputError(printable(str(folder)), "cannot be written", error.strerror, "set XDG_CACHE_HOME") from None
    return folder


def unpack(path: Path) -> Path:
    """The folder with what a .zip file holds, unpacked unless it is there already.

    Raises
    ------
    InputError
        If the file is damaged or encrypted, has links or paths that leave the folder, or expands to far more than its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name: info for info in archive.infolist() if not info.is_dir() and (name := _checked_name(path, info))}
            if len(members) < sum(not info.is_dir() for info in archive.infolist()):
                raise InputError(printable(str(path)), "has two files of one name", remedy=UNPACK)
            folder = cache_folder() / f"{path.stem[:40]}-{_digest(path, archive)}"
            with FileLock(folder.with_name(f"{folder.name}.lock")):
                if not _is_whole(folder, members):
                    _check_room(path, folder, members)
                    _extract(path, archive, members, folder)
            return folder
    except InputError:
        raise
    except OSError as error:
        raise InputError(printable(str(path)), "cannot be unpacked", error.strerror or first_line(error), UNPACK) from None
    except Exception as error:  # damaged archives raise almost anything
        raise InputError(printable(str(path)), "cannot be read as a .zip file", first_line(error), "download it again") from None


def _checked_name(path: Path, info: zipfile.ZipInfo) -> str:
    """The path of a file inside the archive. Raises InputError if it must not be written."""
    name = info.filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    kind = stat.S_IFMT(info.external_attr >> 16)
    problem = ""
    if not parts or name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
        problem = "leads out of the folder"
    elif kind not in (0, stat.S_IFREG):
        problem = "is a link or no ordinary file"
    elif info.flag_bits & ENCRYPTED:
        problem = "is encrypted"
    elif not is_printable(name) or is_long_path(name):
        problem = "has a name that is too long, or control characters in it"
    if problem:
        raise InputError(printable(str(path)), f"holds a file that {problem}", printable(info.filename[:100]), UNPACK)
    return str(PurePosixPath(*parts))


def _digest(path: Path, archive: zipfile.ZipFile) -> str:
    """Changes with the place, the size, the date or the list of files of an archive."""
    state = path.stat()
    digest = sha256(repr((str(path.resolve()), state.st_size, state.st_mtime_ns)).encode("utf-8", "surrogateescape"))
    for info in archive.infolist():
        digest.update(repr((info.filename, info.CRC, info.file_size, info.header_offset)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _is_whole(folder: Path, members: dict[str, zipfile.ZipInfo]) -> bool:
    """Whether a folder has all files in their sizes: a cleaner may have removed some."""
    try:
        return folder.is_dir() and all((folder / name).lstat().st_size == info.file_size for name, info in members.items())
    except OSError:
        return False


def _check_room(path: Path, folder: Path, members: dict[str, zipfile.ZipInfo]) -> None:
    check_members(path, list(members.values()))
    needed = sum((-(-info.file_size // DISK_BLOCK) + 1) * DISK_BLOCK for info in members.values())
    free = shutil.disk_usage(folder.parent).free
    check_expansion(path, needed)
    if needed > free:
        got = f"{needed / 1e9:,.1f} GB needed, {free / 1e9:,.1f} GB free in {folder.parent}"
        raise InputError(printable(str(path)), "does not fit on the disk", got, "set XDG_CACHE_HOME to a folder on another one")


def _extract(path: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    """Write all files beside the folder, counting what is really written, and then give it its name."""
    temporary = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was stopped: the lock is ours
    shutil.rmtree(folder, ignore_errors=True)
    written = 0
    try:
        temporary.mkdir(mode=0o700)
        for name, info in members.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, target.open("xb") as stream:
                while content := source.read(CHUNK):
                    written += len(content)
                    check_expansion(path, written)
                    stream.write(content)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
