"""Photographs and versions of them: `from datacheck.conftest import ...`."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from notbugs import data
from notbugs.data import Dataset

CLASSES = ("temple", "flower")


def _jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


VERSIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved as JPEG of quality 60": _jpeg,
    "resized": lambda image: image.resize((60, 60), Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.05),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.1),
}


@pytest.fixture(scope="session")
def photographs() -> Dataset:
    """Eleven crops of 100x100 pixels of two photographs that do not show the same part.

    A twelfth would be sky so bright that it clips once brightened: then its hash is another (docs/lab-log.md).
    """
    from sklearn.datasets import load_sample_images

    places = [(5 + 210 * row, 5 + 213 * column) for row in range(2) for column in range(3)]
    crops = [image[top : top + 200 : 2, left : left + 200 : 2] for image in load_sample_images().images for top, left in places]
    del crops[2]
    labels = (torch.arange(11) > 4).long()
    names = tuple(f"{CLASSES[label]}/{number:02d}.png" for number, label in enumerate(labels.tolist()))
    return Dataset(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous(), labels, CLASSES, names)


def version(images: Tensor, name: str) -> Tensor:
    """Each image in one of VERSIONS."""
    made = [VERSIONS[name](Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images]
    return torch.from_numpy(np.stack([np.asarray(image) for image in made])).permute(0, 3, 1, 2).contiguous()


def joined(*parts: Dataset) -> Dataset:
    """The parts as one data set, with names that say which."""
    names = tuple(f"{number}/{name}" for number, part in enumerate(parts) for name in part.names)
    images, labels = torch.cat([part.images[:] for part in parts]), torch.cat([part.labels for part in parts])
    return Dataset(images, labels, parts[0].classes, names)


def halves(digits: data.Splits, count: int) -> tuple[Dataset, Dataset]:
    """Training and test part with `count` images each."""
    return digits.train.select(slice(0, count)), digits.test.select(slice(0, count))
