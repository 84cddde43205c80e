"""Rows on saliency, common corruptions, Fourier sensitivity and the neural tangent kernel."""

from dataclasses import dataclass
from typing import ClassVar

from notbugs.runs.tables.row import Row


@dataclass(frozen=True, kw_only=True)
class SaliencyRow(Row):
    """One measure of one model's attributions, a mean over images."""

    table: ClassVar[str] = "saliency"
    model: str
    method: str
    measure: str
    seed: int
    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    n: int


@dataclass(frozen=True, kw_only=True)
class SaliencyDifferenceRow(Row):
    """The same, model minus other_model, image by image."""

    table: ClassVar[str] = "saliency_differences"
    model: str
    other_model: str
    method: str
    measure: str
    seed: int
    value: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class SaliencyPictureRow(Row):
    """One test image or the gradient of one model for it."""

    table: ClassVar[str] = "saliency_pictures"
    file: str
    column: str
    picture: str
    label: str


@dataclass(frozen=True, kw_only=True)
class CorruptionRow(Row):
    """Accuracy under one common corruption at one severity (0: clean)."""

    table: ClassVar[str] = "corruptions"
    model: str
    seed: int
    corruption: str
    severity: int
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, kw_only=True)
class CorruptionDifferenceRow(Row):
    """Accuracy of model minus other_model under a corruption, mean over severities."""

    table: ClassVar[str] = "corruption_differences"
    model: str
    other_model: str
    corruption: str
    seed: int
    value: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class FourierRow(Row):
    """Error rate with one Fourier basis vector added to every image; cycles per image."""

    table: ClassVar[str] = "fourier"
    model: str
    seed: int
    cycles_down: int
    cycles_across: int
    amplitude: float
    error_rate: float
    n: int


@dataclass(frozen=True, kw_only=True)
class NTKFeatureRow(Row):
    """One eigenvector of the neural tangent kernel as a feature, for the class it is most useful for."""

    table: ClassVar[str] = "ntk"
    eigenvector: int
    eigenvalue_share: float
    seed: int
    class_name: str
    sign: int
    usefulness: float
    usefulness_ci_low: float
    usefulness_ci_high: float
    robust_usefulness: float
    robust_usefulness_ci_low: float
    robust_usefulness_ci_high: float
    category: str
    significant: bool
    n: int
    n_attacked: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class NTKAccuracyRow(Row):
    """Accuracy of kernel regression on the first eigenvectors, clean and under attack."""

    table: ClassVar[str] = "ntk_accuracy"
    eigenvectors: int
    seed: int
    norm: str
    epsilon: float
    attack: str
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
