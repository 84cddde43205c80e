"""The finding on D_R and D_NR: compared at both epsilons, with each other and with the original images."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from notbugs.report.findings.base import Finding, sample_size
from notbugs.report.findings.construction import split_problems
from notbugs.report.findings.settings import where_settings_were_chosen
from notbugs.report.format import Estimate, percent
from notbugs.report.results import CLEAN, FULL, HALF, StudyResults
from notbugs.study.catalog.models import trained_on

ROBUST, NONROBUST = trained_on("robust"), trained_on("nonrobust")
QUESTION = "Is a classifier trained on D_R more robust than one trained on D_NR or on the original images?"
STRONG, CORRECT = trained_on("robust-strong"), trained_on("correct-only")
STRONG_QUESTION = "Is a classifier trained on the stronger D_R more robust than one trained alike on the original images?"


class _AtEpsilon(NamedTuple):
    """Robust accuracy at one radius, D_R minus the others: with intervals that hold for both radii together."""

    radius: int
    over_nonrobust: Estimate
    over_standard: Estimate | None

    @property
    def differences(self) -> list[Estimate]:
        return [each for each in (self.over_nonrobust, self.over_standard) if each]

    @property
    def smallest(self) -> Estimate:
        """The difference from whichever of the others is closest, as far as its CI goes."""
        return min(self.differences, key=lambda each: each.ci_high)

    @property
    def above(self) -> bool:
        """Whether D_R is measurably above all others."""
        return all(each.ci_low > 0 for each in self.differences)

    @property
    def below(self) -> bool:
        """Whether D_R is measurably below one of them."""
        return any(each.ci_high < 0 for each in self.differences)


def findings(results: StudyResults) -> list[Finding]:
    """On D_R, and on the stronger D_R of `--robust-strong`, once the models were evaluated."""
    return [*_robust_and_nonrobust(results), *_stronger(results)]


def short_answer(results: StudyResults) -> str:
    """What was found for D_R, in one sentence with the two accuracies that say most.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    str
        "" until D_R, D_NR and the original images were compared.
    """
    measured = [radius for radius in (HALF, FULL) if results.accuracy(ROBUST, radius=radius)]
    found = [at for radius in measured if (at := _at_epsilon(results, radius, len(measured)))]
    if not found or not all(at.over_standard for at in found):
        return ""
    (finding,) = _robust_and_nonrobust(results)
    if finding.status == "inconclusive":
        problem = split_problems(results).partition(": ")[0]
        return f"Whether D_R (the robust version of the images) helps cannot be said here: {problem}."
    above = [at for at in found if at.above] or [at for at in found if at.over_standard and at.over_standard.ci_low > 0]
    shown = max(above, key=_gain_for_sure) if above else max(found, key=_size_of_difference)
    after, before = results.accuracy(ROBUST, radius=shown.radius), results.accuracy(results.baseline, radius=shown.radius)
    if not (after and before and shown.over_standard):
        return ""
    chance = f"; {words}" if (words := results.beside_chance(after)) and above else ""
    figures = f"{after.percent} against {before.percent} at {results.threat_model(shown.radius)}{chance}"
    what, than = "standard training on D_R (the robust version of the images) is", "robust than on the originals"
    if finding.status == "supported":
        return f"S{what[1:]} more {than}: {figures}."
    if above:
        caution = "the reverse at the other ε" if any(at.above for at in found) else "not measurably more than on D_NR"
        return f"S{what[1:]} more {than} ({figures}), but {caution}."
    if shown.over_standard.ci_high < 0:
        return f"S{what[1:]} less {than}: {figures}."
    if finding.answer == "unclear":
        return f"Whether {what} more {than} is unclear: {figures}."
    return f"S{what[1:]} not measurably more {than}: {figures}."


def _gain_for_sure(at: _AtEpsilon) -> float:
    return at.over_standard.ci_low if at.over_standard else 0.0


def _size_of_difference(at: _AtEpsilon) -> float:
    return abs(at.over_standard.mean) if at.over_standard else 0.0


def _robust_and_nonrobust(results: StudyResults) -> list[Finding]:
    radii = [radius for radius in (HALF, FULL) if results.accuracy(ROBUST, radius=radius)]
    found = [at for at in (_at_epsilon(results, radius, len(radii)) for radius in radii) if at]
    if not found:
        return []
    return [_compare(results, found, _text(results, found))._replace(details=where_settings_were_chosen(results))]


def _stronger(results: StudyResults) -> list[Finding]:
    """The stronger D_R and its control: the original images that the robust models classify correctly, the same training."""
    radii = [radius for radius in (HALF, FULL) if results.accuracy(STRONG, radius=radius)]
    by_radius = {radius: results.difference((STRONG, radius), (CORRECT, radius), len(radii)) for radius in radii}
    over = [found for found in by_radius.values() if found]
    if not over:
        return []
    models = {"the stronger D_R": STRONG, "its control": CORRECT, "adversarial training": "adversarial"}
    accuracies = ", ".join(f"{words} {_accuracies(results, model, radii)}" for words, model in models.items())
    clean = ", ".join(_accuracies(results, model, [CLEAN]) for model in models.values())
    text = (
        f"Robust accuracy at {' and '.join(map(results.threat_model, radii))}: {accuracies}. Clean: {clean}. "
        f"Minus its control, in percentage points: {_points(over)} (95 % CIs; {sample_size(over[0])}). "
        "The control is trained on the original images of the same files, with the same noise and number of steps: what it "
        "reaches needs no inverted features. No adversarial example was made in either training."
    )
    effect = max(over, key=lambda each: each.ci_low)
    above, below = effect.ci_low > 0, min(each.ci_high for each in over) < 0
    if above and below:
        return [Finding(STRONG_QUESTION, "partly supported", f"{text} At the other ε it is the reverse.", "neutral", effect)]
    if above:
        where = _where(results, {radius: found.ci_low > 0 for radius, found in by_radius.items() if found})
        return [Finding(STRONG_QUESTION, "supported", text, "good", effect, where=where)]
    if problems := split_problems(results):
        return [
            Finding(
                STRONG_QUESTION,
                "inconclusive",
                f"{text} No difference in favor of D_R was measured, but {problems}",
                effect=effect,
            )
        ]
    if below:
        return [Finding(STRONG_QUESTION, "not supported", f"{text} The control is more robust.", "bad", effect)]
    return [Finding(STRONG_QUESTION, "not supported", f"{text} No difference was measured.", "bad", effect)]


def _at_epsilon(results: StudyResults, radius: int, comparisons: int) -> _AtEpsilon | None:
    over_nonrobust = results.difference((ROBUST, radius), (NONROBUST, radius), comparisons)
    over_standard = results.difference((ROBUST, radius), (results.baseline, radius), comparisons)
    return _AtEpsilon(radius, over_nonrobust, over_standard) if over_nonrobust else None


def _text(results: StudyResults, found: list[_AtEpsilon]) -> str:
    """All accuracies, then the differences."""
    first = found[0].over_nonrobust
    over = f"{first.seeds} seeds" if first.over_seeds else "the test images"
    together = ", simultaneous for both ε (Bonferroni)" if len(found) > 1 else ""
    models = {"on D_R": ROBUST, "on D_NR": NONROBUST, "on the original images": results.baseline}
    if not found[0].over_standard:
        del models["on the original images"]
    radii = [at.radius for at in found]
    robust = ", ".join(f"{words} {_accuracies(results, model, radii)}" for words, model in models.items())
    clean = ", ".join(_accuracies(results, model, [CLEAN]) for model in models.values())
    robust += _below_chance(results, radii)
    original = f"; D_R minus original: {_points([at.over_standard for at in found])}" if found[0].over_standard else ""
    return (
        f"Robust accuracy at {' and '.join(map(results.threat_model, radii))}: trained {robust}. Clean: {clean}. "
        f"D_R minus D_NR, in percentage points: {_points([at.over_nonrobust for at in found])}{original} "
        f"(95 % CIs over {over}{together}; {sample_size(first)}). "
        "Each image of D_R began as another training image and was changed until the adversarially trained model had the "
        "features of the original for it; D_NR was made in the same way with the standard model."
    )


def _where(results: StudyResults, found: Mapping[int, bool]) -> str:
    """At which ε a model is above the others; "" if at all."""
    above, unclear = (
        [results.threat_model(radius) for radius, is_above in found.items() if is_above == each] for each in (True, False)
    )
    return f"at {' and '.join(above)}; unclear at {' and '.join(unclear)}" if unclear else ""


def _below_chance(results: StudyResults, radii: Sequence[int]) -> str:
    """Where the D_R model is measurably below chance level under attack; "" if nowhere."""
    found = [(radius, results.accuracy(ROBUST, radius=radius)) for radius in radii]
    below = [results.threat_model(radius) for radius, accuracy in found if accuracy and results.below_chance(accuracy)]
    near = [results.threat_model(radius) for radius, accuracy in found if accuracy and results.beside_chance(accuracy)]
    if near and not below:
        return f" (trained on D_R it is not measurably above chance level, {percent(results.chance)}, at {' and '.join(near)})"
    chance = percent(results.chance) if below else ""
    return (
        f" (trained on D_R it is below chance level, {chance}, at {' and '.join(below)}: a constant answer has more)"
        if below
        else ""
    )


def _accuracies(results: StudyResults, model: str, radii: Sequence[int]) -> str:
    """Accuracies of a model at these radii."""
    return " and ".join(found.percent for radius in radii if (found := results.accuracy(model, radius=radius)))


def _points(differences: Sequence[Estimate | None]) -> str:
    """Differences with their intervals."""
    return " and ".join(each.points_cell for each in differences if each)


def _compare(results: StudyResults, found: list[_AtEpsilon], text: str) -> Finding:
    effect = max((at.smallest for at in found), key=lambda each: each.ci_high)  # the most that D_R may gain at some ε
    if any(at.above for at in found):
        if not any(at.below for at in found):
            useful = any(at.above and not _below_chance(results, [at.radius]) for at in found)
            return Finding(
                QUESTION,
                "supported",
                text,
                "good" if useful else "neutral",
                effect,
                where=_where(results, {at.radius: at.above for at in found}),
            )
        return Finding(QUESTION, "partly supported", f"{text} At the other ε it is the reverse.", "neutral", effect)
    if any(at.over_nonrobust.ci_low > 0 for at in found):
        caution = "D_R is more robust than D_NR, but does not lead to measurably higher robust accuracy than the original images."
        return Finding(QUESTION, "partly supported", f"{text} {caution}", "neutral", effect)
    if any(at.over_standard and at.over_standard.ci_low > 0 for at in found):
        caution = "D_R is more robust than the original images, but not measurably more than D_NR."
        return Finding(QUESTION, "partly supported", f"{text} {caution}", "neutral", effect)
    if problems := split_problems(results):
        return Finding(QUESTION, "inconclusive", f"{text} No difference was measured, but {problems}", effect=effect)
    if any(at.over_nonrobust.ci_high < 0 for at in found):
        return Finding(QUESTION, "not supported", f"{text} That is the opposite of what D_R is for.", "bad", effect)
    return Finding(QUESTION, "not supported", f"{text} No difference in robustness was measured.", "bad", effect)


def cross_accuracy(results: StudyResults) -> str:
    """A sentence: accuracy of the D_R model on D_NR, and the reverse; "" if it was not measured."""
    on_nonrobust, on_robust = results.accuracy(ROBUST, "nonrobust"), results.accuracy(NONROBUST, "robust")
    if not (on_nonrobust and on_robust):
        return ""
    return f"Trained on D_R: accuracy {on_nonrobust.percent} on D_NR. Trained on D_NR: {on_robust.percent} on D_R."
