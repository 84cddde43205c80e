"""Tables with all pixels of an image in one cell, as FER2013 has them: emotion,pixels,Usage."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from notbugs.data.names import Unreadable, printable
from notbugs.data.sources.array_names import Key
from notbugs.data.sources.arrays import locate_arrays, reading
from notbugs.data.sources.base import Located
from notbugs.data.sources.limits import words_array
from notbugs.data.sources.pixels import header_line, read_columns
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

    wanted = {name: pyarrow.string() for name in header[:3] if name}
    with reading(path, "a table of pixels from 0 to 255", "save whole numbers, with blanks between them"):
        table = read_columns(path, header.columns, header.delimiter, wanted)
        rows = [np.array(cell.split(), dtype=np.uint8) for cell in table[header.pixels].to_pylist()]
        labels = words_array(path, table[header.label].to_pylist())
        parts = words_array(path, table[header.split].to_pylist() if header.split else [""] * len(rows))
    sizes = sorted({len(row) for row in rows})
    if len(sizes) != 1 or math.isqrt(sizes[0]) ** 2 != sizes[0] or not sizes[0]:
        rule = "must have equally many pixels in each row, as many as a square gray image"
        raise InputError(printable(str(path)), rule, listed([f"{size:,}" for size in sizes]) or "none", "for color save an .npz")
    side = math.isqrt(sizes[0])
    images = np.stack(rows).reshape(-1, side, side)
    arrays, keys = {}, {}
    for part in dict.fromkeys(parts.tolist()):
        for kind, array in (("images", images), ("labels", labels)):
            name = f"{part} {kind}".strip()
            arrays[name], keys[name] = array[parts == part], Key(part, kind)
    return arrays, keys
