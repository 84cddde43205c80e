"""Folders that `export` wrote: their manifest.csv has the names of classes that no folder can have."""

import csv
from pathlib import Path

from notbugs.data.names import MANIFEST, printable
from notbugs.data.sources.base import Located
from notbugs.data.sources.splits import listed
from notbugs.runs.tables.row import original_cell


def is_written(folder: Path) -> bool:
    """Whether `export` wrote a folder: then the folders in its part are classes, whatever they are called."""
    path = folder / "manifest.csv"
    if not path.is_file():  # opening a pipe would wait forever
        return False
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.readline(200).strip() == ",".join(MANIFEST)
    except (OSError, ValueError):
        return False


def with_written_names(located: Located, base: Path) -> Located:
    """A data set in a folder that `export` wrote, with the true names of its classes: __x for _x, a/b for a_b."""
    folder = next((folder for folder in (base, base.parent) if is_written(folder)), None)
    if folder is None:
        return located
    names: dict[str, set[str]] = {}
    try:
        with open(folder / "manifest.csv", newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                names.setdefault(original_cell(row["file"]).split("/")[1], set()).add(original_cell(row["label"]))
    except (OSError, ValueError, csv.Error, LookupError, AttributeError, TypeError):
        return located  # files were moved or the list was changed: the folders decide
    true = tuple(next(iter(names[name])) if len(names.get(name, ())) == 1 else name for name in located.classes)
    renamed = [f"{printable(name)} is {printable(own)}" for name, own in zip(located.classes, true, strict=True) if name != own]
    if not renamed or len(set(true)) < len(true):
        return located
    note = f"class names from manifest.csv, as no folder can be called so: {listed(renamed, 3)}"
    return located._replace(classes=true, notes=(*located.notes, note))
