"""Confidence intervals, all 95 %, thin over `scipy`: Wilson, Newcombe, Student, Bonferroni, Fisher. Imports no torch."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    """A mean over n values and its 95 % CI."""

    value: float
    ci_low: float
    ci_high: float
    n: int


def wilson_interval(correct: float, n: int, comparisons: int = 1) -> tuple[float, float]:
    """95 % CI of a proportion (Wilson).

    Parameters
    ----------
    correct : int or float
        From 0 to n.
    n : int
        1 or more.
    comparisons : int
        As in `student_quantile`.

    Returns
    -------
    ci_low, ci_high : float, in [0, 1]

    Examples
    --------
    >>> low, high = wilson_interval(90, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)
    """
    from scipy.special import ndtri

    # the same figures, to the last bit, as scipy.stats.binomtest(correct, n).proportion_ci(method="wilson"), which computes
    # a p-value first: 5 ms an interval, and a study has thousands of them
    share, z = correct / n, float(ndtri(1 - 0.025 / comparisons))
    scale = 2 * (n + z**2)
    center, half_width = (2 * n * share + z**2) / scale, z / scale * math.sqrt(4 * n * share * (1 - share) + z**2)
    return 0.0 if correct == 0 else center - half_width, 1.0 if correct == n else center + half_width


def newcombe_difference(p: tuple[float, float, float], q: tuple[float, float, float]) -> tuple[float, float, float]:
    """Difference p − q of two independent proportions, with its 95 % CI (Newcombe).

    Parameters
    ----------
    p, q : tuple of (value, ci_low, ci_high)
        Two proportions with their Wilson intervals.

    Returns
    -------
    difference, ci_low, ci_high : float, in [-1, 1]

    References
    ----------
    Newcombe 1998, Statistics in Medicine 17, method 10.

    Examples
    --------
    >>> p, q = (0.9, *wilson_interval(90, 100)), (0.8, *wilson_interval(80, 100))
    >>> [round(value, 3) for value in newcombe_difference(p, q)]
    [0.1, 0.0, 0.199]
    """
    difference = p[0] - q[0]
    low = difference - math.hypot(p[0] - p[1], q[2] - q[0])
    return difference, low, difference + math.hypot(p[2] - p[0], q[0] - q[1])


def visible_difference(n: int) -> float:
    """Half the 95 % CI of the difference of two accuracies near 50 % on n images each: differences below can hardly be seen.

    Examples
    --------
    >>> [round(visible_difference(n), 2) for n in (18, 200, 1000)]
    [0.33, 0.1, 0.04]
    """
    return student_quantile(math.inf) * math.sqrt(0.5 / n)


def student_quantile(freedom: float, comparisons: int = 1) -> float:
    """Half width of a two-sided 95 % CI in standard errors: Student's t with `freedom` degrees of freedom.

    Parameters
    ----------
    freedom : float
        Degrees of freedom, above 0.
    comparisons : int
        All `comparisons` intervals of this width hold together in 95 % of cases (Bonferroni).

    Examples
    --------
    >>> round(student_quantile(2), 3)
    4.303
    """
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls, without its second of imports

    return float(stdtrit(freedom, 1 - 0.025 / comparisons))


def student_interval(values: Sequence[float], comparisons: int = 1) -> tuple[float, float, float]:
    """Mean over seeds with its 95 % CI (Student), wider where several such intervals are to hold together (Bonferroni).

    Parameters
    ----------
    values : sequence of float
        Two or more.
    comparisons : int
        As in `student_quantile`.

    Returns
    -------
    mean, ci_low, ci_high : float

    Examples
    --------
    >>> [round(value, 3) for value in student_interval([0.80, 0.82, 0.84])]
    [0.82, 0.77, 0.87]
    >>> [round(value, 3) for value in student_interval([0.80, 0.82, 0.84], comparisons=2)]
    [0.82, 0.748, 0.892]
    """
    mean = math.fsum(values) / len(values)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    half_width = student_quantile(len(values) - 1, comparisons) * error
    return mean, mean - half_width, mean + half_width


def mean_interval(values: np.ndarray) -> Mean:
    """Mean over images with its 95 % CI (Student).

    Parameters
    ----------
    values : ndarray, (n,)

    Returns
    -------
    Mean
        The interval of a single value is infinite.

    Examples
    --------
    >>> mean = mean_interval(np.array([0.0, 1.0, 1.0, 1.0]))
    >>> mean.value, round(mean.ci_low, 3), round(mean.ci_high, 3), mean.n
    (0.75, -0.046, 1.546, 4)
    """
    n, mean = len(values), float(values.mean())
    half_width = float(student_quantile(n - 1) * values.std(ddof=1) / n**0.5) if n > 1 else math.inf
    return Mean(mean, mean - half_width, mean + half_width, n)


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation, 0 where x or y is constant.

    Parameters
    ----------
    x, y : sequence of float, (n,)
        n is 2 or more.

    Returns
    -------
    float, in [-1, 1]

    Examples
    --------
    >>> round(correlation([1, 2, 3], [1, 3, 2]), 3)
    0.5
    """
    from scipy.stats import pearsonr

    if len(set(x)) == 1 or len(set(y)) == 1:
        return 0.0
    return float(pearsonr(x, y)[0])


def correlation_interval(correlation: float, n: int) -> tuple[float, float]:
    """95 % CI of Pearson's correlation over n points (Fisher's z).

    Parameters
    ----------
    correlation : float, in [-1, 1]
    n : int
        4 or more.

    Returns
    -------
    ci_low, ci_high : float, in [-1, 1]

    Examples
    --------
    >>> low, high = correlation_interval(0.5, 20)
    >>> round(low, 3), round(high, 3)
    (0.074, 0.772)
    """
    z = math.atanh(max(min(correlation, 1 - 1e-12), 1e-12 - 1))
    half_width = 1.959964 / math.sqrt(n - 3)
    return math.tanh(z - half_width), math.tanh(z + half_width)
