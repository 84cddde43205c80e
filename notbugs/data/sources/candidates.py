"""Folders that may be classes or parts, and those that are left out because of their names or of what is in them."""

import os
from collections.abc import Iterator
from pathlib import Path

from notbugs.data.names import Unreadable
from notbugs.data.sources.listing import Listing, below
from notbugs.data.sources.splits import is_annotation, is_neutral, listed, split_of
from notbugs.data.sources.words import UNLABELED
from notbugs.data.sources.written import is_written

ANNOTATED, NAMED_UNLABELED, UNUSED = "is called like annotations", "is called unlabeled", "is a part that is not used"


def labeled_folders(listing: Listing, folder: Path) -> list[Path]:
    """The folders in a folder but for those that are left out: called unlabeled, annotations beside images, without any image."""
    folders = listing.folders(folder)
    beside_images = any(is_neutral(path.name) and not is_annotation(path.name) for path in folders)
    written = is_written(folder.parent)
    reasons = {path: _no_class(listing, path, beside_images=beside_images, written=written) for path in folders}
    kept = [path for path in folders if not reasons[path]]
    for path, reason in reasons.items() if kept else ():
        if reason:
            listing.leave_out(path, reason)
    return kept or folders


def walk_images(listing: Listing, folder: Path) -> Iterator[str]:
    """The files below a folder that may be images, by name, but for those in folders of masks beside one of images."""
    masks = list(_masks(listing, folder))
    for path in masks:
        listing.leave_out(path, ANNOTATED)
    for file in listing.walk(folder):
        if not any(below(file, mask) for mask in masks):
            yield file


def _masks(listing: Listing, folder: Path) -> Iterator[Path]:
    """The outermost folders at any depth that are called like annotations, and lie beside one whose name says images."""
    folders = [folder]
    while folders:  # not by calls in calls, of which Python allows 1,000: folders may lie deeper
        inside = listing.own_folders(folders.pop())
        beside_images = any(is_neutral(path.name) and not is_annotation(path.name) for path in inside)
        masks = [path for path in inside if beside_images and is_annotation(path.name)]
        yield from masks
        folders += [path for path in reversed(inside) if path not in masks]


def file_by_file(listing: Listing) -> tuple[Unreadable, ...]:
    """What a listing left out, with each file in place of a folder that is left out for its name, or as a part."""
    items = []
    for location, reason in listing.left_out:
        folder = listing.root / location
        whole = reason in (ANNOTATED, NAMED_UNLABELED, UNUSED) and folder.is_dir() and not folder.is_symlink()
        files = sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names) if whole else []
        items += [Unreadable(listing.relative(path), reason) for path in files] or [Unreadable(location, reason)]
    return tuple(items)


def left_out_note(listing: Listing, base: Path) -> list[str]:
    """Notes on folders of images beside the classes that are left out because of their names."""
    notes = []
    for reason, called in ((ANNOTATED, "called like annotations"), (NAMED_UNLABELED, "called unlabeled")):
        left_out = {item.location for item in listing.left_out if item.reason == reason}
        names = [path.name for path in listing.own_folders(base) if listing.relative(path) in left_out]
        counts = {name: sum(1 for _ in listing.another().walk(base / name)) for name in names}
        found = [name for name in names if counts[name]]
        notes += [f"{called}, and left out: {listed(found)} ({sum(counts.values()):,} images)"] if found else []
    return notes


def _no_class(listing: Listing, folder: Path, *, beside_images: bool, written: bool) -> str:
    """Why a folder is neither a class nor a part; "" if it may be."""
    if split_of(folder.name) == UNLABELED and not written:
        return NAMED_UNLABELED
    if beside_images and not written and is_annotation(folder.name):
        return ANNOTATED
    return "" if listing.may_hold_images(folder) else "holds no images"
