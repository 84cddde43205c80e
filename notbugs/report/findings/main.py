"""The answer: what a run shows, in plain sentences with figures.

Every sentence is derived from the figures. A claim is made only where its 95 % interval allows it; else the sentence says so.
"""

import math

from notbugs.report.findings import analyses, controls
from notbugs.report.results import AccuracyResults, Finding, Verdict, accuracy_results, number, percent
from notbugs.runs.folder import RunFolder


def headline(run: RunFolder) -> list[str]:
    """The answer, in plain sentences with their figures; one string a question. A null result is worded as one."""
    return [finding.text for finding in findings(run)]


def findings(run: RunFolder) -> list[Finding]:
    """The questions the run can answer so far, in reading order."""
    measured = accuracy_results(run)
    answers = [_standard_is_fragile(run, measured), _adversarial_training(measured), _robust_and_nonrobust(measured)]
    labels = "random-labels" if measured.accuracy("on-random-labels") else "random-labels-any"
    answers += [_relabeled(run, measured, labels), _relabeled(run, measured, "next-labels")]
    return [answer for answer in answers if answer] + controls.findings(run, measured) + analyses.findings(run)


def _standard_is_fragile(run: RunFolder, measured: AccuracyResults) -> Finding | None:
    clean, attacked = measured.accuracy("standard"), measured.accuracy("standard", radius=2)
    drop = measured.difference(("standard", 0), ("standard", 2))
    if not (clean and attacked and drop):
        return None
    typical = run.metadata.get("data", {}).get("mean_l2")
    size = f"; a typical image measures {typical:.1f}" if typical and measured.norm[0] == "L2" else ""
    text = (
        f"The standard classifier reads {clean.percent} of the {clean.n:,} test images. Once each image may change by "
        f"{measured.radius_text(2)} ({measured.norm[1]}{size}), it reads {attacked.percent}."
    )
    question = "Is an ordinary classifier easily fooled?"
    if drop.low <= 0:
        return Finding(question, "not shown", f"{text} That is no measurable loss: changes of this size do not fool it.")
    if attacked.mean > clean.mean / 2:
        return Finding(question, "in part", f"{text} It is fooled, but on fewer than half of the images that it read.")
    return Finding(question, "shown", text)


def _adversarial_training(measured: AccuracyResults) -> Finding | None:
    clean, attacked = measured.accuracy("adversarial"), measured.accuracy("adversarial", radius=2)
    gain = measured.difference(("adversarial", 2), ("standard", 2))
    if not (clean and attacked and gain):
        return None
    question = "Can training make it robust, that is, hard to fool?"
    text = (
        f"The same network, trained on images that are changed to mislead it (adversarial training), reads {clean.percent} "
        f"of the unchanged test images and keeps {attacked.percent} under the same change of {measured.radius_text(2)}"
    )
    if gain.low <= 0:
        return Finding(
            question, "not shown", f"{text}. That is not measurably more than the standard classifier: it was not made robust."
        )
    verdict: Verdict = "shown" if attacked.mean > clean.mean / 2 else "in part"
    return Finding(question, verdict, f"{text}: {gain.points} more than the standard classifier ({gain.range}).")


def _robust_and_nonrobust(measured: AccuracyResults) -> Finding | None:
    robust, nonrobust = (measured.accuracy(model, radius=1) for model in ("on-robust", "on-nonrobust"))
    clean = [measured.accuracy(model) for model in ("on-robust", "on-nonrobust")]
    gap = measured.difference(("on-robust", 1), ("on-nonrobust", 1))
    if not (robust and nonrobust and gap and clean[0] and clean[1]):
        return None
    question = "Can the data be split into a robust and a non-robust version?"
    text = (
        "The data were rebuilt twice: in a robust version, which keeps only what the adversarially trained network looks at, and "
        "in a non-robust version, which keeps only what the standard one looks at. Two classifiers were trained on them in the "
        f"ordinary way. Of unchanged test images they read {clean[0].percent} (robust) and {clean[1].percent} "
        f"(non-robust). Under a change of {measured.radius_text(1)}, half of the full size, they keep {robust.percent} and "
        f"{nonrobust.percent}: a difference of {gap.points} ({gap.range})."
    )
    if gap.low <= 0 <= gap.high:
        null = " The interval includes 0: on this evidence the two versions do not differ in how robust a classifier they teach."
        return Finding(question, "not shown", text + null)
    if gap.high < 0:
        return Finding(question, "not shown", f"{text} That is the opposite of what the split is for.")
    standard, gain = measured.accuracy("standard", radius=1), measured.difference(("on-robust", 1), ("standard", 1))
    if standard and gain and gain.low <= 0:
        text += f" But the standard classifier, trained on the original images, keeps {standard.percent}: "
        return Finding(
            question, "in part", f"{text}the robust version teaches no measurably harder-to-fool classifier than those do."
        )
    if standard and gain:
        text += f" The standard classifier, trained on the original images, keeps {standard.percent}."
    return Finding(question, "shown", text)


def _relabeled(run: RunFolder, measured: AccuracyResults, labels: str) -> Finding | None:
    """Relabelled sets: does what misleads the standard model teach another to read real images, and does noise teach it too?"""
    model = f"on-{labels}"
    read = measured.accuracy(model)
    if not read or math.isnan(measured.chance):
        return None
    chance = f"guessing reads {percent(measured.chance)}"
    radii = [number(row["epsilon"]) for row in run.table("sets") if row["set"] == labels and row["epsilon"] != ""]
    most = measured.radius_text(2) if not radii or math.isclose(radii[0], measured.radii[2], rel_tol=1e-3) else f"{radii[0]:.4g}"
    if labels == "next-labels":
        question = "Even when the rest of each image speaks for another class?"
        moved = f"moved by at most {most} towards the class after its own and labelled as that class, so that all else misleads"
    elif labels == "random-labels":
        question = "Does what fools the classifier carry real information?"
        moved = f"moved by at most {most} towards a random other class and labelled as that class: no label is right"
    else:
        question = "Does what fools the classifier carry real information?"
        moved = f"moved by at most {most} towards a random class and labelled as that class, right only by chance"
    text = f"One classifier was trained on images each {moved}. It reads {read.percent} of the real test images; {chance}."
    if read.low <= measured.chance:
        return Finding(question, "not shown", f"{text} That is not measurably better than guessing.")
    control, excess = measured.accuracy(f"{model}-noise"), measured.difference((model, 0), (f"{model}-noise", 0))
    if not control or not excess:
        if labels == "next-labels":  # its labels point away from the right answer, so chance is already a hard control
            return Finding(question, "shown", text)
        return Finding(
            question, "open", f"{text} Without its control (the same labels, random changes) this is not yet evidence."
        )
    text += f" Its control, trained on the same labels with random changes of the same size, reads {control.percent}."
    if excess.low <= 0:
        return Finding(
            question, "not shown", f"{text} The control does as well, so the changes that fool carry nothing of their own."
        )
    return Finding(
        question, "shown", f"{text} So the small changes that fool the standard classifier are features that hold on new images."
    )


def cross_dataset(measured: AccuracyResults) -> str:
    """Whether a model trained on one version of the data reads the other; "" if that was not measured."""
    crossed = [measured.accuracy("on-robust", "nonrobust"), measured.accuracy("on-nonrobust", "robust")]
    if not (crossed[0] and crossed[1]):
        return ""
    return (
        f"Trained on the robust version, a classifier reads {crossed[0].percent} of the non-robust version; "
        f"trained on the non-robust one, {crossed[1].percent} of the robust."
    )
