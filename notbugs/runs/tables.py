"""Typed rows: every table of a run folder, its columns and their types, in one place. Imports no torch.

A row class is a frozen dataclass whose class attribute `table` is the table's name. Text stays text (a class called "007"), an
empty cell is None, a flag is 0 or 1.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType
from typing import ClassVar, TypeVar, get_args, get_type_hints

Cell = str | int | float | bool | None


class Row:
    """What all rows share: the name of their table."""

    table: ClassVar[str]


AnyRow = TypeVar("AnyRow", bound=Row)


# ---- the data set ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DataFileRow(Row):
    """One file of the data set. part: train, test or left out, then with the reason; group: see `data.DataConfig.group`."""

    table: ClassVar[str] = "data_files"
    file: str
    part: str
    label: str
    group: str
    reason: str


# ---- a study ---------------------------------------------------------------------------------------------------------------


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

    `empty_classes` are the classes that no image has as its label.
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


# ---- controls and transferability ------------------------------------------------------------------------------------------


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
    """Accuracy of a model trained on a relabeled set in excess of one of its controls."""

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


# ---- replication and analyses ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RobustVersionRow(Row):
    """The classifier trained on D_R, on D_R itself, on the robust version of the test images, and on these."""

    table: ClassVar[str] = "robust_version_accuracy"
    model: str
    set: str
    seed: int
    norm: str
    epsilon: float
    attack: str
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, kw_only=True)
class ReplicationRow(Row):
    """One figure of the paper and the run's beside it; perturbation: clean, half or full epsilon."""

    table: ClassVar[str] = "replication"
    name: str
    paper_table: str
    perturbation: str
    paper: float | None
    here: float
    ci_low: float
    ci_high: float
    n: int
    seeds: int


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


# ---- an audit --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AuditAccuracyRow(Row):
    """Accuracy of the audited model within one threat model ("clean": none)."""

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


@dataclass(frozen=True, kw_only=True)
class ImageRow(Row):
    """One clean image: prediction, and the smallest perturbation that was found (0: misclassified as it is, inf: none)."""

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


@dataclass(frozen=True, kw_only=True)
class AuditFileRow(ImageRow):
    """The same rows in the order of the data set."""

    table: ClassVar[str] = "files"


@dataclass(frozen=True, kw_only=True)
class PredictionRow(Row):
    """One image within one threat model; 8bit: of the perturbed image as it is stored."""

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
    """Robust accuracy against epsilon, from the smallest perturbations."""

    table: ClassVar[str] = "curve"
    norm: str
    epsilon: float
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, kw_only=True)
class CheckRow(Row):
    """One sanity check; passed: yes, no or not run."""

    table: ClassVar[str] = "checks"
    check: str
    passed: str
    observed: str
    rationale: str
    fix: str
    threat: str
    n: int


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


# ---- files and features ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FeatureRow(Row):
    """Usefulness (rho, in [0, 1]) and robust usefulness (gamma, at most rho) of one feature for one class."""

    table: ClassVar[str] = "features"
    feature: int
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
    """One file of the subset with the highest (robust) or the lowest (nonrobust) robustness."""

    table: ClassVar[str] = "subsets"
    subset: str
    index: int
    file: str
    label: str
    robustness: float
    category: str


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


@dataclass(frozen=True, kw_only=True)
class FeatureCategoryRow(Row):
    """One feature of a standard model; its category is that of `FeatureRow` for the class that it is most useful for.

    spurious: useful on held-out files, at most half as useful on the test part, for drop_class. usefulness_kept: share of its
    usefulness, over all classes, on the versions of the files. cue: the one that correlates with it most.
    """

    table: ClassVar[str] = "feature_categories"
    feature: int
    category: str
    class_name: str
    sign: str
    usefulness: float
    robust_usefulness: float
    spurious: bool
    drop_class: str
    usefulness_drop: float
    test_usefulness: float
    p_value: float
    usefulness_kept_on_robust: float
    usefulness_kept_on_nonrobust: float
    cue: str
    cue_correlation: float


@dataclass(frozen=True, kw_only=True)
class LayerRow(Row):
    """How far a perturbation moves a layer, relative to the distance between images."""

    table: ClassVar[str] = "layers"
    layer: str
    features: int
    distance_moved: float
    distance_between_images: float
    ratio: float
    n: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class SpuriousCueRow(Row):
    """One cue (a property of an image that has a name) for the class whose usefulness drops most on the test part."""

    table: ClassVar[str] = "spurious_cues"
    name: str
    class_name: str
    sign: str
    usefulness: float
    test_usefulness: float
    test_usefulness_ci_low: float
    test_usefulness_ci_high: float
    usefulness_drop: float
    p_value: float
    spurious: bool
    n: int
    test_n: int
    accuracy_usual: float
    accuracy_unusual: float
    accuracy_gap: float
    accuracy_gap_ci_low: float
    accuracy_gap_ci_high: float


@dataclass(frozen=True, kw_only=True)
class FeaturePictureRow(Row):
    """A picture of a feature: a file with a high value, an image that maximizes it, or its gradient."""

    table: ClassVar[str] = "feature_pictures"
    feature: int
    category: str
    class_name: str
    cue: str
    column: str
    file: str | None = None
    label: str | None = None
    picture: str


@dataclass(frozen=True, kw_only=True)
class CuePictureRow(Row):
    """A file with much (group most, of the training part) or little (least, of the test part) of a spurious cue."""

    table: ClassVar[str] = "cue_pictures"
    name: str
    class_name: str
    group: str
    file: str
    predicted: str
    value: float
    picture: str


