"""What may change: projections, directions, samples and rounding, against the definition of a ball."""

import math
import re
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from notbugs.errors import InputError
from notbugs.search import NormBall

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
RADII = st.sampled_from([0.0, 1e-7, 1e-4, 8 / 255, 0.3, 1.0, math.inf])
NORMS = st.sampled_from(["linf", "l2", "l1", "l0"])
DTYPES = st.sampled_from([torch.float32, torch.float64])


def sized(norm: str, radius: float) -> NormBall:
    """A ball of about that radius: in L0 it is a number of pixels."""
    return NormBall(norm, radius if norm != "l0" or math.isinf(radius) else math.ceil(4 * radius))


class Case(NamedTuple):
    threat_model: NormBall
    center: Tensor
    images: Tensor


@st.composite
def cases(draw: st.DrawFn, wild: bool = True) -> Case:
    """Any ball, a centre in [0, 1] (its borders too), and images near, far and, if wild, partly not numbers at all."""
    shape, dtype = draw(SHAPES), draw(DTYPES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    center = (1.5 * torch.rand(shape, generator=generator, dtype=dtype) - 0.25).clamp(0, 1)
    reach = draw(st.sampled_from([0.0, 1e-7, 1e-3, 0.1, 1.0, 100.0]))
    images = center + reach * torch.randn(shape, generator=generator, dtype=dtype)
    if wild:
        odd = torch.tensor([math.nan, math.inf, -math.inf, 1e38, -1e-45], dtype=dtype)
        which = torch.randint(len(odd), shape, generator=generator)
        images = torch.where(torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.2, 1.0])), odd[which], images)
    return Case(sized(draw(NORMS), draw(RADII)), center, images)


def length(threat_model: NormBall, change: Tensor) -> Tensor:
    """The norm by its definition, in double precision."""
    flat = change.double().flatten(1)
    if threat_model.norm == "l0":
        return (change.abs().sum(1) > 0).flatten(1).sum(1).double()
    return {"linf": flat.abs().max(1).values, "l2": flat.square().sum(1).sqrt(), "l1": flat.abs().sum(1)}[threat_model.norm]


def slack(threat_model: NormBall, images: Tensor) -> float:
    """What rounding pixels near 1 to their own type can add to a norm."""
    values = images[0].numel()
    return 2 * torch.finfo(images.dtype).eps * {"l1": values, "l0": 0}.get(threat_model.norm, math.sqrt(values))


@given(cases())
def test_projection_lands_inside_and_stays_put(case: Case) -> None:
    threat_model, center, images = case
    once = threat_model.project(images, center)
    assert once.dtype == images.dtype
    assert bool(((once >= 0) & (once <= 1)).all())
    assert bool((length(threat_model, once - center) <= threat_model.epsilon + slack(threat_model, images)).all())
    assert torch.allclose(threat_model.project(once, center), once, rtol=0, atol=2 * slack(threat_model, images))


@given(cases(wild=False))
def test_projection_never_moves_what_is_inside(case: Case) -> None:
    threat_model, center, images = case
    images = images.clamp(0, 1)
    inside = length(threat_model, images - center) <= threat_model.epsilon * (1 - 1e-5)
    assert torch.equal(threat_model.project(images, center)[inside], images[inside])
    assert torch.equal(threat_model.project(center, center), center)


@given(cases(wild=False))
def test_projection_reaches_the_border(case: Case) -> None:
    """In L2 along the way to the centre, in L-inf value by value, in L0 the pixels that changed most: nothing is given away."""
    threat_model, center, images = case
    clipped, found = images.clamp(0, 1), threat_model.project(images, center)
    if math.isinf(threat_model.epsilon):
        assert torch.equal(found, clipped)
    elif threat_model.norm == "linf":
        wanted = center + (clipped - center).clamp(-threat_model.epsilon, threat_model.epsilon)
        assert torch.allclose(found, wanted, rtol=0, atol=slack(threat_model, images))
    elif threat_model.norm == "l2":
        change = (clipped - center).double()
        factor = (threat_model.epsilon / length(threat_model, change).clamp_min(1e-300)).clamp_max(1)
        wanted = center.double() + change * factor.reshape(-1, 1, 1, 1)
        assert torch.allclose(found.double(), wanted, rtol=0, atol=2 * torch.finfo(images.dtype).eps)
    elif threat_model.norm == "l1":
        full = length(threat_model, clipped - center).clamp_max(threat_model.epsilon)
        assert torch.allclose(length(threat_model, found - center), full, rtol=0, atol=2 * slack(threat_model, images) + 1e-12)
    else:
        kept, lost = (found != center).any(1), (found != clipped).any(1)
        assert not bool((kept & lost).any())
        size = (clipped - center).square().sum(1)
        smallest, largest = size.masked_fill(~kept, math.inf), size.masked_fill(~lost, 0.0)
        assert bool((smallest.flatten(1).amin(1) >= largest.flatten(1).amax(1)).all())
        assert bool(
            (lost.flatten(1).sum(1) == (length(threat_model, clipped - center) - threat_model.epsilon).clamp_min(0)).all()
        )


