"""Every check passes on models that are what they seem, and each fails on one that was built to fail it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks, data, models
from notbugs.attacks import sanity_checks
from notbugs.attacks.sanity_checks import Check
from notbugs.errors import InputError
from notbugs.search import NormBall

BALLS = [NormBall("l2", 0.5), NormBall("linf", 0.1)]


@pytest.fixture(scope="module")
def sample(digits: data.Splits) -> tuple[Tensor, Tensor]:
    return digits.test.pixels(slice(0, 100)), digits.test.labels[:100]


class Bent(nn.Module):
    """A sound model behind something that is not."""

    def __init__(self, model: nn.Module, bend: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.bend = model, bend

    def forward(self, images: Tensor) -> Tensor:
        return self.bend(self.model, images)


class Backwards(torch.autograd.Function):
    """The identity, with gradients that are scaled: by -1 they lead downhill, by nan or 1e30 nowhere."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def jagged(model: nn.Module, images: Tensor) -> Tensor:
    """Steep little waves on every pixel: gradients are there, and say nothing of what a larger change does."""
    return model(images + 0.004 * torch.sin(images * 2000))  # type: ignore[no-any-return]


def failed(found: list[Check]) -> set[str]:
    places = [{False: 0, None: 1, True: 2}[check.passed] for check in found]
    assert places == sorted(places)
    assert all(check.seen and check.why and check.remedy for check in found)
    return {check.name for check in found if check.passed is False}


@pytest.mark.parametrize("threat_model", BALLS, ids=str)
@pytest.mark.parametrize("which", ["standard", "robust"])
def test_sound_models_pass_everything(
    which: str, threat_model: NormBall, request: pytest.FixtureRequest, sample: tuple[Tensor, Tensor]
) -> None:
    model = request.getfixturevalue(which)
    other = request.getfixturevalue("robust" if which == "standard" else "standard")
    found = sanity_checks.run_all(model.eval(), *sample, threat_model=threat_model, others=[other])
    assert failed(found) == set()
    assert all(check.passed for check in found)
    assert {check.name: check.passed for check in sanity_checks.run_all(model, *sample, threat_model=threat_model)}[
        "transfer"
    ] is None


@pytest.mark.parametrize(
    ("bend", "fails"),
    [
        (lambda model, images: model(images) + 0.5 * torch.rand(len(images), 10), "repeatable"),
        (lambda model, images: model((images + 0.3 * torch.rand_like(images)).clamp(0, 1)), "repeatable"),
        (lambda model, images: model(images).softmax(1), "logits"),
        (lambda model, images: model((images * 15).round() / 15), "quantises its input"),
        (lambda model, images: model((images * 15).round() / 15), "gradients"),
        (lambda model, images: model((images * 15).round() / 15), "whole range"),
        (lambda model, images: model(images.clamp(0.1, 0.9)), "clips its input"),
        (lambda model, images: model(nn.functional.hardtanh(images, 0, 1)), "clips its input"),
        (lambda model, images: model(images / 255), "pixel range"),
        (lambda model, images: model((images + 1) / 2), "pixel range"),
        (lambda model, images: model(images.detach()), "gradients"),
        (lambda model, images: model(Backwards.apply(images, -1.0)), "gradients"),
        (lambda model, images: model(Backwards.apply(images, torch.nan)), "gradients"),
        (lambda model, images: model(Backwards.apply(images, 1e30)), "gradients"),
        (lambda model, images: model(Backwards.apply(images, -1.0)), "whole range"),
        (lambda model, images: 3 * torch.tanh(1000 * model(images)), "gradients"),
        (jagged, "gradients"),
        (lambda model, images: model(images + 0.004 * torch.sin(images * 500)), "gradients"),
    ],
)
def test_each_check_fails_on_a_model_built_to_fail_it(
    bend: Callable[[nn.Module, Tensor], Tensor], fails: str, standard: models.Model, sample: tuple[Tensor, Tensor]
) -> None:
    found = sanity_checks.run_all(Bent(standard, bend).eval(), *sample, threat_model=BALLS[0], budget="quick")
    assert fails in failed(found), [check for check in found if check.name == fails]


