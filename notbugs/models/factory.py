"""Networks by name, the package's or a user's own, and users' networks wrapped."""

import importlib
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from notbugs.errors import InputError
from notbugs.models.adapt import initialize_lazy, settled
from notbugs.models.architectures import ARCHITECTURES
from notbugs.models.black_box import SurrogateGradients
from notbugs.models.class_outputs import MappedClassifier
from notbugs.models.classifier import Classifier, LayerFeatures, LogitFeatures, Model, OwnFeatures, WrappedClassifier, frozen
from notbugs.models.libraries import is_library_name, library_network
from notbugs.models.reading import AdaptedClassifier, FixedProgram, Options, Reading


def build(
    name: str,
    *,
    shape: Sequence[int],
    classes: int,
    width: int | None = None,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pretrained: bool = False,
    options: Options | None = None,
    layer: str | None = None,
) -> Model:
    """Build a network with random weights. The same seed gives the same weights; the caller's random state stays as it was.

    Parameters
    ----------
    name : str
        One of `ARCHITECTURES`; `timm:NAME`, `hf:NAME_OR_PATH` or `torchvision:NAME[@WEIGHTS]`, from these packages; or
        `module:function` of your own, called with classes=K (see `wrap`).
    shape : sequence of int
        (C, H, W) of an image.
    classes : int
    width : int, optional
        Channels of the first layer, of `ARCHITECTURES`.
    seed : int
    mean, std : sequence of float, optional
        Of the pixels, per channel. Default: 0.5 and 0.25.
    pretrained : bool
        With the weights of its package, and their normalization; the last layer alone is random. Of your own function: it
        returns a network with weights, which gets pixels in [0, 1].
    options : dict, optional
        What builds the same network of a package again: that of its `architecture`.
    layer : str, optional
        Name of the module whose outputs are the features. Default: they are the input of the last layer.

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
    if layer is not None:
        model = build(
            name, shape=shape, classes=classes, width=width, seed=seed, mean=mean, std=std, pretrained=pretrained, options=options
        )
        return _with_layer(model, layer)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # this one is forked; torch.manual_seed would seed every device
        if is_library_name(name):
            return _library_model(name, shape, classes, mean, std, pretrained, options)
        if ":" in name:
            if pretrained:
                mean, std = [0.0] * shape[0], [1.0] * shape[0]
            architecture = {"name": name, "shape": list(shape), "classes": classes, "width": width, "mean": mean, "std": std}
            return _with_classes(user_network(name, classes), name, architecture)
        if name not in ARCHITECTURES:
            raise InputError("--network", f"must be one of {', '.join(ARCHITECTURES)}, or module:function", repr(name))
        if pretrained:
            rule = "must be a network of timm, Hugging Face or torchvision, or of your own"
            raise InputError("--pretrained", rule, name, "pass --network timm:resnet18")
        architecture = {"name": name, "shape": list(shape), "classes": classes, "width": width, "mean": mean, "std": std}
        body, features = ARCHITECTURES[name](shape, **({"width": width} if width else {}))
        return Classifier(body, nn.Linear(features, classes), mean=mean, std=std, architecture=architecture)


def _library_model(
    name: str,
    shape: Sequence[int],
    classes: int,
    mean: list[float],
    std: list[float],
    pretrained: bool,
    options: Options | None,
) -> WrappedClassifier:
    """A network of another package for these images and classes.

    Where it does not take images of their size, as transformers do not, its first layer resizes them.
    """
    known, size = dict(options or {}), (shape[1], shape[2])
    found = library_network(
        name, pretrained=pretrained, outputs=classes, size=size, options=known.get("network"), parameter="--network"
    )
    channels = int(found.options.get("num_channels", 3))
    if pretrained:
        mean, std = list(found.reading.mean or [0.0] * channels), list(found.reading.std or [1.0] * channels)
    mean, std = (list(values) * (channels if len(values) == 1 else 1) for values in (mean, std))
    reading = Reading(flip_channels=known.get("flip_channels", pretrained and found.reading.flip_channels))
    if options is None and not _runs(found.network, torch.zeros(2, channels, *size)):
        known["size"] = list(found.reading.size) if found.reading.size else None
    if known.get("size"):
        reading = replace(reading, size=tuple(known["size"]), bicubic=True)
    network = found.network if reading == Reading() else AdaptedClassifier(found.network, reading, classes)
    kept = {"network": found.options, **({"size": known["size"]} if known.get("size") else {})}
    kept |= {"flip_channels": True} if reading.flip_channels else {}
    architecture = {"name": name, "shape": list(shape), "classes": classes, "mean": mean, "std": std, "options": kept}
    model = _with_classes(network, name, architecture)
    model.notes = tuple(_library_notes(name, shape, mean, std, pretrained, reading, model))
    return model


def _with_layer(model: Model, layer: str) -> LayerFeatures:
    """The model with the outputs of one of its modules as features. Raises InputError if there is no such module."""
    architecture = {**model.architecture, "layer": layer}
    if isinstance(model, Classifier):
        found = LayerFeatures(model, layer, None, None, architecture)
        found.head = "head"
    else:
        found = LayerFeatures(model.network, layer, architecture["mean"], architecture["std"], architecture)
        found.head, found.notes = model.layer, model.notes
    with frozen(found), torch.no_grad():
        found.features(torch.zeros(2, *architecture["shape"]))
    return found


def _library_notes(
    name: str,
    shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    pretrained: bool,
    reading: Reading,
    model: WrappedClassifier,
) -> Iterator[str]:
    """What is to be said of a network of another package."""
    if pretrained:
        words = (", ".join(f"{value:.3g}" for value in values) for values in (mean, std))
        yield "it began with pretrained weights and a new last layer; pixels are normalized as those: mean {}, std {}".format(
            *words
        )
    if shape[0] == 1 and len(mean) == 3:
        yield "it takes RGB: the gray channel is repeated three times"
    if reading.size:
        given, own = (f"{size[1]}x{size[0]}" for size in (shape[1:], reading.size))
        yield f"its first layer resizes images from {given} to {own}, the size that it takes"
    if not model.layer:
        yield "its features are its logits: it has no linear layer whose input could be the features"


def _runs(network: nn.Module, images: Tensor) -> bool:
    """Whether a network takes such images."""
    try:
        with torch.no_grad():
            network.eval()(images)
    except Exception:  # each package has errors of its own
        return False
    finally:
        network.train()
    return True


def _with_classes(network: nn.Module, name: str, architecture: Options) -> WrappedClassifier:
    """A network to train, with features: the input of its last layer, or else its logits. Checked against the classes."""
    mean, std, classes = architecture["mean"], architecture["std"], architecture["classes"]
    sample = torch.zeros(2, *architecture["shape"])
    wrapped = WrappedClassifier(network, "", mean, std, dict(architecture))
    initialize_lazy(network, wrapped.normalized(sample))
    ran, outputs = _modules_that_run(wrapped, sample)
    if outputs != classes:
        raise InputError("--network", f"{name} must give one output for each of the {classes} classes", outputs)
    if not _set_head(wrapped, ran, classes):
        return LogitFeatures(network, "", mean, std, dict(architecture))
    return wrapped


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
        Normalized images to logits (N, K), or to what holds them: see `reading.scores`.
    sample : Tensor, (2, C, H, W), in [0, 1]
        Two images to run it on.
    layer : str, optional
        Name of the module in the network whose input are the features. Default: the last linear layer that runs, or the
        convolution with kernel 1 that gives the outputs, whose input is averaged over its positions.
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
    ran, outputs = _modules_that_run(wrapped, sample)
    if layer is None and not _set_head(wrapped, ran, outputs):
        raise InputError("model", "has no linear layer whose input could be the features", remedy="name the layer: layer=…")
    if wrapped.layer not in ran:
        children = ", ".join(name for name, _ in network.named_children())
        raise InputError("layer", f"must be a module that runs in the network ({children} …)", repr(layer))
    return wrapped


def _set_head(wrapped: WrappedClassifier, ran: Sequence[str], outputs: int) -> bool:
    """Set the layer whose input are the features: of those that ran the last that gives the outputs, or else the last linear one.

    Returns whether there is one.
    """
    modules = dict(wrapped.network.named_modules(remove_duplicate=False))
    linear = [name for name in ran if isinstance(modules[name], nn.Linear)]
    heads = [name for name in ran if _outputs_of_head(modules[name]) == outputs]
    wrapped.layer = (heads or linear or [""])[-1]
    wrapped.pooled = bool(heads) and isinstance(modules[wrapped.layer], nn.Conv2d)
    return bool(heads or linear)


def _outputs_of_head(module: nn.Module) -> int | None:
    """Outputs of a layer that can be the last one of a classifier."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) else None


