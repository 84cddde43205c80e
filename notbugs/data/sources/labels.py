"""Labels in a table beside the images: which file, which class, and perhaps which part and group."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from notbugs.data.names import check_class_name, first_line, one_form, path_part, printable
from notbugs.data.sources.base import NO_GROUP, Part, sorted_classes
from notbugs.data.sources.class_names import one_name
from notbugs.data.sources.file_index import FileIndex, folders_in
from notbugs.data.sources.label_choice import labels_note
from notbugs.data.sources.label_columns import (
    Columns,
    fitting_tables,
    folder_of,
    forms_note,
    label_of,
    says_parts,
    split_in,
)
from notbugs.data.sources.label_table import Table, read_table
from notbugs.data.sources.listing import Listing
from notbugs.data.sources.splits import is_neutral, listed, split_of, splits_among
from notbugs.data.sources.words import LABEL_COLUMNS, SPLIT_COLUMNS, plain_name, words_of
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

# Words of the names of tables that list images to leave out
EXCLUDED = frozenset(
    ("bad", "exclude", "excluded", "remove", "removed", "blacklist", "skip", "corrupt", "corrupted", "duplicates", "ignore")
)
MOST_FOLDERS = 2**22  # bytes of a table of folders
IMAGES = "images"  # the only part of a data set without parts


# ---- parts ---------------------------------------------------------------------------------------------------------------------


@dataclass
class _Rows:
    """The labeled files of one part, while they are collected."""

    files: dict[Path, str] = field(default_factory=dict)
    groups: dict[Path, str] = field(default_factory=dict)


def parts_by_table(
    listing: Listing, base: Path, tables: Sequence[Path], config: DataConfig, *, part: str = ""
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
    part : str
        The part of the data set that `base` is, if it is one: rows on files that are not there belong to other parts.

    Raises
    ------
    InputError
        If a table cannot be read, or if it is unclear which table, or which of its columns, holds the labels.
    """
    index = FileIndex.of(listing, base)
    fitting = _fitting(tables, index, config, part)
    index.loosely.clear()  # of columns that are no files
    parts_of_tables = [table.split for table, _ in fitting]
    if len(fitting) > 1 and ("" in parts_of_tables or len(set(parts_of_tables)) < len(fitting)):
        names = listed([table.path.name for table, _ in fitting])
        raise InputError(printable(str(base)), "has several tables with labels", names, "choose one with --labels FILE")
    top = {path.relative_to(base).parts[0] for path in index.by_path.values() if path.parent != base}
    folders = set() if part else {*splits_among(top), *top & {config.train, config.test}}
    collected: dict[str, _Rows] = defaultdict(_Rows)
    notes = []
    for table, columns in fitting:
        repeated = _collect(listing, index, table, columns, folders, collected, part)
        listing.use(table.path)
        notes.append(_table_note(table, columns) + (f"; {repeated:,} rows repeat a file" if repeated else ""))
    notes += sorted(index.loosely) if fitting else []
    notes += [f"{printable(table.path.name)} is not UTF-8, and is read as Latin-1" for table, _ in fitting if table.latin]
    notes += [note for table, columns in fitting if columns.label >= 0 and (note := labels_note(table, columns.label))]
    notes += [table.merged[columns.label] for table, columns in fitting if columns.label in table.merged]
    notes += [note for table, columns in fitting if (note := forms_note(table, columns))]
    notes += [note for table, columns in fitting for note in _unused_columns(table, columns)]
    labeled = {path for rows in collected.values() for path in rows.files}
    named = listed([table.path.name for table, _ in fitting])
    refused = {item.location for item in listing.unreadable}
    unlabeled = [path for path in index.by_path.values() if path not in labeled and listing.relative(path) not in refused]
    for path in unlabeled if fitting else ():
        listing.leave_out(path, f"has no label in {named}")
    if unlabeled and fitting:
        notes.append(f"{len(unlabeled):,} images have no label in {named} and are left out")
    return {name: _part(name, base, rows, fitting, named, listing) for name, rows in collected.items() if rows.files}, notes


def _fitting(tables: Sequence[Path], index: FileIndex, config: DataConfig, part: str) -> list[tuple[Table, Columns]]:
    """The tables that label files, and the part that the name of each says: beside x_test, also x_train.

    Raises
    ------
    InputError
        If it is unclear which columns of a table hold labels, and no two others are clear.
    """
    fitting, unclear = [], []
    for path in tables:
        try:
            fitting += list(fitting_tables([path], index, config, part))
        except InputError as error:
            unclear.append(error)
    if unclear and len(fitting) < 2:
        parameter, rule, got, remedy = unclear[0].args
        clear = f"; to read {printable(fitting[0][0].path.name)} instead: --labels FILE" if fitting else ""
        raise InputError(parameter, rule, got, remedy + clear)
    splits = splits_among([table.path.stem for table, _ in fitting])
    return [(table._replace(split=splits.get(table.path.stem, "")), columns) for table, columns in fitting]


