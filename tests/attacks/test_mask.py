"""Attacks within a mask and within limits of channels, against the exact distances of a linear model."""

import pytest
import torch
from torch import Tensor

from notbugs import attacks
from notbugs.attacks.sanity_checks.gradients import larger_epsilon, unbounded
from notbugs.search import Mask, NormBall

SIDE = 6


def problem(seed: int = 0) -> tuple[torch.nn.Module, Tensor, Tensor, Mask]:
    """A linear model of two classes, correctly classified images far from black and white, and a mask of 3x4 pixels."""
    generator = torch.Generator().manual_seed(seed)
    layer = torch.nn.Linear(SIDE * SIDE, 2)
    weights = torch.randn(SIDE * SIDE, generator=generator)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([weights, -weights]))
        layer.bias.copy_(-0.5 * layer.weight.sum(1))  # gray lies on the decision boundary
    images = 0.5 + 0.02 * torch.randn((6, 1, SIDE, SIDE), generator=generator)
    images = (images * 255).round() / 255
    model = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
    free = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    free[:, 1:4, 1:5] = True
    return model, images, model(images).argmax(1), Mask(free)


def exact(model: torch.nn.Module, images: Tensor, labels: Tensor, ball: NormBall) -> Tensor:
    """The distance to the decision boundary: the margin over the dual norm of its gradient, in what may change."""
    logits = model(images).detach()
    margins = (logits.gather(1, labels[:, None]) - logits.gather(1, 1 - labels[:, None])).squeeze(1)
    slope = 2 * ball.free_part(model[1].weight[:1].detach().reshape(1, 1, SIDE, SIDE))  # type: ignore[index, union-attr]
    dual = {"linf": slope.abs().sum(), "l2": slope.norm(), "l1": slope.abs().max()}[ball.norm]
    return margins / dual


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_minimum_norm_within_a_mask_is_the_exact_distance(norm: str) -> None:
    model, images, labels, mask = problem()
    ball = NormBall(norm, 1.0, mask)
    found = attacks.minimum_norm(model, images, labels, norm=ball, rounds=6)
    assert torch.allclose(found.norms, exact(model, images, labels, ball), rtol=0.03)
    assert torch.equal(ball.keep_rest(found.images, images), found.images)


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_ensemble_within_a_mask_finds_what_there_is(norm: str, gradient: bool) -> None:
    model, images, labels, mask = problem()
    distances = exact(model, images, labels, NormBall(norm, 1.0, mask))
    ball = NormBall(norm, distances.median().item() * 1.2, mask)
    attacked = model if gradient else lambda images: model(images).detach()
    found = attacks.adaptive_ensemble(attacked, images, labels, threat_model=ball, budget="quick")
    success = found.margins >= 0
    assert bool((ball.distance(found.images - images) <= ball.epsilon * 1.0001).all())
    if gradient:
        assert torch.equal(success, distances <= ball.epsilon) and 0 < int(success.sum()) < len(images)
    else:
        assert int(success.sum()) > 0 and bool((distances[success] <= ball.epsilon).all())


@pytest.mark.parametrize("candidates", [None, 20])
@pytest.mark.parametrize("gradient", [True, False])
def test_few_pixels_within_a_mask(candidates: int | None, gradient: bool) -> None:
    """The exact best pixel of a linear model: the largest gain of setting a free pixel to black or white."""
    model, images, labels, mask = problem()
    model[1].weight.data[:, ~mask.free.flatten()] *= 100  # type: ignore[index, operator, union-attr]  # tempting, but not free
    labels = model(images).argmax(1)
    found = attacks.few_pixels(model, images, labels, pixels=2, candidates=candidates, gradient=gradient, mask=mask)
    ball = NormBall("l0", 2, mask)
    assert bool((ball.distance(found.images - images) <= 2).all()) and bool((found.images != images).any())
    if candidates is None or gradient:
        slope = model[1].weight[0].detach()  # type: ignore[index, union-attr]
        signs = 2 * labels.float() - 1
        flat, free = images.flatten(1), mask.free.flatten()
        gains = torch.maximum(signs[:, None] * slope * (1 - flat), -signs[:, None] * slope * flat)[:, free]
        best = 2 * gains.topk(2).values.sum(1)
        gained = found.margins + model(images).detach().diff(dim=1).abs().squeeze(1)
        assert torch.allclose(gained, best, rtol=1e-3)


