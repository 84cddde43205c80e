"""Labels in a table beside the images: which file, which class, and perhaps which part and group."""

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
from notbugs.data.names import check_class_name, first_line, one_form, path_part, printable
from notbugs.data.sources.base import Part, sorted_classes
from notbugs.data.sources.listing import Listing
from notbugs.data.sources.splits import listed, split_of, splits_among
from notbugs.errors import InputError

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".parquet")
MOST_BYTES = 2**28  # of a table; one with more is no list of files that could be held in memory anyway
SAMPLE_ROWS = 200  # rows that tell which column names the files
ENOUGH = 0.8  # share of them that must name a file
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
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "usage", "datasplit")
IMAGES = "images"  # the only part of a data set without parts
SUBMISSION = "submission"  # Kaggle's example of what to hand in: its labels are made up


class Table(NamedTuple):
    """A table as text: its columns' names, and one row for each line."""

    path: Path
    columns: tuple[str, ...]
    rows: list[list[str]]


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

    @classmethod
    def of(cls, listing: Listing, base: Path) -> "FileIndex":
        """The files below a folder."""
        index = cls(base)
        for path in listing.walk(base):
            index.by_path[one_form(path.relative_to(base).as_posix())] = path
            index.by_name[one_form(path.name)].append(path)
            index.by_stem[one_form(path.stem)].append(path)
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
        found = self.by_name.get(parts[-1]) or self.by_stem.get(parts[-1]) or []
        found = [path for path in found if self._agree(parts[:-1], path)]
        return [path for path in found if split in self._splits(path)] or found if split else found

    def _agree(self, folders: Sequence[str], path: Path) -> bool:
        """Whether folders that a table names and a file's own folders are not those of different parts."""
        named = {split for folder in folders if (split := split_of(folder))}
        own = self._splits(path)
        return not named or not own or bool(named & own)

    def _splits(self, path: Path) -> set[str]:
        return {split for folder in (self.base.name, *path.relative_to(self.base).parts[:-1]) if (split := split_of(folder))}


# ---- tables --------------------------------------------------------------------------------------------------------------------


def find_tables(folder: Path) -> list[Path]:
    """The tables in a folder that may hold labels, by name. Most readers write a few kilobytes beside the images."""
    found = [
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    ]
    return sorted(path for path in found if SUBMISSION not in path.name.lower() and 0 < path.stat().st_size <= MOST_BYTES)


def named_table(base: Path, name: str) -> Path:
    """The table that --labels names: inside the data set, or a path of its own. Raises InputError."""
    for path in (base / name, Path(name)):
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
            import pyarrow.parquet

            return _from_records(path, pyarrow.parquet.read_table(path).to_pylist())
        return _from_text(path, _text(path))
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise InputError(printable(str(path)), "cannot be read as a table", first_line(error)) from None


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _from_records(path: Path, records: list[object]) -> Table:
    rows = [record for record in records if isinstance(record, dict)]
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    return Table(path, tuple(columns), [[_cell(row.get(column)) for column in columns] for row in rows])


def _cell(value: object) -> str:
    if value is None or isinstance(value, dict | list | bytes):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _from_text(path: Path, text: str) -> Table:
    first = next((line for line in text.splitlines() if line.strip()), "")
    counts = {delimiter: first.count(delimiter) for delimiter in ("\t", ";", ",", "|")}
    delimiter = max(counts, key=lambda key: counts[key])
    if not counts[delimiter] and path.suffix.lower() == ".txt":
        rows = [re.split(r"\s+(?=\S+$)", line.strip(), maxsplit=1) for line in text.splitlines() if line.strip()]
    else:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(map(str.strip, row))]
    width = len(rows[0]) if rows else 0
    cells = [[cell.strip() for cell in row[:width]] + [""] * (width - len(row)) for row in rows]
    return Table(path, tuple(cells[0]), cells[1:]) if cells else Table(path, (), [])


# ---- columns -------------------------------------------------------------------------------------------------------------------


def _plain(name: str) -> str:
    """A column's name without case, spaces and signs: Class_Id -> classid."""
    return re.sub(r"[\W_]", "", name.casefold())


def _column(table: Table, option: str, name: str | None) -> int:
    """The column that an option names, -1 without one. Raises InputError."""
    if name is None:
        return -1
    if name in table.columns:
        return table.columns.index(name)
    plain = [_plain(column) for column in table.columns]
    if plain.count(_plain(name)) != 1:
        raise InputError(option, f"must be a column of {printable(table.path.name)}: {listed(table.columns)}", printable(name))
    return plain.index(_plain(name))


