"""In which order a model's outputs stand, found from its predictions: the order of the classes, or another one."""

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

SIGNIFICANT = 0.01  # p-value, in each half of the images, and of the permutation test
# How much of the way from chance to perfect an order must come: untrained networks came to 0.36 at most (docs/lab-log.md)
USUAL, ANY = 0.4, 0.5
TESTED = 0.2  # the same where a permutation test tells outputs in another order from bad models, and with very many classes
PERMUTATIONS = 199  # of that test
OWN_OUTPUT = 0.75  # a class has no output of its own if its most frequent one, given to another, is more frequent by this factor
BY_CHANCE = 0.05  # so seldom may as many classes have one if the most frequent output of each is random
MORE_OFTEN = 3  # two classes that are mixed up are no order: each is taken for the other less than three times as often
SAME = 0.01  # accuracies closer than this do not decide between a usual order and the best one

# Causes of usual orders
NUMBERS = "they are sorted by number (2 before 10), the classes of the data set as text (10 before 2)"
TEXT = "they are sorted as text (10 before 2), the classes of the data set by number (2 before 10)"
CASE = "they are sorted without regard to case, the classes of the data set with capitals first"
FROM_ONE = "they are shifted by one: the first class is the second output, as where labels begin at 1"
FROM_MINUS_ONE = "they are shifted by one: the second class is the first output"
REVERSE = "they are in reverse"
EXCHANGED = "the two are exchanged"
FIRST = "the first of them are the classes in order"
OTHER_CLASSES = "it may be a model of other classes"


class OutputOrder(NamedTuple):
    """Another order of the outputs than that of the classes, in which predictions are significantly more accurate.

    Attributes
    ----------
    outputs : tuple of int
        For each class the output that is it.
    accuracy : float
        If the outputs are read so, on images that did not choose the order.
    cause : str
        How the order comes about, or what else it may be, in words; "" if that is not known.
    """

    outputs: tuple[int, ...]
    accuracy: float
    cause: str


def find_order(
    predicted: np.ndarray, labels: np.ndarray, classes: Sequence[str], outputs: int | None = None
) -> OutputOrder | None:
    """The order in which a model's outputs seem to stand; None if it is that of the classes, or unclear.

    Two ways. Usual orders (sorted as text, as numbers, shifted by one) are compared with the plain one on all images. Any other
    order is the best assignment of outputs to classes on one half of the images, and compared on the other half; and the other
    way round. An order must be significantly more accurate than the plain one (exact one-sided McNemar test, p below 0.01; in
    both halves). It must come 0.4 of the way from chance to perfect accuracy, and that must be twice as far as the plain order,
    or halve what is missing. And classes whose output is another one must be recognized three times as often. All but the test
    weights each class equally: a model that predicts one class alone is no better in any order.

    An order that is no usual one must come as far as bad models hardly do: 0.5 of the way with 8 classes or fewer, 0.43 with 10,
    0.2 with 35 or more. 0.2 is enough if a permutation test says that the classes do not have their outputs at random (p < 0.01).
    In models of other classes several classes share their most frequent output. Where more than one of 10 is without an output
    of its own, the cause says so: such a model and a weak one in another order look the same.

    Parameters
    ----------
    predicted : ndarray, int (n,)
        The output with the highest value, image by image.
    labels : ndarray, int (n,)
        The class of each image.
    classes : sequence of str
        Names of the K classes.
    outputs : int, optional
        How many outputs there are, K or more. Default: K. With more there is no plain order: chance takes its place.

    Examples
    --------
    >>> labels = np.arange(120) % 12
    >>> classes = sorted(map(str, range(12)))
    >>> found = find_order(np.array([int(classes[label]) for label in labels]), labels, classes)
    >>> found.outputs, found.accuracy
    ((0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9), 1.0)
    >>> find_order(labels, labels, classes) is None
    True
    """
    outputs = len(classes) if outputs is None else outputs
    if outputs < len(classes) or len(np.unique(labels)) < 2:
        return None
    images = _Images(predicted, labels, len(classes), outputs)
    usual, best = _usual_order(images, classes), _best_order(images)
    return usual if usual and (best is None or usual.accuracy > best.accuracy - SAME) else best


