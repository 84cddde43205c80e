"""Gradients through what has none: steps such as rounding pass them on as if they were straight."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

from notbugs.attacks.validation import Model, has_gradient
from notbugs.models import frozen
from notbugs.search import objectives


def _functions(*names: str) -> set[Any]:
    return {getattr(where, name) for where in (torch, Tensor) for name in names if hasattr(where, name)}


ROUNDING = _functions("round", "floor", "ceil", "trunc", "fix", "sign", "sgn")
ROUNDING_IN_PLACE = _functions("round_", "floor_", "ceil_", "trunc_", "fix_", "sign_", "sgn_")
QUOTIENTS = _functions("floor_divide", "floor_divide_", "__floordiv__", "div", "divide")  # the last two with a rounding mode
DIVISIONS = _functions("div", "divide")
REMAINDERS = _functions("frac", "remainder", "fmod", "__mod__")  # x less its rest is a step: the rest is taken as constant
CASTS = _functions("to", "type", "byte", "char", "short", "int", "long", "bool")
ABOVE, BELOW = _functions("gt", "ge", "__gt__", "__ge__"), _functions("lt", "le", "__lt__", "__le__")
CASTS_BACK = _functions("to", "type", "float", "double", "half", "bfloat16", "type_as")


class _StraightThrough(torch.autograd.Function):
    """Forward the exact value, to the last bit; backward as if it were the smooth one."""

    @staticmethod
    def forward(_: Any, smooth: Tensor, exact: Tensor) -> Tensor:
        return exact.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _straight_through_value(smooth: Tensor, exact: Tensor) -> Tensor:
    found: Tensor = _StraightThrough.apply(smooth.to(exact.dtype), exact)  # type: ignore[no-untyped-call]
    return found


class _StraightThroughMode(TorchFunctionMode):
    """Steps pass gradients on; `met` tells whether there were any.

    A cast to whole numbers and a comparison cannot carry a gradient: the tensor remembers what it came from, and the cast back
    takes it up again.
    """

    met = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if not args and isinstance(kwargs.get("input"), Tensor):
            args = (kwargs.pop("input"),)
        first = args[0] if args else None
        if not isinstance(first, Tensor) or "out" in kwargs:
            return func(*args, **kwargs)
        if func in CASTS_BACK and hasattr(first, "_came_from"):
            exact = func(*args, **kwargs)
            return _straight_through_value(first._came_from, exact) if exact.is_floating_point() else exact
        if not first.requires_grad:
            return func(*args, **kwargs)
        if func in ROUNDING | ROUNDING_IN_PLACE | REMAINDERS or (
            func in QUOTIENTS and (func not in DIVISIONS or kwargs.get("rounding_mode"))
        ):
            return self._step(func, first, args[1:], kwargs)
        found = func(*args, **kwargs)
        if func in CASTS | ABOVE | BELOW and isinstance(found, Tensor) and not found.is_floating_point():
            self.met = True
            found._came_from = -first if func in BELOW else first  # type: ignore[attr-defined]
        return found

    def _step(self, func: Any, first: Tensor, rest: Any, kwargs: dict[str, Any]) -> Tensor:
        self.met = True
        inside = func.__name__.endswith("_") and not func.__name__.endswith("__")
        with torch.no_grad():
            exact: Tensor = func(first.detach().clone(), *rest, **kwargs)
        if func in REMAINDERS:
            return exact
        smooth = first.clone() if inside else first
        found = _straight_through_value(smooth / (rest[0] if rest else kwargs["other"]) if func in QUOTIENTS else smooth, exact)
        return first.copy_(found) if inside else found


def straight_through(model: Model, images: Tensor) -> Model | None:
    """The same model, to the last bit, whose gradients go straight through steps; None where none is met on these images.

    A step is a call of round, floor, ceil, trunc, sign, // or %, a cast to whole numbers or a comparison that is cast back, or a
    module that returns as many floats as it takes in but loses the gradient on the way (another library's code). None, too,
    where the model does not work so.
    Source: backward pass differentiable approximation, Athalye et al. 2018, section 4.1, with the identity; here found by itself.
    """

    met = False

    def straight(seen: Tensor) -> Tensor:
        nonlocal met
        with frozen(model) if isinstance(model, nn.Module) else nullcontext(), _straight_through_mode() as mode:
            logits = objectives.logits(model, seen)
        met |= mode.met
        return logits

    few = images[:2].detach()
    try:
        with frozen(model) if isinstance(model, nn.Module) else nullcontext(), torch.no_grad():
            plain = objectives.logits(model, few.clone())
        with torch.enable_grad():
            same = torch.equal(straight(few.clone().requires_grad_()).detach(), plain)
        return straight if met and same and has_gradient(straight, few) else None
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # a user's own code may do anything with a tensor that is not what it was
        return None


@contextmanager
def _straight_through_mode() -> Iterator[_StraightThroughMode]:
    """Inside, steps that this thread's models take are straight."""
    mode, mine = _StraightThroughMode(), threading.get_ident()

    def hook(_: nn.Module, given: tuple[Any, ...], found: Any) -> Any:
        if threading.get_ident() != mine or not isinstance(found, Tensor) or not found.is_floating_point() or found.requires_grad:
            return None
        first = next((one for one in given if isinstance(one, Tensor) and one.requires_grad), None)
        if first is None or first.numel() != found.numel():
            return None
        mode.met = True
        return _straight_through_value(first.reshape(found.shape), found)

    handle = register_module_forward_hook(hook)  # of all modules: the model may be a function around some
    try:
        with mode:
            yield mode
    finally:
        handle.remove()
