"""Class folders as a data set: each folder is a class, or each holds the parts."""

from collections.abc import Sequence
from pathlib import Path

from notbugs.data.config import DataConfig
from notbugs.data.names import one_form, printable
from notbugs.data.sources.class_folders import class_folders, copy_inside, part_of_classes, same_files, same_folders
from notbugs.data.sources.labels import IMAGES, disagreement, parts_not_read
from notbugs.data.sources.layout import Found, Layout, by_tables, count_images, tables_around, what_may_label
from notbugs.data.sources.listing import Listing, below
from notbugs.data.sources.official import official_parts
from notbugs.data.sources.splits import TRAIN, WHOLE, is_neutral, listed, splits_among
from notbugs.errors import InputError


def as_classes(listing: Listing, base: Path, config: DataConfig, folders: Sequence[Path] | None = None) -> Layout:
    """Every folder is a class, unless there are none, or only one and a table with labels."""
    own = listing.another()
    part, note = class_folders(own, base, IMAGES, folders)
    tables = [] if config.all_classes else tables_around(listing, base)
    if len(part.classes) < 2 and tables:
        layout = by_tables(listing, base, config, tables)
        if layout.parts:
            return layout
    if not part.labels:
        return Layout({IMAGES: count_images(listing, base, "")})
    if len(part.classes) < 2:
        seen, remedy = what_may_label(listing, base, part.names)
        raise InputError(
            printable(str(base)), "needs at least two class folders", f"one, {printable(part.classes[0])}{seen}", remedy
        )
    if not config.all_classes and (same := same_folders(listing, listing.folders(base) if folders is None else folders)):
        rule = "has folders that all hold the same folders, and it is unclear which of them are the classes"
        remedy = "the inner folders: name one of the outer as DATASET; the outer folders: --all-classes"
        raise InputError(printable(str(base)), rule, f"{listed(part.classes)}, each with {listed(same)}", remedy)
    if not config.all_classes and (seen := copy_inside(listing, listing.folders(base) if folders is None else folders)):
        rule = "has a folder beside the classes that holds folders of the same names"
        raise InputError(printable(str(base)), rule, seen, "move it away; to read it as a class: --all-classes")
    if seen := disagreement(listing, base, part, tables, config):
        rule = "has folders that may be classes, and a table with other labels"
        raise InputError(printable(str(base)), rule, seen, "the table: --labels FILE; the folders: --all-classes")
    if all(map(is_neutral, part.classes)) and not config.all_classes and not _are_counted(part.classes):
        rule = "has folders whose names say nothing of classes"
        remedy = "labels of a table: --labels FILE; folders as classes: --all-classes"
        raise InputError(printable(str(base)), rule, listed(part.classes), remedy)
    if not config.all_classes and (seen := same_files(part)):
        rule = (
            "has a folder whose name says nothing of a class, and beside it folders with files of the same names, as masks have"
        )
        remedy = (
            "name the folder of the class folders as DATASET; labels of a table: --labels FILE; folders as classes: --all-classes"
        )
        raise InputError(printable(str(base)), rule, seen, remedy)
    if config.all_classes or config.test == WHOLE:
        return Layout({IMAGES: Found(part, own)}, (note,) if note else ())
    parts, lists = official_parts(listing, base, part)
    lists = lists or parts_not_read(listing, base, tables, config)
    found = {name: Found(inner, own) for name, inner in (parts or {IMAGES: part}).items()}
    return Layout(found, tuple(filter(None, (note, lists))))


def _are_counted(names: Sequence[str]) -> bool:
    """Whether names are the numbers from 0 or from 1 on, as those of digits."""
    numbers = sorted(int(name) for name in names if name.isascii() and name.isdecimal())
    return len(numbers) == len(names) and numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def divided_classes(listing: Listing, base: Path, folders: list[Path]) -> Layout | None:
    """CLASS/train and CLASS/test: the parts, None if the class folders are not divided.

    Raises
    ------
    InputError
        If only some of them are.
    """
    inside = {path: [entry.name for entry in listing.own_folders(path)] for path in folders}
    splits = {path: splits_among(names) for path, names in inside.items()}
    divided = [path for path in folders if TRAIN in splits[path].values() and len(set(splits[path].values())) > 1]
    if not divided:
        return None
    if undivided := [
        path for path in folders if path not in divided or len(splits[path]) < len(inside[path]) or listing.files(path)
    ]:
        rule = "has class folders that are divided into parts, and others that are not"
        seen = (
            f"{divided[0].name} is divided, {listed([path.name for path in undivided])} is not"
            if undivided != folders
            else listed(inside[divided[0]])
        )
        raise InputError(printable(str(base)), rule, seen, "divide all, or read what is in them as one class: --all-classes")
    names = dict.fromkeys(name for path in divided for name in inside[path])
    return Layout({name: _of_each_class(listing, folders, name) for name in names}, ("the parts lie inside the class folders",))


def _of_each_class(listing: Listing, folders: list[Path], name: str) -> Found:
    """The images in the folder of one part inside each class folder."""
    own = listing.another()
    by_class: dict[str, list[str]] = {}
    for path in folders:
        if (path / name).is_dir():
            by_class.setdefault(one_form(path.name), []).extend(own.walk(path / name))

    def image_name(path: str, label: str) -> str:
        return "/".join((label, *below(path, folders[0].parent).split("/")[2:]))

    return Found(part_of_classes(own, name, by_class, image_name), own)
