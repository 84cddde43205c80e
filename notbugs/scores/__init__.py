"""What is measured: accuracy with n and interval; which features, and which files, carry robust and non-robust evidence."""

from notbugs.scores.accuracy import clean, interval, row, under_attack
from notbugs.scores.agreement import agreement
from notbugs.scores.cues import called, cues_of, leaning, spurious
from notbugs.scores.features import LEAST, balanced, best_rows, extremes, layer_view, per_feature, per_layer, usefulness
from notbugs.scores.files import halves, per_file
from notbugs.scores.leakage import leakage, robust_features, separable
from notbugs.scores.readers import Recipe

__all__ = [
    "LEAST",
    "Recipe",
    "agreement",
    "balanced",
    "best_rows",
    "called",
    "clean",
    "cues_of",
    "extremes",
    "halves",
    "interval",
    "layer_view",
    "leakage",
    "leaning",
    "per_feature",
    "per_file",
    "per_layer",
    "robust_features",
    "row",
    "separable",
    "spurious",
    "under_attack",
    "usefulness",
]
