"""Rows on the controls of a study's data sets, and on the transferability of adversarial examples."""

from dataclasses import dataclass
from typing import ClassVar

from notbugs.runs.tables.row import Row


@dataclass(frozen=True, kw_only=True)
class RobustFeatureLeakageRow(Row):
    """Test accuracy of a linear classifier trained on a relabeled set through robust features alone."""

    table: ClassVar[str] = "robust_feature_leakage"
    set: str
    model: str
    seed: int
    features: int
    correct: int | None
    n: int | None
    accuracy: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, kw_only=True)
class PerturbationLeakageRow(Row):
    """How well the perturbations of a relabeled set alone give its labels away, and whether they transfer."""

    table: ClassVar[str] = "perturbation_leakage"
    set: str
    seed: int
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    chance: float
    other_model_predicts_new_label: float
    other_model_keeps_label: float


@dataclass(frozen=True, kw_only=True)
class TransferRow(Row):
    """Adversarial examples of one model (source) on another (target), of the n images that both classify correctly."""

    table: ClassVar[str] = "transfer"
    source: str
    target: str
    seed: int
    norm: str
    epsilon: float
    perturbation: str
    n: int
    not_misclassified: int
    same_mistake: int
    other_mistake: int
    transfer_rate: float | None
    ci_low: float
    ci_high: float
    source_rate: float | None
    clean_accuracy: float


@dataclass(frozen=True, kw_only=True)
class ErrorConsistencyRow(Row):
    """Whether two models make the same mistakes on clean test images."""

    table: ClassVar[str] = "error_consistency"
    model: str
    other_model: str
    seed: int
    n: int
    agreement: float
    both_wrong: int
    same_mistake: float | None
    same_mistake_ci_low: float | None
    same_mistake_ci_high: float | None
    same_mistake_by_chance: float | None
    consistency: float | None


@dataclass(frozen=True, kw_only=True)
class ControlRow(Row):
    """Accuracy of a model trained on a relabeled set in excess of one of its controls; shares of the n test images."""

    table: ClassVar[str] = "controls"
    model: str
    control: str
    rules_out: str
    seed: int
    accuracy: float
    control_accuracy: float
    excess: float
    excess_ci_low: float
    excess_ci_high: float
    above_chance: float
    above_chance_ci_low: float
    above_chance_ci_high: float
    n: int
