"""A classifier that is accurate without training: the nearest mean image of a class, as a linear network."""

from collections.abc import Sequence

import torch
from torch import nn

from notbugs import models
from notbugs.data import Dataset


def prototype_classifier(train: Dataset, order: Sequence[int] | None = None) -> models.Classifier:
    """order: for each output the class that it is."""
    classes = len(train.classes)
    model = models.build("linear", shape=train.shape, classes=classes, mean=[0.0] * train.shape[0], std=[1.0] * train.shape[0])
    assert isinstance(model, models.Classifier) and isinstance(model.head, nn.Linear)
    pixels = train.pixels(slice(None)).flatten(1)
    means = torch.stack([pixels[train.labels == label].mean(0) for label in order or range(classes)])
    model.head.weight.data, model.head.bias.data = means, -means.square().sum(1) / 2
    return model.eval().requires_grad_(False)
