"""A table with the class at which attacks on each image are targeted."""

from collections import defaultdict
from pathlib import Path

from notbugs.data import Dataset
from notbugs.data.names import one_form, printable
from notbugs.data.sources.label_table import SUFFIXES, Table, read_table
from notbugs.data.sources.splits import listed
from notbugs.data.sources.words import FILE_COLUMNS, LABEL_COLUMNS, plain_name
from notbugs.errors import InputError

RULE = "must be a table with a row for each image, its file or index and its target"
COLUMNS = "call the columns file and target"


def is_target_file(target: str) -> bool:
    """Whether what `--target` was given is a table, by its ending.

    Examples
    --------
    >>> is_target_file("targets.csv"), is_target_file("cat")
    (True, False)
    """
    return Path(target).suffix.lower() in SUFFIXES


def read_targets(path: str, part: Dataset, dataset: str) -> dict[int, int]:
    """The target of each image that a table names: row of the image -> class.

    Parameters
    ----------
    path : str
        A table as `--labels` reads it: .csv, .tsv, .json, .jsonl, .parquet. A column of files, as `files.csv` of an audit calls
        them or by their last part, or of indices, from 0; and one of names of classes. Without names of columns: in this order.
    part : Dataset
        All test images.
    dataset : str
        Its name, for errors.

    Raises
    ------
    InputError
        If it cannot be read, names what is not there or one image twice, or gives an image its own class.
    """
    if not Path(path).is_file():
        raise InputError("--target", "no such file", printable(path))
    table = read_table(Path(path))
    rows, file, target, numbered = _columns(table, path)
    find, classes = _Finder(part, path, dataset, numbered), {one_form(name): index for index, name in enumerate(part.classes)}
    found: dict[int, int] = {}
    for cells in rows:
        row, name = find(cells[file]), one_form(cells[target])
        if name not in classes:
            raise InputError("--target", f"{path} must hold classes of {dataset}: {listed(part.classes)}", printable(name))
        if row in found:
            raise InputError("--target", f"{path} must have one row for each image", printable(cells[file]))
        if classes[name] == int(part.labels[row]):
            rule = f"{path} must have another class than its own for each image"
            raise InputError("--target", rule, f"{printable(name)} for {printable(cells[file])}", "leave the row out")
        found[row] = classes[name]
    if not found:
        raise InputError("--target", RULE, f"{printable(path)}, without rows")
    return found


def _columns(table: Table, path: str) -> tuple[list[list[str]], int, int, bool]:
    """The rows, the places of the file and of the target in each, and whether the files are numbers."""
    plain = [plain_name(column) for column in table.columns]
    files = [plain.index(name) for name in (*FILE_COLUMNS, "index") if name in plain]
    targets = [plain.index(name) for name in ("target", *LABEL_COLUMNS) if name in plain and plain.index(name) not in files]
    if files and targets:
        return table.rows, files[0], targets[0], plain[files[0]] == "index"
    if len(plain) == 2 and not files and not targets:
        return [list(table.columns), *table.rows], 0, 1, False
    raise InputError("--target", RULE, f"{printable(path)} with the columns {listed(table.columns)}", COLUMNS)


class _Finder:
    """The row of an image by its name, the last part of that, or its index."""

    def __init__(self, part: Dataset, path: str, dataset: str, numbered: bool) -> None:
        self.count, self.rule, self.numbered = len(part), f"{path} must name test images of {dataset}", numbered
        self.rows: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(map(one_form, part.names)):
            for key in {name, name.rpartition("/")[2]}:
                self.rows[key].append(row)

    def __call__(self, cell: str) -> int:
        """Raises InputError unless it is one image."""
        rows = [] if self.numbered else self.rows.get(one_form(cell), [])
        if not rows and cell.isascii() and cell.isdecimal() and int(cell) < self.count:
            rows = [int(cell)]
        if len(rows) != 1:
            got = f"{printable(cell[:200])}, which {len(rows)} images are called" if rows else printable(cell[:200])
            raise InputError("--target", self.rule, got, "take the names of tables/files.csv of an audit")
        return rows[0]
