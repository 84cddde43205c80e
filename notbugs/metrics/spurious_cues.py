"""Spurious cues and features: useful on training images, less so on test images.

A cue is a property of an image that has a name, such as the brightness of its border.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from notbugs import precision
from notbugs.data import Dataset, map_batches
from notbugs.errors import InputError
from notbugs.metrics.usefulness import RHO, Usefulness, usefulness
from notbugs.predict import BATCH_SIZE
from notbugs.stats import newcombe_difference, wilson_interval

MIN_FILES = 10  # of a class; with fewer too little is known of a feature's variance to call it spurious

Cue = Callable[[Tensor], Tensor]  # images (n, C, H, W) in [0, 1] -> (n,)


class UsefulnessDrop(NamedTuple):
    """One feature or cue, for the class whose usefulness drops most from training to test images.

    Attributes
    ----------
    name, class_name : str
    sign : str
        Whether the feature speaks "for" or "against" the class; usefulness is of the feature turned so that it speaks for it.
    usefulness, test_usefulness : float, in [-1, 1]
    test_usefulness_ci_low, test_usefulness_ci_high : float
        95 % CI.
    usefulness_drop : float
        Usefulness minus test usefulness.
    p_value : float, in [0, 1]
        One-sided, that chance alone causes such a drop for any feature and class (Bonferroni).
    spurious : bool
        Useful on training images, loses half of that or more, and p_value is below 0.05.
    n, test_n : int
        Images.
    """

    name: str
    class_name: str
    sign: str
    usefulness: float
    test_usefulness: float
    test_usefulness_ci_low: float
    test_usefulness_ci_high: float
    usefulness_drop: float
    p_value: float
    spurious: bool
    n: int
    test_n: int


class AccuracyGap(NamedTuple):
    """Accuracy on images of a class where a cue is as usual for the class, and where it is not; NaN where there are none.

    Attributes
    ----------
    accuracy_usual, accuracy_unusual : float, in [0, 1]
    accuracy_gap, accuracy_gap_ci_low, accuracy_gap_ci_high : float, in [-1, 1]
        Usual minus unusual, with its 95 % CI (Newcombe).
    """

    accuracy_usual: float
    accuracy_unusual: float
    accuracy_gap: float
    accuracy_gap_ci_low: float
    accuracy_gap_ci_high: float


class NearestCue(NamedTuple):
    """The cue that correlates most with a feature, and the correlation, in [-1, 1]; "" and 0 if none does."""

    name: str
    correlation: float


# ---- cues ----------------------------------------------------------------------------------------------------------------


def _gray(images: Tensor) -> Tensor:
    return images.mean(1)


def _border(images: Tensor) -> Tensor:
    """Pixels of the outer eighth on every side: (n, C, pixels)."""
    height, width = images.shape[2:]
    border = torch.ones(height, width, dtype=torch.bool)
    depth = max(1, min(height, width) // 8)
    border[depth : height - depth, depth : width - depth] = False
    return images[:, :, border.to(images.device)]


def _center(images: Tensor) -> Tensor:
    """The middle half in each direction."""
    height, width = images.shape[2:]
    return images[:, :, height // 4 : height - height // 4, width // 4 : width - width // 4]


def _red_minus_blue(pixels: Tensor) -> Tensor:
    return pixels[:, 0].flatten(1).mean(1) - pixels[:, -1].flatten(1).mean(1)


def _green_minus_purple(pixels: Tensor) -> Tensor:
    return (2 * pixels[:, 1] - pixels[:, 0] - pixels[:, -1]).flatten(1).mean(1) / 2


def _fine_detail(images: Tensor) -> Tensor:
    """Mean distance of a pixel to the mean of its 3 x 3 neighborhood."""
    gray = F.pad(_gray(images)[:, None], [1] * 4, mode="replicate")
    blurred = F.avg_pool2d(gray, 3, stride=1)
    return (_gray(images) - blurred[:, 0]).abs().flatten(1).mean(1)


def _half_difference(images: Tensor, axis: int) -> Tensor:
    """Mean of the first half minus mean of the last half along an axis of the gray image."""
    gray = _gray(images)
    half = gray.shape[axis] // 2
    first, last = gray.narrow(axis, 0, half), gray.narrow(axis, gray.shape[axis] - half, half)
    return first.flatten(1).mean(1) - last.flatten(1).mean(1)


CUES: dict[str, Cue] = {
    "background brightness": lambda images: _border(images).flatten(1).mean(1),
    "background evenness": lambda images: -_border(images).mean(1).std(1),
    "brightness in the middle": lambda images: _center(images).flatten(1).mean(1),
    "contrast": lambda images: _gray(images).flatten(1).std(1),
    "fine detail": _fine_detail,
    "brightness above rather than below": lambda images: _half_difference(images, 1),
    "brightness left rather than right": lambda images: _half_difference(images, 2),
}
COLOR_CUES: dict[str, Cue] = {
    "background red rather than blue": lambda images: _red_minus_blue(_border(images)),
    "background green rather than purple": lambda images: _green_minus_purple(_border(images)),
    "red rather than blue in the middle": lambda images: _red_minus_blue(_center(images)),
    "green rather than purple in the middle": lambda images: _green_minus_purple(_center(images)),
    "colorfulness": lambda images: (images - images.mean(1, keepdim=True)).abs().flatten(1).mean(1),
}


def cue_values(dataset: Dataset, *, device: torch.device | str = "cpu") -> tuple[list[str], Tensor]:
    """Cues of a data set.

    Parameters
    ----------
    dataset : Dataset
    device : torch.device or str

    Returns
    -------
    names : list of str
        Cues of color only for color images.
    values : Tensor, float, (N, cues)

    Examples
    --------
    >>> from notbugs import data
    >>> names, values = cue_values(data.load("digits").test.select(slice(0, 5)))
    >>> names[0], values.shape
    ('background brightness', torch.Size([5, 7]))
    """
    cues = CUES | (COLOR_CUES if dataset.shape[0] > 1 else {})

    def measure(images: Tensor, _: Tensor) -> Tensor:
        return torch.stack([cue(images) for cue in cues.values()], dim=1)

    size = precision.bounded_batch_size(BATCH_SIZE, device, dataset.shape)
    values: Tensor = map_batches(measure, dataset, batch_size=size, device=device)
    return list(cues), values


# ---- from training to test images -------------------------------------------------------------------------------------------


def usefulness_drop(train: Usefulness, test: Usefulness) -> tuple[np.ndarray, np.ndarray]:
    """Drop of usefulness from one set of images to another, and its p-value.

    Parameters
    ----------
    train, test : Usefulness
        Of the same F features for the same K classes.

    Returns
    -------
    drop : ndarray, (F, K)
        Of the feature turned so that it speaks for the class on `train`.
    p_value : ndarray, (F, K), in [0, 1]
        One-sided, for all F x K together (Bonferroni), by Student's t with the degrees of freedom of the smallest side.
    """
    from scipy.stats import t

    sign = np.where(train.value < 0, -1.0, 1.0)
    drop = sign * (train.value - test.value)
    error = np.hypot(train.standard_error, test.standard_error)
    statistic = np.where(np.isfinite(error), drop / np.maximum(error, 1e-12), 0.0)
    p_value = t.sf(statistic, np.minimum(train.degrees_of_freedom, test.degrees_of_freedom))
    return drop, np.minimum(p_value * drop.size, 1.0)


def spurious_features(
    names: Sequence[str], values: Tensor, labels: Tensor, test_values: Tensor, test_labels: Tensor, classes: Sequence[str]
) -> list[UsefulnessDrop]:
    """For every feature or cue the class whose usefulness drops most from training to test images.

    Parameters
    ----------
    names : sequence of str, (F,)
    values : Tensor, float, (N, F)
        On training images; of a network's features, on images that it was not trained on.
    labels : Tensor, int64, (N,)
    test_values, test_labels : Tensor, (M, F) and (M,)
    classes : sequence of str, (K,)

    Returns
    -------
    list of UsefulnessDrop
        Spurious ones first, by drop. None is spurious for a class with fewer than `MIN_FILES` images in either set.

    Examples
    --------
    >>> labels = torch.arange(40) % 2
    >>> noise = 0.1 * torch.randn(40, 1, generator=torch.Generator().manual_seed(0))
    >>> drop = spurious_features(["cue"], labels[:, None] + noise, labels, noise, labels, ["a", "b"])[0]
    >>> drop.name, drop.spurious
    ('cue', True)
    """
    if values.shape[1] != len(names):
        raise InputError("names", f"must be one for each of the {values.shape[1]} features", len(names))
    train, test = usefulness(values, labels, len(classes)), usefulness(test_values, test_labels, len(classes))
    drop, p_value = usefulness_drop(train, test)
    sign = np.where(train.value < 0, -1.0, 1.0)
    spurious = (sign * train.value >= RHO) & (p_value < 0.05) & (drop >= 0.5 * sign * train.value)
    spurious &= np.minimum(train.degrees_of_freedom, test.degrees_of_freedom) >= MIN_FILES - 1
    rows = []
    for j, name in enumerate(names):
        # the class with the largest drop, among those for which the feature is spurious if there are any
        k = int(np.where(spurious[j].any() & ~spurious[j], -np.inf, drop[j]).argmax())
        turn = sign[j, k]
        low, high = sorted((float(turn * test.ci_low[j, k]), float(turn * test.ci_high[j, k])))
        rows.append(
            UsefulnessDrop(
                name=name,
                class_name=classes[k],
                sign="for" if turn > 0 else "against",
                usefulness=float(turn * train.value[j, k]),
                test_usefulness=float(turn * test.value[j, k]),
                test_usefulness_ci_low=low,
                test_usefulness_ci_high=high,
                usefulness_drop=float(drop[j, k]),
                p_value=float(p_value[j, k]),
                spurious=bool(spurious[j, k]),
                n=train.n,
                test_n=test.n,
            )
        )
    return sorted(rows, key=lambda row: (-row.spurious, -row.usefulness_drop))


def accuracy_gap(
    values: Tensor, labels: Tensor, correct: Tensor, *, label: int, train_values: Tensor, train_labels: Tensor
) -> AccuracyGap:
    """Whether a classifier is more accurate on a class where a cue is as usual for that class.

    Parameters
    ----------
    values, labels, correct : Tensor, (M,)
        Of test images: the cue, the label, whether it is predicted.
    label : int
        The class.
    train_values, train_labels : Tensor, (N,)
        Of training images. The threshold between usual and unusual is midway between the means of the class and of all others.

    Returns
    -------
    AccuracyGap
    """
    own, rest = (train_values[(train_labels == label) == side].float().mean().item() for side in (True, False))
    usual = (values > (own + rest) / 2) == (own > rest)
    counts = [(int(correct[(labels == label) & side].sum()), int(((labels == label) & side).sum())) for side in (usual, ~usual)]
    if not all(n for _, n in counts):
        return AccuracyGap(math.nan, math.nan, math.nan, -1.0, 1.0)
    shares = [(k / n, *wilson_interval(k, n)) for k, n in counts]
    return AccuracyGap(shares[0][0], shares[1][0], *newcombe_difference(*shares))


def nearest_cue(values: Tensor, names: Sequence[str], cues: Tensor) -> list[NearestCue]:
    """The cue that correlates most with each feature.

    Parameters
    ----------
    values : Tensor, float, (N, F)
    names : sequence of str
        Of the cues.
    cues : Tensor, float, (N, cues)

    Returns
    -------
    list of NearestCue
        One for each feature.
    """
    features, cues = (columns.double() - columns.double().mean(0) for columns in (values, cues))
    correlations = (features.T @ cues) / (features.norm(dim=0)[:, None] * cues.norm(dim=0)).clamp_min(1e-12)
    best = correlations.abs().argmax(1).tolist()
    nearest = [NearestCue(names[cue], float(correlations[feature, cue])) for feature, cue in enumerate(best)]
    return [cue if cue.correlation else NearestCue("", 0.0) for cue in nearest]
