"""The one loop that perturbs images: maximize an objective inside a threat model."""

from notbugs.search.adaptive_rules import auto_pgd, polyak_conjugate
from notbugs.search.maximize import Attack, AttackResult, gradients, last_iterate, maximize
from notbugs.search.objectives import Objective
from notbugs.search.threat_models import Mask, NormBall, SpatialTransforms, ThreatModel
from notbugs.search.update_rules import StepState, UpdateRule, cosine_steps

__all__ = [
    "Attack",
    "AttackResult",
    "Mask",
    "NormBall",
    "Objective",
    "SpatialTransforms",
    "StepState",
    "ThreatModel",
    "UpdateRule",
    "auto_pgd",
    "cosine_steps",
    "gradients",
    "last_iterate",
    "maximize",
    "polyak_conjugate",
]
