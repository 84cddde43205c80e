"""Gradients through what has none: steps such as rounding pass them on as if they were straight."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

from notbugs import goals
from notbugs.attacks.door import Model

FLAT = {getattr(where, name) for where in (torch, Tensor) for name in ("round", "floor", "ceil", "trunc", "fix", "sign", "sgn")}
INSIDE = {getattr(Tensor, f"{name}_") for name in ("round", "floor", "ceil", "trunc", "fix", "sign", "sgn")}
QUOTIENTS = {torch.floor_divide, Tensor.floor_divide, Tensor.__floordiv__, Tensor.floor_divide_}


class _AsIf(torch.autograd.Function):
    """Forward the exact value, to the last bit; backward as if it were the smooth one."""

    @staticmethod
    def forward(_: Any, smooth: Tensor, exact: Tensor) -> Tensor:
        return exact.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _as_if(smooth: Tensor, exact: Tensor) -> Tensor:
    found: Tensor = _AsIf.apply(smooth, exact.to(smooth.dtype))  # type: ignore[no-untyped-call]
    return found


class _Straight(TorchFunctionMode):
    """Rounding, signs and whole quotients pass gradients on; `met` tells whether there were any."""

    met = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first, kwargs = args[0] if args else None, kwargs or {}
        if not isinstance(first, Tensor) or not first.requires_grad or func not in FLAT | INSIDE | QUOTIENTS:
            return func(*args, **kwargs)
        self.met = True
        smooth = first.clone() if func in INSIDE else first / args[1] if func in QUOTIENTS else first
        with torch.no_grad():
            exact = func(first.detach().clone(), *args[1:], **kwargs)
        found = _as_if(smooth, exact)
        return first.copy_(found) if func in INSIDE or func is Tensor.floor_divide_ else found


def straight_through(model: Model, images: Tensor) -> Model | None:
    """The same model, to the last bit, whose gradients go straight through steps; None where none is met on these images.

    A step is a call of round, floor, ceil, trunc, sign or //, or a module that returns as many values as it takes in but
    loses the gradient on the way (8-bit casts, thresholds, another library's code).
    Source: backward pass differentiable approximation, Athalye et al. 2018, section 4.1, with the identity; here found by itself.
    """

    met = False

    def straight(seen: Tensor) -> Tensor:
        nonlocal met
        with _watched() as mode:
            logits = goals.logits(model, seen)
        met |= mode.met
        return logits

    with torch.enable_grad():
        logits = straight(images[:1].detach().requires_grad_())
    return straight if met and logits.requires_grad else None


@contextmanager
def _watched() -> Iterator[_Straight]:
    """Inside, steps of all models are straight."""
    mode = _Straight()

    def hook(_: nn.Module, given: tuple[Any, ...], found: Any) -> Any:
        lost = (
            len(given) == 1
            and isinstance(given[0], Tensor)
            and isinstance(found, Tensor)
            and given[0].requires_grad
            and not found.requires_grad
            and given[0].shape == found.shape
        )
        mode.met |= lost
        return _as_if(given[0], found) if lost else None

    handle = register_module_forward_hook(hook)  # of all modules: the model may be a function around some
    try:
        with mode:
            yield mode
    finally:
        handle.remove()
