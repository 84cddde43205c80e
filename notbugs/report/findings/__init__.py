"""Findings: questions that a study answers, each with a status and the sentences that its figures allow."""

from notbugs.report.findings import analyses, controls, models, relabeled, review, split
from notbugs.report.findings.base import Finding, Status
from notbugs.report.results import StudyResults

__all__ = ["Finding", "Status", "findings"]


def findings(results: StudyResults) -> list[Finding]:
    """The questions that a study can answer so far, in reading order.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    list of Finding
        Empty if nothing was measured that answers a question.
    """
    return [each for part in (models, split, relabeled, controls, analyses, review) for each in part.findings(results)]
