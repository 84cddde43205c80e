"""BPDA: straight-through gradients for rounding and other operations that have none."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

from notbugs.attacks.validation import Model, has_gradient
from notbugs.models import frozen
from notbugs.search import objectives


def straight_through(model: Model, images: Tensor) -> Model | None:
    """The same model with straight-through gradients, or None if it has no operation that needs them.

    Such operations are round, floor, ceil, trunc, sign, // and %, a cast to integers or a comparison that is cast back, and a
    module that returns as many floats as it takes but loses the gradient (code of another library).

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K).
    images : Tensor, (N, C, H, W), in [0, 1]
        The operations are looked for on the first two.

    Returns
    -------
    callable or None
        Its logits are those of `model`, to the last bit. None, too, where the model does not work in this mode.

    References
    ----------
    Athalye et al. 2018, "Obfuscated Gradients Give a False Sense of Security", section 4.1, with the identity.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> images = torch.rand(2, 1, 4, 4)
    >>> straight_through(model, images) is None
    True
    >>> straight_through(lambda images: model((images * 15).round() / 15), images) is None
    False
    """

    def differentiable(images: Tensor) -> Tensor:
        return _forward(model, images)[0]

    few = images[:2].detach()
    try:
        with _evaluating(model), torch.no_grad():
            plain = objectives.logits(model, few.clone())
        with torch.enable_grad():
            logits, replaced = _forward(model, few.clone().requires_grad_())
        same = torch.equal(logits.detach(), plain)
        return differentiable if replaced and same and has_gradient(differentiable, few) else None
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # a user's model may do anything with a tensor that differs from the usual ones
        return None


def _evaluating(model: Model) -> AbstractContextManager[object]:
    return frozen(model) if isinstance(model, nn.Module) else nullcontext()


def _forward(model: Model, images: Tensor) -> tuple[Tensor, bool]:
    """Logits with straight-through gradients, and whether an operation needed them."""
    with _evaluating(model), _straight_through_mode() as mode:
        logits = objectives.logits(model, images)
    return logits, mode.replaced


def _functions(*names: str) -> set[Any]:
    return {getattr(where, name) for where in (torch, Tensor) for name in names if hasattr(where, name)}


ROUNDING = _functions("round", "floor", "ceil", "trunc", "fix", "sign", "sgn")
ROUNDING_IN_PLACE = _functions("round_", "floor_", "ceil_", "trunc_", "fix_", "sign_", "sgn_")
QUOTIENTS = _functions("floor_divide", "floor_divide_", "__floordiv__", "div", "divide")  # the last two with a rounding mode
DIVISIONS = _functions("div", "divide")
REMAINDERS = _functions("frac", "remainder", "fmod", "__mod__")  # x minus its remainder is a step: the remainder is constant
CASTS = _functions("to", "type", "byte", "char", "short", "int", "long", "bool")
ABOVE, BELOW = _functions("gt", "ge", "__gt__", "__ge__"), _functions("lt", "le", "__lt__", "__le__")
CASTS_BACK = _functions("to", "type", "float", "double", "half", "bfloat16", "type_as")


class _StraightThrough(torch.autograd.Function):
    """Forward the exact value, to the last bit; backward the identity on the smooth one."""

    @staticmethod
    def forward(_: Any, smooth: Tensor, exact: Tensor) -> Tensor:
        return exact.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _with_gradient_of(smooth: Tensor, exact: Tensor) -> Tensor:
    """The value of `exact` with the gradient of `smooth`."""
    value: Tensor = _StraightThrough.apply(smooth.to(exact.dtype), exact)  # type: ignore[no-untyped-call]
    return value


class _StraightThroughMode(TorchFunctionMode):
    """Operations without a gradient get that of the identity; `replaced` says whether there were any.

    An integer or Boolean tensor cannot carry a gradient: it remembers the tensor it came from, until it is cast back.
    """

    replaced = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if not args and isinstance(kwargs.get("input"), Tensor):
            args = (kwargs.pop("input"),)
        first = args[0] if args else None
        if not isinstance(first, Tensor) or "out" in kwargs:
            return func(*args, **kwargs)
        if func in CASTS_BACK and hasattr(first, "_cast_from"):
            exact = func(*args, **kwargs)
            return _with_gradient_of(first._cast_from, exact) if exact.is_floating_point() else exact
        if not first.requires_grad:
            return func(*args, **kwargs)
        rounds = func in QUOTIENTS and (func not in DIVISIONS or kwargs.get("rounding_mode"))
        if rounds or func in ROUNDING | ROUNDING_IN_PLACE | REMAINDERS:
            return self._replace(func, first, args[1:], kwargs)
        value = func(*args, **kwargs)
        if func in CASTS | ABOVE | BELOW and isinstance(value, Tensor) and not value.is_floating_point():
            self.replaced = True
            value._cast_from = -first if func in BELOW else first  # type: ignore[attr-defined]
        return value

    def _replace(self, func: Any, first: Tensor, rest: Any, kwargs: dict[str, Any]) -> Tensor:
        """The exact value of a rounding operation, with the gradient of the smooth one."""
        self.replaced = True
        in_place = func.__name__.endswith("_") and not func.__name__.endswith("__")
        with torch.no_grad():
            exact: Tensor = func(first.detach().clone(), *rest, **kwargs)
        if func in REMAINDERS:
            return exact
        smooth = first.clone() if in_place else first
        if func in QUOTIENTS:
            smooth = smooth / (rest[0] if rest else kwargs["other"])
        value = _with_gradient_of(smooth, exact)
        return first.copy_(value) if in_place else value


@contextmanager
def _straight_through_mode() -> Iterator[_StraightThroughMode]:
    """The mode, for this thread, and a hook on modules that lose the gradient."""
    mode, thread = _StraightThroughMode(), threading.get_ident()

    def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        if threading.get_ident() != thread or not isinstance(output, Tensor):
            return None
        if not output.is_floating_point() or output.requires_grad:
            return None
        first = next((value for value in inputs if isinstance(value, Tensor) and value.requires_grad), None)
        if first is None or first.numel() != output.numel():
            return None
        mode.replaced = True
        return _with_gradient_of(first.reshape(output.shape), output)

    handle = register_module_forward_hook(hook)  # of all modules: the model may be a function that calls one
    try:
        with mode:
            yield mode
    finally:
        handle.remove()
