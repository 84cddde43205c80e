"""Findings on D_rand and D_det: test accuracy after training on relabeled images, against chance level and a control."""

import math
from typing import NamedTuple

from notbugs.report.findings.base import Finding, image_share, sample_size
from notbugs.report.findings.construction import relabel_problems
from notbugs.report.findings.settings import where_settings_were_chosen
from notbugs.report.format import Estimate, percent
from notbugs.report.results import CLEAN, FULL, StudyResults
from notbugs.study.catalog.datasets import DATASETS
from notbugs.study.catalog.models import trained_on

LISTED_SEEDS = 10
SPREAD = 0.1  # between seeds, from which each is listed
D_RAND = trained_on("random-labels")
CONTROL = trained_on("random-labels-shuffled")
# Per kind of labels: the question, the training images, and what was done to them
_D_RAND = "Do adversarial perturbations carry features that generalize? (D_rand)"
_WORDS = {
    "random": (
        _D_RAND,
        "images whose labels are all wrong",
        "towards a random other class and relabeled as that class",
    ),
    "random_incl_true": (
        _D_RAND,
        "images with random labels, right only by chance,",
        "towards a random class and relabeled as that class",
    ),
    "next": (
        "Do they generalize even if the images' own features consistently point to a wrong class? (D_det)",
        "images that are all labeled as the next class",
        "towards the class after its own and relabeled as that class",
    ),
}


class RandomLabels(NamedTuple):
    """Test accuracy after training on D_rand and on its control, and their difference.

    Attributes
    ----------
    accuracy, control, excess : Estimate
    above_chance, above_control : bool
        Whether that was measured: the lower end of a 95 % CI.
    """

    accuracy: Estimate
    control: Estimate
    excess: Estimate
    above_chance: bool
    above_control: bool


def random_labels(results: StudyResults) -> RandomLabels | None:
    """What D_rand shows; None if it, its control or chance level is not known."""
    accuracy, control = results.accuracy(D_RAND), results.accuracy(CONTROL)
    excess = results.difference((D_RAND, CLEAN), (CONTROL, CLEAN))
    if not (accuracy and control and excess) or math.isnan(results.chance):
        return None
    return RandomLabels(accuracy, control, excess, accuracy.ci_low > results.chance, excess.ci_low > 0)


def findings(results: StudyResults) -> list[Finding]:
    """The findings, in reading order."""
    random = "random-labels" if results.accuracy(trained_on("random-labels")) else "random-labels-incl-true"
    found = [finding for finding in (_finding(results, random), _finding(results, "next-labels")) if finding]
    chosen = where_settings_were_chosen(results)
    return [finding._replace(details=f"{finding.details} {chosen}".strip()) for finding in found]


def _finding(results: StudyResults, set: str) -> Finding | None:
    model = trained_on(set)
    accuracy = results.accuracy(model)
    if not accuracy or math.isnan(results.chance):
        return None
    question, images, towards = _WORDS[DATASETS[set].labels]
    before = results.accuracy_before_adapting(model)
    adapted = (
        f" ({before.percent} before its batch-norm statistics are adapted to the clean training images, without labels)"
        if before
        else ""
    )
    reached = f"A classifier trained on {images} reaches {accuracy.percent} test accuracy{_by_seed(results, model)}{adapted}"
    level = f"(chance level {percent(results.chance)}; {sample_size(accuracy)})"
    how = f"Each training image was perturbed by at most {_threat_model(results, set)}{_larger(results, set)} {towards}."
    details = f"{_adapted(results, set)}{_below_chance(results, accuracy)}".strip()
    alone = f"{reached}, {accuracy.ci} {level}. {how}{_next_class(results, set)}"
    above = accuracy._replace(
        mean=accuracy.mean - results.chance, ci_low=accuracy.ci_low - results.chance, ci_high=accuracy.ci_high - results.chance
    )
    control = next((name for name, spec in DATASETS.items() if spec.construction == "shuffle" and spec.control_of == set), "")
    control_accuracy = results.accuracy(trained_on(control))
    excess = results.difference((model, CLEAN), (trained_on(control), CLEAN))
    if accuracy.ci_low <= results.chance:
        beside = (
            f" Its control with shuffled perturbations: {control_accuracy.percent}; the excess is {excess.points} ({excess.ci})."
            if control_accuracy and excess
            else ""
        )
        explained = accuracy.ci_high < results.chance and relabel_problems(results, set)  # by what `_null` adds
        below = "" if explained else _below_chance(results, accuracy) or " That is not measurably above chance level."
        text = f"{alone}{below}{beside}{_some_true(results, set)}"
        return _null(results, set, question, text, above, _adapted(results, set))
    if not control_accuracy or not excess:
        if set == "next-labels":  # its labels point away from the true class, so chance level is a hard control already
            missing = (
                "If the perturbations carried nothing, it could only learn to predict the next class, and would be right less "
                "often than chance: so chance level is a strict comparison. Its control with shuffled perturbations was not run; "
                "notbugs run --full adds it."
            )
            return Finding(question, "supported", f"{alone} {missing}{_leakage(results, set)}", effect=above, details=details)
        return Finding(question, "inconclusive", f"{alone} Without its control this is not evidence yet.", details=details)
    text = (
        f"{reached} {level}, {above.points} above chance level. Its control with shuffled perturbations reaches "
        f"{control_accuracy.percent}{_why_below(results, control_accuracy)}, a difference of {excess.points} ({excess.ci})."
        f"{_learned(results, set, control)} {how}"
        f"{_next_class(results, set)}"
    )
    details = (
        f"{_adapted(results, set)} The control has the same labels, and each image the same perturbation with its pixels shuffled"
        f"{_as_adapted(results, control)}."
    )
    if excess.ci_low <= 0:
        return _null(results, set, question, f"{text} So the perturbations carry nothing measurable.", excess, details)
    text = f"{text} So the perturbations contain features that generalize.{_leakage(results, set)}"
    return Finding(question, "supported", text, effect=excess, details=details.strip())


