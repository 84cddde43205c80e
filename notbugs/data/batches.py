"""A function applied to a whole data set, batch by batch, with as large batches as there is memory for."""

import math
import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from notbugs import __version__, precision
from notbugs.atomic import atomic_write
from notbugs.data.dataset import Dataset
from notbugs.data.eight_bits import from_8bit
from notbugs.data.images import Images, Repeated
from notbugs.data.shard_files import Rows, Shard, shard_images
from notbugs.data.shard_writers import WRITERS, ShardWriter, form_of_shards
from notbugs.data.sources.arrays import reading
from notbugs.data.sources.tensors import holds_its_values, load_saved
from notbugs.errors import NotbugsWarning
from notbugs.runs import ranks

Output = TypeVar("Output", Tensor, tuple[Tensor, ...])
Function = Callable[[Tensor, Tensor], Tensor | tuple[Tensor, ...]]
Progress = Callable[[int], None]  # called after each batch with its number of images
LARGE = 2**28  # bytes of the pixels of a data set; the results of a larger one are kept in files of the stage
MOST_BLOCKS = 512  # of a large data set: files for each batch would be many
FEW_BLOCKS, BLOCK_BYTES = 128, 2**26  # with shards: fewer, of so many bytes of pixels, unless ranks would have none to do


def map_batches(
    function: Callable[[Tensor, Tensor], Output],
    images: Dataset | Tensor | Repeated,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    share: bool = True,
    progress: Progress | None = None,
    settings: str = "",
) -> Output:
    """Apply a function to a whole data set in order, batch by batch.

    Float32 is not rounded inside (`precision.full_precision`). Where memory runs out, the batch is halved with a warning, and the
    rest goes on with that size.

    In a stage that the ranks of a process group do together (`notbugs.runs.ranks`), each does some of the batches, and all
    return the same. There, and in any stage where the images have more than 256 MB, finished batches are kept until the stage is
    recorded: after it was killed, it goes on from these.

    Parameters
    ----------
    function : callable
        (images, index) -> Tensor or tuple of Tensors, each (n, …). `images` is float (n, C, H, W) on `device`; `index` is
        int64 (n,) on the CPU. What it returns may depend on these alone, unless `share` is False.
    images : Dataset, Tensor or Repeated
        A data set and a uint8 tensor reach `function` in [0, 1], a float tensor unchanged.
    batch_size : int
    device : torch.device or str
    share : bool
        False: every rank does all batches in order, and none is kept. For functions that take less time than to write and read
        what they return, and for those that depend on what was before, as one that draws random numbers.
    progress : callable, optional
        Called with the number of images that were done since the last call, by all ranks together.
    settings : str
        What the results depend on besides and may differ when a stage is repeated, in words: batches of others are not used.

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
    work = _Map(function, images, batch_size, device, [settings])
    stage = ranks.stage() if share and (ranks.together() or work.is_large) else None
    columns = _joined(_in_blocks(work, stage, progress) if stage else [work.block(0, len(images), progress)])
    return cast(Output, columns[0] if work.single else columns)


def map_to_images(
    function: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    images: Dataset | Tensor | Repeated,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    share: bool = True,
    progress: Progress | None = None,
    settings: str = "",
    rows: Rows | None = None,
) -> tuple[Images, tuple[Tensor, ...]]:
    """The same for a function whose first result is an image, of the shape of the image that it gets, in 8 bits.

    Parameters
    ----------
    function, images, batch_size, device, share, progress, settings
        As of `map_batches`.
    rows : Rows, optional
        Labels, classes and names that the images will have.

    Returns
    -------
    (Tensor or LazyImages, tuple of Tensor)
        The images, uint8 (N, C, H, W), and the other results. In a stage, images over 256 MB are in shards in its folder of
        unfinished work, in the form of `made_as`: they are encoded as they are made, by the process that makes them.

    Examples
    --------
    >>> images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    >>> inverted, (index,) = map_to_images(lambda images, index: ((255 - 255 * images).to(torch.uint8), index), images)
    >>> inverted.flatten().tolist(), index.tolist()
    ([255, 204, 0], [0, 1, 2])
    """
    work = _Map(function, images, batch_size, device, [settings])
    stage = ranks.stage() if work.is_large or (share and ranks.together()) else None
    if stage is not None and not share:
        stage = stage.by_itself()
    if stage is not None and work.is_large:
        form = form_of_shards(rows)
        work.open_shard = partial(WRITERS.get(form, ShardWriter), rows=rows)
        work.settings.append(f"images as {form}")
    blocks = [*_in_blocks(work, stage, progress)] if stage else [work.block(0, len(images), progress)]
    first, *others = _joined(blocks)
    if not work.open_shard:
        return first, tuple(others)
    shards = [Shard(block.shard, block.columns[0]) for block in blocks if block.shard]
    return shard_images(shards, work.shape, form, rows), tuple(others)


class _Block(NamedTuple):
    """The results of some images, column by column. shard: of their images; the first column then is their places."""

    columns: tuple[Tensor, ...]
    shard: Path | None = None


@dataclass
class _Map:
    """A function on the images of a data set. batch_size becomes smaller where memory runs out. open_shard: for images."""

    function: Function
    images: Dataset | Tensor | Repeated
    batch_size: int
    device: torch.device | str
    settings: list[str]
    single: bool = True
    open_shard: Callable[..., ShardWriter] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """N, C, H, W of the images."""
        return tuple(self.images.images.shape if isinstance(self.images, Dataset) else self.images.shape)

    @property
    def is_large(self) -> bool:
        """Whether the pixels of all images have more than `LARGE` bytes."""
        return math.prod(self.shape) > LARGE

    def block(self, start: int, stop: int, progress: Progress | None = None, path: Path | None = None) -> _Block:
        """The results of some images, batch by batch. path: of the block; its shard has another name in each attempt at it."""
        own = path.with_name(f"{path.stem}-{secrets.token_hex(4)}") if path else None
        shard = self.open_shard(own, start=start) if self.open_shard and own else None
        parts: list[tuple[Tensor, ...]] = []
        with shard or nullcontext():
            for single, columns in self._batches(start, stop, progress):
                self.single = single
                if shard:
                    shard.add(columns[0])
                parts.append(columns[1:] if shard else columns)
        columns = tuple(map(torch.cat, zip(*parts, strict=True)))
        return _Block((torch.tensor(shard.places), *columns), shard.path) if shard else _Block(columns)

    def _batches(self, start: int, stop: int, progress: Progress | None) -> Iterator[tuple[bool, tuple[Tensor, ...]]]:
        """Of each batch whether the function returned one tensor, and its results, on the CPU."""
        first = True
        while start < stop or first:  # an empty data set still goes through once, for the shapes
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
                warnings.warn(text, NotbugsWarning, stacklevel=5)
                continue
            first = False
            yield isinstance(result, Tensor), tuple(column.detach().cpu() for column in _columns(result))
            start += len(chosen) or 1
            if progress:
                progress(len(index))


def _in_blocks(work: _Map, stage: ranks.Together, progress: Progress | None) -> Iterator[_Block]:
    """The results of all images, by block: some are done here, the others by other ranks, or before the stage was killed."""
    total, size = len(work.images), work.batch_size
    batches = max(1, -(-total // size))
    if work.is_large:
        size *= -(-batches // MOST_BLOCKS)
    if work.open_shard:
        wanted = min(BLOCK_BYTES, math.prod(work.shape) // FEW_BLOCKS)
        size = max(size, -(-wanted // (math.prod(work.shape[1:]) * work.batch_size)) * work.batch_size)
    name = getattr(work.function, "__qualname__", type(work.function).__name__)
    device = torch.device(work.device).type
    done_with = ", ".join(filter(None, (f"notbugs {__version__}", f"torch {torch.__version__}", device, *work.settings)))
    blocks = stage.blocks(f"{name} of {work.shape} by {work.batch_size} with {done_with}", max(1, -(-total // size)))
    reported = 0

    def report(images: int) -> None:
        nonlocal reported
        reported += images
        if progress and images:
            progress(images)

    for number in blocks.claimed():
        start, stop = number * size, min((number + 1) * size, total)
        if not blocks.path(number).exists():
            report(start - reported)  # what was there already, in one step, and what others have claimed, and nearly done
            with ranks.alone():
                found = work.block(start, stop, report, blocks.path(number))
            content = {"single": work.single, "columns": found.columns, "shard": found.shard.name if found.shard else ""}
            atomic_write(blocks.path(number), lambda stream, content=content: torch.save(content, stream))  # type: ignore[misc]
            report(stop - reported)
    blocks.wait()
    report(total - reported)
    first: tuple[Tensor, ...] = ()
    for number in range(blocks.count):
        images = min((number + 1) * size, total) - number * size
        work.single, block = _read_block(blocks.path(number), images, first, in_shard=work.open_shard is not None)
        first = first or block.columns
        yield block


def _read_block(path: Path, images: int, like: Sequence[Tensor], *, in_shard: bool) -> tuple[bool, _Block]:
    """Whether the function returns one tensor, and its results. Raises InputError if the files are not as they were written."""
    with reading(path, "unfinished work of this run", "remove it"):
        block = load_saved(path, mapped=True)
        single, columns = block["single"], tuple(block["columns"])  # type: ignore[index]  # as `_in_blocks` made it
        if not columns or not all(holds_its_values(each) and len(each) == images for each in columns):
            raise ValueError(f"not of {images} images")
        if like and [(each.shape[1:], each.dtype) for each in columns] != [(each.shape[1:], each.dtype) for each in like]:
            raise ValueError("not of the shapes and types of the first block")
        if not in_shard:
            return bool(single), _Block(columns)
        shard = path.with_name(Path(block["shard"]).name)  # type: ignore[index]
        if not shard.name.startswith(f"{path.stem}-") or not Shard(shard, columns[0]).is_whole():
            raise ValueError(f"{shard.name} beside it is not whole")
        return bool(single), _Block(columns, shard)


def _joined(blocks: Iterable[_Block]) -> tuple[Tensor, ...]:
    """The columns of all blocks, in memory."""
    parts = [block.columns for block in blocks]
    return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))


def _columns(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device, or the machine, has no memory left; the CPU's has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
