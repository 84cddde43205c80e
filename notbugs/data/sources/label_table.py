"""Tables of labels: how they are read, and which of their columns holds the files, the labels, the parts, the groups."""

import codecs
import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from notbugs.data.config import DataConfig
from notbugs.data.names import first_line, one_form, printable
from notbugs.data.sources.limits import read_parquet
from notbugs.data.sources.listing import Listing
from notbugs.data.sources.splits import TEST, VALIDATION, is_annotation, is_neutral, listed, split_of
from notbugs.errors import InputError

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".parquet")
MOST_BYTES = 2**28  # of a table; one with more is no list of files that could be held in memory anyway
MOST_CELLS = 2**24  # of a parquet file, in which a million equal ones take a few bytes: they need 2 GB as Python objects
SAMPLE_ROWS = 200  # rows that tell which column names the files
ENOUGH = 0.8  # share of them that must name a file
SEVERAL = 5  # files of one name, in the folders of several parts, from which a cell names none
FILE_COLUMNS = (
    "filename",
    "file",
    "filepath",
    "path",
    "image",
    "imagepath",
    "imagename",
    "imageid",
    "img",
    "imgpath",
    "id",
    "name",
)
LABEL_COLUMNS = (
    "label", "labels", "class", "classname", "category", "target", "y", "labelname", "classid", "labelid", "classlabel", "tag",
    "species", "breed", "dx", "diagnosis",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "usage", "datasplit", "phase", "isvalid", "fold")
MADE_UP = ("submission", "sample_sub", "partition")  # Kaggle's example of what to hand in; lists of parts


class Table(NamedTuple):
    """A table as text: its columns' names, and one row for each line."""

    path: Path
    columns: tuple[str, ...]
    rows: list[list[str]]
    latin: bool = False  # whether the text is no UTF-8, and was read as Latin-1


class Columns(NamedTuple):
    """Which columns hold what: positions, and -1 for none. one_hot: columns that are classes, with a 1 for the right one."""

    file: int
    label: int
    one_hot: tuple[int, ...]
    split: int
    group: int


