"""What the values of arrays of labels mean: indices into classes."""

from typing import cast

import numpy as np

from notbugs.data.names import printable
from notbugs.data.sources.base import MOST_CLASSES, numbered_classes, sorted_classes
from notbugs.data.sources.class_names import Naming, apply_naming, as_one_name, one_name, text
from notbugs.data.sources.splits import listed
from notbugs.data.sources.targets import check_no_measurements
from notbugs.errors import InputError


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
    if array.ndim != 2 or array.dtype.kind not in "biuf" or not array.size:  # without columns any number of rows takes no room
        return False
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all())
