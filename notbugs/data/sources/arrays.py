"""Arrays by name, as .npz, .npy, .h5 and .pt files hold them: which are images, which are labels, and of which part."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch

from notbugs.data.config import DataConfig
from notbugs.data.names import numbered, printable
from notbugs.data.sources.base import Located, Part, are_names, join, numbered_classes
from notbugs.data.sources.splits import NEUTRAL, choose_splits, listed, parse_split
from notbugs.errors import InputError

ARRAYS = "arrays"  # the only part of a file without parts
KINDS = {
    "images": ("images", "image", "imgs", "img", "x", "pixels", "inputs", "input", "data", "features"),
    "labels": ("labels", "label", "y", "targets", "target", "classid", "classids"),
    "names": ("names", "name", "filenames", "filename", "files", "ids"),
    "classes": ("classes", "classnames", "labelnames", "listclasses", "categories"),
}
EXPECTED = "name them train_images, train_labels, test_images, test_labels, or x_train, y_train, …"


class Key(NamedTuple):
    """What an array's name says: the part that it belongs to ("" for none), and what it holds."""

    part: str
    kind: str


def parse_key(name: str) -> Key | None:
    """What an array holds, by its name; None if that is unclear.

    Examples
    --------
    >>> parse_key("train_images"), parse_key("y_test"), parse_key("X")
    (Key(part='train', kind='images'), Key(part='test', kind='labels'), Key(part='', kind='images'))
    >>> parse_key("class_names"), parse_key("weights")
    (Key(part='', kind='classes'), None)
    """
    words = re.findall(r"[a-z]+", name.casefold())
    if _kind("".join(words)) == "classes":
        return Key("", "classes")
    named = next((word for word in words if parse_split(word)), "")
    rest = [word for word in words if word != named]
    kinds = [kind for word in rest if (kind := _kind(word))]
    specific = kinds if len(kinds) == 1 else [_kind(word) for word in rest if word not in NEUTRAL and _kind(word)]
    unknown = [word for word in rest if not _kind(word) and word not in NEUTRAL]
    return Key(named, specific[0]) if len(specific) == 1 and not unknown else None


def _kind(word: str) -> str:
    return next((kind for kind, words in KINDS.items() if word in words), "")


def locate_arrays(source: Path, arrays: Mapping[str, np.ndarray], config: DataConfig, form: str = "npz") -> Located:
    """The images of a file of arrays. A key that is not there, or two for one thing, raise InputError, which names all keys."""
    keys = _keys(source, arrays)
    parts = list(dict.fromkeys(key.part for key in keys if key.kind in ("images", "labels")))
    for part in parts:
        for kind in ("images", "labels"):
            if Key(part, kind) not in keys:
                what = f"array of {kind}" + (f" for the part {part}" if part else "")
                raise InputError(str(source), f"has no {what}", f"arrays {listed(arrays)}", EXPECTED)
    sizes = {part or ARRAYS: arrays[keys[Key(part, "labels")]].size for part in parts}
    if not sizes:
        raise InputError(
            str(source), "has no arrays of images and labels", f"arrays {listed(arrays)}" if arrays else "none", EXPECTED
        )
    chosen = choose_splits(str(source), sizes, config.train, config.test)
    read = {name: _read_part(source, arrays, keys, name) for name in chosen.parts}
    _check_one_shape(source, arrays, keys, read)
    last = all(channels == "last" for _, channels in read.values())
    train, test = (read[name][0] if name else None for name in (chosen.train, chosen.test))
    notes = [f"not used: {printable(name)} ({sizes[name]:,} images)" for name in chosen.unused]
    return join(str(source), train, test, form if last else f"{form}-channels-first", notes)


def _keys(source: Path, arrays: Mapping[str, np.ndarray]) -> dict[Key, str]:
    keys: dict[Key, str] = {}
    for name in arrays:
        if key := parse_key(name):
            if key in keys:
                what = f"{key.part} {key.kind}".strip()
                raise InputError(
                    str(source), f"it must be clear which array holds the {what}", f"{keys[key]} and {name}", EXPECTED
                )
            keys[key] = name
    return keys


def _check_one_shape(
    source: Path, arrays: Mapping[str, np.ndarray], keys: Mapping[Key, str], read: Mapping[str, tuple[Part, str]]
) -> None:
    if len({cast(torch.Tensor, part.files).shape[1:] for part, _ in read.values()}) > 1:
        shapes = " and ".join(str(arrays[keys[_key(name, "images")]].shape) for name in read)
        raise InputError(str(source), "training and test images must have one size", shapes)


def _key(part: str, kind: str) -> Key:
    return Key("" if part == ARRAYS else part, kind)


def _read_part(source: Path, arrays: Mapping[str, np.ndarray], keys: Mapping[Key, str], name: str) -> tuple[Part, str]:
    """One part, and where its images have their channels."""
    images_key, labels_key = keys[_key(name, "images")], keys[_key(name, "labels")]
    location = f"{source}: {images_key}"
    images, channels = _as_8bit(arrays[images_key], location), _channels(arrays[images_key], location)
    labels, classes = _as_labels(arrays[labels_key], f"{source}: {labels_key}")
    if len(images) != len(labels):
        raise InputError(str(source), f"{images_key} and {labels_key} must be equally many", f"{len(images)} and {len(labels)}")
    given = arrays.get(keys.get(Key("", "classes"), ""))
    if given is not None and arrays[labels_key].dtype.kind in "iu":
        labels, classes = arrays[labels_key].ravel().tolist(), tuple(_text(name) for name in given.ravel().tolist())
    names_key = keys.get(_key(name, "names"), "")
    names = [_text(value) for value in arrays[names_key].ravel().tolist()] if names_key else []
    part = Part(
        name,
        torch.from_numpy(images),
        labels,
        classes,
        names if are_names(names, len(labels)) else numbered(len(labels)),
        [f"{location}[{i}]" for i in range(len(labels))],
    )
    return part, channels


def _text(value: object) -> str:
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


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


def _as_labels(array: np.ndarray, location: str) -> tuple[list[int], tuple[str, ...]]:
    """Labels as numbers, and the classes that they imply: 0 to the highest number, or the different words."""
    if array.ndim == 2 and 1 in array.shape:
        array = array.ravel()
    if array.ndim == 1 and array.dtype.kind in "US":
        words = [_text(value) for value in array.tolist()]
        classes = tuple(sorted(set(words)))
        index = {name: number for number, name in enumerate(classes)}
        return [index[word] for word in words], classes
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(location, "must be one whole number for each image", f"{array.dtype}, shape {array.shape}")
    return numbered_classes(cast(list[int], array.tolist()))