@given(cases(wild=False))
def test_the_l1_projection_is_the_nearest_point_of_ball_and_range(case: Case) -> None:
    """By its definition: for a projection p of x and every other point z of a convex set, <x - p, z - p> is not above 0."""
    _, center, images = case
    images, center = images.double().clamp(-5, 5), center.double()
    for radius in (1e-3, 0.3, 2.0):
        threat_model = NormBall("l1", radius)
        found = threat_model.project(images, center)
        away = (images - found).flatten(1)
        rival = threat_model.steepest_step(center, images - found, radius)  # of the set, the point that lies furthest that way
        assert bool(((rival.flatten(1) + (center - found).flatten(1)) * away).sum(1).le(1e-9).all())


def test_the_l1_projection_by_hand() -> None:
    center = torch.tensor([0.9, 0.5, 0.5, 0.5]).reshape(1, 1, 2, 2)
    images = torch.tensor([1.9, 0.9, 0.2, 0.55]).reshape(1, 1, 2, 2)
    # all but the first, which the range stops at 0.1, shrink by 0.1: 0.1 + 0.3 + 0.2 + 0
    found = NormBall("l1", 0.6).project(images, center)
    assert found.flatten().tolist() == pytest.approx([1.0, 0.8, 0.3, 0.5])


def test_projection_replaces_what_is_no_number() -> None:
    center = torch.full((1, 1, 1, 4), 0.5)
    images = torch.tensor([math.nan, math.inf, -math.inf, 0.6]).reshape(1, 1, 1, 4)
    assert NormBall("linf", 0.25).project(images, center).flatten().tolist() == pytest.approx([0.5, 0.75, 0.25, 0.6])
    assert NormBall("l2", math.inf).project(images, center).flatten().tolist() == pytest.approx([0.5, 1.0, 0.0, 0.6])


