"""What rows of a study amount to, as means over seeds: those of controls, transfer and analyses."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from notbugs.report.format import Estimate
from notbugs.report.seed_mean import Value, seed_mean
from notbugs.runs.tables.analyses import NTKFeatureRow, SaliencyRow
from notbugs.runs.tables.study import TrainingRow
from notbugs.runs.tables.transferability import ControlRow, ErrorConsistencyRow, RobustFeatureLeakageRow
from notbugs.stats import correlation, correlation_interval

LEAST_EIGENVECTORS = 5  # fewer give no correlation


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

    @classmethod
    def of(cls, rows: Sequence[ControlRow]) -> Self:
        """Rows of one model and control."""
        first = rows[0]
        excess = seed_mean((Value(row.excess, row.excess_ci_low, row.excess_ci_high, row.n) for row in rows), difference=True)
        above = seed_mean(
            (Value(row.above_chance, row.above_chance_ci_low, row.above_chance_ci_high, row.n) for row in rows), difference=True
        )
        assert excess is not None
        assert above is not None
        accuracy = sum(row.accuracy for row in rows) / len(rows)
        control_accuracy = sum(row.control_accuracy for row in rows) / len(rows)
        return cls(first.model, first.control, first.rules_out, accuracy, control_accuracy, excess, above)


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

    @classmethod
    def of(cls, points: Sequence[tuple[str, float, float]], seeds: int) -> Self:
        """Of means over so many seeds.

        The CI is Fisher's over the architectures: the same few architectures once more, of another seed, are no further ones.
        """
        return cls(points, _correlation(points, seeds), _correlation(points[1:], seeds))


@dataclass(frozen=True)
class ErrorConsistency:
    """Whether two models make the same mistakes on clean test images, as means over seeds."""

    agreement: Estimate | None
    both_wrong: Estimate | None
    same_mistake: Estimate | None
    same_mistake_by_chance: Estimate | None
    consistency: Estimate | None

    @classmethod
    def of(cls, rows: Sequence[ErrorConsistencyRow]) -> Self:
        """Rows of one pair of models."""
        same = (Value(row.same_mistake, row.same_mistake_ci_low, row.same_mistake_ci_high, row.n) for row in rows)
        return cls(
            agreement=seed_mean(Value(row.agreement, n=row.n) for row in rows),
            both_wrong=seed_mean(Value(row.both_wrong, n=row.n) for row in rows),
            same_mistake=seed_mean(same, share=True),
            same_mistake_by_chance=seed_mean(Value(row.same_mistake_by_chance, n=row.n) for row in rows),
            consistency=seed_mean(Value(row.consistency, n=row.n) for row in rows),
        )


@dataclass(frozen=True)
class LeakageProbe:
    """A linear classifier on robust features alone: how many features, and its test accuracy; None where not measured."""

    features: Estimate | None
    accuracy: Estimate | None

    @classmethod
    def of(cls, rows: Sequence[RobustFeatureLeakageRow]) -> Self:
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

    found = float(spearmanr(*zip(*known, strict=True))[0])
    return Estimate(found, *correlation_interval(found, len(known)), len(known), 1, False)


def saliency_estimate(rows: Iterable[SaliencyRow], method: str, measure: str) -> Estimate | None:
    """One measure of the attributions in rows of one model, mean over seeds."""
    found = (row for row in rows if (row.method, row.measure) == (method, measure))
    return seed_mean(Value(row.value, row.ci_low, row.ci_high, row.n) for row in found)


def _correlation(points: Sequence[tuple[str, float, float]], seeds: int) -> Estimate:
    found = correlation([x for _, x, _ in points], [y for _, _, y in points])
    return Estimate(found, *correlation_interval(found, len(points)), len(points), seeds, False)