def _unused_columns(table: Table, columns: Columns) -> list[str]:
    """Notes on columns that are called like parts and do not say train, test or validation."""
    used = (*columns[:2], *columns.one_hot)
    found = [i for i, name in enumerate(table.columns) if i not in used and (plain_name(name) in SPLIT_COLUMNS or split_of(name))]
    values = {i: listed(sorted({row[i] for row in table.rows}), 3) for i in found if i != columns.split}
    return [f"column {printable(table.columns[i])} is not used: {value}" for i, value in values.items()]


def _table_note(table: Table, columns: Columns) -> str:
    file, named = printable(table.columns[columns.file]), printable(table.path.name)
    label = (
        f"column {printable(table.columns[columns.label])}"
        if columns.label >= 0
        else f"{len(columns.one_hot)} columns of 0 and 1: {listed([table.columns[i] for i in columns.one_hot])}"
    )
    parts = f"; parts: column {printable(table.columns[columns.split])}" if columns.split >= 0 else ""
    return f"labels from {named}: {label}; files: column {file}{parts}"


def _collect(
    listing: Listing,
    index: FileIndex,
    table: Table,
    columns: Columns,
    folders: set[str],
    collected: dict[str, _Rows],
    only: str,
) -> int:
    """Add a table's rows to the parts, or to the one part `only`. Returns how many repeat a file with the same label."""
    beside, by_table = folder_of(table, index), table.split
    of_this_part = not only or table.path.is_relative_to(index.base) or bool(by_table)
    all_parts = index if of_this_part else FileIndex.of(listing.another(), table.path.parent)
    without = f"no part in column {table.columns[columns.split]}" if columns.split >= 0 else IMAGES
    repeated, refused = 0, set[Path]()
    in_folders = len({tuple(folders_in(row[columns.file])) for row in table.rows}) > 1
    for row in table.rows:
        named, by_row = split_in(table, columns, row)
        found = index.find(row[columns.file], beside, by_row or by_table)
        if len(found) == 1 and index.is_elsewhere(row[columns.file], found[0]):
            index.loosely.add("names of files are matched without their folders")
            found = [] if in_folders else found  # "a/1.png" beside "b/1.png": a file in another folder is another file
        label = label_of(table, columns, row)
        if only and named and by_row != split_of(only):
            continue
        if not found and not of_this_part and all_parts.find(row[columns.file], "", by_row):
            continue  # it is in another part
        if len(found) != 1 or not label:
            where = table.path.parent / f"{table.path.name}: {printable(row[columns.file][:200])}"
            several = f"may be any of {listed([listing.relative(path) for path in found], 2)}"
            listing.refuse(where, "has no label" if len(found) == 1 else several if found else "is not there")
            continue
        path = found[0]
        top = path.relative_to(index.base).parts[0]
        named = next((known for known in collected if known.casefold() == named.casefold()), named) if named else ""
        part = only or named or (top if top in folders else by_table or without)
        before = next((rows.files[path] for rows in collected.values() if path in rows.files), label)
        if before != label:
            both = f"{printable(before)} and {printable(label)}"
            listing.refuse(path, f"has two labels in {printable(table.path.name)}: {both}: multi-label is not supported")
            refused.add(path)
            continue
        if any(path in rows.files for name, rows in collected.items() if name != part):
            listing.refuse(path, "is in two parts")
            refused.add(path)
            continue
        repeated += path in collected[part].files
        collected[part].files[path] = label
        if columns.group >= 0:
            collected[part].groups[path] = row[columns.group]
    for rows in collected.values():  # which of its labels is right is unknown
        rows.files = {path: label for path, label in rows.files.items() if path not in refused}
    return repeated


def _part(name: str, base: Path, rows: _Rows, fitting: Sequence[tuple[Table, Columns]], named: str, listing: Listing) -> Part:
    one_hot = [one_name(table.columns[column]) for table, columns in fitting for column in columns.one_hot]
    present = set(rows.files.values())
    classes = tuple(column for column in dict.fromkeys(one_hot) if column in present) or sorted_classes(list(present))
    index = {label: number for number, label in enumerate(classes)}
    for label in classes:
        check_class_name(label)
    files = sorted(rows.files)
    if rows.groups and len(rows.groups.keys() & rows.files.keys()) < len(files):
        without = [table.path.name for table, columns in fitting if columns.group < 0]
        raise InputError("--group", "must be a column of each part", f"none in {listed(without)}", NO_GROUP)
    names = [_image_name(path, base, name, rows.files[path]) for path in files]
    if len(set(names)) < len(names):  # a/1.png and 1.png, both with the label a
        names = [f"{path_part(rows.files[path])}/{path.relative_to(base).as_posix()}" for path in files]
    return Part(
        name,
        [str(path) for path in files],
        [index[rows.files[path]] for path in files],
        classes,
        names,
        [listing.relative(path) for path in files],
        [rows.groups[path] for path in files] if rows.groups else [],
    )


