"""Subsets of a data set: the one place that decides which images stand for all.

`balanced_subset` is for every subset of a test set on which something is measured.
"""

import math

import torch
from torch import Tensor

from notbugs.data.dataset import Dataset


def evenly_spaced(count: int, total: int) -> Tensor:
    """Positions spread evenly over a sequence.

    Parameters
    ----------
    count : int
        How many; at most `total` are returned.
    total : int
        Length of the sequence.

    Returns
    -------
    Tensor, int64, (min(count, total),)
        Ascending, the first is 0.

    Examples
    --------
    >>> evenly_spaced(4, 10).tolist()
    [0, 2, 5, 7]
    """
    chosen = min(count, total)
    return torch.arange(chosen) * total // max(chosen, 1)


def balanced(labels: Tensor, count: int) -> Tensor:
    """Indices of a subset that is as balanced over the classes as the labels allow.

    Deterministic: within each class, the indices are evenly spaced.

    Parameters
    ----------
    labels : Tensor, int64, (N,)
    count : int
        How many; at most N are returned.

    Returns
    -------
    Tensor, int64, (min(count, N),)
        Ascending.

    Examples
    --------
    >>> balanced(torch.tensor([0, 0, 0, 0, 0, 1, 1, 2]), 5).tolist()
    [0, 2, 5, 6, 7]
    """
    by_class = [(labels == label).nonzero().squeeze(1) for label in labels.bincount().nonzero().squeeze(1).tolist()]
    chosen: list[Tensor] = []
    left = min(count, len(labels))
    for number, indices in enumerate(sorted(by_class, key=len)):
        share = min(len(indices), math.ceil(left / (len(by_class) - number)) if number else left // len(by_class))
        chosen.append(indices[torch.arange(share) * len(indices) // max(share, 1)])
        left -= share
    return torch.cat(chosen).sort().values


def balanced_subset(dataset: Dataset, count: int) -> Dataset:
    """At most `count` images, balanced over the classes (`balanced`).

    Use it for every subset on which something is measured: each class counts alike, and no seed enters. `random_subset` is right
    for training parts only, where the shares of the classes must stay as they are.

    Examples
    --------
    >>> from notbugs import data
    >>> digits = data.load("digits").test
    >>> balanced_subset(digits, 50).labels.bincount().tolist()
    [5, 5, 5, 5, 5, 5, 5, 5, 5, 5]
    """
    return dataset if len(dataset) <= count else dataset.select(balanced(dataset.labels, count))


def random_subset(dataset: Dataset, count: int, seed: int = 0) -> Dataset:
    """At most `count` images drawn uniformly at random, in their order.

    For subsets of training parts, where the shares of the classes must stay as they are; otherwise use `balanced_subset`.
    """
    if len(dataset) <= count:
        return dataset
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    return dataset.select(order[:count].sort().values)


def first_per_class(dataset: Dataset, most: int = 8) -> list[int]:
    """The index of the first image of each class that has one, for at most `most` classes.

    Examples
    --------
    >>> from notbugs import data
    >>> first_per_class(data.load("digits").train, most=3)
    [0, 8, 1]
    """
    found = ((dataset.labels == label).nonzero() for label in range(len(dataset.classes)))
    return [int(indices[0, 0]) for indices in found if len(indices)][:most]
