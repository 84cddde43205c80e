"""The tangent kernel against wide networks' own gradients, and features that are its eigenvectors."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from notbugs import data, metrics, models
from notbugs.data import Dataset, subset
from notbugs.errors import InputError
from notbugs.metrics import EigenFeatures, ntk, tangent_kernel
from notbugs.search import NormBall

DEPTHS = [0, 1, 2, 3]
WIDE = 4096


def points(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def part(digits: data.Splits) -> Dataset:
    """150 training digits."""
    return digits.train.select(subset.balanced(digits.train.labels, 150))


# ---- the kernel ------------------------------------------------------------------------------------------------------------


def empirical(x: Tensor, depth: int, seed: int) -> Tensor:
    """Inner products of a wide network's gradients by all of its weights, at its start; without biases."""
    chance = torch.Generator().manual_seed(seed)
    sizes = [x.shape[1], *[WIDE] * depth]
    weights = [torch.randn(after, before, generator=chance) for before, after in zip(sizes, [*sizes[1:], 1], strict=True)]
    weights = [weight.requires_grad_() for weight in weights]
    gradients = []
    for one in x.float():
        there = one
        for place, weight in enumerate(weights):
            there = weight @ there * math.sqrt((2 if place else 1) / weight.shape[1])
            there = there.relu() if place < depth else there
        gradients.append(torch.autograd.grad(there.sum(), weights))
    rows = [[sum((a * b).sum() for a, b in zip(p, q, strict=True)) for q in gradients] for p in gradients]
    return torch.tensor(rows)


@pytest.mark.parametrize(("depth", "draws"), [(0, 1), (1, 8), (2, 2)])
def test_it_is_a_wide_networks(depth: int, draws: int) -> None:
    x = points(3, 12)
    x = torch.cat([x, -0.5 * x[:1], x[:1] + 0.1 * x[1:2]])
    found = sum(empirical(x, depth, seed) for seed in range(draws)).double() / draws
    wanted = tangent_kernel(x, x, depth)
    assert (found - wanted).norm() < (0.03 if depth else 1e-6) * wanted.norm()
    torch.testing.assert_close(found.diag(), wanted.diag(), rtol=0.06, atol=0)


