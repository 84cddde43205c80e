"""Constructed images as PNG files, one after the other in a few large files, while a data set is made that is larger than memory.

They are encoded once, by the process that made them, and copied into the form in which the data set is written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import overload

import numpy as np
import torch
from torch import Tensor

from notbugs.atomic import not_writable, part_of
from notbugs.data.images import DEFAULT, Images, LazyImages, encode_png
from notbugs.decoding.headers import EncodedImage, encoded_bytes
from notbugs.errors import InputError


class PngWriter:
    """Writes PNG files one after the other into a file, which appears whole or not at all.

    Parameters
    ----------
    path : Path
        Its folder is created.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    >>> with TemporaryDirectory() as folder:
    ...     with PngWriter(Path(folder) / "images") as writer:
    ...         ends = writer.add(images)
    ...     torch.equal(png_images([Pack(Path(folder) / "images", ends)], images.shape)[:], images)
    True
    """

    def __init__(self, path: Path) -> None:
        self.path, self.written, self._fresh = path, 0, part_of(path)

    def __enter__(self) -> "PngWriter":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._fresh.open("wb")
        except OSError as error:
            raise not_writable(self.path, error) from None
        return self

    def add(self, images: Tensor) -> Tensor:
        """Write images, uint8 (n, C, H, W). Returns where each ends in the file, int64 (n,). Raises InputError if it is full."""
        sizes = []
        for content in encode_png(images):
            try:
                self._stream.write(content)
            except OSError as error:
                raise not_writable(self.path, error) from None
            sizes.append(len(content))
        ends = torch.tensor([*accumulate(sizes, initial=self.written)][1:], dtype=torch.int64)
        self.written += sum(sizes)
        return ends

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._stream.close()
            if error is None:
                self._fresh.replace(self.path)
        except OSError as problem:
            if error is None:
                raise not_writable(self.path, problem) from None
        finally:
            self._fresh.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class Pack:
    """A file that `PngWriter` wrote. ends: where each image ends in it, int64 (n,)."""

    path: Path
    ends: Tensor

    def is_whole(self) -> bool:
        """Whether the file is there, with all of its images."""
        return self.path.exists() and self.path.stat().st_size == (int(self.ends[-1]) if len(self.ends) else 0)

    def read(self, row: int) -> bytes:
        """The PNG file of an image. Raises InputError if the file was changed meanwhile."""
        start, end = int(self.ends[row - 1]) if row else 0, int(self.ends[row])
        try:
            with self.path.open("rb") as stream:
                stream.seek(start)
                content = stream.read(end - start)
        except OSError as error:
            raise InputError(str(self.path), "cannot be read", error.strerror, "repeat the command") from None
        if len(content) < end - start:
            raise InputError(
                str(self.path), "must be as it was written", f"{len(content)} bytes of an image", "remove it and repeat"
            )
        return content


@dataclass(frozen=True, eq=False)
class PngFiles(Sequence[EncodedImage]):
    """The images of several packs, one after the other; each is read when it is indexed."""

    packs: tuple[Pack, ...]
    _starts: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", np.cumsum([0, *(len(pack.ends) for pack in self.packs)]))

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> EncodedImage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[EncodedImage]: ...
    def __getitem__(self, index: int | slice) -> EncodedImage | Sequence[EncodedImage]:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        row = range(len(self))[index]
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.packs[number].read(row - int(self._starts[number]))


def png_images(packs: Sequence[Pack], shape: Sequence[int]) -> LazyImages:
    """The images of packs, (N, C, H, W), decoded when they are indexed."""
    files = PngFiles(tuple(packs))
    places = tuple(str(pack.path) for pack in packs for _ in range(len(pack.ends)))
    return LazyImages(files, tuple(range(len(files))), places, (shape[1], shape[2], shape[3]), DEFAULT)


def as_png(images: Images) -> Iterator[bytes]:
    """Each image as a PNG file, in order: those of packs as they are."""
    if isinstance(images, LazyImages) and isinstance(images.files, PngFiles):
        return (encoded_bytes(images.files[row]) for row in images.rows)
    return encode_png(images)


def joined(parts: Sequence[Images]) -> Images:
    """Constructed images one after the other, uint8 (N, C, H, W)."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) == len(parts):
        return torch.cat(tensors)
    packs = [
        pack for part in parts if isinstance(part, LazyImages) and isinstance(part.files, PngFiles) for pack in part.files.packs
    ]
    return png_images(packs, parts[0].shape)
