"""Class folders in tar archives, read by the same decisions as a folder: an outline of empty files stands for the archive."""

import os
import posixpath
import shutil
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from notbugs.data.names import Unreadable, printable
from notbugs.data.pixel_arrays import PixelArrays
from notbugs.data.sources.base import Located, about, errors_about
from notbugs.data.sources.folder import locate_folder
from notbugs.data.sources.label_table import MOST_BYTES, SUFFIXES
from notbugs.data.sources.limits import is_long_path
from notbugs.data.sources.splits import splits_among
from notbugs.data.sources.tar import Archive, ArchivedFiles, Member
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

AGAIN = "pack it again"
MOST_LINKS = 30_000  # to one file: ext4 allows 65,000


ReadFiles = Callable[[Path, DataConfig], Located]


def locate_tree(source: Path, by_name: Mapping[str, Sequence[Archive]], config: DataConfig) -> Located:
    """The images of archives that hold what an image folder holds.

    by_name: the archives by the parts that their names say; these are the parts, if all names say one.

    Raises
    ------
    InputError
        As for a folder; and if a file leads out of it, or is there twice.
    """
    asked = {config.train, config.test}.intersection(by_name)
    named = splits_among(by_name).keys() == by_name.keys() and (len(by_name) > 1 or bool(asked))
    archives = tuple(archive for found in by_name.values() for archive in found)
    folders = [name if named else "" for name, found in by_name.items() for _ in found]
    with TemporaryDirectory(prefix="notbugs-") as temporary:
        root = Path(temporary, "outline", source.name.partition(".")[0] or "archive")
        known: dict[str, tuple[int, Member]] = {}
        outline = _Outline(root)
        for number, (archive, folder) in enumerate(zip(archives, folders, strict=True)):
            for member in archive.members:
                inner = posixpath.normpath(f"{folder}/{member.name}" if folder else member.name)
                outline.add(inner, archive, member)
                known[inner] = number, member
        if not known:
            raise InputError(printable(str(source)), "holds no files")
        try:
            with errors_about(source, root):
                located = locate_folder(config, root)
        except InputError as error:
            parameter, rule, got, remedy = error.args
            shards = (
                "; or put KEY.cls, KEY.json or KEY.txt beside each KEY.jpg (a KEY ends at its first dot)"
                if "label for each image" in rule and not got.startswith("no images")
                else ""
            )
            raise InputError(parameter, rule, got, remedy + shards) from None

    def place(location: str) -> str:
        number, member = known.get(location, (-1, None))
        return f"{archives[number].path.name}: {member.name}" if member else f"{source.name}: {location}"

    return located._replace(
        files=ArchivedFiles(archives, tuple(known[location] for location in located.locations)),
        locations=[place(location) for location in located.locations],
        unreadable=tuple(Unreadable(place(location), reason) for location, reason in located.unreadable),
        left_out=tuple(Unreadable(place(location), reason) for location, reason in located.left_out),
    )


def locate_extracted(
    source: Path, by_name: Mapping[str, Sequence[Archive]], config: DataConfig, read_files: ReadFiles
) -> Located:
    """The images of archives without image files, of arrays for example: extracted into a folder that is deleted with them.

    Raises
    ------
    InputError
        As the reader does; if a file leads out of the folder or is there twice, or if the disk is full.
    """
    archives = [archive for found in by_name.values() for archive in found]
    temporary = mkdtemp(prefix="notbugs-")
    try:
        folder = Path(temporary, source.name.partition(".")[0] or "archive")
        outline = _Outline(folder, whole=True)
        folder.mkdir()
        for archive in archives:
            for member in archive.members:
                outline.add(posixpath.normpath(member.name), archive, member)
        with errors_about(source, folder):
            located = about(read_files(folder, replace(config.data, dataset=str(folder))), source, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if isinstance(located.files, PixelArrays):  # which are read later
        weakref.finalize(located.files, shutil.rmtree, temporary, ignore_errors=True)
        return located
    shutil.rmtree(temporary, ignore_errors=True)
    on_disk = any(isinstance(file, str) for file in located.files[:1])
    return locate_tree(source, by_name, config) if on_disk else located  # files with names that do not say what they are


class _Outline:
    """A folder of files that stand for those of archives: empty, but for tables of labels.

    Empty files are hard links to a few: on ext4 a link takes 38 microseconds, a new file 245.
    """

    def __init__(self, root: Path, *, whole: bool = False) -> None:
        self.root = root
        self.whole = whole  # whether all files have their content
        self._made: set[str] = set()
        self._of: dict[str, Archive] = {}  # the archive of each file
        self._links = 0

    def add(self, inner: str, archive: Archive, member: Member) -> None:
        """Make the file for a member. Raises InputError if it cannot be in a folder, or is there."""
        place = printable(f"{archive.path}: {member.name}")
        if member.name.startswith("/") or ".." in member.name.split("/") or inner == ".":
            raise InputError(place, "leads out of the folder", remedy=AGAIN)
        if is_long_path(inner):
            place = printable(f"{archive.path}: {member.name[:100]}")
            raise InputError(place, "has a name that no file can have", "it is too long", AGAIN)
        path = f"{self.root}/{inner}"
        try:
            if (parent := posixpath.dirname(path)) not in self._made:
                os.makedirs(parent, exist_ok=True)
                self._made.add(parent)
            if self.whole or (posixpath.splitext(inner)[1].lower() in SUFFIXES and member.size <= MOST_BYTES):
                with open(path, "xb") as stream:
                    stream.writelines(archive.pieces(member))
            else:
                os.link(self._empty(), path)
            self._of[inner] = archive
        except FileExistsError:
            rule = "is twice in the archive" if self._of.get(inner, archive) is archive else "is in another archive, too"
            raise InputError(place, rule, remedy=f"{AGAIN}, or unpack each archive into a folder of its own") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(place, "has a name that no file can have", reason, AGAIN) from None

    def _empty(self) -> str:
        """An empty file outside the folder, with fewer links than file systems allow."""
        path = f"{self.root.parents[1]}/empty-{self._links // MOST_LINKS}"
        if self._links % MOST_LINKS == 0:
            Path(path).touch()
        self._links += 1
        return path