@dataclass
class FileIndex:
    """The image files of a folder, by what tables call them: a path, the end of one, a name with or without its ending."""

    base: Path
    by_path: dict[str, Path] = field(default_factory=dict)
    by_name: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    by_stem: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    by_folded: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    by_number: dict[int, list[Path]] = field(default_factory=lambda: defaultdict(list))
    loosely: set[str] = field(default_factory=set)  # how names were matched that are not the same, for the notes

    @classmethod
    def of(cls, listing: Listing, base: Path) -> "FileIndex":
        """The files below a folder, but for masks and annotations beside images."""
        index, folders = cls(base), listing.folders(base)
        masks = [path for path in folders if is_annotation(path.name)] if any(is_neutral(path.name) for path in folders) else []
        for path in listing.walk(base):
            if masks and any(path.is_relative_to(mask) for mask in masks):
                continue
            index.by_path[one_form(path.relative_to(base).as_posix())] = path
            index.by_name[one_form(path.name)].append(path)
            index.by_stem[one_form(path.stem)].append(path)
            index.by_folded[one_form(path.name).casefold()].append(path)
            if path.stem.isascii() and path.stem.isdecimal():
                index.by_number[int(path.stem)].append(path)
        return index

    def find(self, text: str, beside: str = "", split: str = "") -> list[Path]:
        """The files that a table's cell may mean: none, one, or several.

        beside: the table's folder, relative to the base. split: what the table is about, if its name says so. Of several files,
        those in a folder of this split are meant.
        """
        parts = [part for part in one_form(text).replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            return []
        for start in range(len(parts)):  # "data/train/1.png" of another machine may be "train/1.png" here
            end = "/".join(parts[start:])
            for path in (f"{beside}/{end}" if beside else end, end):
                if path in self.by_path and self._agree(parts[:start], self.by_path[path]):
                    return [self.by_path[path]]
        found = self.by_name.get(parts[-1]) or self.by_stem.get(parts[-1]) or self._loosely(parts[-1])
        found = [path for path in found if self._agree(parts[:-1], path)]
        return [path for path in found if split in self._splits(path)] or found if split else found

    def is_exact(self, text: str) -> bool:
        """Whether a cell is the whole name, with its ending, of a file."""
        name = one_form(text).replace("\\", "/").rpartition("/")[2]
        return name in self.by_name or name.casefold() in self.by_folded

    def _loosely(self, name: str) -> list[Path]:
        """Files whose names differ in case only, or, as numbers, in zeros in front, which spreadsheets leave out."""
        if found := self.by_folded.get(name.casefold()):
            self.loosely.add("names of files are matched without regard to case")
        elif (stem := name.rpartition(".")[0]) and (found := self.by_stem.get(stem)):
            self.loosely.add("names of files are matched without their endings")
        elif name.isascii() and name.isdecimal() and len(name) < 20 and (found := self.by_number.get(int(name))):
            self.loosely.add("names of files are matched as numbers, without zeros in front")
        return found or []

    def _agree(self, folders: Sequence[str], path: Path) -> bool:
        """Whether folders that a table names and a file's own folders are not those of different parts."""
        named = {split for folder in folders if (split := split_of(folder))}
        own = self._splits(path)
        return not named or not own or bool(named & own)

    def _splits(self, path: Path) -> set[str]:
        return {split for folder in (self.base.name, *path.relative_to(self.base).parts[:-1]) if (split := split_of(folder))}


# ---- tables --------------------------------------------------------------------------------------------------------------------


def find_tables(listing: Listing, folder: Path) -> list[Path]:
    """The tables in a folder that may hold labels, by name. A link that leaves the data set is one only if links are followed."""
    found = [path for path in listing.beside(folder, among=SUFFIXES) if not any(word in path.name.lower() for word in MADE_UP)]
    return [path for path in found if 0 < path.stat().st_size <= MOST_BYTES]


def named_table(root: Path, base: Path, name: str) -> Path:
    """The table that --labels names: inside the data set, or a path of its own. Raises InputError."""
    for path in (root / name, base / name, Path(name)):
        if path.is_file():
            if path.suffix.lower() not in SUFFIXES:
                raise InputError("--labels", f"must end in {', '.join(SUFFIXES)}", printable(name))
            if path.stat().st_size > MOST_BYTES:
                raise InputError("--labels", f"must have at most {MOST_BYTES >> 20} MB", printable(name))
            return path
    raise InputError("--labels", "must be a file", printable(name), "a path of its own, or relative to DATASET")


def read_table(path: Path) -> Table:
    """A table of text: .csv and .tsv with , ; tab or | between the cells, .txt also with spaces, .jsonl and .parquet.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        if path.suffix.lower() == ".jsonl":
            return _from_records(path, [json.loads(line) for line in path.read_text("utf-8-sig").splitlines() if line.strip()])
        if path.suffix.lower() == ".parquet":
            return _from_records(path, _parquet_rows(path))
        text, latin = _text(path)
        return _from_text(path, text)._replace(latin=latin)
    except InputError:
        raise
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise InputError(printable(str(path)), "cannot be read as a table", first_line(error)) from None


def _parquet_rows(path: Path) -> list[object]:
    """The rows of a parquet file. Raises InputError where they are more than could be held in memory."""
    (table,) = read_parquet([path], MOST_BYTES)
    if table.num_rows * table.num_columns > MOST_CELLS:
        rule = f"must have at most {MOST_CELLS:,} cells"
        raise InputError(printable(str(path)), rule, f"{table.num_rows:,} rows of {table.num_columns}")
    rows: list[object] = table.to_pylist()
    return rows


def _text(path: Path) -> tuple[str, bool]:
    """The text of a file, and whether Latin-1 was assumed."""
    raw = path.read_bytes()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16"), False
    try:
        return raw.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        return raw.decode("latin-1"), True


def _from_records(path: Path, records: list[object]) -> Table:
    rows = [record for record in records if isinstance(record, dict)]
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    return Table(path, tuple(columns), [[_cell(row.get(column)) for column in columns] for row in rows])


def _cell(value: object) -> str:
    if value is None or isinstance(value, dict | list | bytes):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _from_text(path: Path, text: str) -> Table:
    text = re.sub(r"\Asep=.\r?\n", "", text)  # Excel's first line
    first = next((line for line in text.splitlines() if line.strip()), "")
    counts = {delimiter: first.count(delimiter) for delimiter in ("\t", ";", ",", "|")}
    delimiter = max(counts, key=lambda key: counts[key])
    if not counts[delimiter] and path.suffix.lower() == ".txt":
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        rows = [line.split() for line in lines]
        if len({*map(len, rows)}) > 1:  # names with blanks
            rows = [line.rsplit(None, 1) for line in lines]
    else:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(map(str.strip, row))]
    width = len(rows[0]) if rows else 0
    if longer := [row for row in rows if len(row) > width and any(cell.strip() for cell in row[width:])]:
        got = f"{len(longer[0])} cells in the row {listed(longer[0], 3)}"
        raise InputError(
            printable(str(path)), f"must have at most {width} cells in each row, as in its first", got, "quote commas"
        )
    cells = [[cell.strip() for cell in row[:width]] + [""] * (width - len(row)) for row in rows]
    return Table(path, tuple(cells[0]), cells[1:]) if cells else Table(path, (), [])


# ---- columns -------------------------------------------------------------------------------------------------------------------


def plain_name(name: str) -> str:
    """A column's name without case, spaces and signs: Class_Id -> classid."""
    return re.sub(r"[\W_]", "", name.casefold())


def _column(table: Table, option: str, name: str | None) -> int:
    """The column that an option names, -1 without one. Raises InputError."""
    if name is None:
        return -1
    if name in table.columns:
        return table.columns.index(name)
    plain = [plain_name(column) for column in table.columns]
    if plain.count(plain_name(name)) != 1:
        raise InputError(option, f"must be a column of {printable(table.path.name)}: {listed(table.columns)}", printable(name))
    return plain.index(plain_name(name))


def find_columns(table: Table, index: FileIndex, config: DataConfig, part: str = "") -> Columns | None:
    """Which column of a table holds the files, which the labels. None if no column names files that are there.

    part: the part whose files are in the index, if they are not all; the table may have rows for other parts.

    Raises
    ------
    InputError
        If it has files, and it is unclear which column holds their labels.
    """
    of_all_parts = part and not table.path.is_relative_to(index.base) and not split_of(table.path.stem)
    file = _file_column(table, index, config, 1 / max(len(table.rows), 1) if of_all_parts else ENOUGH)
    if file < 0:
        return None
    plain = [plain_name(column) for column in table.columns]
    split = next((plain.index(name) for name in SPLIT_COLUMNS if name in plain and _are_splits(table, plain.index(name))), -1)
    group = table.columns.index(config.group) if config.group in table.columns else -1
    others = [i for i in range(len(plain)) if i not in (file, group) and plain[i] not in SPLIT_COLUMNS]
    label, one_hot = _label_column(table, config, others)
    return Columns(file, label, one_hot, split, group) if label >= 0 or one_hot else None


def _file_column(table: Table, index: FileIndex, config: DataConfig, enough: float) -> int:
    """The column of different values of which enough name a file."""
    if config.file_column:
        return _column(table, "--file-column", config.file_column)
    beside = folder_of(table, index)
    rows = table.rows if enough < ENOUGH else table.rows[:: -(-len(table.rows) // SAMPLE_ROWS) or 1]
    different = {}  # values of each column that names files: labels repeat, and 0 or 1 may name 0.png
    for column in range(len(table.columns)):
        cells = [row[column] for row in rows if row[column]]
        named = sum(0 < len(index.find(cell, beside)) < SEVERAL for cell in cells)
        if named >= max(enough * len(cells), 1) and len(set(cells)) > len(cells) / SEVERAL:
            different[column] = len(set(cells))
    exact = [column for column in different if any(index.is_exact(row[column]) for row in rows)]
    candidates = exact or list(different)
    usual = [column for name in FILE_COLUMNS for column in candidates if plain_name(table.columns[column]) == name]
    chosen = usual[0] if usual else max(candidates, key=lambda column: different[column], default=-1)
    for other in [column for column in candidates if different[column] >= different[chosen]]:  # labels repeat
        if any(row[other] and row[chosen] and index.find(row[other], beside) != index.find(row[chosen], beside) for row in rows):
            rule, names = "it must be clear which column names the files", [table.columns[column] for column in (chosen, other)]
            raise InputError(printable(str(table.path)), rule, listed(names), "choose it with --file-column NAME")
    return chosen


def folder_of(table: Table, index: FileIndex) -> str:
    """The table's folder relative to the images', "" if it is not inside."""
    folder = table.path.parent
    inside = folder.is_relative_to(index.base) and folder != index.base
    return folder.relative_to(index.base).as_posix() if inside else ""


def _are_splits(table: Table, column: int) -> bool:
    return all(split_of(row[column]) for row in table.rows if row[column])


def _label_column(table: Table, config: DataConfig, columns: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """The column of the labels, or the columns that are classes."""
    if config.label_column:
        return _column(table, "--label-column", config.label_column), ()
    usual = [column for name in LABEL_COLUMNS for column in columns if plain_name(table.columns[column]) == name]
    if len(usual) > 1 and all(_same_partition(table, usual[0], other) for other in usual[1:]):
        return next((column for column in usual if not all(row[column].isdecimal() for row in table.rows)), usual[0]), ()
    if len(usual) == 1:
        return usual[0], ()
    if not usual and len(columns) > 1 and _is_one_hot(table, columns):
        return -1, tuple(columns)
    if not usual and len(columns) == 1 and split_of(table.path.stem) not in (TEST, VALIDATION):
        return columns[0], ()
    if not usual and split_of(table.path.stem) in (TEST, VALIDATION):
        return -1, ()  # a list of test images, and what else is known of them
    if not columns:
        return -1, ()
    rule = "it must be clear which column holds the labels"
    raise InputError(printable(str(table.path)), rule, f"columns {listed(table.columns)}", "choose it with --label-column NAME")


def _same_partition(table: Table, one: int, other: int) -> bool:
    """Whether two columns hold the same classes under different names, a number and a word for example."""
    pairs = {(row[one], row[other]) for row in table.rows}
    return len({a for a, _ in pairs}) == len(pairs) == len({b for _, b in pairs})


def _is_one_hot(table: Table, columns: Sequence[int]) -> bool:
    zero, one = ("0", "0.0"), ("1", "1.0")
    return bool(table.rows) and all(
        all(row[column] in zero + one for column in columns) and sum(row[column] in one for column in columns) == 1
        for row in table.rows
    )


def fitting_tables(
    tables: Iterable[Path], index: FileIndex, config: DataConfig, part: str = ""
) -> Iterable[tuple[Table, Columns]]:
    """The tables that label files of an index, with their columns."""
    for path in tables:
        table = _with_header(read_table(path), index)
        if columns := find_columns(table, index, config, part):
            yield table, columns


def _with_header(table: Table, index: FileIndex) -> Table:
    """The table; where its first line already names an image, its columns get numbers as names."""
    named = [cell for cell in table.columns if len(index.find(cell, folder_of(table, index))) == 1]
    again = any(cell not in named and any(row[i] == cell for row in table.rows) for i, cell in enumerate(table.columns))
    if any(Path(cell).suffix or again for cell in named):
        names = tuple(str(number) for number in range(1, len(table.columns) + 1))
        return Table(table.path, names, [list(table.columns), *table.rows])
    return table


def label_of(table: Table, columns: Columns, row: Sequence[str]) -> str:
    """The class that a row names, "" if none."""
    if columns.label >= 0:
        label = one_form(row[columns.label])
        return label[:-2] if re.fullmatch(r"\d+\.0", label) else label
    return one_form(next(table.columns[column] for column in columns.one_hot if row[column] in ("1", "1.0")))
