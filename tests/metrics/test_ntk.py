"""The NTK against the gradients of wide networks, and its eigenvectors as features."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from metrics.conftest import dataset
from torch import Tensor

from notbugs import data, metrics, models
from notbugs.data import Dataset, subset
from notbugs.errors import InputError
from notbugs.metrics import EigenFeatures, ntk, tangent_kernel
from notbugs.search import NormBall

DEPTHS = [0, 1, 2, 3]
WIDTH = 4096


def points(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def part(digits: data.Splits) -> Dataset:
    """150 training digits."""
    return digits.train.select(subset.balanced(digits.train.labels, 150))


# ---- the kernel ------------------------------------------------------------------------------------------------------------


def empirical(x: Tensor, depth: int, seed: int) -> Tensor:
    """Inner products of a wide network's gradients with respect to all weights, at initialization; without biases."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [x.shape[1], *[WIDTH] * depth]
    weights = [torch.randn(after, before, generator=generator) for before, after in zip(sizes, [*sizes[1:], 1], strict=True)]
    weights = [weight.requires_grad_() for weight in weights]
    gradients = []
    for activations in x.float():
        for layer, weight in enumerate(weights):
            activations = weight @ activations * math.sqrt((2 if layer else 1) / weight.shape[1])
            activations = activations.relu() if layer < depth else activations
        gradients.append(torch.autograd.grad(activations.sum(), weights))
    rows = [[sum((a * b).sum() for a, b in zip(p, q, strict=True)) for q in gradients] for p in gradients]
    return torch.tensor(rows)


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "draws"), [(0, 1), (1, 8), (2, 2)])
def test_the_kernel_is_that_of_a_wide_network(depth: int, draws: int) -> None:
    x = points(3, 12)
    x = torch.cat([x, -0.5 * x[:1], x[:1] + 0.1 * x[1:2]])
    found = sum(empirical(x, depth, seed) for seed in range(draws)).double() / draws
    wanted = tangent_kernel(x, x, depth)
    assert (found - wanted).norm() < (0.03 if depth else 1e-6) * wanted.norm()
    torch.testing.assert_close(found.diag(), wanted.diag(), rtol=0.06, atol=0)


