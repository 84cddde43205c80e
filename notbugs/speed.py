"""What may be traded for speed while pixels move, and what may not: whatever is counted is counted in full float32.

On a GPU torch rounds float32 inside convolutions to 10 bits (TF32) unless it is told not to. That is good enough for a gradient,
not for a verdict: an image that is called fooled must be so in the network's own arithmetic.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Switch = tuple[Any, str, Any, Any]  # of what in torch, its name, as it was, and off

_users: list[list[Switch]] = []  # as the `exact` blocks that are open found them, the outermost first


def _switches() -> list[Switch]:
    """All that rounds float32 on a GPU."""
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    try:
        return [(owner, "allow_tf32", owner.allow_tf32, False) for owner in (matmul, cudnn)]
    except RuntimeError:  # somebody has turned the newer switches (torch 2.9), and these no longer answer
        name = "fp32_precision"
        return [(owner, name, getattr(owner, name), "ieee") for owner in (matmul, cudnn.conv, cudnn.rnn)]


def _turn(switches: list[Switch], *, off: bool) -> None:
    for owner, name, before, exactly in switches:
        setattr(owner, name, exactly if off else before)


@contextmanager
def exact(device: torch.device | str) -> Iterator[None]:
    """Full float32 inside, on a GPU; elsewhere nothing rounds. The switches are torch's own, for the whole process."""
    if torch.device(device).type != "cuda":
        yield
        return
    _users.append(_switches())
    _turn(_users[-1], off=True)
    try:
        yield
    finally:
        _turn(_users.pop(), off=False)


@contextmanager
def rough(device: torch.device | str) -> Iterator[None]:
    """Inside `exact`: gradients may round as the user lets torch round. A pass in here counts nothing."""
    if torch.device(device).type != "cuda" or not _users:
        yield
        return
    _turn(_users[0], off=False)
    try:
        yield
    finally:
        _turn(_users[0], off=True)


def rounds(device: torch.device | str) -> bool:
    """Whether passes in `rough` are less than float32, so that what they claim is to be confirmed."""
    if torch.device(device).type != "cuda":
        return False
    return any(before != off for _, _, before, off in (_users[0] if _users else _switches()))


def at_once(device: torch.device | str) -> int:
    """Images in a batch where no gradients of weights are kept; too many for the memory are halved (`data.sweep`)."""
    return 250 if torch.device(device).type == "cpu" else 1000  # a small network's kernels leave a GPU idle on fewer


def compiled(function: Callable[..., Any]) -> Any:
    """A network or function as `torch.compile` makes it, once for each architecture and shape, not once for each network.

    Takes about a minute first. On the CPUs tried the result was slower than without (docs/lab-log.md).
    """
    config: Any = torch._dynamo.config
    config.cache_size_limit = max(config.cache_size_limit, 128)  # networks of all kinds share their outermost code
    return torch.compile(function, dynamic=False)


def halved(device: torch.device | str, half: bool | None = None) -> torch.autocast:
    """A block whose convolutions and matrix products are in bfloat16, if `half` (default: on a GPU)."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" if half is None else half)


def quick(
    look: Callable[[Tensor], Tensor], device: torch.device | str, *, half: bool | None = None, compile: bool = False
) -> Callable[[Tensor], Tensor]:
    """What a model sees, for gradient passes alone. half: see `halved`; compile: see `compiled`."""
    fast = compiled(look) if compile else look

    def seen(images: Tensor) -> Tensor:
        with halved(device, half):
            return fast(images)

    return seen
