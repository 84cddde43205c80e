"""Networks to train, by name: the package's own, those of other packages, a user's."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from notbugs.errors import InputError
from notbugs.models.adapt import initialize_lazy, refuse_meta
from notbugs.models.architectures import ARCHITECTURES
from notbugs.models.classifier import Classifier, LayerFeatures, LogitFeatures, Model, WrappedClassifier, frozen
from notbugs.models.features import modules_that_run, set_head
from notbugs.models.libraries import is_library_name, library_network
from notbugs.models.reading import AdaptedClassifier, Options, Reading
from notbugs.models.user_code import user_network


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
            network = user_network(name, classes)
            refuse_meta(network, "--network", name)
            return _with_classes(network, name, architecture)
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
    build_for = partial(
        library_network, name, pretrained=pretrained, outputs=classes, options=known.get("network"), parameter="--network"
    )
    found = build_for(size=None if known.get("size") else size)
    channels = int(found.options.get("num_channels", 3))
    if pretrained:
        mean, std = list(found.reading.mean or [0.0] * channels), list(found.reading.std or [1.0] * channels)
    mean, std = (list(values) * (channels if len(values) == 1 else 1) for values in (mean, std))
    reading = Reading(flip_channels=known.get("flip_channels", pretrained and found.reading.flip_channels))
    if options is None and not _runs(found.network, torch.zeros(2, channels, *size)):
        found = build_for(size=None)
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
        found.last_layer = "head"
    else:
        found = LayerFeatures(model.network, layer, architecture["mean"], architecture["std"], architecture)
        found.last_layer, found.notes = model.layer, model.notes
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
    ran, outputs = modules_that_run(wrapped, sample)
    if outputs != classes:
        raise InputError("--network", f"{name} must give one output for each of the {classes} classes", outputs)
    if not set_head(wrapped, ran, classes):
        return LogitFeatures(network, "", mean, std, dict(architecture))
    return wrapped