@settings(max_examples=40)
@example(79, 1, 2, 1.0, 1.0)
@given(st.integers(0, 1000), st.integers(0, 5), st.integers(1, 12), st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_kernel_is_symmetric_positive_homogeneous_and_rotation_invariant(
    seed: int, depth: int, size: int, scale: float, other: float
) -> None:
    x, y = points(9, size, seed), points(4, size, seed + 1)
    found = tangent_kernel(x, x, depth)
    torch.testing.assert_close(found, found.T, rtol=1e-12, atol=0)
    assert torch.linalg.eigvalsh(found)[0] > -1e-12 * found.diag().max()
    torch.testing.assert_close(
        tangent_kernel(scale * x, other * y, depth), scale * other * tangent_kernel(x, y, depth), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(tangent_kernel(x, y, depth), tangent_kernel(y, x, depth).T, rtol=1e-12, atol=1e-12)
    rotation = torch.linalg.qr(points(size, size, seed + 2))[0]
    torch.testing.assert_close(
        tangent_kernel(x @ rotation, y @ rotation, depth), tangent_kernel(x, y, depth), rtol=1e-7, atol=1e-7
    )
    lengths = x.square().sum(1) / size
    torch.testing.assert_close(found.diag(), (depth + 1) * lengths, rtol=1e-12, atol=0)  # each layer adds its share


def test_opposite_points_have_a_kernel_of_0() -> None:
    x = points(5, 7)
    assert tangent_kernel(x, -x, 1).diag().abs().max() < 1e-14


def test_depth_0_is_the_linear_kernel() -> None:
    x, y = points(5, 7), points(3, 7, 1)
    assert torch.equal(tangent_kernel(x, y, 0), x @ y.T / 7)


def test_one_hidden_layer_gives_the_arc_cosine_kernels() -> None:
    """κ0 and κ1 of Cho & Saul 2009: cosine x κ0 + κ1, at unit lengths."""
    for angle in torch.linspace(0.1, 3.0, 12, dtype=torch.float64):
        x, y = torch.tensor([[1.0, 0.0]]).double(), torch.stack([angle.cos(), angle.sin()])[None]
        zeroth = 1 - angle / math.pi
        first = (angle.sin() + (math.pi - angle) * angle.cos()) / math.pi
        assert 2 * tangent_kernel(x, y, 1).item() == pytest.approx((zeroth * angle.cos() + first).item(), rel=1e-9)


@pytest.mark.parametrize("depth", DEPTHS)
def test_gradients_are_finite_at_equal_and_opposite_points(depth: int) -> None:
    """There the angle has no derivative: gradients are finite, and values near those of points nearby."""
    x = points(4, 10)
    for sign in (1.0, -1.0):
        point = (sign * x).requires_grad_()
        found = tangent_kernel(point, x, depth)
        (gradient,) = torch.autograd.grad(found.diag().sum(), point)
        assert gradient.isfinite().all()
        near = tangent_kernel(sign * x + 1e-5 * points(4, 10, 1), x, depth)
        torch.testing.assert_close(near.diag(), found.detach().diag(), rtol=1e-3, atol=1e-3)


def test_the_kernel_with_zero_is_0() -> None:
    assert tangent_kernel(torch.zeros(1, 5).double(), points(3, 5), 3).abs().max() < 1e-10


def test_the_gradient_at_the_mean_image_is_finite() -> None:
    zero = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(tangent_kernel(zero, points(3, 5), 2).sum(), zero)
    assert gradient.isfinite().all()


# ---- eigenvectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", DEPTHS)
def test_on_training_images_features_are_the_eigenvectors(depth: int, part: Dataset) -> None:
    found, images = EigenFeatures(part, depth=depth), part.pixels(slice(None)).double()
    centered = (images - images.mean(0)).flatten(1)
    kernel = tangent_kernel(centered, centered, depth)
    features = found.features(images)
    torch.testing.assert_close(features, found.vectors, atol=1e-8, rtol=0)
    torch.testing.assert_close(kernel @ features, features * found.values, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(features.T @ features, torch.eye(len(found.values), dtype=torch.float64), atol=1e-7, rtol=0)
    assert (found.values.diff() <= 0).all() and found.values[-1] > 0
    assert len(found.values) <= 64 if depth == 0 else len(found.values) == 150
    torch.testing.assert_close((features * found.values) @ features.T, kernel, atol=1e-6, rtol=1e-5)
    first = EigenFeatures(part, depth=depth, keep=10)
    torch.testing.assert_close(first.features(images), features[:, :10], atol=1e-8, rtol=0)


@pytest.mark.parametrize("depth", [1, 3])
def test_regression_fits_its_training_images_and_predicts_most_others(depth: int, part: Dataset, digits: data.Splits) -> None:
    model = EigenFeatures(part, depth=depth, ridge=1e-10)
    logits = model(part.pixels(slice(None)))
    wanted = torch.nn.functional.one_hot(part.labels, 10).float() - 0.1
    assert logits.dtype == torch.float32 and logits.shape == (150, 10)
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)
    accuracy = (model(digits.test.pixels(slice(None))).argmax(1) == digits.test.labels).float().mean()
    assert accuracy > 0.85


def test_the_classifier_is_kernel_ridge_regression(part: Dataset, digits: data.Splits) -> None:
    """With `ridge` times the sum of the eigenvalues: the predictions of scikit-learn with the same kernel."""
    from sklearn.kernel_ridge import KernelRidge

    images = [one.pixels(slice(0, 150)).double() for one in (part, digits.test)]
    centered = [(one - images[0].mean(0)).flatten(1) for one in images]
    kernel, other = (tangent_kernel(one, centered[0], 2).numpy() for one in centered)
    wanted = torch.nn.functional.one_hot(part.labels, 10).double().numpy() - 0.1
    for ridge in (1e-6, 1e-2):
        model = EigenFeatures(part, depth=2, ridge=ridge)
        known = KernelRidge(alpha=ridge * kernel.trace(), kernel="precomputed").fit(kernel, wanted).predict(other)
        torch.testing.assert_close(model(images[1].float()), torch.from_numpy(known).float(), atol=2e-3, rtol=0)


def test_fewer_eigenvectors_and_more_ridge_fit_less(part: Dataset) -> None:
    images = part.pixels(slice(None))
    errors = []
    for options in ({}, {"keep": 50}, {"keep": 5}):
        wanted = torch.nn.functional.one_hot(part.labels, 10).float() - 0.1
        errors.append((EigenFeatures(part, **options)(images) - wanted).square().mean().item())
    assert errors[0] < errors[1] < errors[2]
    sizes = [EigenFeatures(part, ridge=ridge)(images).abs().mean().item() for ridge in (1e-6, 1e-2, 10.0)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_features_have_their_gradient_everywhere(part: Dataset, digits: data.Splits) -> None:
    """Against finite differences, also at a training image, where the second derivative of the kernel is discontinuous."""
    found = EigenFeatures(part, depth=3)
    direction = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for image in (digits.test.pixels([0]).double(), part.pixels([3]).double()):
        point = image.clone().requires_grad_()
        for feature in (0, 3, 40, 120):
            (gradient,) = torch.autograd.grad(found.features(point)[0, feature], point)
            step = 1e-4 * direction
            ahead, behind = found.features(image + step)[0, feature], found.features(image - step)[0, feature]
            assert gradient.isfinite().all()
            assert (gradient * direction).sum().item() == pytest.approx(((ahead - behind) / 2e-4).item(), rel=1e-2, abs=1e-4)


def test_features_of_the_linear_kernel_have_the_closed_form(digits: data.Splits) -> None:
    """Robust usefulness is usefulness minus epsilon times the weights' norm over the standard deviation (Goh 2019)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    images = 0.5 + 0.04 * torch.randn(120, 1, 5, 5, generator=generator)
    images[:, 0, 0, :3] += 0.1 * torch.nn.functional.one_hot(labels, 3)
    gray = dataset(images.clamp(0.2, 0.8), labels)
    found, threat_model = EigenFeatures(gray, depth=0), NormBall("l2", 0.05)
    weights = found.centered.T @ found.vectors / found.values / 25
    values = found.features(gray.pixels(slice(None))).float()
    table = metrics.usefulness(values, gray.labels, 3)
    rows = metrics.per_feature(found, gray, threat_model, steps=2, sample=30)  # type: ignore[arg-type]
    assert len(rows) == 3 * len(found.values)
    checked = 0
    for row in rows:
        scale = table.scale[row.feature, gray.classes.index(row.class_name)]
        loss = 0.05 * weights[:, row.feature].norm().item() / scale
        assert row.robust_usefulness == pytest.approx(row.usefulness - loss, abs=2e-3 * max(1.0, loss))
        checked += row.usefulness > 0.3
    assert checked > 3


@pytest.mark.slow
def test_the_first_eigenvectors_of_digits_are_the_robust_ones(part: Dataset, digits: data.Splits) -> None:
    found = EigenFeatures(part, keep=40)
    rows = metrics.best_class_rows(
        metrics.per_feature(found, digits.test.select(slice(0, 150)), NormBall("l2", 0.3), steps=0, sample=20)
    )  # type: ignore[arg-type]
    losses = [row.usefulness - row.robust_usefulness for row in rows]
    assert sum(losses[:10]) < sum(losses[-10:]) / 1.5


@pytest.mark.slow
def test_the_classifier_is_attacked_and_stored_like_any_model(part: Dataset, digits: data.Splits) -> None:
    model, test = EigenFeatures(part), digits.test.select(slice(0, 40))
    rows = metrics.robust_accuracy(model, test, [NormBall("l2", 0.3), NormBall("l2", 0.75)], budget="quick")
    assert rows[0].accuracy > 0.85 and rows[0].correct >= rows[1].correct > rows[2].correct
    assert not list(model.parameters())
    other = EigenFeatures(digits.train.select(slice(0, 150)))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(test.pixels(slice(None))), model(test.pixels(slice(None))))
    with models.frozen(model):
        assert torch.equal(model(test.pixels([0])), EigenFeatures(part)(test.pixels([0])))


@pytest.mark.parametrize("depth", [0, 3])
def test_repeated_images_give_no_eigenvectors_of_rounding_error(depth: int, part: Dataset) -> None:
    twice = part.select([*range(20), *range(20)])
    found = EigenFeatures(twice, depth=depth)
    assert len(found.values) <= 20
    assert found.features(twice.pixels(slice(None))).abs().max() <= 1 + 1e-6


def test_identical_images_give_no_eigenvectors(part: Dataset) -> None:
    found = EigenFeatures(part.select([0] * 5))
    assert not len(found.values)


# ---- choice ----------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(2, 200))
def test_chosen_eigenvectors_are_dense_first_and_reach_the_last(count: int, most: int) -> None:
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
        assert all(after >= before - 1 for before, after in pairwise(gaps))  # growing gaps, up to rounding


def test_chosen_eigenvectors_of_the_digits() -> None:
    found = metrics.chosen_eigenvectors(1347)
    assert (len(found), found[:51], found[-1]) == (100, [*range(51)], 1346)


# ---- input errors --------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "depth": ({"depth": -1}, "depth: must be 0 or more, got -1"),
    "keep 0": ({"keep": 0}, "keep: must be between 1 and the 150 images, got 0"),
    "keep too many": ({"keep": 151}, "keep: must be between 1 and the 150 images, got 151"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_parameters_are_rejected(case: str, part: Dataset) -> None:
    options, message = BAD[case]
    with pytest.raises(InputError, match=f"^{message}"):
        EigenFeatures(part, **options)


@pytest.mark.parametrize("ridge", [-1e-3, math.nan])
def test_an_invalid_ridge_is_rejected(ridge: float, part: Dataset) -> None:
    with pytest.raises(InputError, match=r"^ridge"):
        EigenFeatures(part, ridge=ridge)


def test_too_few_and_too_many_images_are_rejected(part: Dataset) -> None:
    for count in (0, 1, ntk.MAX_IMAGES + 1):
        with pytest.raises(
            InputError, match=rf"^dataset: must hold 2 to {ntk.MAX_IMAGES} images, .* got {count}; take (fewer|more)$"
        ):
            EigenFeatures(part.select([0] * count))
