"""Findings on the two models that every study trains on the original images: standard and adversarial training."""

from notbugs.report.findings.base import Finding, sample_size
from notbugs.report.results import CLEAN, FULL, StudyResults


def findings(results: StudyResults) -> list[Finding]:
    """The findings, in reading order."""
    return [finding for finding in (_standard_training(results), _adversarial_training(results)) if finding]


def _standard_training(results: StudyResults) -> Finding | None:
    clean, attacked = results.accuracy("standard"), results.accuracy("standard", radius=FULL)
    loss = results.difference(("standard", CLEAN), ("standard", FULL))
    if not (clean and attacked and loss):
        return None
    question = "Is standard training vulnerable to small perturbations?"
    text = (
        f"Standard training: clean accuracy {clean.percent}, robust accuracy {attacked.percent} at {results.threat_model()} "
        f"({sample_size(clean)}). Under attack accuracy drops by {loss.points} ({loss.ci})."
    )
    size = results.metadata.data.mean_l2
    if size and results.metadata.norm == "l2":
        share = results.metadata.epsilon / size
        text += f" A perturbation is at most {100 * share:.0f} % of a typical image, which has an L2 norm of {size:.1f}."
    if loss.ci_low <= 0:
        return Finding(question, "not supported", f"{text} That is no measurable drop.", "good")
    if attacked.mean > clean.mean / 2:
        fewer = "Fewer than half of the correctly classified images are misclassified under attack."
        return Finding(question, "partly supported", f"{text} {fewer}", "bad")
    return Finding(question, "supported", text, "bad")


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
        return Finding(question, "not supported", f"{text} {caution}", "bad")
    text = f"{text} That is {gain.points} more than standard training ({gain.ci})."
    if attacked.mean > clean.mean / 2:
        return Finding(question, "supported", text, "good")
    return Finding(question, "partly supported", text, "good")
