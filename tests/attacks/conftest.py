"""Batches, and functions and models that several test files use: `from attacks.conftest import ...`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import small_budgets
import torch
import torch.nn.functional as F
from conftest import trained_robust, trained_standard
from torch import Tensor, nn

from notbugs import attacks, data, models, train
from notbugs.attacks import Model
from notbugs.search import Attack, NormBall, objectives

THREAT_MODELS = [NormBall("l2", 0.75), NormBall("linf", 0.15)]
Batch = tuple[Tensor, Tensor]


@pytest.fixture(scope="module", autouse=True)
def _whole_targeted_attacks() -> Iterator[None]:
    """Here strength is tested."""
    with pytest.MonkeyPatch.context() as patch:
        small_budgets.restore(patch)
        yield


@pytest.fixture(scope="session")
def standard(digits: data.Splits) -> models.Model:
    """Standard training of a perceptron: a step of an attack takes a fifth of the time that it takes with convolutions."""
    return trained(digits, train.cross_entropy)


@pytest.fixture(scope="session")
def robust(digits: data.Splits) -> models.Model:
    """Adversarial training at L2 ε = 0.75."""
    return trained(digits, train.adversarial_loss(partial(attacks.pgd, threat_model=NormBall("l2", 0.75), steps=3)))


@pytest.fixture(scope="session")
def convolutional(digits: data.Splits, tmp_path_factory: pytest.TempPathFactory) -> models.Model:
    """The robust model of other tests, with its batch norm fused: the same logits in two thirds of the time."""
    return models.fuse_batchnorm(trained_robust(tmp_path_factory, digits), digits.test.pixels(slice(0, 2)))


@pytest.fixture(scope="session")
def convolutional_standard(digits: data.Splits, tmp_path_factory: pytest.TempPathFactory) -> models.Model:
    """Their standard model."""
    return models.fuse_batchnorm(trained_standard(tmp_path_factory, digits), digits.test.pixels(slice(0, 2)))


def trained(digits: data.Splits, loss: train.Loss) -> models.Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        model = models.Classifier(body, nn.Linear(64, 10), mean=[0.5], std=[0.25], architecture={"name": "perceptron"})
    train.fit(model, digits.train, loss, epochs=10, batch_size=64)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batch(digits: data.Splits) -> Batch:
    """100 test digits and their labels."""
    return digits.test.pixels(slice(0, 100)), digits.test.labels[:100]


@pytest.fixture(scope="module")
def few(batch: Batch) -> Batch:
    """60 of them."""
    return batch[0][:60], batch[1][:60]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def untargeted(threat_model: NormBall) -> dict[str, Attack]:
    """Every untargeted gradient attack, by name."""
    pgd = partial(attacks.pgd, threat_model=threat_model, steps=8)
    ranked = partial(attacks.rank_targeted_pgd, threat_model=threat_model, steps=8)
    return {
        "fgsm": partial(attacks.fgsm, threat_model=threat_model),
        "pgd margin": pgd,
        "pgd cross-entropy": partial(pgd, loss="cross_entropy"),
        "pgd random": partial(pgd, generator=seeded()),
        "pgd restarts": partial(pgd, restarts=3, generator=seeded()),
        "first rank": partial(ranked, rank=1),
        "last rank": partial(ranked, rank=9),
        "worst case": partial(attacks.worst_case, attacks=attacks.gradient_ensemble(threat_model, 10)),
    }


def margins_of(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Margins of the best other class, by the model itself."""
    with torch.no_grad():
        return -objectives.margin(model(images), labels)


def misclassified(result: Any) -> int:
    """How many images of an AttackResult are misclassified."""
    return int((result.margins >= 0).sum())


def remaining(result: Any) -> int:
    """How many images of an AttackResult are classified correctly."""
    return int((result.margins < 0).sum())


def inside(perturbed: Tensor, images: Tensor, threat_model: NormBall) -> bool:
    """Whether all images lie in the threat model and in [0, 1]."""
    in_range = bool(((perturbed >= 0) & (perturbed <= 1)).all())
    return in_range and bool((threat_model.distance(perturbed - images) <= threat_model.epsilon * (1 + 1e-5)).all())


def linear_problem(classes: int, scale: float, threat_model: NormBall) -> tuple[Model, Tensor, Tensor, Tensor]:
    """A linear model, gray images, its predictions as labels, and the exact margins of the best other class at epsilon."""
    generator = torch.Generator().manual_seed(classes)
    weights = scale * torch.randn(classes, 64, generator=generator)
    images = 0.5 + 0.08 * torch.randn(300, 1, 8, 8, generator=generator).clamp(-3, 3)

    def model(images: Tensor) -> Tensor:
        return (images.flatten(1) - 0.5) @ weights.T

    logits = model(images)
    labels = logits.argmax(1)
    differences = weights[None] - weights[labels][:, None]
    dual = differences.abs().sum(2) if threat_model.norm == "linf" else differences.norm(dim=2)
    others = logits - logits.gather(1, labels[:, None]) + threat_model.epsilon * dual
    return model, images, labels, others.scatter(1, labels[:, None], -torch.inf).amax(1)


def brightness_model(images: Tensor) -> Tensor:
    """Two classes: dark and bright."""
    mean = images.float().mean((1, 2, 3))
    return torch.stack([0.6 - mean, mean - 0.1], dim=1)


class LabelsOnly(nn.Module):
    """Returns the predicted class alone, one-hot, and counts the images it classifies."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model, self.queries = model, 0

    def forward(self, images: Tensor) -> Tensor:
        self.queries += len(images)
        with torch.no_grad():
            return 2 * F.one_hot(self.model(images).argmax(1), 10).float() - 1


class Layer(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)
