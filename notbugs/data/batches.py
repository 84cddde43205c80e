"""A function applied to a whole data set, batch by batch, with as large batches as there is memory for."""

import warnings
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor

from notbugs import precision
from notbugs.data.dataset import Dataset
from notbugs.data.eight_bits import from_8bit
from notbugs.errors import NotbugsWarning

Output = TypeVar("Output", Tensor, tuple[Tensor, ...])


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
