"""Attacks that change few pixels (L0), with or without gradients."""

from dataclasses import dataclass
from functools import partial
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
    exchanges: int = 10,
    random_start: bool = False,
    mask: Mask | None = None,
    generator: Generator | None = None,
) -> AttackResult:
    """Sets pixels greedily, each to a corner of the color cube (every channel 0 or 1), then exchanges them one at a time.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K).
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, (N,), int64
    pixels : int
        At most so many pixels change, in whichever channels.
    candidates : int or None
        Positions with a corner that are tried for each pixel; costs candidates × pixels queries per image and round. None: all,
        which is exact for one pixel.
    gradient : bool
        Ranks the candidates by the gradients of margin and cross-entropy, in turn. False: they are random, and after the first
        third every other one is near the best so far.
    exchanges : int
        At most so many rounds in which each pixel in turn is restored and the best candidate is set instead, if that raises the
        margin. Unless candidates are random, they end after a round in which nothing was exchanged. None with one pixel.
    random_start : bool
        Begins with as many random pixels at random corners instead of none, and exchanges those.
    mask : Mask, optional
        Which pixels may change. Default: all.
    generator : torch.Generator, optional
        Of the random candidates and of the random start, by default seeded with 0.

    Returns
    -------
    AttackResult
        Margins of 0 or more are misclassified. An image is left alone once it is misclassified.

    References
    ----------
    After Su et al. 2019, with greedy search instead of differential evolution. Pixels are exchanged as in Sparse-RS (Croce et al.
    2022, "Sparse-RS: A Versatile Framework for Query-Efficient Sparse Black-Box Adversarial Attacks"), there at random.
    """
    for name, number, least in (("pixels", pixels, 0), ("candidates", candidates, 1), ("exchanges", exchanges, 0)):
        if number is not None and number < least:
            raise InputError(name, f"must be {least} or more", number)
    generator = generator or torch.Generator().manual_seed(0)
    pixel_search = _PixelSearch.of(model, images, mask, pixels, candidates, exchanges, generator, gradient=gradient)
    clean = AttackResult(images.clone(), -objectives.margin(clean_logits(model, images, labels), labels))
    index = (clean.margins < 0).nonzero().squeeze(1)
    if not len(index):
        return clean
    images, labels = images[index], labels[index]
    start = pixel_search.random_start(images, labels) if random_start else AttackResult(images, clean.margins[index])
    return _updated(clean, index, pixel_search.run(images, labels, start))


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


@dataclass(frozen=True)
class _PixelSearch:
    """`few_pixels` with its settings. pixels: that may change; count: of candidates for each; random: drawn, not ranked."""

    model: Model
    space: _CandidateSpace
    pixels: int
    count: int
    exchanges: int
    generator: Generator
    random: bool

    @classmethod
    def of(
        cls,
        model: Model,
        images: Tensor,
        mask: Mask | None,
        pixels: int,
        candidates: int | None,
        exchanges: int,
        generator: Generator,
        *,
        gradient: bool,
    ) -> "_PixelSearch":
        space = _CandidateSpace.of(images, mask)
        count = min(candidates or space.size, space.size)
        pixels = min(pixels, len(space.positions))
        return cls(model, space, pixels, count, exchanges if pixels > 1 else 0, generator, not gradient and count < space.size)

    def run(self, images: Tensor, labels: Tensor, start: AttackResult) -> AttackResult:
        """From perturbed images: greedy, then exchanges."""
        found = self.sweep(images, labels, start)
        active = found.margins < 0
        for _ in range(self.exchanges):
            index = active.nonzero().squeeze(1)
            if not len(index):
                break
            before = found.margins[index]
            found = _updated(found, index, self.sweep(images[index], labels[index], AttackResult(found.images[index], before)))
            after = found.margins[index]
            active[index] = (after < 0) & ((after > before) | self.random)
        return found

    def sweep(self, images: Tensor, labels: Tensor, start: AttackResult) -> AttackResult:
        """Sets the pixels that are still to be set, then restores and sets each of the others."""
        changed = (start.images != images).any(1).flatten(1)
        positions = changed.int().argsort(dim=1, descending=True, stable=True)[:, : self.pixels].flip(1)
        restore = changed.gather(1, positions)
        found = start
        for slot in range(self.pixels):
            index = (found.margins < 0).nonzero().squeeze(1)
            if not len(index):
                break
            position = positions[index, slot][:, None, None].expand(-1, images.shape[1], 1)
            values = found.images[index].flatten(2)
            original = torch.where(restore[index, slot, None, None], images[index].flatten(2), values).gather(2, position)
            restored = values.scatter(2, position, original).reshape(images[index].shape)
            found = _updated(found, index, self.set_best(restored, labels[index], found.margins[index]))
        return found

    def set_best(self, images: Tensor, labels: Tensor, margins: Tensor) -> AttackResult:
        """Images with one more pixel set to the best candidate; unchanged, with `margins`, where none has a higher margin."""
        ranked = None if self.random else self._ranked(images, labels)
        result, margins, best = images.clone(), margins.clone(), torch.full_like(labels, -1)
        for number in range(self.count):
            index = (margins < 0).nonzero().squeeze(1)
            if not len(index):
                break
            draw = partial(self.space.draw, best[index], number, self.count, self.generator)
            candidates = draw() if ranked is None else ranked[index, number]
            perturbed = self.space.apply(images[index], candidates)
            found = self._margins(perturbed, labels[index])
            better = found > margins[index]
            changed = index[better]
            result[changed], margins[changed], best[changed] = perturbed[better], found[better], candidates[better]
        return AttackResult(result, margins)

    def random_start(self, images: Tensor, labels: Tensor) -> AttackResult:
        """Images with all pixels that may change set at random, some of them perhaps twice."""
        perturbed = images
        for _ in range(self.pixels):
            drawn = self.space.draw(torch.full_like(labels, -1), 0, 1, self.generator)
            perturbed = self.space.apply(perturbed, drawn)
        return AttackResult(perturbed, self._margins(perturbed, labels))

    def _margins(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            return -objectives.margin(objectives.logits(self.model, images), labels)

    def _ranked(self, images: Tensor, labels: Tensor) -> Tensor:
        """The candidates with the highest linearized gain in margin and in cross-entropy, in turn: (n, count)."""
        space, count = self.space, self.count
        if count == space.size:
            return space.numbers.expand(len(images), -1)
        margin, cross_entropy = (objectives.untargeted(self.model, labels, loss) for loss in ("margin", "cross_entropy"))

        def both_losses(images: Tensor) -> Tensor:
            logits = objectives.logits(self.model, images)
            return torch.stack([margin.objective(logits), cross_entropy.objective(logits)], dim=1)

        ranked = []
        for gradient in search.gradients(both_losses, images)[1]:
            slope, values = gradient.float().nan_to_num(0.0, 0.0, 0.0).flatten(2) * space.free, images.float().flatten(2)
            gain = torch.einsum("kc,ncp->nkp", space.corners.float(), slope) - (slope * values).sum(1, keepdim=True)
            gain = gain.masked_fill(~space.free.any(0), -torch.inf)
            ranked.append(gain.flatten(1).topk(count).indices)
        return torch.stack(ranked, dim=2).flatten(1)[:, :count]


def _updated(found: AttackResult, index: Tensor, again: AttackResult) -> AttackResult:
    """`found` with what is better in `again`, of the images `index`."""
    better = again.margins > found.margins[index]
    images, margins = found.images.clone(), found.margins.clone()
    images[index[better]], margins[index[better]] = again.images[better], again.margins[better]
    return AttackResult(images, margins)