def find_columns(table: Table, index: FileIndex, config: DataConfig) -> Columns | None:
    """Which column of a table holds the files, which the labels. None if no column names files that are there.

    Raises
    ------
    InputError
        If it has files, and it is unclear which column holds their labels.
    """
    file = _file_column(table, index, config)
    if file < 0:
        return None
    plain = [_plain(column) for column in table.columns]
    split = next((plain.index(name) for name in SPLIT_COLUMNS if name in plain and _are_splits(table, plain.index(name))), -1)
    group = table.columns.index(config.group) if config.group in table.columns else -1
    label, one_hot = _label_column(table, config, [i for i in range(len(plain)) if i not in (file, split, group)])
    return Columns(file, label, one_hot, split, group) if label >= 0 or one_hot else None


def _file_column(table: Table, index: FileIndex, config: DataConfig) -> int:
    if config.file_column:
        return _column(table, "--file-column", config.file_column)
    beside = _folder_of(table, index)
    sample = table.rows[:SAMPLE_ROWS]
    fitting = [
        column
        for column in range(len(table.columns))
        if (cells := [row[column] for row in sample if row[column]])
        and sum(len(index.find(cell, beside)) == 1 for cell in cells) >= ENOUGH * len(cells)
    ]
    usual = [column for name in FILE_COLUMNS for column in fitting if _plain(table.columns[column]) == name]
    return (usual or fitting or [-1])[0]


def _folder_of(table: Table, index: FileIndex) -> str:
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
    usual = [column for name in LABEL_COLUMNS for column in columns if _plain(table.columns[column]) == name]
    if len(usual) > 1 and all(_same_partition(table, usual[0], other) for other in usual[1:]):
        return next((column for column in usual if not all(row[column].isdecimal() for row in table.rows)), usual[0]), ()
    if len(usual) == 1:
        return usual[0], ()
    if not usual and len(columns) > 1 and _is_one_hot(table, columns):
        return -1, tuple(columns)
    if not usual and len(columns) == 1:
        return columns[0], ()
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


# ---- parts ---------------------------------------------------------------------------------------------------------------------


@dataclass
class _Rows:
    """The labeled files of one part, while they are collected."""

    files: dict[Path, str] = field(default_factory=dict)
    groups: dict[Path, str] = field(default_factory=dict)


def parts_by_table(
    listing: Listing, base: Path, tables: Sequence[Path], config: DataConfig, *, inside: bool = False
) -> tuple[dict[str, Part], list[str]]:
    """The labeled images below a folder, by part, and notes on how the tables were understood.

    Parameters
    ----------
    listing : Listing
        Gets the images without a row and the rows without an image.
    base : Path
    tables : sequence of Path
        Those that name no images below `base` are not used.
    config : DataConfig
    inside : bool
        Whether `base` is one part of the data set: rows on files that are not there are those of other parts.

    Raises
    ------
    InputError
        If a table cannot be read, or if it is unclear which table, or which of its columns, holds the labels.
    """
    index = FileIndex.of(listing, base)
    fitting = [(table, columns) for table, columns in _fitting(tables, index, config)]
    parts_of_tables = [split_of(table.path.stem) for table, _ in fitting]
    if len(fitting) > 1 and ("" in parts_of_tables or len(set(parts_of_tables)) < len(fitting)):
        names = listed([table.path.name for table, _ in fitting])
        raise InputError(printable(str(base)), "has several tables with labels", names, "choose one with --labels FILE")
    top = {path.relative_to(base).parts[0] for path in index.by_path.values() if path.parent != base}
    folders = set() if inside else {*splits_among(top), *top & {config.train, config.test}}
    collected: dict[str, _Rows] = defaultdict(_Rows)
    notes = []
    for table, columns in fitting:
        columns = columns._replace(split=-1) if inside else columns
        repeated = _collect(listing, index, table, columns, folders, collected, inside=inside)
        notes.append(_table_note(table, columns) + (f"; {repeated:,} rows repeat a file" if repeated else ""))
    labeled = {path for rows in collected.values() for path in rows.files}
    named = listed([table.path.name for table, _ in fitting])
    for path in index.by_path.values() if fitting else ():
        if path not in labeled:
            listing.leave_out(path, f"has no label in {named}")
    if without := len(index.by_path) - len(labeled) if fitting else 0:
        notes.append(f"{without:,} images have no label in {named} and are left out")
    return {name: _part(name, base, rows, fitting, named, listing) for name, rows in collected.items() if rows.files}, notes


def _fitting(tables: Iterable[Path], index: FileIndex, config: DataConfig) -> Iterable[tuple[Table, Columns]]:
    for path in tables:
        table = _with_header(read_table(path), index)
        if columns := find_columns(table, index, config):
            yield table, columns


