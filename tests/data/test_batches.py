"""A function applied batch by batch."""

import torch
from data.conftest import random_dataset

from notbugs import data


def test_map_batches_equals_the_function_of_the_whole() -> None:
    whole = random_dataset(7)
    pixels, index = data.map_batches(lambda images, index: (images.mean((1, 2, 3)), index), whole, batch_size=3)
    assert torch.allclose(pixels, whole.pixels(slice(None)).mean((1, 2, 3))) and index.tolist() == list(range(7))
    values = torch.randn(5, 2, requires_grad=True)
    twice = data.map_batches(lambda images, index: images * 2, values, batch_size=2)
    assert torch.equal(twice, values.detach() * 2) and not twice.requires_grad
    assert data.map_batches(lambda images, index: images.flatten(1), whole.select([])).shape == (0, 60)
