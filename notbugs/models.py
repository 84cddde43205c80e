"""Classifiers: pixels in [0, 1] -> normalise -> features -> logits. Small networks, any user's network, save and load."""

import copy
import errno
import importlib
import json
import os
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from notbugs.errors import BadInput


class Classifier(nn.Module):
    """Normalisation, features (N, C, H, W) -> (N, F) and a linear head (N, F) -> (N, K), seen as one network of pixels.

    `model(images)` gives logits, `model.features(images)` the penultimate layer; both take float images in [0, 1].
    architecture: what `build` needs to make the same network again.
    """

    def __init__(
        self, body: nn.Module, head: nn.Module, *, mean: Sequence[float], std: Sequence[float], architecture: dict[str, Any]
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))
        self.body, self.head, self.architecture = body, head, architecture

    def features(self, images: Tensor) -> Tensor:
        mean = self.get_buffer("mean")
        result: Tensor = self.body((images.to(mean.dtype) - mean) / self.get_buffer("std"))
        return result

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


class Wrapped(nn.Module):
    """A user's network behind the same door: its logits, and as features what enters one of its layers (see `wrap`)."""

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        architecture: dict[str, Any],
    ) -> None:
        super().__init__()
        self.network, self.layer, self.architecture = network, layer, architecture
        self.register_buffer("mean", torch.tensor(mean or [0.0]).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std or [1.0]).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        mean = self.get_buffer("mean")
        result = self.network((images.to(mean.dtype) - mean) / self.get_buffer("std"))
        logits = getattr(result, "logits", result)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images):
            raise BadInput(
                f"model {self.architecture.get('name')}",
                f"must return logits of shape ({len(images)}, classes)",
                tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__,
            )
        return logits

    def features(self, images: Tensor) -> Tensor:
        seen: list[Tensor] = []
        handle = self.network.get_submodule(self.layer).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            self(images)
        finally:
            handle.remove()
        return seen[-1].flatten(1)


Model = Classifier | Wrapped


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside; afterwards every module's mode and every parameter's flag as before."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


def layout(model: nn.Module) -> torch.memory_format:
    """How images and weights lie in memory: channels last is fastest, but a user's own code may rely on the usual order."""
    return torch.channels_last if isinstance(model, Classifier) else torch.contiguous_format


def folded(model: nn.Module, sample: Tensor, device: torch.device | str = "cpu") -> Any:
    """A frozen copy on a device for searching, batch norm folded into the convolutions before it: the same, but faster.

    sample: a few images (n, C, H, W), on which the copy must agree; where tracing or agreement fails, it is a plain copy.
    Folding takes 0.6 of the time on narrow networks and half the memory.
    """
    sample = sample.to(device)
    try:
        plain: Any = copy.deepcopy(model)
    except Exception:  # locks, open files: a user's network may hold anything; then it serves itself
        plain = model
    plain = plain.to(device).eval().requires_grad_(False).to(memory_format=layout(model))
    if not isinstance(model, Classifier):
        return plain
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own import of its older parts
        from torch.fx.experimental.optimization import fuse

    fast = copy.deepcopy(plain)
    try:
        fast.body = fuse(cast(nn.Module, fast.body)).eval().requires_grad_(False)
    except Exception:  # tracing runs the network's own code, which may raise anything
        return plain
    with torch.no_grad():
        same = torch.allclose(fast(sample), plain(sample), rtol=1e-3, atol=1e-3)
    return fast if same else plain


# ---- small networks -------------------------------------------------------------------------------------------------


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """x + body(x), with a 1x1 convolution on the short way where shapes differ."""

    def __init__(self, body: nn.Module, short: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.short, self.after = body, short or nn.Identity(), after or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.after(self.short(images) + self.body(images))
        return result


def small(shape: Sequence[int], width: int = 32) -> tuple[nn.Sequential, int]:
    """Strided convolutions down to 4x4 or less, then one as large as what is left, so that place counts: (body, features).

    Trains in seconds on 8x8 digits; features: twice the width.
    """
    channels, height, across = shape
    layers: list[nn.Module] = [_convolution(channels, width)]
    inputs, features = width, 2 * width
    while max(height, across) > 4:
        layers.append(_convolution(inputs, features, stride=2))
        inputs, height, across = features, (height + 1) // 2, (across + 1) // 2
    layers += [nn.Conv2d(inputs, features, (height, across), bias=False), nn.BatchNorm2d(features), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers), features


def resnet9(shape: Sequence[int], width: int = 32) -> tuple[nn.Sequential, int]:
    """Nine layers, two of the blocks residual, the class of network that speed records on CIFAR-10 use: (body, features)."""

    def double(wide: int) -> Residual:
        return Residual(nn.Sequential(_convolution(wide, wide), _convolution(wide, wide)))

    return nn.Sequential(
        _convolution(shape[0], width),
        _convolution(width, 2 * width),
        nn.MaxPool2d(2),
        double(2 * width),
        _convolution(2 * width, 4 * width),
        nn.MaxPool2d(2),
        _convolution(4 * width, 8 * width),
        nn.MaxPool2d(2),
        double(8 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ), 8 * width


def resnet18(shape: Sequence[int], width: int = 64) -> tuple[nn.Sequential, int]:
    """ResNet-18 for small images: a 3x3 stem, no first pooling (He et al. 2016): (body, features)."""
    layers: list[nn.Module] = [_convolution(shape[0], width)]
    inputs = width
    for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
        for step in (stride, 1):
            short = None
            if step != 1 or inputs != outputs:
                short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, step, bias=False), nn.BatchNorm2d(outputs))
            body = nn.Sequential(
                _convolution(inputs, outputs, step), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
            )
            layers.append(Residual(body, short, nn.ReLU()))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs


