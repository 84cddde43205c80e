"""Lists beside class folders that say which images are training images and which are test images."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from notbugs.data.names import one_form, printable
from notbugs.data.sources.base import Part
from notbugs.data.sources.label_table import MOST_BYTES
from notbugs.data.sources.listing import Listing, below
from notbugs.data.sources.splits import is_annotation, is_neutral, listed, parse_split, splits_among
from notbugs.data.sources.text import lines_of, text_of
from notbugs.data.sources.words import LISTS_OF_PARTS, TEST, TRAIN, VALIDATION, words_of

LISTS = (".txt", ".csv", ".tsv", ".lst")
OTHERS = (".mat", ".json", ".jsonl", ".xlsx", ".pkl")  # may be lists, and are not read
CUB = ("images.txt", "train_test_split.txt")  # number and path; number and 1 for training
Keys = Mapping[str, str | None]  # files by what a list may call them; None where that is several


def official_parts(listing: Listing, base: Path, part: Part, way_out: str) -> tuple[dict[str, Part], str]:
    """The images of class folders by part, as lists beside the folders or in a folder for annotations have them.

    A training list and a test list, and perhaps one for validation, are read if each line names an image, and none is in two.
    Of train1, test1, train2, test2, … those of the lowest number are read; trainval goes before train and val.

    Parameters
    ----------
    listing : Listing
        Gets the images that are in no list.
    base : Path
    part : Part
        All images.
    way_out : str
        For the note: the option that reads all images as one part.

    Returns
    -------
    dict
        Empty where there are no such lists.
    str
        A note on what was read; on lists that were not; "" if there are none.
    """
    lists, cub_files = _lists(listing, base), _cub_files(listing, base)
    if not lists and not cub_files:
        return {}, ""  # as most data sets: the keys of 30,000 files take 0.4 s
    used = _one_for_each_part([path for path in lists if path.suffix.lower() in LISTS])
    keys = _keys(base, [path for path in part.files if isinstance(path, str)])
    found = {path.stem: _named(path, keys) for path in used}
    if not found and (cub := cub_files):
        used, found = list(cub), _by_number(*cub, keys)
    named = [path for paths in found.values() for path in paths]
    if not found or not all(found.values()) or len(set(named)) < len(named):
        seen = listed([path.name for path in lists])
        return {}, f"{seen} may say which images are test images; not read (--labels FILE, or make folders)" if lists else ""
    for path in used:
        listing.use(path)
    note = f"parts from {' and '.join(printable(listing.relative(path)) for path in used)}{way_out}"
    others = [path.name for path in lists if path not in used and path.suffix.lower() in LISTS]
    note += f"; not read: {listed(others, 3)}" if others else ""
    rest = sorted({file for file in part.files if isinstance(file, str)}.difference(named), key=Path)
    for file in rest:
        listing.leave_out(file, f"is in none of {listed([used_list.name for used_list in used])}")
    note += f"; {len(rest):,} images are in none of them and are left out" if rest else ""
    return {name: _selected(part, name, set(paths)) for name, paths in found.items()}, note


def _one_for_each_part(lists: Sequence[Path]) -> list[Path]:
    """One list for training, one for test and perhaps one for validation; [] if there are several of one kind."""
    splits = splits_among([path.stem for path in lists])
    by_split: dict[str, list[Path]] = {}
    for path in lists:
        if path.stem in splits:
            by_split.setdefault(splits[path.stem], []).append(path)
    numbers = {path: int(digits[0]) for path in lists if len(digits := re.findall(r"\d+", path.stem)) == 1}
    for split, paths in by_split.items():
        if len(paths) > 1 and len({numbers.get(path) for path in paths} - {None}) == len(paths):  # DTD has ten of each
            by_split[split] = [min(paths, key=numbers.__getitem__)]
    if len({numbers.get(paths[0]) for paths in by_split.values()}) > 1:
        return []
    both = [path for path in by_split.get(TRAIN, ()) if "trainval" in words_of(path.stem)]
    if len(both) == 1:
        by_split = {split: both if split == TRAIN else paths for split, paths in by_split.items() if split != VALIDATION}
    whole = by_split.keys() >= {TRAIN, TEST} and all(len(paths) == 1 for paths in by_split.values())
    return [path for paths in by_split.values() for path in paths] if whole else []


def _lists(listing: Listing, base: Path) -> list[Path]:
    """Files whose names say a part: beside the class folders, around them, and in folders for annotations there."""
    return [
        path
        for folder in _folders_around(listing, base)
        for path in listing.beside(folder, among=LISTS + OTHERS)
        if (
            parse_split(path.stem)
            or path.name in CUB[1:]
            or (path.suffix.lower() in OTHERS and LISTS_OF_PARTS & {*words_of(path.stem)})
        )
        and 0 < path.stat().st_size <= MOST_BYTES
        and "submission" not in path.name.lower()
    ]


def _folders_around(listing: Listing, base: Path) -> list[Path]:
    around = [folder for folder in (base, *base.parents) if folder.is_relative_to(listing.root)]
    inner = [path for folder in around for path in listing.own_folders(folder) if path not in around]
    return [*around, *(path for path in inner if is_annotation(path.name) or is_neutral(path.name))]


def _keys(base: Path, files: Sequence[str]) -> Keys:
    """Files by their paths and names, with and without ending."""
    keys: dict[str, str | None] = {}
    for path in files:
        inner = one_form(below(path, base))
        for name in (inner, f"{one_form(base.name)}/{inner}", inner.rpartition("/")[2]):
            for key in {name, name.rpartition(".")[0] or name}:
                keys[key] = None if keys.get(key, path) != path else path
    return keys


def _named(path: Path, keys: Keys) -> list[str]:
    """The files that the lines of a list name, in one of its columns; [] unless each line but a header names one."""
    rows = _rows(path)
    # A column that some line but the header does not have names no image in it, however many the header has
    columns = [[row[i] if i < len(row) else "" for row in rows] for i in range(min(map(len, rows[1:]), default=0))]
    found = {}
    for cells in sorted(columns, key=lambda cells: "/" in cells[-1], reverse=True):
        files = [keys.get(cell) for cell in (cells if keys.get(cells[0]) else cells[1:])]
        if files and (known := [file for file in files if file]) and len(known) == len(files):
            found[tuple(known)] = "/" in cells[-1]
    sure = [files for files, is_path in found.items() if is_path] or list(found)
    return list(sure[0]) if len(sure) == 1 else []


def _rows(path: Path) -> list[list[str]]:
    """The cells of each line, and the whole line as one."""
    try:
        lines = lines_of(text_of(path)[0])
    except (OSError, UnicodeDecodeError):
        return []
    sign = r"[\t,;|]" if lines and re.search(r"[\t,;|]", lines[0]) else r"\s+"
    cells = [re.split(sign, line.strip()) for line in lines]
    return [
        [cell.strip().strip('"').removeprefix("./") for cell in (line, *row)]
        for line, row in zip(lines, map(_forms, cells), strict=True)
    ]


def _forms(row: Sequence[str]) -> list[str]:
    return [one_form(cell).replace("\\", "/") for cell in row] if len(row) > 1 else []


def _cub_files(listing: Listing, base: Path) -> tuple[Path, Path] | None:
    """The two lists of CUB-200, if they are there."""
    for folder in _folders_around(listing, base):
        names, parts = (folder / name for name in CUB)
        if all(path.is_file() and not path.is_symlink() for path in (names, parts)):
            return names, parts
    return None


def _by_number(names: Path, parts: Path, keys: Keys) -> dict[str, list[str]]:
    """The files of CUB-200's lists by part; {} unless each number has a file and a part."""
    files = {row[1]: keys.get(row[2]) for row in _rows(names) if len(row) == 3}
    marks = {row[1]: row[2] for row in _rows(parts) if len(row) == 3}
    if not files or files.keys() != marks.keys() or None in files.values() or set(marks.values()) != {"0", "1"}:
        return {}
    return {
        name: [file for number, file in files.items() if file and marks[number] == mark]
        for name, mark in ((TRAIN, "1"), (TEST, "0"))
    }


def _selected(part: Part, name: str, files: set[str]) -> Part:
    """The images of a part that are among certain files."""
    rows = {row: file for row, file in enumerate(part.files) if isinstance(file, str) and file in files}
    return part._replace(
        name=name,
        files=list(rows.values()),
        labels=[part.labels[row] for row in rows],
        names=[part.names[row] for row in rows],
        locations=[part.locations[row] for row in rows],
    )
