"""8-bit images as the arrays that files hold, and as floats."""

import numpy as np
import torch
from torch import Tensor


def as_arrays(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) as files hold them: (N, H, W) or (N, H, W, 3)."""
    array = images.numpy()
    return np.ascontiguousarray(array[:, 0] if array.shape[1] == 1 else array.transpose(0, 2, 3, 1))


def to_8bit(images: Tensor) -> Tensor:
    """Round float images in [0, 1] to the nearest of the 256 levels that a file holds: uint8.

    Examples
    --------
    >>> to_8bit(torch.tensor([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def from_8bit(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]; `to_8bit` inverts it exactly."""
    floats = images.to(torch.float32)
    return floats.div_(255) if floats is not images else images / 255  # in place: a second copy of many images is large
