"""Rows on one classifier under attack."""

from dataclasses import dataclass
from typing import ClassVar

from notbugs.runs.tables.row import Row

OVERESTIMATED = "robust accuracy may be overestimated"  # what follows from most failed sanity checks: it is an upper bound


@dataclass(frozen=True, kw_only=True)
class AuditAccuracyRow(Row):
    """Accuracy of the audited model within one threat model ("clean": none).

    correct_by_ensemble: without registered attacks. not_finite: of the misclassified, those whose logits are NaN or infinite.
    draws: forward passes that the accuracy is the mean of, 1 unless the model is random; then `correct` is the expected number,
    rounded.

    Of targeted attacks: target: a class, or how each image gets one; reached: images of which it is predicted; success_rate:
    their share of the n, with its 95 % CI. Correct are then those that are classified correctly and do not reach it.
    """

    table: ClassVar[str] = "accuracy"
    threat: str
    norm: str
    epsilon: float
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    attack: str
    correct_by_minimum_norm: int | None
    correct_8bit: int | None
    not_finite: int | None = None
    draws: int | None = None
    target: str | None = None
    reached: int | None = None
    success_rate: float | None = None
    success_ci_low: float | None = None
    success_ci_high: float | None = None
    reached_8bit: int | None = None
    correct_by_ensemble: int | None = None


@dataclass(frozen=True, kw_only=True)
class ImageRow(Row):
    """One clean image: prediction, and the smallest perturbation that was found (0: misclassified as it is, inf: none).

    correct_draws: of a random model, the draws in which the image is classified correctly. target: of targeted attacks; the
    perturbation is then the smallest that reaches it. mask: outside of which no perturbation changes a pixel.
    """

    table: ClassVar[str] = "images"
    index: int
    file: str
    label: str
    predicted: str
    misclassified: bool
    minimum_l2: float | None = None
    minimum_linf: float | None = None
    minimum_l1: float | None = None
    minimum_l0: float | None = None
    correct_draws: int | None = None
    target: str | None = None
    mask: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditFileRow(ImageRow):
    """The same rows in the order of the data set."""

    table: ClassVar[str] = "files"


@dataclass(frozen=True, kw_only=True)
class PredictionRow(Row):
    """One image within one threat model; 8bit: of the perturbed image as it is stored; correct_draws: as in `ImageRow`.

    by_own_attack: whether registered attacks misclassified it, and nothing before; None where none ran.
    target, reached: of a targeted attack, the class it is to reach, and whether that is predicted. An image is misclassified
    if it reaches it, or if the clean image is.
    """

    table: ClassVar[str] = "predictions"
    index: int
    file: str
    label: str
    threat: str
    misclassified: bool
    by_minimum_norm: bool
    predicted: str
    predicted_8bit: str
    misclassified_8bit: bool
    by_own_attack: bool | None = None
    correct_draws: int | None = None
    correct_draws_8bit: int | None = None
    target: str | None = None
    reached: bool | None = None
    reached_8bit: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ClassAccuracyRow(Row):
    """Accuracy class by class."""

    table: ClassVar[str] = "classes"
    threat: str
    norm: str
    epsilon: float
    label: str
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, kw_only=True)
class ConfusionRow(Row):
    """Confusion matrix within a threat model, one row a cell that is not 0."""

    table: ClassVar[str] = "confusion"
    threat: str
    norm: str
    epsilon: float
    label: str
    predicted: str
    count: int


@dataclass(frozen=True, kw_only=True)
class CurveRow(Row):
    """Robust accuracy against epsilon, from the smallest perturbations.

    restriction: what these keep to beyond the norm: limits of channels, a mask, a target.
    """

    table: ClassVar[str] = "curve"
    norm: str
    epsilon: float
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    restriction: str | None = None


# Sanity checks of clean predictions: where one fails, every accuracy is in doubt
DOUBTS_ALL = ("class order", "above chance", "pixel range", "batch independence")
CHECKS = (
    *DOUBTS_ALL,
    *("deterministic", "randomness averaged", "logits", "input clipping"),
    *("input quantization", "gradients", "finite logits", "more steps", "larger epsilon", "unbounded perturbation"),
    *("square attack", "transfer"),
)


@dataclass(frozen=True, kw_only=True)
class CheckRow(Row):
    """One sanity check; passed: yes, no or not run; consequence: what follows if it failed."""

    table: ClassVar[str] = "checks"
    check: str
    passed: str
    observed: str
    rationale: str
    fix: str
    threat: str
    n: int
    consequence: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditPictureRow(Row):
    """One file, clean or attacked; group: most or least fragile; minimum_norm: its smallest perturbation in the first norm."""

    table: ClassVar[str] = "pictures"
    index: int
    file: str
    group: str
    label: str
    minimum_norm: float | None
    column: str
    predicted: str
    picture: str
