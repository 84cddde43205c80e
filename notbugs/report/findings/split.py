"""The finding on D_R and D_NR: judged at both epsilons, against each other and against the original images."""

from typing import NamedTuple

from notbugs.report.findings.base import Finding, sample_size
from notbugs.report.findings.construction import split_problems
from notbugs.report.format import Estimate
from notbugs.report.results import FULL, HALF, StudyResults
from notbugs.study.catalog import trained_on

ROBUST, NONROBUST = trained_on("robust"), trained_on("nonrobust")
QUESTION = "Can the data be split into a robust and a non-robust version?"


class _AtEpsilon(NamedTuple):
    """Robust accuracies at one radius, and those of D_R minus the others: with intervals that hold for both radii together."""

    radius: int
    robust: Estimate
    nonrobust: Estimate
    standard: Estimate | None
    over_nonrobust: Estimate
    over_standard: Estimate | None

    @property
    def differences(self) -> list[Estimate]:
        return [each for each in (self.over_nonrobust, self.over_standard) if each]

    @property
    def above(self) -> bool:
        """Whether D_R is measurably above all others."""
        return all(each.ci_low > 0 for each in self.differences)

    @property
    def below(self) -> bool:
        """Whether D_R is measurably below one of them."""
        return any(each.ci_high < 0 for each in self.differences)


def findings(results: StudyResults) -> list[Finding]:
    """The finding, once both models were evaluated."""
    robust, nonrobust = results.accuracy(ROBUST), results.accuracy(NONROBUST)
    radii = [radius for radius in (HALF, FULL) if results.accuracy(ROBUST, radius=radius)]
    found = [at for at in (_at_epsilon(results, radius, len(radii)) for radius in radii) if at]
    if not (robust and nonrobust and found):
        return []
    together = f" These CIs hold for both ε together ({sample_size(robust)})." if len(found) > 1 else ""
    text = (
        f"Clean accuracy after standard training on D_R, the robust version: {robust.percent}; on D_NR, the non-robust version: "
        f"{nonrobust.percent}. Robust accuracy: {' '.join(_sentence(results, at) for at in found)}{together} "
        "D_R keeps only features of the adversarially trained model, D_NR only those of the standard model."
    )
    return [_judge(results, found, text)]


def _at_epsilon(results: StudyResults, radius: int, comparisons: int) -> _AtEpsilon | None:
    robust, nonrobust = results.accuracy(ROBUST, radius=radius), results.accuracy(NONROBUST, radius=radius)
    over_nonrobust = results.difference((ROBUST, radius), (NONROBUST, radius), comparisons)
    if not (robust and nonrobust and over_nonrobust):
        return None
    over_standard = results.difference((ROBUST, radius), ("standard", radius), comparisons)
    return _AtEpsilon(radius, robust, nonrobust, results.accuracy("standard", radius=radius), over_nonrobust, over_standard)


def _sentence(results: StudyResults, at: _AtEpsilon) -> str:
    """Robust accuracies at one epsilon, and differences."""
    others = [("D_NR", at.nonrobust, at.over_nonrobust)]
    if at.standard and at.over_standard:
        others.append(("original images", at.standard, at.over_standard))
    accuracies = ", ".join(f"{name} {accuracy.percent}" for name, accuracy, _ in others)
    differences = ", ".join(f"minus {name} {difference.points} ({difference.ci})" for name, _, difference in others)
    return f"At {results.threat_model(at.radius)}: D_R {at.robust.percent}, {accuracies}. D_R {differences}."


def _judge(results: StudyResults, found: list[_AtEpsilon], text: str) -> Finding:
    if any(at.above for at in found):
        if not any(at.below for at in found):
            return Finding(QUESTION, "supported", text, "good")
        return Finding(QUESTION, "partly supported", f"{text} At the other ε it is the reverse.", "neutral")
    if any(at.over_nonrobust.ci_low > 0 for at in found):
        caution = "D_R is more robust than D_NR, but does not lead to measurably higher robust accuracy than the original images."
        return Finding(QUESTION, "partly supported", f"{text} {caution}", "neutral")
    if any(at.over_standard and at.over_standard.ci_low > 0 for at in found):
        caution = "D_R is more robust than the original images, but not measurably more than D_NR."
        return Finding(QUESTION, "partly supported", f"{text} {caution}", "neutral")
    if problems := split_problems(results):
        return Finding(QUESTION, "inconclusive", f"{text} No difference was measured, but {problems}")
    if any(at.over_nonrobust.ci_high < 0 for at in found):
        return Finding(QUESTION, "not supported", f"{text} That is the opposite of what the split is for.", "bad")
    return Finding(QUESTION, "not supported", f"{text} No difference in robustness was measured.", "bad")


def cross_accuracy(results: StudyResults) -> str:
    """A sentence: accuracy of the D_R model on D_NR, and the reverse; "" if it was not measured."""
    on_nonrobust, on_robust = results.accuracy(ROBUST, "nonrobust"), results.accuracy(NONROBUST, "robust")
    if not (on_nonrobust and on_robust):
        return ""
    return f"Trained on D_R: accuracy {on_nonrobust.percent} on D_NR. Trained on D_NR: {on_robust.percent} on D_R."
