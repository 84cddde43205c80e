"""Which columns of a table hold the files, the labels, the parts and the groups."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from notbugs.data.config import DataConfig
from notbugs.data.names import printable
from notbugs.data.sources.class_names import is_name_column, one_name
from notbugs.data.sources.file_index import FileIndex
from notbugs.data.sources.label_table import Table, read_table
from notbugs.data.sources.splits import SPLIT_COLUMNS, TEST, TRAIN, VALIDATION, listed, named_column, plain_name, split_of
from notbugs.data.sources.targets import REMEDY as GROUP
from notbugs.data.sources.targets import check_no_measurements
from notbugs.errors import InputError

SAMPLE_ROWS = 200  # rows that tell which column names the files
ENOUGH = 0.8  # share of them that must name a file
SEVERAL = 5  # files of one name, in the folders of several parts, from which a cell names none
FILE_COLUMNS = (
    "filename", "file", "filepath", "path", "image", "imagepath", "imagename", "imageid", "img", "imgpath", "id", "name",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "classname", "category", "target", "y", "labelname", "classid", "labelid", "classlabel", "tag",
    "species", "breed", "dx", "diagnosis", "choice",
)  # fmt: skip
ZERO, ONE = ("0", "0.0", "false"), ("1", "1.0", "true")
FLAGS = {  # columns of 0 and 1: the part of each
    "isvalid": (TRAIN, VALIDATION), "isval": (TRAIN, VALIDATION), "istrain": (TEST, TRAIN), "istraining": (TEST, TRAIN),
    "istest": (TRAIN, TEST),
}  # fmt: skip


class Columns(NamedTuple):
    """Which columns hold what: positions, and -1 for none. one_hot: columns that are classes, with a 1 for the right one."""

    file: int
    label: int
    one_hot: tuple[int, ...]
    split: int
    group: int


def _column(table: Table, option: str, name: str | None) -> int:
    """The column that an option names, -1 without one. Raises InputError."""
    if name is None:
        return -1
    if table.columns.count(name) > 1:
        raise InputError(option, "must be the name of one column", f"{printable(name)}, of several", "rename the others")
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
    split = _split_column(table, plain, file)
    group = table.columns.index(named) if (named := named_column(table.columns, config.group)) else -1
    others = [i for i in range(len(plain)) if i not in (file, group, split) and plain[i] not in SPLIT_COLUMNS]
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


def _split_column(table: Table, plain: Sequence[str], file: int) -> int:
    """The column that says each image's part: by its name, or the only one whose cells are all train, test and the like."""
    saying = [i for i in range(len(plain)) if i != file and _are_splits(table, i)]
    named = next((plain.index(name) for name in SPLIT_COLUMNS if name in plain and plain.index(name) in saying), -1)
    unnamed = [i for i in saying if plain[i] not in LABEL_COLUMNS]
    return named if named >= 0 or len(unnamed) != 1 else unnamed[0]


def _are_splits(table: Table, column: int) -> bool:
    """Whether a column's cells are parts, train among them; of a column that is called like parts, any."""
    plain = plain_name(table.columns[column])
    splits = set()
    for cell in {row[column] for row in table.rows if row[column]}:
        if not (split := split_of_cell(plain, cell)):
            return False
        splits.add(split)
    return plain in SPLIT_COLUMNS or (TRAIN in splits and len(splits) > 1)


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


