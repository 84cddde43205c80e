"""Changes that happen by themselves: noise, blur, fog, contrast and JPEG, each at five severities.

Source: Hendrycks & Dietterich 2019, with their settings for small images (up to 64 pixels, as in CIFAR-10-C) and for larger ones
(ImageNet-C). Fog is clouds whose amplitude falls as a power of the frequency, about as theirs do (by midpoint displacement).
"""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn

from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.metrics.accuracy import accuracy_row
from notbugs.models import frozen

SEVERITIES = (1, 2, 3, 4, 5)
SMALL = 64  # pixels of the longer side

FADING = (
    (2.2, 2.2, 2.2, 2.1, 2.0),
    (2.3, 2.1, 2.1, 1.9, 1.7),
)  # of clouds with frequency, by severity: small images, larger ones

Corruption = Callable[[Tensor, float, int, Generator], Tensor]


def _noise(images: Tensor, deviation: float, severity: int, chance: Generator) -> Tensor:
    return images + deviation * torch.randn(images.shape, generator=chance)


def _blur(images: Tensor, deviation: float, severity: int, chance: Generator) -> Tensor:
    from scipy.ndimage import gaussian_filter

    found: np.ndarray = gaussian_filter(images.numpy(), (0, 0, deviation, deviation), mode="reflect")
    return torch.from_numpy(found)


def _fog(images: Tensor, thickness: float, severity: int, chance: Generator) -> Tensor:
    """Clouds in [0, 1] added to every channel alike, and the whole brought back to the brightest value that was there."""
    height, width = images.shape[2:]
    noise = torch.fft.rfft2(torch.randn(len(images), 1, height, width, generator=chance))
    far = torch.hypot(torch.fft.fftfreq(height)[:, None] * height, torch.fft.rfftfreq(width)[None, :] * width).clamp_min(1)
    fading = FADING[max(height, width) > SMALL][severity - 1]
    clouds = torch.fft.irfft2(noise / far**fading, s=(height, width))
    low, high = clouds.amin((2, 3), keepdim=True), clouds.amax((2, 3), keepdim=True)
    clouds = (clouds - low) / (high - low).clamp_min(1e-12)
    brightest = images.amax((1, 2, 3), keepdim=True)
    found: Tensor = (images + thickness * clouds) * brightest / (brightest + thickness)
    return found


def _contrast(images: Tensor, share: float, severity: int, chance: Generator) -> Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return mean + share * (images - mean)


def _jpeg(images: Tensor, quality: float, severity: int, chance: Generator) -> Tensor:
    """Compressed and read again: colour as one image, any other number of channels one by one."""
    from PIL import Image

    def again(pixels: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(quality))
        return np.asarray(Image.open(file))

    stored = (images.clamp(0, 1) * 255).round().byte().numpy()
    if images.shape[1] == 3:
        found = np.stack([again(image.transpose(1, 2, 0)).transpose(2, 0, 1) for image in stored])
    else:
        found = np.stack([np.stack([again(np.ascontiguousarray(channel)) for channel in image]) for image in stored])
    return torch.from_numpy(found).float() / 255


# name: the corruption, and its number at each severity, for small images and for larger ones
CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, ...], tuple[float, ...]]] = {
    "noise": (_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "blur": (_blur, (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)),
    "fog": (_fog, (0.2, 0.5, 0.75, 1.0, 1.5), (1.5, 2.0, 2.5, 2.5, 3.0)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "jpeg": (_jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}


def corrupt(images: Tensor, name: str, severity: int, *, seed: int = 0) -> Tensor:
    """Images (n, C, H, W) in [0, 1], corrupted and rounded to 8 bits a channel.

    name: one of CORRUPTIONS; severity: 1 to 5; seed: of what chance decides (noise, fog). Raises BadInput for another.
    """
    if name not in CORRUPTIONS:
        raise InputError("corruption", "must be one of " + ", ".join(CORRUPTIONS), repr(name))
    if not isinstance(severity, int) or severity not in SEVERITIES:
        raise InputError("severity", "must be 1, 2, 3, 4 or 5", severity)
    if not len(images):
        return images.clone()
    change, small, large = CORRUPTIONS[name]
    strength = (small if max(images.shape[2:]) <= SMALL else large)[severity - 1]
    found = change(images.detach().cpu().float(), strength, severity, torch.Generator().manual_seed(seed))
    return (found.clamp(0, 1) * 255).round().div(255).to(images)


CLEAN = "unchanged"


class CorruptionResult(NamedTuple):
    """rows: corruption, severity (0: unchanged), correct, n, accuracy with its 95 % interval.

    shares: corruption -> (n,) in [0, 1], of each image at how many of the five severities the model reads it.
    """

    rows: list[dict[str, Any]]
    shares: dict[str, np.ndarray]


def corruption_accuracy(
    model: nn.Module, part: Dataset, *, seed: int = 0, batch_size: int = 500, device: torch.device | str = "cpu"
) -> CorruptionResult:
    """Accuracy on a part unchanged and under each corruption at each severity, by `corruptions.corrupt`.

    Source: Hendrycks & Dietterich 2019; what robust training costs there, Gilmer & Hendrycks in the discussion of Ilyas et al.
    """
    model = model.to(device)
    images, rows, shares = part.pixels(slice(None)), list[dict[str, Any]](), dict[str, np.ndarray]()
    for name, severities in ((CLEAN, (0,)), *((name, SEVERITIES) for name in CORRUPTIONS)):
        verdicts = []
        for severity in severities:
            changed = corrupt(images, name, severity, seed=seed) if severity else images
            with frozen(model), torch.no_grad():
                said = [model(changed[k : k + batch_size].to(device)).argmax(1).cpu() for k in range(0, len(part), batch_size)]
            right = torch.cat(said) == part.labels
            verdicts.append(right.double().numpy())
            told = accuracy_row(int(right.sum()), len(part))
            told = {key: told[key] for key in ("correct", "n", "accuracy", "low", "high")}
            rows.append({"corruption": name, "severity": severity, **told})
        shares[name] = np.mean(verdicts, 0)
    return CorruptionResult(rows, shares)
