"""Targeted attacks: exact on a linear model, beside targeted PGD on a network, and nothing counts that is not the target."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from notbugs import attacks, models
from notbugs.attacks import PredictsTarget, targeted, targeted_ensemble
from notbugs.data import Splits
from notbugs.search import AttackResult, NormBall, SpatialTransforms, objectives


def linear(classes: int = 4) -> tuple[torch.nn.Module, Tensor]:
    """A linear model, and images near gray, at which all logits are equal."""
    generator = torch.Generator().manual_seed(1)
    layer = torch.nn.Linear(16, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, 16, generator=generator))
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    images = 0.5 + 0.03 * torch.randn((6, 1, 4, 4), generator=generator)
    return torch.nn.Sequential(torch.nn.Flatten(), layer).eval(), images


def test_the_view_is_misclassified_where_the_target_is_predicted() -> None:
    model, images = linear()
    logits = model(images)
    for target in range(4):
        outputs = PredictsTarget(model, target)(images)
        assert torch.equal(outputs.argmax(1) != 0, logits.argmax(1) == target)
        assert torch.allclose(
            -objectives.margin(outputs, torch.zeros(6, dtype=torch.int64)),
            objectives.margin(logits, outputs.new_full((6,), target).long()),
        )
        smooth = torch.nn.functional.log_softmax(logits, 1)[:, target]
        assert torch.allclose(outputs[:, 2] - outputs[:, 0], smooth - (1 - smooth.exp()).log(), atol=1e-5)
        probable = PredictsTarget(lambda images: model(images).softmax(1), target, inverse=torch.log)(images)
        assert torch.equal(probable.argmax(1), outputs.argmax(1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_do_not_reach_the_target(value: float) -> None:
    broken = PredictsTarget(lambda images: torch.full((len(images), 3), value), 1)(torch.rand(2, 1, 2, 2))
    assert broken.argmax(1).tolist() == [0, 0] and bool(broken.isfinite().all())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_smallest_targeted_perturbation_of_two_classes_is_exact(norm: str) -> None:
    model, images = linear(2)
    logits = model(images).detach()
    target = 1 - logits.argmax(1)[0].item()
    kept = logits.argmax(1) != target
    view = PredictsTarget(model, int(target))
    found = attacks.minimum_norm(view, images[kept], torch.zeros(int(kept.sum()), dtype=torch.int64), norm=norm, rounds=6)
    slope = model[1].weight.detach().diff(dim=0).flatten()  # type: ignore[index, union-attr]
    dual = {"linf": slope.abs().sum(), "l2": slope.norm(), "l1": slope.abs().max()}[norm]
    assert torch.allclose(found.norms, logits.diff(dim=1).abs().squeeze(1)[kept] / dual, rtol=0.03)


@pytest.mark.parametrize(
    "threat_model",
    [NormBall("linf", 0.03), NormBall("l2", 0.1), NormBall("l1", 0.4), NormBall("l0", 1), SpatialTransforms(40, 1)],
)
@pytest.mark.parametrize("gradient", [True, False])
def test_the_target_is_predicted_where_the_margin_says_so(threat_model: NormBall | SpatialTransforms, gradient: bool) -> None:
    model, images = linear()
    targets = (model(images).argmax(1) + torch.tensor([1, 2, 3, 1, 2, 3])) % 4
    attacked = model if gradient else lambda images: model(images).detach()
    found = targeted_ensemble(attacked, images, targets, threat_model=threat_model, budget="quick")
    margins = objectives.margin(model(found.images), targets)
    assert torch.allclose(margins, found.margins, atol=1e-4) and bool(
        (margins >= objectives.margin(model(images), targets) - 1e-5).all()
    )
    if isinstance(threat_model, NormBall):
        assert bool((threat_model.distance(found.images - images) <= threat_model.epsilon * 1.0001).all())
    if gradient and isinstance(threat_model, NormBall):
        assert int((margins >= 0).sum()) > 0


@pytest.mark.slow
def test_it_finds_at_least_what_targeted_pgd_finds(
    standard: models.Model, digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targeted, "RESTARTS", {"standard": 2})
    images, labels = digits.test.pixels(slice(0, 8)), digits.test.labels[:8]
    targets, ball = (labels + 3) % 10, NormBall("l2", 0.8)
    found = targeted_ensemble(standard, images, targets, threat_model=ball, budget="standard").margins >= 0
    attack = partial(attacks.targeted_pgd, standard, images, targets, threat_model=ball, steps=40)
    pgd = [attack(loss=loss).margins >= 0 for loss in ("margin", "cross_entropy")]
    assert bool((found | ~(pgd[0] | pgd[1])).all()) and 0 < int(found.sum()) < 8


def test_restarts_go_to_images_that_lost_most_of_their_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """APGD from random starts: in L2, L-inf and L1, with gradients, and not in `quick`."""
    model, images = linear()
    view, labels = PredictsTarget(model, 0), torch.zeros(6, dtype=torch.int64)
    clean = -objectives.margin(view(images), labels).detach()
    ran: list[Tensor] = []

    def counted(model: attacks.Model, images: Tensor, labels: Tensor, **options: Any) -> AttackResult:
        ran.append(images)
        return AttackResult(images, torch.full((len(images),), -torch.inf))

    monkeypatch.setattr(targeted, "apgd", counted)
    lost = torch.tensor([0.9, 0.5, 0.9, 0.5, 0.9, 0.5])
    monkeypatch.setattr(targeted, "adaptive_ensemble", lambda *_, **__: AttackResult(images, clean * (1 - lost)))
    kept = (lost > 0.85) & (clean < 0)
    assert int(kept.sum()) > 0
    blind = lambda images: view(images).detach()  # noqa: E731
    for attacked, threat_model, budget, runs in (
        (view, NormBall("linf", 0.1), "standard", 12),
        (view, NormBall("linf", 0.1), "quick", 0),
        (blind, NormBall("linf", 0.1), "standard", 0),
        (view, NormBall("l0", 1), "standard", 0),
        (view, SpatialTransforms(5, 1), "standard", 0),
    ):
        ran.clear()
        targeted.ensemble_toward(attacked, images, labels, threat_model=threat_model, budget=budget)
        assert len(ran) == runs and all(torch.equal(each, images[kept]) for each in ran)
