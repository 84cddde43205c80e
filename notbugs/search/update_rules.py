import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from notbugs.search.threat_models import ThreatModel, per_image


class StepState(NamedTuple):
    """What a step rule sees: the step's number (from 0), of how many, the images, what is climbed there (N,), its gradient."""

    step: int
    steps: int
    images: Tensor
    values: Tensor
    gradient: Tensor


# A rule turns the present point and its own memory (None at first) into a move and the new memory.
UpdateRule = Callable[[StepState, Any], tuple[Tensor, Any]]


def cosine_steps(threat_model: ThreatModel, size: float | Tensor, *, end: float = 1.0) -> UpdateRule:
    """Steps of a known length in the ball's norm: `size` at first, falling along a cosine towards `end` times that.

    size: one, or one for each image (N,). With end 1 this is the fixed step of projected gradient descent (Madry et al. 2018).
    """

    def rule(now: StepState, memory: None) -> tuple[Tensor, None]:
        share = end + (1 - end) * (1 + math.cos(math.pi * now.step / now.steps)) / 2
        return threat_model.steepest_step(now.images, now.gradient, size * share), None

    return rule


def auto_pgd(threat_model: ThreatModel, center: Tensor, *, along: ThreatModel | None = None, share: float = 1.0) -> UpdateRule:
    """Steps of two radii at first, each image's own halved where it stops paying, going on from the best point then.

    center: the images (N, C, H, W) that the search starts around. After the first step each adds a quarter of the last move.
    along: whose steps to take (default: the ball's own), `share` times as long.
    Source: APGD, Croce & Hein 2020, section 3 (momentum 0.75, rho 0.75, their checkpoints).
    """
    checked: dict[int, set[int]] = {}  # by number of steps
    along = along or threat_model

    def rule(now: StepState, memory: _AutoPGDState | None) -> tuple[Tensor, _AutoPGDState]:
        if now.steps not in checked:
            checked[now.steps] = _checkpoints(now.steps)
        images, gradient, values = now.images, now.gradient, now.values.nan_to_num(-torch.inf)
        if memory is None:
            size = torch.as_tensor(2 * share * threat_model.epsilon, dtype=torch.float32, device=images.device).expand(
                len(images)
            )
            memory = _AutoPGDState(images, values, images, values, gradient, size, torch.zeros_like(values), size, values, 0)
        wins, last = values > memory.best_value, memory.last
        best, best_gradient = torch.where(per_image(wins, images), images, memory.best), memory.best_gradient
        best_gradient, best_value = (
            torch.where(per_image(wins, images), gradient, best_gradient),
            values.maximum(memory.best_value),
        )
        rises, size, since = memory.rises + (values > memory.last_value), memory.size, memory.since
        size_then, value_then = memory.size_then, memory.value_then
        if now.step in checked[now.steps]:
            few = rises < 0.75 * (now.step - since)
            stuck = (size == size_then) & (best_value == value_then)
            halved = few | stuck
            size_then, value_then, since, rises = size, best_value, now.step, torch.zeros_like(rises)
            size = torch.where(halved, size / 2, size)
            images, gradient = (
                torch.where(per_image(halved, images), kept, current)
                for kept, current in ((best, images), (best_gradient, gradient))
            )
            last = torch.where(per_image(halved, images), images, last)
        ahead = threat_model.project(images + along.steepest_step(images, gradient, size), center)
        fresh = 0.75 if now.step else 1.0
        goal = images + fresh * (ahead - images) + (1 - fresh) * (images - last)
        kept = _AutoPGDState(images, values, best, best_value, best_gradient, size, rises, size_then, value_then, since)
        return goal - now.images, kept

    return rule


class _AutoPGDState(NamedTuple):
    """The memory of `adaptive`."""

    last: Tensor  # the point before, and what was climbed there
    last_value: Tensor
    best: Tensor
    best_value: Tensor
    best_gradient: Tensor
    size: Tensor  # of the next step (N,)
    rises: Tensor  # steps that paid since the last checkpoint (N,)
    size_then: Tensor  # at that checkpoint
    value_then: Tensor
    since: int


def _checkpoints(steps: int) -> set[int]:
    """After how many steps the length is looked at: at 22 % of them, then ever sooner, at least 6 % apart."""
    found, place, gap = set[int](), 0.0, 0.22
    while place < 1:
        found.add(math.ceil(place * steps))
        place, gap = place + gap, max(gap - 0.03, 0.06)
    return found - {0}


def polyak_conjugate(
    scale: float = 0.5, *, end: float = 0.1, top: float = 0.0, precondition: Callable[[Tensor], Tensor] | None = None
) -> UpdateRule:
    """For a goal whose highest value is known: Polyak's step along conjugate directions. There is no length to choose.

    What is climbed is −(top − value)² / 2. The direction is its gradient plus a share of the last direction (Dai & Yuan 1999),
    the length the one at which a straight line would reach the top (Polyak 1969) times a factor that falls from
    `scale` to `end`: towards the end, kinks of the network matter more than the way still to go.
    Pixels that are black or white and would be pushed further are left out of both: what is cut off later misleads the next step.
    precondition: a symmetric, positive definite linear map of gradients (N, C, H, W): the kind of change to prefer.
    """

    def rule(now: StepState, memory: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        missing = (top - now.values).nan_to_num(0.0, 0.0, 0.0)  # one bad value must not stay in the memory
        stuck = ((now.images <= 0) & (now.gradient < 0)) | ((now.images >= 1) & (now.gradient > 0))
        slope = now.gradient.to(missing.dtype).nan_to_num(0.0, 0.0, 0.0).masked_fill(stuck, 0.0) * per_image(missing, now.images)
        fresh = precondition(slope).masked_fill(stuck, 0.0) if precondition else slope
        way = fresh
        if memory is not None:
            last_way, last_slope = memory
            share = (_dot(slope, fresh) / _dot(last_way, last_slope - slope).clamp_min(1e-30)).clamp_max(3.0)
            bent = fresh + per_image(share, slope) * last_way
            # climbing at least a fifth as steeply, for its length, as the fresh direction does
            climbs = _dot(bent, slope) * _dot(fresh, fresh).sqrt() > 0.2 * _dot(bent, bent).sqrt() * _dot(fresh, slope)
            way = torch.where(per_image(climbs, slope), bent, fresh)
        factor = scale * (end / scale) ** (now.step / now.steps)
        steepness = _dot(way, slope)
        length = torch.where(steepness > 0, factor * missing.square() / steepness.clamp_min(1e-30), 0.0)
        return (per_image(length, way) * way).to(now.images.dtype), (way, slope)

    return rule


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Inner products, image by image: (N, …), (N, …) -> (N,)."""
    return (one * other).flatten(1).sum(1)
