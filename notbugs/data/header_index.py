"""An index of image files, written once into a run folder: what their headers say, and hashes of their bytes.

Every process of a run would open every file of a set that stays on disk, before any work. With the index it asks for a file's
size and times alone, and opens those that are not as they were.

`data-index.parquet` has a row for each file: `file` (bytes of the absolute path), `size` in bytes, `modified` and `changed`
(mtime and ctime in nanoseconds), `digest` (BLAKE2b of 16 bytes; null if the file was not hashed), and the fields of `ImageFacts`
that are known without decoding.
Its metadata name the side to which images are resized, on which these may depend.
"""

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from notbugs.atomic import StrPath, atomic_write
from notbugs.data.names import first_line
from notbugs.data.sources.limits import read_parquet
from notbugs.decoding.headers import EncodedImage, ImageFacts
from notbugs.errors import InputError, NotbugsWarning
from notbugs.runs import ranks

if TYPE_CHECKING:
    import pyarrow

NAME = "data-index.parquet"
RESIZE = b"resize"
FACTS = ("channels", "height", "width", "gray_16", "color_16", "reduced", "transparent", "animated", "cmyk", "rotated")
COLUMNS = ("file", "size", "modified", "changed", "digest", *FACTS)


class Signature(NamedTuple):
    """What the file system says of a file. One that was written again has another."""

    size: int
    modified: int
    changed: int


class Entry(NamedTuple):
    """A file in the index."""

    signature: Signature
    digest: bytes | None
    facts: ImageFacts


@dataclass(frozen=True)
class Known:
    """What is known of files, by row: signatures as they were before a file was opened; hashes of its bytes; facts.

    Empty where there is no run folder, and for images that are no files of their own.
    """

    signatures: dict[int, Signature] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    facts: dict[int, ImageFacts] = field(default_factory=dict)


class _Place:
    """The run folder whose index this process uses; in a worker process it is that of the stage."""

    folder: ClassVar[Path | None] = None
    is_run: ClassVar[bool] = True


def use_index(folder: StrPath | None, *, is_run: bool = True) -> None:
    """Use the index of a run folder from now on; None: no more. is_run: False for a folder that has nothing but an index."""
    _Place.folder, _Place.is_run = None if folder is None else Path(folder), is_run


def run_in_use() -> Path | None:
    """The run folder that this process, or its stage, works for; it may not be there yet."""
    return (_Place.folder if _Place.is_run else None) or ranks.run_folder()


def known_files(files: Sequence[EncodedImage], rows: Sequence[int], resize: int | None) -> Known:
    """What the index says of those files that are as they were, and the signatures of all."""
    known, folder = Known(), _Place.folder or ranks.run_folder()
    if folder is None or not rows or not isinstance(files[rows[0]], str | Path):
        return known
    index = _read(folder / NAME, resize)
    for row in rows:
        if (place := _place_of(files[row])) is None or (found := _signature(place)) is None:
            continue
        known.signatures[row] = found
        if (entry := index.get(place)) and entry.signature == found:
            known.facts[row] = entry.facts
            if entry.digest is not None:
                known.digests[row] = entry.digest
    return known


def write_index(folder: Path, parts: Iterable[tuple[Sequence[EncodedImage], Known]], resize: int | None) -> None:
    """Write the index of files, unless it is there.

    Parameters
    ----------
    folder : Path
        Of a run.
    parts : iterable of (sequence of EncodedImage, Known)
    resize : int, optional

    Raises
    ------
    InputError
        If it cannot be written.
    """
    entries: dict[bytes, Entry] = {}
    for files, known in parts:
        for row, signature in known.signatures.items():
            if (place := _place_of(files[row])) and row in known.facts:
                entries[place] = Entry(signature, known.digests.get(row), known.facts[row])
    if not entries or entries == _read(folder / NAME, resize):
        return
    import pyarrow
    from pyarrow import parquet

    rows = (
        (place, *each.signature, each.digest, *(getattr(each.facts, name) for name in FACTS)) for place, each in entries.items()
    )
    columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    table = pyarrow.table(columns, schema=_schema(resize))
    atomic_write(folder / NAME, lambda stream: parquet.write_table(table, stream))


def _read(path: Path, resize: int | None) -> dict[bytes, Entry]:
    """The entries by path; none if there is no index, or one of images that are resized otherwise."""
    import pyarrow

    if not path.is_file():
        return {}
    try:
        table = next(read_parquet([path]))
        if (table.schema.metadata or {}).get(RESIZE) != str(resize).encode():
            return {}
        if not table.schema.equals(_schema(resize)):
            raise ValueError("its columns are others")
        rows = zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)
        return {
            bytes(place): Entry(
                Signature(*map(int, signature)), digest and bytes(digest), ImageFacts(**dict(zip(FACTS, facts, strict=True)))
            )
            for place, *signature, digest, facts in ((*row[:5], row[5:]) for row in rows)
        }
    except (InputError, pyarrow.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        warnings.warn(f"{path} cannot be read ({first_line(error)}): all image files are opened", NotbugsWarning, stacklevel=2)
        return {}


def _schema(resize: int | None) -> "pyarrow.Schema":
    """Names and types of the columns."""
    import pyarrow

    binary, number, flag = pyarrow.binary(), pyarrow.int64(), pyarrow.bool_()
    types = (binary, number, number, number, binary, number, number, number, *(flag for _ in FACTS[3:]))
    return pyarrow.schema(zip(COLUMNS, types, strict=True), {RESIZE: str(resize).encode()})


def _place_of(file: EncodedImage) -> bytes | None:
    """The absolute path of a file; None for an image that is no file of its own."""
    return os.fsencode(os.path.abspath(file)) if isinstance(file, str | Path) else None


def _signature(place: bytes) -> Signature | None:
    try:
        found = os.stat(place)
    except OSError:  # opening it says why
        return None
    return Signature(found.st_size, found.st_mtime_ns, found.st_ctime_ns)
