"""Batch norm fused into the convolutions before it: the same function, faster, for searches."""

import copy
import warnings
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from notbugs import precision
from notbugs.models.classifier import Classifier, frozen_copy


def fuse_batchnorm(model: nn.Module, sample: Tensor, device: torch.device | str = "cpu") -> Any:
    """A frozen copy for searches, with batch norm fused into the convolutions: the same function, but faster.

    On narrow networks it takes 0.6 of the time and half the memory.

    Parameters
    ----------
    model : nn.Module
        Only a `Classifier` is fused; of any other model a plain copy is returned.
    sample : Tensor, (N, C, H, W), in [0, 1]
        A few images on which copy and model must agree; if they do not, or tracing fails, a plain copy is returned.
    device : torch.device or str
    """
    sample, plain = sample.to(device), frozen_copy(model, device)
    if not isinstance(model, Classifier):
        return plain
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch imports its own deprecated parts
        from torch.fx.experimental.optimization import fuse

    fused = copy.deepcopy(plain)
    try:
        fused.body = fuse(cast(nn.Module, fused.body), inplace=True).eval().requires_grad_(False)
    except Exception:  # tracing runs the network's own code, which may raise anything
        return plain
    with torch.no_grad(), precision.full_precision():
        same = torch.allclose(fused(sample), plain(sample), rtol=1e-3, atol=1e-3)
    return fused if same else plain


def fused_now(model: nn.Module, sample: Tensor) -> nn.Module | None:
    """A fused copy of a model in training, with its weights of this moment; None if it cannot be fused.

    The copy is made at the first call. Later calls with the same model bring its weights up to date and return it again.

    Parameters
    ----------
    model : nn.Module
    sample : Tensor, (N, C, H, W), in [0, 1]
        As for `fuse_batchnorm`, on the model's device.
    """
    copies = _COPIES.get(model)
    if copies is None or copies.device != sample.device:
        copies = _COPIES[model] = _copy_to_update(model, sample)
    if copies.fused is not None:
        _update(copies.fused, model, copies.pairs)
    return copies.fused


class _Copy(NamedTuple):
    """What is kept of a model in training: its fused copy, if it has one, and the layers with the batch norm after each."""

    fused: nn.Module | None
    pairs: dict[str, str]
    device: torch.device


_COPIES: WeakKeyDictionary[nn.Module, _Copy] = WeakKeyDictionary()


def _copy_to_update(model: nn.Module, sample: Tensor) -> _Copy:
    nothing = _Copy(None, {}, sample.device)
    if not isinstance(model, Classifier):
        return nothing
    with torch.autocast(sample.device.type, enabled=False):
        fused: nn.Module = fuse_batchnorm(model, sample[:2], sample.device)
    if not isinstance(fused, Classifier) or not isinstance(fused.body, torch.fx.GraphModule):
        return nothing
    before, left = _calls(torch.fx.symbolic_trace(model.body)), {call.target for call in _calls(fused.body)}
    pairs = {f"body.{call.args[0].target}": f"body.{call.target}" for call in before if call.target not in left}  # type: ignore[union-attr]
    return _Copy(fused, pairs, sample.device) if pairs else nothing


def _calls(body: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """Where a traced network calls its modules."""
    return [node for node in body.graph.nodes if node.op == "call_module"]


@torch.no_grad()
def _update(fused: nn.Module, model: nn.Module, pairs: dict[str, str]) -> None:
    """Give a fused copy the weights that the model has now. pairs: layers, and the batch norm after each."""
    now = dict(model.state_dict())
    for name, norm in pairs.items():
        layer, after = model.get_submodule(name), model.get_submodule(norm)
        fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
        now[f"{name}.weight"], now[f"{name}.bias"] = fuse(
            *(layer.weight, layer.bias),  # type: ignore[arg-type]
            *(after.running_mean, after.running_var, after.eps, after.weight, after.bias),  # type: ignore[arg-type]
        )
    for name, value in fused.state_dict().items():
        value.copy_(now[name])
