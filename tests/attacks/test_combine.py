"""Several attacks on one batch: who gets which attack, and the exact result on linear models."""

import warnings
from functools import partial

import pytest
import torch
from attacks.conftest import Batch, inside, linear_problem, margins_of, remaining
from torch import Tensor, nn

from notbugs import attacks
from notbugs.attacks.combine import EnsembleState
from notbugs.models import Model
from notbugs.search import Attack, AttackResult, NormBall


def test_each_attack_runs_on_the_remaining_images() -> None:
    """The model classifies by the first pixel: class 1 above one half. A misclassified clean image is returned as it is."""

    def model(images: Tensor) -> Tensor:
        first = images[:, 0, 0, 0]
        return torch.stack([0.5 - first, first - 0.5], dim=1)

    attacked: list[list[float]] = []

    def attack(step: float, model: Model, images: Tensor, labels: Tensor) -> AttackResult:
        attacked.append([round(value, 2) for value in images.flatten().tolist()])
        return AttackResult(images + step, margins_of(model, images + step, labels))

    images = torch.tensor([0.1, 0.9, 0.45, 0.3]).reshape(4, 1, 1, 1)
    steps = (0.1, -0.1, 0.3, 0.9, 0.9)
    found = attacks.worst_case(model, images, torch.zeros(4, dtype=torch.int64), [partial(attack, step) for step in steps])
    assert attacked == [[0.1, 0.45, 0.3], [0.1, 0.3], [0.1, 0.3], [0.1]]  # and no image remains for the last
    assert found.images.flatten().tolist() == pytest.approx([1.0, 0.9, 0.55, 0.6])
    assert found.margins.tolist() == pytest.approx([1.0, 0.8, 0.1, 0.2])
    assert images.flatten().tolist() == pytest.approx([0.1, 0.9, 0.45, 0.3])


def test_the_highest_margin_is_kept_without_success() -> None:
    def attack(value: float, model: Model, images: Tensor, labels: Tensor) -> AttackResult:
        return AttackResult(images + value, torch.full((len(images),), value))

    def model(images: Tensor) -> Tensor:
        return torch.tensor([[9.0, 0.0]] * len(images))

    images, labels = torch.zeros(2, 1, 1, 1), torch.zeros(2, dtype=torch.int64)
    found = attacks.worst_case(model, images, labels, [partial(attack, value) for value in (-3.0, -1.0, -2.0, -99.0)])
    assert found.margins.tolist() == [-1, -1]
    assert found.images.flatten().tolist() == [-1, -1]


def test_a_state_runs_attacks_on_subsets_and_keeps_the_highest_margins() -> None:
    """Clean margins of 4: at 3 a quarter is lost, at 2 a half."""
    counts: list[int] = []

    def by(*changes: float) -> Attack:
        def attack(model: nn.Module, images: Tensor, labels: Tensor) -> AttackResult:
            counts.append(len(images))
            return AttackResult(images + changes[0], torch.tensor([-4.0] * len(images)) + torch.tensor(changes[: len(images)]))

        return attack

    def model(images: Tensor) -> Tensor:
        return torch.tensor([[4.0, 0.0]]).expand(len(images), 2)

    start = EnsembleState.from_clean(model, torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64))
    state = start.run(by(0.0, 1.0, 2.0))
    assert state.last.tolist() == [-4, -3, -2]
    assert state.margin_lost().tolist() == [0, 0.25, 0.5]
    state = state.run(by(0.5, 0.0, 0.0))
    assert state.last.tolist() == [-3.5, -4, -4]
    assert state.margin_lost(state.last).tolist() == [0.125, 0, 0]
    state = state.run(by(9.0), state.margin_lost() >= 0.4)
    assert state.last.tolist() == [-torch.inf, -torch.inf, 5]
    assert counts == [3, 3, 1]
    assert state.remaining.tolist() == [True, True, False]
    assert state.result.margins.tolist() == [-3.5, -3, 5]
    assert state.result.images[:, 0, 0, 0].tolist() == [0.5, 0, 9]
    assert state.run(by(9.0), ~state.remaining).last.tolist() == [-torch.inf] * 3
    assert counts == [3, 3, 1]
    assert start.result.margins.tolist() == [-4] * 3 and not start.result.images.any()  # a state does not change


@pytest.mark.parametrize("scale", [1.0, 120.0])
@pytest.mark.parametrize("classes", [2, 3, 5, 12])
@pytest.mark.parametrize("threat_model", [NormBall("l2", 0.06), NormBall("linf", 0.01)], ids=str)
def test_gradient_ensemble_is_exact_on_linear_models(threat_model: NormBall, classes: int, scale: float) -> None:
    """With two and three classes, too, and with logits 120 times as large, where the gradient of the cross-entropy vanishes."""
    model, images, labels, worst = linear_problem(classes, scale, threat_model)
    robust = worst <= 0
    assert 0.05 < float(robust.float().mean()) < 0.95
    found = attacks.worst_case(model, images, labels, attacks.gradient_ensemble(threat_model, classes))
    clear = worst.abs() > 1e-3 * scale
    assert torch.equal((found.margins < 0)[clear], robust[clear])
    assert bool((found.margins <= worst + 1e-3 * scale).all())


@pytest.mark.slow
def test_robust_accuracy_falls_with_epsilon(robust: Model, few: Batch) -> None:
    counts = []
    for epsilon in (0.0, 0.25, 0.75, 2.0):
        found = attacks.worst_case(robust, *few, attacks.gradient_ensemble(NormBall("l2", epsilon), 10))
        counts.append(remaining(found))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == int((robust(few[0]).argmax(1) == few[1]).sum())
    assert counts[-1] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "small", "large"), [("l1", 1.0, 3.0), ("l0", 1, 4)])
def test_gradient_ensemble_in_l1_and_l0(norm: str, small: float, large: float, robust: Model, few: Batch) -> None:
    images, labels = few
    counts = []
    for epsilon in (small, large):
        threat_model = NormBall(norm, epsilon)
        found = attacks.worst_case(robust, images, labels, attacks.gradient_ensemble(threat_model, 10))
        assert inside(found.images, images, threat_model)
        assert torch.allclose(found.margins, margins_of(robust, found.images, labels), rtol=1e-3, atol=1e-3)
        counts.append(remaining(found))
    assert counts[0] > 40 > 20 > counts[1]
    if norm == "l1":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            foolbox = pytest.importorskip("foolbox")
            referee = foolbox.PyTorchModel(robust.eval(), bounds=(0, 1))
            attack = foolbox.attacks.EADAttack(steps=100, binary_search_steps=4, decision_rule="L1")
            theirs = (attack(referee, images, labels, epsilons=None)[0] - images).abs().flatten(1).sum(1)
        assert counts[0] <= int((theirs > small).sum())
        assert counts[1] <= int((theirs > large).sum())
