"""Groups: images that must not be divided between parts or folds, such as the frames of one video."""

from collections.abc import Sequence

import numpy as np

from notbugs.data.names import printable
from notbugs.errors import InputError


def grouped_folds(
    labels: Sequence[int],
    groups: Sequence[str],
    folds: int,
    seed: int,
    classes: Sequence[str] = (),
    remedy: str = "take fewer --folds or smaller groups",
) -> np.ndarray:
    """Random folds that divide no group, about as balanced over the classes as the groups allow.

    Parameters
    ----------
    labels : sequence of int, (N,)
    groups : sequence of str, (N,)
    folds : int
        2 or more.
    seed : int
    classes : sequence of str
        Names, for messages.
    remedy : str
        Of the error on groups that are too large.

    Returns
    -------
    ndarray, int, (N,)
        The fold of each image, from 0.

    Raises
    ------
    InputError
        If a class has images in fewer groups than two, or is all in one fold: nothing could be trained for it on the others.

    Examples
    --------
    >>> first, second, third, fourth = grouped_folds([0, 1, 0, 1], ["a", "a", "b", "b"], 2, seed=0).tolist()
    >>> first == second, third == fourth, first == third
    (True, True, False)
    """
    from sklearn.model_selection import StratifiedGroupKFold

    def named(label: int) -> str:
        return printable(classes[label]) if classes else f"number {label}"

    array, of_group = np.asarray(labels), np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]
    for label in np.unique(array):
        if (count := int((array == label).sum())) < folds:
            raise InputError("--folds", f"must be at most {count}, the images of class {named(label)}", folds)
        if len(np.unique(of_group[array == label])) < 2:
            raise InputError(
                "--group",
                "must leave each class at least two groups",
                f"one for class {named(label)}",
                "make the groups smaller, or leave --group out",
            )
    if (count := len(np.unique(of_group))) < folds:
        raise InputError("--folds", f"must be at most {count}, the groups", folds, remedy)
    fold = np.empty(len(array), dtype=np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for number, (_, held_out) in enumerate(splitter.split(array[:, None], array, of_group)):
        fold[held_out] = number
    for label in np.unique(array):
        if len(np.unique(fold[array == label])) < 2:
            got = f"class {named(label)}, whose groups are all in one"
            raise InputError("--group", f"must be small enough to be divided into {folds}", got, remedy)
    return fold
