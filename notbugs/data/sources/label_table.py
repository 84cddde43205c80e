"""Tables of labels as text: which files may be tables, and how each kind is read."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from notbugs.data.names import MANIFEST, first_line, printable
from notbugs.data.sources.class_names import as_one_name, one_name
from notbugs.data.sources.json_records import flat_record, json_records, why_no_records
from notbugs.data.sources.limits import read_parquet
from notbugs.data.sources.listing import Listing
from notbugs.data.sources.pixels import pixel_header
from notbugs.data.sources.refused import reject_foreign
from notbugs.data.sources.splits import listed, parse_split
from notbugs.data.sources.text import json_of, lines_of, text_of
from notbugs.data.sources.words import TRAIN, VALIDATION, plain_name, words_of
from notbugs.errors import InputError
from notbugs.runs.tables.row import original_cell

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".manifest", ".json", ".parquet")
SAVE_TABLE = "save the labels as labels.csv with the columns file and label"
MOST_BYTES = 2**28  # of a table; one with more is no list of files that could be held in memory anyway
MOST_CELLS = 2**24  # that need not be written one by one: in a parquet file a million equal ones take a few bytes, and here 2 GB
MADE_UP = ("submission", "sample_sub", "partition")  # Kaggle's example of what to hand in; lists of parts


class Table(NamedTuple):
    """A table as text: its columns' names, and one row for each line."""

    path: Path
    columns: tuple[str, ...]
    rows: list[list[str]]
    split: str = ""  # what its name says of the part that it is about
    latin: bool = False  # whether the text is no UTF-8, and was read as Latin-1
    headed: bool = True  # whether the columns have names; else they are numbered
    merged: Mapping[int, str] = {}  # never changed  # columns in which values became one, with a note


def find_tables(listing: Listing, folder: Path) -> list[Path]:
    """The tables in a folder that may hold labels, by name. A link that leaves the data set is one only if links are followed."""
    found = [path for path in listing.beside(folder, among=SUFFIXES) if not any(word in path.name.lower() for word in MADE_UP)]
    found = [path for path in found if 0 < path.stat().st_size <= MOST_BYTES]
    return [path for path in found if path.suffix.lower() != ".csv" or not pixel_header(path)]  # pixels may be names: 0.png


def named_tables(root: Path, base: Path, name: str) -> list[Path]:
    """The table that --labels names, and those of other parts called alike: images_variant_test.txt for images_variant_train.txt.

    Of a list for trainval and one for train and for val, which it holds, the first is read. Raises InputError.
    """
    path = _named_table(root, base, name)
    named = parse_split(path.stem)
    if not named or not named.others:
        return [path]
    beside = [other for other in sorted(path.parent.iterdir()) if other.suffix == path.suffix and other.is_file()]
    parts = {other: found for other in beside if (found := parse_split(other.stem)) and found.others == named.others}
    if any("trainval" in words_of(other.stem) for other in parts):
        parts = {
            other: found
            for other, found in parts.items()
            if found.split not in (TRAIN, VALIDATION) or "trainval" in words_of(other.stem)
        }
    return list(parts)


def _named_table(root: Path, base: Path, name: str) -> Path:
    """The table that --labels names: inside the data set, or a path of its own."""
    for path in (root / name, base / name, Path(name)):
        if path.is_file():
            if path.suffix.lower() not in SUFFIXES:
                raise InputError("--labels", f"must end in {', '.join(SUFFIXES)}", printable(name), SAVE_TABLE)
            if path.stat().st_size > MOST_BYTES:
                raise InputError("--labels", f"must have at most {MOST_BYTES >> 20} MB", printable(name))
            return path
    raise InputError("--labels", "must be a file", printable(name), "a path of its own, or relative to DATASET")


