"""Whether a construction worked: a null result on a set that was not constructed as intended shows nothing.

A positive result stands in any case. The limits are beyond all studies in docs/results whose constructions worked.
"""

from typing import Protocol

from notbugs.report.format import interval, percent
from notbugs.report.results import FULL, HALF, StudyResults
from notbugs.stats import newcombe_difference
from notbugs.study.catalog.datasets import DATASETS, MIN_TARGET_REACHED
from notbugs.study.catalog.models import trained_on

MAX_FEATURE_ERROR = 0.4  # mean relative error; at most 0.25 in docs/results
# Accuracy above chance level, of adversarial over standard training; in docs/results 0.7 on traffic signs, else 0.78 or more
MIN_SOURCE_SHARE = 0.75
MIN_TRAINING_ACCURACY = 0.5  # on the new labels
MOST_OF_DISTANCE = 0.9  # of the median distance to the nearest image of another class, for perturbations that are advised
REMEDIES = {"epochs": 2, "invert_steps": 3, "epsilon": 0.5}  # times the study's value
REPEAT = " Repeat the command with that and another --out."
WORTHWHILE = 1.1  # times the epsilon so far: less is no advice


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
    return _joined([problem for problem, _ in _split_problems(results)])


def split_remedies(results: StudyResults) -> dict[str, float]:
    """The options of a study in which what went wrong with D_R or D_NR may go right: names of `StudyConfig` and values."""
    values = {name: _multiple(results, name, REMEDIES[name]) for _, names in _split_problems(results) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _split_problems(results: StudyResults) -> list[tuple[str, tuple[str, ...]]]:
    """What went wrong with D_R or D_NR, and the options that are changed for it: keys of `REMEDIES`."""
    problems: list[tuple[str, tuple[str, ...]]] = []
    adversarial, standard = results.accuracy("adversarial"), results.accuracy(results.baseline)
    if adversarial and standard and is_weak_source(adversarial.mean, adversarial.ci_low, results.chance, standard.mean):
        problem = (
            f"the adversarially trained model that D_R is made from has a clean accuracy of {adversarial.percent}, the standard "
            f"one {standard.percent}: train it longer ({_remedy(results, 'epochs')}) or at a smaller ε "
            f"({_remedy(results, 'epsilon')})"
        )
        problems.append((problem, ("epochs",)))
    elif not any(_more_robust(results, radius) for radius in (HALF, FULL)):
        problem = (
            "the adversarially trained model that D_R is made from is not measurably more robust than the standard one: "
            f"train it longer ({_remedy(results, 'epochs')})"
        )
        problems.append((problem, ("epochs",)))
    for name, title in (("robust", "D_R"), ("nonrobust", "D_NR")):
        error = results.feature_error(name)
        if error is not None and error > MAX_FEATURE_ERROR:
            problem = (
                f"the features of {title} are reproduced with a mean relative error of {error:.2f}: "
                f"take more steps ({_remedy(results, 'invert_steps')})"
            )
            problems.append((problem, ("invert_steps",)))
        trained = results.accuracy(trained_on(name))
        if not problems and trained and trained.ci_low <= results.chance:
            problem = (
                f"the classifier trained on {title} has a clean accuracy of {trained.percent}, not measurably above chance "
                f"level: train longer ({_remedy(results, 'epochs')})"
            )
            problems.append((problem, ("epochs",)))
    return problems


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
            f"{_allow_more(results, set)}"
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
            "class, which is never its label: whether the perturbations carry features, too, is not decided: "
            f"{_allow_more(results, set)}"
        )
    return _joined(problems)


def _more_robust(results: StudyResults, radius: int) -> bool:
    gain = results.difference(("adversarial", radius), (results.baseline, radius))
    return gain is None or gain.ci_low > 0


def _multiple(results: StudyResults, name: str, factor: float) -> float | None:
    """A multiple of the study's value of an option; None if it is not known."""
    value = results.metadata.epsilon if name == "epsilon" else results.metadata.settings.get(name)
    if not isinstance(value, int | float):
        return None
    return max(1, round(factor * value)) if isinstance(value, int) else float(f"{factor * value:.4g}")


def _option(results: StudyResults, name: str, factor: float) -> str:
    """An option with a multiple of the study's value."""
    option, value = "--" + name.replace("_", "-"), _multiple(results, name, factor)
    return option if value is None else f"{option} {value:.4g}" if isinstance(value, float) else f"{option} {value}"


def _remedy(results: StudyResults, name: str) -> str:
    """An option of `REMEDIES` with its value."""
    return _option(results, name, REMEDIES[name])


def larger_relabel_epsilon(results: StudyResults, set: str) -> float | None:
    """A larger epsilon for a relabeled set: twice its own, which may have grown, but below the nearest image of another class.

    None if it is not known, or as large as that allows.
    """
    largest = _largest_relabel_epsilon(results, set)
    if largest is None:
        return None
    nearest = results.metadata.data.nearest_other_class
    larger = 2 * largest if nearest is None else min(2 * largest, MOST_OF_DISTANCE * nearest)
    return float(f"{larger:.3g}") if larger > WORTHWHILE * largest else None


def _largest_relabel_epsilon(results: StudyResults, set: str) -> float | None:
    """Of the study and of the set, which may have grown; None if neither is known."""
    grown, configured = results.relabel_epsilon(set), results.metadata.settings.get("relabel_epsilon")
    return max((value for value in (grown, configured) if isinstance(value, int | float)), default=None)


def _allow_more(results: StudyResults, set: str) -> str:
    """The remedy for perturbations that carry too little, as the rest of a sentence."""
    larger = larger_relabel_epsilon(results, set)
    if larger or _largest_relabel_epsilon(results, set) is None:
        return f"allow larger perturbations (--relabel-epsilon{f' {larger:.4g}' if larger else ''})"
    return (
        f"take more steps ({_option(results, 'relabel_steps', 3)}), or train on more images: larger perturbations would reach "
        "images of other classes"
    )


def _joined(problems: list[str]) -> str:
    """Problems and the remedy that they share, as the rest of a sentence."""
    return f"{'; '.join(problems)}.{REPEAT}" if problems else ""