def test_training_mode_is_seen_and_left_as_it_was(sample: tuple[Tensor, Tensor]) -> None:
    """Dropout answers at random, batch norm by its company; both are tried in the mode given, and nothing is left changed."""
    dropping = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()
    assert "repeatable" in failed(sanity_checks.run_all(dropping, *sample, threat_model=BALLS[0], budget="quick"))
    assert not failed(sanity_checks.run_all(dropping.eval(), *sample, threat_model=BALLS[0], budget="quick")) & {
        "repeatable",
        "alone",
    }
    norming = models.build("small", shape=(1, 8, 8), classes=10, width=4).train()
    before = {name: value.clone() for name, value in norming.state_dict().items()}
    found = sanity_checks.run_all(norming, *sample, threat_model=BALLS[0], budget="quick")
    assert "alone" in failed(found)
    assert all(torch.equal(value, before[name]) for name, value in norming.state_dict().items())
    assert all(module.training for module in norming.modules())


def test_a_black_box_that_beats_the_verdict_is_seen(
    robust: models.Model, standard: models.Model, sample: tuple[Tensor, Tensor]
) -> None:
    """Gradients that lead nowhere: squares, and images made for another model, fool what the verdict left."""
    images, labels = sample
    bent = Bent(standard, lambda model, images: model(Backwards.apply(images, -1.0))).eval()
    white = attacks.pgd(bent, images, labels, threat_model=NormBall("linf", 0.2)).margins
    assert attacks.square_attack(bent, images, labels, white, threat_model=NormBall("linf", 0.2)).passed is False
    assert sanity_checks.transfer(bent, images, labels, white, [standard], threat_model=NormBall("linf", 0.2)).passed is False
    honest = attacks.adaptive_ensemble(standard, images, labels, threat_model=NormBall("linf", 0.2)).margins
    assert attacks.square_attack(standard, images, labels, honest, threat_model=NormBall("linf", 0.2)).passed
    assert sanity_checks.transfer(standard, images, labels, honest, [robust], threat_model=NormBall("linf", 0.2)).passed


def test_accuracy_that_rises_with_steps_or_radius_is_seen(sample: tuple[Tensor, Tensor]) -> None:
    """Attacked far, this model answers as if nothing had happened: larger radii and more steps end there."""
    images, labels = sample[0], torch.zeros(100, dtype=torch.int64)
    before = images.clone()

    class Snapping(nn.Module):
        """Wrong for small changes; for large ones right, and steeper."""

        def forward(self, seen: Tensor) -> Tensor:
            far = (seen - before[: len(seen)]).flatten(1).norm(dim=1)
            wrong = torch.where(far < 0.5, far - 0.2, 0.3 - (far - 0.5) * 9)
            climbed = wrong + 60 * torch.relu(far - 0.5) - 60 * torch.relu(far - 0.5).detach()
            return torch.stack([torch.zeros_like(far), climbed + 1e-4 * seen.flatten(1).sum(1)], dim=1)

    class Counting(nn.Module):
        """Changes its mind about being fooled the more it is asked."""

        def __init__(self) -> None:
            super().__init__()
            self.asked = 0

        def forward(self, seen: Tensor) -> Tensor:
            self.asked += 1
            tilt = seen.flatten(1).mean(1) * 0.01
            return torch.stack([tilt * 0 + (1.0 if self.asked > 11 else -1.0), tilt], dim=1)

    threat_model = NormBall("l2", 0.45)
    assert sanity_checks.larger_epsilon(Snapping(), images, labels, threat_model=threat_model).passed is False
    assert sanity_checks.more_steps(Counting(), images, labels, threat_model=threat_model).passed is False


@pytest.mark.parametrize("threat_model", [NormBall("l1", 1.0), NormBall("l0", 1), NormBall("l2", 0.0)], ids=str)
def test_checks_want_a_ball_they_know(threat_model: NormBall, standard: models.Model, sample: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=r"^threat_model: must be an L-inf or L2 ball with a radius above 0"):
        sanity_checks.run_all(standard, *sample, threat_model=threat_model)
