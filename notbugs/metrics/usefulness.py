"""Usefulness of features: how well each one separates a class from all others. Definition: Ilyas et al. 2019, section 2."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

RHO = 0.1  # a feature is rho-useful for a class, here "useful", from this usefulness on


class Usefulness(NamedTuple):
    """Usefulness of F features for K classes, each with its 95 % CI.

    Attributes
    ----------
    value, ci_low, ci_high : ndarray, (F, K), in [-1, 1]
        E[y f(x)]: y is 1 for the class and -1 for all others, both sides equally likely; f is standardized under the same
        distribution. Negative: the feature speaks against the class, and -f for it.
    scale : ndarray, (F, K)
        Standard deviation of f; NaN where the usefulness is not defined.
    n : int
        Images.
    standard_error : ndarray, (F, K)
        Of the value, for tests: a class with a smaller variance than the pooled one gets the pooled one.
    degrees_of_freedom : ndarray, (K,)
        Of the smaller side.
    """

    value: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    scale: np.ndarray
    n: int
    standard_error: np.ndarray
    degrees_of_freedom: np.ndarray


def usefulness(values: Tensor, labels: Tensor, classes: int) -> Usefulness:
    """Usefulness E[y f] of every feature for every class, as a binary task "this class or not" with both sides equally likely.

    Parameters
    ----------
    values : Tensor, float, (N, F)
        The features.
    labels : Tensor, int64, (N,)
    classes : int
        Number of classes, K.

    Returns
    -------
    Usefulness
        0 with the interval [-1, 1] for a class with fewer than two images, and for a constant feature.

    References
    ----------
    Ilyas et al. 2019, section 2.

    Examples
    --------
    >>> import torch
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> usefulness(torch.tensor([[3.0], [5.0], [0.0], [0.0]]), labels, 2).value.round(2)
    array([[ 0.94, -0.94]])
    """
    count = values.shape[1]
    result = Usefulness(
        value=np.zeros((count, classes)),
        ci_low=np.full((count, classes), -1.0),
        ci_high=np.ones((count, classes)),
        scale=np.full((count, classes), np.nan),
        n=len(values),
        standard_error=np.full((count, classes), np.inf),
        degrees_of_freedom=np.ones(classes),
    )
    table = values.double().numpy()
    largest = np.abs(table).max(initial=1e-30)
    for label in range(classes):
        own, rest = table[labels.numpy() == label], table[labels.numpy() != label]
        if min(len(own), len(rest)) >= 2:
            _fill_class(result, label, own, rest, largest)
    return result


def _fill_class(result: Usefulness, label: int, own: np.ndarray, rest: np.ndarray, largest: float) -> None:
    """Fill the column of one class; own, rest: features of its images and of all others."""
    from scipy.stats import ttest_ind

    difference = own.mean(0) - rest.mean(0)
    scale = np.sqrt((own.var(0) + rest.var(0)) / 2 + (difference / 2) ** 2)
    varies = (scale > 1e-6 * largest) & ((own.var(0) > 0) | (rest.var(0) > 0))
    result.scale[:, label] = np.where(varies, scale, np.nan)
    result.value[varies, label] = difference[varies] / 2 / scale[varies]
    pooled = ((len(own) - 1) * own.var(0, ddof=1) + (len(rest) - 1) * rest.var(0, ddof=1)) / (len(own) + len(rest) - 2)
    variances = [np.maximum(side.var(0, ddof=1), pooled) / len(side) for side in (own, rest)]
    result.standard_error[varies, label] = (np.sqrt(variances[0] + variances[1]) / 2)[varies] / scale[varies]
    result.degrees_of_freedom[label] = min(len(own), len(rest)) - 1
    interval = ttest_ind(own[:, varies], rest[:, varies], equal_var=False).confidence_interval()
    result.ci_low[varies, label] = np.clip(interval.low / 2 / scale[varies], -1, 1)
    result.ci_high[varies, label] = np.clip(interval.high / 2 / scale[varies], -1, 1)
