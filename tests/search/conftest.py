"""Shared by the tests of the search: a threat model's step rule, and linear models whose answers are known in closed form."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from notbugs import search
from notbugs.search import NormBall

LinearModel = Callable[..., tuple[Callable[[Tensor], Tensor], Tensor]]


@pytest.fixture
def images() -> Tensor:
    """Six grey images of 4x4 pixels in [0.3, 0.7], far from the borders of the pixel range."""
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.4 + 0.3


@pytest.fixture
def linear_model() -> LinearModel:
    """A function (classes, scale=1) -> a linear model of 16 pixels and its weights (K, 16)."""

    def build(classes: int, scale: float = 1.0) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        weights = scale * torch.randn(classes, 16, generator=torch.Generator().manual_seed(0))
        return lambda images: images.flatten(1) @ weights.to(images.dtype).T, weights

    return build


@pytest.fixture
def decaying() -> Callable[[NormBall], search.UpdateRule]:
    """A function threat model -> steps that decay from 2 epsilon to a hundredth of that."""
    return lambda threat_model: search.cosine_steps(threat_model, 2 * threat_model.epsilon, end=0.01)
