"""Common corruptions: noise, blur, fog, contrast and JPEG, each at five severities.

From Hendrycks & Dietterich 2019, with their settings for small images (up to 64 pixels, CIFAR-10-C) and for larger ones
(ImageNet-C). Fog is 1/f noise with about the exponents of their midpoint displacement.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn

from notbugs import precision
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.metrics.robust_accuracy import Accuracy
from notbugs.models import frozen
from notbugs.predict import BATCH_SIZE
from notbugs.search import objectives

SEVERITIES = (1, 2, 3, 4, 5)
SMALL = 64  # pixels of the longer side
CLEAN = "clean"  # as a corruption, at severity 0

FOG_EXPONENTS = (
    (2.2, 2.2, 2.2, 2.1, 2.0),
    (2.3, 2.1, 2.1, 1.9, 1.7),
)  # by severity, for small and for larger images: amplitude falls with this power of the frequency

Corruption = Callable[[Tensor, float, int, Generator], Tensor]  # images, strength, severity, generator -> images


def _noise(images: Tensor, std: float, severity: int, generator: Generator) -> Tensor:
    return images + std * torch.randn(images.shape, generator=generator)


def _blur(images: Tensor, std: float, severity: int, generator: Generator) -> Tensor:
    from scipy.ndimage import gaussian_filter

    blurred: np.ndarray = gaussian_filter(images.numpy(), (0, 0, std, std), mode="reflect")
    return torch.from_numpy(blurred)


def _fog(images: Tensor, thickness: float, severity: int, generator: Generator) -> Tensor:
    """Clouds in [0, 1], the same in all channels, are added; then the image is scaled back to its brightest value."""
    height, width = images.shape[2:]
    noise = torch.fft.rfft2(torch.randn(len(images), 1, height, width, generator=generator))
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None] * height, torch.fft.rfftfreq(width)[None, :] * width).clamp_min(1)
    exponent = FOG_EXPONENTS[max(height, width) > SMALL][severity - 1]
    clouds = torch.fft.irfft2(noise / frequency**exponent, s=(height, width))
    low, high = clouds.amin((2, 3), keepdim=True), clouds.amax((2, 3), keepdim=True)
    clouds = (clouds - low) / (high - low).clamp_min(1e-12)
    brightest = images.amax((1, 2, 3), keepdim=True)
    foggy: Tensor = (images + thickness * clouds) * brightest / (brightest + thickness)
    return foggy


def _contrast(images: Tensor, share: float, severity: int, generator: Generator) -> Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return mean + share * (images - mean)


def _jpeg(images: Tensor, quality: float, severity: int, generator: Generator) -> Tensor:
    """Three channels are compressed as one color image, any other number channel by channel."""
    stored = (images.clamp(0, 1) * 255).round().byte().numpy()
    if images.shape[1] == 3:
        decoded = np.stack([_jpeg_decoded(image.transpose(1, 2, 0), int(quality)).transpose(2, 0, 1) for image in stored])
    else:
        decoded = np.stack(
            [np.stack([_jpeg_decoded(np.ascontiguousarray(channel), int(quality)) for channel in image]) for image in stored]
        )
    return torch.from_numpy(decoded).float() / 255


def _jpeg_decoded(pixels: np.ndarray, quality: int) -> np.ndarray:
    """An image, uint8 (H, W) or (H, W, 3), after compression."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


