"""Norm balls: all images within epsilon of a clean image in L-inf, L2, L1 or L0, with pixels in [0, 1]."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor

from notbugs.errors import InputError
from notbugs.search.mask import Mask
from notbugs.search.sparse_norms import l0_step, l1_step, project_to_l1, rank

NORMS = ("linf", "l2", "l1", "l0")


@dataclass(frozen=True)
class NormBall:
    """Threat model: perturbations with norm at most epsilon, pixels in [0, 1].

    With bfloat16 images everything holds up to rounding.

    Parameters
    ----------
    norm : {"linf", "l2", "l1", "l0"}
        L0 counts perturbed pixels, in any of their channels.
    epsilon : float or Tensor, (N,)
        In pixel units (white is 1); in L0 a whole number of pixels. `inf` leaves only the pixel range. A tensor has one epsilon
        per image of one batch and is not checked.
    mask : Mask, optional
        Which pixels may change. Default: all.
    channels : tuple of float, in [0, 1]
        In L-inf the share of epsilon by which each channel may change; the largest is 1. Sizes of perturbations are then those of
        that channel. Empty: all channels by epsilon.

    Raises
    ------
    InputError
        If the norm is unknown, or epsilon is negative, NaN, over 1 in L-inf or fractional in L0; if channels have other limits in
        another norm than L-inf.

    Examples
    --------
    >>> import torch
    >>> threat_model, images = NormBall("linf", 8 / 255), torch.full((1, 1, 2, 2), 0.5)
    >>> threat_model.distance(threat_model.project(images + 0.3, images) - images)
    tensor([0.0314])
    """

    norm: str
    epsilon: float | Tensor
    mask: Mask | None = field(default=None, repr=False)  # str() names both
    channels: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise InputError("norm", f"must be one of {', '.join(NORMS)}", repr(self.norm))
        if self.channels and self.norm != "linf":
            remedy = "a mask with channels says which of them may change: --mask"
            raise InputError("channels", "limits of single channels are defined in linf alone", self.norm, remedy)
        if self.channels and not (max(self.channels) == 1 and min(self.channels) >= 0):
            raise InputError("channels", "must be shares of epsilon, in [0, 1], the largest 1", self.channels)
        if isinstance(self.epsilon, Tensor):
            return
        if not self.epsilon >= 0:
            raise InputError("epsilon", "must be a number, 0 or more", self.epsilon)
        if self.norm == "linf" and 1 < self.epsilon < math.inf:
            remedy = f"for {self.epsilon:g}/255 pass {self.epsilon:g}/255"
            raise InputError("epsilon", "must be at most 1 in L-inf, as pixels are in [0, 1]", self.epsilon, remedy)
        if self.norm == "l0" and self.epsilon != math.inf and self.epsilon % 1:
            raise InputError("epsilon", "must be a whole number of pixels in L0", self.epsilon)

    def fit(self, shape: torch.Size) -> "NormBall":
        """Return self if epsilon is possible for images of this shape.

        Parameters
        ----------
        shape : torch.Size
            (N, C, H, W).

        Raises
        ------
        InputError
            If epsilon is finite and larger than the distance between a black and a white image, or the mask or the limits of the
            channels are for images of another shape.
        """
        if self.mask is not None:
            self.mask.fit(shape)
        if self.channels and len(self.channels) != shape[1]:
            rule = f"must have one limit, or one for each of the {shape[1]} channels of the images"
            raise InputError("--epsilon", rule, f"{len(self.channels)} limits")
        largest = self._largest(shape)
        if not isinstance(self.epsilon, Tensor) and largest < self.epsilon < math.inf:
            rule = f"two images of this size differ by at most {largest:.4g} in {self.norm.upper()}"
            remedy = f"for {self.epsilon:g}/255 pass {self.epsilon:g}/255" if self.norm == "l2" else ""
            raise InputError("epsilon", rule, self.epsilon, remedy)
        return self

    def enlarged(self, factor: float, shape: torch.Size) -> "NormBall":
        """The same threat model with `factor` times the epsilon; infinite where no images (N, C, H, W) differ by as much."""
        epsilon = factor * self.epsilon
        too_large = not isinstance(epsilon, Tensor) and epsilon > self._largest(shape)
        return self.within(math.inf if too_large else epsilon)

    def within(self, epsilon: float | Tensor) -> "NormBall":
        """The same threat model with another epsilon."""
        return replace(self, epsilon=epsilon)

    @property
    def restriction(self) -> str:
        """Beyond the norm, what all perturbations keep to: limits of channels and the mask; "" if nothing."""
        limits = [f"channels {', '.join(f'{share:g}' for share in self.channels)}"] if self.channels else []
        return "; ".join(limits + ([str(self.mask)] if self.mask else []))

    def distance(self, perturbation: Tensor) -> Tensor:
        """Norm of each perturbation: (N, C, H, W) -> (N,); infinite where values changed that must not."""
        share = self._share(perturbation)
        if share is not None:
            forbidden = ((share == 0) & (perturbation != 0)).flatten(1).any(1)
            perturbation = torch.where(share > 0, perturbation / share.clamp_min(1e-12), 0.0)
        flat = perturbation.flatten(1)
        if self.norm == "l0":
            size = (perturbation != 0).any(1).flatten(1).sum(1).to(perturbation.dtype)
        else:
            size = flat.abs().amax(1) if self.norm == "linf" else flat.norm(p=float(self.norm[1]), dim=1)
        return size if share is None else torch.where(forbidden, torch.inf, size)

    def project(self, images: Tensor, center: Tensor) -> Tensor:
        """Project onto the ball; images inside stay as they are.

        L-inf, L1 and L0: the nearest image of the ball. L2: clipped to [0, 1], then scaled towards the center, so that no part of
        epsilon is spent on what the pixel range cuts off.

        Parameters
        ----------
        images : Tensor, (N, C, H, W)
            NaN counts as the center's value.
        center : Tensor, (N, C, H, W), in [0, 1]
            The clean images.
        """
        images = self.keep_rest(torch.where(images.isnan(), center, images), center)
        clipped, epsilon = images.clamp(0, 1), self._broadcast(images)
        if not isinstance(epsilon, Tensor) and math.isinf(epsilon):
            return clipped
        if self.norm == "linf":
            share = self._share(images)
            most = epsilon if share is None else epsilon * share
            return torch.minimum(torch.maximum(clipped, center - most), center + most).clamp(0, 1)
        perturbation = clipped - center
        if self.norm == "l2":
            length = per_image(perturbation.flatten(1).norm(dim=1), perturbation)
            return torch.where(length <= epsilon, clipped, center + perturbation * (epsilon / length.clamp_min(1e-30)))
        if self.norm == "l0":
            return torch.where(rank(perturbation.square().sum(1, keepdim=True)) < epsilon, clipped, center)
        room = torch.where(images > center, 1 - center, center)
        shrunk = project_to_l1(images.clamp(-1e3, 1e3) - center, room, epsilon)
        length = per_image(perturbation.flatten(1).abs().sum(1), perturbation)
        return torch.where(length <= epsilon, clipped, (center + shrunk).clamp(0, 1))

    def steepest_direction(self, gradient: Tensor) -> Tensor:
        """Direction of steepest ascent, of length 1 in this norm: (N, C, H, W) -> same.

        In L1 one value, in L0 one pixel. Zero and non-finite gradients give 0. The gradient is divided by its largest entry
        before a norm is taken: confident models have gradients of 1e-30, whose squares are 0 in float32.
        """
        gradient, share = self.free_part(gradient.nan_to_num(0.0, 0.0, 0.0)), self._share(gradient)
        if self.norm == "linf":
            return gradient.sign() if share is None else gradient.sign() * share
        scaled = gradient / per_image(gradient.flatten(1).abs().amax(1), gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
        if self.norm == "l2":
            return scaled / per_image(scaled.flatten(1).norm(dim=1), scaled).clamp_min(torch.finfo(gradient.dtype).tiny)
        strength = scaled.abs() if self.norm == "l1" else scaled.abs().sum(1, keepdim=True)
        return torch.where(rank(strength) < 1, scaled.sign(), 0.0)

    def steepest_step(self, images: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        """Step of this length with the largest inner product with the gradient.

        L-inf and L2: length times the steepest direction. L1 and L0: no value can move beyond the pixel range, so the length is
        spent on the values or pixels with the largest gain, each moved as far as it can.

        Parameters
        ----------
        images, gradient : Tensor, (N, C, H, W)
        length : float or Tensor, (N,)
            In this norm.
        """
        longest = 2.0 * math.prod(images.shape[1:])  # longer than any step, but finite: inf times 0 is NaN
        length = per_image(length.to(images).clamp_max(longest), images) if isinstance(length, Tensor) else min(length, longest)
        if self.norm in ("linf", "l2"):
            return length * self.steepest_direction(gradient)
        gradient = self.free_part(gradient.nan_to_num(0.0, 0.0, 0.0))
        room = torch.where(gradient > 0, 1 - images, images) * (gradient != 0)
        return l0_step(gradient, room, length) if self.norm == "l0" else l1_step(gradient, room, length)

    def sample(self, center: Tensor, generator: Generator) -> Tensor:
        """One random image per center (N, C, H, W): uniform in the ball, then clipped to [0, 1].

        With infinite epsilon: uniform in [0, 1]. L0: uniform values in epsilon random pixels. What must not change is as in the
        center.

        References
        ----------
        L1: Barthe et al. 2005, signed exponential variables over their sum and one more.
        """
        shape, epsilon, share = center.shape, self._broadcast(center), self._share(center)
        if not isinstance(epsilon, Tensor) and math.isinf(epsilon):
            images = _draw(torch.rand, shape, center, generator)
        elif self.norm == "linf":
            uniform = 2 * _draw(torch.rand, shape, center, generator) - 1
            images = center + epsilon * (uniform if share is None else uniform * share)
        elif self.norm == "l0":
            order = _draw(torch.rand, (len(center), 1, *shape[2:]), center, generator)
            chosen = rank(order if share is None else order * (share > 0).any(0)) < epsilon
            images = torch.where(chosen, _draw(torch.rand, shape, center, generator), center)
        elif self.norm == "l1":
            sizes = self.free_part(-(1 - _draw(torch.rand, shape, center, generator)).log())
            total = sizes.flatten(1).sum(1) - (1 - _draw(torch.rand, shape[:1], center, generator)).log()
            signs = 2 * (_draw(torch.rand, shape, center, generator) < 0.5) - 1
            images = center + epsilon * signs * sizes / per_image(total, center)
        else:
            direction = self.steepest_direction(_draw(torch.randn, shape, center, generator))
            length = _draw(torch.rand, shape[:1], center, generator) ** (1 / self.free_values(center))
            images = center + epsilon * per_image(length, center) * direction
        return self.keep_rest(images.clamp(0, 1), center).to(center.dtype)

    def round_to_8bit(self, images: Tensor, center: Tensor) -> Tensor:
        """Round to multiples of 1/255 without leaving the ball.

        L-inf and L0: to the nearest such image of the ball. L2 and L1: to the nearest of all; where that one is outside, the
        perturbation is first scaled down by a factor found in 20 bisections.

        Parameters
        ----------
        images, center : Tensor, (N, C, H, W), in [0, 1]
            The center must hold multiples of 1/255.
        """
        epsilon = torch.as_tensor(self.epsilon, dtype=torch.float64, device=images.device)
        levels = (epsilon * 255 * (1 + 1e-9)).expand(len(images))
        if self.norm == "linf":
            share = self._share(images.double())
            most = per_image(levels, images) if share is None else per_image(levels, images) * share
            most = most.floor().clamp_max(255).to(images.dtype)
            steps = ((images - center) * 255).round()
            return ((center * 255).round() + torch.minimum(torch.maximum(steps, -most), most)) / 255
        high = torch.ones(len(images), dtype=images.dtype, device=images.device)
        nearest = _scale_and_round(images, center, high)
        if self.norm == "l0" or bool(self._within_levels(nearest, center, levels).all()):
            return nearest
        low = torch.zeros_like(high)
        for _ in range(20):
            middle = (low + high) / 2
            inside = self._within_levels(_scale_and_round(images, center, middle), center, levels)
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        inside = self._within_levels(nearest, center, levels)
        return torch.where(per_image(inside, images), nearest, _scale_and_round(images, center, low))

    def contains(self, images: Tensor, center: Tensor) -> Tensor:
        """Which images of 8 bits lie within epsilon and change nothing else, exactly: (N,).

        Parameters
        ----------
        images, center : Tensor, (N, C, H, W), multiples of 1/255
        """
        epsilon = torch.as_tensor(self.epsilon, dtype=torch.float64, device=images.device)
        if self.norm == "l0":
            return self.distance(((images - center) * 255).round().double()) <= epsilon
        return self._within_levels(images, center, epsilon * 255 * (1 + 1e-9))

    def keep_rest(self, images: Tensor, center: Tensor) -> Tensor:
        """Images (N, C, H, W) in which what must not change is as in the center."""
        share = self._share(images)
        return images if share is None else torch.where(share > 0, images, center)

    def free_part(self, values: Tensor) -> Tensor:
        """Values (N, C, H, W), 0 where an image must not change."""
        share = self._share(values)
        return values if share is None else torch.where(share > 0, values, 0.0)

    def free_values(self, images: Tensor) -> int:
        """How many values of an image (N, C, H, W) may change."""
        share = self._share(images)
        return math.prod(images.shape[1:]) if share is None else int((share > 0).expand(images.shape[1:]).sum())

    def _share(self, like: Tensor) -> Tensor | None:
        """The share of epsilon by which each value may change, (C or 1, H or 1, W or 1); None: all by epsilon."""
        if self.mask is None and not self.channels:
            return None
        share = torch.tensor(self.channels or (1.0,), dtype=like.dtype, device=like.device)[:, None, None]
        return share if self.mask is None else share * self.mask.free.to(like)

    def _within_levels(self, images: Tensor, center: Tensor, levels: Tensor) -> Tensor:
        """Whether 8-bit images are within epsilon, in units of 1/255: whole numbers, so the comparison is exact in float64."""
        return self.distance(((images - center) * 255).round().double()) <= levels

    def _largest(self, shape: torch.Size) -> float:
        """The distance between a black and a white image."""
        values = math.prod(shape[1:])
        return {"linf": 1.0, "l2": math.sqrt(values), "l1": values, "l0": math.prod(shape[2:])}[self.norm]

    def _broadcast(self, images: Tensor) -> float | Tensor:
        """Epsilon, in a shape that broadcasts with images if there is one per image."""
        return per_image(self.epsilon.to(images), images) if isinstance(self.epsilon, Tensor) else self.epsilon

    def __str__(self) -> str:
        """Norm and epsilon as in the papers, e.g. "l2 0.5" or "linf 8/255"; "linf 8/255,0,0": each channel by its own."""
        mask = f", {self.mask}" if self.mask else ""
        if isinstance(self.epsilon, Tensor):
            return f"{self.norm}, one epsilon per image ({len(self.epsilon)}){mask}"
        limits = [_in_words(self.epsilon * share) for share in self.channels or (1.0,)]
        return f"{self.norm} {','.join(limits)}{mask}"


def _in_words(epsilon: float) -> str:
    levels, decimal = epsilon * 255, f"{epsilon:g}"
    fraction = math.isfinite(levels) and len(decimal) > 5 and abs(levels - round(levels)) < 1e-6
    return f"{round(levels)}/255" if fraction else decimal


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """One value per image (N,), in a shape that broadcasts with images (N, C, H, W)."""
    return values.reshape(-1, *[1] * (images.dim() - 1))


def _draw(draw: Callable[..., Tensor], shape: Sequence[int], center: Tensor, generator: Generator) -> Tensor:
    """Random numbers on the center's device, in float32 or better: in bfloat16 a uniform one can be 1, and log(1 - 1) is -inf."""
    dtype = torch.promote_types(center.dtype, torch.float32)
    return draw(shape, generator=generator, device=generator.device).to(center.device, dtype)


def _scale_and_round(images: Tensor, center: Tensor, factor: Tensor) -> Tensor:
    """The perturbation times a factor per image, rounded to multiples of 1/255."""
    return (center + (images - center) * per_image(factor, images)).mul(255).round() / 255
