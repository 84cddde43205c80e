"""Where the images and labels of a data set are, in each form in which people keep them. Nothing is decoded here."""

from pathlib import Path

from notbugs.data.names import MissingError, printable
from notbugs.data.sources.base import Located
from notbugs.data.sources.directory import locate_directory
from notbugs.data.sources.embedded import EMBEDDED
from notbugs.data.sources.files import locate_file
from notbugs.data.sources.forms import ENDINGS, FOR_FOLDERS, reject_options
from notbugs.data.sources.hub import locate_hub
from notbugs.data.sources.npz import locate_npz
from notbugs.data.sources.refused import ending
from notbugs.data.sources.shards import locate_tar
from notbugs.data.sources.tables import locate_parquet, locate_saved
from notbugs.data_config import ADDRESS, DataConfig
from notbugs.errors import InputError

__all__ = [
    "EMBEDDED",
    "Located",
    "beside_built_in",
    "locate",
    "locate_npz",
    "locate_parquet",
    "locate_saved",
    "locate_tar",
]


def beside_built_in(dataset: str) -> tuple[str, ...]:
    """A note if a file or folder is called like a built-in set, which comes first."""
    found = Path(dataset).exists()
    return (f"{dataset} is the built-in set: what is called so in this folder is read as ./{dataset}",) if found else ()


def locate(config: DataConfig) -> Located:
    """The images and labels of the data set that a configuration names (see `data.load`). Raises InputError."""
    dataset, path = config.dataset, Path(config.dataset)
    try:
        is_folder, is_file, is_there = path.is_dir(), path.is_file(), path.exists()
    except OSError as error:
        raise InputError(printable(dataset), "cannot be opened", error.strerror, "check the path") from None
    if dataset in EMBEDDED:
        names = (*FOR_FOLDERS, "train", "test", "label_column", "follow_links", "group")
        reject_options(config, names, "has no effect on a built-in data set")
        located = EMBEDDED[dataset]()
        return located._replace(notes=(*located.notes, *beside_built_in(dataset)))
    if is_folder:
        return locate_directory(path, config)
    if is_file:
        return locate_file(path, config)
    if is_there:
        raise InputError(printable(dataset), "must be a file or a folder", "a pipe, socket or device", "save it as a file")
    if ADDRESS.match(dataset):
        remedy = "mount the store, or copy its files here"
        raise InputError(printable(dataset), "must be on a disk: object stores and URLs are not read", remedy=remedy)
    if ending(path.name) in ENDINGS:
        raise MissingError(dataset, "does not exist", remedy="check the path")
    reject_options(config, (*FOR_FOLDERS, "follow_links"), "is for folders on this disk")
    return locate_hub("uoft-cs/cifar10" if dataset == "CIFAR10" else dataset, config)
