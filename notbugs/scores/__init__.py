"""What is measured: accuracy with n and interval; which features, and which files, carry robust and non-robust evidence."""

from notbugs.scores.accuracy import clean, interval, row, under_attack
from notbugs.scores.features import balanced, best_rows, extremes, layer_view, per_feature, per_layer, usefulness

__all__ = [
    "balanced",
    "best_rows",
    "clean",
    "extremes",
    "interval",
    "layer_view",
    "per_feature",
    "per_layer",
    "row",
    "under_attack",
    "usefulness",
]
