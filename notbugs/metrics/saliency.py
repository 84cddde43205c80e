"""Saliency: gradients and attributions, whether they are faithful, and whether they align with the classes' mean images."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from notbugs import precision, search
from notbugs.data import Dataset, map_batches
from notbugs.errors import InputError
from notbugs.models import frozen
from notbugs.search import objectives

METHODS = ("gradient", "integrated")
QUADRATURE_NODES = 16  # of Gauss-Legendre quadrature along the path, exact for polynomials up to degree 31
DELETION_STEPS = 10  # of the deletion curve


class Saliency(NamedTuple):
    """Saliency of n images, and measures of it, image by image.

    Attributes
    ----------
    gradients : Tensor, (n, C, H, W)
        Gradient of the margin of the predicted class over the second best. For "integrated", its mean along the path from the
        blurred image.
    attributions : Tensor, (n, C, H, W)
        (image - blurred image) * gradients: what each value adds to the margin.
    alignment : ndarray, (n,), in [-1, 1]
        Cosine of the gradient and the difference of the two classes' mean training images.
    chance_alignment : ndarray, (n,), in [-1, 1]
        Its mean over the differences that belong to the other images; 0 where there are none.
    low_frequency_energy : ndarray, (n,), in [0, 1]
        Of the gradient: see `low_frequency_energy`.
    deletion : ndarray, (n,), in [0, 1]
        Share of the deletion curve, on which pixels are blurred in descending order of attribution, where the prediction stays.
        Lower is more faithful.
    chance_deletion : ndarray, (n,), in [0, 1]
        The same in random order.
    """

    gradients: Tensor
    attributions: Tensor
    alignment: np.ndarray
    chance_alignment: np.ndarray
    low_frequency_energy: np.ndarray
    deletion: np.ndarray
    chance_deletion: np.ndarray

    @property
    def deletion_gain(self) -> np.ndarray:
        """Chance deletion minus deletion, in [-1, 1]: comparable between models, unlike either of them. Higher is better."""
        gain: np.ndarray = self.chance_deletion - self.deletion
        return gain


def saliency(
    model: nn.Module,
    dataset: Dataset,
    means: Tensor,
    *,
    method: str = "gradient",
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> Saliency:
    """Saliency of the predicted class on every image, whether the prediction is right or wrong.

    Deleted pixels are blurred by an eighth of the image's height. (Set to gray one by one, they would make a pattern that is
    itself adversarial for a standard model.)

    Parameters
    ----------
    model : nn.Module
        Images (N, C, H, W) in [0, 1] to logits (N, K).
    dataset : Dataset
        One image or more.
    means : Tensor, (K, C, H, W)
        The mean training image of each class: `class_means`.
    method : {"gradient", "integrated"}
        "integrated" is integrated gradients, from the blurred image.
    seed : int
        Of the random order of deletion.
    batch_size : int, optional
        Default: `precision.default_batch_size`.
    device : torch.device or str

    Returns
    -------
    Saliency

    Raises
    ------
    InputError
        For another method, means of another shape, or no images.

    References
    ----------
    Integrated gradients: Sundararajan et al. 2017. Alignment: Ilyas et al. 2019, theorem 3; Etmann et al. 2019. Deletion:
    Petsiuk et al. 2018; Fong & Vedaldi 2017.

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits")
    >>> model = models.build("small", shape=digits.test.shape, classes=10, width=4)
    >>> result = saliency(model, digits.test.select(slice(0, 5)), class_means(digits.train))
    >>> result.gradients.shape, result.deletion_gain.shape
    (torch.Size([5, 1, 8, 8]), (5,))
    """
    if method not in METHODS:
        raise InputError("method", "must be one of " + ", ".join(METHODS), repr(method))
    if means.shape != (len(dataset.classes), *dataset.shape):
        wanted = (len(dataset.classes), *dataset.shape)
        raise InputError("means", f"must be one image for each class, {wanted}", tuple(means.shape), "take them from class_means")
    if not len(dataset):
        raise InputError("data", "must hold images to explain", 0)
    model, generator = model.to(device), torch.Generator().manual_seed(seed)
    orders = torch.rand(len(dataset), dataset.shape[1] * dataset.shape[2], generator=generator)

    def explain(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        blurred = blur(images)
        with frozen(model):
            with torch.no_grad():
                predicted, second = objectives.logits(model, images).topk(2).indices.unbind(1)
            gradients = _margin_gradient(model, images, predicted, second, blurred, method)
            attributions = (images - blurred) * gradients
            deletion = _deletion(model, images, blurred, predicted, attributions.sum(1).flatten(1))
            chance_deletion = _deletion(model, images, blurred, predicted, orders[index].to(device))
        return gradients, attributions, predicted, second, deletion, chance_deletion

    batch_size = batch_size or precision.default_batch_size(device, dataset.shape)
    columns = map_batches(explain, dataset, batch_size=batch_size, device=device)
    gradients, attributions, predicted, second, deletion, chance_deletion = columns
    alignment, chance_alignment = _alignment(gradients, (means.cpu()[predicted] - means.cpu()[second]).flatten(1))
    return Saliency(
        gradients=gradients,
        attributions=attributions,
        alignment=alignment,
        chance_alignment=chance_alignment,
        low_frequency_energy=low_frequency_energy(gradients).numpy(),
        deletion=deletion.double().numpy(),
        chance_deletion=chance_deletion.double().numpy(),
    )


def class_means(dataset: Dataset) -> Tensor:
    """The mean image of each class, and of all images for a class without any.

    Parameters
    ----------
    dataset : Dataset

    Returns
    -------
    Tensor, (K, C, H, W), in [0, 1]

    Examples
    --------
    >>> from notbugs import data
    >>> class_means(data.load("digits").train).shape
    torch.Size([10, 1, 8, 8])
    """
    sums = torch.zeros(len(dataset.classes), *dataset.shape, dtype=torch.float64)
    for start in range(0, len(dataset), 1000):
        batch = slice(start, start + 1000)
        sums.index_add_(0, dataset.labels[batch], dataset.pixels(batch).double())
    counts = dataset.labels.bincount(minlength=len(dataset.classes)).reshape(-1, 1, 1, 1)
    means: Tensor = torch.where(counts > 0, sums / counts.clamp_min(1), sums.sum(0) / max(len(dataset), 1))
    return means.float()


def blur(images: Tensor) -> Tensor:
    """Images (n, C, H, W) after a Gaussian blur with a standard deviation of an eighth of the height."""
    from scipy.ndimage import gaussian_filter

    std = images.shape[2] / 8
    blurred: np.ndarray = gaussian_filter(images.detach().cpu().numpy(), (0, 0, std, std), mode="nearest")
    return torch.from_numpy(blurred).to(images)


def low_frequency_energy(images: Tensor) -> Tensor:
    """Share of the energy of each image in low spatial frequencies: up to a quarter of a cycle per pixel, in any direction.

    Parameters
    ----------
    images : Tensor, (n, C, H, W)

    Returns
    -------
    Tensor, double, (n,), in [0, 1]
        0 for an image that is 0 everywhere.

    Examples
    --------
    >>> low_frequency_energy(torch.ones(1, 1, 8, 8))
    tensor([1.], dtype=torch.float64)
    """
    power = torch.fft.fft2(images.double()).abs().square().sum(1)
    low = _low_frequencies(images.shape[2], images.shape[3])
    energy: Tensor = (power * low).sum((1, 2)) / power.sum((1, 2)).clamp_min(1e-300)
    return energy


def white_noise_energy(shape: tuple[int, int, int]) -> float:
    """`low_frequency_energy` of white noise of a shape (C, H, W): the share of frequencies that are low."""
    return float(_low_frequencies(shape[1], shape[2]).double().mean())


def _low_frequencies(height: int, width: int) -> Tensor:
    """Which frequencies of the discrete Fourier transform are low: bool, (H, W)."""
    down, across = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.fftfreq(width, dtype=torch.float64)
    low: Tensor = torch.hypot(down[:, None], across[None, :]) <= 0.25
    return low


def _alignment(gradients: Tensor, differences: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each gradient with its own difference of class means (n, pixels), and the mean cosine with all others."""
    flat, unit = gradients.flatten(1), F.normalize(differences)
    others = (unit.sum(0) - unit) / max(len(unit) - 1, 1)
    alignment = torch.cosine_similarity(flat, differences).double().numpy()
    return alignment, (F.normalize(flat) * others).sum(1).double().numpy()


