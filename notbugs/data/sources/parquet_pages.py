"""What the pages of a parquet file claim to hold, by their own headers: pyarrow sets aside what they claim before it reads them.

The headers are structs of Thrift's compact protocol: https://parquet.apache.org/docs/file-format/. A field is known by its number
and type, as pyarrow knows it: where a file has another type in its place, both take it as absent.
"""

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    import pyarrow

MAGIC = b"PAR1"
HEADER = 2**16  # bytes of a page header, which holds two values of the page; a longer one is read to its end
LONGEST_HEADER = 2**24  # as pyarrow has it
DEEPEST = 32  # structs and lists in each other
PADDING = 100  # bytes that a chunk may be longer than it says, in files of parquet-mr before 1.2.9
DICTIONARY, DATA, DATA_2 = 2, 0, 3  # types of pages
LONGEST_NUMBER = 12  # bytes
CODECS = {0: "", 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}  # as pyarrow calls them
DELTA_LENGTHS, DELTA_BYTES = 6, 7  # encodings whose values say once more how many they are, inside of the page
TRUE, FALSE, I8, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
Struct = dict[tuple[int, int], "object"]


@dataclass(frozen=True)
class Claims:
    """What a file claims, in bytes. pages: all of them, unpacked. largest: one page. lists: all values of columns of lists.

    A row of a column without lists has one value, which is no longer than a page. A row of a list may have any number.
    """

    pages: int
    largest: int
    lists: int


class _EndsError(Exception):
    """The bytes end within what is read."""


