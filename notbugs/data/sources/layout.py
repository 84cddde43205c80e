"""How an image folder is understood: its parts, and the decisions that its owner should know of."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from notbugs.data.names import printable
from notbugs.data.sources.base import Part
from notbugs.data.sources.label_table import SAVE_TABLE, find_tables, read_table, why_no_table
from notbugs.data.sources.labels import parts_by_table
from notbugs.data.sources.listing import Listing
from notbugs.data.sources.name_labels import suggestion
from notbugs.data.sources.splits import is_annotation, listed
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

NOT_TABLES = (".xml", ".mat", ".xlsx", ".xls", ".ods", ".pkl", ".npy", ".npz")  # may hold labels; not read


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
    def paths(self) -> list[str]:
        """The files of the labeled images."""
        return [path for path in self.part.files if isinstance(path, str)] if self.part else []


@dataclass(frozen=True)
class Layout:
    """How an image folder is understood: its parts by name, and the decisions that its owner should know of."""

    parts: dict[str, Found]
    notes: tuple[str, ...] = ()


def tables_around(listing: Listing, base: Path) -> list[Path]:
    """The tables beside the data, also those in the folders around it."""
    around = [folder for folder in (base, *base.parents) if folder.is_relative_to(listing.root)]
    return [path for folder in around for path in find_tables(listing, folder)]


def what_may_label(listing: Listing, base: Path, images: Sequence[str]) -> tuple[str, str]:
    """What lies beside images without labels and may have them, and what to do, for an error. images: their paths."""
    around = [folder for folder in (base, *base.parents) if folder.is_relative_to(listing.root)]
    inner = [path for folder in around for path in listing.own_folders(folder) if is_annotation(path.name)]
    stems = {stem for path in images for stem in (path, os.path.splitext(path)[0])}
    stems |= {os.path.basename(stem) for stem in stems}
    paths = [path for folder in (*around, *inner) for path in find_tables(listing, folder)]
    tables, reasons = [listing.relative(path) for path in paths], [why_no_table(path) for path in paths]
    others = [listing.relative(path) for folder in (*around, *inner) for path in listing.beside(folder, among=NOT_TABLES)]
    seen = f", the tables {listed(tables)}, which label none of them" if tables else ""
    seen += f" ({reason})" if (reason := next(filter(None, reasons), "")) else ""
    seen += f", {listed(others)}, of a form that is not read" if others else ""
    if own := [name for name in (*tables, *others) if _is_of_one_image(name, stems)]:
        return (
            f", {listed(own, 3)} beside images of their names",
            "save all labels as one labels.csv with the columns file and label",
        )
    remedy = suggestion([path.rpartition("/")[2] for path in images])
    if not remedy and all(reasons) and (others or tables):
        remedy = SAVE_TABLE
    folders = "put the images of each class into a folder of its own, train/CLASS/file.png, or name a table with --labels FILE"
    return seen, remedy or folders


def _is_of_one_image(name: str, stems: Collection[str]) -> bool:
    """Whether a file is about one image: a/0.json beside a/0.jpg, ann/0.jpg.json for img/0.jpg. stems: paths and names."""
    folder, _, file = os.path.splitext(name)[0].rpartition("/")
    return (f"{folder}/{file}" if folder else file) in stems or (is_annotation(os.path.basename(folder)) and file in stems)


def count_images(listing: Listing, base: Path, name: str) -> Found:
    """The images in a folder, without labels."""
    own = listing.another()
    return Found(None, own, sum(1 for _ in own.walk(base / name)))


def by_tables(listing: Listing, base: Path, config: DataConfig, tables: list[Path]) -> Layout:
    """The parts that tables label, and the folders called like parts that they do not."""
    own = listing.another()
    parts, notes = parts_by_table(own, base, tables, config)
    if config.labels and not parts:
        raise _labels_nothing(config.labels, tables[0], own)
    return Layout({name: Found(part, own, by_table=True) for name, part in parts.items()}, tuple(notes))


def _labels_nothing(name: str, path: Path, listing: Listing) -> InputError:
    """The error for a table that --labels names and that has no label for any image, with what it has."""
    rule, reason = "must name image files of the data set, and their labels", why_no_table(path)
    columns = read_table(path).columns
    if reason or not columns:
        return InputError("--labels", rule, f"{printable(name)}, {reason or 'an empty file'}", SAVE_TABLE)
    refused = "".join(f", whose row {item.location} {item.reason}" for item in listing.unreadable[:1])
    remedy = "choose the columns with --file-column NAME and --label-column NAME"
    return InputError("--labels", rule, f"{printable(name)} with the columns {listed(columns)}{refused}", remedy)
