"""Augmentations: (images (N, C, H, W), generator) -> images."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Augment = Callable[[Tensor, Generator], Tensor]


def random_translate(pixels: int, *, flip: bool) -> Augment:
    """Random translation of each image, and a horizontal flip with probability 0.5.

    Parameters
    ----------
    pixels : int
        Largest translation in each direction; edges are reflected.
    flip : bool
        Whether to flip.
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
