"""Findings of human review: whether people recognize D_R and D_NR, and whether relabeled images look wrongly labeled."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from notbugs.report.findings.base import Finding, Status
from notbugs.report.format import interval, minus, percent
from notbugs.report.results import StudyResults
from notbugs.review import answers
from notbugs.runs.tables.review import ReviewAnswerRow, ReviewDifferenceRow, ReviewSummaryRow
from notbugs.study.catalog.datasets import DATASETS

NON_INFERIORITY_MARGIN = 0.1  # of accuracy: what people may lose on a version of the data that counts as recognizable


def findings(results: StudyResults) -> list[Finding]:
    """The findings of the answers so far, [] without answers."""
    rows, chance = results.review_answers, results.chance
    above_chance = any(row.ci_low > chance for row in answers.summary(rows) if row.set == "original")
    found = [_non_inferiority(answers.differences(rows), above_chance), _relabeled(rows, above_chance)]
    return [finding for finding in found if finding]


def _non_inferiority(differences: Sequence[ReviewDifferenceRow], above_chance: bool) -> Finding | None:
    by_set = {row.set: row for row in differences}
    known = {name: by_set[set] for name, set in (("D_R", "robust"), ("D_NR", "nonrobust")) if set in by_set}
    if not known:
        return None
    listed = "; ".join(
        f"{name} {percent(row.accuracy)}, originals {percent(row.accuracy_against)}: {_difference(row)}"
        for name, row in known.items()
    )
    text = f"Accuracy of people on blinded images: {listed}."
    names = f"both {' and '.join(known)}" if len(known) > 1 else next(iter(known))
    question = f"Do people recognize {names} as well as the original images?"
    if not above_chance:
        caution = "Their accuracy on the originals is not measurably above chance level."
        return Finding(question, "inconclusive", f"{text} {caution}")
    return _compared(known, question, text)


def _compared(known: Mapping[str, ReviewDifferenceRow], question: str, text: str) -> Finding:
    fair = [name for name, row in known.items() if row.ci_low > -NON_INFERIORITY_MARGIN]
    worse = [name for name, row in known.items() if row.ci_high < 0 and name not in fair]
    rule = f"As well means: the whole CI is above −{100 * NON_INFERIORITY_MARGIN:.0f} percentage points."
    if len(fair) == len(known):
        return Finding(question, "supported", f"{text} {rule}")
    if worse:
        status: Status = "partly supported" if fair else "not supported"
        return Finding(question, status, f"{text} Measurably worse: {' and '.join(worse)}. {rule}")
    return Finding(question, "inconclusive", f"{text} {rule} There are too few answers.")


def _difference(row: ReviewDifferenceRow) -> str:
    reviewers = "1 reviewer" if row.reviewers == 1 else f"{row.reviewers} reviewers"
    ends = interval(100 * row.ci_low, 100 * row.ci_high)
    return minus(f"{100 * row.difference:+z.1f} percentage points (95 % CI {ends} over {row.interval_over}; {reviewers})")


def _relabeled(rows: Sequence[ReviewAnswerRow], above_chance: bool) -> Finding | None:
    """How often people name another class than the new label: "cannot tell" does not say that a label is wrong."""
    relabeled = [row for row in rows if row.set in DATASETS and DATASETS[row.set].is_relabeled]
    named = [replace(row, correct=row.answer not in ("", row.label)) for row in relabeled]
    summary = answers.summary(named)
    if not summary:
        return None
    text = f"People named another class than the label for {', '.join(map(_share, summary))}."
    question = "Do most relabeled images look wrongly labeled to people?"
    if not above_chance:
        caution = "Their accuracy on the originals is not measurably above chance level."
        return Finding(question, "inconclusive", f"{text} {caution}")
    status: Status = "inconclusive"
    if all(row.ci_low > 0.5 for row in summary):
        status = "supported"
    elif any(row.ci_high < 0.5 for row in summary):
        status = "not supported"
    return Finding(question, status, text)


def _share(row: ReviewSummaryRow) -> str:
    ends = interval(100 * row.ci_low, 100 * row.ci_high)
    return f"{percent(row.accuracy)} of {row.set} (95 % CI {ends} over {row.interval_over})"