def _by_seed(results: StudyResults, model: str) -> str:
    """The accuracy of each seed, where they differ much; "" otherwise."""
    shares = [row.accuracy for _, row in sorted(results.accuracy_by_seed(model).items())]
    if not 1 < len(shares) <= LISTED_SEEDS or max(shares) - min(shares) < SPREAD:
        return ""
    return f" (by seed: {', '.join(f'{100 * share:.1f}' for share in shares)})"


def _some_true(results: StudyResults, set: str) -> str:
    """What D_rand as in the paper gives, where it is above chance level and the stricter set is not; "" otherwise."""
    paper = results.accuracy(trained_on("random-labels-incl-true"))
    if set != "random-labels" or not paper or paper.ci_low <= results.chance:
        return ""
    return (
        f" D_rand as in the paper, whose random labels are the true ones by chance, reaches {paper.cell}, above chance level: "
        "how much of that the true labels do, its control measures (--full)."
    )


def _null(results: StudyResults, set: str, question: str, text: str, effect: Estimate, details: str) -> Finding:
    """A null result; inconclusive if the set was not constructed as intended."""
    details = details.strip()
    if problems := relabel_problems(results, set):
        return Finding(question, "inconclusive", f"{text} But {problems}", effect=effect, details=details)
    return Finding(question, "not supported", text, effect=effect, details=details)


def _why_below(results: StudyResults, accuracy: Estimate) -> str:
    """The reason in brackets why a control lies measurably below chance level; "" if it does not."""
    if not accuracy.ci_high < results.chance:
        return ""
    return " (below chance level: an image's own features point to its true class, which is never its label)"


def _below_chance(results: StudyResults, accuracy: Estimate) -> str:
    """Why an accuracy lies measurably below chance level; "" if it does not."""
    if not accuracy.ci_high < results.chance:
        return ""
    return (
        f" {accuracy.percent} is below chance level: an image's own features point to its true class, which is never its label."
    )


def _next_class(results: StudyResults, set: str) -> str:
    """How far the labels of D_det were learned: on test images, the class after the true one; "" for other sets."""
    following = results.accuracy(trained_on(set), "test-next")
    if DATASETS[set].labels != "next" or not following:
        return ""
    return (
        f" For {following.percent} of the test images it predicts the next class, as its labels teach for the images' own "
        "features."
    )


def _adapted(results: StudyResults, set: str) -> str:
    """That batch-norm statistics are those of the original images, and the accuracy without; "" if they are not."""
    if not results.adapts_batchnorm:
        return ""
    before = results.accuracy_before_adapting(trained_on(set))
    without = f": with those of the relabeled images its test accuracy is {before.cell}" if before else ""
    return (
        f" After training, its batch-norm statistics were taken from the original training images, without labels{without}. "
        "Perturbed images have other statistics than the test images, which hides what the weights have learned."
    )


def _as_adapted(results: StudyResults, control: str) -> str:
    """That the control was treated alike, where batch-norm statistics were taken anew."""
    if not results.adapts_batchnorm:
        return ""
    before = results.accuracy_before_adapting(trained_on(control))
    without = f" (without: {before.cell})" if before else ""
    return f"; its batch-norm statistics were taken in the same way{without}"


def _learned(results: StudyResults, set: str, control: str) -> str:
    """How far the labels were learned, by the classifier and by its control."""
    own, other = (results.training_accuracy(trained_on(name)) for name in (set, control))
    if own is None or other is None:
        return ""
    return (
        f" In training the classifier reaches {percent(own)} on its own labels, the control {percent(other)} on the same labels."
    )


def _larger(results: StudyResults, set: str) -> str:
    """How much larger these perturbations may be than those of the attacks; "" if they may not."""
    epsilon, attack = results.relabel_epsilon(set), results.radii[FULL]
    if epsilon is None or epsilon < 1.001 * attack:
        return ""
    share = image_share(results, epsilon)
    size = f", {share} of a typical image" if share else ""
    return f" ({epsilon / attack:.3g} times the ε of the attacks{size})"


def _leakage(results: StudyResults, set: str) -> str:
    """That larger perturbations than those of the attacks may change robust features, where nothing measured that."""
    epsilon, attack = results.relabel_epsilon(set), results.radii[FULL]
    if results.metadata.full or epsilon is None or epsilon < 1.001 * attack:
        return ""
    times = f"{epsilon / attack:.3g} times the ε of the attacks"
    robust, shuffled = (results.accuracy("adversarial", name) for name in (set, f"{set}-shuffled"))
    beside = f", on {shuffled.percent} with shuffled perturbations" if shuffled else ""
    follows = f" The adversarially trained model predicts the new label on {robust.percent} of them{beside}." if robust else ""
    return (
        f" That these features are non-robust is not shown: the perturbations are {times} (--full measures what they change)."
        f"{follows}"
    )


def _threat_model(results: StudyResults, set: str) -> str:
    """The threat model of a relabeled set's perturbations."""
    epsilon = results.relabel_epsilon(set)
    if epsilon is None or math.isclose(epsilon, results.radii[FULL], rel_tol=1e-3):
        return results.threat_model()
    return f"{results.norm} ε = {epsilon:.4g}"
