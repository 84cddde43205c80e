"""Saliency, corruptions, Fourier sensitivity and the neural tangent kernel of a study: what the rows of its tables amount to."""

import math
from collections.abc import Iterable, Sequence

from notbugs.report.format import Estimate
from notbugs.report.results import StudyResults
from notbugs.report.seed_mean import Value, seed_mean
from notbugs.runs.tables.analyses import (
    CorruptionDifferenceRow,
    CorruptionRow,
    FourierRow,
    NTKAccuracyRow,
    NTKFeatureRow,
    SaliencyDifferenceRow,
    SaliencyRow,
)
from notbugs.stats import correlation_interval
from notbugs.study.catalog import in_order
from notbugs.study.catalog.models import ANALYZED_MODELS

CORRUPTIONS = ("clean", "noise", "blur", "fog", "contrast", "jpeg")
LEAST_EIGENVECTORS = 5  # fewer give no correlation


def saliency_estimate(rows: Iterable[SaliencyRow], method: str, measure: str) -> Estimate | None:
    """One measure of the attributions in rows of one model, mean over seeds."""
    found = (row for row in rows if (row.method, row.measure) == (method, measure))
    return seed_mean(Value(row.value, row.ci_low, row.ci_high, row.n) for row in found)


def saliency(results: StudyResults, model: str, method: str, measure: str) -> Estimate | None:
    """One measure of a model's attributions, mean over seeds."""
    return saliency_estimate((row for row in results.rows(SaliencyRow) if row.model == model), method, measure)


def saliency_difference(results: StudyResults, model: str, other: str, method: str, measure: str) -> Estimate | None:
    """The same, model minus other, image by image."""
    wanted = (model, other, method, measure)
    rows = results.rows(SaliencyDifferenceRow)
    found = [row for row in rows if (row.model, row.other_model, row.method, row.measure) == wanted]
    return seed_mean(Value(row.value, row.ci_low, row.ci_high, row.n) for row in found)


def corruption_accuracy(results: StudyResults, model: str, corruption: str, severity: int | None = None) -> float | None:
    """Accuracy under a corruption, mean over seeds and, unless one is given, over severities."""
    rows = [row for row in results.rows(CorruptionRow) if (row.model, row.corruption) == (model, corruption)]
    shares = [row.accuracy for row in rows if severity in (None, row.severity)]
    return sum(shares) / len(shares) if shares else None


def corruption_difference(results: StudyResults, model: str, corruption: str, other: str = "standard") -> Estimate | None:
    """Accuracy of a model minus that of another, mean over severities."""
    wanted = (model, other, corruption)
    rows = results.rows(CorruptionDifferenceRow)
    found = [row for row in rows if (row.model, row.other_model, row.corruption) == wanted]
    return seed_mean(Value(row.value, row.ci_low, row.ci_high, row.n) for row in found)


def fourier_models(results: StudyResults) -> list[str]:
    """Models of which the sensitivity to Fourier basis vectors was measured."""
    return in_order(ANALYZED_MODELS, (row.model for row in results.rows(FourierRow)))


def ntk_accuracy(results: StudyResults, eigenvectors: int, *, attacked: bool) -> Estimate | None:
    """Accuracy of kernel regression on the first eigenvectors."""
    rows = [row for row in results.rows(NTKAccuracyRow) if row.eigenvectors == eigenvectors and bool(row.epsilon) == attacked]
    return seed_mean((Value(row.accuracy, row.ci_low, row.ci_high, row.n) for row in rows), share=True)


def rank_correlation_of_drop(rows: Sequence[NTKFeatureRow]) -> Estimate | None:
    """Spearman's correlation of an eigenvector's position with its drop of usefulness under attack, of the first seed.

    Returns None if fewer than 5 eigenvectors were measured, or if all drop alike. n: eigenvectors.
    """
    first = [row for row in rows if row.seed == rows[0].seed]
    pairs = [(row.eigenvector, row.usefulness - row.robust_usefulness) for row in first]
    known = [(position, drop) for position, drop in pairs if not math.isnan(drop)]
    if len(known) < LEAST_EIGENVECTORS or len({drop for _, drop in known}) == 1:
        return None
    from scipy.stats import spearmanr  # a second of imports, which most reports do without

    found = float(spearmanr(*zip(*known, strict=True))[0])
    return Estimate(found, *correlation_interval(found, len(known)), len(known), 1, False)
