"""The columns of tables/files.csv: range, meaning of a high value, and description. The categories of files."""

from notbugs.files.fold_scores import ATTACK_STEPS
from notbugs.files.label_errors import LIKELY
from notbugs.runs.tables.files import ColumnRow

CATEGORIES = ("robust", "non-robust", "misclassified", "likely label error")


def _column(name: str, span: str, high_means: str, description: str) -> ColumnRow:
    return ColumnRow(column=name, range=span, high_means=high_means, description=description)


COLUMNS = (
    _column(
        "category",
        "",
        "",
        f"likely label error (label_error_probability {LIKELY:g} or more); else robust (more than half of the robust models "
        "classify the file correctly within epsilon), non-robust (they do not, but standard models classify it correctly), or "
        "misclassified",
    ),
    _column("standard_correct", "0 to 1", "correct", "share of standard models that predict the label"),
    _column("robust_correct", "0 to 1", "correct", "share of robust models that predict the label"),
    _column(
        "robust_correct_within_epsilon",
        "0 to 1",
        "correct and robust",
        "share of robust models that predict the label, clean and under attack within epsilon",
    ),
    _column(
        "robustness",
        "0 to 1",
        "robust features predict the label",
        "rank within the class of the evidence that robust models find, relative to what standard models find; about half of all "
        "files are below 0.5 by definition",
    ),
    _column("suggested_label", "", "", "the class that all models together predict"),
    _column("label_quality", "0 to 1", "the label looks right", "a standard model's probability of the label (self-confidence)"),
    _column(
        "label_error_probability",
        "0 to 1",
        "the label is wrong",
        "probability that the label is wrong, from the calibrated probabilities of all models",
    ),
    _column(
        "standard_minimum_norm",
        "0 up",
        "hard to attack",
        "norm of the smallest perturbation that a standard model misclassifies; 0: misclassified as it is",
    ),
    _column(
        "robust_minimum_norm",
        "0 up",
        "hard to attack",
        "norm of the smallest perturbation that a robust model misclassifies; 0: misclassified as it is",
    ),
    _column("standard_margin", "any", "clear to a standard model", "logit of the label minus the highest other logit"),
    _column("robust_margin", "any", "clear to a robust model", "logit of the label minus the highest other logit"),
    _column(
        "margin_kept_on_robust_version",
        "any",
        "these features speak for the label",
        "part of a standard model's margin over the runner-up, relative to its mean; each feature counts by the share of its "
        "usefulness that it keeps on the robust version",
    ),
    _column("margin_lost_on_robust_version", "any", "these features speak for the label", "the rest of that margin"),
    _column(
        "margin_lost_on_test_part",
        "any",
        "these features speak for the label",
        "part of that margin; each feature counts by the share of its usefulness that it loses on the test part",
    ),
    _column(
        "trained_on_robust_correct",
        "0 to 1",
        "correct",
        "share of models, trained only on the robust version of other files, that predict the label",
    ),
    _column("trained_on_robust_margin", "any", "clear to these models", "their logit of the label minus the highest other"),
    _column(
        "trained_on_nonrobust_correct",
        "0 to 1",
        "correct",
        "share of models, trained only on the non-robust version of other files, that predict the label",
    ),
    _column("trained_on_nonrobust_margin", "any", "clear to these models", "their logit of the label minus the highest other"),
    _column("robust_confidence", "0 to 1", "confident", "a robust model's probability of the label"),
    _column(
        "standard_confidence_drop",
        "-1 to 1",
        "easy to attack",
        "a standard model's probability of the label, clean minus under attack",
    ),
    _column(
        "robust_confidence_drop",
        "-1 to 1",
        "easy to attack",
        "a robust model's probability of the label, clean minus under attack",
    ),
    _column(
        "pgd_steps_to_misclassify",
        f"0 to {ATTACK_STEPS + 1}",
        "hard to attack",
        f"PGD steps until a robust model misclassifies the file; {ATTACK_STEPS + 1}: never",
    ),
    _column(
        "inversion_error",
        "0 up",
        "not described by robust features",
        "distance of the features of its robust version to its own, relative to their norm",
    ),
    _column(
        "epochs_correct",
        "0 to 1",
        "learned early",
        "share of epochs after which a standard model in training predicts the label",
    ),
    _column("epochs_confidence", "0 to 1", "learned early, with confidence", "mean probability of the label after these epochs"),
    _column(
        "forgetting_events",
        "0 up",
        "forgotten often",
        "how often an epoch ended with a wrong prediction where the one before ended with the right one",
    ),
    _column(
        "influence",
        "any",
        "training on it makes others robust",
        "how much a step of a standard model's last layer on the file reduces its loss on the other files of the fold under "
        "attack within epsilon / 2, to first order, summed over them",
    ),
    _column(
        "subset_regression",
        "0 to 1",
        "training on such files makes a classifier robust",
        "rank within the class by the combination of scores that best predicts which half of the files gives the more robust "
        "classifier, learned from trainings on halves",
    ),
    _column(
        "subset_regression_equal_clean",
        "0 to 1",
        "training on such files makes a classifier robust",
        "the same, of those combinations whose halves are predicted to give equally accurate classifiers",
    ),
)
