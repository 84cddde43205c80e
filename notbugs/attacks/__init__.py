"""Adversarial attacks: gradient-based, black-box and spatial, and the ensemble behind every robust accuracy."""

from notbugs.attacks.black_box import few_pixels, hop_skip_jump, one_pixel, square_attack
from notbugs.attacks.bpda import straight_through
from notbugs.attacks.ensemble import worst_case
from notbugs.attacks.evaluation import BUDGETS, adaptive_ensemble, describe_ensemble, gradient_ensemble
from notbugs.attacks.minimum_norm import minimum_norm, nearest_classes
from notbugs.attacks.pgd import apgd, fgsm, kl_pgd, pgd, rank_targeted_pgd, targeted_pgd
from notbugs.attacks.spatial import spatial_attack
from notbugs.attacks.validation import Model, clean_logits, has_gradient

__all__ = [
    "BUDGETS",
    "Model",
    "adaptive_ensemble",
    "apgd",
    "clean_logits",
    "describe_ensemble",
    "few_pixels",
    "fgsm",
    "gradient_ensemble",
    "has_gradient",
    "hop_skip_jump",
    "kl_pgd",
    "minimum_norm",
    "nearest_classes",
    "one_pixel",
    "pgd",
    "rank_targeted_pgd",
    "spatial_attack",
    "square_attack",
    "straight_through",
    "targeted_pgd",
    "worst_case",
]
