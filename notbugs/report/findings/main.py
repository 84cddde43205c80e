"""Findings of every study: vulnerability, adversarial training, D_R and D_NR, D_rand and D_det."""

import math

from notbugs.report.findings.base import Finding, Status, sample_size
from notbugs.report.format import percent
from notbugs.report.results import CLEAN, FULL, HALF, StudyResults
from notbugs.study.catalog import DATASETS, trained_on

ROBUST, NONROBUST = trained_on("robust"), trained_on("nonrobust")
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
    """The findings of every study, in reading order."""
    random = "random-labels" if results.accuracy(trained_on("random-labels")) else "random-labels-incl-true"
    found = [
        _standard_training(results),
        _adversarial_training(results),
        _robust_and_nonrobust(results),
        _relabeled(results, random),
        _relabeled(results, "next-labels"),
    ]
    return [finding for finding in found if finding]


def _standard_training(results: StudyResults) -> Finding | None:
    clean, attacked = results.accuracy("standard"), results.accuracy("standard", radius=FULL)
    loss = results.difference(("standard", CLEAN), ("standard", FULL))
    if not (clean and attacked and loss):
        return None
    question = "Is standard training vulnerable to imperceptible perturbations?"
    text = (
        f"Standard training: clean accuracy {clean.percent}, robust accuracy {attacked.percent} at {results.threat_model()} "
        f"({sample_size(clean)}). The loss is {loss.points} ({loss.ci})."
    )
    size = results.metadata.data.mean_l2
    if size and results.metadata.norm == "l2":
        text += f" For comparison: a typical image has an L2 norm of {size:.1f}."
    if loss.ci_low <= 0:
        return Finding(question, "not supported", f"{text} That is no measurable loss.")
    if attacked.mean > clean.mean / 2:
        fewer = "Fewer than half of the correctly classified images are misclassified under attack."
        return Finding(question, "partly supported", f"{text} {fewer}")
    return Finding(question, "supported", text)


def _adversarial_training(results: StudyResults) -> Finding | None:
    clean, attacked = results.accuracy("adversarial"), results.accuracy("adversarial", radius=FULL)
    gain = results.difference(("adversarial", FULL), ("standard", FULL))
    if not (clean and attacked and gain):
        return None
    question = "Does adversarial training make the classifier robust?"
    text = (
        f"Adversarial training: clean accuracy {clean.percent}, robust accuracy {attacked.percent} at {results.threat_model()} "
        f"({sample_size(clean)})."
    )
    if gain.ci_low <= 0:
        caution = f"The difference from standard training is {gain.points} ({gain.ci}): not measurably more robust."
        return Finding(question, "not supported", f"{text} {caution}")
    status: Status = "supported" if attacked.mean > clean.mean / 2 else "partly supported"
    return Finding(question, status, f"{text} That is {gain.points} more than standard training ({gain.ci}).")


def _robust_and_nonrobust(results: StudyResults) -> Finding | None:
    robust, nonrobust = (results.accuracy(model, radius=HALF) for model in (ROBUST, NONROBUST))
    clean = [results.accuracy(model) for model in (ROBUST, NONROBUST)]
    gap = results.difference((ROBUST, HALF), (NONROBUST, HALF))
    if not (robust and nonrobust and gap and clean[0] and clean[1]):
        return None
    question = "Can the data be split into a robust and a non-robust version?"
    text = (
        f"Standard training on D_R, the robust version: clean accuracy {clean[0].percent}, robust accuracy {robust.percent} at "
        f"{results.threat_model(HALF)}. On D_NR, the non-robust version: {clean[1].percent} and {nonrobust.percent} "
        f"({sample_size(robust)}). The difference in robust accuracy is {gap.points} ({gap.ci}). "
        "D_R keeps only features of the adversarially trained model, D_NR only those of the standard model."
    )
    if gap.ci_low <= 0 <= gap.ci_high:
        return Finding(question, "not supported", f"{text} The CI includes 0: no measurable difference in robustness.")
    if gap.ci_high < 0:
        return Finding(question, "not supported", f"{text} That is the opposite of what the split is for.")
    standard, gain = results.accuracy("standard", radius=HALF), results.difference((ROBUST, HALF), ("standard", HALF))
    if standard and gain:
        text += f" Standard training on the original images: robust accuracy {standard.percent} at the same ε."
    if standard and gain and gain.ci_low <= 0:
        caution = "So D_R does not lead to measurably higher robust accuracy than the original images."
        return Finding(question, "partly supported", f"{text} {caution}")
    return Finding(question, "supported", text)


def _relabeled(results: StudyResults, set: str) -> Finding | None:
    """Test accuracy of a classifier trained on a relabeled set, compared with chance level and with its shuffled control."""
    model = trained_on(set)
    accuracy = results.accuracy(model)
    if not accuracy or math.isnan(results.chance):
        return None
    question, images, towards = _WORDS[DATASETS[set].labels]
    reached = f"A classifier trained on {images} reaches {accuracy.percent} test accuracy"
    level = f"(chance level {percent(results.chance)}; {sample_size(accuracy)})"
    how = f"Each training image was perturbed by at most {_relabel_threat_model(results, set)} {towards}."
    alone = f"{reached}, {accuracy.ci} {level}. {how}"
    if accuracy.ci_low <= results.chance:
        return Finding(question, "not supported", f"{alone} That is not measurably above chance level.")
    control = next((name for name, spec in DATASETS.items() if spec.construction == "shuffle" and spec.control_of == set), "")
    control_accuracy = results.accuracy(trained_on(control))
    excess = results.difference((model, CLEAN), (trained_on(control), CLEAN))
    if not control_accuracy or not excess:
        if set == "next-labels":  # its labels point away from the true class, so chance level is a hard control already
            return Finding(question, "supported", alone)
        return Finding(question, "inconclusive", f"{alone} Without its control this is not evidence yet.")
    text = (
        f"{reached} {level}; its control with shuffled perturbations {control_accuracy.percent}. The excess is {excess.points} "
        f"({excess.ci}). {how} The control has the same labels, and perturbations of the same size."
    )
    if excess.ci_low <= 0:
        return Finding(question, "not supported", f"{text} So the perturbations carry nothing measurable.")
    return Finding(question, "supported", f"{text} So the adversarial perturbations are features that generalize.")


def _relabel_threat_model(results: StudyResults, set: str) -> str:
    """The threat model of a relabeled set's perturbations."""
    epsilon = results.relabel_epsilon(set)
    if epsilon is None or math.isclose(epsilon, results.radii[FULL], rel_tol=1e-3):
        return results.threat_model()
    return f"{results.norm} ε = {epsilon:.4g}"


def cross_accuracy(results: StudyResults) -> str:
    """A sentence: accuracy of the D_R model on D_NR, and the reverse; "" if it was not measured."""
    on_nonrobust, on_robust = results.accuracy(ROBUST, "nonrobust"), results.accuracy(NONROBUST, "robust")
    if not (on_nonrobust and on_robust):
        return ""
    return f"Trained on D_R: accuracy {on_nonrobust.percent} on D_NR. Trained on D_NR: {on_robust.percent} on D_R."
