"""The attack ensemble: against other libraries, behind masked gradients, and at every budget."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attacks.conftest import (
    THREAT_MODELS,
    Batch,
    LabelsOnly,
    brightness_model,
    inside,
    margins_of,
    misclassified,
    remaining,
    seeded,
)
from small_budgets import with_queries
from torch import Tensor, nn

from notbugs import attacks
from notbugs.attacks import budgets, ensemble, further
from notbugs.errors import InputError
from notbugs.models import Model
from notbugs.search import NormBall, SpatialTransforms, ThreatModel

# ---- beside other libraries -------------------------------------------------------------------------------------------------


def remaining_by_foolbox(model: nn.Module, images: Tensor, labels: Tensor, threat_model: NormBall) -> int:
    foolbox = pytest.importorskip("foolbox")
    attack = (foolbox.attacks.L2PGD if threat_model.norm == "l2" else foolbox.attacks.LinfPGD)(steps=50)
    torch.manual_seed(0)
    _, clipped, success = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilons=threat_model.epsilon)
    assert inside(clipped, images, threat_model)
    return int((~success).sum())


def remaining_by_torchattacks(model: nn.Module, images: Tensor, labels: Tensor, threat_model: NormBall) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
        norm = threat_model.norm.capitalize()
        correct = model(images).argmax(1) == labels
        for attack in (
            torchattacks.APGD(model, norm=norm, eps=threat_model.epsilon, steps=50, loss="ce"),
            torchattacks.APGDT(model, norm=norm, eps=threat_model.epsilon, steps=20, n_classes=10),
        ):
            if bool(correct.any()):
                index = correct.nonzero().squeeze(1)
                found = attack(images[index], labels[index])
                assert inside(found, images[index], threat_model)
                correct[index] = model(found).argmax(1) == labels[index]
        return int(correct.sum())


@pytest.mark.slow
@pytest.mark.parametrize("threat_model", [NormBall("l2", 0.5), NormBall("linf", 0.1)], ids=str)
@pytest.mark.parametrize(
    ("which", "referees"),
    [("standard", [remaining_by_foolbox]), ("convolutional", [remaining_by_foolbox, remaining_by_torchattacks])],
)
def test_no_other_library_leaves_a_lower_robust_accuracy(
    which: str, threat_model: NormBall, referees: list[Callable[..., int]], request: pytest.FixtureRequest, batch: Batch
) -> None:
    model, (images, labels) = request.getfixturevalue(which), batch
    count = remaining(attacks.adaptive_ensemble(model, images, labels, threat_model=threat_model))
    for referee in referees:
        assert count <= referee(model, images, labels, threat_model) + 1, referee
    assert count < int((model(images).argmax(1) == labels).sum())


# ---- thresholds, and masked gradients ---------------------------------------------------------------------------------------


class Saturated(nn.Module):
    """A model with saturated pixels or logits, which hides its gradients."""

    def __init__(self, model: Model, where: str) -> None:
        super().__init__()
        self.model, self.where = model, where

    def forward(self, images: Tensor) -> Tensor:
        if self.where == "pixels":
            return self.model(torch.sigmoid(12 * (images - 0.5)))
        return 3 * torch.tanh(self.model(images) / 3) if self.where == "logits" else self.model(images)


PLAIN = [NormBall("l2", 0.375), NormBall("l2", 0.75), NormBall("linf", 0.05), NormBall("linf", 0.15)]
SATURATED = [NormBall("l2", 0.75), NormBall("linf", 0.05)]
CASES = [("nowhere", each) for each in PLAIN] + [(where, each) for where in ("pixels", "logits") for each in SATURATED]


@pytest.mark.slow
@pytest.mark.parametrize(("where", "threat_model"), CASES, ids=str)
def test_thresholds_of_the_ensemble_lose_nothing(
    where: str, threat_model: NormBall, standard: Model, robust: Model, batch: Batch
) -> None:
    images, labels = batch
    for model in (Saturated(standard, where), Saturated(robust, where)):
        on_all = attacks.worst_case(model, images, labels, attacks.gradient_ensemble(threat_model, 10))
        found = attacks.adaptive_ensemble(model, images, labels, threat_model=threat_model)
        assert int(((found.margins < 0) & (on_all.margins > 0)).sum()) == 0


def two_peaks(turn: float) -> Callable[[Tensor], Tensor]:
    """Logits of two pixels: from (0.5, 0.5) the gradient leads to a maximum that takes 98.5 % of the margin, not to the other."""

    def peak(images: Tensor, right: float, up: float, width: float) -> Tensor:
        x, y = (images.flatten(1) - 0.5).T
        x, y = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
        return torch.exp(-((x - right).square() + (y - up).square()) / width)

    def logits(images: Tensor) -> Tensor:
        margins = 0.985 * peak(images, 0.18, 0, 0.02) + 1.2 * peak(images, -0.1, -0.18, 0.01) - 1
        return torch.stack([-margins, margins], dim=1) / 2

    return logits


@pytest.mark.slow
@pytest.mark.usefixtures("whole_budgets")
@pytest.mark.parametrize(("budget", "turn"), [("standard", math.pi / 2), ("thorough", 0)])
def test_random_starts_find_another_maximum(budget: str, turn: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """On most turned functions searches that shrink find it, too; not on these."""
    images, labels, threat_model = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]), NormBall("l2", 0.25)
    attack = partial(attacks.adaptive_ensemble, two_peaks(turn), images, labels, threat_model=threat_model, budget=budget)
    assert misclassified(attack()) == 1
    monkeypatch.setattr(further, "FURTHER_ATTACKS", [each._replace(random_start=False) for each in budgets.FURTHER_ATTACKS])
    monkeypatch.setattr(ensemble, "BUDGETS", {budget: replace(attacks.BUDGETS[budget], apgd_steps=0)})
    assert attack().margins.item() == pytest.approx(-0.015, abs=1e-3)


class Masked(nn.Module):
    """A model whose gradients vanish: 16 levels per pixel, saturated logits, or probabilities close to 0 and 1."""

    def __init__(self, model: Model, how: str) -> None:
        super().__init__()
        self.model, self.how = model, how

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "levels":
            return self.model((images * 15).round() / 15)
        logits = self.model(images)
        return 3 * torch.tanh(100 * logits / 3) if self.how == "saturated" else (20 * logits).softmax(1)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["levels", "saturated", "probabilities"])
@pytest.mark.parametrize("threat_model", THREAT_MODELS, ids=str)
def test_masked_gradients_do_not_help(how: str, threat_model: NormBall, robust: Model, batch: Batch) -> None:
    """Of 100 images at least 20 fewer remain (of probabilities 10) than after PGD-50, which stalls."""
    model, (images, labels) = Masked(robust, how).eval(), batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
        pgd = torchattacks.PGDL2 if threat_model.norm == "l2" else torchattacks.PGD
        torch.manual_seed(0)
        perturbed = pgd(model, eps=threat_model.epsilon, alpha=threat_model.epsilon / 8, steps=50)(images, labels)
    stalled = int((model(perturbed).argmax(1) == labels).sum())
    found = attacks.adaptive_ensemble(model, images, labels, threat_model=threat_model)
    assert remaining(found) <= stalled - (10 if how == "probabilities" else 20)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["one-hot", "saturated"])
def test_gradients_of_zero_are_no_obstacle(how: str, standard: Model, few: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of exactly zero give about the same result as none: Square Attack and HopSkipJump."""
    images, labels = few
    monkeypatch.setattr(ensemble, "BUDGETS", with_queries(250))

    class ZeroGradients(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = standard(images)
            if how == "saturated":
                return (200 * logits).softmax(1)
            return (2 * F.one_hot(logits.argmax(1), 10) - 1) + 0 * logits

    zero, none = (
        misclassified(attacks.adaptive_ensemble(model, images, labels, threat_model=NormBall("l2", 0.5)))
        for model in (ZeroGradients(), LabelsOnly(standard))
    )
    assert zero >= none - 3
    assert none > int((margins_of(standard, images, labels) >= 0).sum()) + 8


@pytest.mark.slow
@pytest.mark.usefixtures("whole_budgets")
def test_square_attack_is_short_where_gradients_work(robust: Model, batch: Batch) -> None:
    counted = LabelsOnly(robust)

    class Counted(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            counted.queries += 0 if images.requires_grad else len(images)
            return robust(images)

    attacks.adaptive_ensemble(Counted(), *batch, threat_model=NormBall("l2", 0.75))
    assert counted.queries < 100 * 60  # 1,000 queries for every image that remains would be ten times as many


# ---- budgets and special cases ----------------------------------------------------------------------------------------------

EVERY_KIND: list[ThreatModel | SpatialTransforms] = [
    NormBall("l2", 0.75),
    NormBall("linf", 0.15),
    NormBall("l1", 2.0),
    NormBall("l0", 2),
    SpatialTransforms(20, 0.3),
]


@pytest.mark.slow
@pytest.mark.parametrize("threat_model", EVERY_KIND, ids=str)
@pytest.mark.parametrize("gradient", [True, False])
def test_a_larger_budget_leaves_no_more_images(threat_model: Any, gradient: bool, robust: Model, few: Batch) -> None:
    images, labels = few[0][:30], few[1][:30]
    model: Any = robust if gradient else LabelsOnly(robust)
    assert attacks.has_gradient(model, images) == gradient
    clean = int((margins_of(robust, images, labels) < 0).sum())
    counts = [clean]
    for budget in list(attacks.BUDGETS)[: 3 if gradient else 2]:
        found = attacks.adaptive_ensemble(model, images, labels, threat_model=threat_model, budget=budget)
        if isinstance(threat_model, NormBall):
            assert inside(found.images, images, threat_model)
        assert torch.equal(margins_of(model, found.images, labels) >= 0, found.margins >= 0)
        counts.append(remaining(found))
        if budget != "thorough" or threat_model == EVERY_KIND[0]:
            again = attacks.adaptive_ensemble(model, images, labels, threat_model=threat_model, budget=budget)
            assert torch.equal(again.images, found.images)
    assert all(before + 1 >= after for before, after in pairwise(counts))
    assert counts[-1] < clean
    with pytest.raises(InputError, match=r"^budget: must be one of quick, standard, thorough"):
        attacks.adaptive_ensemble(model, images, labels, threat_model=threat_model, budget="huge")


@pytest.mark.slow
@pytest.mark.parametrize("threat_model", EVERY_KIND, ids=str)
@pytest.mark.parametrize("gradient", [True, False])
def test_progress_counts_the_attacks(threat_model: Any, gradient: bool, robust: Model, few: Batch) -> None:
    """In two batches; the number of attacks that is planned is the number that run."""
    images, labels = few[0][:4], few[1][:4]
    model: Any = robust if gradient else LabelsOnly(robust)
    for budget in list(attacks.BUDGETS)[: 3 if gradient else 1]:
        shares: list[float] = []
        attacks.adaptive_ensemble(
            model, images, labels, threat_model=threat_model, budget=budget, batch_size=2, progress=shares.append
        )
        steps = len(shares) // 2
        assert shares == pytest.approx([number / (2 * steps) for number in range(1, 2 * steps + 1)])
        assert steps >= {"standard": 12, "thorough": 12}.get(budget, 5) or threat_model != EVERY_KIND[0] or not gradient


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize("count", [0, 3])
def test_no_images_and_epsilon_zero(norm: str, count: int) -> None:
    images, labels = 0.3 * torch.rand(count, 3, 5, 7, generator=seeded()), torch.zeros(count, dtype=torch.int64)
    threat_model = NormBall(norm, 0)
    for found in (
        attacks.adaptive_ensemble(brightness_model, images, labels, threat_model=threat_model),
        attacks.square_attack(brightness_model, images, labels, threat_model=threat_model, queries=3),
        attacks.pgd(brightness_model, images, labels, threat_model=threat_model, generator=seeded()),
    ):
        assert torch.equal(found.images, images)
        assert found.margins.shape == (count,)
    if norm != "l0":
        assert attacks.minimum_norm(brightness_model, images, labels, norm=norm).norms.shape == (count,)


@pytest.mark.slow
def test_logits_that_are_not_finite_under_attack_count_as_misclassified(standard: Model, few: Batch) -> None:
    """This model returns NaN near its decision boundary."""
    images, labels = few

    def model(images: Tensor) -> Tensor:
        logits = standard(images)
        top = logits.topk(2).values
        return torch.where((top[:, 0] - top[:, 1] < 2)[:, None], torch.nan, logits)

    sure = margins_of(standard, images, labels) < -3
    found = attacks.adaptive_ensemble(model, images[sure], labels[sure], threat_model=NormBall("l2", 0.75))
    plain = attacks.adaptive_ensemble(standard, images[sure], labels[sure], threat_model=NormBall("l2", 0.75))
    assert misclassified(found) >= misclassified(plain) > 0


def test_a_tie_counts_as_misclassified(few: Batch) -> None:
    images, labels = few[0], torch.zeros(60, dtype=torch.int64)
    found = attacks.adaptive_ensemble(
        lambda images: images.flatten(1)[:, :3] * 0, images, labels, threat_model=NormBall("l2", 0.5)
    )
    assert found.margins.tolist() == [0.0] * 60
    assert torch.equal(found.images, images)


@pytest.mark.slow
def test_many_images_are_attacked_batch_by_batch(robust: Model, batch: Batch) -> None:
    largest = 0

    class Watched(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            nonlocal largest
            largest = max(largest, len(images))
            return robust(images)

    found = attacks.adaptive_ensemble(Watched(), *batch, threat_model=NormBall("l2", 0.75), batch_size=60)
    assert largest == 60
    assert torch.allclose(found.margins, margins_of(robust, found.images, batch[1]), atol=1e-4)
    whole = attacks.adaptive_ensemble(robust, *batch, threat_model=NormBall("l2", 0.75))
    assert abs(remaining(found) - remaining(whole)) <= 1


@pytest.mark.slow
def test_batches_are_halved_where_memory_runs_out(standard: Model, few: Batch) -> None:
    images, labels = few
    sizes: list[int] = []

    def hungry(images: Tensor) -> Tensor:
        sizes.append(len(images))
        if len(images) > 20:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return standard(images)

    with pytest.warns(RuntimeWarning) as caught:
        found = attacks.adaptive_ensemble(hungry, images, labels, threat_model=NormBall("l2", 0.5), budget="quick")
    assert [str(each.message).split(" with ")[1] for each in caught] == ["30 images at a time", "15 images at a time"]
    assert max(sizes) == 60
    assert torch.allclose(found.margins, margins_of(standard, found.images, labels), atol=1e-4)