# ---- the data check --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DataCheckRow(Row):
    """One problem of a data set. count: of n images, or of n classes (unit); serious: it can change conclusions.

    examples: up to three files or classes; meaning: what it means for robustness figures; remedy: what to do.
    """

    table: ClassVar[str] = "data_check"
    problem: str
    serious: bool
    count: int
    n: int
    unit: str
    examples: str
    meaning: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class DataCheckFileRow(Row):
    """One file with a problem. value: similarity to other_file (1: same pixels), or the contrast in levels of 0 to 255."""

    table: ClassVar[str] = "data_check_files"
    file: str
    part: str
    problem: str
    other_file: str
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class DataCheckSummaryRow(Row):
    """What was checked. compared: images compared for near duplicates.

    most_common: accuracy of always predicting the most common class; imbalance: largest / smallest class. mirroring: safe, not
    safe, inconclusive or not measured; mirroring_drop: accuracy minus mirrored_accuracy, on mirroring_n held-out training images.
    """

    table: ClassVar[str] = "data_check_summary"
    train: int
    test: int
    classes: int
    width: int
    height: int
    channels: int
    compared: int
    most_common: float
    imbalance: float
    mirroring: str
    mirroring_n: int | None = None
    accuracy: float | None = None
    mirrored_accuracy: float | None = None
    mirroring_drop: float | None = None
    mirroring_drop_ci_low: float | None = None
    mirroring_drop_ci_high: float | None = None


# ---- review and theory -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ReviewAnswerRow(Row):
    """One answer of a reviewer; an empty answer is "cannot tell"."""

    table: ClassVar[str] = "review_answers"
    reviewer: str
    set: str
    file: str
    label: str
    answer: str
    correct: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ReviewSummaryRow(Row):
    """Accuracy of people on one set, and what its 95 % CI is over."""

    table: ClassVar[str] = "review_summary"
    set: str
    reviewers: int
    images: int
    answers: int
    correct: int
    accuracy: float
    ci_low: float
    ci_high: float
    unsure: float
    other_class: float
    seconds: float
    interval_over: str


@dataclass(frozen=True, kw_only=True)
class ReviewDifferenceRow(Row):
    """Accuracy of people on one set minus that on another, of those who saw both."""

    table: ClassVar[str] = "review_differences"
    set: str
    against: str
    reviewers: int
    accuracy: float
    accuracy_against: float
    difference: float
    ci_low: float
    ci_high: float
    interval_over: str


@dataclass(frozen=True, kw_only=True)
class TheoryRow(Row):
    """The two-Gaussian model at one epsilon."""

    table: ClassVar[str] = "theory"
    epsilon: float
    condition_number: float
    min_cosine: float
    cosine: float
    accuracy: float
    robust_accuracy: float
    true_parameters_robust_accuracy: float
    ball_condition_number: float | None = None
    ball_min_cosine: float | None = None
    budget_condition_number: float | None = None
    budget_min_cosine: float | None = None
    samples: int | None = None


# ---- cells -----------------------------------------------------------------------------------------------------------------


def columns(row_type: type[Row]) -> dict[str, tuple[type, bool]]:
    """Columns of a table in order: name -> (str, int, float or bool; whether a cell may be empty)."""
    return _columns(row_type)  # type: ignore[arg-type]  # classes are hashable


@cache
def _columns(row_type: type[Row]) -> dict[str, tuple[type, bool]]:
    hints = get_type_hints(row_type)
    found = {}
    for field in fields(row_type):  # type: ignore[arg-type]  # every row is a dataclass
        kinds = get_args(hints[field.name]) or (hints[field.name],)
        found[field.name] = next(kind for kind in kinds if kind is not NoneType), NoneType in kinds
    return found


def cells(row: Row) -> dict[str, Cell]:
    """The row as column -> value."""
    return {name: getattr(row, name) for name in columns(type(row))}


def from_text(row_type: type[AnyRow], text: Mapping[str, str | None]) -> AnyRow:
    """A row from the cells of a CSV file. Raises ValueError for a missing column or a cell of another type.

    A column that is empty by default may be missing: runs of an earlier version lack those that were added since.
    """
    values: dict[str, Cell] = {}
    for name, (kind, optional) in columns(row_type).items():
        if optional and name not in text and hasattr(row_type, name):  # its default
            continue
        cell = text.get(name)
        if cell is None:
            raise ValueError(f"column {name} is missing")
        if kind is str:
            values[name] = None if optional and not cell else cell
        elif not cell and optional:
            values[name] = None
        else:
            values[name] = bool(int(cell)) if kind is bool else kind(cell)
    return row_type(**values)


def as_csv(rows: Sequence[Row]) -> str:
    """Rows of one table as the text of a CSV file; "" without rows."""
    return records_as_csv([cells(row) for row in rows])


def records_as_csv(records: Iterable[Mapping[str, object]]) -> str:
    """Records as the text of a CSV file: all columns that any of them has, in order of appearance; "" without records."""
    records = list(records)
    names = list(dict.fromkeys(name for record in records for name in record))
    if not names:
        return ""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, names, restval="", lineterminator="\r\n")  # with this end "\r" in a cell is quoted, too
    writer.writeheader()
    writer.writerows({name: int(cell) if isinstance(cell, bool) else cell for name, cell in record.items()} for record in records)
    return _plain_line_ends(file.getvalue())


def _plain_line_ends(text: str) -> str:
    """Rows end with a plain line feed; what stands inside quotes stays."""
    parts = text.split('"')
    parts[::2] = [part.replace("\r\n", "\n") for part in parts[::2]]
    return '"'.join(parts)
