"""Predictions, logits and features of a model on a data set: the only loop that does it, in full float32."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from notbugs import precision
from notbugs.data import Dataset, map_batches
from notbugs.models import Model, frozen
from notbugs.search import objectives

BATCH_SIZE = 500  # of large images fewer


def predict(model: Callable[[Tensor], Tensor], dataset: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """Predicted class of each image.

    Parameters
    ----------
    model : nn.Module or callable
        Images (N, C, H, W) in [0, 1] to logits (N, K). A module is moved to the device.
    dataset : Dataset
    device : torch.device or str

    Returns
    -------
    Tensor
        (N,), int64, on the CPU.

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").test.select(slice(0, 5))
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> predict(model, digits).shape
    torch.Size([5])
    """

    def predictions(images: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            return objectives.logits(model, images).argmax(1)

    return _on_dataset(predictions, model, dataset, device)


def logits(model: Callable[[Tensor], Tensor], dataset: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """Logits of each image, float32 (N, K), on the CPU. Parameters as in `predict`."""

    def batch_logits(images: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            return objectives.logits(model, images)

    return _on_dataset(batch_logits, model, dataset, device)


def features(model: Model, dataset: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """Features of each image, the input of the last layer: float32 (N, F), on the CPU. Parameters as in `predict`."""

    def batch_features(images: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            return model.features(images).float()

    return _on_dataset(batch_features, model, dataset, device)


def _on_dataset(
    function: Callable[[Tensor, Tensor], Tensor], model: Callable[[Tensor], Tensor], dataset: Dataset, device: torch.device | str
) -> Tensor:
    """A function of a model over all images; the model is frozen if it is a module."""
    size = precision.bounded_batch_size(BATCH_SIZE, device, dataset.shape)
    with frozen(model.to(device)) if isinstance(model, nn.Module) else nullcontext():
        outputs: Tensor = map_batches(function, dataset, batch_size=size, device=device, share=False)
    return outputs
