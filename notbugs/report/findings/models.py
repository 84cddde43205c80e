"""Findings on the two models of the original images: the standard model, trained here or given, and adversarial training."""

from notbugs.report.findings.base import Finding, image_share, sample_size
from notbugs.report.format import interval, percent
from notbugs.report.results import CLEAN, FULL, StudyResults
from notbugs.study.catalog.overfitting import MIN_DROP, remedy

FAR_BELOW = 0.1  # clean accuracy of a given model below that of standard training here, from which it is doubted


def findings(results: StudyResults) -> list[Finding]:
    """The findings, in reading order."""
    return [finding for finding in (_standard_training(results), _adversarial_training(results)) if finding]


def _standard_training(results: StudyResults) -> Finding | None:
    clean, attacked = results.accuracy("standard"), results.accuracy("standard", radius=FULL)
    loss = results.difference(("standard", CLEAN), ("standard", FULL))
    if not (clean and attacked and loss):
        return None
    what = "the given model" if results.given_model else "standard training"
    question = f"Is {what} vulnerable to small perturbations?"
    text = (
        f"{results.standard_title}: clean accuracy {clean.percent}, robust accuracy {attacked.percent} at "
        f"{results.threat_model()} ({sample_size(clean)}). Under attack accuracy drops by {loss.points} ({loss.ci})."
        f"{_reference(results)}"
    )
    if share := image_share(results, results.metadata.epsilon):
        size = results.metadata.data.mean_l2
        text += (
            f" The L2 norm of a perturbation is at most {share} of that of a typical image, {size:.1f}; "
            "a single pixel may change by more."
        )
    if loss.ci_low <= 0:
        return Finding(question, "not supported", f"{text} That is no measurable drop.", "good", loss)
    if attacked.mean > clean.mean / 2:
        fewer = "Fewer than half of the correctly classified images are misclassified under attack."
        return Finding(question, "partly supported", f"{text} {fewer}", "bad", loss)
    return Finding(question, "supported", text, "bad", loss, trained=not results.given_model)


def _reference(results: StudyResults) -> str:
    """A sentence on standard training here, beside a given model; "" where none was given."""
    clean, attacked = results.accuracy("reference"), results.accuracy("reference", radius=FULL)
    if not (results.given_model and clean and attacked):
        return ""
    warning = given_model_warning(results)
    return f" Standard training of the study's network: {clean.percent} and {attacked.percent}.{' ' if warning else ''}{warning}"


def given_model_warning(results: StudyResults) -> str:
    """Why a given model may not be what it was meant to be; "" if nothing speaks for that."""
    given, reference = results.accuracy("standard"), results.accuracy("reference")
    if not (results.given_model and given and reference):
        return ""
    if warning := str(results.metadata.settings.get("model_warning", "")):
        return f"{warning[0].upper()}{warning[1:]}."
    check = "Check that it takes pixels in [0, 1] and has its outputs in the order of the classes."
    if given.ci_low <= results.chance:
        return f"The given model is not measurably above chance level on clean images ({given.percent}). {check}"
    if given.ci_high < reference.mean and given.mean < reference.mean - FAR_BELOW:
        return (
            f"The given model has a clean accuracy of {given.percent}, far below the {reference.percent} of standard training. "
            f"{check}"
        )
    return ""


def _adversarial_training(results: StudyResults) -> Finding | None:
    clean, attacked = results.accuracy("adversarial"), results.accuracy("adversarial", radius=FULL)
    gain = results.difference(("adversarial", FULL), (results.baseline, FULL))
    if not (clean and attacked and gain):
        return None
    question = "Does adversarial training make the classifier more robust?"
    text = (
        f"Adversarial training: clean accuracy {clean.percent}, robust accuracy {attacked.percent} at {results.threat_model()} "
        f"({sample_size(clean)})."
    )
    if gain.ci_low <= 0:
        caution = f"The difference from standard training is {gain.points} ({gain.ci}): not measurably more robust."
        return Finding(question, "not supported", f"{text} {caution}{overfitting_warning(results)}", "bad", gain)
    text = (
        f"{text} That is {gain.points} more than standard training ({gain.ci}); {percent(1 - attacked.mean)} of the test images "
        f"{interval(100 * (1 - attacked.ci_high), 100 * (1 - attacked.ci_low))} are still misclassified under attack, more "
        "under a stronger one."
        f"{_clean_cost(results)}{overfitting_warning(results)}"
    )
    return Finding(question, "supported", text, "good", gain)


def overfitting_warning(results: StudyResults) -> str:
    """That adversarial training overfits to its own attack, and what helps; "" if it does not, or was not measured."""
    model = "adversarial"
    under = results.accuracy(model, "test-training-attack", FULL)
    excess = results.difference((model, FULL), (model, FULL), set="test-training-attack")
    if not (under and excess and excess.ci_low > MIN_DROP):
        return ""
    settings = results.metadata.settings
    steps, noise = int(str(settings["adversarial_steps"])), float(str(settings.get("adversarial_noise", 0)))
    about = results.metadata
    helps = remedy(about.norm, about.epsilon, steps, about.data.shape, noise=noise, option="--adversarial-noise")
    return (
        f" Under the attack of training itself (PGD of {steps} steps) robust accuracy is {under.percent}, {excess.points} more "
        f"({excess.ci}): adversarial training overfits to that attack (catastrophic overfitting). {helps}"
    )


def _clean_cost(results: StudyResults) -> str:
    """What adversarial training costs in clean accuracy."""
    change = results.difference(("adversarial", CLEAN), (results.baseline, CLEAN))
    if not change:
        return ""
    measured = "" if change.ci_high < 0 or change.ci_low > 0 else ", which may be no change"
    return (
        f" Its clean accuracy is {change.signed_points} percentage points from that of standard training ({change.ci}{measured})."
    )
