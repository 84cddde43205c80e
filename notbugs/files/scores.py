"""From the scores of all folds to one row per file: means over repetitions, robustness, and a category."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.files.columns import COLUMNS
from notbugs.files.crossfit import (
    SEED_KEYS,
    CrossfitConfig,
    Progress,
    fold_seed,
    merge_folds,
    score_fold,
    stratified_folds,
)
from notbugs.files.fold_scores import FoldScores
from notbugs.runs.tables import FileRow

ROBUST_EVIDENCE = ("robust_minimum_norm", "robust_attacked_margin", "trained_on_robust_margin")
STANDARD_EVIDENCE = ("standard_minimum_norm", "standard_margin", "trained_on_nonrobust_margin")


def per_file(
    dataset: Dataset,
    config: CrossfitConfig,
    *,
    folds: int = 3,
    repeats: int = 3,
    seed: int = 0,
    test: Dataset | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> list[FileRow]:
    """Scores of every file. No file is scored by a model that was trained on it.

    Parameters
    ----------
    dataset : Dataset
    config : CrossfitConfig
    folds : int
        2 or more, at most the files of the smallest class.
    repeats : int
        How often, with other folds and other models each time; 1 or more.
    seed : int
    test : Dataset, optional
        The test part, for margin_from_spurious_features.
    device : torch.device or str
    progress : callable, optional
        Called with the share done and a few words.

    Returns
    -------
    list of FileRow
        In the order of the data set; `COLUMNS` has range and direction of each column.

    Raises
    ------
    InputError
        If the files cannot be split into so many folds.

    Examples
    --------
    >>> from notbugs import data
    >>> from notbugs.search import NormBall
    >>> digits = data.load("digits").train.select(slice(0, 40))
    >>> config = CrossfitConfig(NormBall("l2", 0.5), width=2, epochs=1, invert_steps=1, train_on_versions=False)
    >>> rows = per_file(digits, config, folds=2, repeats=1)
    >>> len(rows), 0 <= rows[0].robustness <= 1
    (40, True)
    """
    if repeats < 1:
        raise InputError("--repeats", "must be 1 or more", repeats)
    whole = []
    for repeat in range(repeats):
        dealt, parts = stratified_folds(dataset.labels, folds, fold_seed(seed, repeat)), []
        for fold in range(folds):
            done = repeat * folds + fold
            report = (lambda share, words, done=done: progress((done + share) / (repeats * folds), words)) if progress else None
            own = fold_seed(seed, repeat, fold)
            parts.append(score_fold(dataset, config, dealt == fold, seed=own, test=test, device=device, progress=report))
        whole.append(merge_folds(dealt, parts))
    return combine(dataset, whole)


def combine(dataset: Dataset, whole: Sequence[FoldScores]) -> list[FileRow]:
    """One row per file from the scores of all repetitions.

    Parameters
    ----------
    dataset : Dataset
    whole : sequence of FoldScores
        One for each repetition: `merge_folds`.

    Returns
    -------
    list of FileRow
        Means over the repetitions; robustness: `robustness_score`. A minimum norm that was not found counts as the largest that
        was.
    """
    labels = dataset.labels.numpy()
    mean, models = _finite_means(whole), fitted_models(whole[0])
    correct = {name: np.stack([scores[f"{name}_margin"] > 0 for scores in whole]).mean(0) for name in models}
    robustness = robustness_score(mean, labels)
    suggested = _mean_probabilities(mean, models).argmax(1)
    categories = _categories(robustness, likely_label_errors(mean, models, labels), np.mean(list(correct.values()), axis=0))
    columns = {column.column for column in COLUMNS}
    scores = {name: values for name, values in mean.items() if name in columns}
    scores |= {f"{name}_correct": values for name, values in correct.items() if f"{name}_correct" in columns}
    scores["robustness"] = robustness
    scores["label_quality"] = _label_probabilities(mean["standard_probabilities"], labels)
    scores["robust_confidence"] = _label_probabilities(mean["robust_probabilities"], labels)
    scores["pgd_steps_to_misclassify"] = mean["robust_pgd_steps_to_misclassify"]
    return [
        FileRow(
            index=index,
            file=file,
            label=dataset.classes[labels[index]],
            category=categories[index],
            suggested_label=dataset.classes[suggested[index]],
            **{name: float(values[index]) for name, values in scores.items()},
        )
        for index, file in enumerate(dataset.names)
    ]


def fitted_models(scores: Mapping[str, np.ndarray]) -> list[str]:
    """The cross-fitted models that these scores are of."""
    return [name for name in SEED_KEYS if f"{name}_probabilities" in scores]


def mean_probabilities(whole: Sequence[FoldScores]) -> dict[str, np.ndarray]:
    """Probabilities of all classes by each cross-fitted model, (N, K), means over the repetitions."""
    return {name: np.stack([scores[f"{name}_probabilities"] for scores in whole]).mean(0) for name in fitted_models(whole[0])}


def _categories(robustness: np.ndarray, label_errors: np.ndarray, correct: np.ndarray) -> list[str]:
    """The category of each file; correct: share of models that predict the label."""
    return [
        "likely label error" if error else "ambiguous" if share < 0.5 else "robust" if rank >= 0.5 else "non-robust"
        for rank, error, share in zip(robustness, label_errors, correct, strict=True)
    ]


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


def rank_reliability(whole: Sequence[FoldScores], labels: np.ndarray) -> float:
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
    single = [robustness_score(_finite_means([scores]), labels) for scores in whole]
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


def likely_label_errors(mean: Mapping[str, np.ndarray], models: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Files for which all models predict the same other class, at least as confidently as for files of that class.

    Parameters
    ----------
    mean : mapping of str to ndarray
        NAME_probabilities (N, K) of each model.
    models : sequence of str
    labels : ndarray, int, (N,)

    Returns
    -------
    ndarray, bool, (N,)

    References
    ----------
    The threshold, the mean probability of a class over the files with that label: Northcutt et al. 2021, "Confident Learning",
    section 3.1.
    """
    predictions = np.stack([mean[f"{name}_probabilities"].argmax(1) for name in models])
    same = (predictions == predictions[0]).all(0) & (predictions[0] != labels)
    probabilities = _mean_probabilities(mean, models)
    classes = range(probabilities.shape[1])
    thresholds = np.array([probabilities[labels == k, k].mean() if (labels == k).any() else 1.0 for k in classes])
    errors: np.ndarray = same & (_label_probabilities(probabilities, predictions[0]) >= thresholds[predictions[0]])
    return errors


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


def _finite_means(whole: Sequence[FoldScores]) -> FoldScores:
    """Means over repetitions; infinity counts as the largest finite value."""
    mean: FoldScores = {}
    for name in whole[0]:
        stack = np.stack([scores[name] for scores in whole]).astype(np.float64)
        finite = stack[np.isfinite(stack)]
        largest = finite.max() if finite.size and finite.max() > 0 else 1.0  # if all are infinite, any number will do
        mean[name] = np.where(np.isposinf(stack), largest, stack).mean(0)
    return mean


def _mean_probabilities(mean: Mapping[str, np.ndarray], models: Sequence[str]) -> np.ndarray:
    """Mean over models of the probabilities of all classes, (N, K)."""
    probabilities: np.ndarray = np.mean([mean[f"{name}_probabilities"] for name in models], axis=0)
    return probabilities


def _label_probabilities(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probability of one class for each file, (N,)."""
    chosen: np.ndarray = probabilities[np.arange(len(labels)), labels]
    return chosen