# name: the corruption, and its strength at each severity, for small images and for larger ones
CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, ...], tuple[float, ...]]] = {
    "noise": (_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "blur": (_blur, (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)),
    "fog": (_fog, (0.2, 0.5, 0.75, 1.0, 1.5), (1.5, 2.0, 2.5, 2.5, 3.0)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "jpeg": (_jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}


def corrupt(images: Tensor, name: str, severity: int, *, seed: int = 0) -> Tensor:
    """Apply one common corruption to images, rounded to 8 bits.

    Parameters
    ----------
    images : Tensor, float, (N, C, H, W), in [0, 1]
    name : {"noise", "blur", "fog", "contrast", "jpeg"}
    severity : int
        1 to 5.
    seed : int
        Of noise and fog.

    Returns
    -------
    Tensor
        As `images`.

    Raises
    ------
    InputError
        For another name or severity.

    References
    ----------
    Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations".

    Examples
    --------
    >>> corrupt(torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2), "contrast", 3).flatten() * 255
    tensor([ 76., 178.])
    """
    if name not in CORRUPTIONS:
        raise InputError("corruption", "must be one of " + ", ".join(CORRUPTIONS), repr(name))
    if not isinstance(severity, int) or severity not in SEVERITIES:
        raise InputError("severity", "must be 1, 2, 3, 4 or 5", severity)
    if not len(images):
        return images.clone()
    function, small, large = CORRUPTIONS[name]
    strength = (small if max(images.shape[2:]) <= SMALL else large)[severity - 1]
    corrupted = function(images.detach().cpu().float(), strength, severity, torch.Generator().manual_seed(seed))
    return (corrupted.clamp(0, 1) * 255).round().div(255).to(images)


class CorruptionAccuracy(NamedTuple):
    """Accuracy under one corruption at one severity (0: clean), with its 95 % CI."""

    corruption: str
    severity: int
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float


class CorruptionResult(NamedTuple):
    """Accuracy of a model under all corruptions.

    Attributes
    ----------
    accuracies : list of CorruptionAccuracy
        Clean first, then corruption by corruption.
    correct_shares : dict of str to ndarray, (N,), in [0, 1]
        For each corruption, the share of severities at which each image is classified correctly.
    """

    accuracies: list[CorruptionAccuracy]
    correct_shares: dict[str, np.ndarray]


def corruption_accuracy(
    model: nn.Module, dataset: Dataset, *, seed: int = 0, batch_size: int | None = None, device: torch.device | str = "cpu"
) -> CorruptionResult:
    """Accuracy on clean images and under each corruption at each severity.

    Parameters
    ----------
    model : nn.Module
        Images (N, C, H, W) in [0, 1] to logits (N, K).
    dataset : Dataset
        One image or more.
    seed : int
        Of noise and fog.
    batch_size : int, optional
        Default: 500, of large images fewer.
    device : torch.device or str

    Returns
    -------
    CorruptionResult

    References
    ----------
    Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations".

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").test.select(slice(0, 20))
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> [(row.corruption, row.severity) for row in corruption_accuracy(model, digits).accuracies[:3]]
    [('clean', 0), ('noise', 1), ('noise', 2)]
    """
    batch_size = batch_size or precision.bounded_batch_size(BATCH_SIZE, device, dataset.shape)
    model, images = model.to(device), dataset.pixels(slice(None))
    accuracies, correct_shares = list[CorruptionAccuracy](), dict[str, np.ndarray]()
    for name, severities in ((CLEAN, (0,)), *((name, SEVERITIES) for name in CORRUPTIONS)):
        columns = []
        for severity in severities:
            corrupted = corrupt(images, name, severity, seed=seed) if severity else images
            correct = _predictions(model, corrupted, batch_size, device) == dataset.labels
            columns.append(correct.double().numpy())
            row = Accuracy.from_counts(int(correct.sum()), len(dataset))
            accuracies.append(CorruptionAccuracy(name, severity, row.correct, row.n, row.accuracy, row.ci_low, row.ci_high))
        correct_shares[name] = np.mean(columns, 0)
    return CorruptionResult(accuracies, correct_shares)


def _predictions(model: nn.Module, images: Tensor, batch_size: int, device: torch.device | str) -> Tensor:
    """Predicted classes (N,) on the CPU."""
    with frozen(model), torch.no_grad():
        return torch.cat(
            [objectives.logits(model, batch.to(device)).argmax(1).cpu() for batch in torch.split(images, batch_size)]
        )
