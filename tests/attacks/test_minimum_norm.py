"""Minimum norm: exact on linear models, as small as foolbox finds it elsewhere."""

import warnings

import pytest
import torch
from attacks.conftest import Batch, brightness_model, margins_of, remaining, seeded
from torch import Tensor, nn

from notbugs import attacks, data
from notbugs.attacks.minimum_norm import bisect_to_boundary
from notbugs.errors import InputError
from notbugs.search import NormBall


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("classes", [2, 5])
def test_linear_model_has_minimum_norm_of_margin_over_dual_norm(norm: str, classes: int) -> None:
    """Gray images, far from black and white: the nearest boundary between two classes is known exactly."""
    images = 0.5 + 0.1 * torch.rand(50, 1, 8, 8, generator=seeded())
    weights = torch.randn(64, classes, generator=seeded())

    def model(images: Tensor) -> Tensor:
        return (images.flatten(1) - 0.55) @ weights

    labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % classes  # a misclassified clean image
    found = attacks.minimum_norm(model, images, labels, norm=norm)
    differences = model(images).gather(1, labels[:, None]) - model(images)
    between = weights.T[labels][:, None] - weights.T[None]
    dual = {"linf": between.abs().sum(2), "l2": between.norm(dim=2), "l1": between.abs().amax(2)}[norm]
    exact = (differences / dual).scatter(1, labels[:, None], torch.inf).amin(1).clamp_min(0)
    assert found.norms[0] == 0 and torch.equal(found.images[0], images[0])
    assert bool((found.norms >= exact * (1 - 1e-4)).all())
    assert bool((found.norms <= exact * 1.03 + 1e-5).all())
    targets, distances = attacks.nearest_classes(model, images[1:], labels[1:], norm=norm)
    assert torch.allclose(distances[:, 0], exact[1:], rtol=1e-3)
    assert targets.shape == (49, classes - 1)
    assert not bool((targets == labels[1:, None]).any())


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("which", ["standard", "robust"])
def test_norms_are_those_of_misclassified_images(norm: str, which: str, request: pytest.FixtureRequest, few: Batch) -> None:
    model, (images, labels) = request.getfixturevalue(which), few
    found = attacks.minimum_norm(model, images, labels, norm=norm)
    assert bool(found.norms.isfinite().all())
    assert torch.allclose(NormBall(norm, 0).distance(found.images - images), found.norms, atol=1e-6)
    assert bool(((found.images >= 0) & (found.images <= 1)).all())
    assert bool((margins_of(model, found.images, labels) > -1e-4).all())
    nearer = images + 0.9 * (found.images - images)
    assert bool((margins_of(model, nearer, labels)[found.norms > 0] < 0).all())  # bisected to the boundary
    again = attacks.minimum_norm(model, images, labels, norm=norm)
    assert torch.equal(again.images, found.images)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["standard", "robust"])
def test_minimum_norm_is_as_small_as_that_of_foolbox(which: str, request: pytest.FixtureRequest, digits: data.Splits) -> None:
    """DDN with 100 gradients, as here; and at every epsilon about as many images remain as after the ensemble."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox")
    model, images, labels = request.getfixturevalue(which), digits.test.pixels(slice(0, 200)), digits.test.labels[:200]
    norms = attacks.minimum_norm(model, images, labels).norms
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        referee = foolbox.PyTorchModel(model.eval(), bounds=(0, 1))
        perturbed, _, success = foolbox.attacks.DDNAttack(steps=100)(referee, images, labels, epsilons=None)
    theirs = torch.where(success, (perturbed - images).flatten(1).norm(dim=1), torch.inf)
    assert float(norms.median()) <= float(theirs.median()) * 1.005
    assert float(norms.mean()) <= float(theirs[theirs.isfinite()].mean()) * 1.005
    for epsilon in (0.375, 0.75):
        ensemble = attacks.worst_case(model, images, labels, attacks.gradient_ensemble(NormBall("l2", epsilon), 10))
        assert abs(int((norms > epsilon).sum()) - remaining(ensemble)) <= 3


def test_nothing_found_is_inf(few: Batch) -> None:
    images, labels = few[0], torch.zeros(60, dtype=torch.int64)
    weights = torch.eye(3)[:1] * 5
    found = attacks.minimum_norm(lambda images: images.flatten(1).mean(1, keepdim=True) * 0 + weights, images, labels)
    assert bool(found.norms.isinf().all())
    assert torch.equal(found.images, images)
    with pytest.raises(InputError, match=r"^norm: must be linf, l2 or l1"):
        attacks.minimum_norm(nn.Identity(), images, labels, norm="l0")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_other_dtypes_find_the_same_norms(norm: str, dtype: torch.dtype) -> None:
    images, labels = 0.1 * torch.rand(5, 3, 5, 7, generator=seeded()), torch.zeros(5, dtype=torch.int64)
    float32 = attacks.minimum_norm(brightness_model, images, labels, norm=norm)
    found = attacks.minimum_norm(brightness_model, images.to(dtype), labels, norm=norm)
    assert found.images.dtype == dtype
    assert torch.allclose(found.norms, float32.norms, rtol=0.05)
    sample = NormBall("l1", 5.0).sample(torch.rand(200, 3, 32, 32, generator=seeded()).to(dtype), seeded())
    assert sample.dtype == dtype and not bool(sample.isnan().any())


@pytest.mark.parametrize("clip", [None, NormBall("linf", 1.0)])
def test_bisection_ends_just_outside_the_boundary(clip: NormBall | None) -> None:
    """The boundary is at a mean of 0.35, and the straight path from 0.1 to 0.9 crosses it at 5/16."""
    images, labels = torch.full((2, 1, 4, 4), 0.1), torch.zeros(2, dtype=torch.int64)
    found = bisect_to_boundary(brightness_model, images, labels, torch.full_like(images, 0.9), steps=10, clip=clip)
    assert bool((margins_of(brightness_model, found, labels) >= 0).all())
    assert found.mean((1, 2, 3)).tolist() == pytest.approx([0.35, 0.35], abs=1e-3)
    same = bisect_to_boundary(brightness_model, images, labels, images, steps=3, clip=clip)
    assert torch.equal(same, images)
