"""L1 and L0: the parts of projections and steps that need the values of an image in sorted order."""

import torch
from torch import Tensor


def rank(values: Tensor) -> Tensor:
    """Rank of each entry within its image, from 0 for the largest; of equal entries the first comes first. Same shape."""
    order = values.flatten(1).argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter(1, order, ranks).reshape(values.shape)


def project_to_l1(perturbation: Tensor, bound: Tensor, epsilon: float | Tensor) -> Tensor:
    """Nearest perturbation with absolute values in [0, bound] and L1 norm `epsilon`.

    All absolute values are reduced by one threshold, then clipped. As a function of the threshold the norm is piecewise linear
    and decreasing. Its breakpoints are sorted, so the threshold is exact.
    """
    size, most = perturbation.flatten(1).abs().double(), bound.flatten(1).double()
    breakpoints = torch.cat([(size - most).clamp_min(0), size], dim=1)  # where each value starts to decrease, and where it is 0
    breakpoints, order = breakpoints.sort(1)
    # how many values decrease after each breakpoint
    decreasing = torch.where(order < size.shape[1], 1.0, -1.0).double().cumsum(1)
    decrease = torch.nn.functional.pad(breakpoints.diff(dim=1) * decreasing[:, :-1], (1, 0))
    norms = torch.minimum(size, most).sum(1, keepdim=True) - decrease.cumsum(1)
    wanted = epsilon.flatten(1).double() if isinstance(epsilon, Tensor) else torch.full_like(norms[:, :1], epsilon)
    after = (norms > wanted).sum(1, keepdim=True).clamp(1, norms.shape[1] - 1)  # the first breakpoint whose norm is small enough
    norm, slope = norms.gather(1, after), decreasing.gather(1, after - 1).clamp_min(1)
    threshold = breakpoints.gather(1, after) - (wanted - norm) / slope
    shrunk = torch.minimum((size - threshold).clamp_min(0), most)
    correction = (wanted / shrunk.sum(1, keepdim=True).clamp_min(1e-300)).clamp_max(1)  # rounding, for values far from [0, 1]
    return perturbation.sign() * (shrunk * correction).reshape(perturbation.shape).to(perturbation.dtype)


def l0_step(gradient: Tensor, room: Tensor, pixels: float | Tensor) -> Tensor:
    """Moves the `pixels` pixels with the largest gain as far as the pixel range allows (`room`)."""
    gain = (gradient.abs() * room).sum(1, keepdim=True)
    return torch.where((rank(gain) < pixels) & (gain > 0), gradient.sign() * room, 0.0)


def l1_step(gradient: Tensor, room: Tensor, length: float | Tensor) -> Tensor:
    """Spends the length on the values with the largest gradients, each moved as far as the pixel range allows (`room`)."""
    order = (gradient.abs() * (room > 0)).flatten(1).argsort(dim=1, descending=True, stable=True)
    available = room.flatten(1).gather(1, order).to(torch.promote_types(room.dtype, torch.float32))
    left = (length.flatten(1) if isinstance(length, Tensor) else length) - (available.cumsum(1) - available)
    moved = torch.minimum(left.clamp_min(0), available).to(available.dtype)
    return gradient.sign() * torch.zeros_like(available).scatter(1, order, moved).reshape(room.shape).to(room.dtype)