class _Images(NamedTuple):
    """Predictions and labels, and how many classes and outputs there are."""

    predicted: np.ndarray
    labels: np.ndarray
    classes: int
    outputs: int

    def correct(self, order: Sequence[int]) -> np.ndarray:
        """Which predictions are correct if the outputs are read so."""
        found: np.ndarray = np.asarray(order)[self.labels] == self.predicted
        return found

    def moved(self, order: Sequence[int]) -> np.ndarray:
        """Which images are of a class whose output is another one in this order."""
        found: np.ndarray = np.asarray(order)[self.labels] != self.labels
        return found

    def plain(self) -> np.ndarray | None:
        """Which predictions are correct as they are; None with more outputs than classes."""
        return self.correct(range(self.classes)) if self.outputs == self.classes else None

    def shares(self) -> np.ndarray:
        """Which share of the images of each class has each prediction, (K, outputs); 0 of a class without images."""
        pairs = self.labels * self.outputs + self.predicted
        confusion = np.bincount(pairs, minlength=self.classes * self.outputs).reshape(self.classes, self.outputs)
        found: np.ndarray = confusion / confusion.sum(1, keepdims=True).clip(1)
        return found

    def select(self, index: np.ndarray) -> "_Images":
        """Some of the images."""
        return self._replace(predicted=self.predicted[index], labels=self.labels[index])


# ---- usual orders ------------------------------------------------------------------------------------------------------------


def _usual_order(images: _Images, classes: Sequence[str]) -> OutputOrder | None:
    """The best of the usual orders, if it is significantly better than the plain one."""
    usual, whole = _usual_orders(classes, images.outputs), [np.arange(len(images.labels))]
    correct = {cause: images.correct(order) for cause, order in usual.items()}
    moved = {cause: images.moved(order) for cause, order in usual.items()}
    level = SIGNIFICANT / len(usual)
    better = [cause for cause in usual if _is_better(images, correct[cause], moved[cause], whole, level, USUAL)]
    cause = max(better, key=lambda each: int(correct[each].sum()), default="")
    return OutputOrder(usual[cause], float(correct[cause].mean()), cause) if cause else None


def _usual_orders(classes: Sequence[str], outputs: int) -> dict[str, tuple[int, ...]]:
    """Other orders that outputs often have: for each class its output, by the cause."""
    count, exact = len(classes), len(classes) == outputs
    plain, parts = tuple(range(count)), [re.split(r"([0-9]+)", name) for name in classes]
    by_number = [tuple(int(part) if place % 2 else part for place, part in enumerate(split)) for split in parts]
    found = {} if exact else {FIRST: plain}
    found |= {NUMBERS: _ranks(by_number), TEXT: _ranks(classes), CASE: _ranks([name.casefold() for name in classes])}
    found[FROM_ONE] = tuple((index + 1) % outputs for index in plain)
    if exact:
        found |= {FROM_MINUS_ONE: tuple((index - 1) % count for index in plain), REVERSE: plain[::-1]}
    if exact and count == 2:
        found = {EXCHANGED: (1, 0)}
    causes = {order: cause for cause, order in reversed(found.items())}  # of two causes of one order the first
    return {cause: order for order, cause in causes.items() if order != plain or not exact}


def _ranks(keys: Sequence[str | tuple[int | str, ...]]) -> tuple[int, ...]:
    """The place of each key once they are sorted."""
    return tuple(np.argsort(sorted(range(len(keys)), key=keys.__getitem__)).tolist())


# ---- any order ---------------------------------------------------------------------------------------------------------------


def _best_order(images: _Images) -> OutputOrder | None:
    """The best assignment of outputs to classes, if what one half of the images finds holds on the other."""
    halves = _halves(images.labels)
    if not all(map(len, halves)):
        return None
    correct, moved = np.zeros((2, len(images.labels)), dtype=bool)
    for half, other in (halves, halves[::-1]):
        order = _assignment(images.select(half))
        correct[other] = images.select(other).correct(order)
        moved[other] = images.select(other).moved(order)
    enough = _is_better(images, correct, moved, halves, SIGNIFICANT, _least_of_any(images))
    if not enough and not (_is_better(images, correct, moved, halves, SIGNIFICANT, TESTED) and _is_one_to_one(images)):
        return None
    order = _assignment(images)
    without = _without_output(images, order)
    unsure = f"{without} of {images.classes} classes then have no output of their own, so that {OTHER_CLASSES}"
    cause = unsure if without > most_without_output(images.classes) else ""
    return OutputOrder(tuple(order), float(correct.mean()), cause)


