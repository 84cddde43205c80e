"""The mean over seeds of one measurement, with its confidence interval."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from notbugs.report.format import Estimate
from notbugs.stats import student_interval


class Value(NamedTuple):
    """One measurement of one seed: None where there is none, an interval of NaN where it has none."""

    value: float | None
    ci_low: float | None = math.nan
    ci_high: float | None = math.nan
    n: int = 0


def seed_mean(values: Iterable[Value], *, share: bool = False, difference: bool = False) -> Estimate | None:
    """Mean over seeds, with Student's 95 % CI; of one seed, or of seeds that agree, with that measurement's own CI.

    Parameters
    ----------
    values : iterable of Value
        One per seed; empty ones are left out.
    share, difference : bool
        Clip the interval over seeds to [0, 1], as that of a share, or to [-1, 1], as that of a difference of two shares.

    Returns
    -------
    Estimate or None
        None if there is no measurement.

    Examples
    --------
    >>> seed_mean([Value(0.8), Value(0.82), Value(0.84)]).interval
    '[77.0, 87.0]'
    >>> seed_mean([Value(0.9), Value(0.96), Value(0.85)], difference=True).interval
    '[76.7, 100.0]'
    """
    measured = [value for value in values if value.value is not None]
    if not measured:
        return None
    first, means = measured[0], [value.value or 0.0 for value in measured]
    if not share:  # or rounding errors would be differences; equal shares, which are quotients of counts, have none
        means = [round(mean, 9) for mean in means]
    if len(set(means)) == 1:
        low, high = (math.nan if end is None else end for end in (first.ci_low, first.ci_high))
        return Estimate(means[0], low, high, first.n, len(means), False)
    mean, low, high = student_interval(means)
    if share or difference:
        low, high = (min(max(end, 0.0 if share else -1.0), 1.0) for end in (low, high))
    return Estimate(mean, low, high, first.n, len(means), True)
