"""The forms of files: what reads each, and what constructed sets are written as."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from notbugs.data.names import printable
from notbugs.data.sources.arrays import EXPECTED, Reader, locate_array_files
from notbugs.data.sources.base import Located
from notbugs.data.sources.hdf5 import read_hdf5
from notbugs.data.sources.npz import read_npy, read_npz
from notbugs.data.sources.tar import ENDINGS as TAR
from notbugs.data.sources.tensors import read_safetensors, read_torch
from notbugs.data_config import DATA_FIELDS, DataConfig
from notbugs.errors import InputError

ARRAY_FILES: Mapping[str, Reader] = {
    ".npz": read_npz, ".npy": read_npy, ".h5": read_hdf5, ".hdf5": read_hdf5, ".pt": read_torch, ".pth": read_torch,
    ".safetensors": read_safetensors,
}  # fmt: skip
ENDINGS = (*ARRAY_FILES, *TAR, ".parquet", ".csv", ".zip")
FOR_FOLDERS = ("labels", "file_column", "label_regex", "all_classes")  # fields that are for folders of image files
FOLDERS_ALONE = "is for folders of image files"
WRITTEN_AS = {
    "npz": "one .npz", "npz-channels-first": "one .npz, channels first", "parquet": "parquet", "webdataset": "WebDataset shards",
    "folder": "a folder of PNG",
}  # fmt: skip


def reject_options(config: DataConfig, names: Iterable[str], rule: str) -> None:
    """Raises InputError for the first of these fields that is set, and would have no effect.

    Examples
    --------
    >>> reject_options(DataConfig("digits", labels="labels.csv"), FOR_FOLDERS, FOLDERS_ALONE)
    Traceback (most recent call last):
    notbugs.errors.InputError: --labels: is for folders of image files, got digits; leave it out
    """
    for name, field in DATA_FIELDS.items():
        if name in names and getattr(config, name) != field.default:
            raise InputError("--" + name.replace("_", "-"), rule, printable(config.dataset), "leave it out")


def locate_array_form(reader: Reader, source: Path, paths: Sequence[Path], config: DataConfig) -> Located:
    """The images of files of arrays of one form. Raises InputError."""
    if config.label_column:
        raise InputError("--label-column", "is for tables", printable(str(source)), EXPECTED)
    return locate_array_files(source, paths, reader, config)


def with_output_note(located: Located) -> Located:
    """With a note on the form in which constructed sets are written, where it is not that of the input."""
    note = f"constructed sets are written as {WRITTEN_AS[located.form]}"
    return located._replace(notes=tuple(dict.fromkeys((*located.notes, note))))


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder. Raises InputError if it cannot be opened."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(
            printable(str(folder)), "cannot be opened", error.strerror, "make it readable, or move it away"
        ) from None
