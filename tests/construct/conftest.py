"""Small data sets and models with known predictions: `from construct.conftest import ...`."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from notbugs import data, models
from notbugs.construct import Constructed
from notbugs.data import Dataset
from notbugs.search import NormBall

BALLS = [NormBall("l2", 1.5), NormBall("l2", 0.3), NormBall("linf", 0.2), NormBall("linf", 0.03)]


@pytest.fixture(scope="session")
def part(digits: data.Splits) -> Dataset:
    """120 digits: enough to have batches that are not full."""
    return digits.train.select(slice(0, 120))


def dataset(images: Tensor, labels: Tensor, classes: int = 4) -> Dataset:
    names = tuple(f"{number:04d}.png" for number in range(len(images)))
    return Dataset(images.to(torch.uint8), labels.long(), tuple("abcdefghij"[:classes]), names)


def random_dataset(
    n: int, shape: tuple[int, int, int], low: int = 0, high: int = 256, *, seed: int = 0, classes: int = 4
) -> Dataset:
    """Random pixels from low to high - 1, labels in turn."""
    generator = torch.Generator().manual_seed(seed)
    return dataset(torch.randint(low, high, (n, *shape), generator=generator), torch.arange(n) % classes, classes)


def perturbed(part: Dataset, most: int, *, seed: int = 1) -> Dataset:
    """Random perturbations of at most so many levels, clipped at black and white, and every label the next."""
    generator = torch.Generator().manual_seed(seed)
    perturbation = torch.randint(-most, most + 1, part.images.shape, generator=generator)
    after = (levels(part) + perturbation.flatten(1)).clamp(0, 255).reshape(part.images.shape).to(torch.uint8)
    return part.with_images(after).with_labels((part.labels + 1) % len(part.classes))


def levels(part: Dataset) -> Tensor:
    """The stored pixels, one row per image: int (N, pixels)."""
    return part.images[:].flatten(1).int()


def pixels(part: Dataset) -> Tensor:
    return part.pixels(slice(None))


class FirstPixel(nn.Module):
    """Predicts the level of the first pixel, modulo the number of classes."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        return F.one_hot((images[:, 0, 0, 0] * 255).round().long() % self.classes, self.classes).float()


def with_predictions(part: Dataset, predictions: list[int]) -> Dataset:
    """The same images, but for the pixel by which `FirstPixel` predicts these classes."""
    images = part.images[:].clone()
    images[:, 0, 0, 0] = torch.tensor(predictions, dtype=torch.uint8) + 40
    return part.with_images(images)


def linear_model(weights: Tensor, shape: tuple[int, int, int], **options: Any) -> models.Classifier:
    """The network `linear` with given weights (K, pixels) after its normalization."""
    model = models.build("linear", shape=shape, classes=len(weights), **options)
    assert isinstance(model, models.Classifier) and isinstance(model.head, nn.Linear)
    with torch.no_grad():
        model.head.weight.copy_(weights)
        model.head.bias.zero_()
    return model.eval()


def assert_same_files(made: Constructed, part: Dataset) -> None:
    assert made.dataset.names == part.names
    assert made.dataset.classes == part.classes
    assert made.dataset.shape == part.shape
    assert made.stats.n == len(part)
    assert isinstance(made.dataset.images, Tensor)
    assert made.dataset.images.dtype == torch.uint8


def assert_norms(made: Constructed, part: Dataset) -> None:
    """The norms of the perturbations, recomputed in double precision."""
    perturbation = (made.dataset.images[:].double() - part.images[:].double()).flatten(1) / 255
    assert made.stats.mean_l2 == pytest.approx(float(perturbation.norm(dim=1).mean()), rel=1e-5)
    assert made.stats.max_l2 == pytest.approx(float(perturbation.norm(dim=1).max()), rel=1e-5)
    assert made.stats.max_linf == pytest.approx(float(perturbation.abs().max()), rel=1e-5)