def _margin_gradient(model: nn.Module, images: Tensor, classes: Tensor, others: Tensor, start: Tensor, method: str) -> Tensor:
    """Gradient of the margin of classes over others: at the images, or its mean along the straight path there from `start`."""

    def margin(images: Tensor) -> Tensor:
        logits = objectives.logits(model, images)
        return logits.gather(1, classes[:, None]) - logits.gather(1, others[:, None])

    if method == "gradient":
        return search.gradients(margin, images)[1][0]
    nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE_NODES)
    total = torch.zeros_like(images)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        total += float(weight) * search.gradients(margin, start + float(node) * (images - start))[1][0]
    return total


def _deletion(model: nn.Module, images: Tensor, blurred: Tensor, predicted: Tensor, scores: Tensor) -> Tensor:
    """Share of deletion steps after which the prediction stays, pixels with the highest score (n, H * W) first."""
    ranks = scores.argsort(1, descending=True).argsort(1).reshape(-1, 1, *images.shape[2:])
    pixels, unchanged = images[0, 0].numel(), torch.zeros(len(images), device=images.device)
    for step in range(1, DELETION_STEPS + 1):
        deleted = torch.where(ranks < round(pixels * step / DELETION_STEPS), blurred, images)
        with torch.no_grad():
            unchanged += (objectives.logits(model, deleted).argmax(1) == predicted).float()
    return unchanged / DELETION_STEPS