def read_table(path: Path) -> Table:
    """A table of text: .csv and .tsv with , ; tab or | between the cells, .txt also with spaces, .json, .jsonl and .parquet.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    reject_foreign(path)
    try:
        if path.suffix.lower() == ".parquet":
            return _from_records(path, _parquet_rows(path))
        text, latin = text_of(path)
        if path.suffix.lower() == ".json":
            return _from_records(path, json_records(text))._replace(latin=latin)
        if path.suffix.lower() in (".jsonl", ".ndjson", ".manifest"):
            return _from_records(path, [json_of(line) for line in lines_of(text)])._replace(latin=latin)
        return _from_text(path, text)._replace(latin=latin)
    except InputError:
        raise
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise InputError(
            printable(str(path)), "cannot be read as a table", first_line(error), "repair it, or move it away"
        ) from None


def why_no_table(path: Path) -> str:
    """Why a .json file is no table, with what it holds; "" for one that is, and for other files."""
    if path.suffix.lower() != ".json":
        return ""
    try:
        return why_no_records(text_of(path)[0])
    except (OSError, ValueError) as error:
        return first_line(error)


def _parquet_rows(path: Path) -> list[object]:
    """The rows of a parquet file. Raises InputError where they are more than could be held in memory."""
    (table,) = read_parquet([path], MOST_BYTES)
    _check_cells(path, table.num_rows, table.num_columns)
    rows: list[object] = table.to_pylist()
    return rows


def _check_cells(path: Path, rows: int, columns: int, written: int = 0) -> None:
    """Raises InputError for a table of more cells than could be held in memory, but for those that are written one by one.

    A row of one cell gets as many empty ones as the first row has: of 20 kB they took 500 MB.
    """
    if rows * columns - written > MOST_CELLS:
        rule = f"must have at most {MOST_CELLS:,} cells"
        raise InputError(printable(str(path)), rule, f"{rows:,} rows of {columns:,}", "write the same columns in each row")


def _from_records(path: Path, records: list[object]) -> Table:
    rows = [record for record in records if isinstance(record, dict)]
    if len(rows) < len(records):
        raise ValueError("must have a JSON object in each line")
    rows = [flat_record(row) for row in rows]
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    _check_cells(path, len(rows), len(columns), sum(map(len, rows)))
    table = _table(path, columns, [[_cell(row.get(column)) for column in columns] for row in rows])
    return table._replace(headed=not all(name.isdecimal() for name in columns if name != "split"))


def _table(path: Path, columns: Sequence[str], rows: list[list[str]]) -> Table:
    """A table without blanks around its cells. Where that, or one Unicode form, makes values equal, it is noted."""
    merged = {}
    for i, name in enumerate(columns):
        if plain_name(name) == "predictionstring" and any(found := [_class_of_boxes(row[i]) for row in rows]):
            rows = [[*row[:i], label or row[i], *row[i + 1 :]] for row, label in zip(rows, found, strict=True)]
            merged[i] = f"of the column {printable(name)} the classes are read, and not the boxes"
    cells = [[cell.strip() for cell in row] for row in rows]
    if cells != rows or not all("".join(row).isascii() for row in rows):  # else no value has another form
        for i in range(len(columns)):
            different = {row[i] for row in rows}
            if len({one_name(cell) for cell in different}) < len(different):
                merged[i] = as_one_name(row[i] for row in rows)[1]
    return Table(path, tuple(columns), cells, merged=merged)


def _cell(value: object) -> str:
    if value is None or isinstance(value, dict | list | bytes) or value != value:  # NaN: missing
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _class_of_boxes(cell: str) -> str:
    """The class of ImageNet's boxes, "n01440764 1 2 3 4 n01440764 5 6 7 8"; "" if the cell holds others, or several classes."""
    words = cell.split()
    boxes = [words[start : start + 5] for start in range(0, len(words), 5)]
    numbers = all(len(box) == 5 and all(word.lstrip("-").isdecimal() for word in box[1:]) for box in boxes)
    return words[0] if words and numbers and len({box[0] for box in boxes}) == 1 else ""


def _from_text(path: Path, text: str) -> Table:
    text = re.sub(r"\Asep=.\r?\n", "", text)  # Excel's first line
    lines = lines_of(text)
    first = lines[0] if lines else ""
    counts = {delimiter: first.count(delimiter) for delimiter in ("\t", ";", ",", "|")}
    delimiter = max(counts, key=lambda key: counts[key])
    if not counts[delimiter] and path.suffix.lower() == ".txt":
        lines = [line.strip() for line in lines if not line.startswith("#")]
        rows = [line.split() for line in lines]
        if len({*map(len, rows)}) > 1:  # names with blanks: of classes, if each line begins with another word, else of files
            several = len({row[0] for row in rows}) == len(rows) and min(map(len, rows)) > 1
            rows = [line.split(None, 1) if several else line.rsplit(None, 1) for line in lines]
    else:
        rows = [
            row
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
            if any(map(str.strip, row))
        ]
    width = len(rows[0]) if rows else 0
    if longer := [row for row in rows if len(row) > width and any(cell.strip() for cell in row[width:])]:
        got = f"{len(longer[0])} cells in the row {listed(longer[0], 3)}"
        raise InputError(
            printable(str(path)), f"must have at most {width} cells in each row, as in its first", got, "quote commas"
        )
    _check_cells(path, len(rows), width, sum(map(len, rows)))
    cells = [row if len(row) == width else row[:width] + [""] * (width - len(row)) for row in rows]
    if cells and tuple(cells[0]) == MANIFEST:
        cells = [list(map(original_cell, row)) for row in cells]
    return _table(path, [name.strip() for name in cells[0]], cells[1:]) if cells else Table(path, (), [])
