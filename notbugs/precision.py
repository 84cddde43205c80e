"""TF32, bfloat16 and torch.compile: used for gradients of images and weights, never for a published figure.

On a GPU torch rounds float32 inside convolutions to 10 bits (TF32) by default, and inside matrix products if the user allows it.
An image counts as misclassified only if the model misclassifies it in full float32.
"""

import math
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from notbugs.errors import InputError, one_line

# Of a batch where no gradients of weights are kept. The features of 250 photographs of 224x224 took 2.1 GB, where 26 take 0.3
BATCH_VALUES = 4_000_000


class _Setting(NamedTuple):
    """A setting of torch that rounds float32: how to set it, its value now, those for full precision and for TF32 on a GPU."""

    set: Callable[[Any], None]
    now: Any
    full: Any
    tf32: Any


_active: list[bool] = []  # one entry per open block of `full_precision` or `tf32`


@cache
def _let_torch_warn() -> None:
    """torch 2.9 for GPUs says once that it will have newer settings, which older versions do not know."""
    with warnings.catch_warnings(), suppress(RuntimeError):  # see `_settings`
        warnings.simplefilter("ignore")
        torch.set_float32_matmul_precision(torch.get_float32_matmul_precision())
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32


def _settings() -> list[_Setting]:
    """What may round float32: matrix products and, on a GPU, convolutions."""
    cudnn: Any = torch.backends.cudnn
    _let_torch_warn()
    try:
        products = _Setting(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision(), "highest", "high")
        return [products, _Setting(partial(setattr, cudnn, "allow_tf32"), cudnn.allow_tf32, False, True)]
    except RuntimeError:  # raised once the user has set one of the newer settings (torch 2.9)
        cpu: Any = torch.backends.mkldnn
        owners = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn, cpu.matmul, cpu.conv, cpu.rnn)
        return [_Setting(partial(setattr, owner, "fp32_precision"), owner.fp32_precision, "ieee", "tf32") for owner in owners]


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in full float32 inside the block, unless inside `tf32`; autocast around it or in it still applies.

    The settings are torch's own and hold for the whole process. The user's values are restored afterwards.
    """
    settings = [] if _active else _settings()
    with _applied([(setting.set, setting.full, setting.now) for setting in settings]):
        yield


@contextmanager
def tf32(device: torch.device | str) -> Iterator[None]:
    """Let a GPU round float32 to 10 bits inside the block, about four times as fast; on a CPU nothing changes.

    For searches only: what they found is evaluated again in full float32, outside.

    Parameters
    ----------
    device : torch.device or str
    """
    if torch.device(device).type != "cuda":
        yield
        return
    with _applied([(setting.set, setting.tf32, setting.now) for setting in _settings()]):
        yield


@contextmanager
def _applied(changes: list[tuple[Callable[[Any], None], Any, Any]]) -> Iterator[None]:
    """Settings with their values inside the block and afterwards; blocks of `full_precision` inside change nothing."""
    _active.append(True)
    try:
        for apply, value, _ in changes:
            apply(value)
        yield
    finally:
        _active.pop()
        for apply, _, before in changes:
            apply(before)


def bounded_batch_size(most: int, device: torch.device | str, shape: Sequence[int]) -> int:
    """At most so many images, of large ones fewer: 4 million values together. On a GPU, which small batches leave idle, 250.

    Parameters
    ----------
    most : int
    device : torch.device or str
    shape : sequence of int
        (C, H, W) of an image.

    Examples
    --------
    >>> bounded_batch_size(500, "cpu", (3, 32, 32)), bounded_batch_size(500, "cpu", (3, 224, 224))
    (500, 26)
    """
    least = 1 if torch.device(device).type == "cpu" else min(250, most)
    return max(least, min(most, BATCH_VALUES // math.prod(shape)))


def default_batch_size(device: torch.device | str, shape: Sequence[int]) -> int:
    """Batch size where no gradients of weights are kept: 250 on a CPU, 1,000 on a GPU; of large images fewer.

    Parameters
    ----------
    device, shape
        As for `bounded_batch_size`.

    Examples
    --------
    >>> default_batch_size("cpu", (3, 32, 32)), default_batch_size("cuda", (3, 32, 32)), default_batch_size("cpu", (3, 224, 224))
    (250, 1000, 26)
    """
    return bounded_batch_size(250 if torch.device(device).type == "cpu" else 1000, device, shape)


def compiled(function: Callable[..., Any]) -> Any:
    """A model or function compiled by `torch.compile`, once per architecture, shape and mode, not once per model.

    Compiling takes minutes in all. On the CPUs tested the result was slower than without (docs/lab-log.md).
    """
    config: Any = torch._dynamo.config
    config.cache_size_limit = max(config.cache_size_limit, 128)  # all architectures share the code of their outermost module
    return torch.compile(function, dynamic=False)


@cache
def check_compiler(device: str) -> None:
    """Raise InputError if torch finds no compiler that it can use on the device."""
    try:
        torch.compile(torch.square, dynamic=False)(torch.ones(2, device=device))
    except Exception as error:  # a compiler may raise anything
        reason = one_line(f"{type(error).__name__}: {error}")
        raise InputError("--compile", "must find a compiler that torch can use", reason, "leave it out") from error


def autocast(device: torch.device | str, bf16: bool | None = None) -> torch.autocast:
    """Context whose convolutions and matrix products run in bfloat16.

    Parameters
    ----------
    device : torch.device or str
    bf16 : bool, optional
        False leaves everything in float32. Default: `supports_bfloat16(device)`.
    """
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=supports_bfloat16(device) if bf16 is None else bf16)


def first_available(names: Sequence[str]) -> str:
    """The first of these devices that this machine has. Raises InputError if it has none."""
    for name in names:
        try:
            torch.zeros(1, device=name)
            return name
        except (RuntimeError, AssertionError) as error:
            missing = str(error).splitlines()[0]
    raise InputError("--device", "must be available on this machine", f"{name} on {socket.gethostname()}", missing)


def is_present(device: str) -> bool:
    """Whether this machine has the device, free or not.

    Examples
    --------
    >>> is_present("cpu"), is_present("cuda:99")
    (True, False)
    """
    found = torch.device(device)
    if found.type == "cuda":
        return torch.cuda.is_available() and (found.index or 0) < torch.cuda.device_count()
    return found.type != "mps" or torch.backends.mps.is_available()


def supports_bfloat16(device: torch.device | str) -> bool:
    """Whether the device is a GPU with bfloat16 arithmetic (emulation does not count)."""
    return torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def fast_forward(
    forward: Callable[[Tensor], Tensor], device: torch.device | str, *, bf16: bool | None = None, compile: bool = False
) -> Callable[[Tensor], Tensor]:
    """The forward pass at the speed that gradients allow: in bfloat16, compiled, or both. Not for figures.

    Parameters
    ----------
    forward : callable
        Images (N, C, H, W) to outputs (N, …).
    device : torch.device or str
    bf16 : bool, optional
        See `autocast`.
    compile : bool
        See `compiled`.
    """
    fast = compiled(forward) if compile else forward

    def autocast_forward(images: Tensor) -> Tensor:
        with autocast(device, bf16):
            return fast(images)

    return autocast_forward
