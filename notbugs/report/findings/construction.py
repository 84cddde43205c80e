"""Whether a construction worked: a null result on a set that was not constructed as intended shows nothing.

A positive result stands in any case. The limits are beyond all studies in docs/results whose constructions worked.
"""

from typing import Protocol

from notbugs.report.format import interval, percent
from notbugs.report.results import FULL, HALF, StudyResults
from notbugs.stats import newcombe_difference
from notbugs.study.catalog import DATASETS, trained_on

MAX_FEATURE_ERROR = 0.4  # mean relative error; at most 0.25 in docs/results
# Accuracy above chance level, of adversarial over standard training; in docs/results 0.7 on traffic signs, else 0.78 or more
MIN_SOURCE_SHARE = 0.75
MIN_TARGET_REACHED = 0.75  # share of images; at least 0.76 in docs/results
MIN_TRAINING_ACCURACY = 0.5  # on the new labels


class MeasuredAccuracy(Protocol):
    """An accuracy in [0, 1] with its 95 % CI, as `metrics.Accuracy`, which would import torch."""

    @property
    def accuracy(self) -> float: ...
    @property
    def ci_low(self) -> float: ...
    @property
    def ci_high(self) -> float: ...
    @property
    def n(self) -> int: ...


def split_problems(results: StudyResults) -> str:
    """What went wrong with D_R or D_NR and what to run next, as the rest of a sentence; "" if nothing did."""
    problems = []
    adversarial, standard = results.accuracy("adversarial"), results.accuracy(results.baseline)
    if adversarial and standard and is_weak_source(adversarial.mean, adversarial.ci_low, results.chance, standard.mean):
        problems.append(
            f"the adversarially trained model that D_R is made from has a clean accuracy of {adversarial.percent}, the standard "
            f"one {standard.percent}: train it longer ({_option(results, 'epochs', 2)}) or at a smaller ε "
            f"({_option(results, 'epsilon', 0.5)})"
        )
    elif not any(_more_robust(results, radius) for radius in (HALF, FULL)):
        problems.append(
            "the adversarially trained model that D_R is made from is not measurably more robust than the standard one: "
            f"train it longer ({_option(results, 'epochs', 2)})"
        )
    for name, title in (("robust", "D_R"), ("nonrobust", "D_NR")):
        error = results.feature_error(name)
        if error is not None and error > MAX_FEATURE_ERROR:
            problems.append(
                f"the features of {title} are reproduced with a mean relative error of {error:.2f}: "
                f"take more steps ({_option(results, 'invert_steps', 3)})"
            )
        trained = results.accuracy(trained_on(name))
        if not problems and trained and trained.ci_low <= results.chance:
            problems.append(
                f"the classifier trained on {title} has a clean accuracy of {trained.percent}, not measurably above chance "
                f"level: train longer ({_option(results, 'epochs', 2)})"
            )
    return _joined(problems)


def is_weak_source(accuracy: float, ci_low: float, chance: float, standard: float | None = None) -> bool:
    """Whether D_R of a robust model can hardly help: it classifies too few clean images correctly.

    Parameters
    ----------
    accuracy, ci_low : float
        Clean accuracy of the robust model, and the lower end of its interval.
    chance : float
        Chance level.
    standard : float, optional
        Clean accuracy of the standard model.
    """
    return ci_low <= chance or (standard is not None and accuracy < least_source_accuracy(standard, chance))


def least_source_accuracy(standard: float, chance: float) -> float:
    """The clean accuracy that a robust model needs beside a standard one.

    Examples
    --------
    >>> least_source_accuracy(0.9, 0.5)
    0.8
    """
    return chance + MIN_SOURCE_SHARE * (standard - chance)


def weak_source_warning(accuracy: float, ci_low: float, chance: float, standard: float | None = None) -> str:
    """What a user is told of a robust model that is weak; "" for one that is not. Parameters: as of `is_weak_source`."""
    if not is_weak_source(accuracy, ci_low, chance, standard):
        return ""
    beside = f"the standard model: {percent(standard)}, " if standard is not None else ""
    return (
        "D_R can hardly make a classifier more robust: the adversarially trained model that it is made from has a clean accuracy "
        f"of {percent(accuracy)} ({beside}chance level: {percent(chance)}). Train it for more epochs, at a smaller ε, or on more "
        "images"
    )


