"""Image folders: `train/CLASS/file` with `test/CLASS/file`, or only CLASS folders."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from notbugs.data.names import Unreadable, check_class_name, is_printable, printable
from notbugs.data.sources.base import TEST_SPLITS, Located
from notbugs.errors import InputError

CLUTTER = ("thumbs.db", "desktop.ini")
BESIDE = (".md", ".csv", ".json", ".jsonl", ".txt", ".yaml", ".yml", "")  # may lie next to the class folders


class Split(NamedTuple):
    """The training or the test part of an image folder: its class folders, files with their classes, and what is left out."""

    folder: str
    classes: tuple[str, ...]
    files: list[tuple[Path, str]]
    unreadable: list[Unreadable]


def locate_folder(root: Path) -> Located:
    """The files of an image folder, in the order of their names. Raises InputError."""
    folders = {entry.name for entry in _visible(root) if entry.is_dir()}
    # A data set of vehicles may have a class called "train": only a folder that itself holds folders is a part.
    if not ("train" in folders and any(entry.is_dir() for entry in _visible(root / "train"))):
        return _located(root, [_list_split(root, "")])
    test = [name for name in TEST_SPLITS if name in folders][:1]
    splits = [_list_split(root, name) for name in ("train", *test)]
    unused = sorted(folders - {"train", *test})
    return _located(root, splits, f"not used: {', '.join(printable(name) for name in unused)}" if unused else "")


def _located(root: Path, splits: list[Split], note: str = "") -> Located:
    classes = splits[0].classes
    _check_splits(root, splits)
    files = [path for split in splits for path, _ in split.files]
    return Located(
        files,
        [classes.index(name) for split in splits for _, name in split.files],
        [path.relative_to(root / split.folder).as_posix() for split in splits for path, _ in split.files],
        [path.relative_to(root).as_posix() for path in files],
        len(splits[0].files),
        classes,
        "folder",
        note,
        tuple(unreadable for split in splits for unreadable in split.unreadable),
    )


def _check_splits(root: Path, splits: list[Split]) -> None:
    """Raises InputError for a part without class folders, and for a class that only the test part has."""
    classes = splits[0].classes
    if not classes:
        remedy = "put the images of each class into a folder of its own: train/CLASS/file.png"
        raise InputError(str(root), "holds no class folders", remedy=remedy)
    for split in splits[1:]:
        if unknown := [name for name in split.classes if name not in classes]:
            location = f"{split.folder}/{printable(unknown[0])}"
            raise InputError(location, "is a class that the training part does not have", remedy="rename or remove the folder")
        if not split.classes:
            raise InputError(f"{root}/{split.folder}", "holds no class folders", remedy="move or remove it")


def _list_split(root: Path, folder: str) -> Split:
    if folder:
        _check_no_link(root / folder)
    inside = root.resolve()
    classes: list[str] = []
    files: list[tuple[Path, str]] = []
    unreadable: list[Unreadable] = []
    for entry in _visible(root / folder):
        if entry.is_dir():
            _check_no_link(Path(entry.path))
            check_class_name(entry.name)
            classes.append(entry.name)
            for path, reason in _walk(Path(entry.path), inside):
                if reason:
                    unreadable.append(Unreadable(path.relative_to(root).as_posix(), reason))
                else:
                    files.append((path, entry.name))
        elif Path(entry.name).suffix.lower() not in BESIDE:
            unreadable.append(Unreadable(f"{folder}/{entry.name}".lstrip("/"), "lies outside the class folders"))
    return Split(folder, tuple(classes), files, unreadable)


def _walk(folder: Path, root: Path) -> Iterator[tuple[Path, str]]:
    """All files below a class folder, sorted, each with the reason why it must not be opened, or "". root: resolved."""
    for entry in _visible(folder):
        path = Path(entry.path)
        if not is_printable(entry.name):
            yield path, "has control characters or bytes that are not UTF-8 in its name"
        elif entry.is_symlink() and not path.resolve().is_relative_to(root):
            yield path, "is a link that leaves the folder"
        elif entry.is_symlink() and entry.is_dir():
            yield path, "is a linked folder"  # it may lead back up and never end
        elif entry.is_dir():
            yield from _walk(path, root)
        else:
            yield path, "" if entry.is_file() else "is not a file"  # opening a pipe would wait forever


def _check_no_link(folder: Path) -> None:
    if folder.is_symlink():
        raise InputError(printable(str(folder)), "is a linked folder", remedy="put the folder itself there")


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name, without hidden ones and clutter. Raises InputError if it cannot be opened."""
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in CLUTTER]
    except OSError as error:
        raise InputError(printable(str(folder)), "cannot be opened", error.strerror) from None
    return sorted(kept, key=lambda entry: entry.name)
