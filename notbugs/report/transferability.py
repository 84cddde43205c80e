"""Controls, label leakage, transferability and error consistency of a study, as means over seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from notbugs.report.format import Estimate
from notbugs.report.results import StudyResults
from notbugs.report.seed_mean import Value, seed_mean
from notbugs.runs.tables.study import SetRow, TrainingRow
from notbugs.runs.tables.transferability import (
    ControlRow,
    ErrorConsistencyRow,
    PerturbationLeakageRow,
    RobustFeatureLeakageRow,
    TransferRow,
)
from notbugs.stats import correlation, correlation_interval
from notbugs.study.catalog import in_order
from notbugs.study.catalog.datasets import SETS
from notbugs.study.catalog.models import MODELS, OWN_MODELS, trained_on
from notbugs.study.comparisons import CONTROLS_OF, LEAKAGE_PROBES

# Architectures of figure 3, the source's own first: as targets of its examples -> trained on D_det
TRAINED_ON_D_DET = {
    "reinit-1": trained_on("next-labels"),
    **{spec.architecture: name for name, spec in MODELS.items() if spec.trained_on == "next-labels" and spec.architecture},
}


# ---- controls --------------------------------------------------------------------------------------------------------------


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


def excesses(results: StudyResults) -> list[ExcessOverControl]:
    """Each relabeled result with each of its controls: those of the study itself, then the user's own."""
    found: dict[tuple[str, str], list[ControlRow]] = {}
    for row in results.rows(ControlRow):
        found.setdefault((row.model, row.control), []).append(row)
    models = in_order(CONTROLS_OF, (model for model, _ in found))
    order = sorted(found, key=lambda pair: (models.index(pair[0]), pair[1] in OWN_MODELS))
    return [ExcessOverControl.of(found[pair]) for pair in order]


# ---- label leakage ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LeakageProbe:
    """A linear classifier on robust features alone: how many features, and its test accuracy; None where not measured."""

    features: Estimate | None
    accuracy: Estimate | None


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


def label_leakage(results: StudyResults) -> list[LabelLeakage]:
    """What gives the labels of each relabeled set away."""
    names = in_order(SETS, (row.set for row in results.rows(PerturbationLeakageRow)))
    return [_label_leakage(results, name) for name in names]


def _label_leakage(results: StudyResults, name: str) -> LabelLeakage:
    rows = [row for row in results.rows(PerturbationLeakageRow) if row.set == name]
    probes = {}
    for model in LEAKAGE_PROBES:
        own = [row for row in results.rows(RobustFeatureLeakageRow) if (row.set, row.model) == (name, model)]
        accuracies = (Value(row.accuracy, row.ci_low, row.ci_high, row.n or 0) for row in own)
        probes[model] = LeakageProbe(seed_mean(Value(row.features) for row in own), seed_mean(accuracies, share=True))
    peak, last = peak_and_last(row for row in results.rows(TrainingRow) if row.model == trained_on(name))
    return LabelLeakage(
        name,
        seed_mean((Value(row.target_reached) for row in results.rows(SetRow) if row.set == name), share=True),
        seed_mean((Value(row.accuracy, row.ci_low, row.ci_high, row.n) for row in rows), share=True),
        probes,
        seed_mean((Value(row.other_model_predicts_new_label) for row in rows), share=True),
        seed_mean((Value(row.other_model_keeps_label) for row in rows), share=True),
        peak,
        last,
    )


def peak_and_last(rows: Iterable[TrainingRow]) -> tuple[float, float] | tuple[None, None]:
    """Highest and last test accuracy in training, means over seeds; None where it was not recorded."""
    curves: dict[int, list[float]] = {}
    for row in rows:
        if row.test_accuracy is not None:
            curves.setdefault(row.seed, []).append(row.test_accuracy)
    if not curves:
        return None, None
    return sum(map(max, curves.values())) / len(curves), sum(curve[-1] for curve in curves.values()) / len(curves)


# ---- transferability -------------------------------------------------------------------------------------------------------


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


def transfer_targets(results: StudyResults, source: str) -> list[str]:
    """Models on which the examples of a source were evaluated."""
    return [*dict.fromkeys(row.target for row in results.rows(TransferRow) if row.source == source)]


