"""What is measured: accuracy with n and interval; which features, and which files, carry robust and non-robust evidence."""

from notbugs.scores.accuracy import clean, interval, row, under_attack
from notbugs.scores.agreement import agreement
from notbugs.scores.corrupted import Corrupted, corrupted
from notbugs.scores.cues import called, cues_of, leaning, spurious
from notbugs.scores.explain import METHODS, Explained, class_means, explain, low_share, white_share
from notbugs.scores.features import LEAST, balanced, best_rows, extremes, layer_view, per_feature, per_layer, usefulness
from notbugs.scores.files import halves, per_file
from notbugs.scores.frequencies import frequencies
from notbugs.scores.kernel import MOST as KERNEL_MOST
from notbugs.scores.kernel import EigenFeatures, along_spectrum, tangent
from notbugs.scores.leakage import leakage, robust_features, separable
from notbugs.scores.readers import Recipe

__all__ = [
    "KERNEL_MOST",
    "LEAST",
    "METHODS",
    "Corrupted",
    "EigenFeatures",
    "Explained",
    "Recipe",
    "agreement",
    "along_spectrum",
    "balanced",
    "best_rows",
    "called",
    "class_means",
    "clean",
    "corrupted",
    "cues_of",
    "explain",
    "extremes",
    "frequencies",
    "halves",
    "interval",
    "layer_view",
    "leakage",
    "leaning",
    "low_share",
    "per_feature",
    "per_file",
    "per_layer",
    "robust_features",
    "row",
    "separable",
    "spurious",
    "tangent",
    "under_attack",
    "usefulness",
    "white_share",
]