def undecided_source(robust: MeasuredAccuracy, chance: float, standard: MeasuredAccuracy) -> str:
    """That too few test images say whether a robust model is good enough to construct D_R from; "" if they do."""
    least = least_source_accuracy(standard.accuracy, chance)
    if is_weak_source(robust.accuracy, robust.ci_low, chance, standard.accuracy) or robust.ci_low >= least:
        return ""
    return (
        f"{robust.n} test images do not decide whether the adversarially trained model is good enough for D_R: below about "
        f"{percent(least)} clean accuracy D_R can hardly help, and its 95 % CI is {_ends(robust.ci_low, robust.ci_high)}. Attack "
        "what is trained on D_R on more images before you rely on it"
    )


def not_more_robust(robust: MeasuredAccuracy, standard: MeasuredAccuracy) -> str:
    """That the adversarially trained model is not measurably more robust than the standard one; "" if it is."""
    one, other = ((each.accuracy, each.ci_low, each.ci_high) for each in (robust, standard))
    _, low, high = newcombe_difference(one, other)
    if low > 0:
        return ""
    return (
        "the adversarially trained model is not measurably more robust than the standard one, and D_R can hardly be better: "
        f"robust accuracy {percent(robust.accuracy)} and {percent(standard.accuracy)} at ε / 2, the 95 % CI of the difference is "
        f"{_ends(low, high)} percentage points. Train for more epochs, or test on more images"
    )


def _ends(low: float, high: float) -> str:
    return interval(100 * low, 100 * high)


def relabel_problems(results: StudyResults, set: str) -> str:
    """What went wrong with a relabeled set and what to run next, as the rest of a sentence; "" if nothing did."""
    problems = []
    reached = results.target_reached(set)
    if reached is not None and reached < MIN_TARGET_REACHED:
        problems.append(
            f"only {percent(reached)} of its images reach their new label, so that they carry little of its features: "
            f"allow more ({_larger_epsilon(results, set)})"
        )
    source = results.accuracy(DATASETS[set].source_model or "standard")
    if source and source.ci_low <= results.chance:
        problems.append(
            f"the model that it is made with has a clean accuracy of {source.percent}: train it longer "
            f"({_option(results, 'epochs', 2)})"
        )
    learned = results.training_accuracy(trained_on(set))
    if learned is not None and learned < MIN_TRAINING_ACCURACY:
        problems.append(
            f"training on it ends at {percent(learned)} accuracy on its own labels, chance is {percent(results.chance)}: lower "
            f"its learning rate ({_option(results, 'relabel_learning_rate', 0.25)}) or give it more epochs "
            f"({_option(results, 'patience', 3)})"
        )
    accuracy, never_true = results.accuracy(trained_on(set)), DATASETS[set].labels in ("random", "next")
    if not problems and accuracy and never_true and accuracy.ci_high < results.chance:
        problems.append(
            f"{accuracy.percent} after training on `{set}` is below chance level, as each image's own features point to its true "
            "class, which is never its label: whether the perturbations carry features, too, is not decided. Allow larger "
            f"perturbations ({_larger_epsilon(results, set)})"
        )
    return _joined(problems)


def _more_robust(results: StudyResults, radius: int) -> bool:
    gain = results.difference(("adversarial", radius), (results.baseline, radius))
    return gain is None or gain.ci_low > 0


def _option(results: StudyResults, name: str, factor: float) -> str:
    """An option with a multiple of the study's value."""
    value = results.metadata.epsilon if name == "epsilon" else results.metadata.settings.get(name)
    option = "--" + name.replace("_", "-")
    if not isinstance(value, int | float):
        return option
    return f"{option} {max(1, round(factor * value)) if isinstance(value, int) else factor * value:.4g}"


def larger_relabel_epsilon(results: StudyResults, set: str) -> float | None:
    """Twice the epsilon of a relabeled set, which may have grown beyond that of the study; None if it is not known."""
    grown, configured = results.relabel_epsilon(set), results.metadata.settings.get("relabel_epsilon")
    known = [value for value in (grown, configured) if isinstance(value, int | float)]
    return float(f"{2 * max(known):.4g}") if known else None


def _larger_epsilon(results: StudyResults, set: str) -> str:
    larger = larger_relabel_epsilon(results, set)
    return f"--relabel-epsilon {larger:.4g}" if larger else "--relabel-epsilon"


def _joined(problems: list[str]) -> str:
    """Problems and the remedy that they share, as the rest of a sentence."""
    return f"{'; '.join(problems)}. Repeat the command with that and another --out." if problems else ""
