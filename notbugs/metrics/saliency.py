"""What a model's explanations show: whether they are its reasons, and whether a person would call them reasons."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from notbugs import search
from notbugs.data import Dataset, map_batches
from notbugs.errors import InputError
from notbugs.models import frozen
from notbugs.search import objectives

METHODS = ("gradient", "integrated")
QUADRATURE_NODES = 16  # of the integral along the path: Gauss and Legendre's, exact for polynomials up to degree 31
DELETION_STEPS = 10  # steps of the deletion curve


class Saliency(NamedTuple):
    """Image by image. All of one length n, but gradients and parts, (n, C, H, W).

    gradients: of the lead of the model's answer over its second best; for "integrated", their mean on the way from the blurred
    image. parts: what each value adds to the lead by that: (image − blurred image) x gradients.
    alignment: cosine in [−1, 1] of the gradient and the difference of the two classes' mean training images; chance_alignment:
    its mean over the differences that go with the other images (0 where there are none). low: share in [0, 1] of the gradient's
    energy in frequencies up to half of the highest. deletion: mean share in [0, 1] of the way, over pixels that are blurred, the
    largest parts first, that the model keeps to its answer: lower is more faithful; chance_deletion: pixels in random order.
    """

    gradients: Tensor
    parts: Tensor
    alignment: np.ndarray
    chance_alignment: np.ndarray
    low: np.ndarray
    deletion: np.ndarray
    chance_deletion: np.ndarray

    @property
    def faithful(self) -> np.ndarray:
        """By how much sooner the answer goes than in random order, in [−1, 1]: robust models keep it longer in either order."""
        found: np.ndarray = self.chance_deletion - self.deletion
        return found


def saliency(
    model: nn.Module,
    part: Dataset,
    means: Tensor,
    *,
    method: str = "gradient",
    seed: int = 0,
    batch_size: int = 250,
    device: torch.device | str = "cpu",
) -> Saliency:
    """A model's explanations of its answers on images, and measures of them.

    means: the mean training image of each class (K, C, H, W), as `class_means`. What is taken away is detail: pixels are blurred,
    by an eighth of the image's height. (Put to grey one by one they make a pattern that misleads a standard model by itself.)
    method: "gradient", or "integrated" (Sundararajan et al. 2017); both explain the answer that was given, right or wrong.
    Sources: alignment, Ilyas et al. 2019 (theorem 3) and Etmann et al. 2019; deletion, Petsiuk et al. 2018, Fong & Vedaldi 2017.
    """
    if method not in METHODS:
        raise InputError("method", "must be one of " + ", ".join(METHODS), repr(method))
    if means.shape != (len(part.classes), *part.shape):
        wanted = (len(part.classes), *part.shape)
        raise InputError("means", f"must be one image a class, {wanted}", tuple(means.shape), "take them from class_means")
    if not len(part):
        raise InputError("data", "must hold images to explain", 0)
    model, chance = model.to(device), torch.Generator().manual_seed(seed)
    orders = torch.rand(len(part), part.shape[1] * part.shape[2], generator=chance)

    def one(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        blurred = blur(images)
        with frozen(model):
            with torch.no_grad():
                said, rivals = objectives.logits(model, images).topk(2).indices.unbind(1)
            slope = _margin_gradient(model, images, said, rivals, blurred, method)
            parts = (images - blurred) * slope
            kept = _deletion(model, images, blurred, said, parts.sum(1).flatten(1))
            chance_kept = _deletion(model, images, blurred, said, orders[index].to(device))
        return slope, parts, said, rivals, kept, chance_kept

    columns: Any = map_batches(one, part, batch_size=batch_size, device=device)
    slope, parts, said, rivals, kept, chance_kept = (column.cpu() for column in columns)
    apart = (means.cpu()[said] - means.cpu()[rivals]).flatten(1)
    flat, unit = slope.flatten(1), torch.nn.functional.normalize(apart)
    others = (unit.sum(0) - unit) / max(len(unit) - 1, 1)
    return Saliency(
        gradients=slope,
        parts=parts,
        alignment=torch.cosine_similarity(flat, apart).double().numpy(),
        chance_alignment=(torch.nn.functional.normalize(flat) * others).sum(1).double().numpy(),
        low=low_frequency_energy(slope).numpy(),
        deletion=kept.double().numpy(),
        chance_deletion=chance_kept.double().numpy(),
    )


def class_means(part: Dataset) -> Tensor:
    """The mean image of each class, (K, C, H, W) in [0, 1]; of a class without images that of all."""
    sums = torch.zeros(len(part.classes), *part.shape, dtype=torch.float64)
    for start in range(0, len(part), 1000):
        some = slice(start, start + 1000)
        sums.index_add_(0, part.labels[some], part.pixels(some).double())
    counts = part.labels.bincount(minlength=len(part.classes)).reshape(-1, 1, 1, 1)
    found: Tensor = torch.where(counts > 0, sums / counts.clamp_min(1), sums.sum(0) / max(len(part), 1))
    return found.float()


def blur(images: Tensor) -> Tensor:
    """Images (n, C, H, W) without their detail: a Gaussian of an eighth of the height."""
    from scipy.ndimage import gaussian_filter

    width = images.shape[2] / 8
    found: np.ndarray = gaussian_filter(images.detach().cpu().numpy(), (0, 0, width, width), mode="nearest")
    return torch.from_numpy(found).to(images)


def low_frequency_energy(images: Tensor) -> Tensor:
    """Share of the energy of images (n, C, H, W) in spatial frequencies up to half of the highest, in [0, 1]; (n,), double.

    Up to a quarter of a cycle a pixel, in any direction. 0 for an image that is 0 everywhere.
    """
    power = torch.fft.fft2(images.double()).abs().square().sum(1)
    low = _low_frequencies(images.shape[2], images.shape[3])
    found: Tensor = (power * low).sum((1, 2)) / power.sum((1, 2)).clamp_min(1e-300)
    return found


def white_noise_energy(shape: tuple[int, int, int]) -> float:
    """What `low_share` finds in white noise: the share of the frequencies that are low."""
    return float(_low_frequencies(shape[1], shape[2]).double().mean())


def _low_frequencies(height: int, width: int) -> Tensor:
    down, across = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.fftfreq(width, dtype=torch.float64)
    low: Tensor = torch.hypot(down[:, None], across[None, :]) <= 0.25
    return low


def _margin_gradient(model: nn.Module, images: Tensor, classes: Tensor, rivals: Tensor, start: Tensor, method: str) -> Tensor:
    """The gradient of the lead of classes over rivals: at the images, or its mean on the straight way there from `start`."""

    def lead(there: Tensor) -> Tensor:
        said = objectives.logits(model, there)
        return said.gather(1, classes[:, None]) - said.gather(1, rivals[:, None])

    if method == "gradient":
        return search.gradients(lead, images)[1][0]
    places, weights = np.polynomial.legendre.leggauss(QUADRATURE_NODES)
    total = torch.zeros_like(images)
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        total += float(weight) * search.gradients(lead, start + float(place) * (images - start))[1][0]
    return total


def _deletion(model: nn.Module, images: Tensor, blurred: Tensor, said: Tensor, worth: Tensor) -> Tensor:
    """How often the answer stays while pixels are blurred, the largest worth (n, H W) first: area under the curve."""
    ranks = worth.argsort(1, descending=True).argsort(1).reshape(-1, 1, *images.shape[2:])
    pixels, kept = images[0, 0].numel(), torch.zeros(len(images), device=images.device)
    for cut in range(1, DELETION_STEPS + 1):
        there = torch.where(ranks < round(pixels * cut / DELETION_STEPS), blurred, images)
        with torch.no_grad():
            kept += (objectives.logits(model, there).argmax(1) == said).float()
    return kept / DELETION_STEPS