def test_few_pixels_changes_the_free_channels_alone() -> None:
    free = torch.zeros(3, 2, 2, dtype=torch.bool)
    free[0] = True
    images = torch.full((1, 3, 2, 2), 0.5)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    labels = model(images).argmax(1)
    found = attacks.few_pixels(model, images, labels, pixels=4, candidates=None, mask=Mask(free))
    assert bool((found.images[:, 1:] == 0.5).all()) and bool((found.images[:, 0] != 0.5).any())


def test_square_attack_draws_squares_where_pixels_are_free() -> None:
    """One free pixel of 400: squares anywhere would seldom meet it."""
    free = torch.zeros(1, 20, 20, dtype=torch.bool)
    free[0, 7, 11] = True
    weights = torch.where(free, 1.0, 0.0)
    model = lambda images: torch.stack([0.4 - (images * weights).sum((1, 2, 3)), torch.zeros(len(images))], dim=1)  # noqa: E731
    images, labels = torch.zeros(2, 1, 20, 20), torch.zeros(2, dtype=torch.int64)
    found = attacks.square_attack(model, images, labels, threat_model=NormBall("l2", 0.5, Mask(free)), queries=8)
    assert bool((found.margins >= 0).all()) and bool((found.images * ~free == 0).all())


def test_hop_skip_jump_starts_at_images_blended_into_the_mask() -> None:
    model, images, labels, mask = problem()
    for norm in ("l2", "linf"):
        ball = NormBall(norm, 1.0, mask)
        starts = torch.cat([images, torch.ones_like(images), torch.zeros_like(images)])
        found = attacks.hop_skip_jump(
            lambda images: model(images).detach(), images, labels, norm=ball, queries=250, starts=starts
        )
        hit = found.norms.isfinite()
        assert int(hit.sum()) >= 4 and torch.equal(ball.keep_rest(found.images, images), found.images)
        assert bool((found.norms[hit] >= exact(model, images, labels, ball)[hit] * 0.999).all())
        assert bool((found.norms[hit] <= exact(model, images, labels, ball)[hit] * 2).all())


def test_attacks_within_limits_of_channels() -> None:
    """Of a linear model the exact distance: the margin over the sum of the slopes, each times the share of its channel."""
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(12, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, 12, generator=generator))
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    model = torch.nn.Sequential(torch.nn.Flatten(), layer)
    images = 0.5 + 0.05 * torch.randn((5, 3, 2, 2), generator=generator)
    logits = model(images).detach()
    labels, ball = logits.argmax(1), NormBall("linf", 0.5, channels=(1.0, 0.25, 0.0))
    slope = layer.weight.detach().diff(dim=0).reshape(3, 4).abs().sum(1) @ torch.tensor(ball.channels)
    distances = logits.diff(dim=1).abs().squeeze(1) / slope
    inside = distances < 0.3
    assert bool(inside.any())
    found = attacks.minimum_norm(model, images, labels, norm=ball)
    assert torch.allclose(found.norms[inside], distances[inside], rtol=0.02)
    walked = attacks.hop_skip_jump(model, images, labels, norm=ball, queries=300)
    for result in (found, walked):
        assert torch.equal(result.images[:, 2], images[:, 2])
        change = (result.images - images)[result.norms.isfinite()]
        assert bool((change[:, 1].abs().amax((1, 2)) <= 0.25 * result.norms[result.norms.isfinite()] + 1e-6).all())


def test_the_sanity_checks_attack_within_the_mask() -> None:
    model, images, labels, mask = problem()
    ball = NormBall("l2", 0.02, mask)
    check = unbounded(model, images, labels, threat_model=ball)
    assert check.passed is None and check.observed == f"not every value may change: {mask}"
    assert larger_epsilon(model, images, labels, threat_model=ball).passed
    distances = exact(model, images, labels, ball)
    within = [int((distances <= epsilon).sum()) for epsilon in (0.02, 0.04)]
    assert within[0] < within[1] and larger_epsilon(model, images, labels, threat_model=ball).observed.startswith(
        f"PGD-20 at {ball}: {within[0]} of 6 images misclassified; at twice the epsilon: {within[1]} "
    )