@given(SHAPES, NORMS, DTYPES, st.sampled_from([1e-45, 1e-38, 1e-30, 1e-6, 1.0, 1e30, 3e38]), st.integers(0, 10**6))
def test_direction_is_the_steepest_step_of_length_one(
    shape: tuple[int, ...], norm: str, dtype: torch.dtype, scale: float, seed: int
) -> None:
    """<gradient, direction> is the dual norm: no other step of that length climbs more. Whatever the gradient's size."""
    threat_model = NormBall(norm, 1.0)
    generator = torch.Generator().manual_seed(seed)
    gradient = (scale * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)).to(dtype)
    gradient[0] = 0
    way = threat_model.steepest_direction(gradient)
    assert torch.equal(way[0], torch.zeros_like(way[0]))
    some = gradient.flatten(1).abs().amax(1) > 0
    assert torch.allclose(length(threat_model, way)[some], torch.ones(int(some.sum()), dtype=torch.float64), atol=1e-5)
    flat = gradient.double().flatten(1)
    dual = {
        "linf": flat.abs().sum(1),
        "l2": flat.square().sum(1).sqrt(),
        "l1": flat.abs().amax(1),
        "l0": gradient.double().abs().sum(1).flatten(1).amax(1),  # each channel of the pixel by 1
    }[norm]
    if scale > 1e-40:  # squares of smaller ones vanish even in the double precision of this check
        assert torch.allclose((flat * way.double().flatten(1)).sum(1), dual, rtol=1e-4, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_direction_ignores_what_is_no_number(norm: str, dtype: torch.dtype) -> None:
    gradient = torch.tensor([[math.nan, math.inf, -math.inf, 3.0], [math.nan] * 4, [0.0] * 4], dtype=dtype).reshape(3, 1, 2, 2)
    assert NormBall(norm, 1.0).steepest_direction(gradient).flatten(1).tolist() == [[0, 0, 0, 1], [0] * 4, [0] * 4]


@given(cases(wild=False), st.sampled_from([0.0, 0.4, 1.0, 3.0]), st.integers(0, 10**6))
def test_a_move_climbs_a_slope_most(case: Case, size: float, seed: int) -> None:
    """In L1 and L0 no move of that length in the pixel range climbs more; in L2 and L-inf the range is left to projection."""
    norm, (_, center, _) = ("l1", "l0")[seed % 2], case
    size = math.ceil(size) if norm == "l0" else size
    threat_model, generator = NormBall(norm, math.inf), torch.Generator().manual_seed(seed)
    gradient = torch.randn(center.shape, generator=generator, dtype=center.dtype).round(decimals=1)
    move = threat_model.steepest_step(center, gradient, size)
    assert bool((length(threat_model, move) <= size + slack(threat_model, center)).all())
    assert torch.equal((center + move).clamp(0, 1), center + move)
    assert bool(
        (
            length(threat_model, threat_model.steepest_step(center, gradient, torch.full((len(center),), float(size))) - move)
            < 1e-5
        ).all()
    )
    climbed = (move * gradient).flatten(1).sum(1)
    for _ in range(20):
        other = torch.rand(center.shape, generator=generator, dtype=center.dtype)
        other = NormBall(norm, size).project(other, center) - center
        assert bool((climbed >= (other * gradient).flatten(1).sum(1) - 1e-4).all())


def test_samples_are_uniform_in_an_l1_ball() -> None:
    """As in every ball, radii to the power of the dimension are uniform; a value's size over the radius is Beta(1, dimension)."""
    center, threat_model = torch.full((20_000, 1, 2, 3), 0.5, dtype=torch.float64), NormBall("l1", 0.4)
    change = threat_model.sample(center, torch.Generator().manual_seed(0)) - center
    assert stats.kstest((threat_model.distance(change) / 0.4) ** 6, "uniform").pvalue > 0.01
    assert stats.kstest(change[:, 0, 1, 2].abs() / 0.4, stats.beta(1, 6).cdf).pvalue > 0.01
    assert change.mean(0).abs().max() < 3e-3


def test_samples_of_l0_change_some_pixels_anyhow() -> None:
    center = torch.full((5_000, 3, 2, 3), 0.5)
    found = NormBall("l0", 2).sample(center, torch.Generator().manual_seed(0))
    changed = (found != center).any(1)
    assert bool((changed.flatten(1).sum(1) == 2).all())
    assert torch.allclose(changed.float().mean(0), torch.tensor(1 / 3), atol=0.03)
    assert stats.kstest(found[:, 1][changed], "uniform").pvalue > 0.01


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_each_image_can_have_a_radius_of_its_own(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    center = torch.randint(256, (4, 3, 4, 4), generator=generator).float() / 255
    images = torch.rand(center.shape, generator=generator)
    radii = torch.tensor([0.0, 1.0, 2.0, 3.0]) / (4 if norm == "linf" else 1)
    each = NormBall(norm, radii)
    for what in (
        lambda threat_model, i: threat_model.project(images[i], center[i]),
        lambda threat_model, i: threat_model.round_to_8bit(threat_model.project(images[i], center[i]), center[i]),
    ):
        together = what(each, slice(None))
        apart = [what(NormBall(norm, radius), slice(i, i + 1)) for i, radius in enumerate(radii.tolist())]
        assert torch.equal(together, torch.cat(apart))
    assert bool((each.distance(each.sample(center, generator) - center) <= radii + 1e-6).all())


def test_samples_are_uniform_in_an_l2_ball() -> None:
    """Radii to the power of the dimension are uniform; every value has variance radius² / (dimension + 2)."""
    center, threat_model = torch.full((20_000, 1, 2, 3), 0.5), NormBall("l2", 0.3)
    change = threat_model.sample(center, torch.Generator().manual_seed(0)) - center
    assert stats.kstest((threat_model.distance(change) / 0.3) ** 6, "uniform").pvalue > 0.01
    assert torch.allclose(change.flatten(1).T.cov(), 0.3**2 / 8 * torch.eye(6), atol=3e-4)
    assert change.mean(0).abs().max() < 3e-3


def test_samples_are_uniform_in_an_linf_ball_and_in_the_pixel_range() -> None:
    center, generator = torch.full((5_000, 1, 2, 2), 0.5), torch.Generator().manual_seed(0)
    change = NormBall("linf", 0.1).sample(center, generator) - center
    assert stats.kstest(change.flatten(), stats.uniform(-0.1, 0.2).cdf).pvalue > 0.01
    assert stats.kstest(NormBall("l2", math.inf).sample(center, generator).flatten(), "uniform").pvalue > 0.01


@given(cases(wild=False), st.integers(0, 100))
def test_samples_are_inside_and_the_generators(case: Case, seed: int) -> None:
    threat_model, center, _ = case
    found = threat_model.sample(center, torch.Generator().manual_seed(seed))
    assert found.dtype == center.dtype
    assert bool(((found >= 0) & (found <= 1)).all())
    assert bool((length(threat_model, found - center) <= threat_model.epsilon * (1 + 1e-6) + slack(threat_model, center)).all())
    assert torch.equal(found, threat_model.sample(center, torch.Generator().manual_seed(seed)))
    if threat_model.epsilon > 1e-3:
        # One pixel at the edge of the range is cut to the same value half of the time, so ask many other generators.
        others = (threat_model.sample(center, torch.Generator().manual_seed(seed + more)) for more in range(1, 65))
        assert any(not torch.equal(found, other) for other in others)


@given(
    SHAPES, NORMS, st.sampled_from([0.0, 1 / 255, 1.5 / 255, 2 / 255, 0.03, 8 / 255, 0.1, 0.5, math.inf]), st.integers(0, 10**6)
)
@settings(max_examples=200)
def test_rounding_is_on_the_grid_inside_the_ball_and_nearest(shape: tuple[int, ...], norm: str, radius: float, seed: int) -> None:
    threat_model, generator = sized(norm, radius), torch.Generator().manual_seed(seed)
    center = torch.randint(256, shape, generator=generator).float() / 255
    images = threat_model.project(center + torch.randn(shape, generator=generator) * min(radius, 1), center)
    found = threat_model.round_to_8bit(images, center)
    levels = (found.double() * 255).round()
    assert torch.equal(found, levels.float() / 255)  # what reading the file gives, bit for bit
    assert bool(((levels >= 0) & (levels <= 255)).all())
    steps = (levels - (center.double() * 255).round()).flatten(1).long()
    if norm == "l0":
        assert bool((length(threat_model, steps.reshape(shape)) <= threat_model.epsilon).all())
    elif norm == "linf":
        assert bool((steps.abs() <= radius * 255 * (1 + 1e-9)).all())
    elif norm == "l1":
        assert bool((steps.abs().sum(1) <= radius * 255 * (1 + 1e-8)).all())
    else:
        assert bool((steps.square().sum(1) <= (radius * 255) ** 2 * (1 + 1e-8)).all())
    nearest = images.mul(255).round() / 255
    fits = length(threat_model, ((nearest - center) * 255).round()) <= threat_model.epsilon * (1 if norm == "l0" else 255)
    assert torch.equal(found[fits], nearest[fits])
    assert bool(((found - center) * (images - center) >= -1e-7).all())  # no value moves the other way


@pytest.mark.parametrize(("norm", "radius"), [("l2", 0.5), ("linf", 8 / 255), ("linf", 0.03), ("l1", 12.0)])
def test_rounding_gives_little_away(norm: str, radius: float) -> None:
    threat_model, generator = NormBall(norm, radius), torch.Generator().manual_seed(0)
    center = torch.randint(30, 226, (20, 3, 32, 32), generator=generator).float() / 255
    images = center + threat_model.steepest_step(center, torch.randn(center.shape, generator=generator), radius)
    assert bool((threat_model.distance(threat_model.round_to_8bit(images, center) - center) > 0.9 * radius).all())


@pytest.mark.parametrize(
    ("norm", "radius", "says"),
    [
        ("l3", 0.1, "norm: must be one of linf, l2, l1, l0, got 'l3'"),
        ("l2", -1.0, "epsilon: must be a number, 0 or more, got -1.0"),
        ("linf", math.nan, "epsilon: must be a number, 0 or more, got nan"),
        ("linf", 8, "epsilon: pixels lie in [0, 1], so an L-inf radius is at most 1, got 8; for 8/255 pass 8/255"),
        ("l0", 1.5, "epsilon: must be a whole number of pixels in L0, got 1.5"),
    ],
)
def test_a_radius_that_makes_no_sense_is_refused(norm: str, radius: float, says: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(says)}$"):
        NormBall(norm, radius)


def test_an_l2_radius_over_the_size_of_the_images_is_refused() -> None:
    assert NormBall("l2", 8.0).fit(torch.Size((5, 1, 8, 8))) == NormBall("l2", 8.0)
    assert NormBall("l2", math.inf).fit(torch.Size((5, 1, 8, 8))).epsilon == math.inf
    says = "epsilon: two images of this size differ by at most 8 in L2, got 128; for 128/255 pass 128/255"
    with pytest.raises(InputError, match=f"^{re.escape(says)}$"):
        NormBall("l2", 128).fit(torch.Size((5, 1, 8, 8)))


def test_size_is_the_norm_of_each_change() -> None:
    change = torch.tensor([[3.0, -4.0], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    assert NormBall("l2", 1).distance(change).tolist() == [5, 0]
    assert NormBall("linf", 1).distance(change).tolist() == [4, 0]
    assert NormBall("l1", 1).distance(change).tolist() == [7, 0]
    assert NormBall("l0", 1).distance(change).tolist() == [2, 0]
    assert NormBall("l0", 1).distance(change.reshape(2, 2, 1, 1)).tolist() == [1, 0]
