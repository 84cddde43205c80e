"""What the values of arrays mean: pixels as 8-bit images, labels as indices into classes."""

from typing import cast

import numpy as np

from notbugs.data.names import printable
from notbugs.data.sources.base import MOST_CLASSES, numbered_classes, sorted_classes
from notbugs.data.sources.class_names import Naming, apply_naming, as_one_name, one_name, text
from notbugs.data.sources.splits import listed
from notbugs.data.sources.targets import check_no_measurements
from notbugs.errors import InputError


def channels_of(array: np.ndarray, location: str) -> str:
    """Where an image array has its channels: "last" (also for gray N x H x W) or "first"."""
    if array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3)):
        return "last"
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return "first"
    raise InputError(
        location, "must be N x H x W, N x H x W x 3 or N x 3 x H x W", f"shape {array.shape}", _other_shape(array.shape)
    )


def _other_shape(shape: tuple[int, ...]) -> str:
    """How to save images of another shape."""
    if len(shape) == 4 and shape[2] in (1, 3):
        return "if the images are counted last: save images.transpose(3, 0, 1, 2)"
    if len(shape) == 4 and 2 in (shape[1], shape[3]):
        return "save one of the channels: images[:, 0]" if shape[1] == 2 else "save one of the channels: images[..., 0]"
    if len(shape) == 4:
        last = shape[1] == shape[2] or (shape[2] != shape[3] and shape[3] < shape[1])
        return f"save three of the channels: images[{'...' if last else ':'}, :3]"
    how = "save images.reshape(-1, height, width), or (-1, height, width, 3), as the pixels are ordered"
    return how if len(shape) == 2 else "save one image for each label"


def channels_note(array: np.ndarray, location: str) -> str:
    """A note where an image array may have its channels first or last; "" for others."""
    both = array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] in (1, 3)
    return f"{printable(location)} has the shape {array.shape}: its last axis is read as the channels" if both else ""


def as_8bit(array: np.ndarray, location: str) -> np.ndarray:
    """An image array as uint8 (N, C, H, W); floats only if they are exactly k/255."""
    if 0 in array.shape[1:]:
        raise InputError(location, "must have pixels", f"shape {array.shape}", "save the images again")
    if array.dtype.kind == "f":
        array = _floats_as_8bit(array, location)
    if array.dtype != np.uint8:
        raise InputError(location, "must hold 8-bit pixels (uint8)", *_other_pixels(array))
    if array.ndim == 3:
        array = array[:, None]
    elif channels_of(array, location) == "last":
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array)


def _other_pixels(array: np.ndarray) -> tuple[str, str]:
    """What pixels that are not 8-bit are, and how to save them: a plain conversion would turn 256 into 0, and True into 1."""
    if array.dtype == bool:
        return "bool", "save (255 * images.astype('uint8'))"
    if array.dtype.kind not in "iu" or not array.size:
        return str(array.dtype), "save whole numbers from 0 to 255 as uint8"
    low, high = int(array.min()), int(array.max())
    whole = low >= 0 and high <= 255
    remedy = "save it with .astype('uint8')" if whole else "scale them to 0 to 255 before .astype('uint8')"
    return f"{array.dtype} from {low:,} to {high:,}", remedy


def _floats_as_8bit(array: np.ndarray, location: str) -> np.ndarray:
    remedy = "save (255 * images).round().astype('uint8')"
    if not np.isfinite(array).all():
        raise InputError(location, "must hold 8-bit pixels", "NaN or infinite values", remedy)
    if array.size and (array.min() < 0 or array.max() > 1):
        got = f"floats from {array.min():g} to {array.max():g}"
        whole = array.min() >= 0 and array.max() <= 255
        how = "scale them to 0 to 255 and save them as uint8"
        if array.min() >= -1 and array.max() <= 1:
            how += ": ((images + 1) * 127.5).round().astype('uint8')"
        raise InputError(location, "must hold 8-bit pixels", got, "save images.round().astype('uint8')" if whole else how)
    levels = np.round(array * 255)
    if np.abs(array * 255 - levels).max(initial=0) > (0.2 if array.dtype == np.float16 else 1e-3):
        raise InputError(location, "must hold 8-bit pixels", "floats that are no multiples of 1/255", remedy)
    return levels.astype(np.uint8)


def as_labels(array: np.ndarray, location: str, given: Naming) -> tuple[list[int], tuple[str, ...], str]:
    """Labels as indices into the classes that are given, or that they imply: 0 to the highest number, or the different words.

    Returns
    -------
    (list of int, tuple of str, str)
        Labels, classes, and a note on what was changed, or "".

    Raises
    ------
    InputError
        If the values are no labels, or not those of the classes that are given.
    """
    if array.ndim > 1 and array.size == max(array.shape):  # N x 1, 1 x N, N x 1 x 1 x 1
        array = array.reshape(-1)
    if array.ndim == 1 and array.dtype.kind in "US":
        words, note = as_one_name(map(text, array.tolist()))
        check_no_measurements(location, words)
        classes = tuple(one_name(name) for _, name in sorted(given.items())) or sorted_classes(words)
        index = {name: number for number, name in enumerate(classes)}
        if other := next((word for word in words if word not in index), None):
            raise InputError(
                location, f"must be one of the classes {listed(classes)}", printable(other), "add it to the list of classes"
            )
        return [index[word] for word in words], classes, note
    if array.ndim == 1 and array.dtype == bool:
        array, given = array.astype(np.int64), given or {0: "False", 1: "True"}
    elif _is_one_hot(array):
        array, given = array.argmax(axis=1), given or dict(enumerate(map(str, range(array.shape[1]))))
    if array.ndim == 1 and array.dtype.kind == "f":
        check_no_measurements(location, array.tolist())
        if (array == np.round(array)).all() and (np.abs(array) < MOST_CLASSES).all():
            array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        rule = "must be one whole number for each image, one word, or a row with a single 1"
        raise InputError(location, rule, *_other_labels(array))
    numbers = cast(list[int], array.tolist())
    return (*(apply_naming(numbers, given, location) if given else numbered_classes(numbers)), "")


def _other_labels(array: np.ndarray) -> tuple[str, str]:
    """What labels are that are none, and how to save them."""
    seen = f"{array.dtype}, shape {array.shape}"
    if array.ndim == 1 and array.dtype.kind == "f" and not np.isfinite(array).all():
        return (
            f"{(~np.isfinite(array)).sum():,} of {len(array):,} NaN or infinite",
            "leave out these images: images[~np.isnan(y)]",
        )
    if array.ndim == 2 and array.dtype.kind in "biuf":
        several = ((array == 0) | (array == 1)).all()
        what = (
            "several labels of one image (multi-label) are not supported: keep one"
            if several
            else "of probabilities save labels.argmax(1)"
        )
        return seen, f"save one column; {what}"
    return seen, "save whole numbers, or words as labels.astype(str)"


def _is_one_hot(array: np.ndarray) -> bool:
    """Whether each row has a 1 for its class, and 0 for all others."""
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        return False
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all())
