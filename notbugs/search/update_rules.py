"""Update rules with a fixed schedule: from an iterate and its gradient to the next update. See also `adaptive_rules`."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from notbugs.search.threat_models import ThreatModel


class StepState(NamedTuple):
    """What an update rule gets at each step.

    Attributes
    ----------
    step, steps : int
        Number of this step, from 0, and how many there are.
    images : Tensor, (N, C, H, W)
        The iterate.
    values : Tensor, (N,)
        The objective there.
    gradient : Tensor, (N, C, H, W)
        Its gradient.
    """

    step: int
    steps: int
    images: Tensor
    values: Tensor
    gradient: Tensor


# (step state, the rule's own state, None at first) -> (update of the images, the rule's new state)
UpdateRule = Callable[[StepState, Any], tuple[Tensor, Any]]


def cosine_steps(threat_model: ThreatModel, length: float | Tensor, *, end: float = 1.0) -> UpdateRule:
    """Steepest steps whose length follows a cosine schedule from `length` to `end * length`.

    Parameters
    ----------
    threat_model : ThreatModel
        Its norm defines "steepest" and the unit of the length.
    length : float or Tensor, (N,)
        Of the first step.
    end : float
        1 gives the constant step of projected gradient descent.

    References
    ----------
    Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks".
    """

    def rule(now: StepState, state: None) -> tuple[Tensor, None]:
        factor = end + (1 - end) * (1 + math.cos(math.pi * now.step / now.steps)) / 2
        return threat_model.steepest_step(now.images, now.gradient, length * factor), None

    return rule
