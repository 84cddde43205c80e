"""Models that are random on purpose: expected gradients, and accuracies that are means over draws."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks
from notbugs.attacks import sanity_checks
from notbugs.attacks.randomness import mean_over_draws, seeded
from notbugs.search import NormBall

LABELS = torch.tensor([0, 0, 1, 1])


class Noisy(nn.Module):
    """Two classes by the mean of 16 pixels; the logits get noise of this size."""

    def __init__(self, noise: float, gain: float = 20.0) -> None:
        super().__init__()
        self.noise, self.gain = noise, gain

    def forward(self, images: Tensor) -> Tensor:
        score = self.gain * (images.mean((1, 2, 3)) - 0.5)
        score = score + self.noise * torch.randn(len(images), device=images.device)
        return torch.stack([-score, score], dim=1)


class NoisyPixels(Noisy):
    """The same, with noise that the gradient depends on: each draw looks at a few pixels alone."""

    def forward(self, images: Tensor) -> Tensor:
        mask = (torch.rand_like(images) < self.noise).float()
        return torch.stack([-(score := self.gain * ((images - 0.5) * mask).mean((1, 2, 3))), score], dim=1)


@pytest.fixture
def images() -> Tensor:
    """Two dark and two bright ones; of each one near the boundary."""
    return torch.tensor([0.3, 0.48, 0.52, 0.7]).reshape(4, 1, 1, 1).expand(4, 1, 4, 4).contiguous()


def test_a_random_model_is_noticed(images: Tensor) -> None:
    assert attacks.is_random(Noisy(0.5), images) and not attacks.is_random(Noisy(0.0), images)
    assert not attacks.is_random(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 2)).train(), images)  # evaluation mode


def test_one_draw_for_a_whole_batch_is_noticed(images: Tensor) -> None:
    """As of a random resize: two forward passes are often the same."""
    found = []
    with seeded(0, images.device):
        for share in (0.2, 0.3):

            def model(pixels: Tensor, share: float = share) -> Tensor:
                return Noisy(float(torch.rand(()) < share))(pixels)

            found += [attacks.is_random(model, images) for _ in range(30)]
    assert sum(found) >= 57  # of 20 passes all are without noise in 1.2 % and 0.1 % of the calls


def test_the_mean_of_draws_has_the_mean_logits_and_seeds_repeat(images: Tensor) -> None:
    model = attacks.MeanOfDraws(Noisy(1.0), draws=400)
    assert torch.allclose(model(images), Noisy(0.0)(images), atol=0.3)
    before = torch.random.get_rng_state()
    fixed = attacks.MeanOfDraws(Noisy(1.0), draws=3, seed=1)
    assert torch.equal(fixed(images), fixed(images)) and torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(model(images), model(images))


def test_the_expected_loss_is_maximized_and_the_share_of_draws_decides(images: Tensor) -> None:
    objective = mean_over_draws(Noisy(1.0), LABELS, "cross_entropy")
    with seeded(0, images.device):
        outputs = objective.forward(images)
    assert outputs.shape == (4, attacks.DRAWS, 2)
    losses = torch.stack(
        [nn.functional.cross_entropy(outputs[:, draw], LABELS, reduction="none") for draw in range(attacks.DRAWS)]
    )
    assert torch.allclose(objective.objective(outputs), losses.mean(0))
    shares = (outputs.argmax(2) != LABELS[:, None]).float().mean(1)
    assert bool(((objective.criterion(outputs) - shares) <= 0.5 / attacks.DRAWS).all())
    assert bool((objective.criterion(outputs) >= shares).all())


def test_eot_brings_an_image_as_far_as_epsilon_allows(images: Tensor) -> None:
    """The ensemble alone stops where the mean of the draws is misclassified, when half of the draws are still right."""
    threat_model, model = NormBall("linf", 0.1), Noisy(1.0)
    with seeded(0, images.device):
        found = attacks.eot_attack(model, images, LABELS, threat_model=threat_model, budget="quick")
    direction = torch.tensor([1.0, 1.0, -1.0, -1.0]).reshape(4, 1, 1, 1)
    assert torch.allclose(found[1:3], (images + 0.1 * direction)[1:3], atol=0.01)
    assert float((found - images).abs().max()) <= 0.1 + 1e-6
    correct, predicted = attacks.correct_draws(model, found, LABELS, seed=7)
    assert int(correct[1:3].sum()) <= 4  # of 40 draws
    assert torch.equal(predicted[1:3], 1 - LABELS[1:3])
    again, _ = attacks.correct_draws(model, found, LABELS, seed=7)
    assert torch.equal(correct, again)


@pytest.mark.slow
def test_without_gradients_or_in_other_threat_models_the_ensemble_alone_decides(images: Tensor) -> None:
    def black_box(images: Tensor) -> Tensor:
        return Noisy(1.0)(images).detach()

    with seeded(0, images.device):
        found = attacks.eot_attack(black_box, images, LABELS, threat_model=NormBall("linf", 0.1), budget="quick", starts=images)
        pixels = attacks.eot_attack(Noisy(1.0), images, LABELS, threat_model=NormBall("l0", 1), budget="quick")
    assert float((found - images).abs().max()) > 0.05
    assert bool(((pixels != images).flatten(1).sum(1) <= 1).all())


@pytest.mark.parametrize(
    ("model", "passed"), [(Noisy(0.0), True), (Noisy(1.0), True), (NoisyPixels(0.9), True), (NoisyPixels(0.01), False)]
)
def test_randomness_that_20_draws_do_not_average_out_fails_its_check(model: nn.Module, passed: bool, images: Tensor) -> None:
    with seeded(0, images.device):
        check = sanity_checks.randomness_averaged(model, images, LABELS)
    assert check.name == "randomness averaged" and check.passed is passed
    assert ("not random" in check.observed) == (model.noise == 0)


def test_randomness_without_gradients_is_not_checked(images: Tensor) -> None:
    assert sanity_checks.randomness_averaged(lambda images: Noisy(1.0)(images).detach(), images, LABELS).passed is None


def overflow(images: Tensor, past: float) -> Tensor:
    """Logits that become NaN where an image is brighter than this."""
    logits = Noisy(0.0)(images)
    return torch.where((images.mean((1, 2, 3)) > past)[:, None], torch.nan, logits)


def test_logits_that_are_nan_under_attack_fail_their_check(images: Tensor) -> None:
    threat_model = NormBall("linf", 0.1)
    for past, count in ((0.55, 1), (2.0, 0)):
        model = partial(overflow, past=past)
        found = attacks.adaptive_ensemble(model, images[:3], LABELS[:3], threat_model=threat_model, budget="quick")
        check = sanity_checks.finite_logits(model, found.images)
        assert check.passed is (count == 0)
        assert f"the logits of {count} of 3 images are NaN or infinite" in check.observed
