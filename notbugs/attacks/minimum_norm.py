"""The smallest perturbation that causes misclassification, image by image."""

from typing import NamedTuple

import torch
from torch import Tensor

from notbugs import search
from notbugs.attacks.pgd import decaying_steps
from notbugs.attacks.validation import Model, clean_logits, composed, inverse_of, validated
from notbugs.errors import InputError
from notbugs.search import NormBall, Objective, objectives
from notbugs.search.threat_models import per_image

# What the rounds of `minimum_norm` maximize in turn: 0 is the cross-entropy, else the nearest class of that rank.
ROUND_RANKS = (0, 1, 2, 0, 1, 3)


class MinimumNormResult(NamedTuple):
    """Misclassified images at the smallest distance that was found.

    Attributes
    ----------
    images : Tensor, (N, C, H, W), in [0, 1]
        The clean image where it is misclassified, or where nothing was found.
    norms : Tensor, (N,)
        Norm of the perturbation. 0: the clean image is misclassified. inf: nothing was found.
    """

    images: Tensor
    norms: Tensor


class _Bounds(NamedTuple):
    """best: images (N, C, H, W); norms, (N,): upper bounds; low: lower ones, where attacks failed; epsilon: of the next round."""

    best: Tensor
    norms: Tensor
    low: Tensor
    epsilon: Tensor


@validated
def minimum_norm(
    model: Model, images: Tensor, labels: Tensor, *, norm: str | NormBall = "l2", rounds: int = 10, steps: int = 10
) -> MinimumNormResult:
    """The smallest perturbation that causes misclassification, image by image.

    Each round is PGD in a ball about a tenth smaller than the smallest perturbation so far (larger, while there is none), started
    there, on the cross-entropy or at one of the nearest classes. What it finds is bisected toward the clean image.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K), differentiable.
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, (N,), int64
    norm : {"l2", "linf", "l1"} or NormBall
        Of a ball the norm, the mask and the limits of channels; not its epsilon.
    rounds, steps : int
        Costs a gradient for each of rounds × steps, and one for each of at most nine nearest classes.

    Returns
    -------
    MinimumNormResult

    Examples
    --------
    >>> import torch
    >>> def model(images):
    ...     mean = images.mean((1, 2, 3))
    ...     return torch.stack([0.5 - mean, mean - 0.5], dim=1)
    >>> images = torch.tensor([0.3, 0.9]).reshape(2, 1, 1, 1).repeat(1, 1, 4, 4)
    >>> minimum_norm(model, images, torch.tensor([0, 0]), norm="linf").norms.round(decimals=2)
    tensor([0.2000, 0.0000])
    """
    ball = unit_ball(norm)
    if ball.norm == "l0":
        raise InputError("norm", "must be linf, l2 or l1 for the minimum norm", repr(ball.norm))
    logits = clean_logits(model, images, labels)
    model, correct = composed(inverse_of(logits), model), objectives.margin(logits, labels) > 0
    targets, distances = nearest_classes(model, images, labels, norm=ball)
    farthest = ball.distance(ball.free_part(images.new_full((1, *images.shape[1:]), 0.25)))
    epsilon = distances[:, 0].clamp_min(1e-3).minimum(farthest.to(distances))
    bounds = _Bounds(images.clone(), torch.full_like(epsilon, torch.inf), torch.zeros_like(epsilon), epsilon)
    for number in range(rounds):
        objective = _round_objective(model, labels, targets, number)
        found = _run_round(objective, images, bounds, ball, number, steps)
        bisected = bisect_to_boundary(model, images, labels, found.images)
        norms = ball.distance(bisected - images).float()
        bounds = _tighten(bounds, found.margins >= 0, bisected, norms)
    return MinimumNormResult(
        torch.where(per_image(correct, images), bounds.best, images), torch.where(correct, bounds.norms, 0.0)
    )


def _round_objective(model: Model, labels: Tensor, targets: Tensor, number: int) -> Objective:
    """What a round maximizes; the last class stands in where a rank is missing."""
    rank = ROUND_RANKS[number % len(ROUND_RANKS)]
    if not rank:
        return objectives.untargeted(model, labels, "cross_entropy")
    return objectives.untargeted_via(model, labels, targets[:, min(rank, targets.shape[1]) - 1])


