"""A network by name, one of ours or a user's own, and a user's network wrapped."""

import importlib
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from notbugs.errors import InputError
from notbugs.models.architectures import ARCHITECTURES
from notbugs.models.classifier import Classifier, Model, WrappedClassifier, frozen


def build(
    name: str,
    *,
    shape: Sequence[int],
    classes: int,
    width: int | None = None,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Model:
    """A fresh network. name: one of `NETWORKS`, or `module:function` of your own (see `wrap`), called with classes=K.

    shape: (C, H, W) of an image; width: channels of the first layer; mean, std: of the pixels, by channel (default .5, .25).
    The same seed gives the same weights; the caller's random state is left alone.
    """
    mean, std = list(mean or [0.5] * shape[0]), list(std or [0.25] * shape[0])
    architecture = {"name": name, "shape": list(shape), "classes": classes, "width": width, "mean": mean, "std": std}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # this one is forked; torch.manual_seed would reach every device's
        if ":" in name:
            sample = torch.zeros(2, *shape)
            wrapped = wrap(_user_network(name, classes), sample, mean=mean, std=std, architecture=architecture)
            with frozen(wrapped), torch.no_grad():
                outputs = wrapped(sample).shape[1]
            if outputs != classes:
                raise InputError("--network", f"{name} must give one output for each of the {classes} classes", outputs)
            return wrapped
        if name not in ARCHITECTURES:
            raise InputError("--network", f"must be one of {', '.join(ARCHITECTURES)}, or module:function", repr(name))
        body, features = ARCHITECTURES[name](shape, **({"width": width} if width else {}))
        return Classifier(body, nn.Linear(features, classes), mean=mean, std=std, architecture=architecture)


def wrap(
    network: nn.Module,
    sample: Tensor,
    *,
    layer: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    architecture: dict[str, Any] | None = None,
) -> WrappedClassifier:
    """Any network that maps normalised images to logits (a tensor, or an object with `.logits`).

    sample: two images (2, C, H, W) to try it on. layer: the module whose input are the features, by its name in the network;
    left out, the last linear layer that runs. mean, std: what the network expects pixels in [0, 1] to be normalised with.
    """
    ran: list[str] = []
    modules = dict(network.named_modules(remove_duplicate=False))
    handles = [module.register_forward_pre_hook(lambda *_, name=name: ran.append(name)) for name, module in modules.items()]
    wrapped = WrappedClassifier(network, layer or "", mean, std, architecture or {"name": type(network).__name__})
    try:
        with frozen(wrapped), torch.no_grad():
            wrapped(sample)
    except (RuntimeError, TypeError) as error:
        raise InputError("model", f"must take images of shape {tuple(sample.shape)}", one_line(error)) from error
    finally:
        for handle in handles:
            handle.remove()
    linear = [name for name in ran if isinstance(modules[name], nn.Linear)]
    if layer is None and not linear:
        raise InputError("model", "has no linear layer whose input could be the features", remedy="name the layer: layer=…")
    wrapped.layer = layer if layer is not None else linear[-1]
    if wrapped.layer not in ran:
        children = ", ".join(name for name, _ in network.named_children())
        raise InputError("layer", f"must be a module that runs in the network ({children} …)", repr(layer))
    return wrapped


def _user_network(name: str, classes: int) -> nn.Module:
    network = user_object(name, classes, "--network")
    if not isinstance(network, nn.Module):
        raise InputError("--network", f"{name} must return a torch.nn.Module", type(network).__name__)
    return network


def user_object(name: str, classes: int, option: str) -> Any:
    """What the user's `module:function`, called with classes=K, returns. Runs that code; option: for messages."""
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())  # as `python -m` does: a file beside the user's data is importable
    try:
        return getattr(importlib.import_module(module), function)(classes=classes)
    except Exception as error:  # a user's own code may raise anything
        rule = f"{name} must be a function(classes=…) that returns a {'torch.nn.Module' if option == '--network' else 'model'}"
        raise InputError(option, rule, one_line(error)) from None
    finally:
        sys.path.pop(0)


def one_line(error: Exception) -> str:
    """An error's text, short and on one line."""
    return textwrap.shorten(str(error), 200, placeholder=" …")