def claims(path: Path, schema: "pyarrow.parquet.ParquetSchema", most: int) -> Claims:
    """What the pages of a parquet file claim.

    Parameters
    ----------
    path : Path
    schema : pyarrow.parquet.ParquetSchema
        Its columns, as pyarrow has read them.
    most : int
        Bytes of all pages, at which it stops.

    Raises
    ------
    ValueError
        If a header is damaged, or claims what cannot be true: pages beyond their column or the file, a dictionary with more
        values than bytes, or an encoding of which nobody can say what it takes.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, io.SEEK_END)
        groups = [_list(_struct(group).get((1, LIST))) for group in _list(_footer(stream, size).get((4, LIST)))]
        if any(len(columns) != len(schema) for columns in groups):
            raise ValueError("a group of rows has other columns than the file")
        chunks = [(_chunk(column), schema.column(number)) for columns in groups for number, column in enumerate(columns)]
        if sum(chunk.length for chunk, _ in chunks) > size:
            raise ValueError("its columns claim more bytes than it has")
        size_of_all = largest = lists = 0
        for chunk, column in chunks:
            pages = []
            for page in _pages(stream, chunk, size):
                pages.append(page)
                size_of_all, largest = size_of_all + page.size, max(largest, page.size)
                if size_of_all > most:
                    return Claims(size_of_all, largest, lists)
            if column.max_repetition_level:
                lists += sum(page.values for page in pages) * _longest_value(stream, chunk, column, pages)
    return Claims(size_of_all, largest, lists)


@dataclass(frozen=True)
class _Chunk:
    """The pages of a column in a group of rows."""

    start: int
    length: int
    values: int
    codec: str | None


@dataclass(frozen=True)
class _Page:
    """A page. values: of its rows. words: those of a dictionary. content: where its bytes are, and how many."""

    size: int
    values: int
    words: int
    content: tuple[int, int]


def _footer(stream: BinaryIO, size: int) -> Struct:
    stream.seek(max(0, size - 8))
    tail = stream.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or length + 8 > size:
        raise ValueError("its end is damaged, or it is encrypted")
    stream.seek(size - 8 - length)
    try:
        return _Reader(stream.read(length)).struct()
    except _EndsError:
        raise ValueError("its description is damaged") from None


def _chunk(column: object) -> _Chunk:
    about = _struct(_struct(column).get((3, STRUCT)))
    values, length, start = (_number(about.get((number, I64))) for number in (5, 7, 9))
    codec = CODECS.get(_number(about.get((4, I32))))
    dictionary = _number(about.get((11, I64), 0))
    if min(values, length, start) < 0:
        raise ValueError("a column claims a place or a size below 0")
    return _Chunk(dictionary if 0 < dictionary < start else start, length, values, codec)


def _longest_value(stream: BinaryIO, chunk: _Chunk, column: "pyarrow.parquet.ColumnSchema", pages: Sequence[_Page]) -> int:
    """The most bytes that one value of a column can take in each row: a value of a dictionary stands there once."""
    if column.physical_type != "BYTE_ARRAY":
        return max(int(column.length), LONGEST_NUMBER)
    longest = 0
    for page in (page for page in pages if page.words):
        stream.seek(page.content[0])
        content = stream.read(page.content[1])
        if chunk.codec is None:  # not known here
            return page.size
        if chunk.codec:
            import pyarrow

            content = pyarrow.decompress(content, page.size, chunk.codec, asbytes=True)
        place = 0
        for _ in range(page.words):
            length = int.from_bytes(content[place : place + 4], "little")
            longest, place = max(longest, length), place + 4 + length
    return longest + LONGEST_NUMBER


def _pages(stream: BinaryIO, chunk: _Chunk, size: int) -> Iterator[_Page]:
    """The pages of a column, which follow each other until they have all values, or the column ends."""
    place, end, seen = chunk.start, min(chunk.start + chunk.length + PADDING, size), 0
    while seen < chunk.values and place < end:
        header, length = _page_header(stream, place, end)
        kind, unpacked, packed = (_number(header.get((number, I32))) for number in (1, 2, 3))
        place += length + packed
        if min(unpacked, packed) < 0 or place > end:
            raise ValueError("a page claims more bytes than its column has")
        values = words = 0
        if kind in (DATA, DATA_2):
            about = _struct(header.get((5 if kind == DATA else 8, STRUCT)))
            values, encoding = _number(about.get((1, I32))), _number(about.get((2 if kind == DATA else 4, I32)))
            if values < 0:
                raise ValueError("a page claims less than no values")
            if encoding in (DELTA_LENGTHS, DELTA_BYTES):
                raise ValueError(
                    "a column is encoded as DELTA_LENGTH_BYTE_ARRAY or DELTA_BYTE_ARRAY, not by a dictionary or PLAIN"
                )
            seen += values
        elif kind == DICTIONARY:
            words = _number(_struct(header.get((7, STRUCT))).get((1, I32)))
            if not 0 <= words <= unpacked:
                raise ValueError("a dictionary claims more values than it has bytes")
        yield _Page(max(unpacked, packed), values, words, (place - packed, packed))


def _page_header(stream: BinaryIO, place: int, end: int) -> tuple[Struct, int]:
    """A header and its length."""
    length = HEADER
    while True:
        stream.seek(place)
        reader = _Reader(stream.read(min(length, end - place)))
        try:
            return reader.struct(), reader.place
        except _EndsError:
            if length >= min(LONGEST_HEADER, end - place):
                raise ValueError("the header of a page is damaged") from None
            length *= 16


def _struct(found: object) -> Struct:
    if not isinstance(found, dict):
        raise ValueError("a header lacks a part")
    return cast(Struct, found)


def _list(found: object) -> list[object]:
    if not isinstance(found, list):
        raise ValueError("a header lacks a list")
    return found


def _number(found: object) -> int:
    if not isinstance(found, int):
        raise ValueError("a header lacks a number")
    return found


class _Reader:
    """Values of Thrift's compact protocol, one after the other.

    Examples
    --------
    >>> _Reader(bytes([0x15, 0x06, 0x18, 0x01, 0x61, 0x00])).struct() == {(1, I32): 3, (2, BINARY): b"a"}
    True
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def struct(self, deepest: int = DEEPEST) -> Struct:
        """A struct: its values by number and type."""
        found: Struct = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            found[number, head & 15] = self._value(head & 15, deepest)
        return found

    def _value(self, kind: int, deepest: int) -> object:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind == I8:
            return self._byte()
        if kind in (I16, I32, I64):
            return self._signed()
        if kind == DOUBLE:
            return struct.unpack("<d", self._bytes(8))[0]
        if kind == BINARY:
            return self._bytes(self._unsigned())
        if kind in (LIST, SET, MAP, STRUCT) and deepest:
            return self.struct(deepest - 1) if kind == STRUCT else self._several(kind, deepest - 1)
        raise ValueError("a header has an unknown type, or is nested too deeply")

    def _several(self, kind: int, deepest: int) -> list[object]:
        """The values of a list or set; the keys and values of a map."""
        pair: tuple[int, ...]
        if kind == MAP:
            count = self._unsigned()
            kinds = self._byte() if count else 0
            pair = (kinds >> 4, kinds & 15)
        else:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._unsigned()
            pair = (head & 15,)
        return [self._item(each, deepest) for _ in range(count) for each in pair]

    def _item(self, kind: int, deepest: int) -> object:
        return self._byte() == TRUE if kind in (TRUE, FALSE) else self._value(kind, deepest)  # in lists they take a byte

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        if self.place + count > len(self.content):
            raise _EndsError
        self.place += count
        return self.content[self.place - count : self.place]

    def _unsigned(self) -> int:
        found, shift = 0, 0
        while True:
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:
                return found
            shift += 7
            if shift > 63:
                raise ValueError("a header has too long a number")

    def _signed(self) -> int:
        found = self._unsigned()
        return found >> 1 ^ -(found & 1)
