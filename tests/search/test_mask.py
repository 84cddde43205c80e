"""Masks and limits of channels: what must not change stays, in every norm, and the rest is as in the smaller space."""

import math

import pytest
import torch
from torch import Tensor

from notbugs.errors import InputError
from notbugs.search import Mask, NormBall
from notbugs.search.threat_models import parse_threat_model

BALLS = {"linf": 0.2, "l2": 0.7, "l1": 1.5, "l0": 3}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def levels(shape: tuple[int, ...], seed: int) -> Tensor:
    """Random images of 8 bits."""
    return torch.randint(0, 256, shape, generator=seeded(seed)) / 255


def half(channels: int = 1) -> Mask:
    """The left half of images of 4x6 pixels; of several channels the first one alone."""
    free = torch.zeros(channels, 4, 6, dtype=torch.bool)
    free[0, :, :3] = True
    return Mask(free)


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("channels", [1, 2])
def test_everything_stays_within_the_mask_and_is_as_in_the_smaller_space(norm: str, channels: int) -> None:
    """A projection, a step and a rounding of masked images are those of the free part alone."""
    mask, center = half(channels), levels((5, 2, 4, 6), 0)
    masked, plain = NormBall(norm, BALLS[norm], mask), NormBall(norm, BALLS[norm])
    images = center + 0.5 * torch.randn(center.shape, generator=seeded(1))
    gradient = torch.randn(center.shape, generator=seeded(2))
    part = (slice(None), slice(0, 3 - channels), slice(None), slice(0, 3))  # the free part, as images of their own
    projected = masked.project(images, center)
    assert torch.equal(masked.keep_rest(projected, center), projected) and not torch.equal(projected, center)
    assert torch.allclose(projected[part], plain.project(images[part], center[part]))
    step = masked.steepest_step(center, gradient, plain.epsilon)
    assert torch.allclose(step[part], plain.steepest_step(center[part], gradient[part], plain.epsilon))
    assert int((step != 0).sum()) == int((step[part] != 0).sum())
    rounded = masked.round_to_8bit(projected, center)
    assert torch.equal(rounded[part], plain.round_to_8bit(projected[part], center[part])) and bool(
        masked.contains(rounded, center).all()
    )
    assert torch.allclose(masked.distance(projected - center), plain.distance(projected[part] - center[part]))
    sample = masked.sample(center, seeded())
    assert torch.equal(masked.keep_rest(sample, center), sample) and bool((masked.distance(sample - center) > 0).all())
    assert bool((masked.distance(sample - center) <= plain.epsilon + 1e-5).all())


def test_what_lies_outside_the_mask_is_infinitely_far() -> None:
    center = levels((2, 1, 4, 6), 0)
    outside = center.clone()
    outside[0, 0, 0, 5] = 1 - outside[0, 0, 0, 5].round()
    for norm, epsilon in BALLS.items():
        ball = NormBall(norm, epsilon, half())
        assert ball.distance(outside - center).tolist() == [math.inf, 0]
        assert ball.contains(outside, center).tolist() == [False, True]


def test_limits_of_channels_are_shares_of_epsilon() -> None:
    ball, center = parse_threat_model("linf:8/255,4/255,0"), torch.full((1, 3, 2, 2), 100 / 255)
    assert isinstance(ball, NormBall)
    assert (ball.epsilon, ball.channels, str(ball)) == (8 / 255, (1.0, 0.5, 0.0), "linf 8/255,4/255,0")
    projected = ball.project(torch.ones_like(center), center)
    assert torch.allclose(((projected - center)[0, :, 0, 0] * 255), torch.tensor([8.0, 4, 0]), atol=1e-4)
    assert ball.distance(projected - center).item() == pytest.approx(8 / 255)
    step = ball.steepest_step(center, -torch.ones_like(center), 0.5)
    assert step[0, :, 0, 0].tolist() == [-0.5, -0.25, 0]
    rounded = ball.round_to_8bit(projected, center)
    assert ((rounded - center)[0, :, 0, 0] * 255).round().tolist() == [8, 4, 0] and bool(ball.contains(rounded, center))
    rounded[0, 1] = 105 / 255
    assert not bool(ball.contains(rounded, center)) and ball.within(1.0).channels == ball.channels
    assert bool((ball.sample(center, seeded())[:, 2] == center[:, 2]).all())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("l2:0.5,0.5", "limits of single channels are defined in linf alone"),
        ("linf:0,0,0", "one above 0"),
        ("linf:0.1,-0.1,0", "0 or more"),
        ("linf:0.1,", "must be a number"),
    ],
)
def test_limits_that_are_not_defined_are_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_threat_model(text)


def test_masks_and_limits_of_another_size_do_not_fit() -> None:
    for ball, shape, says in (
        (NormBall("l2", 0.5, half()), (1, 1, 8, 8), "must have the size of the images, 8x8 pixels"),
        (NormBall("l2", 0.5, half(2)), (1, 3, 4, 6), "1 or 3 channels, got 6x4, 2 channels"),
        (parse_threat_model("linf:0.1,0,0"), (1, 1, 8, 8), "one for each of the 1 channels of the images, got 3 limits"),
    ):
        with pytest.raises(InputError, match=says):
            ball.fit(torch.Size(shape))
    with pytest.raises(InputError, match="must let at least one pixel change"):
        Mask(torch.zeros(1, 4, 4, dtype=torch.bool))
    with pytest.raises(InputError, match=r"must be bool, \(1, H, W\)"):
        Mask(torch.zeros(4, 4))


def test_masks_are_told_apart_by_their_values() -> None:
    one, same, other = half(), half(), Mask(~half().free)
    assert one == same and hash(one) == hash(same) and one != other and str(one) != str(other)
    assert NormBall("l2", 0.5, one) == NormBall("l2", 0.5, same) != NormBall("l2", 0.5, other)
    assert str(NormBall("l2", 0.5, one)) == f"l2 0.5, {one}" and one.described == "12 of 24 pixels may change"
    assert half(2).described == "12 of 24 pixels may change, 12 of their channels"
