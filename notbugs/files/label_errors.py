"""Likely label errors: how probable it is that a label is wrong, by out-of-fold probabilities that are calibrated first.

That a model disagrees with a label says little if the model is often wrong. Two numbers are fitted to all labels together: the
temperature of the probabilities, which makes those of a weak model flat, and the share of wrong labels. A label is a likely error
only where even calibrated probabilities leave no room for it.
"""

from typing import NamedTuple

import numpy as np

LIKELY = 0.95  # probability from which a file is called a likely label error: at most 5 of 100 such calls are to be wrong
REFERENCE_RATE = 0.01  # share of wrong labels that `detectable` assumes where fewer were found
TOO_WEAK = 0.1  # share of detectable label errors below which none is called
FIT_FILES = 10_000  # evenly spaced, to fit temperature and rate
TEMPERATURES = np.geomspace(0.05, 20.0, 61)
MAX_RATE = 0.5


class LabelErrors(NamedTuple):
    """Which labels are wrong.

    Attributes
    ----------
    probability : ndarray, (N,), in [0, 1]
        That the label of each file is wrong.
    rate : float, in [0, 0.5]
        Estimated share of wrong labels.
    detectable : float, in [0, 1]
        Share of random label errors that would have a probability of `LIKELY` or more. Low: the models are too weak.
    temperature : float
        Of the probabilities. Above 1: the models are overconfident.
    """

    probability: np.ndarray
    rate: float
    detectable: float
    temperature: float

    @property
    def too_weak(self) -> bool:
        """Whether the models would find less than a tenth of random label errors."""
        return self.detectable < TOO_WEAK

    @property
    def likely(self) -> np.ndarray:
        """The files that are called likely label errors, bool, (N,); none if the models are too weak."""
        found: np.ndarray = (self.probability >= LIKELY) & (not self.too_weak)
        return found


def label_errors(probabilities: np.ndarray, labels: np.ndarray) -> LabelErrors:
    """Probability of a label error for every file.

    A label is taken to be drawn from the calibrated probabilities and then, with probability `rate`, replaced by another class,
    each equally often. Temperature and rate maximize the likelihood of all labels. Where similar classes are confused more often
    than others, fewer of these label errors are found.

    Parameters
    ----------
    probabilities : ndarray, (N, K)
        Of all classes, by models that were not trained on the file.
    labels : ndarray, int, (N,)

    Returns
    -------
    LabelErrors

    References
    ----------
    Temperature: Guo et al. 2017, "On Calibration of Modern Neural Networks". Labels that are replaced at random: Lawrence and
    Schölkopf 2001, "Estimating a Kernel Fisher Discriminant in the Presence of Label Noise".

    Examples
    --------
    >>> labels = np.arange(400) % 4
    >>> certain, weak = 0.99 * np.eye(4)[labels] + 0.0025, 0.2 * np.eye(4)[labels] + 0.2
    >>> labels[:20] = (labels[:20] + 1) % 4
    >>> [int((label_errors(each, labels).probability >= LIKELY).sum()) for each in (certain, weak)]
    [20, 0]
    """
    logs = np.log(np.maximum(probabilities, 1e-30)).astype(np.float64)  # NumPy 1 would stay with 32 bits, in which 1e-300 is 0
    part = np.arange(0, len(labels), -(-len(labels) // FIT_FILES))
    temperature, rate = _fit(logs[part], labels[part])
    own = _softmax(logs / temperature)[np.arange(len(labels)), labels]
    every = _error_probability(_softmax(logs[part] / temperature), max(rate, REFERENCE_RATE), logs.shape[1])
    others = np.arange(logs.shape[1]) != labels[part, None]
    detectable = float((every[others] >= LIKELY).mean()) if others.any() else 0.0
    return LabelErrors(_error_probability(own, rate, logs.shape[1]), rate, detectable, temperature)


def _fit(logs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Temperature and rate of highest likelihood; logs: (N, K)."""
    best = (-np.inf, 1.0, 0.0)
    for temperature in TEMPERATURES:
        own = _softmax(logs / temperature)[np.arange(len(labels)), labels]
        wrong = (1 - own) / max(logs.shape[1] - 1, 1)
        rate = _best_rate(own, wrong)
        likelihood = float(np.log(np.maximum((1 - rate) * own + rate * wrong, 1e-300)).sum())
        best = max(best, (likelihood, float(temperature), rate))
    return best[1], best[2]


def _best_rate(own: np.ndarray, wrong: np.ndarray) -> float:
    """The share of wrong labels of highest likelihood, by bisection: the likelihood is concave in it."""
    difference = wrong - own

    def slope(rate: float) -> float:
        return float((difference / np.maximum(own + rate * difference, 1e-300)).sum())

    low, high = 0.0, MAX_RATE
    if slope(low) <= 0:
        return low
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low + high) / 2


def _error_probability(own: np.ndarray, rate: float, classes: int) -> np.ndarray:
    """Bayes' rule: the probability that a label of this calibrated probability is wrong."""
    wrong = rate * (1 - own) / max(classes - 1, 1)
    probability: np.ndarray = wrong / np.maximum(wrong + (1 - rate) * own, 1e-300)
    return probability


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    shares: np.ndarray = shifted / shifted.sum(1, keepdims=True)
    return shares
