"""Image folders: `train/CLASS/file`, `CLASS/train/file`, only CLASS folders, or files with a table of labels."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from notbugs.data.config import DataConfig
from notbugs.data.names import one_form, printable
from notbugs.data.sources.base import Located, Part, join
from notbugs.data.sources.class_folders import class_folders, copy_inside, part_of_classes, same_folders
from notbugs.data.sources.label_table import find_tables, named_table
from notbugs.data.sources.labels import IMAGES, disagreement, labels_files_of_both, parts_by_table
from notbugs.data.sources.listing import Listing, below
from notbugs.data.sources.splits import (
    TRAIN,
    UNLABELED,
    WHOLE,
    choose_splits,
    is_annotation,
    is_neutral,
    listed,
    split_of,
    splits_among,
)
from notbugs.errors import InputError

DEEPEST = 8  # folders that may lie around the data set, one in the other
LABELED_BY = ", with --labels FILE where a table has their labels"


@dataclass(frozen=True)
class Found:
    """A part of an image folder: its labeled images, or the number of images without labels; and what is left out of it.

    by_table: whether a table has the labels.
    """

    part: Part | None
    listing: Listing
    unlabeled: int = 0
    notes: tuple[str, ...] = ()
    by_table: bool = False

    @property
    def labeled(self) -> int:
        """Number of labeled images."""
        return len(self.part.labels) if self.part else 0

    @property
    def paths(self) -> list[Path]:
        """The files of the labeled images."""
        return [path for path in self.part.files if isinstance(path, Path)] if self.part else []


@dataclass(frozen=True)
class Layout:
    """How an image folder is understood: its parts by name, and the decisions that its owner should know of."""

    parts: dict[str, Found]
    notes: tuple[str, ...] = ()


def locate_folder(config: DataConfig, root: Path) -> Located:
    """The files of an image folder, in the order of their names. Raises InputError."""
    listing = Listing(root, follow_links=config.follow_links)
    base = _unwrapped(listing, root)
    config = replace(config.data, train=_name_of_part(base, config.train), test=_name_of_part(base, config.test))
    layout = _layout(listing, base, config)
    if not any(found.labeled for found in layout.parts.values()):
        raise _nothing_labeled(listing, base, layout)
    _check_columns(config, layout)
    sizes = {name: found.labeled for name, found in layout.parts.items()}
    chosen = choose_splits(str(root), sizes, config.train, config.test)
    notes = [f"read from {listing.relative(base)}"] if base != root else []
    notes += [*layout.notes, *(_unused_note(name, layout.parts[name]) for name in chosen.unused)]
    for name in chosen.parts:
        listing.add(layout.parts[name].listing)
    for name in chosen.unused:
        found = layout.parts[name]
        for path in [base / name] if (base / name).is_dir() else found.paths:
            listing.leave_out(path, "is a part that is not used")
    if set(layout.parts) != {IMAGES}:
        used = {path for found in layout.parts.values() for path in found.paths}
        for path in listing.beside(base):
            if path not in used:
                listing.leave_out(path, "lies outside the parts")
    notes += [f"{len(listing.links):,} links lead out of the folder and are followed"] if listing.links else []
    train, test = (layout.parts[name].part if name else None for name in (chosen.train, chosen.test))
    located = join(str(root), train, test, "folder", notes)
    return located._replace(unreadable=tuple(listing.unreadable), left_out=tuple(listing.left_out))


def _unwrapped(listing: Listing, root: Path) -> Path:
    """The folder that holds the data set: root, or a folder in it that has nothing beside it, as archives often have."""
    base = root
    for _ in range(DEEPEST):
        folders = _labeled_folders(listing, base)
        if len(folders) != 1 or listing.files(base) or split_of(folders[0].name) or not listing.folders(folders[0]):
            return base
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


def _labeled_folders(listing: Listing, folder: Path) -> list[Path]:
    """The folders in a folder but for those that are left out: called unlabeled, annotations beside images, without any image."""
    folders = listing.folders(folder)
    beside_images = any(is_neutral(path.name) and not is_annotation(path.name) for path in folders)
    reasons = {path: _no_class(listing, path, beside_images=beside_images) for path in folders}
    kept = [path for path in folders if not reasons[path]]
    for path, reason in reasons.items() if kept else ():
        if reason:
            listing.leave_out(path, reason)
    return kept or folders


def _no_class(listing: Listing, folder: Path, *, beside_images: bool) -> str:
    """Why a folder is neither a class nor a part; "" if it may be."""
    if split_of(folder.name) == UNLABELED:
        return "is called unlabeled"
    if beside_images and is_annotation(folder.name):
        return "is called like annotations"
    return "" if listing.may_hold_images(folder) else "holds no images"


def _unwrapped_part(listing: Listing, folder: Path) -> Path:
    """The folder that holds the images of a part: itself, or seg_train/seg_train, Training/Images and the like."""
    inner = folder
    for _ in range(DEEPEST):
        folders = listing.folders(inner)
        if len(folders) != 1 or listing.files(inner) or not (is_neutral(folders[0].name) or split_of(folders[0].name)):
            return inner
        inner = folders[0]
    return inner


def _unused_note(name: str, found: Found) -> str:
    without = " without labels" if not found.labeled and split_of(name) else ""
    return f"not used: {printable(name)} ({found.labeled or found.unlabeled:,} images{without})"


def _nothing_labeled(listing: Listing, base: Path, layout: Layout) -> InputError:
    """The error for a folder in which no image has a label, with what was seen."""
    images = sum(found.unlabeled for found in layout.parts.values())
    tables = [path.name for path in _tables_around(listing, base)]
    seen = f"{images:,} images without labels" if images else "no images"
    seen += f", the tables {listed(tables)}" if tables else ""
    remedy = "put the images of each class into a folder of its own, train/CLASS/file.png, or name a table with --labels FILE"
    return InputError(printable(str(base)), "holds no class folders and no table with a label for each image", seen, remedy)


# ---- which folders are parts, and which are classes ----------------------------------------------------------------------------


def _layout(listing: Listing, base: Path, config: DataConfig) -> Layout:
    if config.labels:
        return _by_tables(listing, base, config, [named_table(listing.root, base, config.labels)])
    folders = _labeled_folders(listing, base)
    if asked := [name for name in (config.train, config.test) if name and name != WHOLE]:
        known = [name for name in splits_among([path.name for path in folders]) if name not in asked]
        others = [path.name for path in folders if path.name not in (*asked, *known)]
        parts = {name: _part(listing, base, name, config) for name in (*asked, *known)}
        return _layout_of({**parts, **{name: _count(listing, base, name) for name in others}})
    if config.all_classes or not folders:
        return _as_classes(listing, base, config)
    splits = splits_among([path.name for path in folders])
    if not splits:
        return _transposed(listing, base, folders) or _as_classes(listing, base, config, folders)
    return _as_parts(listing, base, folders, splits, config)


def _tables_around(listing: Listing, base: Path) -> list[Path]:
    """The tables beside the data, also those in the folders around it."""
    around = [folder for folder in (base, *base.parents) if folder.is_relative_to(listing.root)]
    return [path for folder in around for path in find_tables(listing, folder)]


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
        return _layout_of({**parts, **{name: _count(listing, base, name) for name in others}})
    if not trains and not others and any(found.labeled for found in parts.values()):
        return _layout_of(parts, "only a test part, no training images")
    if tables := _tables_around(listing, base):
        layout = _by_tables(listing, base, config, tables)
        if layout.parts:
            return layout
    if others and not holds_folders and not (trains and tests):
        note = f"{listed(splits)} is read as a class, like {listed(others)} (if it is a part of the data: --train, --test)"
        layout = _as_classes(listing, base, config, folders)
        return Layout(layout.parts, (*layout.notes, note))
    seen = ", ".join(_seen(name, parts.get(name) or _count(listing, base, name)) for name in [*splits, *others])
    rule = "has folders that are called like parts of a data set, and it is unclear whether they are parts or classes"
    raise InputError(printable(str(base)), rule, seen, f"parts: --train PART --test PART{LABELED_BY}; classes: --all-classes")


def _seen(name: str, found: Found) -> str:
    what = f"{found.labeled:,} images in class folders" if found.labeled else f"{found.unlabeled:,} images, no class folders"
    refused = found.listing.unreadable
    also = f"; {len(refused):,} unreadable, {printable(refused[0].location)} {refused[0].reason}" if refused else ""
    return f"{printable(name)} ({what}{also})"


def _part(listing: Listing, base: Path, name: str, config: DataConfig) -> Found:
    """The images in one folder with their labels: by class folders in it, or by a table in it or beside it."""
    folder = base / name
    if not folder.is_dir():
        inside = listed([path.name for path in listing.folders(base)])
        raise InputError("--train, --test", f"must be folders in {printable(str(base))}, which has {inside}", printable(name))
    own, outer = listing.another(), folder
    folder = _unwrapped_part(listing, folder)
    notes = [f"images are in {listing.relative(folder)}"] if folder != outer else []
    if own.folders(folder):
        part, note = class_folders(own, folder, name)
        return Found(part, own, notes=tuple(filter(None, (*notes, note))))
    beside = _tables_for(own, base, name, config)
    for table in [*find_tables(listing, folder), *(find_tables(listing, outer) if outer != folder else ()), *beside]:
        by_table, found = parts_by_table(own, folder, [table], config, part=name)
        if by_table:
            return Found(next(iter(by_table.values()))._replace(name=name), own, notes=(*notes, *found), by_table=True)
    return _count(listing, base, name)


def _tables_for(listing: Listing, base: Path, name: str, config: DataConfig) -> list[Path]:
    """The tables beside the parts that may label this one: by their name, or for any part.

    A table for any part whose names are those of files both in the training part and in this one is about the training part.
    """
    folders = splits_among([path.name for path in listing.folders(base)])
    training = [folder for folder, split in folders.items() if split == TRAIN and folder != name]
    tables = [path for path in _tables_around(listing, base) if split_of(path.stem) in ("", split_of(name))]
    if split_of(name) == TRAIN or not training:
        return tables
    return [
        path
        for path in tables
        if split_of(path.stem) or not labels_files_of_both(listing, (base / training[0], base / name), path, config)
    ]


def _count(listing: Listing, base: Path, name: str) -> Found:
    """The images in a folder, without labels."""
    own = listing.another()
    return Found(None, own, sum(1 for _ in own.walk(base / name)))


def _by_tables(listing: Listing, base: Path, config: DataConfig, tables: list[Path]) -> Layout:
    """The parts that tables label, and the folders called like parts that they do not."""
    own = listing.another()
    parts, notes = parts_by_table(own, base, tables, config)
    if config.labels and not parts:
        raise InputError(
            "--labels", "must name image files of the data set", config.labels, "choose the column with --file-column NAME"
        )
    return Layout({name: Found(part, own, by_table=True) for name, part in parts.items()}, tuple(notes))


# ---- class folders -------------------------------------------------------------------------------------------------------------


def _as_classes(listing: Listing, base: Path, config: DataConfig, folders: Sequence[Path] | None = None) -> Layout:
    """Every folder is a class, unless there are none, or only one and a table with labels."""
    own = listing.another()
    part, note = class_folders(own, base, IMAGES, folders)
    tables = [] if config.all_classes else _tables_around(listing, base)
    if len(part.classes) < 2 and tables:
        layout = _by_tables(listing, base, config, tables)
        if layout.parts:
            return layout
    if not part.labels:
        return Layout({IMAGES: _count(listing, base, "")})
    if len(part.classes) < 2:
        named = [path.name for path in tables]
        seen = f"one, {printable(part.classes[0])}" + (f"; no image is named in {listed(named)}" if named else "")
        remedy = "put the images of each class into a folder of its own, or name a table with --labels FILE"
        raise InputError(printable(str(base)), "needs at least two class folders", seen, remedy)
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
    if all(map(is_neutral, part.classes)) and not config.all_classes:
        rule = "has folders whose names say nothing of classes"
        remedy = "labels of a table: --labels FILE; folders as classes: --all-classes"
        raise InputError(printable(str(base)), rule, listed(part.classes), remedy)
    lists = [path.name for path in tables if split_of(path.stem)]
    said = [f"{listed(lists)} may say which images are test images; not read (--labels FILE, or make folders)"] if lists else []
    return Layout({IMAGES: Found(part, own)}, tuple(filter(None, (note, *said))))


def _transposed(listing: Listing, base: Path, folders: list[Path]) -> Layout | None:
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
    by_class: dict[str, list[Path]] = {}
    for path in folders:
        if (path / name).is_dir():
            by_class.setdefault(one_form(path.name), []).extend(own.walk(path / name))

    def image_name(path: Path, label: str) -> str:
        return "/".join((label, *path.relative_to(folders[0].parent).parts[2:]))

    return Found(part_of_classes(own, name, by_class, image_name), own)
