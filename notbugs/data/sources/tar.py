"""Tar archives: which files they hold, and the bytes of each. Nothing is extracted; what leads out of a folder is refused."""

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast, overload

from notbugs.data.names import first_line, is_printable, printable
from notbugs.data.sources.limits import CHUNK, FREE, most_bytes, most_members, read_at_most
from notbugs.data.sources.refused import reject_foreign
from notbugs.decoding.headers import EncodedImage
from notbugs.errors import InputError

ENDINGS = (".tar", ".tar.gz", ".tgz")
GUNZIP = "unpack it with gunzip: an unpacked .tar is read from disk"


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

    def pieces(self, member: Member) -> Iterator[bytes]:
        """The bytes of one file, a few at a time: it may not fit into memory."""
        for start in range(0, member.size, CHUNK):
            yield self.read(Member(member.name, member.offset + start, min(CHUNK, member.size - start)))


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


class _Capped(io.BufferedReader):
    """A file of which nothing is read, and no memory set aside, beyond its end: headers may claim names of any length."""

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


class _TooManyError(Exception):
    """An archive holds more files than it may."""


def open_archive(path: Path) -> Archive:
    """The list of files in a tar archive. Links and devices in it are refused.

    Raises
    ------
    InputError
        If it is damaged, or packed too densely: if it expands to over 1 GB, or holds more than 10,000 files, one in less than 32
        bytes.
    """
    reject_foreign(path)
    content = None if path.suffix.lower() == ".tar" else _unpacked(path)
    try:
        if content is None:
            with _Capped(io.FileIO(path)) as stream:
                return Archive(path, tuple(_members(stream, path.stat().st_size)))
        most = most_members(path.stat().st_size)
        return Archive(path, tuple(_members(io.BytesIO(content), len(content), most)), content)
    except _TooManyError:
        rule = f"must hold at most {most:,} files to be read while packed"
        raise InputError(printable(str(path)), rule, remedy=GUNZIP) from None
    except (OSError, ValueError, EOFError, tarfile.TarError, RecursionError, OverflowError) as error:
        raise InputError(printable(str(path)), "cannot be read as a tar archive", first_line(error), "pack it again") from None


def _unpacked(path: Path) -> bytes:
    """What a .tar.gz holds, in memory: 1 GB at most."""
    most = min(FREE, most_bytes(path.stat().st_size))
    try:
        with gzip.open(path) as stream:
            content = bytes(read_at_most(cast(BinaryIO, stream), most + 1))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(printable(str(path)), "cannot be unpacked", first_line(error), "pack it again") from None
    if len(content) > most:
        raise InputError(printable(str(path)), f"must hold at most {most:,} bytes to be read while packed", remedy=GUNZIP)
    return content


def _members(stream: BinaryIO, size: int, most: int | None = None) -> Iterator[Member]:
    """The files of a tar archive, in order. Python ends its list at a damaged header without a word, so the end is checked."""
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for count, info in enumerate(archive):
            if count == most:
                raise _TooManyError
            if info.issym() or info.islnk() or info.issparse() or not (info.isreg() or info.isdir()):
                raise ValueError(f"it holds a link or no ordinary file: {printable(info.name)}")
            if not is_printable(info.name) or info.size < 0:
                raise ValueError(f"the file {printable(info.name)} has a damaged header")
            if info.offset_data + info.size > size:
                raise ValueError(f"the file {printable(info.name)} is cut off, or has a damaged header")
            if info.name.startswith("/") or ".." in info.name.split("/"):
                raise ValueError(f"it holds a file that leads out of the folder: {printable(info.name)}")
            if info.isreg():
                yield Member(info.name, info.offset_data, info.size)
        if archive.offset >= size:
            raise ValueError("it ends without a block of zeros: it is cut off, or was not closed")
        stream.seek(archive.offset)
        while rest := stream.read(2**20):
            if rest.strip(b"\0"):
                raise ValueError(f"it is damaged, or another archive follows, after byte {archive.offset:,}")
