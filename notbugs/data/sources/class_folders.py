"""Class folders: the images of each."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from notbugs.data.names import check_class_name, one_form
from notbugs.data.sources.base import Part
from notbugs.data.sources.candidates import walk_images
from notbugs.data.sources.listing import Listing, below
from notbugs.data.sources.splits import is_annotation, is_neutral, listed


def class_folders(listing: Listing, folder: Path, name: str, folders: Sequence[Path] | None = None) -> tuple[Part, str]:
    """The images of one part: each folder in it is a class. Names that differ only in their Unicode form are one class."""
    by_class: dict[str, list[str]] = {}
    given = listing.folders(folder) if folders is None else folders
    for path in given:
        check_class_name(path.name)
        by_class.setdefault(one_form(path.name), []).extend(walk_images(listing, path))
    for path in listing.beside(folder):
        listing.refuse(path, "lies outside the class folders")
    note = one_class_note([path.name for path in given])
    part = part_of_classes(listing, name, by_class, lambda path, _: below(path, folder))
    return part, note or _folders_inside(part)


def one_class_note(names: Sequence[str]) -> str:
    """A note where names of class folders differ only in their Unicode form; "" if none do."""
    merged = [name for name, times in Counter(map(one_form, dict.fromkeys(names))).items() if times > 1]
    return f"folders whose names differ only in their Unicode form are one class: {listed(merged)}" if merged else ""


def _folders_inside(part: Part) -> str:
    """A note where folders inside the class folders may be classes or thumbnails: some images are in them, or all in many.

    "" where there are none, or only numbered ones.
    """
    deep = [name for name in part.names if name.count("/") > 1]
    inside = sorted({"/".join(name.split("/")[:2]) for name in deep})
    words = {re.sub(r"\d+", "", folder.partition("/")[2]) for folder in inside}  # tracks of a video have numbers
    words = {word for word in words if not is_neutral(word) and not is_annotation(word)}
    if not words or (len(deep) == len(part.names) and len(words) <= len(part.classes)):
        return ""
    count = f" ({len(deep):,} of {len(part.names):,} images)" if len(deep) < len(part.names) else ""
    return f"folders inside the class folders belong to the class: {listed(inside, 3)}{count}"


def part_of_classes(
    listing: Listing, name: str, by_class: Mapping[str, list[str]], image_name: Callable[[str, str], str]
) -> Part:
    """A part from the files of each class, in the order of the classes' names. Equal names of images get the whole path."""
    classes = tuple(sorted(by_class))
    files = [(path, number) for number, label in enumerate(classes) for path in by_class[label]]
    names = [image_name(path, classes[number]) for path, number in files]
    if len(set(names)) < len(names):
        names = [f"{classes[number]}/{listing.relative(path)}" for path, number in files]
    return Part(
        name,
        [path for path, _ in files],
        [number for _, number in files],
        classes,
        names,
        [listing.relative(path) for path, _ in files],
    )
