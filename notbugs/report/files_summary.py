"""What file scores say of a data set as a whole, in tables and sentences: for the command line and the page."""

from collections.abc import Sequence

from notbugs.report.format import interval, minus, percent, plain
from notbugs.report.tables import MISSING, Table
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.features import FeatureCategoryRow
from notbugs.runs.tables.files import FileRow, LabelErrorsRow, ModelAccuracyRow, SubsetRegressionRow

MODELS = {
    "standard": "standard",
    "robust": "robust",
    "trained_on_robust": "on robust versions",
    "trained_on_nonrobust": "on non-robust versions",
}


def accuracy_table(rows: Sequence[ModelAccuracyRow]) -> Table:
    """Each kind of cross-fitted model: out-of-fold accuracy, robust accuracy, and the median minimum norm beside epsilon."""
    lines = []
    for row in rows:
        robust = norm = MISSING
        if row.robust_accuracy is not None and row.robust_ci_low is not None and row.robust_ci_high is not None:
            robust = _share(row.robust_accuracy, row.robust_ci_low, row.robust_ci_high)
        if row.median_minimum_norm is not None:
            norm = f"{plain(row.median_minimum_norm)} ({row.median_minimum_norm / row.epsilon:.2f} ε)"
        lines.append([MODELS[row.model], _share(row.accuracy, row.ci_low, row.ci_high), robust, norm])
    return ["models", "accuracy, %", "robust accuracy, %", "median minimum norm"], lines


def _share(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} {interval(100 * low, 100 * high)}"


def robust_files(files: Sequence[FileRow], threat: str) -> str:
    """How many files robust models classify correctly, and how many of these within epsilon."""
    correct = sum(row.robust_correct > 0.5 for row in files)
    within = sum(row.robust_correct_within_epsilon > 0.5 for row in files)
    return (
        f"The majority of the robust models classifies {correct:,} of {len(files):,} files correctly, and {within:,} of these "
        f"still within {threat}."
    )


def rank(run: RunFolder) -> str:
    """What `robustness` is, and how stable."""
    metadata = run.files()
    meaning = "The score robustness is a rank within the class: about half of all files are below 0.5 by definition."
    if metadata.rank_stability is not None:
        repeats = metadata.settings.get("repeats")
        return (
            f"{meaning} Rank stability: {metadata.rank_stability:.2f} (Spearman correlation expected with another such run, from "
            f"{repeats} repetitions)."
        )
    if not metadata.finished:
        return f"{meaning} Rank stability: known when the run is finished."
    return f"{meaning} Rank stability cannot be estimated from one repetition: repeat the same command with --repeats 3."


def subset_regression(row: SubsetRegressionRow) -> str:
    """How well pairs left out are predicted, and what to do where they are not."""
    robust = _r(row.correlation, row.ci_low, row.ci_high)
    clean = _r(row.clean_correlation, row.clean_ci_low, row.clean_ci_high)
    text = (
        f"Subset regression: {row.pairs:,} pairs of trainings on halves of {row.files:,} files, attacked on {row.n:,} others. "
        f"For pairs left out it predicts the difference of robust accuracy with {robust}, of clean accuracy with {clean}."
    )
    if row.left_out:
        text += f" Scores left out, not known for all files or the same for all: {row.left_out}."
    if row.ci_low <= 0:
        return f"{text} That of robust accuracy is no better than chance: do not use its columns. More pairs or more files help."
    if row.clean_ci_low <= 0:
        return f"{text} That of clean accuracy is no better than chance: do not use subset_regression_equal_clean."
    return text


def _r(correlation: float, low: float, high: float) -> str:
    """Pearson's r with its CI."""
    return f"r = {minus(f'{correlation:z.2f}')} {interval(low, high, 2)}"


def label_errors(row: LabelErrorsRow, accuracies: Sequence[ModelAccuracyRow]) -> str:
    """How many files are likely label errors, and how many of such errors these models would find."""
    found = f"Of random label errors these models would find {percent(row.detectable)}."
    if row.too_weak:
        accuracy = next(each.accuracy for each in accuracies if each.model == "standard")
        return (
            f"Label errors: none is called, for the models are too weak. Out-of-fold accuracy of standard models: "
            f"{percent(accuracy)}. {found} More epochs (--epochs), a larger --network or more files help."
        )
    return (
        f"Label errors: {row.likely:,} of {row.n:,} files are likely ones (probability {row.threshold:g} or more). "
        f"Estimated share of wrong labels: {percent(row.estimated_rate)}. {found}"
    )


def feature_counts(rows: Sequence[FeatureCategoryRow], threat: str) -> str:
    """Features of a standard model by category, and how many are spurious."""
    categories = [row.category for row in rows]
    counts = [f"{categories.count(name)} {name}" for name in ("robust", "non-robust", "useless")]
    spurious = sum(row.spurious for row in rows)
    verb = "is" if spurious == 1 else "are"
    return (
        f"Features of a standard model: {', '.join(counts)} (robust: usefulness ρ of 0.1 or more, and above 0 in the worst case "
        f"within {threat}, γ). {spurious} of them {verb} spurious: at most half as useful on the test part."
    )
