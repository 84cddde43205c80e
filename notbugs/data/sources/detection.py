"""Data sets for the detection of objects, which have several labels for an image: YOLO, Pascal VOC and COCO, by their files."""

import re
from collections.abc import Iterator
from pathlib import Path

from notbugs.data.names import printable
from notbugs.data.sources.listing import Listing
from notbugs.errors import InputError

# Class; center, width, height in parts of the image. Atomic groups: else a line that is none takes longer with each number
BOX = re.compile(r"\d{1,4}(?> +(?:\d\.?\d*e-\d+|[01]?\.\d+|[01]\.?)){4,}")
SAMPLE = 20  # files of a kind that are looked at
BEGIN = 2**16  # bytes of each
DEEPEST = 3
REMEDY = "cut the objects out and save each as CLASS/file.png, or give each image one label in a table: --labels FILE"


def detection_error(listing: Listing, root: Path) -> InputError | None:
    """The error for a folder whose images have boxes of objects instead of labels; None for another one."""
    paths = list(_descriptions(listing, root, DEEPEST))
    for suffix, holds_boxes, form in ((".txt", _yolo, "YOLO"), (".xml", _voc, "Pascal VOC"), (".json", _coco, "COCO")):
        found = [path for path in paths if path.suffix.lower() == suffix][:SAMPLE]
        if boxes := [path for path in found if holds_boxes(path.name.casefold(), _begin(path))]:
            rule = f"has boxes of objects ({form}), and one label for each image is needed"
            return InputError(printable(str(root)), rule, printable(listing.relative(boxes[0])), REMEDY)
    return None


def _descriptions(listing: Listing, folder: Path, deepest: int) -> Iterator[Path]:
    """Files that may describe images, a few of each folder."""
    for suffix in (".txt", ".xml", ".json"):
        yield from list(listing.beside(folder, among=(suffix,)))[:SAMPLE]
    for path in listing.own_folders(folder) if deepest else ():
        yield from _descriptions(listing, path, deepest - 1)


def _begin(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(BEGIN).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""


def _yolo(_: str, text: str) -> bool:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return bool(lines) and all(BOX.fullmatch(line) for line in lines[:-1] or lines)


def _voc(_: str, text: str) -> bool:
    return "<annotation" in text and "<object>" in text


def _coco(name: str, text: str) -> bool:
    """The boxes come after all images: in a large file only its name says that they do."""
    boxes = any(f'"{field}"' in text for field in ("bbox", "segmentation"))
    return '"images"' in text and (boxes or name.startswith("instances_") or ".coco." in name)
