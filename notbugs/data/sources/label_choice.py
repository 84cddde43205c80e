"""Which column of a table holds the labels, or which columns are classes."""

import re
from collections import Counter
from collections.abc import Sequence

from notbugs.data.names import printable
from notbugs.data.sources.class_names import is_name_column
from notbugs.data.sources.label_table import Table
from notbugs.data.sources.several_labels import HOLDS, LIST, REMEDY, several_labels
from notbugs.data.sources.splits import listed, split_of
from notbugs.data.sources.targets import REMEDY as GROUP
from notbugs.data.sources.targets import check_no_measurements
from notbugs.data.sources.words import LABEL_COLUMNS, SEVERAL_LABELS, TEST, VALIDATION, plain_name
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

# Columns of what else is known of an image, which are no labels unless that is said
NEVER = frozenset(
    (
        "caption", "text", "description", "title", "comment", "comments", "note", "notes", "url", "link", "date", "time",
        "datetime", "timestamp", "user", "username", "uploader", "author", "photographer", "annotator", "license",
        "copyright", "size", "filesize", "md5", "sha1", "sha256", "hash", "lat", "lon", "latitude", "longitude", "gps",
        "bbox", "box", "confidence", "score", "probability", "certainty", "prediction", "predicted", "predictedlabel",
        "pred",
    )
)  # fmt: skip
ZERO, ONE = ("0", "0.0", "false"), ("1", "1.0", "true")


def column_of(table: Table, option: str, name: str | None) -> int:
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


def label_column(table: Table, config: DataConfig, columns: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """The column of the labels, or the columns that are classes."""
    if config.label_column:
        return column_of(table, "--label-column", config.label_column), ()
    label, one_hot = _guessed_label_column(table, columns)
    if label >= 0:
        _check_single_labels(table, label)
        remedy = f"{GROUP}; each number as a class: --label-column {printable(table.columns[label])}"
        place = f"{table.path}: column {table.columns[label]}"
        check_no_measurements(place, [row[label] for row in table.rows], table.columns[label], remedy)
    return label, one_hot


def _guessed_label_column(table: Table, given: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    columns = [column for column in given if plain_name(table.columns[column]) not in NEVER]
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
    if (not usual and split_of(table.path.stem) in (TEST, VALIDATION)) or not given:
        return -1, ()  # a list of test images, and what else is known of them
    rule = "it must be clear which column holds the labels"
    raise InputError(printable(str(table.path)), rule, f"columns {listed(table.columns)}", "choose it with --label-column NAME")


def _are_words(table: Table, column: int) -> bool:
    """Whether a column holds two or more different words, not numbers."""
    cells = {row[column] for row in table.rows}
    return len(cells) > 1 and not any(re.fullmatch(r"[-+.\d]*", cell) for cell in cells)


def _check_single_labels(table: Table, column: int) -> None:
    """Raises InputError where cells hold several labels, "cat,dog" for example beside cells with one of them."""
    if found := several_labels({row[column] for row in table.rows if row[column]}):
        rule = f"column {printable(table.columns[column])} {HOLDS}"
        raise InputError(printable(str(table.path)), rule, listed(found, 3), REMEDY)


def labels_note(table: Table, column: int) -> str:
    """A note on labels in brackets, which are read without, and on those that may be several; "" for others."""
    labels = {row[column] for row in table.rows if row[column]}
    if any(LIST.fullmatch(label) for label in labels):
        return "labels are read without the brackets around them"
    times = Counter(word for label in labels for word in set(re.split(r"[\s,;|]+", label)))
    plural, again = plain_name(table.columns[column]) in SEVERAL_LABELS, [word for word in times if times[word] > 1]
    name = printable(table.columns[column])
    return f"column {name} may hold several labels of one image: {listed(again, 3)} stand in several" if plural and again else ""


def without_brackets(label: str) -> str:
    """A label that is written as a list of one.

    Examples
    --------
    >>> without_brackets("['cat']"), without_brackets("cat")
    ('cat', 'cat')
    """
    match = LIST.fullmatch(label)
    return match[1].strip().strip("'\"").strip() if match and "," not in match[1] else label


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
        printable(str(table.path)),
        rule,
        got,
        "several labels of one image (multi-label) are not supported; one column: --label-column NAME",
    )
