"""Attacks without gradients: Square Attack, which uses logits, and HopSkipJump, which uses predicted labels."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from notbugs import precision
from notbugs.attacks.minimum_norm import MinimumNormResult, bisect_to_boundary, unit_ball
from notbugs.attacks.validation import Model, check_single_epsilon, clean_logits, validated
from notbugs.errors import InputError
from notbugs.search import AttackResult, NormBall, ThreatModel, objectives
from notbugs.search.threat_models import per_image

BISECTION_STEPS = 10  # of HopSkipJump
LEAST_SAMPLES = 10  # of HopSkipJump: below, an estimate of the gradient is worth no step
START_CANDIDATES = 200  # more images to start from cost more than they bring
NOISE_STARTS = 20
PIXELS_AT_ONCE = 2**14  # of Square Attack, on a CPU: 20 images of 28x28 pixels, 7 of 48x48, one of 128x128 (docs/lab-log.md)


@validated
def square_attack(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    queries: int = 1000,
    generator: Generator | None = None,
) -> AttackResult:
    """Square Attack: random search that perturbs one square at a time and keeps what raises the margin.

    The first query perturbs whole columns; then the squares shrink from a tenth of the image to a 300th. The steps are 2 epsilon
    in L-inf; in other threat models they shrink from epsilon to a tenth of it.

    In one query all images get the same square: the result of one does not depend on the others. Where few images are left,
    several queries are evaluated at once, as if the ones before would fail. Those after a success are evaluated again: the result
    is that of one query at a time.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K).
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, (N,), int64
    threat_model : ThreatModel
        With one epsilon for all images.
    queries : int
        Per image, without those that are evaluated again; one more is for the clean image.
    generator : torch.Generator, optional
        By default seeded with 0.

    Returns
    -------
    AttackResult
        Margins of 0 or more are misclassified. An image is left alone once it is misclassified.

    References
    ----------
    Andriushchenko et al. 2020, "Square Attack", here for every threat model that can project and step.
    """
    if queries < 1:
        raise InputError("queries", "must be 1 or more", queries)
    check_single_epsilon(threat_model)
    generator = generator or torch.Generator().manual_seed(0)
    most = _images_at_once(images)
    query, ahead = 0, 1
    with torch.no_grad():
        best, margins = images.clone(), -objectives.margin(clean_logits(model, images, labels), labels)
        while query < queries and len(index := (margins < 0).nonzero().squeeze(1)):
            ahead = max(1, min(ahead, queries - query, most // len(index)))
            numbers = range(query, query + ahead)
            perturbed, states = _perturb(best[index], images[index], threat_model, numbers, queries, generator)
            found = -objectives.margin(objectives.logits(model, perturbed.flatten(0, 1)), labels[index].repeat(ahead))
            found = found.reshape(ahead, len(index))
            better = found > margins[index]
            helped = better.any(1).tolist()
            last = helped.index(True) if any(helped) else ahead - 1  # later queries are drawn again, from what this one found
            generator.set_state(states[last])
            best[index[better[last]]], margins[index[better[last]]] = perturbed[last][better[last]], found[last][better[last]]
            query, ahead = query + last + 1, 2 * ahead if last == ahead - 1 else ahead // 2
    return AttackResult(best, margins)


def _perturb(
    best: Tensor, clean: Tensor, threat_model: ThreatModel, numbers: range, queries: int, generator: Generator
) -> tuple[Tensor, list[Tensor]]:
    """What Square Attack tries in some of its queries: (queries, n, C, H, W); and the generator's state after each.

    In one query all images get the same square, so that the result of one does not depend on the others.
    """
    directions, steps, states = [], [], []
    mask = getattr(threat_model, "mask", None)
    free = None if mask is None else mask.free.any(0).nonzero()
    for number in numbers:
        progress = number / queries
        directions.append(_squares(best[:1], progress, generator, free) if number else _stripes(best[:1], generator))
        steps.append(threat_model.epsilon * (2.0 if getattr(threat_model, "norm", "") == "linf" else 0.1**progress))
        states.append(generator.get_state())
    lengths = torch.tensor(steps).to(best).repeat_interleave(len(best))
    start, center = (images.repeat(len(numbers), 1, 1, 1) for images in (best, clean))
    perturbed = start + threat_model.steepest_step(start, torch.cat(directions).repeat_interleave(len(best), 0), lengths)
    return threat_model.project(perturbed, center).reshape(len(numbers), *best.shape), states


def _images_at_once(images: Tensor) -> int:
    """Images in one forward pass if few are attacked: on a CPU as many as take little longer than one, on a GPU a batch."""
    if images.device.type != "cpu":
        return precision.default_batch_size(images.device, images.shape[1:])
    return PIXELS_AT_ONCE // math.prod(images.shape[2:])


def _stripes(images: Tensor, generator: Generator) -> Tensor:
    """Random signs, the same within each column and channel: (n, C, H, W)."""
    count, channels, height, width = images.shape
    return _signs((count, channels, 1, width), images, generator).expand(-1, -1, height, -1)


def _squares(images: Tensor, progress: float, generator: Generator, free: Tensor | None) -> Tensor:
    """Random signs in one random square per image, 0 elsewhere: (n, C, H, W); progress in [0, 1] sets the size.

    free: rows and columns of the pixels that may change, (M, 2): the square has one of them. A tenth is then one of these pixels.
    """
    count, channels, height, width = images.shape
    area = height * width if free is None else len(free)
    side = max(1, round(math.sqrt(0.1 * (1 / 30) ** progress * area)))
    if free is None:
        rows, columns = _window(count, height, side, generator), _window(count, width, side, generator)
    else:
        chosen = free[torch.randint(len(free), (count,), generator=generator, device=generator.device).to(free.device)]
        rows, columns = (
            _window(count, length, side, generator, around.to(generator.device))
            for length, around in zip((height, width), chosen.unbind(1), strict=True)
        )
    square = (rows[:, :, None] & columns[:, None]).to(images.device)
    return square[:, None] * _signs((count, channels, 1, 1), images, generator)


def _signs(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    """Random signs, in the dtype and on the device of `like`."""
    return 2 * torch.randint(2, shape, generator=generator, device=generator.device).to(like) - 1


def _window(count: int, length: int, side: int, generator: Generator, around: Tensor | None = None) -> Tensor:
    """Masks of random windows, `side` of `length` rows or columns: (count, length). around: a row or column in each, (count,)."""
    most = length - min(side, length)
    if around is None:
        first = torch.randint(most + 1, (count, 1), generator=generator, device=generator.device)
    else:
        offset = torch.randint(side, (count, 1), generator=generator, device=generator.device)
        first = (around[:, None] - offset).clamp(0, most)
    offset = torch.arange(length, device=first.device) - first
    return (offset >= 0) & (offset < side)


@validated
def hop_skip_jump(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str | NormBall = "l2",
    queries: int = 1000,
    stop_norm: float = 0.0,
    starts: Tensor | None = None,
    generator: Generator | None = None,
) -> MinimumNormResult:
    """HopSkipJump: a small perturbation that causes misclassification, from predicted labels alone.

    Starts at the nearest image that is classified as another class, or at noise, and bisects to the decision boundary. Then it
    estimates the gradient there from random perturbations, takes a step along it, and bisects again. What an image gets does not
    depend on the other images, but for `starts`: the random perturbations are the same for all, and each pays for all tries.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K); only their highest entry is used.
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, (N,), int64
    norm : {"l2", "linf"} or NormBall
        Of a ball the norm, the mask and the limits of channels; not its epsilon.
    queries : int
        Per image, at most.
    stop_norm : float
        An image is left alone once its perturbation is this small.
    starts : Tensor, (M, C, H, W), optional
        Images to start from, by default `images`.
    generator : torch.Generator, optional
        By default seeded with 0.

    Returns
    -------
    MinimumNormResult

    References
    ----------
    Chen et al. 2020, "HopSkipJumpAttack", algorithm 2, here for a batch.
    """
    ball = unit_ball(norm)
    if ball.norm not in ("l2", "linf"):
        raise InputError("norm", "must be l2 or linf for HopSkipJump", repr(ball.norm))
    if queries < 1:
        raise InputError("queries", "must be 1 or more", queries)
    generator = generator or torch.Generator().manual_seed(0)
    predicted = clean_logits(model, images, labels).argmax(1)
    pool, pool_predicted = images, predicted
    if starts is not None:
        with torch.no_grad():
            pool, pool_predicted = starts, objectives.logits(model, starts).argmax(1)
    batch = _Batch(model, images, labels, ball, generator)
    used = min(NOISE_STARTS, queries - 1)
    if ball.mask is None:
        start = _nearest_misclassified(batch, pool, pool_predicted)
    else:
        tried = min(NOISE_STARTS, queries - 1 - used)
        start, used = _nearest_blended(batch, pool, pool_predicted, tried), used + tried
    start = _fill_with_noise(batch, start, predicted == labels, min(NOISE_STARTS, queries - 1))
    result = MinimumNormResult(images.clone(), torch.where(predicted == labels, torch.inf, 0.0).to(images.device))
    started = (start != images).flatten(1).any(1) & (predicted == labels)
    used += 1  # of the clean images
    if bool(started.any()) and used + BISECTION_STEPS <= queries:
        result = _approach(batch, result, started.nonzero().squeeze(1), start[started])
        used += BISECTION_STEPS
    return _follow_boundary(batch, result, queries - used, stop_norm)


class _Batch(NamedTuple):
    """What all parts of HopSkipJump need."""

    model: Model
    images: Tensor
    labels: Tensor
    threat_model: NormBall
    generator: Generator

    def misclassified(self, points: Tensor, index: Tensor) -> Tensor:
        """Which of the points (n, C, H, W) the model assigns to another class than the labels at `index`: (n,)."""
        with torch.no_grad():
            return objectives.logits(self.model, points).argmax(1) != self.labels[index]

    def rest_of(self, points: Tensor, index: Tensor | int) -> Tensor:
        """Points (n, C, H, W), where they must not differ from the images at `index` as those are."""
        return self.threat_model.keep_rest(points, self.images[index])

    def draw(self, sampler: Callable[..., Tensor], like: Tensor) -> Tensor:
        """The same numbers for every image, so that its result does not depend on the others: (1, C, H, W)."""
        return sampler((1, *like.shape[1:]), generator=self.generator, device=self.generator.device).to(like)


def _nearest_misclassified(batch: _Batch, pool: Tensor, predicted: Tensor) -> Tensor:
    """For each image the nearest of the pool (M, C, H, W) that is predicted (M,) as another class; else the image itself."""
    nearest = batch.images.clone()
    for number, (image, label) in enumerate(zip(batch.images, batch.labels, strict=True)):
        others = (predicted != label).nonzero().squeeze(1)
        if len(others):
            others = others[:: -(-len(others) // START_CANDIDATES)]
            nearest[number] = pool[others[batch.threat_model.distance(pool[others] - image).argmin()]]
    return nearest


def _nearest_blended(batch: _Batch, pool: Tensor, predicted: Tensor, tried: int) -> Tensor:
    """For each image the nearest misclassified one with the free pixels of another of the pool; else the image itself."""
    nearest = batch.images.clone()
    for number, label in enumerate(batch.labels if tried else ()):
        others = (predicted != label).nonzero().squeeze(1)
        others = others[:: max(1, -(-len(others) // tried))]
        blended = batch.rest_of(pool[others], number)
        blended = blended[batch.misclassified(blended, torch.full_like(others, number))]
        if len(blended):
            nearest[number] = blended[batch.threat_model.distance(blended - batch.images[number]).argmin()]
    return nearest


def _fill_with_noise(batch: _Batch, start: Tensor, correct: Tensor, attempts: int) -> Tensor:
    """The starting points, with misclassified noise where there was none."""
    tried = [batch.draw(torch.rand, batch.images) for _ in range(attempts)]  # in any case, for the numbers drawn afterwards
    for each in tried:
        missing = (start.flatten(1) == batch.images.flatten(1)).all(1) & correct
        if not bool(missing.any()):
            break
        index = missing.nonzero().squeeze(1)
        noise = batch.rest_of(each.expand(len(index), -1, -1, -1), index)
        found = batch.misclassified(noise, index)
        start = start.index_put((index[found],), noise[found])
    return start


def _approach(batch: _Batch, result: MinimumNormResult, index: Tensor, outside: Tensor) -> MinimumNormResult:
    """Bisects from points outside (n, C, H, W) toward the images at `index`; what is nearer than before is kept."""
    images, clip = batch.images[index], batch.threat_model if batch.threat_model.norm == "linf" else None
    near = bisect_to_boundary(batch.model, images, batch.labels[index], outside, steps=BISECTION_STEPS, clip=clip)
    norms = batch.threat_model.distance(near - images).float()
    better = norms < result.norms[index]
    kept = (index[better],)
    return MinimumNormResult(result.images.index_put(kept, near[better]), result.norms.index_put(kept, norms[better]))


def _follow_boundary(batch: _Batch, result: MinimumNormResult, queries: int, stop_norm: float) -> MinimumNormResult:
    """Steps along the boundary, toward the images, as long as the queries last."""
    iteration = 0
    while True:
        iteration += 1
        index = (result.norms.isfinite() & (result.norms > stop_norm) & (result.norms > 1e-6)).nonzero().squeeze(1)
        samples = min(round(100 * math.sqrt(iteration)), queries - 2 * BISECTION_STEPS)
        if samples < LEAST_SAMPLES or not len(index):
            return result
        points = result.images[index]
        direction = batch.threat_model.steepest_direction(_estimate_gradient(batch, points, index, samples))
        step = (result.norms[index] / math.sqrt(iteration)).to(points.dtype)
        outside = _step_outside(batch, points, index, direction, step)
        result = _approach(batch, result, index, outside)
        queries -= samples + 2 * BISECTION_STEPS


def _estimate_gradient(batch: _Batch, points: Tensor, index: Tensor, samples: int) -> Tensor:
    """Monte Carlo estimate of the direction into the misclassified region, at points on the boundary (n, C, H, W)."""
    values = batch.threat_model.free_values(points)
    scale = per_image((points - batch.images[index]).flatten(1).norm(dim=1) / math.sqrt(values), points)
    weighted, total = torch.zeros_like(points), torch.zeros_like(points)
    votes = torch.zeros(len(index), device=points.device)
    for _ in range(samples):
        direction = batch.threat_model.free_part(batch.draw(torch.randn, points))
        direction = direction / per_image(direction.flatten(1).norm(dim=1), direction)
        vote = batch.misclassified((points + scale * direction).clamp(0, 1), index).to(points.dtype) * 2 - 1
        weighted, total, votes = weighted + per_image(vote, direction) * direction, total + direction, votes + vote
    mean = per_image(votes / samples, points).to(points.dtype)  # subtracted to reduce the variance, unless all votes agree
    return torch.where(mean.abs() < 1, weighted - mean * total, weighted)


def _step_outside(batch: _Batch, points: Tensor, index: Tensor, direction: Tensor, step: Tensor) -> Tensor:
    """Points moved along a direction, with steps (n,) halved until the end is misclassified, `BISECTION_STEPS` times at most."""
    outside, arrived = points, torch.zeros(len(index), dtype=torch.bool, device=points.device)
    for _ in range(BISECTION_STEPS):
        moved = (points + per_image(step, points) * direction).clamp(0, 1)
        success = batch.misclassified(moved, index) & ~arrived
        outside, arrived, step = torch.where(per_image(success, points), moved, outside), arrived | success, step / 2
        if bool(arrived.all()):
            break
    return outside
