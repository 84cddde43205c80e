"""Every sanity check passes on sound models, and fails on one that was built to fail it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attacks.conftest import Batch
from torch import Tensor, nn

from notbugs import attacks, data, models
from notbugs.attacks import sanity_checks
from notbugs.attacks.sanity_checks import Check
from notbugs.errors import InputError
from notbugs.runs.tables.audit import CHECKS, OVERESTIMATED
from notbugs.search import NormBall

DOCS = Path(__file__).parent.parent.parent / "docs"
THREAT_MODELS = [NormBall("l2", 0.5), NormBall("linf", 0.1)]
NAMES = {
    "deterministic",
    "randomness averaged",
    "finite logits",
    "batch independence",
    "class order",
    "above chance",
    "logits",
    "pixel range",
    "input clipping",
    "input quantization",
    "gradients",
    "more steps",
    "larger epsilon",
    "unbounded perturbation",
    "square attack",
    "transfer",
}


@pytest.fixture(scope="module")
def sample(digits: data.Splits) -> Batch:
    return digits.test.pixels(slice(0, 60)), digits.test.labels[:60]


class Flawed(nn.Module):
    """A sound model behind a function that is not."""

    def __init__(self, model: nn.Module, flaw: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.flaw = model, flaw

    def forward(self, images: Tensor) -> Tensor:
        return self.flaw(self.model, images)


class ScaledGradient(torch.autograd.Function):
    """The identity with a scaled gradient: by -1 it points downhill, by NaN or 1e30 nowhere."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def failed(checks: list[Check]) -> set[str]:
    """Names of the failed checks, once all checks are complete and in order."""
    order = [{False: 0, None: 1, True: 2}[check.passed] for check in checks]
    assert order == sorted(order)
    assert {check.name for check in checks} == NAMES
    assert all(check.observed and check.rationale and check.fix for check in checks)
    return {check.name for check in checks if check.passed is False}


@pytest.mark.slow
@pytest.mark.parametrize("threat_model", THREAT_MODELS, ids=str)
@pytest.mark.parametrize("which", ["standard", "robust"])
def test_sound_models_pass_every_check(which: str, threat_model: NormBall, request: pytest.FixtureRequest, sample: Batch) -> None:
    model = request.getfixturevalue(which)
    other = request.getfixturevalue("robust" if which == "standard" else "standard")
    checks = sanity_checks.run_all(model.eval(), *sample, threat_model=threat_model, others=[other])
    assert failed(checks) == set()
    assert all(check.passed for check in checks)
    alone = sanity_checks.run_all(model, sample[0][:10], sample[1][:10], threat_model=threat_model)
    assert {check.name: check.passed for check in alone}["transfer"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flaw", "fails"),
    [
        (lambda model, images: model(images) + 0.5 * torch.rand(len(images), 10), "deterministic"),
        (lambda model, images: model((images + 0.3 * torch.rand_like(images)).clamp(0, 1)), "deterministic"),
        (lambda model, images: model(images).softmax(1), "logits"),
        (lambda model, images: model(images).sigmoid(), "logits"),
        (lambda model, images: model((images * 15).round() / 15), "input quantization, gradients, unbounded perturbation"),
        (lambda model, images: model(images)[:, [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]], "class order"),
        (lambda model, images: -model(images), "above chance"),
        (lambda model, images: model(images.clamp(0.1, 0.9)), "input clipping"),
        (lambda model, images: model(nn.functional.hardtanh(images, 0, 1)), "input clipping"),
        (lambda model, images: model(images / 255), "pixel range"),
        (lambda model, images: model(images * 255), "pixel range"),
        (lambda model, images: model((images + 1) / 2), "pixel range"),
        (lambda model, images: model(images.detach()), "gradients"),
        (lambda model, images: model(ScaledGradient.apply(images, -1.0)), "gradients, unbounded perturbation"),
        (lambda model, images: model(ScaledGradient.apply(images, torch.nan)), "gradients"),
        (lambda model, images: model(ScaledGradient.apply(images, 1e30)), "gradients"),
        (lambda model, images: 3 * torch.tanh(1000 * model(images)), "gradients"),
        # steep waves on every pixel: the gradient says nothing about larger perturbations
        (lambda model, images: model(images + 0.004 * torch.sin(images * 2000)), "gradients"),
        (lambda model, images: model(images + 0.004 * torch.sin(images * 500)), "gradients"),
    ],
)
def test_each_check_fails_on_a_model_built_to_fail_it(
    flaw: Callable[[nn.Module, Tensor], Tensor], fails: str, standard: models.Model, sample: Batch
) -> None:
    checks = sanity_checks.run_all(Flawed(standard, flaw).eval(), *sample, threat_model=THREAT_MODELS[0], budget="quick")
    assert {*fails.split(", ")} <= failed(checks), [check for check in checks if check.name in fails]


