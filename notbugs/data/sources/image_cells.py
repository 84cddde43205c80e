"""Encoded images in a column of a table: their bytes stay on the disk until an image is decoded."""

import os
import tempfile
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, overload

from notbugs.data.sources.unpack import cache_folder
from notbugs.decoding.headers import EncodedImage
from notbugs.errors import InputError

if TYPE_CHECKING:
    import pyarrow

IN_MEMORY = 2**22  # bytes of encoded images above which they are put on the disk: a file for each small set would be slow


@dataclass(frozen=True, eq=False)
class ImageCells(Sequence[EncodedImage]):
    """The cells of a column of images at some of its rows.

    Attributes
    ----------
    read : callable
        The bytes of the image in a row of the column; None where it has none.
    paths : list
        What the cell of each row says of its file.
    empty : frozenset of int
        The rows that have no cell, or one without bytes and path.
    without : frozenset of int
        The rows that have no bytes, but may name a file.
    rows : sequence of int
    """

    read: Callable[[int], bytes | None]
    paths: Sequence[str | None]
    empty: frozenset[int]
    without: frozenset[int]
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> EncodedImage: ...
    @overload
    def __getitem__(self, index: slice) -> "ImageCells": ...
    def __getitem__(self, index: int | slice) -> "EncodedImage | ImageCells":
        if isinstance(index, slice):
            return replace(self, rows=self.rows[index])
        row = self.rows[index]
        return {"bytes": self.read(row), "path": self.paths[row]}


def cells_in_place(pieces: Sequence["pyarrow.StructArray"]) -> ImageCells:
    """Cells of arrays that are mapped from a file. pieces: structs of bytes and path, one after the other."""
    ends = list(accumulate(map(len, pieces)))
    content = [piece.field("bytes") for piece in pieces]

    def read(row: int) -> bytes | None:
        number = bisect_right(ends, row)
        found: bytes | None = content[number][row - ends[number] + len(pieces[number])].as_py()
        return found

    facts = _Facts()
    for piece in pieces:
        facts.add(piece)
    return facts.cells(read)


def cells_on_disk(pieces: Iterable["pyarrow.StructArray"]) -> ImageCells:
    """Cells of arrays that are read once: their bytes go to a file without a name, in the user's cache, unless they are few."""
    store, begins, facts = _Store(), [0], _Facts()
    for piece in pieces:
        facts.add(piece)
        content = [value or b"" for value in piece.field("bytes").to_pylist()]
        begins += accumulate(map(len, content), initial=begins.pop())
        store.add(b"".join(content))

    def read(row: int) -> bytes | None:
        return None if row in facts.without else store.read(begins[row], begins[row + 1] - begins[row])

    return facts.cells(read)


class _Facts:
    """What is known of cells besides their bytes."""

    def __init__(self) -> None:
        self.paths: list[str | None] = []
        self.empty: set[int] = set()
        self.without: set[int] = set()

    def add(self, piece: "pyarrow.StructArray") -> None:
        first = len(self.paths)
        self.paths += piece.field("path").to_pylist()
        empty, without = (
            [first + row for row, valid in enumerate(array.is_valid().to_pylist()) if not valid] if array.null_count else []
            for array in (piece, piece.field("bytes"))
        )
        self.without.update(without)
        self.empty.update(empty, (row for row in without if not self.paths[row]))

    def cells(self, read: Callable[[int], bytes | None]) -> ImageCells:
        return ImageCells(read, self.paths, frozenset(self.empty), frozenset(self.without | self.empty), range(len(self.paths)))


class _Store:
    """Bytes one after the other: in memory while they are few, then in a file that has no name and ends with this."""

    def __init__(self) -> None:
        self._few = bytearray()
        self._file: int | None = None

    def add(self, content: bytes) -> None:
        self._few += content
        if self._file is None and len(self._few) > IN_MEMORY:
            self._file = _nameless_file()
            weakref.finalize(self, os.close, self._file)
        if self._file is not None:
            _write(self._file, self._few)
            self._few = bytearray()

    def read(self, begin: int, size: int) -> bytes:
        return bytes(self._few[begin : begin + size]) if self._file is None else os.pread(self._file, size, begin)


def _nameless_file() -> int:
    folder = cache_folder()
    try:
        number, name = tempfile.mkstemp(prefix="images-", dir=folder)
        os.unlink(name)
    except OSError as error:
        raise _not_written(error) from None
    return number


def _write(file: int, content: bytearray) -> None:
    left = memoryview(content)
    try:
        while left:
            left = left[os.write(file, left) :]
    except OSError as error:
        raise _not_written(error) from None


def _not_written(error: OSError) -> InputError:
    remedy = "set XDG_CACHE_HOME to a folder on a disk with room"
    return InputError(str(cache_folder()), "has no room for the images of the table", error.strerror, remedy)
