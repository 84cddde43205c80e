"""Rows on the files of a data set and their scores."""

from dataclasses import dataclass
from typing import ClassVar

from notbugs.runs.tables.row import Row


@dataclass(frozen=True, kw_only=True)
class FileRow(Row):
    """Scores of one file by cross-fitted models; `ColumnRow` has range and direction of each."""

    table: ClassVar[str] = "files"
    index: int
    file: str
    label: str
    robustness: float
    category: str
    suggested_label: str
    label_quality: float
    label_error_probability: float
    standard_correct: float
    robust_correct: float
    robust_correct_within_epsilon: float
    standard_minimum_norm: float
    robust_minimum_norm: float
    standard_margin: float
    robust_margin: float
    margin_kept_on_robust_version: float
    margin_lost_on_robust_version: float
    margin_lost_on_test_part: float | None = None
    trained_on_robust_correct: float | None = None
    trained_on_robust_margin: float | None = None
    trained_on_nonrobust_correct: float | None = None
    trained_on_nonrobust_margin: float | None = None
    robust_confidence: float
    standard_confidence_drop: float
    robust_confidence_drop: float
    pgd_steps_to_misclassify: float
    inversion_error: float
    epochs_correct: float
    epochs_confidence: float
    forgetting_events: float
    influence: float | None = None
    subset_regression: float | None = None
    subset_regression_equal_clean: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModelAccuracyRow(Row):
    """Accuracy of one kind of cross-fitted model on files it was not trained on: mean over repetitions, 95 % CI over the n files.

    robust_accuracy: within epsilon, by PGD and the minimum norm: an upper bound.
    median_minimum_norm: over correctly classified files.
    """

    table: ClassVar[str] = "model_accuracy"
    model: str
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    epsilon: float
    robust_accuracy: float | None = None
    robust_ci_low: float | None = None
    robust_ci_high: float | None = None
    median_minimum_norm: float | None = None


@dataclass(frozen=True, kw_only=True)
class LabelErrorsRow(Row):
    """Label errors of the whole data set. likely: files called so, from a probability of `threshold` on.

    detectable: share of random label errors that would be called so; too_weak: so few that none is.
    """

    table: ClassVar[str] = "label_errors"
    n: int
    estimated_rate: float
    likely: int
    threshold: float
    detectable: float
    too_weak: bool


@dataclass(frozen=True, kw_only=True)
class SubsetRow(Row):
    """One file of the subset with the highest (robust) or the lowest (nonrobust) rank: of robustness, or of subset_regression."""

    table: ClassVar[str] = "subsets"
    subset: str
    index: int
    file: str
    label: str
    robustness: float
    subset_regression: float | None = None
    category: str


@dataclass(frozen=True, kw_only=True)
class SubsetRegressionRow(Row):
    """How well the outcome of each pair of trainings is predicted from all others: Pearson's r, 95 % CI over the pairs.

    files: of both halves of the first pair together; n: its held-out files, on which its classifiers are measured.
    correlation: of the separation, the robust accuracy of the upper half minus that of the lower; clean_correlation: of the
    difference of their clean accuracies. left_out: scores that are not known, or equal for all files.
    """

    table: ClassVar[str] = "subset_regression"
    pairs: int
    files: int
    n: int
    correlation: float
    ci_low: float
    ci_high: float
    clean_correlation: float
    clean_ci_low: float
    clean_ci_high: float
    left_out: str | None = None


@dataclass(frozen=True, kw_only=True)
class SubsetRegressionWeightRow(Row):
    """The weight of the rank by one score, for the separation and for the difference of clean accuracy.

    score: a column of the table `files`, or one of two that follow from its columns. robust_evidence: the mean rank by
    robust_minimum_norm, robust_margin, pgd_steps_to_misclassify, trained_on_robust_margin and the margin of the robust model on
    an adversarial example. margin_kept_minus_lost: margin_kept_on_robust_version - margin_lost_on_robust_version.
    """

    table: ClassVar[str] = "subset_regression_weights"
    score: str
    weight: float
    clean_weight: float


@dataclass(frozen=True, kw_only=True)
class SubsetPairRow(Row):
    """One pair of trainings on halves: accuracy on the held-out files, and the separation as all other pairs predict it.

    robust: mean over epsilon / 2 and epsilon, under the quick ensemble. separation: robust_upper - robust_lower.
    """

    table: ClassVar[str] = "subset_regression_pairs"
    pair: int
    clean_upper: float
    clean_lower: float
    robust_upper: float
    robust_lower: float
    separation: float
    predicted: float


@dataclass(frozen=True, kw_only=True)
class CategoryRow(Row):
    """How many files each category has."""

    table: ClassVar[str] = "categories"
    category: str
    files: int
    n: int


@dataclass(frozen=True, kw_only=True)
class ColumnRow(Row):
    """What a column of `FileRow` is: its range, and what a high value means."""

    table: ClassVar[str] = "columns"
    column: str
    range: str
    high_means: str
    description: str


@dataclass(frozen=True, kw_only=True)
class FilePictureRow(Row):
    """A representative file of a category."""

    table: ClassVar[str] = "pictures"
    index: int
    file: str
    label: str
    suggested_label: str
    robustness: float
    label_quality: float
    category: str
    picture: str


@dataclass(frozen=True, kw_only=True)
class FilePredictionRow(Row):
    """What the cross-fitted models of one kind predict for one file, from probabilities averaged over the repetitions."""

    table: ClassVar[str] = "file_predictions"
    index: int
    file: str
    model: str
    predicted: str
    confidence: float
    label_probability: float


@dataclass(frozen=True, kw_only=True)
class AdversarialExampleRow(Row):
    """The smallest adversarial example of one file, rounded to 8 bits, and what the model that it was made for predicts.

    The model is the one of the first repetition that was not trained on the file. norm: 0 where it misclassifies the file as it
    is, empty where no example was found; linf: the largest change of a pixel.
    """

    table: ClassVar[str] = "adversarial_examples"
    index: int
    file: str
    model: str
    clean_prediction: str
    adversarial_prediction: str
    norm: float | None
    linf: float


@dataclass(frozen=True, kw_only=True)
class NeighborRow(Row):
    """A near file in the features of a robust model that was trained on neither; distance: relative to the features' norm."""

    table: ClassVar[str] = "neighbors"
    index: int
    file: str
    same_class: bool
    rank: int
    neighbor: int
    neighbor_file: str
    distance: float


@dataclass(frozen=True, kw_only=True)
class PictureSheetRow(Row):
    """A picture of `files` files side by side, from the file of index `first` on, `columns` in a row."""

    table: ClassVar[str] = "picture_sheets"
    kind: str
    picture: str
    first: int
    files: int
    columns: int
    width: int
    height: int