def _image_name(path: Path, base: Path, part: str, label: str) -> str:
    """CLASS/path below the part's folder, so that names say what the files of class folders say."""
    below = path.relative_to(base)
    below = below.relative_to(part) if below.parts[0] == part and len(below.parts) > 1 else below
    folder = path_part(label)
    return below.as_posix() if below.parts[0] == folder and len(below.parts) > 1 else f"{folder}/{below.as_posix()}"


def labels_files_of_both(listing: Listing, folders: Sequence[Path], table: Path, config: DataConfig) -> bool:
    """Whether a row of a table names a file in each of two folders, and no row says to which part it belongs."""
    indexes = [FileIndex.of(listing.another(), folder) for folder in folders]
    for found, columns in fitting_tables([table], indexes[0], config, part="training"):
        cells = [row[columns.file] for row in found.rows]
        if columns.split < 0 and any(all(index.find(cell, folder_of(found, index)) for index in indexes) for cell in cells):
            return True
    return False


def disagreement(listing: Listing, base: Path, part: Part, tables: Sequence[Path], config: DataConfig) -> str:
    """Whether a table labels the images of class folders otherwise than the folders do: what was seen, "" if none does."""
    if not tables:
        return ""
    by_folder = {file: part.classes[label] for file, label in zip(part.files, part.labels, strict=True)}
    index, neutral = FileIndex.of(listing.another(), base), all(map(is_neutral, part.classes))
    for path in tables:
        if path.suffix.lower() == ".json" and not neutral:
            continue  # what is in the images of class folders, for another task
        try:
            fitting = list(fitting_tables([path], index, config))
        except InputError as error:  # it names the images, and its columns are unclear
            if neutral:
                return f"{printable(path.name)} ({first_line(error)}) for the folders {listed(part.classes)}"
            continue
        for table, columns in fitting:
            if not neutral and columns.label >= 0 and plain_name(table.columns[columns.label]) not in LABEL_COLUMNS:
                continue
            found = [(index.find(row[columns.file], folder_of(table, index)), row) for row in table.rows]
            named = [(str(files[0]), label_of(table, columns, row)) for files, row in found if len(files) == 1]
            if not named:
                continue  # numbers of classes, which are names of images in several folders
            pairs = {(by_folder[file], label) for file, label in named if label and file in by_folder}
            folders, labels = ({pair[i] for pair in pairs} for i in (0, 1))
            if not pairs or not len(pairs) == len(folders) == len(labels):
                return f"{len(labels)} labels in {printable(path.name)} for the folders {listed(part.classes)}"
    return ""


def exclusions_not_read(listing: Listing, tables: Sequence[Path]) -> str:
    """A note on tables beside class folders whose names say that they list images to leave out; "" if there is none."""
    names = [listing.relative(path) for path in tables if EXCLUDED.intersection(words_of(path.stem))]
    return f"{listed(names)} may list images to leave out, and is not read: move those images away" if names else ""


def labels_of_folders(tables: Sequence[Path], folders: Sequence[str]) -> str:
    """Whether a table gives folders labels, as one of patients does: what was seen, "" if none does.

    A table of classes, and of what else they are called, has a column called like labels for them, or as many labels as folders.
    """
    for path in tables:
        if path.suffix.lower() == ".json" or path.stat().st_size > MOST_FOLDERS:
            continue
        try:
            table = read_table(path)
        except InputError:
            continue
        plain = [plain_name(column) for column in table.columns]
        cells = [[one_form(row[i]) for row in table.rows] for i in range(len(plain))]
        names = [i for i in range(len(plain)) if plain[i] not in LABEL_COLUMNS and set(cells[i]) >= set(folders)]
        for column in [i for i in range(len(plain)) if names and plain[i] in LABEL_COLUMNS]:
            found = {label for name, label in zip(cells[names[0]], cells[column], strict=True) if name in folders}
            if 1 < len(found) < len(folders):
                return f"{len(found)} labels in {printable(path.name)} for the folders {listed(folders)}"
    return ""


def parts_not_read(listing: Listing, base: Path, tables: Sequence[Path], config: DataConfig) -> str:
    """A note on tables beside class folders that say which images are test images; "" if there is none."""
    notes: list[str] = []
    tables = [path for path in tables if path.suffix.lower() != ".json"]  # as in `disagreement`
    index_of = cache(lambda: FileIndex.of(listing.another(), base))
    for path in tables:
        if found := says_parts(path, index_of, config):
            remedy = f"--labels {printable(listing.relative(path))} reads it" if found.with_labels else "to use it, make folders"
            notes.append(f"{found.column} says which images are test images; not read ({remedy})")
    return "; ".join(notes)
