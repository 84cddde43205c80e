"""Update rules that choose the step length themselves, per image: Auto-PGD and Polyak's step along conjugate directions."""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from notbugs.search.threat_models import ThreatModel, per_image
from notbugs.search.update_rules import StepState, UpdateRule


class _AutoPGDState(NamedTuple):
    """State of `auto_pgd`. Tensors of images are (N, C, H, W), all others (N,)."""

    previous: Tensor  # the iterate before, and the objective there
    previous_values: Tensor
    best: Tensor  # the iterate with the highest objective so far
    best_values: Tensor
    best_gradient: Tensor
    length: Tensor  # of the next step
    increases: Tensor  # steps that increased the objective since the last checkpoint
    checkpoint_length: Tensor  # length and best value at that checkpoint
    checkpoint_best: Tensor
    checkpoint: int


def auto_pgd(threat_model: ThreatModel, center: Tensor, *, along: ThreatModel | None = None, share: float = 1.0) -> UpdateRule:
    """Auto-PGD: momentum steps of 2 epsilon; each image's length is halved when progress stalls, then restarted from its best.

    Parameters
    ----------
    threat_model : ThreatModel
        Iterates are projected onto it before the momentum is added.
    center : Tensor, (N, C, H, W)
        The clean images.
    along : ThreatModel, optional
        Its steepest steps are taken. Default: `threat_model`.
    share : float
        Factor of the step length.

    References
    ----------
    Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
    section 3: momentum 0.75, rho 0.75, and their checkpoints.
    """
    steps_of = along or threat_model

    def rule(now: StepState, state: _AutoPGDState | None) -> tuple[Tensor, _AutoPGDState]:
        now = now._replace(values=now.values.nan_to_num(-torch.inf))
        state = _update_best(now, state or _initial_state(now, 2 * share * threat_model.epsilon))
        iterate, gradient = now.images, now.gradient
        if now.step in _checkpoints(now.steps):
            iterate, gradient, state = _halve_and_restart(now, state)
        ahead = threat_model.project(iterate + steps_of.steepest_step(iterate, gradient, state.length), center)
        weight = 0.75 if now.step else 1.0
        target = iterate + weight * (ahead - iterate) + (1 - weight) * (iterate - state.previous)
        return target - now.images, state._replace(previous=iterate, previous_values=now.values)

    return rule


def _initial_state(now: StepState, length: float | Tensor) -> _AutoPGDState:
    """The state before the first step."""
    lengths = torch.as_tensor(length, dtype=torch.float32, device=now.images.device).expand(len(now.images))
    none = torch.zeros_like(now.values)
    return _AutoPGDState(
        now.images, now.values, now.images, now.values, now.gradient, lengths, none, lengths, now.values, checkpoint=0
    )


def _update_best(now: StepState, state: _AutoPGDState) -> _AutoPGDState:
    """The state with this iterate counted: the best one of each image, and whether the step increased the objective."""
    wins = now.values > state.best_values
    return state._replace(
        best=torch.where(per_image(wins, now.images), now.images, state.best),
        best_gradient=torch.where(per_image(wins, now.images), now.gradient, state.best_gradient),
        best_values=now.values.maximum(state.best_values),
        increases=state.increases + (now.values > state.previous_values),
    )


def _halve_and_restart(now: StepState, state: _AutoPGDState) -> tuple[Tensor, Tensor, _AutoPGDState]:
    """At a checkpoint: images that made too little progress get half the length and go on from their best iterate."""
    few = state.increases < 0.75 * (now.step - state.checkpoint)
    stalled = (state.length == state.checkpoint_length) & (state.best_values == state.checkpoint_best)
    halved = few | stalled
    restart = per_image(halved, now.images)
    iterate = torch.where(restart, state.best, now.images)
    gradient = torch.where(restart, state.best_gradient, now.gradient)
    return (
        iterate,
        gradient,
        state._replace(
            previous=torch.where(restart, iterate, state.previous),
            length=torch.where(halved, state.length / 2, state.length),
            increases=torch.zeros_like(state.increases),
            checkpoint_length=state.length,
            checkpoint_best=state.best_values,
            checkpoint=now.step,
        ),
    )


@cache
def _checkpoints(steps: int) -> frozenset[int]:
    """Steps at which lengths may be halved: after 22 % of them, then at ever shorter intervals, of at least 6 %."""
    found, fraction, gap = set[int](), 0.0, 0.22
    while fraction < 1:
        found.add(math.ceil(fraction * steps))
        fraction, gap = fraction + gap, max(gap - 0.03, 0.06)
    return frozenset(found - {0})


def polyak_conjugate(
    scale: float = 0.5, *, end: float = 0.1, top: float = 0.0, precondition: Callable[[Tensor], Tensor] | None = None
) -> UpdateRule:
    """Polyak's step along conjugate directions, for an objective whose maximum is known: no step length to choose.

    Maximizes -(top - value)² / 2. The direction is its gradient plus a multiple of the last direction. The length is the one at
    which a linear function would reach the top, times a factor. Values at 0 or 1 that would be pushed out of range are left out
    of direction and length, because the projection would undo their part of the step.

    Parameters
    ----------
    scale, end : float
        Factor of the length at the first and the last step. It falls geometrically: near the top the kinks of a ReLU network
        matter more than the distance left.
    top : float
        Maximum of the objective.
    precondition : callable, optional
        Symmetric, positive definite linear map of gradients (N, C, H, W): which perturbations to prefer.

    References
    ----------
    Polyak 1969 (length); Dai & Yuan 1999 (direction).
    """

    def rule(now: StepState, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        missing = (top - now.values).nan_to_num(0.0, 0.0, 0.0)  # one NaN must not stay in the state
        blocked = ((now.images <= 0) & (now.gradient < 0)) | ((now.images >= 1) & (now.gradient > 0))
        gradient = now.gradient.to(missing.dtype).nan_to_num(0.0, 0.0, 0.0).masked_fill(blocked, 0.0)
        gradient = gradient * per_image(missing, now.images)
        steepest = precondition(gradient).masked_fill(blocked, 0.0) if precondition else gradient
        direction = steepest if state is None else _conjugate(gradient, steepest, *state)
        slope = _dot(direction, gradient)
        factor = scale * (end / scale) ** (now.step / now.steps)
        length = torch.where(slope > 0, factor * missing.square() / slope.clamp_min(1e-30), 0.0)
        return (per_image(length, direction) * direction).to(now.images.dtype), (direction, gradient)

    return rule


def _conjugate(gradient: Tensor, steepest: Tensor, last_direction: Tensor, last_gradient: Tensor) -> Tensor:
    """Dai & Yuan's direction; the steepest one where that would increase the objective less than a fifth as fast."""
    share = (_dot(gradient, steepest) / _dot(last_direction, last_gradient - gradient).clamp_min(1e-30)).clamp_max(3.0)
    direction = steepest + per_image(share, gradient) * last_direction
    slope, steepest_slope = _dot(direction, gradient), _dot(steepest, gradient)
    useful = slope * _dot(steepest, steepest).sqrt() > 0.2 * _dot(direction, direction).sqrt() * steepest_slope
    return torch.where(per_image(useful, gradient), direction, steepest)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Inner product of each image: (N, …), (N, …) -> (N,)."""
    return (one * other).flatten(1).sum(1)
