"""Norm balls: projections, steepest steps, samples and rounding, against their definitions."""

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
EPSILONS = st.sampled_from([0.0, 1e-7, 1e-4, 8 / 255, 0.3, 1.0, math.inf])
NORMS = st.sampled_from(["linf", "l2", "l1", "l0"])
DTYPES = st.sampled_from([torch.float32, torch.float64])


def norm_ball(norm: str, epsilon: float) -> NormBall:
    """A norm ball; in L0 epsilon is converted to a number of pixels."""
    return NormBall(norm, epsilon if norm != "l0" or math.isinf(epsilon) else math.ceil(4 * epsilon))


class Case(NamedTuple):
    threat_model: NormBall
    center: Tensor
    images: Tensor


@st.composite
def cases(draw: st.DrawFn, non_finite: bool = True) -> Case:
    """Any norm ball, a center in [0, 1] (0 and 1 included), and images near or far, some with infinite, tiny or NaN values."""
    shape, dtype = draw(SHAPES), draw(DTYPES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    center = (1.5 * torch.rand(shape, generator=generator, dtype=dtype) - 0.25).clamp(0, 1)
    scale = draw(st.sampled_from([0.0, 1e-7, 1e-3, 0.1, 1.0, 100.0]))
    images = center + scale * torch.randn(shape, generator=generator, dtype=dtype)
    if non_finite:
        special = torch.tensor([math.nan, math.inf, -math.inf, 1e38, -1e-45], dtype=dtype)
        index = torch.randint(len(special), shape, generator=generator)
        replaced = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.2, 1.0]))
        images = torch.where(replaced, special[index], images)
    return Case(norm_ball(draw(NORMS), draw(EPSILONS)), center, images)


def norm_of(threat_model: NormBall, perturbation: Tensor) -> Tensor:
    """The norm by its definition, in float64."""
    flat = perturbation.double().flatten(1)
    if threat_model.norm == "l0":
        return (perturbation.abs().sum(1) > 0).flatten(1).sum(1).double()
    return {"linf": flat.abs().max(1).values, "l2": flat.square().sum(1).sqrt(), "l1": flat.abs().sum(1)}[threat_model.norm]


def slack(threat_model: NormBall, images: Tensor) -> float:
    """What rounding pixels near 1 to their dtype can add to a norm."""
    values = images[0].numel()
    return 2 * torch.finfo(images.dtype).eps * {"l1": values, "l0": 0}.get(threat_model.norm, math.sqrt(values))


@given(cases())
def test_projection_is_inside_and_idempotent(case: Case) -> None:
    threat_model, center, images = case
    once = threat_model.project(images, center)
    assert once.dtype == images.dtype
    assert bool(((once >= 0) & (once <= 1)).all())
    assert bool((norm_of(threat_model, once - center) <= threat_model.epsilon + slack(threat_model, images)).all())
    assert torch.allclose(threat_model.project(once, center), once, rtol=0, atol=2 * slack(threat_model, images))


@given(cases(non_finite=False))
def test_projection_leaves_images_inside_as_they_are(case: Case) -> None:
    threat_model, center, images = case
    images = images.clamp(0, 1)
    inside = norm_of(threat_model, images - center) <= threat_model.epsilon * (1 - 1e-5)
    assert torch.equal(threat_model.project(images, center)[inside], images[inside])
    assert torch.equal(threat_model.project(center, center), center)


