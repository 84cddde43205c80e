"""`robustness`, a rank within the class: how it follows from the scores, how stable it is, and subsets by it."""

from collections.abc import Mapping, Sequence

import numpy as np

from notbugs.errors import InputError
from notbugs.files.fold_scores import FoldScores

ROBUST_EVIDENCE = ("robust_minimum_norm", "robust_attacked_margin", "trained_on_robust_margin")
STANDARD_EVIDENCE = ("standard_minimum_norm", "standard_margin", "trained_on_nonrobust_margin")


def robustness_score(mean: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """How much evidence robust models find in a file, relative to standard models: a rank within its class.

    R and T are means of ranks within the class. R: of the minimum norm and of the margin under attack of robust models, and of
    the margin of models trained on robust versions. T: of the minimum norm and the margin of standard models, and of the margin
    of models trained on non-robust versions. Ranked is R - a s T, what T does not explain of R, so that a file is not robust
    for being easy for all models. s is the slope of R over T, divided by the reliability of T (Cronbach's alpha of its three
    ranks): a slope over something measured with noise is too flat. a is the accuracy of standard models, rescaled to 0 at
    chance level: T of a file that they cannot classify says that it is hard, and nothing of its features.

    Parameters
    ----------
    mean : mapping of str to ndarray
        Scores of all N files.
    labels : ndarray, int, (N,)

    Returns
    -------
    ndarray, (N,), in [0, 1]

    References
    ----------
    Spearman 1904, "The Proof and Measurement of Association between Two Things".
    """
    robust, standard = (
        np.stack([class_ranks(mean[name], labels) for name in names if name in mean])
        for names in (ROBUST_EVIDENCE, STANDARD_EVIDENCE)
    )
    single, total = standard.var(1, ddof=1).sum(), max(float(standard.sum(0).var(ddof=1)), 1e-12)
    reliability = len(standard) / (len(standard) - 1) * (1 - single / total)
    r, t = robust.mean(0), standard.mean(0)
    slope = np.cov(r, t)[0, 1] / max(float(t.var(ddof=1)), 1e-12) / max(reliability, 0.5)
    chance = 1 / len(np.unique(labels))
    accuracy = max(float((mean["standard_margin"] > 0).mean() - chance) / max(1 - chance, 1e-12), 0.0)
    return class_ranks(r - accuracy * slope * t, labels)


def rank_stability(whole: Sequence[FoldScores], labels: np.ndarray) -> float:
    """How well `robustness_score` would agree with that of as many other repetitions.

    Parameters
    ----------
    whole : sequence of FoldScores
        One for each repetition.
    labels : ndarray, int, (N,)

    Returns
    -------
    float, in [-1, 1]
        Spearman's correlation, from that of single repetitions by the Spearman-Brown formula; NaN for one repetition.
    """
    from scipy.stats import spearmanr

    if len(whole) < 2:
        return float("nan")
    single = [robustness_score(finite_means([scores]), labels) for scores in whole]
    pairs = [spearmanr(one, other)[0] for place, one in enumerate(single) for other in single[place + 1 :]]
    agreement = float(np.mean(pairs))
    if agreement <= 0:
        return agreement
    return len(whole) * agreement / (1 + (len(whole) - 1) * agreement)


def class_ranks(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rank of each value within its class.

    Parameters
    ----------
    values : ndarray, (N,)
    labels : ndarray, int, (N,)

    Returns
    -------
    ndarray, (N,), in [0, 1]
        0 for the lowest. Ties share their mean; a class of one has 0.5.

    Examples
    --------
    >>> class_ranks(np.array([3.0, 1.0, 2.0, 9.0]), np.array([0, 0, 0, 1]))
    array([1. , 0. , 0.5, 0.5])
    """
    from scipy.stats import rankdata

    ranks = np.full(len(values), 0.5)
    for label in np.unique(labels):
        own = labels == label
        if own.sum() > 1:
            ranks[own] = (rankdata(values[own]) - 1) / (own.sum() - 1)
    return ranks


def top_and_bottom(labels: Sequence[str], scores: Sequence[float], top: float) -> tuple[list[int], list[int]]:
    """Indices of the files with the highest and with the lowest score of each class.

    Parameters
    ----------
    labels : sequence of str, (N,)
    scores : sequence of float, (N,)
    top : float, in (0, 0.5]
        Share of each class.

    Returns
    -------
    highest, lowest : list of int
        Ascending.

    Examples
    --------
    >>> top_and_bottom(["a", "a", "b", "b"], [0.1, 0.9, 0.7, 0.3], 0.5)
    ([1, 2], [0, 3])
    """
    classes: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        classes.setdefault(label, []).append(index)
    check_share(top, min(map(len, classes.values())))
    highest: list[int] = []
    lowest: list[int] = []
    for indices in classes.values():
        ranked = sorted(indices, key=lambda index: (scores[index], index))
        count = int(top * len(ranked) + 1e-9)
        highest, lowest = highest + ranked[len(ranked) - count :], lowest + ranked[:count]
    return sorted(highest), sorted(lowest)


def check_share(top: float, fewest: int) -> None:
    """Raises InputError unless this share of every class, the smallest with `fewest` files, can go to either subset."""
    if not 0 < top <= 0.5:
        raise InputError("--top", "is a share of each class for either subset: above 0, at most 0.5", top)
    if int(top * fewest + 1e-9) < 1:
        raise InputError("--top", f"must leave a file of each class: {1 / fewest:.3g} or more", top)


def finite_means(whole: Sequence[FoldScores]) -> FoldScores:
    """Means over repetitions; infinity counts as the largest finite value."""
    mean: FoldScores = {}
    for name in (name for name in whole[0] if all(name in scores for scores in whole)):
        stack = np.stack([scores[name] for scores in whole]).astype(np.float64)
        finite = stack[np.isfinite(stack)]
        largest = finite.max() if finite.size and finite.max() > 0 else 1.0  # if all are infinite, any number will do
        mean[name] = np.where(np.isposinf(stack), largest, stack).mean(0)
    return mean
