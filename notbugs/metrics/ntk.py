"""Features without training: eigenvectors of the neural tangent kernel (NTK) of an infinitely wide network.

Gradient descent learns along these eigenvectors, the one with the largest eigenvalue first.

References
----------
Tsilivis & Kempe 2022, "What Can the Neural Tangent Kernel Tell Us About Adversarial Robustness?". The recursion: Jacot et al.
2018, Lee et al. 2019.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from notbugs.data import Dataset
from notbugs.errors import InputError

MAX_IMAGES = 2000  # whose kernel is decomposed


def tangent_kernel(one: Tensor, other: Tensor, depth: int) -> Tensor:
    """NTK of an infinitely wide ReLU network without biases.

    Weights start with variance 2 / inputs (1 / d in the first layer), so that the scale does not depend on the depth.

    Parameters
    ----------
    one : Tensor, (n, d)
    other : Tensor, (m, d)
    depth : int
        Hidden layers. 0: a linear network, one · other / d.

    Returns
    -------
    Tensor, (n, m)

    Examples
    --------
    >>> tangent_kernel(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 1.0], [2.0, 2.0]]), depth=1)
    tensor([[2., 4.]])
    """
    product = one @ other.T / one.shape[1]
    norm, other_norm = ((each.square().mean(1) + 1e-24).sqrt() for each in (one, other))  # a norm of 0 has no gradient
    norms = norm[:, None] * other_norm[None, :]
    covariance, kernel = product, product
    for _ in range(depth):
        cosine = (covariance / norms).clamp(-1, 1)
        angle = _angle(cosine)
        active = (math.pi - angle) / math.pi
        covariance = norms * (cosine * active + angle.sin() / math.pi)
        kernel = kernel * active + covariance
    return kernel


def _angle(cosine: Tensor) -> Tensor:
    """The arc cosine; within rounding of -1 and 1, where it has no derivative, exactly pi and 0 with a gradient of 0."""
    end = 1 - 64 * torch.finfo(cosine.dtype).eps
    return torch.where(cosine.abs() < end, torch.arccos(cosine.clamp(-end, end)), math.pi * (cosine < 0).to(cosine.dtype))


class EigenFeatures(nn.Module):
    """Eigenvectors of the NTK as features, and kernel ridge regression on them as a classifier.

    The value of a feature at image x is k(x, training images) · eigenvector / eigenvalue, the eigenvector itself on the training
    images. The mean training image is subtracted from all images.

    Parameters
    ----------
    dataset : Dataset
        Training images, m of 2 to `MAX_IMAGES`.
    depth : int
        Hidden layers, 0 or more.
    ridge : float
        Of the regression: ridge * sum of the eigenvalues is added to each eigenvalue.
    keep : int, optional
        Use only the first eigenvectors, 1 to m.

    Attributes
    ----------
    values : Tensor, (F,)
        Eigenvalues, descending; F is at most m: those within rounding of 0 are left out.

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    >>> from notbugs import data
    >>> digits = data.load("digits")
    >>> model = EigenFeatures(digits.train.select(slice(0, 50)), keep=10)
    >>> images = digits.test.pixels(slice(0, 3))
    >>> model.features(images).shape, model(images).shape
    (torch.Size([3, 10]), torch.Size([3, 10]))
    """

    mean: Tensor
    centered: Tensor
    vectors: Tensor
    values: Tensor
    coefficients: Tensor

    def __init__(self, dataset: Dataset, *, depth: int = 3, ridge: float = 1e-6, keep: int | None = None) -> None:
        super().__init__()
        if not 2 <= len(dataset) <= MAX_IMAGES:
            rule = f"must hold 2 to {MAX_IMAGES} images, whose kernel is decomposed"
            raise InputError("dataset", rule, len(dataset), "take fewer" if len(dataset) > MAX_IMAGES else "take more")
        if depth < 0:
            raise InputError("depth", "must be 0 or more", depth)
        if keep is not None and not 1 <= keep <= len(dataset):
            raise InputError("keep", f"must be between 1 and the {len(dataset)} images", keep)
        if not 0 <= ridge < math.inf:
            raise InputError("ridge", "must be 0 or more, and finite", ridge)
        images = dataset.pixels(slice(None)).double()
        self.depth = depth
        self.register_buffer("mean", images.mean(0, keepdim=True))
        self.register_buffer("centered", (images - self.mean).flatten(1))
        values, vectors = torch.linalg.eigh(tangent_kernel(self.centered, self.centered, depth))
        values, vectors = values.flip(0)[:keep], vectors.flip(1)[:, :keep]
        above_rounding = values > max(1e-9 * float(values[0]), 1e-20)
        self.register_buffer("values", values[above_rounding])
        self.register_buffer("vectors", vectors[:, above_rounding])
        targets = torch.nn.functional.one_hot(dataset.labels, len(dataset.classes)).double() - 1 / len(dataset.classes)
        shrinkage = self.values / (self.values + ridge * self.values.sum())
        self.register_buffer("coefficients", shrinkage[:, None] * (self.vectors.T @ targets))

    def features(self, images: Tensor) -> Tensor:
        """Features of images (n, C, H, W): double, (n, F)."""
        centered = (images.double() - self.mean).flatten(1)
        return tangent_kernel(centered, self.centered, self.depth) @ self.vectors / self.values

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images (n, C, H, W): float32, (n, K)."""
        return (self.features(images) @ self.coefficients).float()


def chosen_eigenvectors(count: int, most: int = 100) -> list[int]:
    """Indices of eigenvectors to measure: a consecutive first half, then with growing gaps to the last.

    Parameters
    ----------
    count : int
        Number of eigenvectors.
    most : int
        At most so many are chosen.

    Examples
    --------
    >>> chosen_eigenvectors(100, most=8)
    [0, 1, 2, 3, 4, 13, 36, 99]
    """
    if count <= most:
        return list(range(count))
    first = most // 2
    rest = np.geomspace(first + 1, count, most - first).round().astype(int) - 1
    return sorted({*range(first), *rest.tolist()})
