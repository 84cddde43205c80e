"""Findings on D_rand and D_det: test accuracy after training on relabeled images, against chance level and a control."""

import math

from notbugs.report.findings.base import Finding, sample_size
from notbugs.report.findings.construction import relabel_problems
from notbugs.report.format import Estimate, percent
from notbugs.report.results import CLEAN, FULL, StudyResults
from notbugs.study.catalog import DATASETS, trained_on

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
        "Do they generalize even when robust features point to another class? (D_det)",
        "images that are all labeled as the next class",
        "towards the class after its own and relabeled as that class",
    ),
}


def findings(results: StudyResults) -> list[Finding]:
    """The findings, in reading order."""
    random = "random-labels" if results.accuracy(trained_on("random-labels")) else "random-labels-incl-true"
    return [finding for finding in (_finding(results, random), _finding(results, "next-labels")) if finding]


def _finding(results: StudyResults, set: str) -> Finding | None:
    model = trained_on(set)
    accuracy = results.accuracy(model)
    if not accuracy or math.isnan(results.chance):
        return None
    question, images, towards = _WORDS[DATASETS[set].labels]
    reached = f"A classifier trained on {images} reaches {accuracy.percent} test accuracy"
    level = f"(chance level {percent(results.chance)}; {sample_size(accuracy)})"
    how = f"Each training image was perturbed by at most {_threat_model(results, set)}{_larger(results, set)} {towards}."
    how += _adapted(results)
    alone = f"{reached}, {accuracy.ci} {level}. {how}{_below_chance(results, set, accuracy)}"
    if accuracy.ci_low <= results.chance:
        return _null(results, set, question, f"{alone} That is not measurably above chance level.")
    control = next((name for name, spec in DATASETS.items() if spec.construction == "shuffle" and spec.control_of == set), "")
    control_accuracy = results.accuracy(trained_on(control))
    excess = results.difference((model, CLEAN), (trained_on(control), CLEAN))
    if not control_accuracy or not excess:
        if set == "next-labels":  # its labels point away from the true class, so chance level is a hard control already
            return Finding(question, "supported", alone)
        return Finding(question, "inconclusive", f"{alone} Without its control this is not evidence yet.")
    text = (
        f"{reached} {level}; its control with shuffled perturbations {control_accuracy.percent}. The excess is {excess.points} "
        f"({excess.ci}). {how} The control has the same labels, and in each image the same perturbation with its pixels shuffled."
        f"{_below_chance(results, control, control_accuracy)}"
    )
    if excess.ci_low <= 0:
        return _null(results, set, question, f"{text} So the perturbations carry nothing measurable.")
    return Finding(question, "supported", f"{text} So the adversarial perturbations contain features that generalize.")


def _null(results: StudyResults, set: str, question: str, text: str) -> Finding:
    """A null result; inconclusive if the set was not constructed as intended."""
    if problems := relabel_problems(results, set):
        return Finding(question, "inconclusive", f"{text} But {problems}")
    return Finding(question, "not supported", text)


def _below_chance(results: StudyResults, set: str, accuracy: Estimate) -> str:
    """Why an accuracy lies measurably below chance level; "" if it does not."""
    if not accuracy.ci_high < results.chance:
        return ""
    text = " Less than chance level is what robust features alone give: here they never go with the true label."
    following = results.accuracy(trained_on(set), "test-next")
    if DATASETS[set].labels == "next" and following:
        text += f" It predicts the next class, as it was taught, for {following.percent} of the test images."
    return text


def _adapted(results: StudyResults) -> str:
    """That batch-norm statistics are those of the original images; "" if they are not."""
    if not results.metadata.settings.get("adapt_batchnorm"):
        return ""
    return (
        " Its batch-norm statistics, and its control's, were taken from the original training images afterwards, without labels."
    )


def _larger(results: StudyResults, set: str) -> str:
    """How much larger these perturbations may be than those of the attacks; "" if they may not."""
    epsilon, attack = results.relabel_epsilon(set), results.radii[FULL]
    if epsilon is None or epsilon < 1.001 * attack:
        return ""
    return f" ({epsilon / attack:.3g} times the ε of the attacks)"


def _threat_model(results: StudyResults, set: str) -> str:
    """The threat model of a relabeled set's perturbations."""
    epsilon = results.relabel_epsilon(set)
    if epsilon is None or math.isclose(epsilon, results.radii[FULL], rel_tol=1e-3):
        return results.threat_model()
    return f"{results.norm} ε = {epsilon:.4g}"
