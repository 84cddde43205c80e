"""8-bit images, in memory or still encoded on disk."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from notbugs.data.decode import (
    EncodedImage,
    Size,
    as_arrays,
    common_size,
    decode,
    image_size,
    in_threads,
    map_in_threads,
    resize_images,
    stack,
)
from notbugs.data.names import Unreadable, printable, reject_unreadable
from notbugs.errors import InputError

Index = slice | list[int] | Tensor
IN_MEMORY = 2 * 2**30  # bytes of pixels above which images stay on disk and are decoded when indexed
PNG_BATCH = 1024  # images encoded at a time: a data set need not fit into memory
HEADERS = 32  # images whose headers tell whether the whole data set fits into memory


@dataclass(frozen=True)
class LazyImages:
    """Images that stay encoded until indexed: `len`, `shape` and indexing as of a uint8 tensor (N, C, H, W).

    Only the headers were checked at loading: indexing a damaged file raises InputError.

    Attributes
    ----------
    files : sequence of EncodedImage
    rows : tuple of int
        Which of the files, in order.
    locations : tuple of str
        Where each image is, for messages.
    size : (C, H, W)
    resize : int or None
        Side in pixels to which each image is resized.
    """

    files: Sequence[EncodedImage]
    rows: tuple[int, ...]
    locations: tuple[str, ...]
    size: Size
    resize: int | None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """N, C, H, W."""
        return torch.Size((len(self), *self.size))

    def __getitem__(self, index: Index) -> Tensor:
        chosen = self.select(index)
        if not len(chosen):
            return torch.empty(chosen.shape, dtype=torch.uint8)
        arrays, unreadable = map_in_threads(lambda row: decode(chosen.files[row], chosen.resize), chosen.rows, chosen.locations)
        reject_unreadable(unreadable, skip_unreadable=False)
        return stack([array for array in arrays if array is not None], chosen.locations, self.size)

    def select(self, index: Index) -> "LazyImages":
        """The images at index, still encoded."""
        kept = positions(index, len(self))
        return replace(self, rows=tuple(self.rows[i] for i in kept), locations=tuple(self.locations[i] for i in kept))


Images = Tensor | LazyImages


class LoadedImages(NamedTuple):
    """The readable images, their positions among those asked for, and the unreadable ones."""

    images: Images
    kept: list[int]
    unreadable: list[Unreadable]


def load_images(
    files: Sequence[EncodedImage] | Tensor,
    rows: Sequence[int],
    locations: Sequence[str],
    *,
    resize: int | None = None,
    skip_unreadable: bool = False,
) -> LoadedImages:
    """Decode images, or leave them on disk where they would need more than 2 GB of memory.

    Parameters
    ----------
    files : sequence of EncodedImage, or Tensor, uint8 (N, C, H, W)
    rows : sequence of int
        Which of the files.
    locations : sequence of str
        Where each of these is, for messages.
    resize : int, optional
        Side in pixels.
    skip_unreadable : bool
        Leave out what cannot be read, instead of raising InputError.
    """
    if isinstance(files, Tensor):
        images = files[list(rows)]
        return LoadedImages(resize_images(images, resize) if resize else images, list(range(len(rows))), [])
    headers, _ = map_in_threads(lambda row: image_size(files[row], resize), rows[:HEADERS], locations[:HEADERS])
    largest = max((3 * size[1] * size[2] for size in headers if size), default=0)
    read = _load_lazily if largest * len(rows) > IN_MEMORY else _decode_all
    return read(files, rows, locations, resize, skip_unreadable)


def _load_lazily(
    files: Sequence[EncodedImage], rows: Sequence[int], locations: Sequence[str], resize: int | None, skip_unreadable: bool
) -> LoadedImages:
    sizes, unreadable = map_in_threads(lambda row: image_size(files[row], resize), rows, locations)
    reject_unreadable(unreadable, skip_unreadable)
    kept = [i for i, size in enumerate(sizes) if size is not None]
    readable = [locations[i] for i in kept]
    size = common_size([cast(Size, sizes[i]) for i in kept], readable)
    return LoadedImages(LazyImages(files, tuple(rows[i] for i in kept), tuple(readable), size, resize), kept, unreadable)


def _decode_all(
    files: Sequence[EncodedImage], rows: Sequence[int], locations: Sequence[str], resize: int | None, skip_unreadable: bool
) -> LoadedImages:
    arrays, unreadable = map_in_threads(lambda row: decode(files[row], resize), rows, locations)
    reject_unreadable(unreadable, skip_unreadable)
    kept = [i for i, array in enumerate(arrays) if array is not None]
    if not kept:
        raise InputError(printable(locations[0]), "no image could be read")
    decoded = [array for array in arrays if array is not None]
    readable = [locations[i] for i in kept]
    size = common_size([(3 if array.ndim == 3 else 1, array.shape[0], array.shape[1]) for array in decoded], readable)
    return LoadedImages(stack(decoded, readable, size), kept, unreadable)


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
    return images.to(torch.float32) / 255


def encode_png(images: Images) -> Iterator[bytes]:
    """Each image as a PNG file, in order."""
    from PIL import Image

    def encode(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG", compress_level=1)  # 6 takes three times as long for a tenth less
        return buffer.getvalue()

    for start in range(0, len(images), PNG_BATCH):
        yield from in_threads(encode, list(as_arrays(images[start : start + PNG_BATCH])))


def positions(index: Index, total: int) -> list[int]:
    """The positions among `total` that an index selects, in its order."""
    return cast(list[int], torch.arange(total)[index].tolist())
