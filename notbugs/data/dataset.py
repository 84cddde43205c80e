"""The one type that every stage passes on: labeled images, in memory or on disk; and batched evaluation of a function on them."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from posixpath import splitext
from typing import TypeVar, cast

import torch
from torch import Tensor

from notbugs import precision
from notbugs.data.images import Images, Index, from_8bit, positions
from notbugs.errors import InputError, NotbugsWarning

Output = TypeVar("Output", Tensor, tuple[Tensor, ...])


@dataclass(frozen=True)
class Dataset:
    """N labeled images.

    Parameters
    ----------
    images : Tensor or LazyImages, uint8, (N, C, H, W)
        C is 1 (gray) or 3 (RGB).
    labels : Tensor, int64, (N,)
        Indices into `classes`.
    classes : tuple of str, (K,)
        Class names.
    names : tuple of str, (N,)
        File names, "CLASS/file.png" as a rule.
    groups : tuple of str, (N,), or empty
        What belongs together, frames of one video for example: see `DataConfig.group`.

    Raises
    ------
    InputError
        If lengths, types or label range do not fit together.

    Examples
    --------
    >>> images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    >>> dataset = Dataset(images, torch.tensor([0, 1, 0]), ("cat", "dog"), ("a.png", "b.png", "c.png"))
    >>> len(dataset), dataset.shape, dataset.select([1]).names
    (3, (1, 8, 8), ('b.png',))
    """

    images: Images
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.names):
            counts = f"{len(self.images)} images, {len(self.labels)} labels, {len(self.names)} names"
            raise InputError("dataset", "needs one label and one name for each image", counts)
        if len(self.groups) not in (0, len(self.labels)):
            raise InputError("groups", "must be one for each image, or none", f"{len(self.groups)} for {len(self.labels)} images")
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
        """C, H, W of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def pixels(self, index: Index) -> Tensor:
        """The images at index as float32 (n, C, H, W) in [0, 1]."""
        return from_8bit(self.images[index])

    def select(self, index: Index) -> "Dataset":
        """The subset at index, in the order of index."""
        images = self.images[index] if isinstance(self.images, Tensor) else self.images.select(index)
        chosen = positions(index, len(self))
        names, groups = (tuple(values[i] for i in chosen) if values else () for values in (self.names, self.groups))
        return Dataset(images, self.labels[index], self.classes, names, groups)

    def repeat(self, times: int) -> "Dataset":
        """The data set several times over: a.png is named a~2.png in the second copy, a~3.png in the third.

        Raises
        ------
        InputError
            If such a name is already taken.
        """
        if times == 1:
            return self
        names = self.repeated_names(times)
        return replace(self.select(torch.arange(len(self)).repeat(times)), names=names)

    def repeated_names(self, times: int) -> tuple[str, ...]:
        """The names of `repeat(times)`."""
        if times == 1:
            return self.names
        names = list(self.names)
        for number in range(2, times + 1):
            names += [f"~{number}".join(splitext(name)) for name in self.names]
        if len(set(names)) < len(set(self.names)) * times:
            raise InputError("versions", "need file names that are not taken", "files called NAME~2", "rename them")
        return tuple(names)

    def with_images(self, images: Tensor) -> "Dataset":
        """The same labels and names with other images, uint8 (N, C, H, W)."""
        return replace(self, images=images)

    def with_labels(self, labels: Tensor) -> "Dataset":
        """The same images and names with other labels, int64 (N,)."""
        return replace(self, labels=labels)


def map_batches(
    function: Callable[[Tensor, Tensor], Output],
    images: Dataset | Tensor,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Output:
    """Apply a function to a whole data set in order, batch by batch.

    Float32 is not rounded inside (`precision.full_precision`). Where memory runs out, the batch is halved with a warning, and the
    rest goes on with that size.

    Parameters
    ----------
    function : callable
        (images, index) -> Tensor or tuple of Tensors, each (n, …). `images` is float (n, C, H, W) on `device`; `index` is
        int64 (n,) on the CPU.
    images : Dataset or Tensor
        A data set and a uint8 tensor reach `function` in [0, 1], a float tensor unchanged.
    batch_size : int
    device : torch.device or str

    Returns
    -------
    Tensor or tuple of Tensors
        The concatenated results, on the CPU, without gradients.

    Examples
    --------
    >>> images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    >>> map_batches(lambda images, index: images.flatten(1).sum(1) + index, images, batch_size=2)
    tensor([0.0000, 1.2000, 3.0000])
    """
    results: list[tuple[Tensor, ...]] = []
    single, start = True, 0
    while start < len(images) or not results:  # an empty data set still goes through once, for the shapes
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
            warnings.warn(f"memory ran out: going on with {batch_size} images at a time", NotbugsWarning, stacklevel=2)
            continue
        single = isinstance(result, Tensor)
        results.append(tuple(column.detach().cpu() for column in _columns(result)))
        start += len(chosen) or 1
    joined = tuple(torch.cat(parts) for parts in zip(*results, strict=True))
    return cast(Output, joined[0] if single else joined)


def _columns(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device, or the machine, has no memory left; the CPU's has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
