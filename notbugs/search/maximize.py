"""How it is found: one loop that moves pixels. Attacks, constructions and scores differ only in what they ask of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from notbugs.errors import InputError
from notbugs.search.objectives import Objective
from notbugs.search.threat_models import NormBall, ThreatModel, per_image
from notbugs.search.update_rules import StepState, UpdateRule


class AttackResult(NamedTuple):
    """images: (N, C, H, W), the best seen; values: (N,), what the goal's judge says of exactly these images."""

    images: Tensor
    margins: Tensor


Attack = Callable[
    [nn.Module, Tensor, Tensor], AttackResult
]  # (model, images, labels); its options are bound with functools.partial


def maximize(
    goal: Objective, images: Tensor, threat_model: ThreatModel, *, steps: int, rule: UpdateRule, start: Tensor | None = None
) -> AttackResult:
    """Images in the ball around `images` that a goal likes best; one forward and backward pass a step, one forward at the end.

    images: (N, C, H, W) in [0, 1], float; start: same shape, projected first (default: the images themselves).
    The best of start and all iterates is returned, by the goal's judge. Deterministic; nothing is copied to the host.
    The model's mode and its parameters' gradients are the caller's business: see models.frozen.
    """
    if steps < 0:
        raise InputError("steps", "must be 0 or more", steps)
    if isinstance(threat_model, NormBall):
        threat_model.fit(images.shape)
    images = images.detach()
    point = threat_model.project((images if start is None else start).detach(), images)
    memory: Any = None
    best, best_value = point, images.new_full((len(images),), -torch.inf, dtype=torch.float32)
    for step in range(steps):
        point.requires_grad_()
        with torch.enable_grad():
            seen = goal.forward(point)
            climbed = goal.objective(seen)
            (gradient,) = torch.autograd.grad(climbed.sum(), point)
        point = point.detach()
        with torch.no_grad():
            value = goal.criterion(seen.detach())
            best, best_value = _better(point, value, best, best_value)
            move, memory = rule(StepState(step, steps, point, climbed.detach(), gradient), memory)
            point = threat_model.project(point + move, images)
    with torch.no_grad():
        best, best_value = _better(point, goal.criterion(goal.forward(point)), best, best_value)
    return AttackResult(best, best_value)


def gradients(heights: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Several functions of images at once, and their gradients: heights (N, M) and (M, N, C, H, W); M backward passes."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        columns = heights(images).unbind(1)
        gradients = [torch.autograd.grad(column.sum(), images, retain_graph=True)[0] for column in columns]
    return torch.stack([column.detach() for column in columns], dim=1), torch.stack(gradients)


def _better(point: Tensor, value: Tensor, best: Tensor, best_value: Tensor) -> tuple[Tensor, Tensor]:
    """The better of two images, one by one; a value that is not a number never wins."""
    wins = value > best_value
    return torch.where(per_image(wins, point), point, best), torch.where(wins, value, best_value)
