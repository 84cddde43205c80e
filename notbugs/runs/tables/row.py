"""Typed rows: what all tables of a run folder share, and their text as CSV. Imports no torch.

A row class is a frozen dataclass whose class attribute `table` is the table's name. Text stays text (a class called "007"), an
empty cell is None, a flag is 0 or 1.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from types import NoneType
from typing import ClassVar, TextIO, TypeVar, get_args, get_type_hints

Cell = str | int | float | bool | None


class Row:
    """What all rows share: the name of their table."""

    table: ClassVar[str]


AnyRow = TypeVar("AnyRow", bound=Row)


def columns(row_type: type[Row]) -> dict[str, tuple[type, bool]]:
    """Columns of a table in order: name -> (str, int, float or bool; whether a cell may be empty)."""
    return _columns(row_type)  # type: ignore[arg-type]  # classes are hashable


@cache
def _columns(row_type: type[Row]) -> dict[str, tuple[type, bool]]:
    hints = get_type_hints(row_type)
    found = {}
    for field in fields(row_type):  # type: ignore[arg-type]  # every row is a dataclass
        kinds = get_args(hints[field.name]) or (hints[field.name],)
        found[field.name] = next(kind for kind in kinds if kind is not NoneType), NoneType in kinds
    return found


def cells(row: Row) -> dict[str, Cell]:
    """The row as column -> value."""
    return {name: getattr(row, name) for name in columns(type(row))}


def from_text(row_type: type[AnyRow], text: Mapping[str, str | None]) -> AnyRow:
    """A row from the cells of a CSV file. Raises ValueError for a missing column or a cell of another type.

    A column that is empty by default may be missing: runs of an earlier version lack those that were added since.
    """
    values: dict[str, Cell] = {}
    for name, (kind, optional) in columns(row_type).items():
        if optional and name not in text and hasattr(row_type, name):  # its default
            continue
        cell = text.get(name)
        if cell is None:
            raise ValueError(f"column {name} is missing")
        if kind is str:
            values[name] = None if optional and not cell else original_cell(cell)
        elif not cell and optional:
            values[name] = None
        else:
            values[name] = bool(int(cell)) if kind is bool else kind(cell)
    return row_type(**values)


# ---- CSV: the one place that writes it -----------------------------------------------------------------------------------------

# What a spreadsheet takes for a formula, and runs (OWASP: CSV injection), quoted any number of times; numbers are none
# The pages write CSV, too: what is a space is spelled out, as Python and JavaScript disagree on it
FORMULA = re.compile(r"'*(?:[\s\x1c-\x1f\x85\ufeff]*[=+\-@＝＋－＠]|[\t\r\n])")
NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def plain_cell(text: str) -> str:
    r"""Text that no spreadsheet takes for a formula: what begins like one gets a quote in front, which spreadsheets hide.

    Examples
    --------
    >>> plain_cell('=HYPERLINK("http://x")'), plain_cell("-1"), plain_cell("cat")
    ('\'=HYPERLINK("http://x")', '-1', 'cat')
    """
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def original_cell(text: str) -> str:
    """The text of which `plain_cell` made a cell.

    Examples
    --------
    >>> original_cell("'=1+1"), original_cell("''=1+1"), original_cell("'tis")
    ('=1+1', "'=1+1", "'tis")
    """
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def write_records(stream: TextIO, records: Iterable[Iterable[object]]) -> None:
    """Write rows of cells as CSV: text as `plain_cell` has it, flags as 0 and 1, None as an empty cell."""
    writer = csv.writer(stream, lineterminator="\r\n")  # with this end "\r" in a cell is quoted, too
    writer.writerows([_cell_text(cell) for cell in record] for record in records)


def _cell_text(cell: object) -> object:
    return plain_cell(cell) if isinstance(cell, str) else int(cell) if isinstance(cell, bool) else cell


def as_csv(rows: Sequence[Row]) -> str:
    """Rows of one table as the text of a CSV file; "" without rows."""
    return records_as_csv([cells(row) for row in rows])


def records_as_csv(records: Iterable[Mapping[str, object]]) -> str:
    """Records as the text of a CSV file: all columns that any of them has, in order of appearance; "" without records."""
    records = list(records)
    names = list(dict.fromkeys(name for record in records for name in record))
    if not names:
        return ""
    file = io.StringIO(newline="")
    write_records(file, [names, *([record.get(name) for name in names] for record in records)])
    return _plain_line_ends(file.getvalue())


def _plain_line_ends(text: str) -> str:
    """Rows end with a plain line feed; what stands inside quotes stays."""
    parts = text.split('"')
    parts[::2] = [part.replace("\r\n", "\n") for part in parts[::2]]
    return '"'.join(parts)