NETWORKS: dict[str, Callable[..., tuple[nn.Sequential, int]]] = {"small": small, "resnet9": resnet9, "resnet18": resnet18}


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
    """A fresh network. name: small, resnet9, resnet18, or `module:function` of your own (see `wrap`), called with classes=K.

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
                raise BadInput("--network", f"{name} must give one output for each of the {classes} classes", outputs)
            return wrapped
        if name not in NETWORKS:
            raise BadInput("--network", f"must be one of {', '.join(NETWORKS)}, or module:function", repr(name))
        body, features = NETWORKS[name](shape, **({"width": width} if width else {}))
        return Classifier(body, nn.Linear(features, classes), mean=mean, std=std, architecture=architecture)


def wrap(
    network: nn.Module,
    sample: Tensor,
    *,
    layer: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    architecture: dict[str, Any] | None = None,
) -> Wrapped:
    """Any network that maps normalised images to logits (a tensor, or an object with `.logits`).

    sample: two images (2, C, H, W) to try it on. layer: the module whose input are the features, by its name in the network;
    left out, the last linear layer that runs. mean, std: what the network expects pixels in [0, 1] to be normalised with.
    """
    ran: list[str] = []
    modules = dict(network.named_modules(remove_duplicate=False))
    handles = [module.register_forward_pre_hook(lambda *_, name=name: ran.append(name)) for name, module in modules.items()]
    wrapped = Wrapped(network, layer or "", mean, std, architecture or {"name": type(network).__name__})
    try:
        with frozen(wrapped), torch.no_grad():
            wrapped(sample)
    except (RuntimeError, TypeError) as error:
        raise BadInput("model", f"must take images of shape {tuple(sample.shape)}", _one_line(error)) from error
    finally:
        for handle in handles:
            handle.remove()
    linear = [name for name in ran if isinstance(modules[name], nn.Linear)]
    if layer is None and not linear:
        raise BadInput("model", "has no linear layer whose input could be the features", remedy="name the layer: layer=…")
    wrapped.layer = layer if layer is not None else linear[-1]
    if wrapped.layer not in ran:
        children = ", ".join(name for name, _ in network.named_children())
        raise BadInput("layer", f"must be a module that runs in the network ({children} …)", repr(layer))
    return wrapped


def _user_network(name: str, classes: int) -> nn.Module:
    network = user_object(name, classes, "--network")
    if not isinstance(network, nn.Module):
        raise BadInput("--network", f"{name} must return a torch.nn.Module", type(network).__name__)
    return network


def user_object(name: str, classes: int, option: str) -> Any:
    """What the user's `module:function`, called with classes=K, returns. Runs that code; option: for messages."""
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())  # as `python -m` does: a file beside the user's data is importable
    try:
        return getattr(importlib.import_module(module), function)(classes=classes)
    except Exception as error:  # a user's own code may raise anything
        rule = f"{name} must be a function(classes=…) that returns a {'torch.nn.Module' if option == '--network' else 'model'}"
        raise BadInput(option, rule, _one_line(error)) from None
    finally:
        sys.path.pop(0)


# ---- disk -----------------------------------------------------------------------------------------------------------


def check_place(path: Path) -> None:
    """Raises BadInput where no model could be saved; asked before training, not after."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise BadInput(str(path), "cannot be written", error.strerror or _one_line(error)) from None


def save(model: Model, path: Path, **facts: Any) -> None:
    """Weights to `path` (.safetensors), architecture and `facts` to the .json beside it; both appear whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    weights, words = path.with_suffix(".safetensors.part"), path.with_suffix(".json.part")
    # copied: safetensors refuses weights that two layers share
    tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(tensors, weights)
            words.write_text(json.dumps({"architecture": model.architecture, **facts}, indent=1))
            path.unlink(missing_ok=True)  # an earlier model's: new words must never stand beside old weights
            os.replace(words, path.with_suffix(".json"))
            os.replace(weights, path)
        finally:
            weights.unlink(missing_ok=True)
            words.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:  # the latter carries a full disk
        raise BadInput(str(path), "cannot be written", getattr(error, "strerror", None) or _one_line(error)) from None


def load(path: Path, network: str | None = None) -> tuple[Model, dict[str, Any]]:
    """The network `save` wrote, and its facts. Raises BadInput: a missing, foreign or damaged file, weights that do not fit.

    network: the `module:function` that the file is expected to name. Building it runs that code, so a file alone cannot ask it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise BadInput(str(path), "no such model", remedy="give the .safetensors file of models/ in a run folder")
    words = path.with_suffix(".json")
    if path.suffix != ".safetensors":
        raise BadInput(
            str(path),
            "must be a .safetensors file; pickles can run code and are not read",
            path.suffix or "no ending",
            "save the weights with safetensors.torch.save_file(network.state_dict(), …)",
        )
    if not words.is_file():
        raise BadInput(str(path), f"needs {words.name} beside it, which says what network it is")
    try:
        facts = json.loads(words.read_text())
        wanted = facts["architecture"]["name"]
        trusted = ":" not in wanted or wanted == network
        model = build(**facts["architecture"]) if trusted else None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise BadInput(str(words), "is not the description of a model that can be built", _one_line(error)) from None
    if model is None:
        raise BadInput(str(words), "asks to run code", repr(wanted), f"if you trust it, say --network {wanted}")
    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise BadInput(str(path), f"is damaged, or does not fit the network of {words.name}", _one_line(error)) from None
    return model.eval(), facts


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), 200, placeholder=" …")
