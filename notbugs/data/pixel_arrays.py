"""Arrays of images in files: shape and type are known first, and the pixels are read a few rows at a time once rows are chosen.

So that one copy of the pixels is in memory at most, whatever the file holds them as.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from notbugs.data.names import printable
from notbugs.errors import InputError

PIECE = 2**22  # bytes read at a time, if a row takes no more
LAST_CHARACTER = 0x10FFFF  # of Unicode


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array in a file, or in memory. pieces: reads its rows in order, a few at a time, each time it is called."""

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Callable[[], Iterator[np.ndarray]]

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    @classmethod
    def of(cls, array: np.ndarray) -> "StoredArray":
        """An array in memory, or mapped into it.

        Examples
        --------
        >>> [len(rows) for rows in StoredArray.of(np.zeros((5, 2**21), np.uint8)).pieces()]
        [2, 2, 1]
        """
        if not array.ndim:
            return cls((), array.dtype, lambda: iter((array,)))
        step = rows_of_piece(array.shape, array.dtype)
        return cls(array.shape, array.dtype, lambda: (array[start : start + step] for start in range(0, len(array), step)))


def rows_of_piece(shape: Sequence[int], dtype: np.dtype) -> int:
    """How many rows of an array are read at a time."""
    return max(1, PIECE // max(1, int(np.prod(shape[1:], dtype=object)) * dtype.itemsize))


def read_pieces(
    opened: Callable[[], AbstractContextManager[BinaryIO]], shape: tuple[int, ...], dtype: np.dtype
) -> Iterator[np.ndarray]:
    """The rows of an array whose bytes follow each other in a stream. Raises EOFError where it ends too early."""
    step = rows_of_piece(shape, dtype)
    with opened() as stream:
        for start in range(0, shape[0], step):
            rows = np.empty((min(step, shape[0] - start), *shape[1:]), dtype)
            _fill(stream, rows.reshape(-1).view(np.uint8))
            check_text(rows)
            yield rows


def check_text(array: np.ndarray) -> None:
    """Raises ValueError where text has characters that do not exist: Python cannot make a word of them."""
    for name in array.dtype.names or ():
        check_text(array[name])
    if array.dtype.kind == "U" and array.size:
        numbers = np.ascontiguousarray(array).reshape(-1).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if int(numbers.max(initial=0)) > LAST_CHARACTER:
            raise ValueError("it holds text of characters that do not exist")


def _fill(stream: BinaryIO, wanted: np.ndarray) -> None:
    """Read as many bytes: a stream that unpacks gives fewer at a time."""
    done = 0
    while done < len(wanted):
        content = stream.read(len(wanted) - done)
        if not content:
            raise EOFError("it ends in the middle of its pixels")
        wanted[done : done + len(content)] = np.frombuffer(content, np.uint8)
        done += len(content)


def channels_of(array: StoredArray, location: str) -> str:
    """Where an image array has its channels: "last" (also for gray N x H x W) or "first"."""
    if array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3)):
        return "last"
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return "first"
    raise InputError(
        location, "must be N x H x W, N x H x W x 3 or N x 3 x H x W", f"shape {array.shape}", _other_shape(array.shape)
    )


def _other_shape(shape: tuple[int, ...]) -> str:
    """How to save images of another shape."""
    if len(shape) == 4 and shape[2] in (1, 3):
        return "if the images are counted last: save images.transpose(3, 0, 1, 2)"
    if len(shape) == 4 and 2 in (shape[1], shape[3]):
        return "save one of the channels: images[:, 0]" if shape[1] == 2 else "save one of the channels: images[..., 0]"
    if len(shape) == 4:
        last = shape[1] == shape[2] or (shape[2] != shape[3] and shape[3] < shape[1])
        return f"save three of the channels: images[{'...' if last else ':'}, :3]"
    how = "save images.reshape(-1, height, width), or (-1, height, width, 3), as the pixels are ordered"
    return how if len(shape) == 2 else "save one image for each label"


def channels_note(array: StoredArray, location: str) -> str:
    """A note where an image array may have its channels first or last; "" for others."""
    both = array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] in (1, 3)
    return f"{printable(location)} has the shape {array.shape}: its last axis is read as the channels" if both else ""


