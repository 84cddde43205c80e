"""Data sets constructed from data sets: D_R and D_NR (inverted features), D_rand and D_det (relabeled), and their controls."""

from notbugs.construct.base import Constructed, ConstructionStats
from notbugs.construct.controls import (
    class_patterns,
    correct_only,
    drop_already_predicted,
    misclassified_only,
    pseudo_label,
    rescaled_perturbations,
    shuffled_perturbations,
)
from notbugs.construct.inversion import (
    default_update_rule,
    invert_features,
    paper_update_rule,
    spectral_covariance_sqrt,
    whitened_metric,
)
from notbugs.construct.relabel import next_labels, random_labels, relabel

__all__ = [
    "Constructed",
    "ConstructionStats",
    "class_patterns",
    "correct_only",
    "default_update_rule",
    "drop_already_predicted",
    "invert_features",
    "misclassified_only",
    "next_labels",
    "paper_update_rule",
    "pseudo_label",
    "random_labels",
    "relabel",
    "rescaled_perturbations",
    "shuffled_perturbations",
    "spectral_covariance_sqrt",
    "whitened_metric",
]
