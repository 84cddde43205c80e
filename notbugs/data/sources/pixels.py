"""Tables of pixels: train.csv with label, pixel0, …, pixel783, one image in each row."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from notbugs.data.names import Unreadable, is_number, printable
from notbugs.data.pixel_arrays import StoredArray
from notbugs.data.sources.arrays import LazyArrays, locate_array_files, reading, whole
from notbugs.data.sources.base import Located
from notbugs.data.sources.class_names import is_name_column, naming_by_rows
from notbugs.data.sources.limits import words_array
from notbugs.data.sources.splits import listed
from notbugs.data.sources.words import LABELS_FIRST, SPLIT_COLUMNS, called_labels, plain_name
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

if TYPE_CHECKING:
    import pyarrow

PIXEL = re.compile(r"(?:pixel|px|p)?[_.]?\d{1,9}|\d{1,9}x\d{1,9}", re.IGNORECASE)
FEWEST = 16  # columns of pixels that make a table one of pixels
MOST_HEADER = 2**20  # bytes
BLOCK = 2**20  # bytes of a table that are read at a time
TABLE, WHOLE = "a table of pixels from 0 to 255", "save whole numbers without empty cells"


class Header(NamedTuple):
    """The columns of a table of pixels, and what lies between them. label, names: "" where there is none.

    names: a column with a word for each label.
    """

    columns: tuple[str, ...]
    delimiter: str
    pixels: tuple[str, ...]
    label: str
    names: str
    others: tuple[str, ...]


def header_line(path: Path) -> tuple[tuple[str, ...], str]:
    """The names in the first line of a table, and what lies between them. Raises InputError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            line = stream.readline(MOST_HEADER).decode("utf-8-sig", errors="replace").rstrip("\r\n")
    except OSError as error:
        raise InputError(printable(str(path)), "cannot be read", error.strerror, "make it readable, or move it away") from None
    delimiter = max((",", ";", "\t"), key=line.count)
    return tuple(name.strip().strip('"').strip() for name in line.split(delimiter)), delimiter


def pixel_header(path: Path, label: str | None = None) -> Header | None:
    """The columns of a table of pixels; None for another table. Only the first line is read. label: the column of labels."""
    names, delimiter = header_line(path)
    pixels = tuple(name for name in names if PIXEL.fullmatch(name))
    labels = [name for name in names if name == label] if label else called_labels(names)
    if len(pixels) < FEWEST or len(set(names)) < len(names):
        return None
    words = [name for name in names if is_name_column(name) and name not in labels and not label and len(labels) == 1]
    others = tuple(name for name in names if name not in (*pixels, *labels, *words[:1]))
    return Header(names, delimiter, pixels, labels[0] if len(labels) == 1 else "", words[0] if words else "", others)


def read_columns(
    path: Path, columns: Sequence[str], delimiter: str, wanted: Mapping[str, "pyarrow.DataType"]
) -> Iterator["pyarrow.RecordBatch"]:
    """Columns of a table, each of one type, a few rows at a time. columns: the names of all, without blanks around them."""
    import pyarrow.csv

    yield from pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(column_names=list(columns), skip_rows=1, block_size=BLOCK),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter),
        convert_options=pyarrow.csv.ConvertOptions(column_types=dict(wanted), include_columns=list(wanted), null_values=[]),
    )


def locate_pixels(source: Path, paths: Sequence[Path], config: DataConfig) -> Located:
    """The images of tables of pixels. A table without labels, as those of competitions, is left out. Raises InputError."""
    headers = {path: header for path in paths if (header := pixel_header(path, config.label_column))}
    labeled = [path for path, header in headers.items() if header.label]
    if not labeled:
        got = "none" if not headers else f"columns {listed([*headers[paths[0]].others, *headers[paths[0]].pixels], most=4)}"
        raise InputError(printable(str(source)), "needs a column called label", got, "choose it with --label-column NAME")
    located = locate_array_files(source, labeled, partial(read_pixels, label=config.label_column), config)
    unlabeled = [path for path in headers if path not in labeled]
    left_out = [Unreadable(path.name, "has no column called label") for path in unlabeled]
    left_out += [
        Unreadable(f"{path.name}: column {printable(name)}", "is not read") for path in labeled for name in headers[path].others
    ]
    columns = [name for path in labeled for name in headers[path].others if plain_name(name) in SPLIT_COLUMNS]
    said = [f"column {printable(name)} is not used: parts need tables of their own" for name in columns]
    if not config.label_column:
        said += [f"labels from the column {printable(name)}" for name in _unusual(headers[path].label for path in labeled)]
    notes = said + [f"not used: {printable(path.name)}, which has no labels" for path in unlabeled]
    notes += [
        f"class names from the column {printable(name)}"
        for name in dict.fromkeys(headers[path].names for path in labeled)
        if name
    ]
    return located._replace(notes=(*located.notes, *notes), left_out=(*located.left_out, *left_out))


def _unusual(labels: Iterable[str]) -> list[str]:
    """The columns of labels that are not called so themselves, each once."""
    return [name for name in dict.fromkeys(labels) if plain_name(name) not in LABELS_FIRST]


def read_pixels(path: Path, label: str | None = None) -> Mapping[str, np.ndarray]:
    """The square gray images of a table, and their labels as text. Raises InputError."""
    import pyarrow

    header = pixel_header(path, label)
    if header is None or not header.label:
        raise InputError(printable(str(path)), "needs columns of pixels, and one column called label")
    numbers = [tuple(map(int, re.findall(r"\d+", name))) for name in header.pixels]
    if numbers != sorted(numbers):
        raise InputError(
            printable(str(path)), "must have its columns of pixels in order", listed(header.pixels), "save them in order"
        )
    side = math.isqrt(len(header.pixels))
    if side**2 != len(header.pixels):
        rule = "must have as many columns of pixels as a square gray image"
        remedy = "for color save an .npz: three channels may be meant pixel by pixel, or one after the other"
        raise InputError(printable(str(path)), rule, f"{len(header.pixels):,}", remedy)
    with reading(path, TABLE, WHOLE):
        texts = [name for name in (header.label, header.names) if name]
        labels, *words = read_text(path, header.columns, header.delimiter, texts)
    if words and all(is_number(label.strip()) for label in set(labels.tolist())):
        remedy = f"choose one with --label-column {printable(header.label)} or {printable(header.names)}"
        naming = naming_by_rows(str(path), list(map(int, labels)), words[0].tolist(), (header.label, header.names), remedy)
        labels = words_array(path, [naming[int(label)] for label in labels])

    def pieces() -> Iterator[np.ndarray]:
        with reading(path, TABLE, WHOLE):
            for batch in read_columns(path, header.columns, header.delimiter, dict.fromkeys(header.pixels, pyarrow.uint8())):
                yield np.stack([column.to_numpy() for column in batch.columns], axis=1).reshape(-1, side, side)

    images = StoredArray((len(labels), side, side), np.dtype(np.uint8), pieces)
    return LazyArrays(("images", "labels"), lambda _: whole(images), lambda _: images, {"labels": labels})


def read_text(path: Path, columns: Sequence[str], delimiter: str, wanted: Sequence[str]) -> list[np.ndarray]:
    """Columns of a table as words."""
    import pyarrow

    found: list[list[str]] = [[] for _ in wanted]
    for batch in read_columns(path, columns, delimiter, dict.fromkeys(wanted, pyarrow.string())):
        for words, column in zip(found, batch.columns, strict=True):
            words += column.to_pylist()
    return [words_array(path, words) for words in found]
