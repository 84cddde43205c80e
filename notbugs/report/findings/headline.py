"""The headline of a study: how vulnerable standard training is, and what measurably helps."""

from notbugs.report.findings import relabeled
from notbugs.report.findings.base import image_share
from notbugs.report.findings.construction import relabel_problems
from notbugs.report.findings.split import NONROBUST, ROBUST
from notbugs.report.format import Estimate, percent
from notbugs.report.results import CLEAN, FULL, HALF, StudyResults
from notbugs.study.catalog.models import trained_on
from notbugs.study.epsilon_source import SOURCES, epsilon_reason


def headline(results: StudyResults) -> list[str]:
    """Sentences that say what a study found, the most important one first.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    list of str
        Empty until standard training was evaluated clean and under attack. Intervals stand beside the figures elsewhere.
    """
    clean, attacked = results.accuracy("standard"), results.accuracy("standard", radius=FULL)
    loss = results.difference(("standard", 0), ("standard", FULL))
    if not (clean and attacked and loss):
        return []
    first, *others = _vulnerability(results, clean, attacked, loss), *_robust_version(results), *_relabeled(results)
    return [first, *others, *_adversarial_training(results), *_size(results)]


def certainty(results: StudyResults) -> str:
    """What the intervals of a study cover and what they do not; "" if nothing was attacked."""
    attacked = results.accuracy("standard", radius=FULL)
    if not attacked:
        return ""
    attack = next(iter(results.accuracy_by_seed("standard", radius=FULL).values())).attack
    over = (
        f"{attacked.seeds} training runs (seeds): the 95 % CIs are of the mean over these, or over the {attacked.n:,} test "
        "images where all give the same. They do not cover the choice of the test images."
        if attacked.seeds > 1
        else f"One training run (seed): the 95 % CIs cover the choice of the {attacked.n:,} test images, not another training."
    )
    return (
        f"{over} Accuracy under attack is an upper bound: a stronger attack than {attack} could only lower it. All figures hold "
        "for these images, these trained models and this ε."
    )


def _vulnerability(results: StudyResults, clean: Estimate, attacked: Estimate, loss: Estimate) -> str:
    half = results.accuracy("standard", radius=HALF)
    at_half = f", {half.percent} within {results.epsilon_text(HALF)}" if half else ""
    figures = (
        f"{clean.percent} accuracy on clean images, {attacked.percent} under attack within {results.threat_model()}{at_half}"
    )
    network, width = (results.metadata.settings.get(name) for name in ("network", "width"))
    of = f"{network}{f' of width {width}' if width else ''}"
    name = results.given_model or f"Standard training{f' ({of}, trained here on these images)' if network else ''}"
    if loss.ci_low <= 0:
        return f"{name} loses no measurable accuracy: {figures}."
    if clean.ci_low <= results.chance:
        return f"{name} is not measurably better than chance: {figures}."
    gives = "is" if results.given_model else "gives a classifier that is"
    return f"{name} {gives} {'' if attacked.mean > clean.mean / 2 else 'easily '}fooled: {figures}."


def _size(results: StudyResults) -> list[str]:
    """How large the attack's perturbations are, and why."""
    size = image_share(results, results.radii[FULL])
    words = f"{results.threat_model()} is {size} of a typical image's norm." if size else ""
    sentence = " ".join(filter(None, (words, _reason(results))))
    return [sentence] if sentence else []


def _reason(results: StudyResults) -> str:
    """Why epsilon has its value; "" for runs that do not say so."""
    data, recorded = results.metadata.data, results.metadata.settings.get("epsilon_from")
    source = next((each for each in SOURCES if each == recorded), None)
    return epsilon_reason(source, results.metadata.norm, data.nearest_other_class, data.nearest_same_class) if source else ""


def _robust_version(results: StudyResults) -> list[str]:
    """What D_R changes under attack."""
    what = "other images, with the features that the adversarially trained model has for the originals"
    return _gain(results, ROBUST, f"Standard training on D_R ({what})")


def _adversarial_training(results: StudyResults) -> list[str]:
    """What adversarial training changes under attack."""
    return _gain(results, "adversarial", "Adversarial training")


def help_under_attack(results: StudyResults, model: str) -> int | None:
    """At which epsilon a model is measurably more accurate under attack than standard training: FULL, else HALF, else None."""
    for radius in (FULL, HALF):
        gain = results.difference((model, radius), (results.baseline, radius), 2)
        if gain and gain.ci_low > 0:
            return radius
    return None


