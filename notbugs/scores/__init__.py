"""What is measured: accuracy with n and interval; which features, and which files, carry robust and non-robust evidence."""

from notbugs.scores.accuracy import clean, interval, row, under_attack
from notbugs.scores.cues import called, cues_of, leaning, spurious
from notbugs.scores.features import LEAST, balanced, best_rows, extremes, layer_view, per_feature, per_layer, usefulness
from notbugs.scores.files import Recipe, halves, per_file

__all__ = [
    "LEAST",
    "Recipe",
    "balanced",
    "best_rows",
    "called",
    "clean",
    "cues_of",
    "extremes",
    "halves",
    "interval",
    "layer_view",
    "leaning",
    "per_feature",
    "per_file",
    "per_layer",
    "row",
    "spurious",
    "under_attack",
    "usefulness",
]