@settings(max_examples=40)
@example(79, 1, 2, 1.0, 1.0)
@given(st.integers(0, 1000), st.integers(0, 5), st.integers(1, 12), st.floats(0.01, 100), st.floats(0.01, 100))
def test_symmetric_positive_and_homogeneous(seed: int, depth: int, size: int, scale: float, other: float) -> None:
    x, y = points(9, size, seed), points(4, size, seed + 1)
    found = tangent_kernel(x, x, depth)
    torch.testing.assert_close(found, found.T, rtol=1e-12, atol=0)
    assert torch.linalg.eigvalsh(found)[0] > -1e-12 * found.diag().max()
    torch.testing.assert_close(
        tangent_kernel(scale * x, other * y, depth), scale * other * tangent_kernel(x, y, depth), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(tangent_kernel(x, y, depth), tangent_kernel(y, x, depth).T, rtol=1e-12, atol=1e-12)
    turn = torch.linalg.qr(points(size, size, seed + 2))[0]
    torch.testing.assert_close(tangent_kernel(x @ turn, y @ turn, depth), tangent_kernel(x, y, depth), rtol=1e-7, atol=1e-7)
    lengths = x.square().sum(1) / size
    torch.testing.assert_close(found.diag(), (depth + 1) * lengths, rtol=1e-12, atol=0)  # each layer adds its share


def test_opposite_points_have_nothing_in_common() -> None:
    x = points(5, 7)
    assert tangent_kernel(x, -x, 1).diag().abs().max() < 1e-14


def test_depth_0_is_linear() -> None:
    x, y = points(5, 7), points(3, 7, 1)
    assert torch.equal(tangent_kernel(x, y, 0), x @ y.T / 7)


def test_one_hidden_layer_is_the_arc_cosine_kernels() -> None:
    """κ0 and κ1 of Cho & Saul 2009: cosine x κ0 + κ1, at unit lengths."""
    for angle in torch.linspace(0.1, 3.0, 12, dtype=torch.float64):
        x, y = torch.tensor([[1.0, 0.0]]).double(), torch.stack([angle.cos(), angle.sin()])[None]
        zeroth = 1 - angle / math.pi
        first = (angle.sin() + (math.pi - angle) * angle.cos()) / math.pi
        assert 2 * tangent_kernel(x, y, 1).item() == pytest.approx((zeroth * angle.cos() + first).item(), rel=1e-9)


@pytest.mark.parametrize("depth", DEPTHS)
def test_it_is_smooth_where_the_two_are_the_same_or_opposite(depth: int) -> None:
    """There the angle has no slope: gradients are finite, and values those of what is nearly there."""
    x = points(4, 10)
    for sign in (1.0, -1.0):
        there = (sign * x).requires_grad_()
        found = tangent_kernel(there, x, depth)
        (gradient,) = torch.autograd.grad(found.diag().sum(), there)
        assert gradient.isfinite().all()
        near = tangent_kernel(sign * x + 1e-5 * points(4, 10, 1), x, depth)
        torch.testing.assert_close(near.diag(), found.detach().diag(), rtol=1e-3, atol=1e-3)


def test_nothing_is_like_nothing_else() -> None:
    assert tangent_kernel(torch.zeros(1, 5).double(), points(3, 5), 3).abs().max() < 1e-10


def test_the_gradient_at_the_mean_image_is_a_number() -> None:
    nothing = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(tangent_kernel(nothing, points(3, 5), 2).sum(), nothing)
    assert gradient.isfinite().all()


# ---- its eigenvectors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", DEPTHS)
def test_on_training_images_features_are_the_eigenvectors(depth: int, part: Dataset) -> None:
    found, images = EigenFeatures(part, depth=depth), part.pixels(slice(None)).double()
    centred = (images - images.mean(0)).flatten(1)
    kernel = tangent_kernel(centred, centred, depth)
    features = found.features(images)
    torch.testing.assert_close(features, found.vectors, atol=1e-8, rtol=0)
    torch.testing.assert_close(kernel @ features, features * found.values, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(features.T @ features, torch.eye(len(found.values), dtype=torch.float64), atol=1e-7, rtol=0)
    assert (found.values.diff() <= 0).all() and found.values[-1] > 0
    assert len(found.values) <= 64 if depth == 0 else len(found.values) == 150
    torch.testing.assert_close((features * found.values) @ features.T, kernel, atol=1e-6, rtol=1e-5)
    kept = EigenFeatures(part, depth=depth, keep=10)
    torch.testing.assert_close(kept.features(images), features[:, :10], atol=1e-8, rtol=0)


@pytest.mark.parametrize("depth", [1, 3])
def test_regression_reads_its_training_images_and_most_others(depth: int, part: Dataset, digits: data.Splits) -> None:
    machine = EigenFeatures(part, depth=depth, ridge=1e-10)
    logits = machine(part.pixels(slice(None)))
    wanted = torch.nn.functional.one_hot(part.labels, 10).float() - 0.1
    assert logits.dtype == torch.float32 and logits.shape == (150, 10)
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)
    read = (machine(digits.test.pixels(slice(None))).argmax(1) == digits.test.labels).float().mean()
    assert read > 0.85


def test_it_is_kernel_ridge_regression(part: Dataset, digits: data.Splits) -> None:
    """With a ridge of the eigenvalues' sum times `ridge`: by scikit-learn, whose answers are for the same kernel."""
    from sklearn.kernel_ridge import KernelRidge

    images = [one.pixels(slice(0, 150)).double() for one in (part, digits.test)]
    centred = [(one - images[0].mean(0)).flatten(1) for one in images]
    kernel, other = (tangent_kernel(one, centred[0], 2).numpy() for one in centred)
    wanted = torch.nn.functional.one_hot(part.labels, 10).double().numpy() - 0.1
    for ridge in (1e-6, 1e-2):
        machine = EigenFeatures(part, depth=2, ridge=ridge)
        known = KernelRidge(alpha=ridge * kernel.trace(), kernel="precomputed").fit(kernel, wanted).predict(other)
        torch.testing.assert_close(machine(images[1].float()), torch.from_numpy(known).float(), atol=2e-3, rtol=0)


def test_fewer_eigenvectors_and_more_ridge_say_less(part: Dataset) -> None:
    images = part.pixels(slice(None))
    off = []
    for options in ({}, {"keep": 50}, {"keep": 5}):
        wanted = torch.nn.functional.one_hot(part.labels, 10).float() - 0.1
        off.append((EigenFeatures(part, **options)(images) - wanted).square().mean().item())
    assert off[0] < off[1] < off[2]
    sizes = [EigenFeatures(part, ridge=ridge)(images).abs().mean().item() for ridge in (1e-6, 1e-2, 10.0)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_features_have_their_slope_everywhere(part: Dataset, digits: data.Splits) -> None:
    """Against differences, near and at a training image, where a wide network's kernel has a kink in its second derivative."""
    found = EigenFeatures(part, depth=3)
    away = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for image in (digits.test.pixels([0]).double(), part.pixels([3]).double()):
        there = image.clone().requires_grad_()
        for place in (0, 3, 40, 120):
            (gradient,) = torch.autograd.grad(found.features(there)[0, place], there)
            step = 1e-4 * away
            ahead, behind = found.features(image + step)[0, place], found.features(image - step)[0, place]
            assert gradient.isfinite().all()
            assert (gradient * away).sum().item() == pytest.approx(((ahead - behind) / 2e-4).item(), rel=1e-2, abs=1e-4)


def test_the_linear_kernels_features_have_goh_s_closed_form(digits: data.Splits) -> None:
    """Robust usefulness is usefulness less epsilon times the weights' length over the deviation, on images around grey."""
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    images = 0.5 + 0.04 * torch.randn(120, 1, 5, 5, generator=chance)
    images[:, 0, 0, :3] += 0.1 * torch.nn.functional.one_hot(labels, 3)
    names = tuple(map(str, range(120)))
    grey = Dataset(data.to_8bit(images.clamp(0.2, 0.8)), labels, ("a", "b", "c"), names)
    found, threat_model = EigenFeatures(grey, depth=0), NormBall("l2", 0.05)
    weights = found.known.T @ found.vectors / found.values / 25
    values = found.features(grey.pixels(slice(None))).float()
    table = metrics.usefulness(values, grey.labels, 3)
    rows = metrics.per_feature(found, grey, threat_model, steps=2, sample=30)  # type: ignore[arg-type]
    assert len(rows) == 3 * len(found.values)
    checked = 0
    for row in rows:
        deviation = table.scale[row["feature"], grey.classes.index(row["class"])]
        taken = 0.05 * weights[:, row["feature"]].norm().item() / deviation
        assert row["robust_usefulness"] == pytest.approx(row["usefulness"] - taken, abs=2e-3 * max(1.0, taken))
        checked += row["usefulness"] > 0.3
    assert checked > 3


def test_of_digits_the_first_eigenvectors_are_the_robust_ones(part: Dataset, digits: data.Splits) -> None:
    found = EigenFeatures(part, keep=40)
    rows = metrics.best_class_rows(
        metrics.per_feature(found, digits.test.select(slice(0, 150)), NormBall("l2", 0.3), steps=0, sample=20)
    )  # type: ignore[arg-type]
    falls = [row["usefulness"] - row["robust_usefulness"] for row in rows]
    assert sum(falls[:10]) < sum(falls[-10:]) / 1.5


def test_it_is_attacked_and_stored_as_any_model_is(part: Dataset, digits: data.Splits) -> None:
    machine, test = EigenFeatures(part), digits.test.select(slice(0, 40))
    rows = metrics.robust_accuracy(machine, test, [NormBall("l2", 0.3), NormBall("l2", 0.75)], budget="quick")
    assert rows[0]["accuracy"] > 0.85 and rows[0]["correct"] >= rows[1]["correct"] > rows[2]["correct"]
    assert not list(machine.parameters())
    other = EigenFeatures(digits.train.select(slice(0, 150)))
    other.load_state_dict(machine.state_dict())
    assert torch.equal(other(test.pixels(slice(None))), machine(test.pixels(slice(None))))
    with models.frozen(machine):
        assert torch.equal(machine(test.pixels([0])), EigenFeatures(part)(test.pixels([0])))


@pytest.mark.parametrize("depth", [0, 3])
def test_repeated_images_give_no_eigenvector_of_rounding(depth: int, part: Dataset) -> None:
    twice = part.select([*range(20), *range(20)])
    found = EigenFeatures(twice, depth=depth)
    assert len(found.values) <= 20
    assert found.features(twice.pixels(slice(None))).abs().max() <= 1 + 1e-6


def test_images_that_are_all_the_same_say_nothing(part: Dataset) -> None:
    found = EigenFeatures(part.select([0] * 5))
    assert not len(found.values)


# ---- along the spectrum ----------------------------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(2, 200))
def test_along_the_spectrum(count: int, most: int) -> None:
    found = metrics.chosen_eigenvectors(count, most)
    assert len(found) <= most and found == sorted(set(found)) and found[0] >= 0 and found[-1] < count
    half = most // 2
    assert found[: min(half, count)] == list(range(min(half, count)))
    if count <= most:
        assert found == list(range(count))
    else:
        assert len(found) > 0.75 * most - 2
        if most > 2:
            assert found[-1] == count - 1
        gaps = [after - before for before, after in pairwise(found[half:])]
        assert all(after >= before - 1 for before, after in pairwise(gaps))  # ever fewer, to rounding


def test_the_usual_spectrum() -> None:
    found = metrics.chosen_eigenvectors(1347)
    assert (len(found), found[:51], found[-1]) == (100, [*range(51)], 1346)


# ---- bad input -----------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "depth": ({"depth": -1}, "depth: must be 0 or more, got -1"),
    "none kept": ({"keep": 0}, "keep: must be between 1 and the 150 images, got 0"),
    "more kept": ({"keep": 151}, "keep: must be between 1 and the 150 images, got 151"),
}


@pytest.mark.parametrize("case", BAD)
def test_settings_that_cannot_be_are_named(case: str, part: Dataset) -> None:
    options, words = BAD[case]
    with pytest.raises(InputError, match=f"^{words}"):
        EigenFeatures(part, **options)


@pytest.mark.parametrize("ridge", [-1e-3, math.nan])
def test_no_ridge_is_below_0(ridge: float, part: Dataset) -> None:
    with pytest.raises(InputError, match=r"^ridge"):
        EigenFeatures(part, ridge=ridge)


def test_too_few_and_too_many_images_are_named(part: Dataset) -> None:
    for count in (0, 1, ntk.MAX_IMAGES + 1):
        with pytest.raises(InputError, match=rf"^part: must hold 2 to {ntk.MAX_IMAGES} images, .* got {count}; take fewer"):
            EigenFeatures(part.select([0] * count))
