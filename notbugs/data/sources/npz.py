"""NumPy files: .npz with train_images, train_labels, test_images, test_labels, or x_train, y_train, …; or folders of .npy."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from notbugs.data.sources.arrays import LazyArrays, check_one_of_each, locate_array_files, reading
from notbugs.data.sources.base import Located
from notbugs.data.sources.limits import check_members
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

PLAIN = "write it with numpy.savez from plain arrays: uint8 images, integer labels, text classes"


def locate_npz(path: Path, config: DataConfig) -> Located:
    """The images of an .npz file. Raises InputError."""
    return locate_array_files(path, [path], read_npz, config)


def read_npz(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of an .npz file, each of which is read when it is asked for. Raises InputError."""
    with reading(path, "an .npz file", PLAIN), path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        check_members(path, archive.zip.infolist())
        check_one_of_each(path, archive.files)
        return LazyArrays(tuple(archive.files), partial(_read_array, path))


def _read_array(path: Path, name: str) -> np.ndarray:
    with reading(path, "an .npz file", PLAIN), path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        member = next(info for info in archive.zip.infolist() if info.filename in (name, f"{name}.npy"))
        with archive.zip.open(member) as opened:
            header = np.lib.format
            version = header.read_magic(opened)
            read_header = header.read_array_header_1_0 if version == (1, 0) else header.read_array_header_2_0
            shape, _, dtype = read_header(opened)
            claimed = math.prod(shape) * dtype.itemsize
            if not dtype.hasobject and claimed != member.file_size - opened.tell():
                raise InputError(
                    f"{path}: {name}", "is damaged", f"shape {shape}, other than its {member.file_size:,} bytes", PLAIN
                )
        return np.asarray(archive[name])


def read_npy(path: Path) -> Mapping[str, np.ndarray]:
    """The array of an .npy file, by the file's name; it stays on disk until it is used. Raises InputError."""
    with reading(path, "an .npy file", "write it with numpy.save from a plain array"):
        return {path.stem: np.load(path, mmap_mode="c", allow_pickle=False)}