def _label_column(table: Table, config: DataConfig, columns: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """The column of the labels, or the columns that are classes."""
    if config.label_column:
        return _column(table, "--label-column", config.label_column), ()
    label, one_hot = _guessed_label_column(table, columns)
    if label >= 0:
        _check_single_labels(table, label)
        remedy = f"{GROUP}; each number as a class: --label-column {printable(table.columns[label])}"
        place = f"{table.path}: column {table.columns[label]}"
        check_no_measurements(place, [row[label] for row in table.rows], table.columns[label], remedy)
    return label, one_hot


def _guessed_label_column(table: Table, columns: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    usual = [column for name in LABEL_COLUMNS for column in columns if plain_name(table.columns[column]) == name]
    usual += [column for column in columns if column not in usual and is_name_column(table.columns[column])]
    if len(usual) > 1 and all(_same_partition(table, usual[0], other) for other in usual[1:]):
        return next((column for column in usual if not all(row[column].isdecimal() for row in table.rows)), usual[0]), ()
    if len(usual) == 1:
        return usual[0], ()
    if not usual and (one_hot := _one_hot(table, columns)):
        return -1, one_hot
    if not usual and len(columns) == 1 and (not table.headed or split_of(table.path.stem) not in (TEST, VALIDATION)):
        return columns[0], ()
    if not table.headed and len(words := [column for column in columns if _are_words(table, column)]) == 1:
        return words[0], ()  # beside numbers, as boxes are
    if (not usual and split_of(table.path.stem) in (TEST, VALIDATION)) or not columns:
        return -1, ()  # a list of test images, and what else is known of them
    rule = "it must be clear which column holds the labels"
    raise InputError(printable(str(table.path)), rule, f"columns {listed(table.columns)}", "choose it with --label-column NAME")


def _are_words(table: Table, column: int) -> bool:
    """Whether a column holds two or more different words, not numbers."""
    cells = {row[column] for row in table.rows}
    return len(cells) > 1 and not any(re.fullmatch(r"[-+.\d]*", cell) for cell in cells)


def _check_single_labels(table: Table, column: int) -> None:
    """Raises InputError where cells hold several labels, "cat,dog" for example beside cells with one of them."""
    labels = {row[column] for row in table.rows if row[column]}
    for sign in (",", ";", "|", " "):
        several = {label: [part.strip() for part in label.split(sign)] for label in labels if sign in label}
        times = Counter(part for parts in several.values() for part in parts)
        known = {part for part in times if part in labels or (sign != " " and times[part] > 1)}
        enough = all if sign == " " else any  # a class may be called "sea lion" beside "sea" and "lion"
        if several and known & labels and enough(known.issuperset(parts) for parts in several.values()):
            rule = f"column {printable(table.columns[column])} holds several labels of one image (multi-label), which is not read"
            remedy = "keep one label for each image; combinations as classes of their own: --label-column NAME"
            raise InputError(printable(str(table.path)), rule, listed(several, 3), remedy)


def _same_partition(table: Table, one: int, other: int) -> bool:
    """Whether two columns hold the same classes under different names, a number and a word for example."""
    pairs = {(row[one], row[other]) for row in table.rows}
    return len({a for a, _ in pairs}) == len(pairs) == len({b for _, b in pairs})


def _one_hot(table: Table, columns: Sequence[int]) -> tuple[int, ...]:
    """The columns of 0 and 1 that are classes, one of them 1 in each row; () if there are none.

    Two such columns beside others, unless these are different in most rows, may be anything: is_male and is_female.

    Raises
    ------
    InputError
        If nothing but columns of 0 and 1 may be labels, and rows have several.
    """
    binary = tuple(column for column in columns if all(row[column].casefold() in ZERO + ONE for row in table.rows))
    if len(binary) < 2 or not table.rows:
        return ()
    sums = {sum(row[column].casefold() in ONE for column in binary) for row in table.rows}
    others = [column for column in columns if column not in binary]
    if sums == {1} and (len(binary) > 2 or all(2 * len({row[i] for row in table.rows}) > len(table.rows) for i in others)):
        return binary
    if others or sums == {1}:
        return ()
    rule = (
        f"has columns of 0 and 1, which are classes only if each row has a single 1: {listed([table.columns[i] for i in binary])}"
    )
    got = f"rows with {listed([str(number) for number in sorted(sums)])}"
    raise InputError(
        printable(str(table.path)), rule, got, "several labels (multi-label) are not read; one column: --label-column NAME"
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
        return table._replace(columns=names, rows=[list(table.columns), *table.rows], headed=False)
    return table


def label_of(table: Table, columns: Columns, row: Sequence[str]) -> str:
    """The class that a row names, "" if none."""
    if columns.label >= 0:
        label = one_name(row[columns.label])
        return label[:-2] if re.fullmatch(r"\d+\.0", label) else label
    return one_name(next(table.columns[column] for column in columns.one_hot if row[column].casefold() in ONE))


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
    return cell if split_of(cell) else split, split