@dataclass(frozen=True, eq=False)
class PixelArrays:
    """Images of arrays, one after the other, as 8-bit images (N, C, H, W). arrays: each with its place, for messages."""

    arrays: tuple[tuple[StoredArray, str], ...]

    @classmethod
    def of(cls, array: StoredArray, location: str) -> "PixelArrays":
        """The images of one array, once its shape and type are checked; its values are when they are read.

        Raises
        ------
        InputError
            Unless it holds 8-bit pixels, or floats.
        """
        if 0 in array.shape[1:]:
            raise InputError(location, "must have pixels", f"shape {array.shape}", "save the images again")
        if array.dtype.kind != "f" and array.dtype != np.uint8:
            raise InputError(location, "must hold 8-bit pixels (uint8)", *_other_pixels(array))
        channels_of(array, location)
        return cls(((array, location),))

    def __len__(self) -> int:
        return sum(len(array) for array, _ in self.arrays)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (image for piece in self.pieces() for image in piece)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W."""
        array, location = self.arrays[0]
        first, second, third = array.shape[1:] if array.ndim == 4 else (1, *array.shape[1:])
        last = array.ndim == 4 and channels_of(array, location) == "last"
        return (len(self), third, first, second) if last else (len(self), first, second, third)

    def pieces(self) -> Iterator[np.ndarray]:
        """The images in order, uint8 (n, C, H, W), a few at a time. Raises InputError for floats that are not exactly k/255."""
        for array, location in self.arrays:
            channels = channels_of(array, location)
            for piece in array.pieces():
                levels = piece if array.dtype == np.uint8 else _levels(piece)
                if levels is None:
                    raise _not_levels(array, location)
                if levels.ndim == 3:
                    yield levels[:, None]
                else:
                    yield levels.transpose(0, 3, 1, 2) if channels == "last" else levels

    def chosen(self, rows: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The images at some rows, in the order of the file: their positions in `rows`, and the images.

        Examples
        --------
        >>> images = np.arange(8, dtype=np.uint8).reshape(4, 1, 2)
        >>> pixels = PixelArrays.of(StoredArray.of(images), "images")
        >>> [(where.tolist(), found.ravel().tolist()) for where, found in pixels.chosen([3, 1])]
        [([1, 0], [2, 3, 6, 7])]
        """
        wanted = np.asarray(rows, dtype=np.int64)
        order = np.argsort(wanted, kind="stable")
        wanted = wanted[order]
        start = 0
        for piece in self.pieces():
            first, last = np.searchsorted(wanted, (start, start + len(piece)))
            if first < last:
                yield order[first:last], piece[wanted[first:last] - start]
            start += len(piece)

    def read(self, rows: Sequence[int]) -> Tensor:
        """The images at some rows, in their order."""
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for positions, found in self.chosen(rows):
            images[positions] = found
        return torch.from_numpy(images)


def _other_pixels(array: StoredArray) -> tuple[str, str]:
    """What pixels that are not 8-bit are, and how to save them: a plain conversion would turn 256 into 0, and True into 1."""
    if array.dtype == bool:
        return "bool", "save (255 * images.astype('uint8'))"
    if array.dtype.kind not in "iu" or not len(array):
        return str(array.dtype), "save whole numbers from 0 to 255 as uint8"
    limits = [(int(piece.min()), int(piece.max())) for piece in array.pieces()]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    whole = low >= 0 and high <= 255
    remedy = "save it with .astype('uint8')" if whole else "scale them to 0 to 255 before .astype('uint8')"
    return f"{array.dtype} from {low:,} to {high:,}", remedy


def _levels(floats: np.ndarray) -> np.ndarray | None:
    """Floats in [0, 1] as the levels of 8 bits; None unless they are exactly such levels."""
    if not np.isfinite(floats).all() or floats.min() < 0 or floats.max() > 1:
        return None
    scaled = floats * 255
    levels = np.round(scaled)
    if np.abs(scaled - levels).max() > (0.2 if floats.dtype == np.float16 else 1e-3):
        return None
    return levels.astype(np.uint8)


def _not_levels(array: StoredArray, location: str) -> InputError:
    """Why floats are no 8-bit pixels, by all of them."""
    remedy = "save (255 * images).round().astype('uint8')"
    low, high = np.inf, -np.inf
    for piece in array.pieces():
        if not np.isfinite(piece).all():
            rows = f"leave such images out, then {remedy}"
            return InputError(location, "must hold 8-bit pixels", "NaN or infinite values", rows)
        low, high = min(low, float(piece.min())), max(high, float(piece.max()))
    if low < 0 or high > 1:
        how = "scale them to 0 to 255 and save them as uint8"
        if low >= -1 and high <= 1:
            how += ": ((images + 1) * 127.5).round().astype('uint8')"
        how = "save images.round().astype('uint8')" if low >= 0 and high <= 255 else how
        return InputError(location, "must hold 8-bit pixels", f"floats from {low:g} to {high:g}", how)
    return InputError(location, "must hold 8-bit pixels", "floats that are no multiples of 1/255", remedy)
