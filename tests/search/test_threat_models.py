"""Threat models as text, and rotations and translations."""

import math

import pytest
import torch

from notbugs.errors import InputError
from notbugs.search import NormBall, SpatialTransforms
from notbugs.search.threat_models import parse_threat_model


@pytest.mark.parametrize(
    ("text", "norm", "wanted"),
    [
        ("0.5", "l2", NormBall("l2", 0.5)),
        ("8/255", "linf", NormBall("linf", 8 / 255)),
        ("L2: 1/2", "linf", NormBall("l2", 0.5)),
        ("l1:12", "l2", NormBall("l1", 12)),
        ("l0:1", "l2", NormBall("l0", 1)),
        ("inf", "l2", NormBall("l2", math.inf)),
        ("spatial:30,3", "l2", SpatialTransforms(30, 3)),
    ],
)
def test_parse_threat_model(text: str, norm: str, wanted: NormBall | SpatialTransforms) -> None:
    assert parse_threat_model(text, norm) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("half", "--epsilon: must be a number, or a fraction like 8/255, got 'half'"),
        ("1/0", "--epsilon: must be a number, or a fraction like 8/255, got '1/0'"),
        ("l3:1", "--epsilon: must start with one of linf, l2, l1, l0, spatial, got 'l3:1'"),
        ("spatial:30", "--epsilon: must be DEGREES,PIXELS, got 'spatial:30'"),
        ("spatial:200,1", "degrees: must be from 0 to 180, got 200.0"),
        ("spatial:20,-1", "pixels: must be a number, 0 or more, got -1.0"),
    ],
)
def test_text_that_is_no_threat_model_raises(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_threat_model(text)
    assert str(caught.value) == message


def test_threat_models_print_as_norm_and_epsilon() -> None:
    texts = [
        str(NormBall("linf", 8 / 255)),
        str(NormBall("l2", 0.5)),
        str(NormBall("l2", math.inf)),
        str(SpatialTransforms(30, 3)),
    ]
    assert texts == ["linf 8/255", "l2 0.5", "l2 inf", "spatial 30,3"]


def test_spatial_transforms_rotate_and_translate() -> None:
    images = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    transforms = SpatialTransforms(90, 1)
    assert torch.allclose(transforms.apply(images, torch.zeros(1, 3)), images, atol=1e-5)
    rotated = transforms.apply(images, torch.tensor([[1.0, 0, 0]]))
    assert any(torch.allclose(rotated, images.rot90(times, (2, 3)), atol=1e-5) for times in (1, 3))
    translated = transforms.apply(images, torch.tensor([[0.0, 1, 0]]))
    assert torch.allclose(translated[..., :-1], images[..., 1:], atol=1e-5)
    assert translated[..., -1].abs().max() < 1e-5  # what enters the image is black


def test_translations_larger_than_the_images_raise() -> None:
    assert SpatialTransforms(0, 7).fit(torch.Size((1, 1, 8, 9))) == SpatialTransforms(0, 7)
    with pytest.raises(InputError, match=r"^pixels: must be below 8, the images' shorter side, got 8$"):
        SpatialTransforms(0, 8).fit(torch.Size((1, 1, 8, 9)))