def _with_header(table: Table, index: FileIndex) -> Table:
    """The table; where its first line already names an image, its columns get numbers as names."""
    if any(Path(cell).suffix and len(index.find(cell, _folder_of(table, index))) == 1 for cell in table.columns):
        names = tuple(f"column {number}" for number in range(1, len(table.columns) + 1))
        return Table(table.path, names, [list(table.columns), *table.rows])
    return table


def _table_note(table: Table, columns: Columns) -> str:
    file, named = printable(table.columns[columns.file]), printable(table.path.name)
    label = (
        f"column {printable(table.columns[columns.label])}"
        if columns.label >= 0
        else f"{len(columns.one_hot)} columns of 0 and 1"
    )
    return f"labels from {named}: {label}; files: column {file}"


def _collect(
    listing: Listing,
    index: FileIndex,
    table: Table,
    columns: Columns,
    folders: set[str],
    collected: dict[str, _Rows],
    *,
    inside: bool,
) -> int:
    """Add a table's rows to the parts. Returns how many repeat a file with the same label."""
    beside, by_table = _folder_of(table, index), split_of(table.path.stem)
    repeated = 0
    for row in table.rows:
        found = index.find(row[columns.file], beside, by_table)
        label = _label(table, columns, row)
        if inside and not found:
            continue
        if len(found) != 1 or not label:
            where = table.path.parent / f"{table.path.name}: {printable(row[columns.file])}"
            several = f"may be any of {listed([listing.relative(path) for path in found], 2)}"
            listing.refuse(where, "has no label" if len(found) == 1 else several if found else "is not there")
            continue
        path = found[0]
        top = path.relative_to(index.base).parts[0]
        part = row[columns.split] if columns.split >= 0 else top if top in folders else by_table or IMAGES
        before = next((rows.files[path] for rows in collected.values() if path in rows.files), label)
        if before != label:
            listing.refuse(path, f"has two labels in {printable(table.path.name)}: {printable(before)} and {printable(label)}")
            continue
        repeated += any(path in rows.files for rows in collected.values())
        collected[part].files[path] = label
        if columns.group >= 0:
            collected[part].groups[path] = row[columns.group]
    return repeated


def _label(table: Table, columns: Columns, row: Sequence[str]) -> str:
    if columns.label >= 0:
        return one_form(row[columns.label])
    return one_form(next(table.columns[column] for column in columns.one_hot if row[column] in ("1", "1.0")))


def _part(name: str, base: Path, rows: _Rows, fitting: Sequence[tuple[Table, Columns]], named: str, listing: Listing) -> Part:
    one_hot = [table.columns[column] for table, columns in fitting for column in columns.one_hot]
    present = set(rows.files.values())
    classes = tuple(column for column in dict.fromkeys(one_hot) if column in present) or sorted_classes(list(present))
    index = {label: number for number, label in enumerate(classes)}
    for label in classes:
        check_class_name(label)
    files = sorted(rows.files)
    return Part(
        name,
        files,
        [index[rows.files[path]] for path in files],
        classes,
        [_image_name(path, base, name, rows.files[path]) for path in files],
        [listing.relative(path) for path in files],
        [rows.groups[path] for path in files] if rows.groups else [],
    )


def _image_name(path: Path, base: Path, part: str, label: str) -> str:
    """CLASS/path below the part's folder, so that names say what the files of class folders say."""
    below = path.relative_to(base)
    below = below.relative_to(part) if below.parts[0] == part and len(below.parts) > 1 else below
    return f"{path_part(label)}/{below.as_posix()}"


def disagreement(listing: Listing, base: Path, part: Part, tables: Sequence[Path], config: DataConfig) -> str:
    """Whether a table labels the images of class folders otherwise than the folders do: what was seen, "" if none does."""
    if not tables:
        return ""
    folder_of = {
        Path(file): part.classes[label] for file, label in zip(part.files, part.labels, strict=True) if isinstance(file, Path)
    }
    index = FileIndex.of(listing.another(), base)
    for path in tables:
        try:
            fitting = list(_fitting([path], index, config))
        except InputError:
            continue  # the table is not needed, as the folders have labels
        for table, columns in fitting:
            if columns.label >= 0 and _plain(table.columns[columns.label]) not in LABEL_COLUMNS:
                continue
            found = [(index.find(row[columns.file], _folder_of(table, index)), _label(table, columns, row)) for row in table.rows]
            pairs = {
                (folder_of[files[0]], label) for files, label in found if label and len(files) == 1 and files[0] in folder_of
            }
            folders, labels = ({pair[i] for pair in pairs} for i in (0, 1))
            if not len(pairs) == len(folders) == len(labels):
                return f"{len(labels)} labels in {printable(path.name)} for the folders {listed(sorted(folders))}"
    return ""
