"""Shared by the tests of models: random images, networks whose batch norms do something, one-line errors."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from torch import Tensor, nn

from notbugs import models
from notbugs.errors import InputError

Shape = tuple[int, int, int]


@pytest.fixture(scope="session")
def random_images() -> Callable[..., Tensor]:
    """A function (shape, n=3) -> n images in [0, 1]."""

    def draw(shape: Shape, n: int = 3) -> Tensor:
        return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))

    return draw


@pytest.fixture(scope="session")
def randomize_batchnorm() -> Callable[..., None]:
    """A function that sets means, variances, factors and offsets of all batch norms to uniform numbers, away from 0 and 1."""

    def randomize(model: nn.Module, lows: tuple[float, float, float, float], width: float) -> None:
        generator = torch.Generator().manual_seed(0)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value, low in zip((module.running_mean, module.running_var, module.weight, module.bias), lows, strict=True):
                    assert value is not None
                    value.data = low + width * torch.rand(value.shape, generator=generator)

    return randomize


@pytest.fixture(scope="session")
def build_used(randomize_batchnorm: Callable[..., None]) -> Callable[..., models.Classifier]:
    """A function (name, shape) -> a network of width 4 and 4 classes whose batch norms are not the identity."""

    def build(name: str, shape: Shape) -> models.Classifier:
        model = models.build(name, shape=shape, classes=4, width=4, mean=[0.4] * shape[0], std=[0.2] * shape[0])
        assert isinstance(model, models.Classifier)
        randomize_batchnorm(model, (-0.5, 0.5, 0.5, -0.5), 1.0)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def raises_one_line() -> Callable[[str], AbstractContextManager[None]]:
    """`pytest.raises(InputError)` that also checks that the message is one short line."""

    @contextmanager
    def check(pattern: str) -> Iterator[None]:
        with pytest.raises(InputError, match=pattern) as caught:
            yield
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500

    return check