def _halves(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the second half of the images of each class: neighbors, frames of one video, are rarely in both."""
    order, counts = np.argsort(labels, kind="stable"), np.bincount(labels)
    ranks = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = np.zeros(len(labels), dtype=bool)
    first[order] = ranks < counts[labels[order]] // 2
    return first.nonzero()[0], (~first).nonzero()[0]


def _least_of_any(images: _Images) -> float:
    """How much of the way from chance to perfect any order must come: the less, the more classes there are.

    Of models whose confusion is random, each row drawn from Dirichlet's distribution with 0.3, 1 % come further in their best
    order: 0.43 with 10 classes, 0.28 with 20, 0.09 with 100. This is a curve above these, limited at both ends.
    """
    if images.outputs > images.classes:
        return ANY
    return max(TESTED, ANY * min(1.0, math.pow(8 / images.classes, 0.63)))


def _without_output(images: _Images, order: Sequence[int]) -> int:
    """How many classes are predicted as another output far more often than as theirs in this order."""
    shares = images.shares()
    return int((shares[np.arange(images.classes), order] < OWN_OUTPUT * shares.max(1)).sum())


@cache
def most_without_output(classes: int) -> int:
    """How many classes may be without an output of their own.

    If the most frequent output of each class is random, so few are without one in at most 5 % of all cases; or none of them.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> most_without_output(3), most_without_output(10), most_without_output(100)
    (0, 1, 31)
    """
    chances = np.zeros(classes + 1)  # of so many different outputs
    chances[0] = 1.0
    for _ in range(classes):
        known = np.arange(classes + 1) / classes
        chances = chances * known + np.concatenate([[0.0], (chances * (1 - known))[:-1]])
    allowed = np.flatnonzero(np.cumsum(chances[::-1]) <= BY_CHANCE)
    return int(allowed[-1]) if len(allowed) else 0


def _is_one_to_one(images: _Images) -> bool:
    """Whether the best assignment is better than if each class had its most frequent outputs at random (permutation test).

    In bad models classes share their most frequent output. Null hypothesis: the outputs of each class are exchanged at random.
    The more popular some outputs are, the more conservative is the test. Of fewer than 7 classes it shows nothing.
    """
    from scipy.optimize import linear_sum_assignment

    shares = images.shares()
    best = shares[linear_sum_assignment(shares, maximize=True)].sum()
    random, as_good = np.random.default_rng(0), 0
    for _ in range(PERMUTATIONS):
        other = random.permuted(shares, axis=1)
        as_good += other[linear_sum_assignment(other, maximize=True)].sum() >= best - 1e-9
        if (1 + as_good) / (1 + PERMUTATIONS) >= SIGNIFICANT:
            return False
    return True


def _assignment(images: _Images) -> list[int]:
    """For each class the output that is it: one each, so that the mean over the classes of their accuracies is highest."""
    from scipy.optimize import linear_sum_assignment

    shares = images.shares()
    np.fill_diagonal(shares, shares.diagonal() + 1e-9)  # where nothing speaks for another output, each class keeps its own
    chosen: list[int] = linear_sum_assignment(shares, maximize=True)[1].tolist()
    return chosen


# ---- better or not -----------------------------------------------------------------------------------------------------------


def _is_better(
    images: _Images, correct: np.ndarray, moved: np.ndarray, parts: Sequence[np.ndarray], level: float, least: float
) -> bool:
    """Whether another order is better than the plain one; significantly in each part.

    correct: predictions, in that order; moved: images of classes whose output is another one in it.
    """
    from scipy.special import bdtrc  # binomial tail, without the second that importing scipy.stats takes

    plain = images.plain()
    reached = _reached(images.labels, correct)
    if reached < least:
        return False
    if plain is not None:
        labels, before = images.labels[moved], _reached(images.labels, plain)
        seldom = _mean_accuracy(labels, correct[moved]) < MORE_OFTEN * _mean_accuracy(labels, plain[moved])
        if seldom or (reached < 2 * before and 1 - reached > (1 - before) / 2):
            return False
    for part in parts:
        if plain is None:
            won, changed, likely = correct[part].sum(), len(part), 1 / images.classes
        else:
            won, changed, likely = (correct & ~plain)[part].sum(), (correct ^ plain)[part].sum(), 0.5
        if not won or bdtrc(won - 1, changed, likely) >= level:
            return False
    return True


def _reached(labels: np.ndarray, correct: np.ndarray) -> float:
    """How much of the way from chance (0) to perfect accuracy (1) the mean over the classes comes."""
    chance = 1 / len(np.unique(labels))
    return (_mean_accuracy(labels, correct) - chance) / (1 - chance)


def _mean_accuracy(labels: np.ndarray, correct: np.ndarray) -> float:
    """The mean over the classes of their accuracies; 0 without images."""
    counts = np.bincount(labels)
    known = counts > 0
    return float((np.bincount(labels, weights=correct)[known] / counts[known]).mean()) if known.any() else 0.0
