"""Images of another domain than most data sets: crops of the two photographs that scikit-learn contains."""

import numpy as np
import torch
from torch import Tensor

from notbugs.data.dataset import Dataset
from notbugs.errors import InputError


def photo_crops(count: int, like: Dataset, *, seed: int = 0) -> Dataset:
    """Square crops of two photographs at random positions and scales, in the format of another data set.

    The photographs show a temple and a flower, 427 x 640 pixels (`sklearn.datasets.load_sample_images`).

    Parameters
    ----------
    count : int
        Images, 1 or more.
    like : Dataset
        Size, channels and classes are as here.
    seed : int

    Returns
    -------
    Dataset
        Unlabeled: all labels are 0.

    Examples
    --------
    >>> from notbugs import data
    >>> photo_crops(4, data.load("digits").test).shape
    (1, 8, 8)
    """
    from sklearn.datasets import load_sample_images

    if count < 1:
        raise InputError("count", "must be 1 or more", count)
    photos = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() for image in load_sample_images().images]
    channels, height, width = like.shape
    if channels == 1:
        photos = [image.mean(0, keepdim=True) for image in photos]
    generator = torch.Generator().manual_seed(seed)
    crops = [_crop(photos[number % 2], max(height, width), generator) for number in range(count)]
    resized = [torch.nn.functional.interpolate(crop[None], (height, width), mode="bilinear", antialias=True) for crop in crops]
    images = torch.cat(resized).round().clamp(0, 255).to(torch.uint8)
    names = tuple(f"photograph-{number % 2 + 1}/{number:06d}.png" for number in range(count))
    return Dataset(images, torch.zeros(count, dtype=torch.int64), like.classes, names)


def _crop(image: Tensor, min_side: int, generator: torch.Generator) -> Tensor:
    """A random square of at least `min_side` pixels, at most half the photograph's height."""
    _, height, width = image.shape
    low, high = min(min_side, height), max(min(min_side, height), height // 2)
    side = int(low + (high - low) * torch.rand((), generator=generator))
    top, left = (int(torch.randint(room + 1, (), generator=generator)) for room in (height - side, width - side))
    return image[:, top : top + side, left : left + side]
