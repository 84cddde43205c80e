"""Attacks that users register: they run after the ensemble, and robust accuracies count what they find."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks, metrics
from notbugs.attacks.own import attack_name, own_attacks
from notbugs.audit.batch import attack_batch
from notbugs.audit.random_batch import attack_random_batch
from notbugs.data import Dataset
from notbugs.errors import InputError, NotbugsWarning
from notbugs.extensions import Attack, registry
from notbugs.extensions.registry import Extensions
from notbugs.search import NormBall, SpatialTransforms, StepState, ThreatModel

BALL = NormBall("linf", 0.1)
CLEAN = 128 / 255


class Trap(nn.Module):
    """Right within the ball, but for one image in it: pixels that alternate at its boundary. No gradient leads there."""

    def forward(self, images: Tensor) -> Tensor:
        trapped = ((images - trap(images)).abs().amax((1, 2, 3)) < 1e-4).float()
        mean = images.mean((1, 2, 3))
        right = 1 + 0.1 * (mean - CLEAN) - 3 * trapped
        return torch.stack([right, -right], dim=1)


class Hidden(Trap):
    """Without gradients."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).detach()


def trap(images: Tensor) -> Tensor:
    signs = 1 - 2 * (torch.arange(images[0].numel()) % 2).view(images[0].shape)
    return (CLEAN + 0.1 * signs).expand_as(images).to(images)


def knows_the_trap(*, model: nn.Module, images: Tensor, labels: Tensor, threat_model: ThreatModel) -> Tensor:
    return trap(images) + 0.3 * (trap(images) - CLEAN)  # outside: it is projected


def second_logit(*, logits: Tensor, labels: Tensor) -> Tensor:
    return logits[:, 1]


def to_the_trap(*, now: StepState, state: int | None, threat_model: NormBall) -> tuple[Tensor, int]:
    count = 1 if state is None else state + 1
    assert count == now.step + 1 and threat_model.epsilon == BALL.epsilon
    return trap(now.images) - now.images, count


FUNCTIONS = SimpleNamespace(
    knows=knows_the_trap, objective=second_logit, rule=to_the_trap,
    short=lambda **given: given["images"][:1], fails=lambda **given: 1 // 0,
    nan=lambda *, logits, labels: logits[:, 0] * torch.nan, infinite=lambda **given: given["images"] / 0,
    whole=lambda *, logits, labels: logits, no_state=lambda *, now, state, threat_model: now.gradient,
)  # fmt: skip


@pytest.fixture
def images() -> Dataset:
    return Dataset(
        torch.full((3, 1, 4, 4), 128, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), ["a", "b"], ["1", "2", "3"]
    )


def register(monkeypatch: pytest.MonkeyPatch, *own: Attack) -> None:
    monkeypatch.setitem(sys.modules, "mine", FUNCTIONS)  # type: ignore[arg-type]
    monkeypatch.setattr(registry, "registered", lambda: Extensions(attacks=[*own]))


@pytest.mark.parametrize(
    "own",
    [Attack("trap", attack="mine:knows"), Attack("trap", rule="mine:rule", steps=2),
     Attack("trap", objective="mine:objective", rule="mine:rule", steps=2)],
    ids=["attack", "rule", "both"],
)  # fmt: skip
def test_robust_accuracy_counts_what_a_registered_attack_finds(
    own: Attack, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = metrics.robust_accuracy(Trap(), images, [BALL], budget="quick")[1]
    assert (without.correct, without.attack) == (3, attacks.ensemble_name("quick"))
    register(monkeypatch, own)
    row = metrics.robust_accuracy(Trap(), images, [BALL], budget="quick")[1]
    assert (row.correct, row.attack) == (0, f"{attacks.ensemble_name('quick')} + trap")
    found = attack_batch(Trap(), images.pixels(slice(None)), images.labels, [BALL], "quick")
    assert found.by_own_attack.all() and found.misclassified.all() and found.predicted.eq(1).all()
    assert BALL.contains(found.images[:, 0].float() / 255, images.pixels(slice(None))).all()


class Noisy(Trap):
    """Random in evaluation mode."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 0.01 * torch.rand(len(images), 1)


def test_a_random_model_is_attacked_by_way_of_its_mean(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, half = images.pixels(slice(None)), attacks.DRAWS / 2
    assert (attack_random_batch(Noisy(), pixels, images.labels, [BALL], "quick", seed=0).correct_draws > half).all()
    register(monkeypatch, Attack("trap", attack="mine:knows"))
    assert (attack_random_batch(Noisy(), pixels, images.labels, [BALL], "quick", seed=0).correct_draws == 0).all()


def test_what_the_ensemble_misclassifies_is_its_own(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Attack("trap", attack="mine:fails"))  # is never run
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, 16))
        model[1].bias.copy_(torch.tensor([-7.5, 7.5]))
    found = attack_batch(model, images.pixels(slice(None)), images.labels, [BALL], "quick")
    assert found.misclassified.all() and not found.by_own_attack.any()


def test_an_objective_alone_is_maximized_with_the_default_rule(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Attack("second", objective="mine:objective", steps=5))
    (attack,) = own_attacks(BALL, gradient=True)
    pixels = images.pixels(slice(None))
    found = attack(Trap(), pixels, images.labels)
    assert torch.allclose(found.images, pixels - BALL.epsilon) and (found.margins < 0).all()


def test_what_cannot_run_is_left_out_and_said(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Attack("steps", rule="mine:rule"), Attack("trap", attack="mine:knows"))
    quick = attacks.ensemble_name("quick")
    assert attack_name("quick", BALL, gradient=True) == f"{quick} + steps + trap"
    assert attack_name("quick", SpatialTransforms(30, 3), gradient=True) == quick
    assert own_attacks(SpatialTransforms(30, 3), gradient=True) == []
    with pytest.warns(NotbugsWarning, match="need gradients, which the model does not have: steps"):
        row = metrics.robust_accuracy(Hidden(), images, [BALL], budget="quick")[1]
    assert (row.correct, row.attack) == (0, f"{quick} + trap")


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (Attack("x", attack="mine:short"), r"mine:short: must return a float tensor of shape \(3, 1, 4, 4\), got torch"),
        (Attack("x", attack="mine:fails"), r"mine:fails: must run on these images, got ZeroDivisionError in test_own.py, line"),
        (Attack("x", attack="mine:infinite"), "mine:infinite: must return finite numbers, got 48 other values"),
        (Attack("x", objective="mine:nan"), "mine:nan: must return no NaN, got 3 other values"),
        (Attack("x", objective="mine:whole"), r"mine:whole: must return a float tensor of shape \(3,\), got torch.float32 \(3"),
        (Attack("x", rule="mine:no_state"), "mine:no_state: must return the update of the images and a state, got Tensor"),
    ],
)  # fmt: skip
def test_functions_that_fail_are_named(own: Attack, says: str, images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, own)
    with pytest.raises(InputError, match=says):
        metrics.robust_accuracy(Trap(), images, [BALL], budget="quick")


def test_what_cannot_be_registered() -> None:
    for given, says in (
        ({}, "Attack: must have an objective, a rule, or both; or else an attack, got none"),
        ({"attack": "a:b", "rule": "a:c"}, "got rule, attack"),
        ({"rule": "a"}, r"Attack\.rule: must be module:function, got 'a'"),
        ({"rule": "a:b", "steps": 0}, r"Attack\.steps: must be 1 or more, got 0"),
    ):
        with pytest.raises(InputError, match=says):
            Attack("mine", **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"Attack\.name: must be lower-case"):
        Attack("Mine", rule="a:b")
