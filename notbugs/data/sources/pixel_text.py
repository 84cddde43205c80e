"""Tables with all pixels of an image in one cell, as FER2013 has them: emotion,pixels,Usage."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from notbugs.data.names import Unreadable, printable
from notbugs.data.pixel_arrays import StoredArray
from notbugs.data.sources.array_names import Key
from notbugs.data.sources.arrays import LazyArrays, locate_arrays, reading, whole
from notbugs.data.sources.base import Located
from notbugs.data.sources.pixels import TABLE, header_line, read_columns, read_text
from notbugs.data.sources.splits import listed
from notbugs.data.sources.words import SPLIT_COLUMNS, called_labels, plain_name
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

PRIVATE = "PrivateTest"  # of FER2013: the test part of its competition. PublicTest is for validation.


class TextHeader(NamedTuple):
    """The columns of such a table; "" for none."""

    pixels: str
    label: str
    split: str
    others: tuple[str, ...]
    columns: tuple[str, ...]
    delimiter: str


def text_header(path: Path, label: str | None = None) -> TextHeader | None:
    """The columns of a table with a column called pixels; None for another table. Only the first line is read."""
    names, delimiter = header_line(path)
    pixels = [name for name in names if plain_name(name) == "pixels"]
    if len(pixels) != 1 or len(set(names)) < len(names):
        return None
    labels = [name for name in names if name == label] if label else called_labels(names)
    splits = [name for name in names if plain_name(name) in SPLIT_COLUMNS]
    chosen = (pixels[0], labels[0] if len(labels) == 1 else "", splits[0] if len(splits) == 1 else "")
    return TextHeader(*chosen, tuple(name for name in names if name not in chosen), names, delimiter)


def locate_pixel_text(source: Path, paths: Sequence[Path], config: DataConfig) -> Located:
    """The square gray images of one table. Raises InputError."""
    if len(paths) > 1:
        rule, got = "has several tables of pixels", listed([path.name for path in paths])
        raise InputError(printable(str(source)), rule, got, "name one of them as DATASET")
    header = text_header(paths[0], config.label_column)
    if header is None or not header.label:
        got = "none" if header is None else f"columns {listed([header.pixels, *header.others])}"
        raise InputError(printable(str(paths[0])), "needs a column called label", got, "choose it with --label-column NAME")
    arrays, keys = _read(paths[0], header)
    if config.test is None and config.train != PRIVATE and Key(PRIVATE, "images") in keys.values():
        config = replace(config.data, test=PRIVATE)
    located = locate_arrays(paths[0], arrays, config, keys=keys)
    columns = [Unreadable(f"{paths[0].name}: column {printable(name)}", "is not read") for name in header.others]
    return located._replace(left_out=(*located.left_out, *columns))


def _read(path: Path, header: TextHeader) -> tuple[Mapping[str, np.ndarray], Mapping[str, Key]]:
    """The images and the labels of each part, and what they are."""
    import pyarrow

    def cells() -> Iterator[list[np.ndarray]]:
        """The pixels of some rows at a time."""
        with reading(path, TABLE, "save whole numbers, with blanks between them"):
            for batch in read_columns(path, header.columns, header.delimiter, {header.pixels: pyarrow.string()}):
                yield [np.array(cell.split(), dtype=np.uint8) for cell in batch.column(0).to_pylist()]

    sizes = sorted({len(row) for rows in cells() for row in rows})
    with reading(path, TABLE, "save it as a table"):
        labels, *splits = read_text(path, header.columns, header.delimiter, [name for name in header[1:3] if name])
    parts = splits[0] if splits else np.full(len(labels), "")
    if len(sizes) != 1 or math.isqrt(sizes[0]) ** 2 != sizes[0] or not sizes[0]:
        rule = "must have equally many pixels in each row, as many as a square gray image"
        raise InputError(printable(str(path)), rule, listed([f"{size:,}" for size in sizes]) or "none", "for color save an .npz")
    side = math.isqrt(sizes[0])
    images, known, keys = dict[str, StoredArray](), dict[str, np.ndarray](), dict[str, Key]()
    for part in dict.fromkeys(parts.tolist()):
        name, other = f"{part} images".strip(), f"{part} labels".strip()
        keys |= {name: Key(part, "images"), other: Key(part, "labels")}
        known[other] = labels[parts == part]
        images[name] = StoredArray(
            (len(known[other]), side, side), np.dtype(np.uint8), partial(_of_part, cells, parts == part, side)
        )
    return LazyArrays((*images, *known), lambda name: whole(images[name]), images.__getitem__, known), keys


def _of_part(cells: Callable[[], Iterator[list[np.ndarray]]], wanted: np.ndarray, side: int) -> Iterator[np.ndarray]:
    """The images at the wanted rows of a table."""
    start = 0
    for rows in cells():
        yield np.stack(rows).reshape(-1, side, side)[wanted[start : start + len(rows)]]
        start += len(rows)