def _gain(results: StudyResults, model: str, name: str) -> list[str]:
    """What a model gains over standard training, at epsilon or else at half of it; nothing if that was not measured."""
    radius = help_under_attack(results, model)
    if radius is None:
        measured = any(results.difference((model, each), (results.baseline, each), 2) for each in (FULL, HALF))
        return [f"{name} does not measurably raise accuracy under attack."] if measured else []
    before, after = results.accuracy(results.baseline, radius=radius), results.accuracy(model, radius=radius)
    if not (before and after):
        return []
    where = f" within {results.threat_model(radius)}"
    of = " of the study's network" if results.given_model else ""
    below = f", {found}" if (found := results.beside_chance(after)) else ""
    clean = results.difference((model, CLEAN), (results.baseline, CLEAN))
    cost = f" (clean: {clean.signed_points} points {clean.interval})" if clean else ""
    nonrobust = results.accuracy(NONROBUST, radius=radius) if model == ROBUST else None
    over = results.difference((ROBUST, radius), (NONROBUST, radius), 2)
    beside = f"; trained on D_NR: {nonrobust.percent}, D_R minus D_NR {over.points_cell}" if nonrobust and over else ""
    elsewhere = _unclear(results, model, FULL if radius == HALF else HALF)
    left = f"; {percent(1 - after.mean)} are still misclassified, more under a stronger attack" if model == "adversarial" else ""
    comparisons = 1 if model == "adversarial" and radius == FULL else 2  # each interval as in the findings
    gain = results.difference((model, radius), (results.baseline, radius), comparisons)
    points = f", {gain.points_cell} points{' (for both ε)' if comparisons > 1 else ''}" if gain else ""
    change = f"from {before.percent} to {after.percent}{points}{below}{cost}{left}{beside}{elsewhere}"
    return [f"{name} raises accuracy under attack{of}{where} {change}."]


def _unclear(results: StudyResults, model: str, radius: int) -> str:
    """The figures at an epsilon at which it is unclear whether a model is more robust; "" where it is clear."""
    change = results.difference((model, radius), (results.baseline, radius), 2)
    before, after = results.accuracy(results.baseline, radius=radius), results.accuracy(model, radius=radius)
    if not (change and before and after) or not change.ci_low <= 0 <= change.ci_high:
        return ""
    return (
        f". Unclear within {results.epsilon_text(radius)}: from {before.percent} to {after.percent}, {change.points_cell} points"
    )


def _relabeled(results: StudyResults) -> list[str]:
    """What D_rand and D_det show."""
    found = {"D_det" if "D_det" in each.question else "D_rand": each for each in relabeled.findings(results)}
    shown, det = _d_rand(results), results.accuracy(trained_on("next-labels"))
    if shown and det and "D_det" in found:
        before = results.accuracy_before_adapting(trained_on("next-labels"))
        adapted = f" ({before.percent} before)" if before else ""
        despite = (
            f" Where the images' own features all point to another class (D_det): {found['D_det'].answer}, {det.cell}{adapted}"
        )
        strict = (
            ". Chance level is a strict comparison there: perturbations without features would teach to predict the other class"
        )
        return [f"{shown}{despite}{strict if found['D_det'].answer == 'yes' else ''}."]
    if shown or not found:
        return [shown] if shown else []
    answers = ", ".join(f"{name} {each.answer}" for name, each in found.items())
    paper = results.accuracy(trained_on("random-labels-incl-true"))
    true = f" With the true label among the random ones: {paper.percent}, no evidence without its control." if paper else ""
    why = relabel_problems(results, "random-labels") if found["D_rand"].answer == "unclear" else ""
    reason = f" Why: {why}" if why else ""
    question = "Do perturbations carry features that generalize, as training on wrong labels tests?"
    return [f"{question} {answers} (see Findings).{reason}{true}"]


def _d_rand(results: StudyResults) -> str:
    """What D_rand shows, if it is above chance level and above its control; else ""."""
    found = relabeled.random_labels(results)
    if not found or not (found.above_chance and found.above_control):
        return ""
    epsilon, attack = results.relabel_epsilon("random-labels"), results.radii[FULL]
    within = f" within {results.norm} ε = {epsilon:.3g}" if epsilon else ""
    before = [results.accuracy_before_adapting(model) for model in (relabeled.D_RAND, relabeled.CONTROL)]
    adapted, other = "", ""
    if before[0] and before[1]:
        adapted = (
            f" ({before[0].percent} before its batch-norm statistics are adapted to the clean training images, without labels)"
        )
        other = f" ({before[1].percent} before)"
    larger = epsilon is not None and epsilon > 1.001 * attack and not results.metadata.full
    times = f"{(epsilon or 0) / attack:.3g} times"
    leakage = f" This ε is {times} that of the attacks: that these features are non-robust is not shown." if larger else ""
    return (
        f"Perturbations carry features: trained on images perturbed{within} towards a wrong class and labeled as that class, a "
        f"classifier reaches {found.accuracy.percent} on clean test images{adapted}, chance level {percent(results.chance)}; its "
        f"control with shuffled perturbations {found.control.percent}{other}.{leakage}"
    )
