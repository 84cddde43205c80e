"""Rows on a study's data sets and classifiers."""

from dataclasses import dataclass
from typing import ClassVar

from notbugs.runs.tables.row import Row


@dataclass(frozen=True, kw_only=True)
class AccuracyRow(Row):
    """Accuracy of one model on one set, clean (epsilon 0) or under attack, with its 95 % CI."""

    table: ClassVar[str] = "accuracy"
    model: str
    trained_on: str
    set: str
    norm: str
    epsilon: float
    attack: str
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class MetricRow(Row):
    """A metric of the user's own (`extensions.Metric`) of one model on the test images.

    With its 95 % CI where it has one value per image: Wilson's if these are booleans (`is_share`), Student's if not.
    """

    table: ClassVar[str] = "own_metrics"
    metric: str
    title: str
    model: str
    seed: int
    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    is_share: bool
    n: int


@dataclass(frozen=True, kw_only=True)
class TrainingRow(Row):
    """One epoch of one training; accuracy is on the training set's own labels, test_accuracy on clean test images."""

    table: ClassVar[str] = "training"
    model: str
    seed: int
    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float
    test_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class SetRow(Row):
    """How one data set was constructed: distances are those of the stored 8-bit images to the originals.

    `empty_classes` are the classes that no image has as its label. `written`: whether there were enough images to train on, so
    that the set was written; empty in runs of earlier versions. `source_accuracy`: of an inverted set, the clean accuracy of the
    model that it was made from, on `source_images` test images.
    """

    table: ClassVar[str] = "sets"
    set: str
    seed: int
    n: int
    made_from: str
    epsilon: float | None = None
    steps: int | None = None
    target_reached: float | None = None
    mean_l2: float | None = None
    max_l2: float | None = None
    max_linf: float | None = None
    feature_error: float | None = None
    relabeled: int = 0
    other_models_keep_label: float | None = None
    largest_class: float | None = None
    seconds: float
    empty_classes: str | None = None
    written: bool | None = None
    source_accuracy: float | None = None
    source_ci_low: float | None = None
    source_ci_high: float | None = None
    source_images: int | None = None


@dataclass(frozen=True, kw_only=True)
class PictureRow(Row):
    """One file in one version, as a picture, and what two models predict for it."""

    table: ClassVar[str] = "pictures"
    file: str
    column: str
    picture: str
    label: str
    standard: str
    adversarial: str


@dataclass(frozen=True, kw_only=True)
class AdversarialPictureRow(Row):
    """The smallest perturbation found of one test image that a model misclassifies, as pictures.

    `distance` is its norm, as stored in 8 bits; 0 where the clean image is misclassified. The picture of the perturbation is
    amplified by `amplification`. `confidence` is the model's probability of the class that it predicts.
    """

    table: ClassVar[str] = "adversarial_pictures"
    file: str
    label: str
    model: str
    predicted: str
    confidence: float
    clean_confidence: float
    norm: str
    distance: float
    amplification: float
    clean_picture: str
    picture: str
    perturbation_picture: str


@dataclass(frozen=True, kw_only=True)
class SyntheticTruthRow(Row):
    """What is true of each synthetic image: the class of its shape, the class of its texture, its background."""

    table: ClassVar[str] = "synthetic_truth"
    file: str
    split: str
    seed: int
    label: str
    shape_class: str
    texture_class: str
    light_background: bool
