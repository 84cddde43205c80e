"""Means over seeds, and what the tables of a full study are aggregated to."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from notbugs.report.format import Estimate
from notbugs.runs.tables.analyses import NTKFeatureRow
from notbugs.runs.tables.study import TrainingRow
from notbugs.runs.tables.transferability import RobustFeatureLeakageRow
from notbugs.stats import correlation_interval, student_interval

LEAST_EIGENVECTORS = 5  # fewer give no correlation


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
    first, means = measured[0], [round(value.value or 0.0, 9) for value in measured]  # or rounding errors would be differences
    if len(set(means)) == 1:
        low, high = (math.nan if end is None else end for end in (first.ci_low, first.ci_high))
        return Estimate(means[0], low, high, first.n, len(means), False)
    mean, low, high = student_interval(means)
    if share or difference:
        low, high = (min(max(end, 0.0 if share else -1.0), 1.0) for end in (low, high))
    return Estimate(mean, low, high, first.n, len(means), True)


@dataclass(frozen=True)
class ExcessOverControl:
    """A result on a relabeled set and one of its controls.

    Attributes
    ----------
    model, control : str
    rules_out : str
        The explanation that the control would support.
    accuracy, control_accuracy : float
        Means over seeds.
    excess, above_chance : Estimate
        Accuracy minus that of the control, and minus chance level.
    """

    model: str
    control: str
    rules_out: str
    accuracy: float
    control_accuracy: float
    excess: Estimate
    above_chance: Estimate


@dataclass(frozen=True)
class AccuracyTransferCorrelation:
    """Figure 3 of Ilyas et al. 2019: test accuracy after training on D_det, and transfer rate from the standard model.

    Attributes
    ----------
    points : sequence of (target, accuracy, transfer rate)
        One per architecture, the source's own first.
    correlation : Estimate
        Pearson's over the architectures.
    without_own : Estimate
        The same without the source's own architecture.
    """

    points: Sequence[tuple[str, float, float]]
    correlation: Estimate
    without_own: Estimate


@dataclass(frozen=True)
class ErrorConsistency:
    """Whether two models make the same mistakes on clean test images, as means over seeds."""

    agreement: Estimate | None
    both_wrong: Estimate | None
    same_mistake: Estimate | None
    same_mistake_by_chance: Estimate | None
    consistency: Estimate | None


@dataclass(frozen=True)
class LeakageProbe:
    """A linear classifier on robust features alone: how many features, and its test accuracy; None where not measured."""

    features: Estimate | None
    accuracy: Estimate | None

    @classmethod
    def of(cls, rows: Sequence[RobustFeatureLeakageRow]) -> "LeakageProbe":
        """Means over seeds."""
        return cls(
            seed_mean(Value(row.features) for row in rows),
            seed_mean((Value(row.accuracy, row.ci_low, row.ci_high, row.n or 0) for row in rows), share=True),
        )


@dataclass(frozen=True)
class LabelLeakage:
    """What gives the labels of one relabeled set away, as means over seeds.

    Attributes
    ----------
    set : str
    target_reached : Estimate or None
        Share that its source model predicts as the new label.
    separability : Estimate or None
        Accuracy of a linear classifier on the perturbations alone.
    probes : dict of LeakageProbe
        By the model whose robust features they use.
    other_model_predicts_new_label, other_model_keeps_label : Estimate or None
    peak, last : float or None
        Highest and last test accuracy in training.
    """

    set: str
    target_reached: Estimate | None
    separability: Estimate | None
    probes: dict[str, LeakageProbe]
    other_model_predicts_new_label: Estimate | None
    other_model_keeps_label: Estimate | None
    peak: float | None
    last: float | None


def peak_and_last(rows: Iterable[TrainingRow]) -> tuple[float, float] | tuple[None, None]:
    """Highest and last test accuracy in training, means over seeds; None where it was not recorded."""
    curves: dict[int, list[float]] = {}
    for row in rows:
        if row.test_accuracy is not None:
            curves.setdefault(row.seed, []).append(row.test_accuracy)
    if not curves:
        return None, None
    return sum(map(max, curves.values())) / len(curves), sum(curve[-1] for curve in curves.values()) / len(curves)


def rank_correlation_of_drop(rows: Sequence[NTKFeatureRow]) -> Estimate | None:
    """Spearman's correlation of an eigenvector's position with its drop of usefulness under attack, of the first seed.

    Returns None if fewer than 5 eigenvectors were measured, or if all drop alike. n: eigenvectors.
    """
    first = [row for row in rows if row.seed == rows[0].seed]
    pairs = [(row.eigenvector, row.usefulness - row.robust_usefulness) for row in first]
    known = [(position, drop) for position, drop in pairs if not math.isnan(drop)]
    if len(known) < LEAST_EIGENVECTORS or len({drop for _, drop in known}) == 1:
        return None
    from scipy.stats import spearmanr  # a second of imports, which most reports do without

    correlation = float(spearmanr(*zip(*known, strict=True))[0])
    return Estimate(correlation, *correlation_interval(correlation, len(known)), len(known), 1, False)
