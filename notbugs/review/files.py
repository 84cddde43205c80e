"""Files of a review folder, which others wrote: read with limits, and with errors that fit into one line. Imports no torch.

review/review.html   the page, which saves the answers as answers-NAME.csv
review/key.csv       which image is which: id, set, file, label; not for reviewers
review/*.csv         what reviewers sent back: reviewer, id, answer ("" is "cannot tell"), seconds
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from notbugs.errors import InputError
from notbugs.runs.tables.row import original_cell

KEY_FILE = "key.csv"
PAGE_FILE = "review.html"
KEY_COLUMNS = ("id", "set", "file", "label")
ANSWER_COLUMNS = ("reviewer", "id", "answer", "seconds")
MAX_BYTES = 10_000_000  # of a file of answers: about 200,000 of them
MAX_PAGE_BYTES = 300_000_000
# The page has the same rule: on one line, and nothing that a spreadsheet would run
REVIEWER_NAME = r"[^=+\-@\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]{0,99}"


def review_folder(folder: Path) -> Path:
    """The review folder of a run folder."""
    return folder / "review"


def answer_files(folder: Path) -> list[Path]:
    """Every .csv in the review folder but the key; in the order of names, with numbers by size: `A (10)` after `A (2)`."""
    review = review_folder(folder)
    found = [path for path in review.iterdir() if _is_csv(path)] if review.is_dir() else []
    return [path for path in sorted(found, key=_natural_order) if path.name != KEY_FILE]


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV file with these columns, each with the number of the line it ends on; empty lines are skipped.

    Raises
    ------
    InputError
        If the file is no such table.
    """
    remedy = "send the file as the page saved it"
    try:
        reader = csv.reader(io.StringIO(read_file(path).decode("utf-8-sig"), newline=""), strict=True)
        if (head := next(reader, [])) != list(columns):
            raise InputError(str(path), f"must have the columns {','.join(columns)}", quoted(",".join(head)))
        for row in filter(None, reader):
            if len(row) != len(columns):
                rule = f"must have {len(columns)} cells with commas between them"
                raise InputError(f"{path}, line {reader.line_num}", rule, len(row))
            yield reader.line_num, [*map(original_cell, row)]
    except UnicodeDecodeError:
        raise InputError(str(path), "must be text in UTF-8", remedy=remedy) from None
    except csv.Error as error:
        raise InputError(str(path), "must be a CSV file", str(error), remedy) from None


def read_file(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a file of the review folder itself. Raises InputError for a link, and for a file that is too large."""
    if path.is_symlink() or not path.is_file():
        raise InputError(str(path), "must be a file, and no link", remedy="remove it")
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(str(path), "must be readable", error.strerror) from None
    if len(content) > max_bytes:
        raise InputError(str(path), f"must have at most {max_bytes:,} bytes", "more", "send the file as the page saved it")
    return content


def quoted(text: str) -> str:
    """Text of a file for a message: quoted, at most 60 characters."""
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and not path.name.startswith(".")


def _natural_order(path: Path) -> tuple[list[str | int], str]:
    """The name without its suffix, numbers as such."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", path.stem))], path.name