@pytest.mark.slow
def test_training_mode_fails_and_is_left_as_it_was(sample: Batch) -> None:
    """Dropout is random, batch normalization depends on the batch. Both run in the mode given, and no buffer changes."""

    def failures(model: nn.Module) -> set[str]:
        return failed(sanity_checks.run_all(model, *sample, threat_model=THREAT_MODELS[0], budget="quick"))

    dropout = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()
    assert "deterministic" in failures(dropout)
    assert not failures(dropout.eval()) & {"deterministic", "batch independence"}
    batchnorm = models.build("small", shape=(1, 8, 8), classes=10, width=4).train()
    before = {name: value.clone() for name, value in batchnorm.state_dict().items()}
    assert "batch independence" in failures(batchnorm)
    assert all(torch.equal(value, before[name]) for name, value in batchnorm.state_dict().items())
    assert all(module.training for module in batchnorm.modules())


@pytest.mark.slow
def test_black_box_attacks_that_beat_the_ensemble_fail(robust: models.Model, standard: models.Model, sample: Batch) -> None:
    """Gradients that point downhill: Square Attack and transferred examples are stronger than PGD."""
    images, labels, threat_model = *sample, NormBall("linf", 0.2)
    flawed = Flawed(standard, lambda model, images: model(ScaledGradient.apply(images, -1.0))).eval()
    weak = attacks.pgd(flawed, images, labels, threat_model=threat_model).margins
    assert sanity_checks.square_attack(flawed, images, labels, weak, threat_model=threat_model).passed is False
    assert sanity_checks.transfer(flawed, images, labels, weak, [standard], threat_model=threat_model).passed is False
    margins = attacks.adaptive_ensemble(standard, images, labels, threat_model=threat_model).margins
    assert sanity_checks.square_attack(standard, images, labels, margins, threat_model=threat_model).passed
    assert sanity_checks.transfer(standard, images, labels, margins, [robust], threat_model=threat_model).passed


def test_accuracy_that_rises_with_steps_or_epsilon_fails(sample: Batch) -> None:
    images, labels = sample[0], torch.zeros(60, dtype=torch.int64)
    clean = images.clone()

    class CorrectFarAway(nn.Module):
        """Wrong for small perturbations; for large ones correct, with a steep gradient that leads there."""

        def forward(self, images: Tensor) -> Tensor:
            distance = (images - clean[: len(images)]).flatten(1).norm(dim=1)
            wrong = torch.where(distance < 0.5, distance - 0.2, 0.3 - (distance - 0.5) * 9)
            slope = 60 * torch.relu(distance - 0.5)
            logit = wrong + slope - slope.detach()
            return torch.stack([torch.zeros_like(distance), logit + 1e-4 * images.flatten(1).sum(1)], dim=1)

    class CorrectLater(nn.Module):
        """Wrong for the first eleven forward passes, correct from then on."""

        def __init__(self) -> None:
            super().__init__()
            self.passes = 0

        def forward(self, images: Tensor) -> Tensor:
            self.passes += 1
            tilt = images.flatten(1).mean(1) * 0.01
            return torch.stack([tilt * 0 + (1.0 if self.passes > 11 else -1.0), tilt], dim=1)

    threat_model = NormBall("l2", 0.45)
    assert sanity_checks.larger_epsilon(CorrectFarAway(), images, labels, threat_model=threat_model).passed is False
    assert sanity_checks.more_steps(CorrectLater(), images, labels, threat_model=threat_model).passed is False


