"""Class folders in tar archives, read by the same decisions as a folder: an outline of empty files stands for the archive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple, overload

from notbugs.data.config import DataConfig
from notbugs.data.decode import EncodedImage
from notbugs.data.names import Unreadable, printable
from notbugs.data.sources.base import Located
from notbugs.data.sources.folder import locate_folder
from notbugs.data.sources.label_table import MOST_BYTES, SUFFIXES
from notbugs.data.sources.splits import splits_among
from notbugs.errors import InputError

AGAIN = "pack it again"


class Member(NamedTuple):
    """One file in a tar archive: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Archive:
    """A tar archive. content: its bytes, if it was packed with gzip; else they are read from the file when needed."""

    path: Path
    members: tuple[Member, ...]
    content: bytes | None = None

    def read(self, member: Member) -> bytes:
        """The bytes of one file."""
        if self.content is not None:
            return self.content[member.offset : member.offset + member.size]
        with self.path.open("rb") as stream:
            stream.seek(member.offset)
            return stream.read(member.size)


@dataclass(frozen=True)
class ArchivedFiles(Sequence[EncodedImage]):
    """Image files inside tar archives, read when they are indexed."""

    archives: tuple[Archive, ...]
    members: tuple[tuple[int, Member], ...]

    def __len__(self) -> int:
        return len(self.members)

    @overload
    def __getitem__(self, index: int) -> EncodedImage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[EncodedImage]: ...
    def __getitem__(self, index: int | slice) -> EncodedImage | Sequence[EncodedImage]:
        if isinstance(index, slice):
            return ArchivedFiles(self.archives, self.members[index])
        archive, member = self.members[index]
        return self.archives[archive].read(member)


def locate_tree(source: Path, by_name: Mapping[str, Sequence[Archive]], config: DataConfig) -> Located:
    """The images of archives that hold what an image folder holds.

    by_name: the archives by the parts that their names say; these are the parts, if all names say one.

    Raises
    ------
    InputError
        As for a folder; and if a file leads out of it, or is there twice.
    """
    named = len(by_name) > 1 and set(splits_among(by_name)) == set(by_name)
    archives = tuple(archive for found in by_name.values() for archive in found)
    folders = [name if named else "" for name, found in by_name.items() for _ in found]
    with TemporaryDirectory(prefix="notbugs-") as temporary:
        root = Path(temporary) / (source.name.partition(".")[0] or "archive")
        known: dict[str, tuple[int, Member]] = {}
        for number, (archive, folder) in enumerate(zip(archives, folders, strict=True)):
            for member in archive.members:
                path = _outline(root, folder, archive, member)
                known[path.relative_to(root).as_posix()] = number, member
        try:
            located = locate_folder(config, root)
        except InputError as error:
            parameter, rule, got, remedy = (text and text.replace(str(root), str(source)) for text in error.args)
            shards = "; or put KEY.cls, KEY.json or KEY.txt beside each KEY.jpg" if "label for each image" in rule else ""
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


def _outline(root: Path, folder: str, archive: Archive, member: Member) -> Path:
    """A file that stands for one in an archive: empty, but for a table of labels."""
    inner = PurePosixPath(member.name)
    if inner.is_absolute() or ".." in inner.parts or not inner.parts:
        raise InputError(printable(str(archive.path)), "holds a file that leads out of the folder", printable(member.name), AGAIN)
    path = root / folder / inner
    is_table = inner.suffix.lower() in SUFFIXES and member.size <= MOST_BYTES
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            stream.write(archive.read(member) if is_table else b"")
    except FileExistsError:
        raise InputError(printable(f"{archive.path}: {member.name}"), "is twice in the archive", remedy=AGAIN) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(printable(f"{archive.path}: {member.name}"), "has a name that no file can have", reason, AGAIN) from None
    return path
