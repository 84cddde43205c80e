"""Augmentations: (images (N, C, H, W), generator) -> images."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Augment = Callable[[Tensor, Generator], Tensor]
"""(images (N, C, H, W), generator) -> images: `random_translate`, `add_noise`, or your own."""


def add_noise(std: float, *, after: Augment | None = None, clip: bool = False) -> Augment:
    """Gaussian noise on every pixel; images may then leave [0, 1].

    Parameters
    ----------
    std : float
        Standard deviation, pixels in [0, 1].
    after : Augment, optional
        An augmentation that comes first.
    clip : bool
        Clip them to [0, 1], as attacks need them.

    Returns
    -------
    Augment

    Examples
    --------
    >>> import torch
    >>> images = torch.full((2, 1, 50, 50), 0.5)
    >>> round(float(add_noise(0.1)(images, torch.Generator().manual_seed(0)).std()), 1)
    0.1
    """

    def augment(images: Tensor, generator: Generator) -> Tensor:
        images = after(images, generator) if after else images
        noise = torch.empty_like(images).normal_(generator=generator)
        noisy = images + std * noise
        return noisy.clamp(0, 1) if clip else noisy

    return augment


def random_translate(pixels: int, *, flip: bool) -> Augment:
    """Random translation of each image, and a horizontal flip with probability 0.5.

    Parameters
    ----------
    pixels : int
        Largest translation in each direction; edges are reflected.
    flip : bool
        Whether to flip.

    Returns
    -------
    Augment

    Examples
    --------
    >>> import torch
    >>> images = torch.rand(2, 1, 8, 8)
    >>> random_translate(1, flip=True)(images, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1, 8, 8])
    """

    def augment(images: Tensor, generator: Generator) -> Tensor:
        count, _, height, width = images.shape
        device = images.device
        padded = F.pad(images, [pixels] * 4, mode="reflect")
        row_offset = torch.randint(2 * pixels + 1, (count, 1), generator=generator, device=device)
        column_offset = torch.randint(2 * pixels + 1, (count, 1), generator=generator, device=device)
        rows = torch.arange(height, device=device) + row_offset
        columns = torch.arange(width, device=device) + column_offset
        if flip:
            flipped = torch.rand(count, 1, generator=generator, device=device) < 0.5
            columns = torch.where(flipped, columns.flip(1), columns)
        index = torch.arange(count, device=device)[:, None, None]
        # indexing gives (N, H, W, C): permuted back it is in the channels-last format, the fastest for convolutions
        return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    return augment