@given(cases(non_finite=False))
def test_projection_reaches_the_border_of_the_ball(case: Case) -> None:
    """In L2 towards the center, in L-inf value by value, in L0 the most perturbed pixels: all of epsilon is used."""
    threat_model, center, images = case
    clipped, found = images.clamp(0, 1), threat_model.project(images, center)
    if math.isinf(threat_model.epsilon):
        assert torch.equal(found, clipped)
    elif threat_model.norm == "linf":
        wanted = center + (clipped - center).clamp(-threat_model.epsilon, threat_model.epsilon)
        assert torch.allclose(found, wanted, rtol=0, atol=slack(threat_model, images))
    elif threat_model.norm == "l2":
        perturbation = (clipped - center).double()
        factor = (threat_model.epsilon / norm_of(threat_model, perturbation).clamp_min(1e-300)).clamp_max(1)
        wanted = center.double() + perturbation * factor.reshape(-1, 1, 1, 1)
        assert torch.allclose(found.double(), wanted, rtol=0, atol=2 * torch.finfo(images.dtype).eps)
    elif threat_model.norm == "l1":
        full = norm_of(threat_model, clipped - center).clamp_max(threat_model.epsilon)
        assert torch.allclose(norm_of(threat_model, found - center), full, rtol=0, atol=2 * slack(threat_model, images) + 1e-12)
    else:
        kept, reset = (found != center).any(1), (found != clipped).any(1)
        assert not bool((kept & reset).any())
        size = (clipped - center).square().sum(1)
        smallest, largest = size.masked_fill(~kept, math.inf), size.masked_fill(~reset, 0.0)
        assert bool((smallest.flatten(1).amin(1) >= largest.flatten(1).amax(1)).all())
        assert bool(
            (reset.flatten(1).sum(1) == (norm_of(threat_model, clipped - center) - threat_model.epsilon).clamp_min(0)).all()
        )


@pytest.mark.slow
@given(cases(non_finite=False))
def test_l1_projection_is_the_nearest_image_of_the_ball(case: Case) -> None:
    """By definition: for the projection p of x and every other point z of a convex set, <x - p, z - p> is not above 0."""
    _, center, images = case
    images, center = images.double().clamp(-5, 5), center.double()
    for epsilon in (1e-3, 0.3, 2.0):
        threat_model = NormBall("l1", epsilon)
        found = threat_model.project(images, center)
        outward = (images - found).flatten(1)
        step = threat_model.steepest_step(center, images - found, epsilon)  # to the image of the ball furthest in this direction
        assert bool(((step.flatten(1) + (center - found).flatten(1)) * outward).sum(1).le(1e-9).all())


def test_l1_projection_by_hand() -> None:
    center = torch.tensor([0.9, 0.5, 0.5, 0.5]).reshape(1, 1, 2, 2)
    images = torch.tensor([1.9, 0.9, 0.2, 0.55]).reshape(1, 1, 2, 2)
    # all but the first, which the pixel range limits to 0.1, shrink by 0.1: 0.1 + 0.3 + 0.2 + 0
    found = NormBall("l1", 0.6).project(images, center)
    assert found.flatten().tolist() == pytest.approx([1.0, 0.8, 0.3, 0.5])


def test_projection_replaces_nan_and_infinity() -> None:
    center = torch.full((1, 1, 1, 4), 0.5)
    images = torch.tensor([math.nan, math.inf, -math.inf, 0.6]).reshape(1, 1, 1, 4)
    assert NormBall("linf", 0.25).project(images, center).flatten().tolist() == pytest.approx([0.5, 0.75, 0.25, 0.6])
    assert NormBall("l2", math.inf).project(images, center).flatten().tolist() == pytest.approx([0.5, 1.0, 0.0, 0.6])


