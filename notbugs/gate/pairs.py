"""Several pairs of audits, as of several training seeds: the mean of their differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from notbugs.errors import InputError
from notbugs.gate.compare import conclusion, outcomes_of, shared_threats
from notbugs.runs.folder import RunFolder
from notbugs.stats import student_quantile, wilson_interval


@dataclass(frozen=True)
class MeanComparison:
    """The mean of several pairs of audits within one threat model, on the images that all have.

    Attributes
    ----------
    threat : str
    first, second : float
        Mean accuracy of the first and of the second audits, in [0, 1].
    differences : tuple of float
        Second minus first, of each pair.
    n : int
        Images that all audits have.
    difference, ci_low, ci_high : float
        Mean difference, with its 95 % CI over other test images and other trainings: two-way random effects, Student's t with
        Satterthwaite's degrees of freedom. At least what n images leave open that all agree.
    """

    threat: str
    first: float
    second: float
    differences: tuple[float, ...]
    n: int
    difference: float
    ci_low: float
    ci_high: float

    @property
    def conclusion(self) -> str:
        """What the interval says, in words."""
        return conclusion(self.threat, self.ci_low, self.ci_high)


def compare_pairs(pairs: Sequence[tuple[RunFolder, RunFolder]]) -> list[MeanComparison]:
    """Compare pairs of audits, clean and within each threat model that all have, on the images that all have.

    Parameters
    ----------
    pairs : sequence of (RunFolder, RunFolder)
        Two or more pairs, first and second, as for `compare`: of each training seed one.

    Raises
    ------
    InputError
        For fewer than two pairs, an audit in two pairs, and as `compare`.
    """
    if len(pairs) < 2:
        raise InputError("RUN", "must be two pairs or more", len(pairs), "first and second of each training seed, in turn")
    folders = [run.folder for pair in pairs for run in pair]
    if twice := sorted({str(folder) for folder in folders if folders.count(folder) > 1}):
        raise InputError("RUN", "must be in one pair only", ", ".join(twice), "train and attack anew for each pair")
    found = [outcomes_of(run) for pair in pairs for run in pair]
    threats = shared_threats(found)
    means = []
    for threat in threats:
        images = [image for image in found[0][threat] if all(image in each[threat] for each in found)]
        if not images:
            raise InputError("RUN", "must have images in common, of the same names and labels", "none", "attack the same DATASET")
        correct = np.array([[each[threat][image] for image in images] for each in found], dtype=np.float64)
        means.append(_mean(threat, correct[0::2], correct[1::2]))
    return means


def _mean(threat: str, first: np.ndarray, second: np.ndarray) -> MeanComparison:
    """first, second: whether each audit (rows) has each image (columns) correct."""
    differences = second - first
    low, mean, high = _interval(differences)
    return MeanComparison(
        threat=threat,
        first=float(first.mean()),
        second=float(second.mean()),
        differences=tuple(map(float, differences.mean(1))),
        n=differences.shape[1],
        difference=mean,
        ci_low=low,
        ci_high=high,
    )


def _interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Lower end, mean, and upper end. differences: (pairs, images), each -1, 0 or 1.

    The variance of the mean is that over images and that over pairs, less what is in both.
    """
    pairs, n = differences.shape
    mean, of_pairs, of_images = differences.mean(), differences.mean(1), differences.mean(0)
    over_images, over_pairs = of_images.var(ddof=1) / n if n > 1 else 0.0, of_pairs.var(ddof=1) / pairs
    rest = differences - of_images - of_pairs[:, None] + mean
    in_both = (rest**2).sum() / max(1, (n - 1) * (pairs - 1)) / (n * pairs)
    variance = max(over_images, over_pairs, over_images + over_pairs - in_both)
    parts = over_images**2 / max(1, n - 1) + over_pairs**2 / (pairs - 1)
    freedom = variance**2 / parts if parts else math.inf
    half_width = student_quantile(freedom) * math.sqrt(variance) if variance else 0.0
    half_width = max(half_width, wilson_interval(0, n)[1])
    return max(-1.0, float(mean - half_width)), float(mean), min(1.0, float(mean + half_width))
