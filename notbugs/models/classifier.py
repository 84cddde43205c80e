"""Classifiers with one interface: images in [0, 1] are normalized inside; they give logits and features."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from notbugs import precision
from notbugs.errors import InputError
from notbugs.models.layers import layer_forward
from notbugs.models.reading import Options, described, scores


class Classifier(nn.Module):
    """Normalization, a body and a linear head as one network: `model(images)` gives logits, `model.features(images)` features.

    Parameters
    ----------
    body : nn.Module
        Normalized images (N, C, H, W) to features (N, F).
    head : nn.Module
        Features to logits (N, K).
    mean, std : sequence of float
        Of the pixels, per channel.
    architecture : dict
        The arguments with which `build` makes this network again.

    Attributes
    ----------
    notes : tuple of str
        What was decided in building it: one sentence each.
    """

    notes: tuple[str, ...] = ()

    def __init__(
        self, body: nn.Module, head: nn.Module, *, mean: Sequence[float], std: Sequence[float], architecture: Options
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))
        self.body, self.head, self.architecture = body, head, architecture

    def features(self, images: Tensor) -> Tensor:
        """Input of the head, (N, F)."""
        mean = self.get_buffer("mean")
        result: Tensor = self.body((images.to(mean.dtype) - mean) / self.get_buffer("std"))
        return result

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, K)."""
        logits: Tensor = self.head(self.features(images))
        return logits


class WrappedClassifier(nn.Module):
    """A user's network with the interface of `Classifier`; its features are the input of one of its layers.

    Parameters
    ----------
    network : nn.Module
        Normalized images (N, C, H, W) to logits (N, K), or to what holds them: see `reading.scores`.
    layer : str
        Name of the module in the network whose input are the features.
    mean, std : sequence of float, optional
        Of the pixels, per channel; three of gray images repeat their channel. Default: no normalization.
    architecture : dict
        The arguments with which `build` makes this network again.

    Attributes
    ----------
    pooled : bool
        Whether the input of the layer, feature maps, is averaged over its positions: that of a head that is a convolution.
    notes : tuple of str
        What was decided in building it: one sentence each.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        architecture: Options,
    ) -> None:
        super().__init__()
        self.network, self.layer, self.architecture = network, layer, architecture
        self.pooled, self.notes = False, tuple[str, ...]()
        self.register_buffer("mean", torch.tensor(mean or [0.0]).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std or [1.0]).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, K)."""
        outputs = self.network(self.normalized(images))
        logits = scores(outputs, len(images))
        if logits is None:
            rule = f"must return logits of shape ({len(images)}, classes)"
            raise InputError(f"model {self.architecture.get('name')}", rule, described(outputs))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Input of the layer, flattened to (N, F); the mean over positions where that is `pooled`."""
        inputs: list[Tensor] = []
        handle = self.network.get_submodule(self.layer).register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        try:
            self(images)
        finally:
            handle.remove()
        return inputs[-1].flatten(2).mean(2) if self.pooled else inputs[-1].flatten(1)

    def normalized(self, images: Tensor) -> Tensor:
        """What the network is given for images in [0, 1]."""
        mean = self.get_buffer("mean")
        return (images.to(mean.dtype) - mean) / self.get_buffer("std")


class OwnFeatures(WrappedClassifier):
    """A user's network whose features are what its own method `features` returns."""

    def features(self, images: Tensor) -> Tensor:
        """What the network's method returns, (N, F)."""
        method = cast(Callable[[Tensor], Tensor], self.network.features)
        return method(self.normalized(images))


class LayerFeatures(WrappedClassifier):
    """A user's network whose features are the output of a module, feature maps averaged over their positions.

    last_layer: the name of its last layer in the network, "" if that is not known.
    """

    last_layer = ""

    def features(self, images: Tensor) -> Tensor:
        """Output of the module, (N, F)."""
        return layer_forward(self.network, self.layer)(self.normalized(images))


class LogitFeatures(WrappedClassifier):
    """A user's network whose features are its logits."""

    def features(self, images: Tensor) -> Tensor:
        """Logits, (N, K)."""
        logits: Tensor = self(images)
        return logits


Model = Classifier | WrappedClassifier


def head_name(model: nn.Module) -> str:
    """The name of the last layer of a classifier, whose input are its features.

    Raises
    ------
    InputError
        If its features are of another kind.
    """
    if isinstance(model, Classifier):
        return "head"
    head = model.last_layer if isinstance(model, LayerFeatures) else getattr(model, "layer", "")
    if isinstance(model, WrappedClassifier) and head:
        return f"network.{head}"
    raise InputError("model", "must have a last layer, linear or a convolution with kernel 1", type(model).__name__)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """The mode of every part of a model, its device and which parameters have gradients are restored after the block."""
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]  # frozen TorchScript: none
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    device = next((parameter.device for parameter, _ in flags), None)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        if device is not None and flags[0][0].device != device:
            model.to(device)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, full float32 and no gradients of parameters inside the block; everything is restored afterwards."""
    with unchanged(model):
        model.eval().requires_grad_(False)
        with precision.full_precision():
            yield


def memory_format(model: nn.Module) -> torch.memory_format:
    """Memory format for images and weights: channels last is fastest, but a user's own code may need the contiguous format."""
    safe = isinstance(model, Classifier) and not any(map(_corrupts_channels_last, model.modules()))
    return torch.channels_last if safe else torch.contiguous_format


def _corrupts_channels_last(module: nn.Module) -> bool:
    """A strided 1x1 convolution of fewer than 8 channels: its backward pass corrupts memory on some CPUs (torch 2.13)."""
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride != (1, 1) and module.in_channels < 8


def copied(model: nn.Module) -> nn.Module:
    """A copy; the model itself if it cannot be copied."""
    try:
        duplicate = copy.deepcopy(model)
    except Exception:  # locks, open files: a user's network may hold anything
        return model
    for parameter in duplicate.parameters():
        if not parameter.is_leaf:  # the copies of TorchScript's parameters are computed from them
            parameter.detach_()
    return duplicate


def frozen_copy(model: nn.Module, device: torch.device | str = "cpu") -> Any:
    """A copy on a device, in evaluation mode and without gradients of parameters; the model itself if it cannot be copied."""
    duplicate: Any = copied(model)
    return duplicate.to(device).eval().requires_grad_(False).to(memory_format=memory_format(model))
