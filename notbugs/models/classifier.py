"""A classifier and a user's network behind the same door: pixels in [0, 1] -> normalise -> features -> logits."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from notbugs import precision
from notbugs.errors import InputError


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


class WrappedClassifier(nn.Module):
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
            raise InputError(
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


Model = Classifier | WrappedClassifier


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, full float32 (`speed.exact`) and no parameter gradients inside; afterwards all is as it was before."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        with precision.full_precision():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


def memory_format(model: nn.Module) -> torch.memory_format:
    """How images and weights lie in memory: channels last is fastest, but a user's own code may rely on the usual order."""
    return torch.channels_last if isinstance(model, Classifier) else torch.contiguous_format


def frozen_copy(model: nn.Module, device: torch.device | str = "cpu") -> Any:
    """A frozen copy on a device, in evaluation mode; a network that cannot be copied serves itself."""
    try:
        plain: Any = copy.deepcopy(model)
    except Exception:  # locks, open files: a user's network may hold anything
        plain = model
    return plain.to(device).eval().requires_grad_(False).to(memory_format=memory_format(model))


def fuse_batchnorm(model: nn.Module, sample: Tensor, device: torch.device | str = "cpu") -> Any:
    """A `still` copy for searching, batch norm folded into the convolutions before it: the same, but faster.

    sample: a few images (n, C, H, W), on which the copy must agree; where tracing or agreement fails, it is a plain copy.
    Folding takes 0.6 of the time on narrow networks and half the memory.
    """
    sample, plain = sample.to(device), frozen_copy(model, device)
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
    with torch.no_grad(), precision.full_precision():
        same = torch.allclose(fast(sample), plain(sample), rtol=1e-3, atol=1e-3)
    return fast if same else plain
