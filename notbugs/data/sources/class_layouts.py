"""Class folders as a data set: each folder is a class, or each holds the parts."""

import os
from collections.abc import Sequence
from pathlib import Path

from notbugs.data.names import one_form, printable
from notbugs.data.sources.ambiguous_classes import ambiguity_of_divided, ambiguity_of_names, find_ambiguity, odd_classes_note
from notbugs.data.sources.candidates import walk_images
from notbugs.data.sources.class_folders import class_folders, one_class_note, part_of_classes
from notbugs.data.sources.labels import IMAGES, disagreement, exclusions_not_read, labels_of_folders, parts_not_read
from notbugs.data.sources.layout import Found, Layout, by_tables, count_images, tables_around, what_may_label
from notbugs.data.sources.listing import Listing, below
from notbugs.data.sources.official import official_parts
from notbugs.data.sources.splits import WHOLE, listed, part_and_class, splits_among
from notbugs.data.sources.words import TRAIN
from notbugs.data.sources.written import is_written
from notbugs.data_config import DataConfig
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
    if seen := disagreement(listing, base, part, tables, config):
        rule = "has folders that may be classes, and a table with other labels"
        raise InputError(printable(str(base)), rule, seen, "the table: --labels FILE; the folders: --all-classes")
    if seen := labels_of_folders(tables, part.classes):
        rule = "has folders that may be classes, and a table with labels for folders"
        remedy = "its labels: write a row for each file into it, with --labels FILE; the folders: --all-classes"
        raise InputError(printable(str(base)), rule, seen, remedy)
    folders = listing.folders(base) if folders is None else folders
    trusted = config.all_classes or is_written(base.parent)
    if not trusted and (ambiguity := find_ambiguity(listing, folders, part)):
        remedy = f"{ambiguity.remedy}; {ambiguity.otherwise}: --all-classes{ambiguity.more}"
        raise InputError(printable(str(base)), ambiguity.rule, ambiguity.seen, remedy)
    note = "; ".join(filter(None, (note, "" if trusted else odd_classes_note(part.classes))))
    if config.all_classes or config.test == WHOLE:
        return Layout({IMAGES: Found(part, own)}, (note,) if note else ())
    parts, lists = official_parts(listing, base, part, " (--all-classes: all images as one)")
    lists = lists or parts_not_read(listing, base, tables, config)
    found = {name: Found(inner, own) for name, inner in (parts or {IMAGES: part}).items()}
    return Layout(found, tuple(filter(None, (note, lists, exclusions_not_read(listing, tables)))))


def crossed_classes(listing: Listing, base: Path, folders: Sequence[Path]) -> Layout | None:
    """train_cat, train_dog, test_cat, test_dog: the part and the class in one name. None unless all folders are called so."""
    parts: dict[str, dict[str, list[Path]]] = {}
    if tables_around(listing, base):
        return None  # they may have the labels
    for path in folders:
        named = part_and_class(path.name)
        if not named or listing.own_folders(path):
            return None
        parts.setdefault(named[0], {}).setdefault(one_form(named[1]), []).append(path)
    classes = {label for by_class in parts.values() for label in by_class}
    if len(parts) < 2 or len(classes) < 2 or not all(len(by_class) > 1 for by_class in parts.values()):
        return None
    if ambiguity := ambiguity_of_names(sorted(classes)):
        raise InputError(
            printable(str(base)), ambiguity.rule, ambiguity.seen, f"{ambiguity.remedy}; {ambiguity.otherwise}: --all-classes"
        )

    def of(name: str) -> Found:
        own = listing.another()
        by_class = {label: [file for path in paths for file in walk_images(own, path)] for label, paths in parts[name].items()}
        return Found(part_of_classes(own, name, by_class, lambda path, label: f"{label}/{os.path.basename(path)}"), own)

    names = listed([path.name for path in folders], 3)
    note = f"the names of folders say part and class: {names} (classes: {listed(sorted(classes), 3)})"
    merged = one_class_note([path.name for path in folders])
    return Layout({name: of(name) for name in parts}, (note, *([merged] if merged else [])))


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
    if ambiguity := ambiguity_of_divided(
        listing, [path / name for path in divided for name in inside[path]], [path.name for path in folders]
    ):
        remedy = f"{ambiguity.remedy}; {ambiguity.otherwise}: --all-classes"
        raise InputError(printable(str(base)), ambiguity.rule, ambiguity.seen, remedy)
    names = dict.fromkeys(name for path in divided for name in inside[path])
    merged = one_class_note([path.name for path in folders])
    notes = ("the parts lie inside the class folders", *([merged] if merged else []))
    return Layout({name: _of_each_class(listing, folders, name) for name in names}, notes)


def _of_each_class(listing: Listing, folders: list[Path], name: str) -> Found:
    """The images in the folder of one part inside each class folder."""
    own = listing.another()
    by_class: dict[str, list[str]] = {}
    for path in folders:
        if (path / name).is_dir():
            by_class.setdefault(one_form(path.name), []).extend(walk_images(own, path / name))

    def image_name(path: str, label: str) -> str:
        return "/".join((label, *below(path, folders[0].parent).split("/")[2:]))

    return Found(part_of_classes(own, name, by_class, image_name), own)
