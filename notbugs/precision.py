"""What may be traded for speed while weights and pixels move, and what may not: whatever is counted is counted in full float32.

On a GPU torch rounds float32 inside convolutions to 10 bits (TF32) unless it is told not to, and in matrix products anywhere if
it is told to. An image that is called fooled must be so in the network's own arithmetic.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from notbugs.errors import InputError


class Switch(NamedTuple):
    """Something in torch that rounds float32: how it is turned, to what the user has turned it, and off."""

    turn: Callable[[Any], None]
    users: Any
    off: Any


_active: list[bool] = []  # an entry for each `exact` block that is open


def _switches() -> list[Switch]:
    """What rounds float32: in matrix products, and, on a GPU, in convolutions."""
    cudnn: Any = torch.backends.cudnn
    try:
        products = Switch(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision(), "highest")
        return [products, Switch(partial(setattr, cudnn, "allow_tf32"), cudnn.allow_tf32, False)]
    except RuntimeError:  # somebody has turned the newer switches (torch 2.9), and these no longer answer
        cpu: Any = torch.backends.mkldnn
        owners = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn, cpu.matmul, cpu.conv, cpu.rnn)
        return [Switch(partial(setattr, each, "fp32_precision"), each.fp32_precision, "ieee") for each in owners]


@contextmanager
def full_precision() -> Iterator[None]:
    """Full float32 inside, but for autocast around it or in it. The switches are torch's own, for the whole process."""
    switches = [] if _active else _switches()
    _active.append(True)
    try:
        for switch in switches:
            switch.turn(switch.off)
        yield
    finally:
        _active.pop()
        for switch in switches:
            switch.turn(switch.users)


def default_batch_size(device: torch.device | str, shape: Sequence[int]) -> int:
    """Images (C, H, W) in a batch where no gradients of weights are kept: more on a GPU, which few small ones leave idle."""
    return 250 if torch.device(device).type == "cpu" else max(250, min(1000, 4_000_000 // math.prod(shape)))


def compiled(function: Callable[..., Any]) -> Any:
    """A network or function as `torch.compile` makes it, once for each architecture, shape and mode, not for each network.

    That takes minutes in all. On the CPUs tried the result was slower than without (docs/lab-log.md).
    """
    config: Any = torch._dynamo.config
    config.cache_size_limit = max(config.cache_size_limit, 128)  # networks of all kinds share their outermost code
    return torch.compile(function, dynamic=False)


@cache
def check_compiler(device: str) -> None:
    """Raises BadInput where torch cannot compile: no compiler, or none that it can use."""
    try:
        torch.compile(torch.square, dynamic=False)(torch.ones(2, device=device))
    except Exception as error:  # whatever a compiler may say
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError("--compile", "must find a compiler that torch can use", said, "leave it out") from error


def autocast(device: torch.device | str, bf16: bool | None = None) -> torch.autocast:
    """A block whose convolutions and matrix products are in bfloat16, if `half` (default: see `halves`)."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=supports_bfloat16(device) if bf16 is None else bf16)


def supports_bfloat16(device: torch.device | str) -> bool:
    """Whether bfloat16 is usual: on a GPU that knows it."""
    return torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def fast_forward(
    look: Callable[[Tensor], Tensor], device: torch.device | str, *, bf16: bool | None = None, compile: bool = False
) -> Callable[[Tensor], Tensor]:
    """What a model sees, for gradient passes alone. half: see `halved`; compile: see `compiled`."""
    fast = compiled(look) if compile else look

    def seen(images: Tensor) -> Tensor:
        with autocast(device, bf16):
            return fast(images)

    return seen
