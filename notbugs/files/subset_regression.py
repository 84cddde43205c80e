"""Which files make a classifier robust? Learned from trainings on halves of the training files.

Every score of a file says what some model does with it, none what training on it does. Here standard classifiers are trained on
pairs of halves of the files, by random combinations of the scores, and attacked on files that are held out. The difference of
their robust accuracies, the separation, is regressed on how much the halves differ in the scores. This is a datamodel (Ilyas et
al. 2022) with one parameter for each score, not for each file. The test part is not used.

Scores are correlated: all of them say in part how difficult a file is. Combinations are drawn, and regressed, in coordinates that
are not (whitened), so that the pairs tell as much about what distinguishes two scores as about what they share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from notbugs.data import Dataset
from notbugs.files.fold_scores import FoldScores
from notbugs.files.robustness import class_ranks
from notbugs.files.score_coordinates import SCORES, scores_to_combine, whitened
from notbugs.files.subset_pairs import Pair
from notbugs.runs.tables.files import FileRow, SubsetPairRow, SubsetRegressionRow, SubsetRegressionWeightRow
from notbugs.runs.tables.row import Row
from notbugs.stats import correlation_interval

RIDGES = tuple(10.0**power for power in np.arange(-4, 2.5, 0.5))  # beside a mean of 1 on the diagonal


@dataclass(frozen=True)
class Regression:
    """What was learned from all pairs.

    Attributes
    ----------
    weights, clean_weights : dict of str to float
        Of the rank by each score, for the separation and for the difference of clean accuracy.
    predicted : ndarray, (pairs,)
        The separation of each pair, by the regression of all others.
    correlation, clean_correlation : tuple of float
        Of what the regression of all other pairs predicts with what was measured, for the separation and for the difference of
        clean accuracy: Pearson's r, with its 95 % CI over the pairs (Fisher's z).
    combined, equal_clean : ndarray, (N,), in [0, 1]
        Rank of each file within its class by the combination that is predicted to separate furthest, and by that of those
        combinations whose halves are predicted to be equally accurate.
    """

    weights: dict[str, float]
    clean_weights: dict[str, float]
    predicted: np.ndarray
    correlation: tuple[float, float, float]
    clean_correlation: tuple[float, float, float]
    combined: np.ndarray
    equal_clean: np.ndarray


def regress(pairs: Sequence[Pair], scores: Mapping[str, np.ndarray], labels: np.ndarray) -> Regression:
    """The weight of each score, from all pairs; labels: int, (N,)."""
    values, by_score = whitened(scores)
    differences = np.stack([values[pair.upper].mean(0) - values[pair.lower].mean(0) for pair in pairs])
    separations = np.array([upper - lower for upper, lower in (pair.robust for pair in pairs)])
    clean = np.array([upper - lower for upper, lower in (pair.clean for pair in pairs)])
    weights, clean_weights = (ridge_weights(differences, each) for each in (separations, clean))
    predicted = left_out_predictions(differences, separations)
    equal = orthogonal(weights, clean_weights)
    return Regression(
        dict(zip(scores, (by_score @ weights).tolist(), strict=True)),
        dict(zip(scores, (by_score @ clean_weights).tolist(), strict=True)),
        predicted,
        _correlation(predicted, separations),
        _correlation(left_out_predictions(differences, clean), clean),
        class_ranks(values @ weights, labels),
        class_ranks(values @ equal, labels),
    )


def _correlation(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float, float]:
    """Pearson's r with its 95 % CI; 0 where either is constant."""
    constant = predicted.std() == 0 or measured.std() == 0
    found = 0.0 if constant else float(np.corrcoef(predicted, measured)[0, 1])
    return found, *correlation_interval(found, len(measured))


def learned_rows(
    rows: Sequence[FileRow], pairs: Sequence[Pair], whole: Sequence[FoldScores], dataset: Dataset
) -> tuple[list[FileRow], list[Row]]:
    """The rows of all files with both columns, and the tables of the regression; whole: one entry for each repetition."""
    labels = dataset.labels.numpy()
    found = regress(pairs, scores_to_combine(whole, labels), labels)
    both = zip(rows, found.combined.tolist(), found.equal_clean.tolist(), strict=True)
    with_ranks = [replace(row, subset_regression=rank, subset_regression_equal_clean=equal) for row, rank, equal in both]
    files = len(pairs[0].upper) + len(pairs[0].lower)
    correlation, ci_low, ci_high = found.correlation
    clean_correlation, clean_ci_low, clean_ci_high = found.clean_correlation
    summary = SubsetRegressionRow(
        left_out=", ".join(name for name in SCORES if name not in found.weights) or None,
        pairs=len(pairs),
        files=files,
        n=pairs[0].held_out,
        correlation=correlation,
        ci_low=ci_low,
        ci_high=ci_high,
        clean_correlation=clean_correlation,
        clean_ci_low=clean_ci_low,
        clean_ci_high=clean_ci_high,
    )
    learned: list[Row] = [summary]
    for name, weight in found.weights.items():
        learned.append(SubsetRegressionWeightRow(score=name, weight=weight, clean_weight=found.clean_weights[name]))
    for number, (pair, predicted) in enumerate(zip(pairs, found.predicted.tolist(), strict=True)):
        learned.append(
            SubsetPairRow(
                pair=number + 1,
                clean_upper=pair.clean[0],
                clean_lower=pair.clean[1],
                robust_upper=pair.robust[0],
                robust_lower=pair.robust[1],
                separation=pair.robust[0] - pair.robust[1],
                predicted=predicted,
            )
        )
    return with_ranks, learned


def left_out_predictions(differences: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """The outcome of each pair by the regression of all others, whose ridge is chosen without it, too."""
    every = np.arange(len(outcomes))
    rests = [every != left for left in every]
    return np.array([differences[~rest][0] @ ridge_weights(differences[rest], outcomes[rest]) for rest in rests])


def ridge_weights(differences: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """The weight of each coordinate.

    Ridge regression without an intercept: halves that do not differ do not separate. The ridge is the one with the least error
    for pairs left out one by one.

    Parameters
    ----------
    differences : ndarray, (pairs, K)
    outcomes : ndarray, (pairs,)

    Returns
    -------
    ndarray, (K,)
    """
    gram = differences.T @ differences
    fits = []
    for ridge in RIDGES:
        inverse = np.linalg.inv(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)))
        weights = inverse @ differences.T @ outcomes
        leverage = np.einsum("ij,jk,ik->i", differences, inverse, differences)
        errors = (outcomes - differences @ weights) / (1 - leverage)
        fits.append((float((errors**2).mean()), weights))
    best: np.ndarray = min(fits, key=lambda fit: fit[0])[1]
    return best


def orthogonal(weights: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Weights of coordinates whose halves do not differ in what the other ones predict."""
    length = float(other @ other)
    found: np.ndarray = weights - (float(other @ weights) / length if length > 0 else 0.0) * other
    return found
