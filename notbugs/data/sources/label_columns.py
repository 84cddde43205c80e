"""Which columns of a table hold the files, the labels, the parts and the groups."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from notbugs.data.names import printable
from notbugs.data.sources.class_names import as_one_name, one_name
from notbugs.data.sources.file_index import FileIndex
from notbugs.data.sources.label_choice import ONE, ZERO, column_of, label_column, without_brackets
from notbugs.data.sources.label_table import Table, read_table
from notbugs.data.sources.splits import listed, split_of
from notbugs.data.sources.words import FILE_COLUMNS, FLAGS, LABEL_COLUMNS, SPLIT_COLUMNS, TRAIN, named_column, plain_name
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

WHOLE = re.compile(r"\d+\.0")  # a whole number, as pandas writes it where some are missing
SAMPLE_ROWS = 200  # rows that tell which column names the files
ENOUGH = 0.8  # share of them that must name a file
SEVERAL = 5  # files of one name, in the folders of several parts, from which a cell names none


class Columns(NamedTuple):
    """Which columns hold what: positions, and -1 for none. one_hot: columns that are classes, with a 1 for the right one."""

    file: int
    label: int
    one_hot: tuple[int, ...]
    split: int
    group: int


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
    split = _split_column(table, plain, file)
    group = table.columns.index(named) if (named := named_column(table.columns, config.group)) else -1
    others = [i for i in range(len(plain)) if i not in (file, group, split) and plain[i] not in SPLIT_COLUMNS]
    label, one_hot = label_column(table, config, others)
    return Columns(file, label, one_hot, split, group) if label >= 0 or one_hot else None


def _file_column(table: Table, index: FileIndex, config: DataConfig, enough: float) -> int:
    """The column of different values of which enough name a file."""
    if config.file_column:
        return column_of(table, "--file-column", config.file_column)
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
            rule = "it must be clear which column names the files"
            names = [table.columns[column] or "one without a name" for column in (chosen, other)]
            raise InputError(printable(str(table.path)), rule, listed(names), "choose it with --file-column NAME")
    return chosen


def folder_of(table: Table, index: FileIndex) -> str:
    """The table's folder relative to the images', "" if it is not inside."""
    folder = table.path.parent
    inside = folder.is_relative_to(index.base) and folder != index.base
    return folder.relative_to(index.base).as_posix() if inside else ""


def _split_column(table: Table, plain: Sequence[str], file: int) -> int:
    """The column that says each image's part: by its name, or the only one whose cells are all train, test and the like."""
    saying = [i for i in range(len(plain)) if i != file and _are_splits(table, i)]
    named = next((plain.index(name) for name in SPLIT_COLUMNS if name in plain and plain.index(name) in saying), -1)
    unnamed = [i for i in saying if plain[i] not in LABEL_COLUMNS]
    return named if named >= 0 or len(unnamed) != 1 else unnamed[0]


def _are_splits(table: Table, column: int) -> bool:
    """Whether a column's cells are parts, train among them; of a column called like parts any, or train, test and others."""
    plain = plain_name(table.columns[column])
    splits = {split_of_cell(plain, cell) for cell in {row[column] for row in table.rows if row[column]}}
    known = splits - {""}
    if plain in SPLIT_COLUMNS:  # what else it says are parts that are not used
        return known == splits or (TRAIN in known and len(known) > 1)
    return known == splits and TRAIN in known and len(known) > 1


def split_of_cell(column: str, cell: str) -> str:
    """The part that a cell names, "" if none. column: its plain name; in is_valid, as fastai has it, and is_train, 1 and True do.

    Examples
    --------
    >>> split_of_cell("split", "Testing"), split_of_cell("isvalid", "False"), split_of_cell("split", "7")
    ('test', 'train', '')
    """
    if column in FLAGS and cell.casefold() in ZERO + ONE:
        return FLAGS[column][cell.casefold() in ONE]
    return split_of(cell)


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
        return table._replace(columns=names, rows=[list(table.columns), *table.rows], headed=False)
    return table


def label_of(table: Table, columns: Columns, row: Sequence[str]) -> str:
    """The class that a row names, "" if none."""
    if columns.label >= 0:
        label = without_brackets(one_name(row[columns.label]))
        return label[:-2] if WHOLE.fullmatch(label) else label
    return one_name(next(table.columns[column] for column in columns.one_hot if row[column].casefold() in ONE))


def forms_note(table: Table, columns: Columns) -> str:
    """A note where labels are read as whole numbers, or names of columns that are classes in another form; "" elsewhere."""
    if columns.label < 0:
        return as_one_name(table.columns[column] for column in columns.one_hot)[1]
    whole = sorted({row[columns.label] for row in table.rows if WHOLE.fullmatch(row[columns.label])})
    return f"labels are read as whole numbers: {whole[0]} as {whole[0][:-2]}" if whole else ""


class SaidParts(NamedTuple):
    """A column of a table beside class folders that says the parts, and whether the table has labels, too."""

    column: str
    with_labels: bool


def says_parts(path: Path, index_of: Callable[[], FileIndex], config: DataConfig) -> SaidParts | None:
    """What a table beside class folders says of the parts of their images; None if nothing, as most tables."""
    try:
        table = read_table(path)
        if _split_column(table, [plain_name(column) for column in table.columns], -1) < 0:
            return None
        table, index = _with_header(table, index_of()), index_of()
        file = _file_column(table, index, config, ENOUGH)
        split = _split_column(table, [plain_name(column) for column in table.columns], file) if file >= 0 else -1
        if split < 0:
            return None
        column = f"column {printable(table.columns[split])} of {printable(path.name)}"
        return SaidParts(column, find_columns(table, index, config) is not None)
    except InputError:  # it is no table of these images, or its columns are unclear
        return None


def split_in(table: Table, columns: Columns, row: Sequence[str]) -> tuple[str, str]:
    """The name of the part that a row says, and its split; ("", "") if it says none."""
    if columns.split < 0:
        return "", ""
    cell, split = row[columns.split], split_of_cell(plain_name(table.columns[columns.split]), row[columns.split])
    return (split if split and not split_of(cell) else cell), split
