"""Features without training: the eigenvectors of a kernel on the images, useful and robust to the degree that they are.

The kernel is the neural tangent kernel of an infinitely wide network: what gradient descent learns there is its eigenvectors, the
one with the largest eigenvalue first. Source: Tsilivis & Kempe 2022; the recursion, Jacot et al. 2018 and Lee et al. 2019.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from notbugs.data import Dataset
from notbugs.errors import InputError

MAX_IMAGES = 2000  # images whose kernel is taken apart


def tangent_kernel(one: Tensor, other: Tensor, depth: int) -> Tensor:
    """The tangent kernel (n, m) of a wide network of `depth` hidden layers of ReLU, without biases: one (n, d), other (m, d).

    depth 0: a linear network, one · other / d. Weights start with variance 2 / inputs (1 / d for the first layer), so that
    nothing grows or dies with depth.
    """
    product = one @ other.T / one.shape[1]
    ones, others = ((each.square().mean(1) + 1e-24).sqrt() for each in (one, other))  # a length of 0 has no slope
    lengths = ones[:, None] * others[None, :]
    covariance, kernel = product, product
    for _ in range(depth):
        cosine = (covariance / lengths).clamp(-1, 1)
        angle = _angle(cosine)
        active = (math.pi - angle) / math.pi
        covariance = lengths * (cosine * active + angle.sin() / math.pi)
        kernel = kernel * active + covariance
    return kernel


def _angle(cosine: Tensor) -> Tensor:
    """The arc cosine; within rounding of an end that end's own, 0 or pi, and there, where it has no slope, a gradient of 0."""
    end = 1 - 64 * torch.finfo(cosine.dtype).eps
    return torch.where(cosine.abs() < end, torch.arccos(cosine.clamp(-end, end)), math.pi * (cosine < 0).to(cosine.dtype))


class EigenFeatures(nn.Module):
    """What the kernel's eigenvectors say of images: `features` (n, C, H, W) -> (n, F), F at most the images it was made of.

    values: (m,) eigenvalues, falling, of the kernel on the m training images, whose mean image is taken off everywhere.
    A feature's value at x is k(x, training images) · eigenvector / eigenvalue: on those images it is the eigenvector itself.
    Called as a model it gives logits (n, K): regression on its features alone, ridge x their sum added to each eigenvalue.
    """

    def __init__(self, part: Dataset, *, depth: int = 3, ridge: float = 1e-6, keep: int | None = None) -> None:
        super().__init__()
        if not 2 <= len(part) <= MAX_IMAGES:
            raise InputError("part", f"must hold 2 to {MAX_IMAGES} images, whose kernel is taken apart", len(part), "take fewer")
        if depth < 0:
            raise InputError("depth", "must be 0 or more", depth)
        if keep is not None and not 1 <= keep <= len(part):
            raise InputError("keep", f"must be between 1 and the {len(part)} images", keep)
        if not 0 <= ridge < math.inf:
            raise InputError("ridge", "must be 0 or more, and finite", ridge)
        images = part.pixels(slice(None)).double()
        self.depth = depth
        self.nothing: Tensor
        self.known: Tensor
        self.vectors: Tensor
        self.values: Tensor
        self.answers: Tensor
        self.register_buffer("nothing", images.mean(0, keepdim=True))
        self.register_buffer("known", (images - self.nothing).flatten(1))
        values, vectors = torch.linalg.eigh(tangent_kernel(self.known, self.known, depth))
        values, vectors = values.flip(0)[:keep], vectors.flip(1)[:, :keep]
        some = values > max(1e-9 * float(values[0]), 1e-20)  # below that an eigenvector is rounding
        self.register_buffer("values", values[some])
        self.register_buffer("vectors", vectors[:, some])
        wanted = torch.nn.functional.one_hot(part.labels, len(part.classes)).double() - 1 / len(part.classes)
        learnt = self.values / (self.values + ridge * self.values.sum())
        self.register_buffer("answers", learnt[:, None] * (self.vectors.T @ wanted))

    def features(self, images: Tensor) -> Tensor:
        """(n, F), double; the eigenvectors' continuation to any image."""
        given = (images.double() - self.nothing).flatten(1)
        return tangent_kernel(given, self.known, self.depth) @ self.vectors / self.values

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, K), float32."""
        return (self.features(images) @ self.answers).float()


def chosen_eigenvectors(count: int, most: int = 100) -> list[int]:
    """Which of `count` eigenvectors to look at, `most` at most: the first half of them all, then ever fewer."""
    if count <= most:
        return list(range(count))
    first = most // 2
    rest = np.geomspace(first + 1, count, most - first).round().astype(int) - 1
    return sorted({*range(first), *rest.tolist()})
