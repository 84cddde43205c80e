"""Which spatial frequencies mislead a model: its errors on images with one wave added, frequency by frequency."""

import math

import torch
from torch import Tensor, nn

from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.models import frozen

RELATIVE_AMPLITUDE = 0.5  # of the pixels' standard deviation: L2 norm 4 on a channel of CIFAR-10, as in the source
MAX_FREQUENCIES = 16  # frequencies each way at most; of larger images evenly chosen ones


def fourier_sensitivity(
    model: nn.Module,
    part: Dataset,
    *,
    amplitude: float | None = None,
    seed: int = 0,
    batch_size: int = 500,
    device: torch.device | str = "cpu",
) -> list[dict[str, float]]:
    """A row for each frequency: down and across in cycles an image, errors in [0, 1] with the wave added, n images.

    down: −H/2 < … ≤ H/2; across: 0 … W/2; of waves that are the same, one. The wave is real, of L2 norm amplitude x √(H W) in
    each channel, its sign drawn for each image and channel; images stay in [0, 1] and 8-bit. amplitude: root mean square of the
    wave, a pixel; left out, half of the pixels' standard deviation over the images. Source: Yin et al. 2019, section 3.
    """
    if not len(part):
        raise InputError("data", "must hold images to add waves to", 0)
    model = model.to(device)
    channels, height, width = part.shape
    images, labels = part.pixels(slice(None)).to(device), part.labels.to(device)
    if amplitude is None:
        amplitude = RELATIVE_AMPLITUDE * max(float(images.std(0).mean()) if len(part) > 1 else 0.0, 1 / 255)
    if not amplitude > 0:
        raise InputError("amplitude", "must be above 0", amplitude)
    chance = torch.Generator().manual_seed(seed)
    rows, downs = [], _chosen_frequencies(-((height - 1) // 2), height // 2)
    for down in downs:
        for across in _chosen_frequencies(0, width // 2):
            if down < 0 and 2 * across in (0, width) and -down in downs:
                continue  # the same wave
            signs = torch.randint(2, (len(part), channels, 1, 1), generator=chance).mul(2).sub(1).to(images)
            moved = _add(images, signs * amplitude * math.sqrt(height * width) * wave(height, width, down, across).to(images))
            wrong = 0
            for start in range(0, len(part), batch_size):
                some = slice(start, start + batch_size)
                with frozen(model), torch.no_grad():
                    wrong += int((model(moved[some]).argmax(1) != labels[some]).sum())
            told = {"amplitude": amplitude, "errors": wrong / len(part), "n": len(part)}
            rows.append({"down": down, "across": across, **told})
    return rows


def wave(height: int, width: int, down: int, across: int) -> Tensor:
    """The real wave (H, W) of one frequency, in cycles an image each way, of L2 norm 1."""
    rows, columns = torch.arange(height)[:, None] * down / height, torch.arange(width)[None, :] * across / width
    found: Tensor = torch.cos(2 * math.pi * (rows + columns))
    return found / float(found.norm())


def _add(images: Tensor, change: Tensor) -> Tensor:
    return ((images + change).clamp(0, 1) * 255).round().div(255)


def _chosen_frequencies(first: int, last: int) -> list[int]:
    """All whole numbers from first to last, or evenly chosen ones; 0 and both ends among them."""
    if max(abs(first), last) <= MAX_FREQUENCIES:
        return list(range(first, last + 1))
    step = max(abs(first), last) / MAX_FREQUENCIES
    return sorted(
        {round(k * step) for k in range(-MAX_FREQUENCIES, MAX_FREQUENCIES + 1) if first <= round(k * step) <= last}
        | {first, last}
    )
