"""Sensitivity to spatial frequencies: error rate with one Fourier basis vector added to every image."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from notbugs import precision
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.models import frozen
from notbugs.predict import BATCH_SIZE
from notbugs.search import objectives

RELATIVE_AMPLITUDE = 0.5  # of the pixels' standard deviation: L2 norm 4 in a channel of CIFAR-10, as in Yin et al.
MAX_FREQUENCIES = 16  # in each direction, at most; for larger images evenly spaced ones


class FourierError(NamedTuple):
    """Error rate at one frequency.

    Attributes
    ----------
    cycles_down, cycles_across : int
        Cycles per image, downward from above -H/2 to H/2, across from 0 to W/2.
    amplitude : float
        Root mean square of the wave, per pixel.
    error_rate : float, in [0, 1]
    n : int
        Images.
    """

    cycles_down: int
    cycles_across: int
    amplitude: float
    error_rate: float
    n: int


def fourier_sensitivity(
    model: nn.Module,
    dataset: Dataset,
    *,
    amplitude: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> list[FourierError]:
    """Error rate with one wave added to every image, frequency by frequency.

    The wave is real, of L2 norm amplitude * sqrt(H * W) in each channel; its sign is random for each image and channel. Images
    stay in [0, 1] and are rounded to 8 bits. Of frequencies with the same wave one is used.

    Parameters
    ----------
    model : nn.Module
        Images (N, C, H, W) in [0, 1] to logits (N, K).
    dataset : Dataset
        One image or more.
    amplitude : float, optional
        Default: half of the pixels' standard deviation over the images.
    seed : int
        Of the signs.
    batch_size : int, optional
        Default: 500, of large images fewer.
    device : torch.device or str

    Returns
    -------
    list of FourierError

    Raises
    ------
    InputError
        If there are no images, or the amplitude is not above 0.

    References
    ----------
    Yin et al. 2019, "A Fourier Perspective on Model Robustness in Computer Vision", section 3.

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").test.select(slice(0, 20))
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> rows = fourier_sensitivity(model, digits)
    >>> len(rows), rows[0].cycles_down, rows[0].cycles_across
    (34, -3, 1)
    """
    if not len(dataset):
        raise InputError("data", "must hold images to add waves to", 0)
    model = model.to(device)
    batch_size = batch_size or precision.bounded_batch_size(BATCH_SIZE, device, dataset.shape)
    channels, height, width = dataset.shape
    images, labels = dataset.pixels(slice(None)).to(device), dataset.labels.to(device)
    if amplitude is None:
        amplitude = RELATIVE_AMPLITUDE * max(float(images.std(0).mean()) if len(dataset) > 1 else 0.0, 1 / 255)
    if not amplitude > 0:
        raise InputError("amplitude", "must be above 0", amplitude)
    generator = torch.Generator().manual_seed(seed)
    results = []
    for down, across in _frequencies(height, width):
        signs = torch.randint(2, (len(dataset), channels, 1, 1), generator=generator).mul(2).sub(1).to(images)
        perturbation = signs * amplitude * math.sqrt(height * width) * wave(height, width, down, across).to(images)
        perturbed = ((images + perturbation).clamp(0, 1) * 255).round().div(255)
        errors = _count_errors(model, perturbed, labels, batch_size)
        results.append(FourierError(down, across, amplitude, errors / len(dataset), len(dataset)))
    return results


def wave(height: int, width: int, down: int, across: int) -> Tensor:
    """The real wave of one frequency, in cycles per image in each direction: (H, W), of L2 norm 1."""
    rows, columns = torch.arange(height)[:, None] * down / height, torch.arange(width)[None, :] * across / width
    pattern: Tensor = torch.cos(2 * math.pi * (rows + columns))
    return pattern / float(pattern.norm())


def _count_errors(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> int:
    """How many images are misclassified."""
    errors = 0
    for batch, batch_labels in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
        with frozen(model), torch.no_grad():
            errors += int((objectives.logits(model, batch).argmax(1) != batch_labels).sum())
    return errors


def _frequencies(height: int, width: int) -> list[tuple[int, int]]:
    """Cycles down and across, without those whose wave another one has."""
    downs, acrosses = _spaced(-((height - 1) // 2), height // 2), _spaced(0, width // 2)
    return [
        (down, across) for down in downs for across in acrosses if not (down < 0 and 2 * across in (0, width) and -down in downs)
    ]


def _spaced(first: int, last: int) -> list[int]:
    """All integers from first to last, or evenly spaced ones; 0 and both ends are among them."""
    if max(abs(first), last) <= MAX_FREQUENCIES:
        return list(range(first, last + 1))
    step = max(abs(first), last) / MAX_FREQUENCIES
    multiples = {round(k * step) for k in range(-MAX_FREQUENCIES, MAX_FREQUENCIES + 1)}
    return sorted({k for k in multiples if first <= k <= last} | {first, last})
