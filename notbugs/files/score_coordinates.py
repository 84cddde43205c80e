"""Scores of files that are combined: as ranks within the class, and as uncorrelated coordinates."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from notbugs.files.fold_scores import FoldScores
from notbugs.files.robustness import class_ranks, finite_means, robustness_score

LEAST_VARIANCE = 1e-3  # of the largest
EVIDENCE_OF_ROBUST_MODELS = (
    *("robust_minimum_norm", "robust_margin", "robust_attacked_margin", "robust_pgd_steps_to_misclassify"),
    "trained_on_robust_margin",
)
SCORES = (
    *("robustness", "label_quality", "standard_margin", "epochs_confidence", "forgetting_events", "pgd_steps_to_misclassify"),
    *("robust_margin", "robust_evidence", "margin_kept_minus_lost", "influence"),
)


def scores_to_combine(whole: Sequence[FoldScores], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Those of `SCORES` that are known, as ranks within the class; whole: one entry for each repetition.

    Columns of tables/files.csv, and two that follow from such: robust_evidence, the mean rank by what robust models do with a
    file, and margin_kept_minus_lost on the robust version. Those that a model does not have, or that are equal for all files, are
    left out.
    """
    mean = finite_means(whole)
    own = np.arange(len(labels)), labels
    robust = [class_ranks(mean[name], labels) for name in EVIDENCE_OF_ROBUST_MODELS if name in mean]
    found = {
        "robustness": robustness_score(mean, labels),
        "label_quality": np.mean([np.log(each["standard_probabilities"][own].clip(1e-12)) for each in whole], axis=0),
        "standard_margin": mean["standard_margin"],
        "epochs_confidence": mean["epochs_confidence"],
        "forgetting_events": mean["forgetting_events"],
        "pgd_steps_to_misclassify": mean["robust_pgd_steps_to_misclassify"],
        "robust_margin": mean["robust_margin"],
        "robust_evidence": np.mean(robust, axis=0),
        "margin_kept_minus_lost": mean["margin_kept_on_robust_version"] - mean["margin_lost_on_robust_version"],
    }
    if "influence" in mean:
        found["influence"] = mean["influence"]
    told = {name: values for name, values in found.items() if np.isfinite(values).all() and np.ptp(values) > 0}
    return {name: class_ranks(values, labels) for name, values in told.items()}


class Coordinates(NamedTuple):
    """Uncorrelated combinations of the scores, each with variance 1.

    Attributes
    ----------
    values : ndarray, (N, K)
    by_score : ndarray, (scores, K)
        How much of each score's rank is in each of them.
    """

    values: np.ndarray
    by_score: np.ndarray


def whitened(scores: Mapping[str, np.ndarray]) -> Coordinates:
    """Coordinates of the ranks: their principal components over their standard deviations; without those that hardly vary."""
    ranks = np.stack([*scores.values()], axis=1)
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(ranks.T)))
    kept = variances > LEAST_VARIANCE * variances.max()
    by_score = axes[:, kept] / np.sqrt(variances[kept])
    return Coordinates((ranks - ranks.mean(0)) @ by_score, by_score)
