"""The one type that every stage passes on: labelled images, in memory or still on disk; and a function swept over them."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from posixpath import splitext
from typing import Any, cast

import torch
from torch import Tensor

from notbugs import precision
from notbugs.data.decode import Source, decode, each, stack
from notbugs.data.names import reject_unreadable
from notbugs.errors import InputError

Index = slice | list[int] | Tensor


@dataclass(frozen=True)
class LazyImages:
    """Images that stay encoded until indexed: behaves like a uint8 tensor (N, C, H, W) under `len`, `shape` and indexing.

    Of a damaged file only the header was seen when it was read in; indexing it raises BadInput.
    """

    files: Sequence[Source]
    rows: tuple[int, ...]  # which of the files, in order
    names: tuple[str, ...]  # for messages
    size: tuple[int, int, int]  # C, H, W
    resize: int | None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self.size))

    def __getitem__(self, index: Index) -> Tensor:
        part = self.select(index)
        if not len(part):
            return torch.empty(part.shape, dtype=torch.uint8)
        arrays, bad = each(lambda row: decode(part.files[row], part.resize), part.rows, part.names)
        reject_unreadable(bad, skip_bad=False)
        return stack([array for array in arrays if array is not None], part.names, self.size)

    def select(self, index: Index) -> "LazyImages":
        """The same, fewer; still encoded."""
        kept = positions(index, len(self))
        return replace(self, rows=tuple(self.rows[i] for i in kept), names=tuple(self.names[i] for i in kept))


Images = Tensor | LazyImages


@dataclass(frozen=True)
class Dataset:
    """N labelled images. images: uint8 (N, C, H, W), C 1 or 3; labels: int64 (N,), index into classes; names: one per image."""

    images: Images
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.names):
            counts = f"{len(self.images)} images, {len(self.labels)} labels, {len(self.names)} names"
            raise InputError("dataset", "needs one label and one name for each image", counts)
        if len(self.images.shape) != 4 or (isinstance(self.images, Tensor) and self.images.dtype != torch.uint8):
            raise InputError("images", "must be 8-bit, N x C x H x W", tuple(self.images.shape), "see to_8bit")
        if self.labels.dtype != torch.int64:
            raise InputError("labels", "must be int64", self.labels.dtype)
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            got = f"{int(self.labels.min())} to {int(self.labels.max())}"
            raise InputError("labels", f"must be from 0 to {len(self.classes) - 1}", got)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def pixels(self, index: Index) -> Tensor:
        """The images at index, float32 (n, C, H, W) in [0, 1]."""
        return from_8bit(self.images[index])

    def select(self, index: Index) -> "Dataset":
        """The subset at index, in its order."""
        images = self.images[index] if isinstance(self.images, Tensor) else self.images.select(index)
        names = tuple(self.names[i] for i in positions(index, len(self)))
        return Dataset(images, self.labels[index], self.classes, names)

    def repeat(self, times: int) -> "Dataset":
        """The set so many times over, one after the other; what is a.png is a~2.png the second time, a~3.png the third.

        Raises BadInput where a file of such a name is there.
        """
        if times == 1:
            return self
        names = self.repeated_names(times)
        return replace(self.select(torch.arange(len(self)).repeat(times)), names=names)

    def repeated_names(self, times: int) -> tuple[str, ...]:
        """The names in `repeated`."""
        if times == 1:
            return self.names
        names = list(self.names)
        for number in range(2, times + 1):
            names += [f"~{number}".join(splitext(name)) for name in self.names]
        if len(set(names)) < len(set(self.names)) * times:
            raise InputError("times", "must leave files apart, each version having a name", "files called NAME~2", "rename them")
        return tuple(names)

    def with_images(self, images: Tensor) -> "Dataset":
        """The same labels and names on other images, uint8 (N, C, H, W)."""
        return replace(self, images=images)

    def with_labels(self, labels: Tensor) -> "Dataset":
        """The same images and names with other labels, int64 (N,)."""
        return replace(self, labels=labels)


def to_8bit(images: Tensor) -> Tensor:
    """What a file holds of float images in [0, 1]: uint8, nearest of the 256 levels."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def from_8bit(images: Tensor) -> Tensor:
    """float32 in [0, 1] from uint8; `to_8bit` takes it back exactly."""
    return images.to(torch.float32) / 255


def map_batches(
    function: Callable[[Tensor, Tensor], Any],
    images: Dataset | Tensor,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Any:
    """function(images, index) over a whole set in order, batch by batch; its results joined, on the CPU, without gradients.

    images reach function as float (n, C, H, W) on device, a Dataset's and a uint8 tensor's in [0, 1], a float tensor's as they
    are; index: int64 (n,) on the CPU. Returns a tensor, or a tuple of tensors if function returns one.
    float32 is not rounded inside (`speed.exact`).
    Where memory runs out the batch is halved, with a warning, and the rest goes on with that size.
    """
    results: list[tuple[Tensor, ...]] = []
    single, start = True, 0
    while start < len(images) or not results:  # an empty set still asks once, for the shapes
        batch = slice(start, start + batch_size)
        chosen = images.images[batch] if isinstance(images, Dataset) else images[batch]
        index = torch.arange(start, start + len(chosen))
        try:
            chosen = chosen.to(device)
            with precision.full_precision():
                result = function(chosen if chosen.is_floating_point() else from_8bit(chosen), index)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if len(chosen) < 2 or not is_out_of_memory(error):
                raise
            batch_size = (len(chosen) + 1) // 2
            warnings.warn(f"memory ran out: going on with {batch_size} images at a time", RuntimeWarning, stacklevel=2)
            continue
        single = isinstance(result, Tensor)
        results.append(tuple(one.detach().cpu() for one in ((result,) if single else result)))
        start += len(chosen) or 1
    joined = tuple(torch.cat(column) for column in zip(*results, strict=True))
    return joined[0] if single else joined


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device, or the machine, has no memory left; the CPU's has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def positions(index: Index, total: int) -> list[int]:
    """Which of `total` places an index means, in its order."""
    return cast(list[int], torch.arange(total)[index].tolist())
