"""Adversarial attacks: gradient-based, black-box and spatial, and the ensemble behind every robust accuracy.

An attack is a function (model, images, labels) with keyword options. It returns the perturbed images with their margins, or with
the norms of their perturbations (`MinimumNormResult`). docs/attacks.md defines each of them, and the names in tables.
"""

from notbugs.attacks.black_box import hop_skip_jump, square_attack
from notbugs.attacks.bpda import straight_through
from notbugs.attacks.budgets import BUDGETS, ENSEMBLE_VERSION, GRADIENT_ENSEMBLE, AttackBudget, ensemble_name
from notbugs.attacks.combine import worst_case
from notbugs.attacks.ensemble import adaptive_ensemble, gradient_ensemble
from notbugs.attacks.minimum_norm import MinimumNormResult, minimum_norm, nearest_classes
from notbugs.attacks.pgd import apgd, fgsm, kl_pgd, pgd, rank_targeted_pgd, refine, targeted_pgd, training_pgd
from notbugs.attacks.randomness import DRAWS, MeanOfDraws, correct_draws, eot_attack, is_random
from notbugs.attacks.sparse import few_pixels, one_pixel
from notbugs.attacks.spatial import spatial_attack
from notbugs.attacks.targeted import PredictsTarget, ensemble_toward, targeted_ensemble
from notbugs.attacks.validation import Model, check_within, clean_logits, has_gradient, inverse_of, missing_gradient

__all__ = [
    "BUDGETS",
    "DRAWS",
    "ENSEMBLE_VERSION",
    "GRADIENT_ENSEMBLE",
    "AttackBudget",
    "MeanOfDraws",
    "MinimumNormResult",
    "Model",
    "PredictsTarget",
    "adaptive_ensemble",
    "apgd",
    "check_within",
    "clean_logits",
    "correct_draws",
    "ensemble_name",
    "ensemble_toward",
    "eot_attack",
    "few_pixels",
    "fgsm",
    "gradient_ensemble",
    "has_gradient",
    "hop_skip_jump",
    "inverse_of",
    "is_random",
    "kl_pgd",
    "minimum_norm",
    "missing_gradient",
    "nearest_classes",
    "one_pixel",
    "pgd",
    "rank_targeted_pgd",
    "refine",
    "spatial_attack",
    "square_attack",
    "straight_through",
    "targeted_ensemble",
    "targeted_pgd",
    "training_pgd",
    "worst_case",
]
