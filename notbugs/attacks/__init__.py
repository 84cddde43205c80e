"""How a classifier is fooled: named recipes for the search, attacks without gradients, and the verdict.

recipes: FGSM, PGD, APGD, targeted, TRADES' inner step. radius: the smallest change that fools. blind: without gradients.
spatial: turned and moved. steps: gradients through rounding. verdict: the ensemble behind every robust accuracy.
"""

from notbugs.attacks.blind import few_pixels, hop_skip_jump, one_pixel, square
from notbugs.attacks.door import Model, clean_logits, has_gradient
from notbugs.attacks.radius import nearest_classes, smallest_radius
from notbugs.attacks.recipes import apgd, diverge, fgsm, pgd, reach, runner_up
from notbugs.attacks.spatial import spatial
from notbugs.attacks.steps import straight_through
from notbugs.attacks.verdict import BUDGETS, ensemble, standard, standard_name
from notbugs.attacks.worst import worst_case

__all__ = [
    "BUDGETS",
    "Model",
    "apgd",
    "clean_logits",
    "diverge",
    "ensemble",
    "few_pixels",
    "fgsm",
    "has_gradient",
    "hop_skip_jump",
    "nearest_classes",
    "one_pixel",
    "pgd",
    "reach",
    "runner_up",
    "smallest_radius",
    "spatial",
    "square",
    "standard",
    "standard_name",
    "straight_through",
    "worst_case",
]
