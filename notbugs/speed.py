"""What may be traded for speed while pixels move, and what may not: whatever is counted is counted in full float32.

On a GPU torch rounds float32 inside convolutions to 10 bits (TF32) unless it is told not to, and in matrix products anywhere if
it is told to. That is good enough for a gradient, not for a verdict: an image that is called fooled must be so in the network's
own arithmetic.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Switch(NamedTuple):
    """Something in torch that rounds float32: how it is turned, to what the user has turned it, and off."""

    turn: Callable[[Any], None]
    users: Any
    off: Any


_open: list[list[Switch]] = []  # as each `exact` block that is open found them, the outermost first


def _switches() -> list[Switch]:
    """All that rounds float32: in matrix products, and, on a GPU alone, in convolutions."""
    cudnn: Any = torch.backends.cudnn
    try:
        products = Switch(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision(), "highest")
        return [products, Switch(partial(setattr, cudnn, "allow_tf32"), cudnn.allow_tf32, False)]
    except RuntimeError:  # somebody has turned the newer switches (torch 2.9), and these no longer answer
        owners = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
        return [Switch(partial(setattr, each, "fp32_precision"), each.fp32_precision, "ieee") for each in owners]


def _turn(switches: list[Switch], *, off: bool) -> None:
    for switch in switches:
        switch.turn(switch.off if off else switch.users)


@contextmanager
def exact() -> Iterator[None]:
    """Full float32 inside. The switches are torch's own, for the whole process."""
    _open.append(_switches())
    _turn(_open[-1], off=True)
    try:
        yield
    finally:
        _turn(_open.pop(), off=False)


@contextmanager
def rough() -> Iterator[None]:
    """Inside `exact`: gradients may round as the user lets torch round. A pass in here counts nothing."""
    switches = _open[0] if _open else []
    _turn(switches, off=False)
    try:
        yield
    finally:
        _turn(switches, off=True)


def rounds(device: torch.device | str) -> bool:
    """Whether passes in `rough` are less than float32, so that what they claim is to be confirmed."""
    switches = _open[0] if _open else _switches()
    reach = switches if torch.device(device).type == "cuda" else switches[:1]  # convolutions of a CPU do not round
    return any(switch.users != switch.off for switch in reach)


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