@given(SHAPES, NORMS, DTYPES, st.sampled_from([1e-45, 1e-38, 1e-30, 1e-6, 1.0, 1e30, 3e38]), st.integers(0, 10**6))
def test_steepest_direction_has_length_one_and_the_dual_norm(
    shape: tuple[int, ...], norm: str, dtype: torch.dtype, scale: float, seed: int
) -> None:
    """<gradient, direction> is the dual norm: no other step of that length gains more. For gradients of any size."""
    threat_model = NormBall(norm, 1.0)
    generator = torch.Generator().manual_seed(seed)
    gradient = (scale * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)).to(dtype)
    gradient[0] = 0
    direction = threat_model.steepest_direction(gradient)
    assert torch.equal(direction[0], torch.zeros_like(direction[0]))
    nonzero = gradient.flatten(1).abs().amax(1) > 0
    assert torch.allclose(
        norm_of(threat_model, direction)[nonzero], torch.ones(int(nonzero.sum()), dtype=torch.float64), atol=1e-5
    )
    flat = gradient.double().flatten(1)
    dual = {
        "linf": flat.abs().sum(1),
        "l2": flat.square().sum(1).sqrt(),
        "l1": flat.abs().amax(1),
        "l0": gradient.double().abs().sum(1).flatten(1).amax(1),  # each channel of one pixel by 1
    }[norm]
    if scale > 1e-40:  # squares of smaller ones underflow even in float64
        assert torch.allclose((flat * direction.double().flatten(1)).sum(1), dual, rtol=1e-4, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_steepest_direction_ignores_nan_and_infinity(norm: str, dtype: torch.dtype) -> None:
    gradient = torch.tensor([[math.nan, math.inf, -math.inf, 3.0], [math.nan] * 4, [0.0] * 4], dtype=dtype).reshape(3, 1, 2, 2)
    assert NormBall(norm, 1.0).steepest_direction(gradient).flatten(1).tolist() == [[0, 0, 0, 1], [0] * 4, [0] * 4]


@pytest.mark.slow
@given(cases(non_finite=False), st.sampled_from([0.0, 0.4, 1.0, 3.0]), st.integers(0, 10**6))
def test_steepest_step_gains_most(case: Case, length: float, seed: int) -> None:
    """In L1 and L0 no step of that length in the pixel range gains more; in L2 and L-inf the projection enforces the range."""
    norm, (_, center, _) = ("l1", "l0")[seed % 2], case
    length = math.ceil(length) if norm == "l0" else length
    threat_model, generator = NormBall(norm, math.inf), torch.Generator().manual_seed(seed)
    gradient = torch.randn(center.shape, generator=generator, dtype=center.dtype).round(decimals=1)
    step = threat_model.steepest_step(center, gradient, length)
    assert bool((norm_of(threat_model, step) <= length + slack(threat_model, center)).all())
    assert torch.equal((center + step).clamp(0, 1), center + step)
    per_image = threat_model.steepest_step(center, gradient, torch.full((len(center),), float(length)))
    assert bool((norm_of(threat_model, per_image - step) < 1e-5).all())
    gain = (step * gradient).flatten(1).sum(1)
    for _ in range(20):
        other = torch.rand(center.shape, generator=generator, dtype=center.dtype)
        other = NormBall(norm, length).project(other, center) - center
        assert bool((gain >= (other * gradient).flatten(1).sum(1) - 1e-4).all())


def test_samples_are_uniform_in_an_l1_ball() -> None:
    """As in every ball, distances to the power of the dimension are uniform; |value| / epsilon is Beta(1, dimension)."""
    center, threat_model = torch.full((20_000, 1, 2, 3), 0.5, dtype=torch.float64), NormBall("l1", 0.4)
    perturbation = threat_model.sample(center, torch.Generator().manual_seed(0)) - center
    assert stats.kstest((threat_model.distance(perturbation) / 0.4) ** 6, "uniform").pvalue > 0.01
    assert stats.kstest(perturbation[:, 0, 1, 2].abs() / 0.4, stats.beta(1, 6).cdf).pvalue > 0.01
    assert perturbation.mean(0).abs().max() < 3e-3


def test_l0_samples_have_uniform_values_in_random_pixels() -> None:
    center = torch.full((5_000, 3, 2, 3), 0.5)
    found = NormBall("l0", 2).sample(center, torch.Generator().manual_seed(0))
    perturbed = (found != center).any(1)
    assert bool((perturbed.flatten(1).sum(1) == 2).all())
    assert torch.allclose(perturbed.float().mean(0), torch.tensor(1 / 3), atol=0.03)
    assert stats.kstest(found[:, 1][perturbed], "uniform").pvalue > 0.01


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_epsilon_can_differ_by_image(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    center = torch.randint(256, (4, 3, 4, 4), generator=generator).float() / 255
    images = torch.rand(center.shape, generator=generator)
    epsilons = torch.tensor([0.0, 1.0, 2.0, 3.0]) / (4 if norm == "linf" else 1)
    threat_model = NormBall(norm, epsilons)
    for function in (
        lambda threat_model, i: threat_model.project(images[i], center[i]),
        lambda threat_model, i: threat_model.round_to_8bit(threat_model.project(images[i], center[i]), center[i]),
    ):
        batch = function(threat_model, slice(None))
        single = [function(NormBall(norm, epsilon), slice(i, i + 1)) for i, epsilon in enumerate(epsilons.tolist())]
        assert torch.equal(batch, torch.cat(single))
    assert bool((threat_model.distance(threat_model.sample(center, generator) - center) <= epsilons + 1e-6).all())


def test_samples_are_uniform_in_an_l2_ball() -> None:
    """Distances to the power of the dimension are uniform; every value has variance epsilon² / (dimension + 2)."""
    center, threat_model = torch.full((20_000, 1, 2, 3), 0.5), NormBall("l2", 0.3)
    perturbation = threat_model.sample(center, torch.Generator().manual_seed(0)) - center
    assert stats.kstest((threat_model.distance(perturbation) / 0.3) ** 6, "uniform").pvalue > 0.01
    assert torch.allclose(perturbation.flatten(1).T.cov(), 0.3**2 / 8 * torch.eye(6), atol=3e-4)
    assert perturbation.mean(0).abs().max() < 3e-3


def test_samples_are_uniform_in_an_linf_ball_and_in_the_pixel_range() -> None:
    center, generator = torch.full((5_000, 1, 2, 2), 0.5), torch.Generator().manual_seed(0)
    perturbation = NormBall("linf", 0.1).sample(center, generator) - center
    assert stats.kstest(perturbation.flatten(), stats.uniform(-0.1, 0.2).cdf).pvalue > 0.01
    assert stats.kstest(NormBall("l2", math.inf).sample(center, generator).flatten(), "uniform").pvalue > 0.01


@given(cases(non_finite=False), st.integers(0, 100))
def test_samples_are_inside_and_follow_the_generator(case: Case, seed: int) -> None:
    threat_model, center, _ = case
    found = threat_model.sample(center, torch.Generator().manual_seed(seed))
    assert found.dtype == center.dtype
    assert bool(((found >= 0) & (found <= 1)).all())
    assert bool((norm_of(threat_model, found - center) <= threat_model.epsilon * (1 + 1e-6) + slack(threat_model, center)).all())
    assert torch.equal(found, threat_model.sample(center, torch.Generator().manual_seed(seed)))
    if threat_model.epsilon > 1e-3:
        # half of the samples of one pixel at 0 or 1 are clipped to the same value, so many other seeds are tried
        others = (threat_model.sample(center, torch.Generator().manual_seed(seed + more)) for more in range(1, 65))
        assert any(not torch.equal(found, other) for other in others)


@pytest.mark.slow
@given(
    SHAPES, NORMS, st.sampled_from([0.0, 1 / 255, 1.5 / 255, 2 / 255, 0.03, 8 / 255, 0.1, 0.5, math.inf]), st.integers(0, 10**6)
)
@settings(max_examples=200)
def test_round_to_8bit_is_inside_the_ball_and_nearest(shape: tuple[int, ...], norm: str, epsilon: float, seed: int) -> None:
    threat_model, generator = norm_ball(norm, epsilon), torch.Generator().manual_seed(seed)
    center = torch.randint(256, shape, generator=generator).float() / 255
    images = threat_model.project(center + torch.randn(shape, generator=generator) * min(epsilon, 1), center)
    found = threat_model.round_to_8bit(images, center)
    levels = (found.double() * 255).round()
    assert torch.equal(found, levels.float() / 255)  # what loading the file gives, bit for bit
    assert bool(((levels >= 0) & (levels <= 255)).all())
    steps = (levels - (center.double() * 255).round()).flatten(1).long()
    if norm == "l0":
        assert bool((norm_of(threat_model, steps.reshape(shape)) <= threat_model.epsilon).all())
    elif norm == "linf":
        assert bool((steps.abs() <= epsilon * 255 * (1 + 1e-9)).all())
    elif norm == "l1":
        assert bool((steps.abs().sum(1) <= epsilon * 255 * (1 + 1e-8)).all())
    else:
        assert bool((steps.square().sum(1) <= (epsilon * 255) ** 2 * (1 + 1e-8)).all())
    nearest = images.mul(255).round() / 255
    inside = norm_of(threat_model, ((nearest - center) * 255).round()) <= threat_model.epsilon * (1 if norm == "l0" else 255)
    assert torch.equal(found[inside], nearest[inside])
    assert bool(((found - center) * (images - center) >= -1e-7).all())  # no value changes its direction


@pytest.mark.parametrize(("norm", "epsilon"), [("l2", 0.5), ("linf", 8 / 255), ("linf", 0.03), ("l1", 12.0)])
def test_round_to_8bit_uses_most_of_epsilon(norm: str, epsilon: float) -> None:
    threat_model, generator = NormBall(norm, epsilon), torch.Generator().manual_seed(0)
    center = torch.randint(30, 226, (20, 3, 32, 32), generator=generator).float() / 255
    images = center + threat_model.steepest_step(center, torch.randn(center.shape, generator=generator), epsilon)
    assert bool((threat_model.distance(threat_model.round_to_8bit(images, center) - center) > 0.9 * epsilon).all())


@pytest.mark.parametrize(
    ("norm", "epsilon", "message"),
    [
        ("l3", 0.1, "norm: must be one of linf, l2, l1, l0, got 'l3'"),
        ("l2", -1.0, "epsilon: must be a number, 0 or more, got -1.0"),
        ("linf", math.nan, "epsilon: must be a number, 0 or more, got nan"),
        ("linf", 8, "epsilon: must be at most 1 in L-inf, as pixels are in [0, 1], got 8; for 8/255 pass 8/255"),
        ("l0", 1.5, "epsilon: must be a whole number of pixels in L0, got 1.5"),
    ],
)
def test_impossible_norm_or_epsilon_raises(norm: str, epsilon: float, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        NormBall(norm, epsilon)


def test_l2_epsilon_larger_than_the_images_raises() -> None:
    assert NormBall("l2", 8.0).fit(torch.Size((5, 1, 8, 8))) == NormBall("l2", 8.0)
    assert NormBall("l2", math.inf).fit(torch.Size((5, 1, 8, 8))).epsilon == math.inf
    message = "epsilon: two images of this size differ by at most 8 in L2, got 128; for 128/255 pass 128/255"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        NormBall("l2", 128).fit(torch.Size((5, 1, 8, 8)))


def test_distance_is_the_norm_of_each_perturbation() -> None:
    perturbation = torch.tensor([[3.0, -4.0], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    assert NormBall("l2", 1).distance(perturbation).tolist() == [5, 0]
    assert NormBall("linf", 1).distance(perturbation).tolist() == [4, 0]
    assert NormBall("l1", 1).distance(perturbation).tolist() == [7, 0]
    assert NormBall("l0", 1).distance(perturbation).tolist() == [2, 0]
    assert NormBall("l0", 1).distance(perturbation.reshape(2, 2, 1, 1)).tolist() == [1, 0]


def test_an_enlarged_ball_ends_at_the_pixel_range() -> None:
    shape = torch.Size((5, 3, 2, 2))
    assert NormBall("l2", 0.5).enlarged(3, shape) == NormBall("l2", 1.5)
    for norm, epsilon in (("linf", 0.4), ("l2", 1.2), ("l1", 4.5)):
        assert NormBall(norm, epsilon).enlarged(3, shape) == NormBall(norm, math.inf)
    assert torch.equal(
        torch.as_tensor(NormBall("l2", torch.tensor([1.0, 9.0])).enlarged(2, shape).epsilon), torch.tensor([2.0, 18.0])
    )
