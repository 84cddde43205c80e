"""How much a file may hold: what it claims is compared with its size before anything is believed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipInfo, is_zipfile

import numpy as np

from notbugs.data.names import printable
from notbugs.data.sources.parquet_pages import claims
from notbugs.errors import InputError

if TYPE_CHECKING:
    import pyarrow

FREE = 2**30  # bytes that any file may expand to
CHUNK = 2**20  # bytes read at a time
MOST_RATIO = 100  # photographs and digits need 1 to 10; zeros alone reach 1,000
FREE_MEMBERS = 10_000  # files that any packed archive may hold
LEAST_PACKED = 32  # bytes of a packed archive for each of more files: a PNG file has 67 or more, its label another 10
MOST_NAME, MOST_PATH = 255, 1024  # bytes of a part of a path in an archive, and of all of it
MOST_PARTS = 100  # of such a path
BATCH_ROWS, BATCH = 2**12, 2**22  # of a table at a time, and their bytes if all rows take as many
PIECE = 2**26  # bytes of a table that lie together in memory


def most_bytes(stored: int) -> int:
    """The most that a file of `stored` bytes may expand to.

    Examples
    --------
    >>> most_bytes(1000) == 2**30, most_bytes(2**30) == 100 * 2**30
    (True, True)
    """
    return max(FREE, MOST_RATIO * stored)


def check_expansion(source: Path, size: int, stored: int | None = None) -> None:
    """Raises InputError where a file claims to hold, or holds, over 1 GB that is more than 100 times its own size.

    stored: the size of all files, if there are several.
    """
    stored = source.stat().st_size if stored is None else stored
    if size > most_bytes(stored):
        rule = f"must not expand to more than {MOST_RATIO} times its size"
        raise InputError(
            printable(str(source)), rule, f"{size:,} bytes from {stored:,}", "if you trust it, unpack it and pass the folder"
        )


def read_at_most(stream: BinaryIO, most: int) -> bytearray:
    """The next bytes of a stream, at most so many. A plain `read(most)` sets the memory for all of them aside at once.

    Examples
    --------
    >>> import io
    >>> read_at_most(io.BytesIO(b"abc"), 2), read_at_most(io.BytesIO(b"abc"), 10**12)
    (bytearray(b'ab'), bytearray(b'abc'))
    """
    content = bytearray()
    while len(content) < most and (more := stream.read(min(CHUNK, most - len(content)))):
        content += more
    return content


def is_zip(path: Path) -> bool:
    """Whether a file ends as .zip files do. Whoever opens it finds what is wrong with it: `zipfile.is_zipfile` may raise that."""
    try:
        return is_zipfile(path)
    except BadZipFile:  # it claims to be one of several
        return True


def check_members(source: Path, members: Sequence[ZipInfo]) -> None:
    """Raises InputError where what a .zip file claims of its files cannot be true, or expands too much.

    Python unpacks bzip2 and LZMA without looking at these claims: 840 bytes took 1 GB.
    """
    if any(info.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for info in members):
        raise InputError(printable(str(source)), "must be packed by deflate", "another packing", "unpack it, or pack it again")
    if sum(info.compress_size for info in members) > source.stat().st_size:  # also where files share their bytes
        raise InputError(printable(str(source)), "is damaged", "files that claim more bytes than it has", "pack it again")
    check_expansion(source, sum(info.file_size for info in members))


def most_members(packed: int) -> int:
    """The most files that a packed archive of so many bytes may hold: 400,000 empty ones take 3 MB, and half a minute to list.

    Examples
    --------
    >>> most_members(1000), most_members(64_000_000)
    (10000, 2000000)
    """
    return max(FREE_MEMBERS, packed // LEAST_PACKED)


def is_long_path(name: str) -> bool:
    """Whether the path of a file in an archive is too long to be made. Each of its folders takes a call in a call of Python.

    Examples
    --------
    >>> is_long_path("cat/1.png"), is_long_path("a/" * 101 + "1.png")
    (False, True)
    """
    parts = name.split("/")
    return len(name.encode()) > MOST_PATH or len(parts) > MOST_PARTS or any(len(part.encode()) > MOST_NAME for part in parts)


def words_array(source: Path, words: Sequence[str]) -> np.ndarray:
    """Words as an array, in which each takes as much memory as the longest. Raises InputError where that is too much."""
    check_expansion(source, 4 * len(words) * max(map(len, words), default=0))
    return np.array(words, dtype=str)


def read_parquet(paths: Sequence[Path], most: int | None = None, *, without: str | None = None) -> Iterator["pyarrow.Table"]:
    """The table of each parquet file, read in batches that are counted: what is written once may stand in any number of rows.

    Parameters
    ----------
    paths : sequence of Path
    most : int, optional
        Bytes of all tables. Default: as much as any file may expand to.
    without : str, optional
        A column that is not read: its cells are empty.

    Raises
    ------
    InputError
        If the files claim to hold, or hold, more.
    """
    import pyarrow

    counted = _Counted(paths, most)
    for path in paths:
        with _opened(path) as file:
            whole, kept = file.schema_arrow, [name for name in file.schema_arrow.names if name != without]
            schema = pyarrow.schema([whole.field(name) for name in kept], whole.metadata)
            pieces, batches, size = [schema.empty_table()], list[pyarrow.RecordBatch](), 0
            for batch in counted.batches(path, file, kept if without in whole.names else None):
                batches.append(batch)
                size += batch.nbytes
                if size >= PIECE:  # thousands of small pieces make each access to a row slow
                    pieces.append(pyarrow.Table.from_batches(batches).combine_chunks())
                    batches, size = [], 0
            table = pyarrow.concat_tables([*pieces, pyarrow.Table.from_batches(batches, schema).combine_chunks()])
            if without in whole.names:
                rows, place = file.metadata.num_rows if not kept else table.num_rows, whole.names.index(without)
                table = table.add_column(place, whole.field(without), pyarrow.nulls(rows, whole.field(without).type))
                table = table.replace_schema_metadata(whole.metadata)
            yield table


def _opened(path: Path) -> "pyarrow.parquet.ParquetFile":
    """A parquet file of which a little is in memory at a time, not a whole group of rows."""
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path, buffer_size=CHUNK, pre_buffer=False)


def read_column(paths: Sequence[Path], name: str) -> Iterator["pyarrow.Array"]:
    """One column of parquet files, a few rows at a time, counted as `read_parquet` does. Raises InputError."""
    counted = _Counted(paths, None)
    for path in paths:
        with _opened(path) as file:
            for batch in counted.batches(path, file, [name]):
                yield batch.column(batch.schema.get_field_index(name))


class _Counted:
    """The bytes that are read of files, compared with what they may expand to."""

    def __init__(self, paths: Sequence[Path], most: int | None) -> None:
        self._first, self._most = paths[0], most
        self._stored = sum(path.stat().st_size for path in paths)
        self._read = 0

    def _check(self, size: int) -> None:
        if self._most is not None and size > self._most:
            raise InputError(printable(str(self._first)), f"must hold at most {self._most:,} bytes", f"{size:,}")
        check_expansion(self._first, size, self._stored)

    def batches(
        self, path: Path, file: "pyarrow.parquet.ParquetFile", columns: Sequence[str] | None
    ) -> Iterator["pyarrow.RecordBatch"]:
        """The rows of a file. Raises InputError if it claims to hold, or holds, too much; ValueError if it is damaged."""
        found = claims(path, file.schema, most_bytes(self._stored))
        self._check(self._read + max(found.pages, found.lists))
        # A single value may be as large as its page, and each row of a batch may repeat it
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        usual = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)  # bytes of a row
        rows = max(1, min(BATCH_ROWS, FREE // max(found.largest, 1), BATCH // max(usual, 1)))
        for batch in file.iter_batches(rows, columns=columns):
            self._read += batch.nbytes
            self._check(self._read)
            yield batch
