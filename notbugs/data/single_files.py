"""One file of arrays, or of one image, that a run keeps."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from notbugs.atomic import StrPath, atomic_write
from notbugs.data.eight_bits import to_8bit
from notbugs.data.images import encode_png
from notbugs.data.sources.arrays import reading
from notbugs.data.sources.limits import check_members


def save_arrays(arrays: Mapping[str, np.ndarray], path: StrPath) -> None:
    """Arrays by name into one .npz file, which appears whole or not at all. Raises InputError if it cannot be written."""
    atomic_write(Path(path), lambda stream: write_npz(arrays, stream))


def write_npz(arrays: Mapping[str, np.ndarray], target: Path | BinaryIO) -> None:
    """As `numpy.savez`, which leaves its archive open where the disk is full: Python then prints a traceback when it ends."""
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def load_arrays(path: StrPath) -> dict[str, np.ndarray]:
    """What `save_arrays` wrote. Raises InputError if it is missing or damaged."""
    path = Path(path)
    kept = reading(path, "what the run wrote", "run again into another folder")
    with kept, path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:  # closes damaged files, too
        check_members(path, archive.zip.infolist())
        return {name: archive[name] for name in archive.files}


def save_image(image: torch.Tensor, path: StrPath) -> None:
    """Save one float image (C, H, W) in [0, 1] as an 8-bit PNG. Raises InputError if it cannot be written."""
    content = next(encode_png(to_8bit(image[None])))
    atomic_write(Path(path), lambda stream: stream.write(content))