def with_features(network: nn.Module, sample: Tensor, layer: str | None = None) -> tuple[Model, str]:
    """A network with features, and what they are, in words.

    Its own `features(images)` if it has that method, else the input of its last layer (see `wrap`), else its logits.

    Parameters
    ----------
    network : nn.Module
        Images in [0, 1] to logits, as `classifier_by_name` returns it; known to work on the sample.
    sample : Tensor, (2, C, H, W), in [0, 1]
        Two images to run it on.
    layer : str, optional
        Name of the module whose outputs are the features, in place of these.

    Raises
    ------
    InputError
        If there is no such layer.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten())
    >>> with_features(network, torch.zeros(2, 1, 8, 8))[1]
    'its logits: it has no linear layer whose input could be the features'
    """
    if isinstance(network, MappedClassifier):
        model, features = with_features(network.network, sample, layer)
        return MappedClassifier(model, network.outputs), features
    if isinstance(network, SurrogateGradients):
        if layer is not None:
            raise InputError("layer", "can be chosen in a PyTorch network alone", repr(layer))
        return LogitFeatures(network, "", None, None, {"name": type(network).__name__}), "its logits: it is no PyTorch network"
    if layer is not None:
        chosen = LayerFeatures(network, layer, None, None, {"name": type(network).__name__})
        with frozen(chosen), torch.no_grad():
            chosen.features(sample)
        return chosen, f"the output of its layer {layer}"
    if isinstance(network, Classifier):
        return network, "the input of its last layer"
    if isinstance(network, LayerFeatures):
        return network, f"the output of its layer {network.layer}"
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


def _modules_that_run(wrapped: WrappedClassifier, sample: Tensor) -> tuple[list[str], int]:
    """Names of the network's modules that run on the sample, in order, and the number of its outputs."""
    ran: list[str] = []
    modules = wrapped.network.named_modules(remove_duplicate=False)
    handles = [module.register_forward_pre_hook(lambda *_, name=name: ran.append(name)) for name, module in modules]
    try:
        with frozen(wrapped), torch.no_grad():
            outputs = wrapped(sample).shape[1]
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise InputError("model", f"must take images of shape {tuple(sample.shape)}", one_line(error)) from error
    finally:
        for handle in handles:
            handle.remove()
    return ran, outputs


def user_network(name: str, classes: int) -> nn.Module:
    """The network that a user's `module:function` returns. Raises InputError for anything else."""
    network = user_object(name, classes, "--network")
    if not isinstance(network, nn.Module):
        raise InputError("--network", f"{name} must return a torch.nn.Module", type(network).__name__)
    if isinstance(settled(network), FixedProgram):
        rule = f"{name} must return a network that can be trained, not a program of TorchScript or torch.export"
        raise InputError("--network", rule, type(network).__name__)
    return network.train()


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
