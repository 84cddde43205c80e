"""Layers: an exact ratio for a linear layer, names, and layers as features."""

import pytest
import torch
from torch import nn

from notbugs import data, metrics, models
from notbugs.errors import InputError
from notbugs.search import NormBall


def test_the_ratio_of_a_linear_layer_is_exact() -> None:
    """The largest movement is epsilon times the largest singular value; the distance between images is counted."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(6, 16, generator=generator))
    images = 0.5 + 0.02 * torch.randn(12, 1, 4, 4, generator=generator)
    flat, linear = metrics.per_layer(network, images, NormBall("l2", 0.1), steps=60)
    output = network(images).detach()
    between = (output - output.roll(1, 0)).norm(dim=1).mean().item()
    largest = torch.linalg.matrix_norm(network[1].weight.detach(), 2).item()
    assert linear.ratio == pytest.approx(0.1 * largest / between, rel=0.02)
    assert (flat.layer, flat.features, flat.distance_moved) == ("0", 16, pytest.approx(0.1, rel=1e-3))


def test_layers_of_a_network_by_name(robust: models.Model, digits: data.Splits) -> None:
    images = digits.test.pixels(slice(0, 20))
    rows = metrics.per_layer(robust, images, NormBall("l2", 0.5), steps=3)
    assert [row.layer for row in rows] == [f"body.{name}" for name, _ in robust.body.named_children()]  # type: ignore[union-attr, operator]
    assert all(0 < row.ratio < 5 for row in rows)
    forward = metrics.layer_forward(robust, "body.0")
    with models.frozen(robust):
        assert forward(images).shape == (20, 16)
        part = digits.test.select(slice(0, 60))
        features = metrics.per_feature(robust, part, NormBall("l2", 0.5), forward=forward, steps=2, sample=20)
    assert len(features) == 160


@pytest.mark.parametrize("layer", ["nowhere", "unused"])
def test_a_layer_that_does_not_exist_or_run_is_rejected(layer: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    network.add_module("unused", nn.Identity())
    network.forward = network[1].forward  # type: ignore[method-assign]
    with pytest.raises(InputError, match=f"layer: must .*'{layer}'"):
        metrics.layer_forward(network, layer)(torch.zeros(2, 16))


def test_a_single_image_has_no_distances() -> None:
    with pytest.raises(InputError, match="two or more"):
        metrics.per_layer(nn.Flatten(), torch.zeros(1, 1, 4, 4), NormBall("l2", 0.1))
