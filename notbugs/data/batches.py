"""A function applied to a whole data set, batch by batch, with as large batches as there is memory for."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor

from notbugs import __version__, precision
from notbugs.atomic import atomic_write
from notbugs.data.columns import Columns
from notbugs.data.dataset import Dataset
from notbugs.data.eight_bits import from_8bit
from notbugs.data.images import Images, Repeated
from notbugs.data.sources.arrays import reading
from notbugs.data.sources.tensors import holds_its_values, load_saved
from notbugs.errors import NotbugsWarning
from notbugs.runs import ranks

Output = TypeVar("Output", Tensor, tuple[Tensor, ...])
Function = Callable[[Tensor, Tensor], Tensor | tuple[Tensor, ...]]
Progress = Callable[[int], None]  # called after each batch with its number of images
JOINED = 250  # images copied at a time


def map_batches(
    function: Callable[[Tensor, Tensor], Output],
    images: Dataset | Tensor | Repeated,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    share: bool = True,
    progress: Progress | None = None,
) -> Output:
    """Apply a function to a whole data set in order, batch by batch.

    Float32 is not rounded inside (`precision.full_precision`). Where memory runs out, the batch is halved with a warning, and the
    rest goes on with that size.

    In a stage that the ranks of a process group do together (`notbugs.runs.ranks`), each does some of the batches, and all
    return the same.

    Parameters
    ----------
    function : callable
        (images, index) -> Tensor or tuple of Tensors, each (n, …). `images` is float (n, C, H, W) on `device`; `index` is
        int64 (n,) on the CPU.
    images : Dataset, Tensor or Repeated
        A data set and a uint8 tensor reach `function` in [0, 1], a float tensor unchanged.
    batch_size : int
    device : torch.device or str
    share : bool
        False: every rank does all batches. For functions that take less time than to write and read what they return.
    progress : callable, optional
        Called with the number of images that were done since the last call, by all ranks together.

    Returns
    -------
    Tensor or tuple of Tensors
        The concatenated results, on the CPU, without gradients. In a stage of a run, images over 256 MB are in a file, of which
        only what is used takes memory.

    Examples
    --------
    >>> images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    >>> map_batches(lambda images, index: images.flatten(1).sum(1) + index, images, batch_size=2)
    tensor([0.0000, 1.2000, 3.0000])
    """
    together = ranks.together() if share else None
    work = _Map(function, images, batch_size, device)
    joined = _shared(work, together, progress) if together else work.batches(0, len(images), progress, ranks.scratch())
    return cast(Output, joined[0] if work.single else joined)


class _Map:
    """A function on the images of a data set. batch_size becomes smaller where memory runs out."""

    def __init__(
        self, function: Function, images: Dataset | Tensor | Repeated, batch_size: int, device: torch.device | str
    ) -> None:
        self.function, self.images, self.batch_size, self.device = function, images, batch_size, device
        self.single = True

    def batches(self, start: int, stop: int, progress: Progress | None = None, folder: Path | None = None) -> tuple[Tensor, ...]:
        """The results of some images, batch by batch. folder: for files of what is too large for memory."""
        results = Columns(stop - start, folder)
        while start < stop or not results.columns:  # an empty data set still goes through once, for the shapes
            batch = slice(start, min(start + self.batch_size, stop))
            chosen = self.images.images[batch] if isinstance(self.images, Dataset) else self.images[batch]
            index = torch.arange(start, start + len(chosen))
            try:
                chosen = chosen.to(self.device)
                with precision.full_precision():
                    result = self.function(chosen if chosen.is_floating_point() else from_8bit(chosen), index)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if len(chosen) < 2 or not is_out_of_memory(error):
                    raise
                self.batch_size = (len(chosen) + 1) // 2
                text = f"memory ran out: going on with {self.batch_size} images at a time"
                warnings.warn(text, NotbugsWarning, stacklevel=3)
                continue
            self.single = isinstance(result, Tensor)
            results.add([column.detach().cpu() for column in _columns(result)])
            start += len(chosen) or 1
            if progress:
                progress(len(index))
        return results.whole()


def _shared(work: _Map, together: ranks.Together, progress: Progress | None) -> tuple[Tensor, ...]:
    """The results of all images, by block: some are done here, the others by other ranks, or before the stage was killed."""
    total, size = len(work.images), work.batch_size
    name = getattr(work.function, "__qualname__", type(work.function).__name__)
    shape = tuple(work.images.images.shape if isinstance(work.images, Dataset) else work.images.shape)
    device = torch.device(work.device).type
    done_with = f"notbugs {__version__}, torch {torch.__version__}, {device}"
    blocks = together.blocks(f"{name} of {shape} by {size} with {done_with}", max(1, -(-total // size)))
    reported = 0
    for number in blocks.claimed():
        start, stop = number * size, min((number + 1) * size, total)
        if not blocks.path(number).exists():
            with ranks.alone():
                columns = work.batches(start, stop)
            content = {"single": work.single, "columns": columns}
            atomic_write(blocks.path(number), lambda stream, content=content: torch.save(content, stream))  # type: ignore[misc]
        if progress:
            progress(stop - reported)
            reported = stop
    blocks.wait()
    if progress and reported < total:
        progress(total - reported)
    results = Columns(total, blocks.folder, shared=True, writes=together.rank == 0)
    first: tuple[Tensor, ...] = ()
    for number in range(blocks.count):
        images = min((number + 1) * size, total) - number * size
        work.single, columns = _read_block(blocks.path(number), images, first)
        first = first or columns
        results.add(columns)
    return results.whole()


def _read_block(path: Path, images: int, like: Sequence[Tensor]) -> tuple[bool, tuple[Tensor, ...]]:
    """Whether the function returns one tensor, and its columns. Raises InputError if the file is not as it was written."""
    with reading(path, "unfinished work of this run", "remove it"):
        block = load_saved(path, mapped=True)
        single, columns = block["single"], tuple(block["columns"])  # type: ignore[index]  # as `_shared` made it
        if not columns or not all(holds_its_values(each) and len(each) == images for each in columns):
            raise ValueError(f"not of {images} images")
        if like and [(each.shape[1:], each.dtype) for each in columns] != [(each.shape[1:], each.dtype) for each in like]:
            raise ValueError("not of the shapes and types of the first block")
        return bool(single), columns


def joined(parts: Sequence[Images]) -> Tensor:
    """Images one after the other, uint8 (N, C, H, W): as `map_batches` returns them, in a file where they are many."""
    found = Columns(sum(map(len, parts)), ranks.scratch())
    for part in parts:
        for start in range(0, len(part), JOINED):
            found.add([part[start : start + JOINED]])
    return found.whole()[0]


def _columns(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device, or the machine, has no memory left; the CPU's has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
