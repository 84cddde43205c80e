"""Networks by name, the package's or a user's own, and users' networks wrapped."""

import importlib
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from notbugs.errors import InputError
from notbugs.models.architectures import ARCHITECTURES
from notbugs.models.class_outputs import MappedClassifier
from notbugs.models.classifier import Classifier, LogitFeatures, Model, OwnFeatures, WrappedClassifier, frozen


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
    """Build a network with random weights. The same seed gives the same weights; the caller's random state stays as it was.

    Parameters
    ----------
    name : str
        One of `ARCHITECTURES`, or `module:function` of your own, called with classes=K (see `wrap`).
    shape : sequence of int
        (C, H, W) of an image.
    classes : int
    width : int, optional
        Channels of the first layer.
    seed : int
    mean, std : sequence of float, optional
        Of the pixels, per channel. Default: 0.5 and 0.25.

    Raises
    ------
    InputError
        If there is no such network or it does not fit images and classes.

    Examples
    --------
    >>> model = build("small", shape=(1, 8, 8), classes=10, width=4)
    >>> model(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    mean, std = list(mean or [0.5] * shape[0]), list(std or [0.25] * shape[0])
    architecture = {"name": name, "shape": list(shape), "classes": classes, "width": width, "mean": mean, "std": std}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # this one is forked; torch.manual_seed would seed every device
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
    architecture: Mapping[str, object] | None = None,
) -> WrappedClassifier:
    """Wrap a network of your own.

    Parameters
    ----------
    network : nn.Module
        Normalized images to logits (N, K), or to an object with the attribute `logits`.
    sample : Tensor, (2, C, H, W), in [0, 1]
        Two images to run it on.
    layer : str, optional
        Name of the module in the network whose input are the features. Default: the last linear layer that runs.
    mean, std : sequence of float, optional
        With which the network expects pixels in [0, 1] to be normalized. Default: no normalization.
    architecture : dict, optional
        The arguments with which `build` makes this network again.

    Raises
    ------
    InputError
        If the network does not take such images, or the layer does not run.

    Examples
    --------
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3))
    >>> wrapped = wrap(network, torch.zeros(2, 1, 8, 8))
    >>> wrapped.layer, wrapped.features(torch.zeros(4, 1, 8, 8)).shape
    ('3', torch.Size([4, 5]))
    """
    wrapped = WrappedClassifier(network, layer or "", mean, std, dict(architecture or {"name": type(network).__name__}))
    ran = _modules_that_run(wrapped, sample)
    modules = dict(network.named_modules(remove_duplicate=False))
    linear = [name for name in ran if isinstance(modules[name], nn.Linear)]
    if layer is None and not linear:
        raise InputError("model", "has no linear layer whose input could be the features", remedy="name the layer: layer=…")
    wrapped.layer = layer if layer is not None else linear[-1]
    if wrapped.layer not in ran:
        children = ", ".join(name for name, _ in network.named_children())
        raise InputError("layer", f"must be a module that runs in the network ({children} …)", repr(layer))
    return wrapped


def with_features(network: nn.Module, sample: Tensor) -> tuple[Model, str]:
    """A network with features, and what they are, in words.

    Its own `features(images)` if it has that method, else the input of its last linear layer, else its logits.

    Parameters
    ----------
    network : nn.Module
        Images in [0, 1] to logits, as `classifier_by_name` returns it; known to work on the sample.
    sample : Tensor, (2, C, H, W), in [0, 1]
        Two images to run it on.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten())
    >>> with_features(network, torch.zeros(2, 1, 8, 8))[1]
    'its logits: it has no linear layer whose input could be the features'
    """
    if isinstance(network, MappedClassifier):
        model, features = with_features(network.network, sample)
        return MappedClassifier(model, network.outputs), features
    if isinstance(network, Classifier):
        return network, "the input of its last layer"
    if isinstance(network, WrappedClassifier):
        return network, f"the input of its layer {network.layer}"
    architecture = {"name": type(network).__name__}
    own = OwnFeatures(network, "", None, None, architecture)
    if _has_flat_features(own, sample):
        return own, "what its own features(images) returns"
    try:
        wrapped = wrap(network, sample)
    except (InputError, RuntimeError):  # no linear layer runs, or hooks are not supported, as in TorchScript
        found = LogitFeatures(network, "", None, None, architecture)
        return found, "its logits: it has no linear layer whose input could be the features"
    return wrapped, f"the input of its layer {wrapped.layer}"


def _has_flat_features(model: OwnFeatures, sample: Tensor) -> bool:
    """Whether the network has a method `features` that returns (N, F); a submodule of that name returns feature maps."""
    try:
        with frozen(model), torch.no_grad():
            found = model.features(sample)
    except Exception:  # a user's own code may raise anything
        return False
    return isinstance(found, Tensor) and found.dim() == 2 and len(found) == len(sample)


def _modules_that_run(wrapped: WrappedClassifier, sample: Tensor) -> list[str]:
    """Names of the network's modules that run on the sample, in order."""
    ran: list[str] = []
    modules = wrapped.network.named_modules(remove_duplicate=False)
    handles = [module.register_forward_pre_hook(lambda *_, name=name: ran.append(name)) for name, module in modules]
    try:
        with frozen(wrapped), torch.no_grad():
            wrapped(sample)
    except (RuntimeError, TypeError) as error:
        raise InputError("model", f"must take images of shape {tuple(sample.shape)}", one_line(error)) from error
    finally:
        for handle in handles:
            handle.remove()
    return ran


def _user_network(name: str, classes: int) -> nn.Module:
    """The network that a user's `module:function` returns."""
    network = user_object(name, classes, "--network")
    if not isinstance(network, nn.Module):
        raise InputError("--network", f"{name} must return a torch.nn.Module", type(network).__name__)
    return network


def user_object(name: str, classes: int, option: str) -> Any:
    """What a user's `module:function` returns when called with classes=K. This runs the user's code.

    Parameters
    ----------
    name : str
        `module:function`; the working directory is searched first.
    classes : int
    option : str
        The option that named it, for errors.

    Raises
    ------
    InputError
        If the code cannot be imported or raises.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())  # as `python -m` does: a file beside the user's data can be imported
    try:
        return getattr(importlib.import_module(module), function)(classes=classes)
    except Exception as error:  # a user's own code may raise anything
        rule = f"{name} must be a function(classes=…) that returns a {'torch.nn.Module' if option == '--network' else 'model'}"
        raise InputError(option, rule, one_line(error)) from None
    finally:
        sys.path.pop(0)


def one_line(error: Exception) -> str:
    """An error's text on one line, of at most 200 characters."""
    return textwrap.shorten(str(error), 200, placeholder=" …")
