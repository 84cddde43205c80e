"""Image folders: `train/CLASS/file`, `CLASS/train/file`, only CLASS folders, or files with a table of labels."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from notbugs.data.names import IMAGE_SUFFIXES, printable
from notbugs.data.sources.ambiguous_classes import ambiguity_in_part, odd_classes_note
from notbugs.data.sources.base import Located, join
from notbugs.data.sources.candidates import UNUSED, file_by_file, labeled_folders, left_out_note
from notbugs.data.sources.class_folders import class_folders
from notbugs.data.sources.class_layouts import as_classes, crossed_classes, divided_classes
from notbugs.data.sources.detection import detection_error
from notbugs.data.sources.file_index import FileIndex
from notbugs.data.sources.label_columns import fitting_tables, folder_of
from notbugs.data.sources.label_table import find_tables, named_tables
from notbugs.data.sources.labels import IMAGES, labels_files_of_both, parts_by_table
from notbugs.data.sources.layout import Found, Layout, by_tables, count_images, tables_around, what_may_label
from notbugs.data.sources.listing import BROKEN_NAME, Listing, below
from notbugs.data.sources.name_files import ENDINGS as NAME_FILES
from notbugs.data.sources.name_files import with_names_beside
from notbugs.data.sources.name_labels import part_by_names, suggestion
from notbugs.data.sources.official import official_parts
from notbugs.data.sources.refused import NOT_UNPACKED, ending, what_is_there
from notbugs.data.sources.splits import WHOLE, choose_splits, is_neutral, listed, split_of, splits_among, to_test_on
from notbugs.data.sources.words import TRAIN
from notbugs.data.sources.written import is_written, with_written_names
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

DEEPEST = 8  # folders that may lie around the data set, one in the other
UNPACK = "if it holds images of the data set: unpack it, or of .dvc run `dvc pull`"
LABELED_BY = ", with --labels FILE where a table has their labels"


def locate_folder(config: DataConfig, root: Path) -> Located:
    """The files of an image folder, in the order of their names. Raises InputError."""
    listing = Listing(root, follow_links=config.follow_links)
    base = _unwrapped(listing, root)
    config = replace(config.data, train=_name_of_part(base, config.train), test=_name_of_part(base, config.test))
    try:
        layout = _layout(listing, base, config)
        if not any(found.labeled for found in layout.parts.values()):
            raise _nothing_labeled(listing, base)
    except InputError as error:
        asked = config.labels or config.label_regex or config.all_classes or config.train or config.test
        raise (None if asked else detection_error(listing.another(), root)) or error from None
    _check_columns(config, layout)
    sizes = {name: found.labeled for name, found in layout.parts.items()}
    chosen = choose_splits(str(root), sizes, config.train, config.test)
    notes = [f"read from {listing.relative(base)}"] if base != root else []
    notes += [f"{note} (to read it as a class: --all-classes)" for note in left_out_note(listing, base)]
    notes += [*layout.notes, *(_unused_note(name, layout.parts[name]) for name in chosen.unused)]
    for name in chosen.parts:
        listing.add(layout.parts[name].listing)
    for name in chosen.unused:
        found = layout.parts[name]
        for path in [base / name] if name != IMAGES and (base / name).is_dir() else found.paths:
            listing.leave_out(path, UNUSED)
    if set(layout.parts) != {IMAGES}:
        used = {path for found in layout.parts.values() for path in found.paths}
        for path in listing.beside(base):
            if str(path) not in used:
                listing.leave_out(path, "lies outside the parts")
    notes += [f"{len(listing.links):,} links lead out of the folder and are followed"] if listing.links else []
    train, test = (layout.parts[name].part if name else None for name in (chosen.train, chosen.test))
    located = with_written_names(join(str(root), train, test, "folder", notes), base)
    left_out = file_by_file(listing)
    packed = [item.location for item in left_out if ending(item.location) in NOT_UNPACKED]
    unpack = [f"not read, as what is in it is not here: {listed(packed, 3)} ({UNPACK})"] if packed else []
    located = located._replace(unreadable=tuple(listing.unreadable), left_out=left_out, notes=(*located.notes, *unpack))
    return with_names_beside(located, root, listing.beside(base, among=NAME_FILES))


def _unwrapped(listing: Listing, root: Path) -> Path:
    """The folder that holds the data set: root, or a folder in it that has nothing beside it, as archives often have."""
    base = root
    for _ in range(DEEPEST):
        folders = labeled_folders(listing.another(), base)  # what is left out of the base is for the layout to decide
        if len(folders) != 1 or listing.files(base) or split_of(folders[0].name):
            return base
        if not listing.folders(folders[0]) and (find_tables(listing, base) or not find_tables(listing, folders[0])):
            return base
        labeled_folders(listing, base)  # adds what is left out beside it
        for path in listing.beside(base):
            listing.leave_out(path, "lies outside the data set")
        base = folders[0]
    return base


def _check_columns(config: DataConfig, layout: Layout) -> None:
    """Raises InputError for columns of a table where none is read."""
    if any(found.by_table for found in layout.parts.values()):
        return
    for option, value in (("--label-column", config.label_column), ("--file-column", config.file_column)):
        if value:
            rule = "is for a table of labels, and here they are those of the class folders"
            raise InputError(option, rule, value, "name the table with --labels FILE")


def _name_of_part(base: Path, asked: str | None) -> str | None:
    """The folder of --train or --test as the listing calls it: train for ./train/ and for its absolute path."""
    if asked is None or asked == WHOLE:
        return asked
    return below(Path(os.path.normpath(base / asked)), Path(os.path.normpath(base))) or os.path.normpath(asked)


def _unwrapped_part(listing: Listing, folder: Path) -> Path:
    """The folder that holds the images of a part: itself, or asl_test/asl_test, Training/Images and the like."""
    inner = folder
    for _ in range(DEEPEST):
        folders = labeled_folders(listing, inner)
        names = [path.name for path in folders]
        if (
            len(folders) != 1
            or listing.files(inner)
            or not (is_neutral(names[0]) or split_of(names[0]) or names[0] == inner.name)
        ):
            return inner
        inner = folders[0]
    return inner


def _unused_note(name: str, found: Found) -> str:
    without = " without labels" if not found.labeled and split_of(name) else ""
    return f"not used: {printable(name)} ({found.labeled or found.unlabeled:,} images{without}){to_test_on(name, found.labeled)}"


def _nothing_labeled(listing: Listing, base: Path) -> InputError:
    """The error for a folder in which no image has a label, with what was seen."""
    seen_here = listing.another()
    images = [listing.relative(path) for path in seen_here.walk(base)]
    if refused := [] if images else seen_here.unreadable:
        got = f"{len(refused):,}; the first, {printable(refused[0].location)}, {refused[0].reason}"
        way_out = "rename them" if refused[0].reason == BROKEN_NAME else "put the images themselves there"
        return InputError(printable(str(base)), "holds only images that cannot be used", got, way_out)
    what, remedy = what_may_label(listing, base, images)
    seen = f"{len(images):,} image{'s' * (len(images) > 1)} without labels" if images else "no images"
    if not any(path.lower().endswith(IMAGE_SUFFIXES) for path in images):
        there, way_out = what_is_there(base)
        seen, what, remedy = f"no images, {there}" if there else seen, "" if there else what, way_out or remedy
    rule = "holds no class folders and no table with a label for each image"
    return InputError(printable(str(base)), rule, seen + what, remedy)


# ---- which folders are parts, and which are classes ----------------------------------------------------------------------------


def _layout(listing: Listing, base: Path, config: DataConfig) -> Layout:
    if config.label_regex:
        return _by_names(listing, base, config)
    if config.labels:
        return by_tables(listing, base, config, named_tables(listing.root, base, config.labels))
    if config.all_classes:
        return as_classes(listing, base, config)
    folders = labeled_folders(listing, base)
    if asked := [name for name in (config.train, config.test) if name and name != WHOLE]:
        known = [name for name in splits_among([path.name for path in folders]) if name not in asked]
        others = [path.name for path in folders if path.name not in (*asked, *known)]
        parts = {name: _part(listing, base, name, config) for name in (*asked, *known)}
        return _layout_of({**parts, **{name: count_images(listing, base, name) for name in others}})
    if not folders:
        return as_classes(listing, base, config)
    splits = splits_among([path.name for path in folders])
    if splits and (layout := crossed_classes(listing, base, folders)):
        return layout
    if not splits:
        return divided_classes(listing, base, folders) or as_classes(listing, base, config, folders)
    return _as_parts(listing, base, folders, splits, config)


def _by_names(listing: Listing, base: Path, config: DataConfig) -> Layout:
    """The parts of images that have their labels in their names; folders called like parts are parts."""
    asked = [name for name in (config.train, config.test) if name and name != WHOLE]
    known = splits_among([path.name for path in listing.folders(base)])
    parts, forms = {}, []
    for name in dict.fromkeys((*asked, *known)) or (IMAGES,):
        own = listing.another()
        part, images, form = part_by_names(own, base if name == IMAGES else _folder_of_part(listing, base, name), name, config)
        parts[name] = Found(part, own, images)
        forms += [form] if form else []
    note = f"labels from the names of files: {printable(str(config.label_regex))}"
    whole = parts[IMAGES].part if parts.keys() == {IMAGES} and config.test != WHOLE else None
    official, lists = official_parts(listing, base, whole, "") if whole else ({}, "")
    masks = left_out_note(parts[IMAGES].listing, base) if whole else []
    if official:
        parts = {name: Found(part, parts[IMAGES].listing) for name, part in official.items()}
    return Layout(parts, (note, *forms, *masks, *([lists] if lists else [])))


def _folder_of_part(listing: Listing, base: Path, name: str) -> Path:
    """The folder of a part. Raises InputError if it is not there."""
    if (base / name).is_dir():
        return base / name
    inside = listed([path.name for path in listing.folders(base)])
    raise InputError("--train, --test", f"must be folders in {printable(str(base))}, which has {inside}", printable(name))


def _layout_of(parts: Mapping[str, Found], *notes: str) -> Layout:
    return Layout(dict(parts), (*notes, *(f"{printable(name)}: {note}" for name, found in parts.items() for note in found.notes)))


def _as_parts(listing: Listing, base: Path, folders: list[Path], splits: Mapping[str, str], config: DataConfig) -> Layout:
    """Folders of which some are called like parts: they are, or they are classes of this name, or it is unclear."""
    holds_folders = {path.name for path in folders if listing.folders(path)}
    trains = [name for name, split in splits.items() if split == TRAIN]
    others = [path.name for path in folders if path.name not in splits and (path.name in holds_folders or listing.files(path))]
    parts = {name: _part(listing, base, name, config) for name in splits}
    tests = [name for name in splits if name not in trains]
    if trains and any(parts[name].labeled for name in trains) and (tests or not others):
        return _layout_of({**parts, **{name: count_images(listing, base, name) for name in others}})
    if not trains and not others and any(found.labeled for found in parts.values()):
        return _layout_of(parts, "only a test part, no training images")
    if tables := tables_around(listing, base):
        layout = by_tables(listing, base, config, tables)
        if layout.parts:
            return layout
    if others and not holds_folders and not (trains and tests):
        note = f"{listed(splits)} is read as a class, like {listed(others)} (if it is a part of the data: --train, --test)"
        layout = as_classes(listing, base, config, folders)
        return Layout(layout.parts, (*layout.notes, note))
    seen = ", ".join(_seen(name, parts.get(name) or _part(listing, base, name, config)) for name in [*splits, *others])
    rule = "has folders that are called like parts of a data set, and it is unclear whether they are parts or classes"
    remedy = f"parts: --train PART --test PART{LABELED_BY}; classes: --all-classes"
    training = [
        os.path.basename(path) for name in trains if not parts[name].labeled for path in listing.another().walk(base / name)
    ]
    raise InputError(printable(str(base)), rule, seen, "; ".join(filter(None, (suggestion(training), remedy))))


def _seen(name: str, found: Found) -> str:
    what = f"{found.labeled:,} images in class folders" if found.labeled else f"{found.unlabeled:,} images, no class folders"
    refused = found.listing.unreadable
    also = f"; {len(refused):,} unreadable, {printable(refused[0].location)} {refused[0].reason}" if refused else ""
    return f"{printable(name)} ({what}{also})"


def _part(listing: Listing, base: Path, name: str, config: DataConfig) -> Found:
    """The images in one folder with their labels: by class folders in it, or by a table in it or beside it."""
    own, outer = listing.another(), _folder_of_part(listing, base, name)
    folder = _unwrapped_part(own, outer)
    notes = [f"images are in {listing.relative(folder)}"] if folder != outer else []
    if folders := labeled_folders(own, folder):
        notes += left_out_note(own, folder)
        part, note = class_folders(own, folder, name, folders)
        trusted = is_written(outer.parent)
        if not trusted and (ambiguity := ambiguity_in_part(own, folder, folders, part)):
            raise InputError(f"{printable(str(base))}, part {printable(name)}", ambiguity.rule, ambiguity.seen, ambiguity.remedy)
        notes += [note, "" if trusted else odd_classes_note(part.classes)]
        return Found(part, own, notes=tuple(filter(None, notes)))
    beside = _tables_for(own, base, name, config)
    for table in [*find_tables(listing, folder), *(find_tables(listing, outer) if outer != folder else ()), *beside]:
        by_table, found = parts_by_table(own, folder, [table], config, part=name)
        if by_table:
            found += _labels_elsewhere(own, base, name, table, config)
            return Found(next(iter(by_table.values()))._replace(name=name), own, notes=(*notes, *found), by_table=True)
    return count_images(listing, base, name)


def _labels_elsewhere(listing: Listing, base: Path, name: str, read: Path, config: DataConfig) -> list[str]:
    """Notes on tables of other parts that have labels for images of this one which the table that is read has not."""
    unlabeled = {listing.root / place for place, reason in listing.left_out if reason == f"has no label in {read.name}"}
    others = [path for path in tables_around(listing, base) if split_of(path.stem) not in ("", split_of(name))]
    if not unlabeled or not others:
        return []
    index, notes = FileIndex.of(listing.another(), base), []
    for path in others:
        try:
            fitting = list(fitting_tables([path], index, config))
        except InputError:  # its columns are unclear, and it is not read
            continue
        for table, columns in fitting:
            cells = {row[columns.file] for row in table.rows}
            named = [index.find(cell, folder_of(table, index), split_of(path.stem)) for cell in cells]
            if count := sum(len(files) == 1 and files[0] in unlabeled for files in named):
                what = f"{printable(path.name)} has labels for {count:,} images in {printable(name)}, which are left out"
                notes.append(f"{what}: join it with {printable(read.name)} in one table with a column split")
    return notes


def _tables_for(listing: Listing, base: Path, name: str, config: DataConfig) -> list[Path]:
    """The tables beside the parts that may label this one: by their name, or for any part.

    A table for any part whose names are those of files both in the training part and in this one is about the training part.
    """
    folders = splits_among([path.name for path in listing.folders(base)])
    training = [folder for folder, split in folders.items() if split == TRAIN and folder != name]
    tables = [path for path in tables_around(listing, base) if split_of(path.stem) in ("", split_of(name))]
    tables.sort(key=lambda path: not split_of(path.stem))  # Test.csv says more of Test than Meta.csv
    if split_of(name) == TRAIN or not training:
        return tables
    return [
        path
        for path in tables
        if split_of(path.stem) or not labels_files_of_both(listing, (base / training[0], base / name), path, config)
    ]
