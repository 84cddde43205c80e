from collections.abc import Callable

import torch
from torch import Tensor, nn

from notbugs import models
from notbugs.data import Dataset, map_batches
from notbugs.models import frozen
from notbugs.search import objectives


def predict(model: nn.Module, data: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """The class that a model reads in each image: int64 (N,)."""
    model = model.to(device)

    def answer(images: Tensor, _: Tensor) -> Tensor:
        with frozen(model), torch.no_grad():
            read: Tensor = objectives.logits(model, images).argmax(1)
        return read

    found: Tensor = map_batches(answer, data, batch_size=500, device=device)
    return found


def logits(model: nn.Module, part: Dataset, device: torch.device | str) -> Tensor:
    """What a model says of each file: logits (N, K) on the CPU."""

    def asked(images: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            return objectives.logits(model, images)

    with frozen(model):
        found: Tensor = map_batches(asked, part, batch_size=500, device=device)
    return found


def features(model: models.Model, part: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """The penultimate layer's values on the CPU: float (N, F)."""
    with frozen(model):
        found: Tensor = map_batches(lambda images, _: model.features(images).float(), part, batch_size=500, device=device)
    return found


def predict_any(model: Callable[[Tensor], Tensor], part: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """The class a model, or a function of images, reads in each: int64 (N,)."""
    if isinstance(model, nn.Module):
        return predict(model, part, device)
    found: Tensor = map_batches(lambda images, _: model(images).argmax(1), part, batch_size=500, device=device)
    return found
