"""Attacks that change few pixels (L0), with or without gradients."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from notbugs import search
from notbugs.attacks.validation import Model, clean_logits, validated
from notbugs.errors import InputError
from notbugs.search import AttackResult, Mask, objectives


@validated
def one_pixel(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    candidates: int | None = None,
    gradient: bool = True,
    generator: Generator | None = None,
) -> AttackResult:
    """`few_pixels` with one pixel, by default with every position and corner of the color cube.

    References
    ----------
    Su et al. 2019, "One Pixel Attack for Fooling Deep Neural Networks", who search by differential evolution.
    """
    return few_pixels(model, images, labels, pixels=1, candidates=candidates, gradient=gradient, generator=generator)


@validated
def few_pixels(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    pixels: int = 1,
    candidates: int | None = 100,
    gradient: bool = True,
    mask: Mask | None = None,
    generator: Generator | None = None,
) -> AttackResult:
    """Sets pixels greedily, one after the other, each to a corner of the color cube (every channel 0 or 1).

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K).
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, (N,), int64
    pixels : int
        At most so many pixels change, in whichever channels.
    candidates : int or None
        Positions with a corner that are tried for each pixel; costs candidates × pixels queries per image. None: all, which is
        exact for one pixel.
    gradient : bool
        Ranks the candidates by the gradients of margin and cross-entropy, in turn. False: they are random, and after the first
        third every other one is near the best so far.
    mask : Mask, optional
        Which pixels may change. Default: all.
    generator : torch.Generator, optional
        Of the random candidates, by default seeded with 0.

    Returns
    -------
    AttackResult
        Margins of 0 or more are misclassified. An image is left alone once it is misclassified.

    References
    ----------
    After Su et al. 2019, with greedy search instead of differential evolution.
    """
    for name, number, least in (("pixels", pixels, 0), ("candidates", candidates, 1)):
        if number is not None and number < least:
            raise InputError(name, f"must be {least} or more", number)
    space = _CandidateSpace.of(images, mask)
    count = min(candidates or space.size, space.size)
    generator = generator or torch.Generator().manual_seed(0)
    best, margins = images.clone(), -objectives.margin(clean_logits(model, images, labels), labels)
    for _ in range(min(pixels, space.height * space.width)):
        index = (margins < 0).nonzero().squeeze(1)
        if not len(index):
            break
        ranked = _ranked_candidates(model, best[index], labels[index], space, count) if gradient or count == space.size else None
        found = _set_best_pixel(model, best[index], labels[index], margins[index], space, count, ranked, generator)
        best[index], margins[index] = found.images, found.margins
    return AttackResult(best, margins)


class _CandidateSpace(NamedTuple):
    """All candidates for one pixel. A candidate is a number: corner × (height × width) + position.

    corners: (M, C); free: which values may change, (C or 1, height × width); positions: those that may, ascending.
    """

    corners: Tensor
    height: int
    width: int
    free: Tensor
    positions: Tensor

    @classmethod
    def of(cls, images: Tensor, mask: Mask | None) -> "_CandidateSpace":
        channels, height, width = images.shape[1:]
        corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * channels).reshape(-1, channels).to(images)
        free = torch.ones((1, height * width), dtype=torch.bool) if mask is None else mask.free.flatten(1)
        free = free.to(images.device)
        return cls(corners, height, width, free, free.any(0).nonzero().squeeze(1))

    @property
    def size(self) -> int:
        return len(self.corners) * len(self.positions)

    @property
    def numbers(self) -> Tensor:
        """All candidates, (size,)."""
        corners = torch.arange(len(self.corners), device=self.positions.device)[:, None]
        return (corners * self.height * self.width + self.positions).flatten()

    def apply(self, images: Tensor, candidates: Tensor) -> Tensor:
        """Images (n, C, H, W) with one pixel set to a candidate (n,) each."""
        positions = (candidates % (self.height * self.width))[:, None, None].expand(-1, images.shape[1], 1)
        corners = self.corners[candidates // (self.height * self.width)][:, :, None]
        changed = images.flatten(2).scatter(2, positions, corners)
        return torch.where(self.free, changed, images.flatten(2)).reshape(images.shape)

    def draw(self, best: Tensor, number: int, count: int, generator: Generator) -> Tensor:
        """The number-th of `count` random candidates for each image, given the best one so far (n,), -1: none."""

        def integers(most: int) -> Tensor:
            return torch.randint(most, (len(best),), generator=generator, device=generator.device)

        device, best = best.device, best.to(generator.device)
        positions, free = self.height * self.width, self.positions.to(generator.device)
        drawn = integers(self.size)
        anywhere = drawn // len(free) * positions + free[drawn % len(free)]
        row = (best % positions // self.width + integers(5) - 2).clamp(0, self.height - 1)
        column = (best % self.width + integers(5) - 2).clamp(0, self.width - 1)
        corner = torch.where(integers(2) == 0, best // positions, integers(len(self.corners)))
        near = row * self.width + column
        use_near = (best >= 0) & (3 * number >= count) & (integers(2) == 0) & self.free.any(0).to(best.device)[near]
        return torch.where(use_near, corner * positions + near, anywhere).to(device)


def _ranked_candidates(model: Model, images: Tensor, labels: Tensor, space: _CandidateSpace, count: int) -> Tensor:
    """The `count` candidates with the highest linearized gain in margin and in cross-entropy, in turn: (n, count)."""
    if count == space.size:
        return space.numbers.expand(len(images), -1)
    margin, cross_entropy = (objectives.untargeted(model, labels, loss) for loss in ("margin", "cross_entropy"))

    def both_losses(images: Tensor) -> Tensor:
        logits = objectives.logits(model, images)
        return torch.stack([margin.objective(logits), cross_entropy.objective(logits)], dim=1)

    ranked = []
    for gradient in search.gradients(both_losses, images)[1]:
        slope, values = gradient.float().nan_to_num(0.0, 0.0, 0.0).flatten(2) * space.free, images.float().flatten(2)
        gain = torch.einsum("kc,ncp->nkp", space.corners.float(), slope) - (slope * values).sum(1, keepdim=True)
        gain = gain.masked_fill(~space.free.any(0), -torch.inf)
        ranked.append(gain.flatten(1).topk(count).indices)
    return torch.stack(ranked, dim=2).flatten(1)[:, :count]


def _set_best_pixel(
    model: Model,
    images: Tensor,
    labels: Tensor,
    margins: Tensor,
    space: _CandidateSpace,
    count: int,
    ranked: Tensor | None,
    generator: Generator,
) -> AttackResult:
    """Images with one more pixel set, to the best of `count` candidates; unchanged where none raises the margin.

    ranked: (n, count), or None for random candidates. An image gets no more candidates once it is misclassified.
    """
    result, margins, best = images.clone(), margins.clone(), torch.full_like(labels, -1)
    for number in range(count):
        index = (margins < 0).nonzero().squeeze(1)
        if not len(index):
            break
        candidates = ranked[index, number] if ranked is not None else space.draw(best[index], number, count, generator)
        perturbed = space.apply(images[index], candidates)
        with torch.no_grad():
            found = -objectives.margin(objectives.logits(model, perturbed), labels[index])
        better = found > margins[index]
        changed = index[better]
        result[changed], margins[changed], best[changed] = perturbed[better], found[better], candidates[better]
    return AttackResult(result, margins)
