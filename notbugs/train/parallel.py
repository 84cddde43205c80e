"""Training by several ranks: each takes a part of every batch, and the gradients are those of the whole batch."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from notbugs.errors import InputError
from notbugs.runs import ranks
from notbugs.runs.torchrun import open_group

BUFFERS = max({"forward_sync_buffers", "broadcast_buffers"} & {*signature(DistributedDataParallel).parameters})  # the newer
UNUSED = "Expected to have finished reduction"  # what DistributedDataParallel says of parameters without gradients


class Share(NamedTuple):
    """What this rank takes of each batch.

    Attributes
    ----------
    rank, world_size : int
        0 and 1 for a process that trains alone.
    """

    rank: int = 0
    world_size: int = 1

    def slice_of(self, index: Tensor) -> Tensor:
        """This rank's part of a batch; where there are more ranks than pairs of images, () for those that have no part.

        Two images or more: batch norm cannot train on one.
        """
        parts = index.tensor_split(min(self.world_size, max(1, len(index) // 2)))
        return parts[self.rank] if self.rank < len(parts) else index[:0]

    def weight(self, taken: int, total: int) -> float:
        """By which the mean loss of `taken` images counts: gradients are averaged over ranks, those of a batch over images."""
        return self.world_size * taken / total

    def seed(self, seed: int, epoch: int) -> int:
        """Of augmentation and dropout in an epoch: ranks must not draw the same."""
        return zlib.crc32(f"{seed}/{self.rank}/{epoch}".encode())


def share_of(together: ranks.Together | None) -> Share:
    """This rank's share in a stage; all ranks call this at the same place."""
    if together is None or together.count == 1:
        return Share()
    open_group(together)
    return Share(together.rank, together.count)


def distributed(model: nn.Module, forward: nn.Module, share: Share) -> nn.Module:
    """The module whose gradients are averaged over the ranks; itself for one rank. forward: the model, or compiled."""
    if share.world_size == 1:
        return forward
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else None
    # sent once an epoch: at every pass they would change between the two passes of TRADES. torch 2.13 has another name for it
    return DistributedDataParallel(forward, device_ids=devices, **{BUFFERS: False})  # type: ignore[arg-type]


def summed(values: Tensor, share: Share) -> Tensor:
    """The sum over the ranks."""
    if share.world_size > 1:
        torch.distributed.all_reduce(values)
    return values


def send_buffers(model: nn.Module, share: Share) -> None:
    """Let all ranks have the buffers of the first one: each has the batch-norm statistics of its own images."""
    if share.world_size > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


def from_first(value: object, share: Share) -> object:
    """What the first rank has, on all ranks."""
    if share.world_size == 1:
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, 0)
    return values[0]


@contextmanager
def explained() -> Iterator[None]:
    """Raises InputError where a network does not use all of its parameters, which the ranks would wait for."""
    try:
        yield
    except RuntimeError as error:
        if UNUSED not in str(error):
            raise
        rule = "must use all of its parameters in each forward pass where several processes train it together"
        raise InputError("--network", rule, remedy="train it in one process") from None