def unit_ball(norm: str | NormBall) -> NormBall:
    """A ball of epsilon 1 with this norm; of a ball with its mask and its limits of channels."""
    return NormBall(norm, 1.0) if isinstance(norm, str) else norm.within(1.0)


def _run_round(
    objective: Objective, images: Tensor, bounds: _Bounds, ball: NormBall, number: int, steps: int
) -> search.AttackResult:
    """PGD from the best image so far: in every round after the first cycle, and in those on the cross-entropy."""
    threat_model = ball.within(bounds.epsilon)
    restart = bounds.norms.isfinite() & (number >= len(ROUND_RANKS) or not ROUND_RANKS[number % len(ROUND_RANKS)])
    start = torch.where(per_image(restart, images), bounds.best, images)
    # in L1 both kinds of steps in turn: sparse ones are exact on a linear model, the others better on CIFAR-10 (docs/lab-log.md)
    rule = decaying_steps(threat_model, bounds.epsilon * torch.where(restart, 1.0, 2.0), sparse=number % 2 == 1)
    return search.maximize(objective, images, threat_model, steps=steps, rule=rule, start=start)


def _tighten(bounds: _Bounds, misclassified: Tensor, candidates: Tensor, norms: Tensor) -> _Bounds:
    """The bounds after a round that ended at `candidates`."""
    better = misclassified & (norms < bounds.norms)
    best = torch.where(per_image(better, candidates), candidates, bounds.best)
    high = torch.where(better, norms, bounds.norms)
    failed = torch.maximum(bounds.low, bounds.epsilon)
    low = torch.minimum(torch.where(misclassified, bounds.low, failed), 0.98 * high)
    epsilon = torch.where(high.isfinite(), torch.maximum((low + high) / 2, 0.9 * high), 1.5 * bounds.epsilon)
    return _Bounds(best, high, low, epsilon)


def nearest_classes(
    model: Model, images: Tensor, labels: Tensor, *, norm: str | NormBall = "l2", most: int = 9
) -> tuple[Tensor, Tensor]:
    """The wrong classes in the order of their linearized distance.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K), differentiable.
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, (N,), int64
    norm : {"l2", "linf", "l1"} or NormBall
    most : int
        Only this many classes, those with the highest logits.

    Returns
    -------
    classes : Tensor, (N, min(most, K - 1)), int64
    distances : Tensor, same shape
        Difference of the logits over the dual norm of its gradient.
    """
    threat_model = unit_ball(norm)
    with torch.no_grad():
        logits = objectives.logits(model, images).scatter(1, labels[:, None], -torch.inf)
    classes = logits.topk(min(most, logits.shape[1] - 1)).indices

    def differences(images: Tensor) -> Tensor:
        logits = objectives.logits(model, images)
        return logits.gather(1, labels[:, None]) - logits.gather(1, classes)

    values, gradients = search.gradients(differences, images)
    slopes = torch.stack(
        [(gradient * threat_model.steepest_direction(gradient)).flatten(1).sum(1).float() for gradient in gradients], dim=1
    )
    distances, order = torch.where(slopes > 0, values / slopes, torch.inf).sort(1)
    return classes.gather(1, order), distances


def bisect_to_boundary(
    model: Model, images: Tensor, labels: Tensor, misclassified: Tensor, *, steps: int = 6, clip: NormBall | None = None
) -> Tensor:
    """Bisects toward the clean images: the nearest misclassified image on a path, up to 2^-steps of it.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K).
    images, misclassified : Tensor, (N, C, H, W)
        The ends of the paths.
    labels : Tensor, (N,), int64
    steps : int
    clip : NormBall, optional
        The path projects the misclassified images onto ever smaller such balls: in L-inf it clips the perturbation. Default: the
        straight line.
    """
    perturbation = misclassified - images
    size = None if clip is None else clip.distance(perturbation)

    def between(fraction: Tensor) -> Tensor:
        if clip is not None and size is not None:
            return clip.within(fraction * size).project(misclassified, images)
        return images + per_image(fraction, images) * perturbation

    low, high = (torch.full(labels.shape, end, device=images.device, dtype=images.dtype) for end in (0.0, 1.0))
    with torch.no_grad():
        for _ in range(steps):
            middle = (low + high) / 2
            wrong = objectives.margin(objectives.logits(model, between(middle)), labels) <= 0
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    # where no step succeeded the end itself, which is known to be misclassified: between(1) may differ from it by rounding
    return torch.where(per_image(high, images) == 1, misclassified, between(high))
