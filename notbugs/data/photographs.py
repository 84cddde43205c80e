"""Pictures of another domain than most sets: crops of the two photographs that scikit-learn carries."""

import numpy as np
import torch
from torch import Tensor

from notbugs.data.dataset import Dataset
from notbugs.errors import InputError


def photo_crops(count: int, like: Dataset, *, seed: int = 0) -> Dataset:
    """So many square crops at random places and scales, brought to the size, the channels and the classes of a set.

    They carry no label: all are given class 0. A temple and a flower, 427 x 640 pixels (`sklearn.datasets.load_sample_images`).
    """
    from sklearn.datasets import load_sample_images

    if count < 1:
        raise InputError("count", "must be 1 or more", count)
    sources = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() for image in load_sample_images().images]
    channels, height, width = like.shape
    if channels == 1:
        sources = [image.mean(0, keepdim=True) for image in sources]
    generator = torch.Generator().manual_seed(seed)
    crops = [_crop(sources[number % 2], max(height, width), generator) for number in range(count)]
    resized = [torch.nn.functional.interpolate(crop[None], (height, width), mode="bilinear", antialias=True) for crop in crops]
    images = torch.cat(resized).round().clamp(0, 255).to(torch.uint8)
    names = tuple(f"photograph-{number % 2 + 1}/{number:06d}.png" for number in range(count))
    return Dataset(images, torch.zeros(count, dtype=torch.int64), like.classes, names)


def _crop(image: Tensor, least: int, generator: torch.Generator) -> Tensor:
    """A square of at least so many pixels, at most half the picture's height."""
    _, height, width = image.shape
    low, high = min(least, height), max(min(least, height), height // 2)
    side = int(low + (high - low) * torch.rand((), generator=generator))
    top, left = (int(torch.randint(room + 1, (), generator=generator)) for room in (height - side, width - side))
    return image[:, top : top + side, left : left + side]
