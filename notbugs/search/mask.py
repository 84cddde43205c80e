"""Masks: which pixels of an image may change."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import torch
from torch import Tensor

from notbugs.errors import InputError


@dataclass(frozen=True, eq=False)
class Mask:
    """Which values of every image may change. Masks with the same values are equal.

    Parameters
    ----------
    free : Tensor, bool, (1, H, W) or (C, H, W)
        True where a value may change: a pixel in all of its channels, or in some of them.

    Raises
    ------
    InputError
        If it is of another type or shape, or lets nothing change.

    Examples
    --------
    >>> corner = torch.zeros(1, 4, 4, dtype=torch.bool)
    >>> corner[:, :2, :2] = True
    >>> str(Mask(corner)), Mask(corner).described
    ('mask f9bde3ef', '4 of 16 pixels may change')
    """

    free: Tensor

    def __post_init__(self) -> None:
        if self.free.dtype != torch.bool or self.free.dim() != 3:
            raise InputError("mask", "must be bool, (1, H, W) or (C, H, W)", f"{self.free.dtype} {tuple(self.free.shape)}")
        if not bool(self.free.any()):
            raise InputError("mask", "must let at least one pixel change", "none", "white, or 1, is what may change")

    @cached_property
    def digest(self) -> str:
        """Tells masks apart: a hash of shape and values."""
        values = repr((tuple(self.free.shape), self.free.flatten().nonzero().flatten().tolist()))
        return sha256(values.encode()).hexdigest()[:8]

    @property
    def described(self) -> str:
        """How much may change, in words."""
        pixels, free = self.free[0].numel(), int(self.free.any(0).sum())
        part = int(self.free.sum()) < free * len(self.free)
        return f"{free} of {pixels} pixels may change" + (f", {int(self.free.sum())} of their channels" if part else "")

    def fit(self, shape: torch.Size) -> None:
        """Raises InputError unless it is of the size of images of this shape, (N, C, H, W)."""
        if self.free.shape[1:] != shape[2:] or len(self.free) not in (1, shape[1]):
            channels = "1 channel" if shape[1] == 1 else f"1 or {shape[1]} channels"
            rule = f"must have the size of the images, {shape[3]}x{shape[2]} pixels, and {channels}"
            got = f"{self.free.shape[2]}x{self.free.shape[1]}, {len(self.free)} channels"
            raise InputError("mask", rule, got)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        return f"mask {self.digest}"
