"""What `export` wrote, read again: whole, in the same order, with the true names of classes and files."""

import csv
from pathlib import Path

import torch

from notbugs.atomic import StrPath
from notbugs.data.card import read_classes
from notbugs.data.dataset import Dataset
from notbugs.data.images import load_images
from notbugs.data.names import UnreadableError, first_line, printable
from notbugs.data.sources import Located, locate_npz, locate_parquet, locate_saved, locate_tar
from notbugs.data_config import DataConfig
from notbugs.errors import InputError
from notbugs.runs.tables.row import original_cell


def load_part(folder: StrPath, form: str, split: str = "train") -> Dataset:
    """What `export` wrote, whole and in the same order: pixels, labels, classes and names. Raises InputError."""
    folder, config = Path(folder), DataConfig(str(folder), train=split)
    if form == "folder":
        located = _locate_exported(folder, split)
    elif form.startswith("npz"):
        located = locate_npz(folder / "data.npz", config)
    elif form == "parquet":
        files = sorted(folder.glob(f"{split}*.parquet"))
        located = locate_parquet(str(folder), files or [folder / f"{split}.parquet"], DataConfig(str(folder)))
    elif form == "webdataset":
        located = _locate_shards(folder, split, config)
    else:
        located = locate_saved(folder, config)
    locations = [f"{folder}/{location}" for location in located.locations]  # else as files of the data set that it was made from
    try:
        images = load_images(located.files, list(range(len(located.labels))), locations).images
    except UnreadableError as error:
        path, reason, *_ = error.args
        raise InputError(path, reason, remedy="put it back, or begin a new run") from None
    return Dataset(images, torch.tensor(located.labels, dtype=torch.int64), located.classes, tuple(located.names))


def _read_classes(folder: Path) -> tuple[str, ...]:
    import yaml

    try:
        return read_classes(folder)
    except (OSError, ValueError, KeyError, IndexError, TypeError, StopIteration, yaml.YAMLError) as error:
        raise InputError(f"{folder}/README.md", "must list the classes, as notbugs wrote it", first_line(error)) from None


def _locate_shards(folder: Path, split: str, config: DataConfig) -> Located:
    """The images of shards, with the class names of the card."""
    classes = _read_classes(folder)
    shards = sorted(folder.glob(f"{split}-*.tar"))
    if not shards:
        raise InputError(str(folder), f"has no shards {split}-*.tar")
    located, index = locate_tar(folder, shards, config), {name: number for number, name in enumerate(classes)}
    if unknown := {located.classes[label] for label in located.labels} - set(classes):
        raise InputError(str(folder), "must have the classes that its card lists", printable(sorted(unknown)[0]))
    return located._replace(labels=[index[located.classes[label]] for label in located.labels], classes=classes)


def _locate_exported(folder: Path, split: str) -> Located:
    """The files that a manifest lists, with the class names of the card."""
    classes = _read_classes(folder)
    try:
        with open(folder / "manifest.csv", newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        labels = [classes.index(original_cell(row["label"])) for row in rows]
        files = [original_cell(row["file"]) for row in rows]
        names = [original_cell(row["original_name"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise InputError(str(folder), "its manifest.csv cannot be read", first_line(error)) from None
    for file in files:
        if not file.startswith(f"{split}/") or ".." in file.split("/"):
            raise InputError(f"{folder}/manifest.csv", f"may only list files below {split}/", printable(file))
    return Located([folder / file for file in files], labels, names, files, len(rows), classes, "folder")
