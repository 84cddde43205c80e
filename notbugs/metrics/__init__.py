"""Metrics: accuracy with n and 95 % CI, features, spurious cues, saliency, corruptions, leakage, transferability."""

from notbugs.metrics.corruptions import CorruptionAccuracy, CorruptionResult, corrupt, corruption_accuracy
from notbugs.metrics.error_consistency import ErrorConsistency, error_consistency
from notbugs.metrics.features import best_class_rows, extremes, per_feature
from notbugs.metrics.fourier import FourierError, fourier_sensitivity
from notbugs.metrics.layers import per_layer
from notbugs.metrics.leakage import (
    PerturbationSeparability,
    RobustFeatureLeakage,
    perturbation_separability,
    robust_feature_leakage,
    robust_features,
)
from notbugs.metrics.ntk import EigenFeatures, chosen_eigenvectors, tangent_kernel
from notbugs.metrics.robust_accuracy import Accuracy, clean_accuracy, robust_accuracy
from notbugs.metrics.saliency import METHODS, Saliency, class_means, low_frequency_energy, saliency, white_noise_energy
from notbugs.metrics.spurious_cues import (
    AccuracyGap,
    NearestCue,
    UsefulnessDrop,
    accuracy_gap,
    cue_values,
    nearest_cue,
    spurious_features,
)
from notbugs.metrics.transfer import PERTURBATIONS, AdversarialExamples, TransferRates, make_examples, transfer_rates
from notbugs.metrics.usefulness import RHO, Usefulness, usefulness
from notbugs.models import layer_forward

__all__ = [
    "METHODS",
    "PERTURBATIONS",
    "RHO",
    "Accuracy",
    "AccuracyGap",
    "AdversarialExamples",
    "CorruptionAccuracy",
    "CorruptionResult",
    "EigenFeatures",
    "ErrorConsistency",
    "FourierError",
    "NearestCue",
    "PerturbationSeparability",
    "RobustFeatureLeakage",
    "Saliency",
    "TransferRates",
    "Usefulness",
    "UsefulnessDrop",
    "accuracy_gap",
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
    "make_examples",
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
    "transfer_rates",
    "usefulness",
    "white_noise_energy",
]
