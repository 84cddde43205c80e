"""Preprocessing that a model needs and does not do itself: as a layer before it, so that attacks stay in pixels of [0, 1]."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from notbugs.errors import InputError
from notbugs.models.black_box import BlackBox, SurrogateGradients


@dataclass(frozen=True)
class Preprocessing:
    """What a model expects of its pixels. From [0, 1] they are scaled to the range, then normalized: (pixel - mean) / std.

    Parameters
    ----------
    mean, std : tuple of float, optional
        One value, or one for each channel, in units of the range. Default: 0 and 1.
    pixel_range : (float, float), optional
        What black and white are before mean and std. Default: 0 and 1.

    Raises
    ------
    InputError
        If standard deviations are not above 0, or the range is not two numbers, black first.

    Examples
    --------
    >>> caffe = Preprocessing(mean=(127.5,), pixel_range=(0.0, 255.0))
    >>> caffe.words
    'it gets pixels from 0 to 255, minus 127.5'
    >>> caffe.in_unit_range()
    ((0.5,), (0.00392156862745098,))
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pixel_range: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name, values in (("--mean", self.mean), ("--std", self.std), ("--range", self.pixel_range)):
            if values is not None and not all(map(np.isfinite, values)):
                raise InputError(name, "must be finite numbers", _listed(values))
        if self.std is not None and not min(self.std) > 0:
            raise InputError("--std", "must be above 0", _listed(self.std))
        if self.pixel_range is not None and not (len(self.pixel_range) == 2 and self.pixel_range[0] != self.pixel_range[1]):
            raise InputError("--range", "must be two different numbers, for black and for white", _listed(self.pixel_range))

    def __bool__(self) -> bool:
        return self != Preprocessing()

    @property
    def words(self) -> str:
        """What the model gets, in words."""
        low, high = self.pixel_range or (0.0, 1.0)
        minus = f", minus {_listed(self.mean)}" if self.mean else ""
        divided = f", divided by {_listed(self.std)}" if self.std else ""
        return f"it gets pixels from {low:g} to {high:g}{minus}{divided}"

    def check_channels(self, counts: Sequence[int]) -> None:
        """Raises InputError unless mean and std have one value or one of these numbers of values, both the same."""
        for name, values in (("--mean", self.mean), ("--std", self.std)):
            if values is not None and len(values) not in (1, *counts):
                rule = f"must have one value, or one for each of the {' or '.join(map(str, counts))} channels"
                raise InputError(name, rule, f"{len(values)}: {_listed(values)}")
        lengths = {len(values) for values in (self.mean, self.std) if values is not None and len(values) > 1}
        if len(lengths) > 1:
            raise InputError("--mean, --std", "must have as many values", f"{_listed(self.mean)} and {_listed(self.std)}")

    def in_unit_range(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation for pixels in [0, 1], as many of each."""
        low, high = self.pixel_range or (0.0, 1.0)
        mean, std = self.mean or (0.0,), self.std or (1.0,)
        count = max(len(mean), len(std))
        mean, std = (values * (count if len(values) == 1 else 1) for values in (mean, std))
        return tuple((value - low) / (high - low) for value in mean), tuple(value / (high - low) for value in std)


def _listed(values: Sequence[float] | None) -> str:
    return ", ".join(f"{value:g}" for value in values or ())


class Preprocessed(nn.Module):
    """A network behind mean and standard deviation (C,) or (1,) for pixels in [0, 1]."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """What the network returns."""
        outputs: Tensor = self.network((images - self.get_buffer("mean")) / self.get_buffer("std"))
        return outputs


def preprocessed(model: BlackBox | SurrogateGradients, preprocessing: Preprocessing) -> BlackBox | SurrogateGradients:
    """A black box that gets pixels as it expects them, and so does what stands for its gradients."""
    mean, std = preprocessing.in_unit_range()
    if isinstance(model, SurrogateGradients):
        box = preprocessed(model.box, preprocessing)
        assert isinstance(box, BlackBox)
        surrogates = (Preprocessed(each, mean, std) for each in model.surrogates)
        return SurrogateGradients(box, *surrogates, tolerance=model.tolerance)
    function = model.function
    shift, scale = (np.array(values, np.float32).reshape(1, -1, 1, 1) for values in (mean, std))
    return BlackBox(lambda images: function((images - shift) / scale), model.classes, model.no_gradient)
