"""Do two classifiers make the same mistakes?"""

from typing import NamedTuple

import numpy as np

from notbugs.stats import wilson_interval


class ErrorConsistency(NamedTuple):
    """How alike the predictions of two classifiers are. What is not defined is None.

    Attributes
    ----------
    n : int
        Images.
    agreement : float, in [0, 1]
        Share of all images with the same prediction.
    both_wrong : int
        Images that both misclassify.
    same_mistake, same_mistake_ci_low, same_mistake_ci_high : float or None, in [0, 1]
        Share of these with the same prediction, and its 95 % CI.
    same_mistake_by_chance : float or None, in [0, 1]
        The same share if each drew its mistake at random from all those it makes on images of that class (a little high where
        these are few).
    consistency : float or None, in [-1, 1]
        Cohen's kappa of being correct: 0 for independent classifiers of their accuracies.
    """

    n: int
    agreement: float
    both_wrong: int
    same_mistake: float | None
    same_mistake_ci_low: float | None
    same_mistake_ci_high: float | None
    same_mistake_by_chance: float | None
    consistency: float | None


def error_consistency(predictions: np.ndarray, other_predictions: np.ndarray, labels: np.ndarray) -> ErrorConsistency:
    """Agreement of two classifiers, on all images and in their mistakes.

    Parameters
    ----------
    predictions, other_predictions, labels : ndarray, int, (N,)
        Classes from 0.

    Returns
    -------
    ErrorConsistency

    References
    ----------
    Geirhos et al. 2020, "Beyond accuracy: quantifying trial-by-trial behaviour of CNNs and humans by measuring error
    consistency".

    Examples
    --------
    >>> result = error_consistency(np.array([0, 1, 2, 2]), np.array([0, 2, 2, 2]), np.array([0, 0, 0, 2]))
    >>> result.agreement, result.both_wrong, result.same_mistake, result.consistency
    (0.75, 2, 0.5, 1.0)
    """
    both_wrong = (predictions != labels) & (other_predictions != labels)
    count, same = int(both_wrong.sum()), int((both_wrong & (predictions == other_predictions)).sum())
    low, high = wilson_interval(same, count) if count else (None, None)
    p, q = (predictions == labels).mean(), (other_predictions == labels).mean()
    expected = p * q + (1 - p) * (1 - q)
    observed = ((predictions == labels) == (other_predictions == labels)).mean()
    return ErrorConsistency(
        n=len(labels),
        agreement=float((predictions == other_predictions).mean()),
        both_wrong=count,
        same_mistake=same / count if count else None,
        same_mistake_ci_low=low,
        same_mistake_ci_high=high,
        same_mistake_by_chance=_same_by_chance(predictions, other_predictions, labels, both_wrong) if count else None,
        consistency=float((observed - expected) / (1 - expected)) if expected < 1 else None,
    )


def _same_by_chance(predictions: np.ndarray, other_predictions: np.ndarray, labels: np.ndarray, both_wrong: np.ndarray) -> float:
    """Mean over the images that both misclassify: probability that independent mistakes on their class are the same."""
    classes = int(max(predictions.max(), other_predictions.max(), labels.max())) + 1
    total = 0.0
    for label in np.unique(labels[both_wrong]):
        own = labels == label
        shares = []
        for each in (predictions, other_predictions):
            mistakes = np.bincount(each[own & (each != label)], minlength=classes)
            shares.append(mistakes / mistakes.sum())
        total += int((both_wrong & own).sum()) * float(shares[0] @ shares[1])
    return total / int(both_wrong.sum())
