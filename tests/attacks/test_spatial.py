"""Rotations and translations: the transformation itself, and the attack against every grid point."""

import pytest
import torch
from attacks.conftest import Batch, margins_of, seeded

from notbugs import attacks
from notbugs.errors import InputError
from notbugs.models import Model
from notbugs.search import SpatialTransforms


def test_the_worst_rotation_of_a_grid_and_beyond(standard: Model, few: Batch) -> None:
    images, labels = few
    rotations = SpatialTransforms(25, 0)
    grid = attacks.spatial_attack(standard, images, labels, threat_model=rotations, angles=9, translations=1, steps=0)
    rotated = [rotations.apply(images, torch.tensor([[share, 0.0, 0.0]]).expand(60, 3)) for share in torch.linspace(-1, 1, 9)]
    worst = torch.stack([margins_of(standard, each, labels) for each in rotated]).amax(0)
    assert torch.equal(grid.margins >= 0, worst >= 0)
    assert torch.allclose(grid.margins[worst < 0], worst[worst < 0], atol=1e-4)
    assert torch.allclose(grid.margins, margins_of(standard, grid.images, labels), atol=1e-4)
    refined = attacks.spatial_attack(standard, images, labels, threat_model=rotations, angles=9, translations=1, steps=20)
    assert bool((refined.margins >= grid.margins - 1e-4).all())
    assert float((refined.margins - grid.margins)[grid.margins < 0].mean()) > 1e-3
    identity = attacks.spatial_attack(standard, images, labels, threat_model=SpatialTransforms(0, 0))
    assert torch.allclose(identity.images, images, atol=1e-5)


def test_rotations_and_translations_move_pixels_as_stated() -> None:
    image = torch.rand(1, 3, 6, 8, generator=seeded())
    translated = SpatialTransforms(0, 2).apply(image, torch.tensor([[0.0, 1.0, -0.5]]))
    assert torch.allclose(translated[:, :, 1:, :6], image[:, :, :5, 2:], atol=1e-5)
    assert float(translated[:, :, 0].max()) < 1e-5
    square = image[:, :, :, :6]
    rotated = SpatialTransforms(90, 0).apply(square, torch.tensor([[1.0, 0, 0]]))
    assert torch.allclose(rotated, square.rot90(1, (2, 3)), atol=1e-4)
    assert torch.allclose(SpatialTransforms(45, 0).apply(image, torch.zeros(1, 3)), image, atol=1e-5)
    for bad in ((-1, 0), (200, 0), (0, -1), (0, torch.nan)):
        with pytest.raises(InputError, match=r"^(degrees|pixels): must be"):
            SpatialTransforms(*bad)
    with pytest.raises(InputError, match=r"^pixels: must be below 6"):
        SpatialTransforms(0, 6).fit(image.shape)


def test_the_input_is_left_alone(standard: Model, few: Batch) -> None:
    images, labels = few
    before = images.clone()
    found = attacks.spatial_attack(standard, images, labels, threat_model=SpatialTransforms(20, 1), angles=3, translations=3)
    found.images.zero_()
    assert torch.equal(images, before)
