"""Findings of the analyses of a finished study: attributions, common corruptions, the neural tangent kernel."""

from notbugs.report.analyses import CORRUPTIONS, corruption_difference, rank_correlation_of_drop, saliency, saliency_difference
from notbugs.report.findings.base import Finding, Status
from notbugs.report.format import Estimate, decimal, interval, join_names, minus, percent, signed
from notbugs.report.results import StudyResults
from notbugs.runs.tables.analyses import NTKFeatureRow
from notbugs.study.catalog.models import ANALYZED_MODELS, ANALYZED_TITLES

COMPARED = ("standard", "adversarial")


def findings(results: StudyResults) -> list[Finding]:
    """The findings of the analyses that were run, in reading order."""
    found = [_alignment(results), _faithfulness(results), _corruptions(results), _ntk(results)]
    return [finding for finding in found if finding]


def _alignment(results: StudyResults) -> Finding | None:
    def difference(model: str, other: str) -> Estimate | None:
        return saliency_difference(results, model, other, "gradient", "alignment")

    means = {name: saliency(results, name, "gradient", "alignment") for name in ANALYZED_MODELS}
    chance = saliency(results, "standard", "gradient", "chance_alignment")
    robust, data = difference("adversarial", "standard"), difference("trained-on-robust", "standard")
    control, versions = difference("trained-on-nonrobust", "standard"), difference("trained-on-robust", "trained-on-nonrobust")
    if not (robust and data and control and versions and chance):
        return None
    listed = ", ".join(f"{ANALYZED_TITLES[name]} {decimal(mean.mean)}" for name, mean in means.items() if mean)
    text = (
        f"Cosine of the gradient with the difference of the two classes' mean images: {listed}; chance level "
        f"{decimal(chance.mean)}. Differences with 95 % CI: adversarial minus standard training {signed(robust)}; training on "
        f"D_R minus standard {signed(data)}; on D_NR minus standard, the control, {signed(control)}; on D_R minus on D_NR "
        f"{signed(versions)}."
    )
    question = "Do the gradients of a robust classifier align with what distinguishes the classes?"
    if robust.ci_low <= 0:
        result = "Adversarial training lowers the alignment." if robust.ci_high < 0 else "No measurable difference."
        return Finding(question, "not supported", f"{text} {result}")
    if min(data.ci_low, versions.ci_low) <= 0:
        only = "Adversarial training raises the alignment. Standard training on D_R does not, measurably, more than on D_NR."
        return Finding(question, "partly supported", f"{text} {only}")
    return Finding(question, "supported", text)


def _faithfulness(results: StudyResults) -> Finding | None:
    def both(measure: str) -> list[Estimate]:
        found = [saliency(results, name, "integrated", measure) for name in COMPARED]
        return [estimate for estimate in found if estimate]

    gains, low, alignment = both("deletion_gain"), both("low_frequency_energy"), both("alignment")
    if min(len(gains), len(low), len(alignment)) < len(COMPARED):
        return None
    listed = ", ".join(
        minus(f"{ANALYZED_TITLES[name]} by {100 * gain.mean:z.0f} percentage points {gain.interval}")
        for name, gain in zip(COMPARED, gains, strict=True)
    )
    supported = all(gain.ci_low > 0 for gain in gains)
    conclusion = "Both attributions are faithful." if supported else "Not both attributions are faithful."
    text = (
        "If pixels are blurred in the order of integrated gradients, the prediction is lost sooner than in random order: "
        f"{listed} (95 % CI). {conclusion} They need not look meaningful: cosine with the difference of the classes "
        f"{' and '.join(decimal(each.mean) for each in alignment)}, energy in low frequencies "
        f"{' and '.join(percent(each.mean) for each in low)}."
    )
    question = "Are the attributions faithful, even where they look like noise?"
    return Finding(question, "supported" if supported else "not supported", text)


def _corruptions(results: StudyResults) -> Finding | None:
    found = {name: corruption_difference(results, "adversarial", name) for name in CORRUPTIONS}
    known = {name: estimate for name, estimate in found.items() if estimate}
    if len(known) < 2:
        return None
    better = [name for name, estimate in known.items() if estimate.ci_low > 0 and name != "clean"]
    worse = [name for name, estimate in known.items() if estimate.ci_high < 0 and name != "clean"]
    listed = ", ".join(f"{name} {estimate.points_cell}" for name, estimate in known.items())
    text = (
        f"Accuracy of adversarial minus standard training, in percentage points with 95 % CI, mean over five severities: "
        f"{listed}. Measurably better: {join_names(better)}. Measurably worse: {join_names(worse)}."
    )
    partly = worse or len(better) < len(known) - 1
    status: Status = "not supported" if not better else "partly supported" if partly else "supported"
    return Finding("Does adversarial training help against common corruptions?", status, text)


def _ntk(results: StudyResults) -> Finding | None:
    rows = results.rows(NTKFeatureRow)
    found = rank_correlation_of_drop(rows)
    if not found:
        return None
    categories = [row.category for row in rows if row.seed == rows[0].seed]
    counts = {category: categories.count(category) for category in ("robust", "non-robust", "useless")}
    later = " Later eigenvectors lose more." if found.ci_low > 0 else ""
    text = (
        f"Of {found.n} eigenvectors of the neural tangent kernel, {counts['robust']} are robust features, "
        f"{counts['non-robust']} useful but non-robust, {counts['useless']} useless. They depend on the images alone. Rank "
        f"correlation of the position in the spectrum with the usefulness lost under attack: {decimal(found.mean)} (95 % CI "
        f"{interval(found.ci_low, found.ci_high, 2)} over eigenvectors).{later}"
    )
    status: Status = "supported" if found.ci_low > 0 and counts["non-robust"] else "not supported"
    return Finding("Are there useful non-robust features before any training?", status, text)
