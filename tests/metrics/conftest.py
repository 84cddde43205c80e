"""Shared by the tests of this folder: linear features of gray images, and small data sets."""

import pytest
import torch
from torch import Tensor, nn

from notbugs import data
from notbugs.data import Dataset

CLASSES = ("one", "two", "three")


def dataset(images: Tensor, labels: Tensor, classes: tuple[str, ...] = CLASSES) -> Dataset:
    """Images in [0, 1] as a data set."""
    return Dataset(data.to_8bit(images), labels, classes, tuple(f"{number}.png" for number in range(len(labels))))


@pytest.fixture(scope="session")
def linear_features() -> tuple[nn.Sequential, Dataset]:
    """Five linear features, and images around gray, so that no perturbation reaches the ends of the pixel range."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    with torch.no_grad():
        linear[1].weight.copy_(torch.randn(5, 48, generator=generator))
    images = (0.5 + 0.05 * torch.randn(150, 3, 4, 4, generator=generator)).clamp(0.3, 0.7)
    values = linear(images)[:, :3].detach()
    return linear, dataset(images, (values - values.mean(0)).argmax(1))