def transfer_clean_accuracy(results: StudyResults, source: str, target: str) -> Estimate | None:
    """Clean accuracy of a target on the images of a source's examples."""
    rows = [row for row in results.rows(TransferRow) if (row.source, row.target) == (source, target)]
    return seed_mean((Value(row.clean_accuracy, n=row.n) for row in rows), share=True)


def transfer_rate(results: StudyResults, source: str, target: str, perturbation: str = "untargeted") -> Estimate | None:
    """Share of adversarial examples of one model that another misclassifies, of images that both classify correctly.

    perturbation: untargeted, targeted (then: predicted as the target class), or random (of the same size).
    """
    rows = _transfer(results, source, target, perturbation)
    return seed_mean((Value(row.transfer_rate, row.ci_low, row.ci_high, row.n) for row in rows), share=True)


def mistake_shares(results: StudyResults, source: str, target: str) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
    """Of untargeted examples: shares that are not misclassified, with the source's mistake, with another mistake."""
    rows = [row for row in _transfer(results, source, target, "untargeted") if row.n]
    counts = [[(r.not_misclassified, r.n) for r in rows], [(r.same_mistake, r.n) for r in rows]]
    counts += [[(r.other_mistake, r.n) for r in rows]]
    none, same, other = (seed_mean((Value(count / n, n=n) for count, n in each), share=True) for each in counts)
    return none, same, other


def own_rate(results: StudyResults, source: str, perturbation: str = "untargeted") -> Estimate | None:
    """Share of a model's adversarial examples that it misclassifies itself, of the images that some target has."""
    rows = [row for row in results.rows(TransferRow) if (row.source, row.perturbation) == (source, perturbation)]
    return seed_mean((Value(row.source_rate, n=row.n) for row in rows if row.target == rows[0].target), share=True)


def _transfer(results: StudyResults, source: str, target: str, perturbation: str) -> list[TransferRow]:
    wanted = (source, target, perturbation)
    return [row for row in results.rows(TransferRow) if (row.source, row.target, row.perturbation) == wanted]


def accuracy_transfer_correlation(results: StudyResults) -> AccuracyTransferCorrelation | None:
    """Figure 3 of Ilyas et al. 2019, from means over seeds; None unless each architecture has both figures.

    The CI is Fisher's over the architectures: the same few architectures once more, of another seed, are no further ones.
    """
    points = []
    for target, model in TRAINED_ON_D_DET.items():
        accuracy, rate = results.accuracy(model), transfer_rate(results, "standard", target)
        if accuracy is None or rate is None:
            return None
        points.append((target, accuracy.mean, rate.mean))
    seeds = len(results.accuracy_by_seed(trained_on("next-labels")))
    return AccuracyTransferCorrelation(points, _correlation(points, seeds), _correlation(points[1:], seeds))


def _correlation(points: Sequence[tuple[str, float, float]], seeds: int) -> Estimate:
    found = correlation([x for _, x, _ in points], [y for _, _, y in points])
    return Estimate(found, *correlation_interval(found, len(points)), len(points), seeds, False)


# ---- error consistency -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ErrorConsistency:
    """Whether two models make the same mistakes on clean test images, as means over seeds."""

    agreement: Estimate | None
    both_wrong: Estimate | None
    same_mistake: Estimate | None
    same_mistake_by_chance: Estimate | None
    consistency: Estimate | None


def error_consistency(results: StudyResults, model: str, other: str) -> ErrorConsistency:
    """Whether two models make the same mistakes, in either order of the pair."""
    rows = [row for row in results.rows(ErrorConsistencyRow) if {row.model, row.other_model} == {model, other}]
    same = (Value(row.same_mistake, row.same_mistake_ci_low, row.same_mistake_ci_high, row.n) for row in rows)
    return ErrorConsistency(
        agreement=seed_mean(Value(row.agreement, n=row.n) for row in rows),
        both_wrong=seed_mean(Value(row.both_wrong, n=row.n) for row in rows),
        same_mistake=seed_mean(same, share=True),
        same_mistake_by_chance=seed_mean(Value(row.same_mistake_by_chance, n=row.n) for row in rows),
        consistency=seed_mean(Value(row.consistency, n=row.n) for row in rows),
    )