@pytest.mark.parametrize("threat_model", [NormBall("l1", 1.0), NormBall("l0", 1), NormBall("l2", 0.0)], ids=str)
def test_other_threat_models_are_rejected(threat_model: NormBall, standard: models.Model, sample: Batch) -> None:
    with pytest.raises(InputError, match=r"^threat_model: must be linf or l2 with epsilon above 0"):
        sanity_checks.run_all(standard, *sample, threat_model=threat_model)


@pytest.mark.parametrize(
    ("correct", "n", "classes", "passed", "says"),
    [
        (20, 100, 10, True, "above chance, 10.0%"),
        (1, 100, 10, False, ": below chance, 10.0%"),
        (9, 100, 10, False, "not measurably above chance"),
        (1, 10, 10, None, "not measurably above chance"),  # too few images
        (20, 100, 2, False, ": below chance, 50.0%"),
        (55, 100, 2, False, "not measurably above chance"),
        (4, 5, 2, None, "not measurably above chance"),
        (1, 500, 1000, False, "not measurably above chance, 0.1%"),
    ],
)
def test_accuracy_no_better_than_chance_fails(correct: int, n: int, classes: int, passed: bool | None, says: str) -> None:
    labels = torch.arange(n) % classes
    predicted = torch.where(torch.arange(n) < correct, labels, (labels + 1) % classes)
    check = sanity_checks.above_chance(predicted, labels, [*map(str, range(classes))])
    assert check.passed is passed and says in check.observed and check.n == n and "not to be trusted" in check.consequence


def test_the_class_order_passes_fails_or_cannot_be_told() -> None:
    labels, names = torch.arange(60) % 3, ["cat", "dog", "fox"]
    assert sanity_checks.class_order(labels, labels, names).passed is True
    failed_check = sanity_checks.class_order(2 - labels, labels, names)
    assert (
        failed_check.passed is False
        and "100.0%, 95 % CI [94.0%, 100.0%], if the model's outputs are read in another order: they are in rev"
        in failed_check.observed
    )
    assert sanity_checks.class_order(labels * 0, labels * 0, names).passed is None
    many = torch.arange(3000) % 300
    long = sanity_checks.class_order(299 - many, many, [f"kind of animal number {number}" for number in range(300)])
    assert "--class-map FILE, with the file class_map.json" in long.fix and len(long.fix) < 200


def test_the_documents_list_every_check_with_the_exit_code_that_follows() -> None:
    """A check that puts the clean accuracy in doubt exits with 3, whatever is required."""
    rows = [line.split("|")[1:-1] for line in (DOCS / "sanity-checks.md").read_text().splitlines() if line.startswith("| `")]
    documented = {cells[0].strip(" `"): cells[-1].strip() for cells in rows}
    images, labels = torch.rand(8, 1, 4, 4), torch.arange(8) % 2
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    checks = sanity_checks.run_all(model, images, labels, threat_model=None)
    assert documented.keys() == {*CHECKS}
    assert documented == {check.name: "3 or 1" if check.consequence == OVERESTIMATED else "3" for check in checks}


def test_where_outputs_are_probabilities_that_is_named_first(standard: models.Model, sample: Batch) -> None:
    """A softmax that is saturated makes other checks fail, whose own remedies name causes that this model does not have."""
    saturated = Flawed(standard, lambda model, images: (200 * model(images)).softmax(1)).eval()
    checks = {check.name: check for check in sanity_checks.run_all(saturated, *sample, threat_model=None)}
    assert checks["logits"].passed is False and not checks["logits"].fix.startswith("First")
    assert checks["gradients"].passed is False
    assert checks["gradients"].fix.startswith("First return logits, as the check `logits` says")
    sound = {check.name: check for check in sanity_checks.run_all(standard.eval(), *sample, threat_model=None)}
    assert not any(check.fix.startswith("First return logits") for check in sound.values())
