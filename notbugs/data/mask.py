"""Masks from files: which pixels of the images may change."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from notbugs.atomic import StrPath
from notbugs.decoding.decode import DecodeOptions, decode
from notbugs.errors import InputError, one_line
from notbugs.search import Mask

RULE = "must be an image that is black where pixels must stay and white where they may change, or such an .npy of 0 and 1"


def read_mask(path: StrPath, shape: Sequence[int]) -> Mask:
    """A mask from a file. Nothing is resized, rounded or rotated.

    Parameters
    ----------
    path : str or path
        An image of the size of the images: white pixels may change, black ones must stay. In color, each channel has its own. Or
        an .npy of booleans or 0 and 1: (H, W), (H, W, C) or (C, H, W).
    shape : sequence of int
        (C, H, W) of the images, as they are attacked.

    Raises
    ------
    InputError
        If the file cannot be read, has other values, is of another size, or lets nothing change.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("--mask", "no such file", path)
    values = _array(path, shape) if path.suffix == ".npy" else _image(path)
    if unknown := sorted(set(np.unique(values).tolist()) - {0, 1}):
        shown = ", ".join(f"{255 * value:.0f} of 255" if path.suffix != ".npy" else f"{value:g}" for value in unknown[:3])
        lossless = "make what may change white, 255 of 255, in a file without lossy compression, such as .png"
        remedy = lossless if path.suffix != ".npy" else ""
        raise InputError("--mask", RULE, f"{path}, with values like {shown}", remedy)
    free = torch.from_numpy(values.astype(bool))
    if len(free) > 1 and bool((free == free[:1]).all()):
        free = free[:1]
    try:
        mask = Mask(free)
        mask.fit(torch.Size((1, *shape)))
    except InputError as error:
        _, rule, got, remedy = error.args
        raise InputError("--mask", rule, f"{path}: {got}", remedy) from None
    return mask


def _image(path: Path) -> np.ndarray:
    """Values in [0, 1], (1, H, W) or (3, H, W)."""
    try:
        levels, facts = decode(path, DecodeOptions())
    except InputError:
        raise
    except Exception as error:  # of any damage
        raise InputError("--mask", RULE, f"{path}: {type(error).__name__}: {one_line(error)}") from None
    if facts.transparent or facts.rotated or facts.animated or facts.reduced:
        raise InputError("--mask", f"{RULE}; without transparency, rotation and further frames", path, "save it as a plain .png")
    return (levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1)) / 255


def _array(path: Path, shape: Sequence[int]) -> np.ndarray:
    """Values as they are, (C or 1, H, W)."""
    try:
        values = np.load(path, mmap_mode="c", allow_pickle=False)  # mapped: its shape is compared with its size
    except Exception as error:  # damaged files make NumPy raise almost anything
        raise InputError("--mask", RULE, f"{path}: {one_line(error)}") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf" or values.ndim not in (2, 3):
        got = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise InputError("--mask", RULE, f"{path}: {got}")
    if values.ndim == 2:
        return values[None]
    channels, height, width = shape
    first = values.shape[1:] == (height, width) and values.shape[0] in (1, channels)
    last = values.shape[:2] == (height, width) and values.shape[2] in (1, channels)
    if not first and not last:
        counts = "1" if channels == 1 else f"1 or {channels}"
        rule = f"must have the shape ({height}, {width}), or with {counts} channel{'' if channels == 1 else 's'} first or last"
        raise InputError("--mask", rule, f"{path}: {values.shape}")
    if first and last and not np.array_equal(values, values.transpose(2, 0, 1)):
        raise InputError("--mask", "must have channels first or last, not both", f"{path}: {values.shape}", "save it as (H, W)")
    return values.transpose(2, 0, 1) if last and not first else values
