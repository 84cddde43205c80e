"""NumPy archives: SPLIT_images and SPLIT_labels, and perhaps SPLIT_names and classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch

from notbugs.data.names import first_line, numbered
from notbugs.data.sources.base import Located, are_names
from notbugs.errors import InputError

Arrays = Mapping[str, np.ndarray]


class Split(NamedTuple):
    """One part of an archive: images uint8 (N, C, H, W), labels, names, and where the file has its channels."""

    images: np.ndarray
    labels: list[int]
    names: list[str]
    channels: str


def locate_npz(path: Path, splits: Sequence[str] = ("train", "test", "val")) -> Located:
    """The images of an .npz file: of the first of `splits` and, if it is there, of one more. Raises InputError."""
    arrays = _load(path, splits)
    used = [splits[0], *[name for name in splits[1:] if f"{name}_images" in arrays or f"{name}_labels" in arrays][:1]]
    parts = [_read_split(path, arrays, name) for name in used]
    if len({part.images.shape[1:] for part in parts}) > 1:
        shapes = " and ".join(str(arrays[f"{name}_images"].shape) for name in used)
        raise InputError(str(path), "training and test images must have one size", shapes)
    given = arrays.get("classes", arrays.get("class_names"))
    classes = range(max(parts[0].labels, default=0) + 1) if given is None else given.ravel().tolist()
    return Located(
        torch.cat([torch.from_numpy(part.images) for part in parts]),
        [label for part in parts for label in part.labels],
        [name for part in parts for name in part.names],
        [f"{path}: {name}_images[{i}]" for name, part in zip(used, parts, strict=True) for i in range(len(part.labels))],
        len(parts[0].labels),
        tuple(map(str, classes)),
        "npz" if {part.channels for part in parts} == {"last"} else "npz-channels-first",
    )


def _load(path: Path, splits: Sequence[str]) -> Arrays:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:  # closes damaged files, too
            wanted = [f"{split}_{what}" for split in splits for what in ("images", "labels", "names")]
            return {key: archive[key] for key in (*wanted, "classes", "class_names") if key in archive}
    except Exception as error:  # also MemoryError: a header can claim any shape
        reason = "Python objects (pickle)" if "pickle" in str(error) else first_line(error)
        remedy = "write it with numpy.savez from plain arrays: uint8 images, integer labels, text classes"
        raise InputError(str(path), "cannot be read as an .npz file", reason, remedy) from None


def _read_split(path: Path, arrays: Arrays, split: str) -> Split:
    for key in (f"{split}_images", f"{split}_labels"):
        if key not in arrays:
            raise InputError(str(path), f"has no array {key}", ", ".join(arrays) or "none of use")
    images = _as_8bit(arrays[f"{split}_images"], f"{path}: {split}_images")
    channels = _channels(arrays[f"{split}_images"], f"{path}: {split}_images")
    labels = _as_labels(arrays[f"{split}_labels"], f"{path}: {split}_labels")
    if len(images) != len(labels):
        rule = f"{split}_images and {split}_labels must be equally many"
        raise InputError(str(path), rule, f"{len(images)} and {len(labels)}")
    names = [str(name) for name in arrays.get(f"{split}_names", np.array([])).ravel()]
    return Split(images, labels, names if are_names(names, len(labels)) else numbered(len(labels)), channels)


def _channels(array: np.ndarray, location: str) -> str:
    """Where an image array has its channels: "last" (also for gray N x H x W) or "first"."""
    if array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3)):
        return "last"
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return "first"
    raise InputError(location, "must be N x H x W, N x H x W x 3 or N x 3 x H x W", f"shape {array.shape}")


def _as_8bit(array: np.ndarray, location: str) -> np.ndarray:
    """An image array as uint8 (N, C, H, W); floats only if they are exactly k/255."""
    if array.dtype.kind == "f":
        array = _floats_as_8bit(array, location)
    if array.dtype != np.uint8:
        raise InputError(location, "must hold 8-bit pixels (uint8)", array.dtype, "save it with .astype('uint8')")
    if array.ndim == 3:
        array = array[:, None]
    elif _channels(array, location) == "last":
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array)


def _floats_as_8bit(array: np.ndarray, location: str) -> np.ndarray:
    remedy = "save (255 * images).round().astype('uint8')"
    if not np.isfinite(array).all():
        raise InputError(location, "must hold 8-bit pixels", "NaN or infinite values", remedy)
    if array.size and (array.min() < 0 or array.max() > 1):
        got = f"floats from {array.min():g} to {array.max():g}"
        raise InputError(location, "must hold 8-bit pixels", got, "scale them to 0 to 255 and save them as uint8")
    levels = np.round(array * 255)
    if np.abs(array * 255 - levels).max(initial=0) > (0.2 if array.dtype == np.float16 else 1e-3):
        raise InputError(location, "must hold 8-bit pixels", "floats that are no multiples of 1/255", remedy)
    return levels.astype(np.uint8)


def _as_labels(array: np.ndarray, location: str) -> list[int]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(location, "must be one whole number for each image", f"{array.dtype}, shape {array.shape}")
    return cast(list[int], array.tolist())
