"""What is measured: accuracy with n and interval, features, saliency, corruptions, leakage, transfer."""

from notbugs.metrics.accuracy import accuracy_row, clean_accuracy, robust_accuracy
from notbugs.metrics.corruptions import CorruptionResult, corrupt, corruption_accuracy
from notbugs.metrics.error_consistency import error_consistency
from notbugs.metrics.features import USEFUL_FROM, best_class_rows, extremes, layer_forward, per_feature, per_layer, usefulness
from notbugs.metrics.fourier import fourier_sensitivity
from notbugs.metrics.leakage import perturbation_separability, robust_feature_leakage, robust_features
from notbugs.metrics.ntk import EigenFeatures, chosen_eigenvectors, tangent_kernel
from notbugs.metrics.saliency import METHODS, Saliency, class_means, low_frequency_energy, saliency, white_noise_energy
from notbugs.metrics.spurious_cues import accuracy_gap, cue_values, nearest_cue, spurious_features

__all__ = [
    "METHODS",
    "USEFUL_FROM",
    "CorruptionResult",
    "EigenFeatures",
    "Saliency",
    "accuracy_gap",
    "accuracy_row",
    "best_class_rows",
    "chosen_eigenvectors",
    "class_means",
    "clean_accuracy",
    "corrupt",
    "corruption_accuracy",
    "cue_values",
    "error_consistency",
    "extremes",
    "fourier_sensitivity",
    "layer_forward",
    "low_frequency_energy",
    "nearest_cue",
    "per_feature",
    "per_layer",
    "perturbation_separability",
    "robust_accuracy",
    "robust_feature_leakage",
    "robust_features",
    "saliency",
    "spurious_features",
    "tangent_kernel",
    "usefulness",
    "white_noise_energy",
]
