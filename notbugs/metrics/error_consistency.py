"""Do two classifiers make the same mistakes?"""

from typing import Any

import numpy as np

from notbugs.stats import wilson_interval


def error_consistency(one: np.ndarray, other: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How alike two classifiers answer: one, other, labels are classes, int (N,).

    agree: share of all images with the same answer. both_wrong: images that both misread; same: share of these taken for the
    same class, with its 95 % interval; same_by_chance: what that would be if each, on an image of that class, drew its mistake
    from all those it makes on that class (a little high where these are few). consistency: how much more often both are right or
    both wrong than two independent classifiers of their accuracies would be, in [-1, 1], 0 for none (Geirhos et al. 2020, kappa).
    """
    n, wrong = len(labels), (one != labels) & (other != labels)
    both, same = int(wrong.sum()), int((wrong & (one == other)).sum())
    low, high = wilson_interval(same, both) if both else (0.0, 1.0)
    p, q = (one == labels).mean(), (other == labels).mean()
    expected, seen = p * q + (1 - p) * (1 - q), ((one == labels) == (other == labels)).mean()
    return {
        "n": n,
        "agree": float((one == other).mean()),
        "both_wrong": both,
        "same": same / both if both else "",
        "same_low": low if both else "",
        "same_high": high if both else "",
        "same_by_chance": _by_chance(one, other, labels, wrong) if both else "",
        "consistency": float((seen - expected) / (1 - expected)) if expected < 1 else "",
    }


def _by_chance(one: np.ndarray, other: np.ndarray, labels: np.ndarray, wrong: np.ndarray) -> float:
    """The mean, over the images both misread, of how often independent mistakes on their class would be the same."""
    count = int(max(one.max(), other.max(), labels.max())) + 1
    total = 0.0
    for label in np.unique(labels[wrong]):
        own = labels == label
        shares = []
        for answers in (one, other):
            mistakes = np.bincount(answers[own & (answers != label)], minlength=count)
            shares.append(mistakes / mistakes.sum())
        total += int((wrong & own).sum()) * float(shares[0] @ shares[1])
    return total / int(wrong.sum())
