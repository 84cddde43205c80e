"""Batch-norm statistics of other images than those a network was trained on."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from notbugs.data import Dataset


def adapt_batchnorm(
    model: nn.Module, dataset: Dataset, *, batch_size: int = 250, seed: int = 0, device: torch.device | str = "cpu"
) -> int:
    """Replace a network's batch-norm statistics by those of a data set, without its labels.

    A network trained on perturbed images keeps the mean and variance of their activations. On clean images these are wrong, and
    what it has learned is hidden.

    Parameters
    ----------
    model : nn.Module
        Changed in place; its weights stay.
    dataset : Dataset
        One image or more. Labels are not used.
    batch_size : int
        The statistics are means over batches of so many images, drawn at random. Images beyond the last full batch are left out.
    seed : int
    device : torch.device or str

    Returns
    -------
    int
        Batch-norm layers; 0 if there are none, and nothing changes.

    References
    ----------
    Li et al. 2016, "Revisiting Batch Normalization for Practical Domain Adaptation".

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").train
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> adapt_batchnorm(model, digits)
    3
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not layers:
        return 0
    momenta, training = [layer.momentum for layer in layers], {module: module.training for module in model.modules()}
    batch_size = min(batch_size, len(dataset))
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    model.eval()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the mean over batches
            layer.train()
        with torch.no_grad():
            for index in torch.split(order[: len(dataset) // batch_size * batch_size], batch_size):
                model(dataset.pixels(index).to(device))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, mode in training.items():
            module.training = mode
    return len(layers)
