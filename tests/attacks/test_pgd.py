"""FGSM, PGD and APGD: what they return, and their strength beside torchattacks."""

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from attacks.conftest import (
    THREAT_MODELS,
    Batch,
    brightness_model,
    inside,
    linear_problem,
    margins_of,
    misclassified,
    remaining,
    seeded,
    untargeted,
)
from torch import Tensor

from notbugs import attacks, search
from notbugs.errors import InputError
from notbugs.models import Model
from notbugs.search import NormBall, objectives


@pytest.mark.parametrize("threat_model", THREAT_MODELS, ids=str)
@pytest.mark.parametrize("name", list(untargeted(THREAT_MODELS[0])))
def test_images_are_within_epsilon_and_margins_are_those_of_the_model(
    name: str, threat_model: NormBall, standard: Model, few: Batch
) -> None:
    images, labels = few
    found, clean = untargeted(threat_model)[name](standard, images, labels), margins_of(standard, images, labels)
    assert inside(found.images, images, threat_model)
    assert torch.allclose(found.margins, margins_of(standard, found.images, labels), rtol=1e-3, atol=1e-3)
    assert bool((found.margins >= clean - 1e-3).all())  # the start is kept where nothing is better
    assert misclassified(found) > int((clean > 0).sum())


@pytest.mark.parametrize("threat_model", THREAT_MODELS, ids=str)
def test_the_pgd_of_training_is_within_epsilon_and_as_strong_as_pgd(threat_model: NormBall, standard: Model, few: Batch) -> None:
    """Its loss is no less on average: it is what both follow, and the margin decides which iterate `pgd` keeps."""
    images, labels = few
    last = attacks.training_pgd(standard, images, labels, threat_model=threat_model, steps=10)
    best = attacks.pgd(standard, images, labels, threat_model=threat_model, steps=10, loss="cross_entropy").images
    assert inside(last, images, threat_model)
    losses = [F.cross_entropy(standard(each), labels).item() for each in (last, best)]
    assert losses[0] > 0.95 * losses[1]


def hidden(images: Tensor) -> Tensor:
    """Logits of two pixels: from (0.5, 0.5) the gradient leads along the first, in vain; beyond 0.65 it leads to the second."""
    first, second = (images.flatten(1) - 0.5).unbind(1)
    margins = 0.1 * (50 * first).tanh() - 0.02 * second + 3 * F.relu(second - 0.06) + 40 * second * F.relu(first - 0.15) - 0.11
    return torch.stack([-margins, margins], dim=1) / 2


@pytest.mark.parametrize("name", ["pgd", "apgd", "rank_targeted_pgd"])
def test_a_search_that_shrinks_finds_a_maximum_that_the_gradient_hides(name: str) -> None:
    images, labels, threat_model = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]), NormBall("l2", 0.12)
    attack = partial(getattr(attacks, name), hidden, images, labels, threat_model=threat_model, steps=40)
    attack = partial(attack, **({} if name == "rank_targeted_pgd" else {"loss": "margin"}))
    plain, shrunk = attack(), attack(shrink=True)
    assert misclassified(plain) == 0 and misclassified(shrunk) == 1
    assert inside(shrunk.images, images, threat_model)
    assert torch.equal(shrunk.margins, margins_of(hidden, shrunk.images, labels))


class Unnamed:
    """A threat model of a user: no method `enlarged`."""

    def __init__(self, ball: NormBall) -> None:
        self.ball, self.epsilon = ball, ball.epsilon
        self.distance, self.project, self.sample = ball.distance, ball.project, ball.sample
        self.steepest_step = ball.steepest_step


def test_without_enlarged_and_for_few_steps_a_search_stays_within_epsilon(standard: Model, few: Batch) -> None:
    ball = THREAT_MODELS[0]
    for threat_model, steps in ((Unnamed(ball), 20), (ball, 3)):
        plain, shrunk = (
            attacks.pgd(standard, *few, threat_model=threat_model, steps=steps, shrink=shrink) for shrink in (False, True)
        )
        assert torch.equal(plain.images, shrunk.images)


def test_refine_loses_nothing_and_takes_the_last_of_the_margin(robust: Model, few: Batch) -> None:
    images, labels = few
    for threat_model in (*THREAT_MODELS, NormBall("l1", 2.0)):
        start = attacks.pgd(robust, images, labels, threat_model=threat_model, steps=5)
        found = attacks.refine(robust, images, labels, threat_model=threat_model, start=start.images, steps=30)
        assert inside(found.images, images, threat_model)
        assert bool((found.margins >= start.margins - 1e-4).all())
        assert float((found.margins - start.margins).mean()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("threat_model", THREAT_MODELS, ids=str)
def test_targeted_and_kl_attacks_return_what_they_maximize(threat_model: NormBall, robust: Model, few: Batch) -> None:
    images, labels = few
    targets = (labels + 1) % 10
    for loss in ("margin", "cross_entropy"):
        found = attacks.targeted_pgd(robust, images, targets, threat_model=threat_model, loss=loss)
        assert inside(found.images, images, threat_model)
        assert torch.allclose(found.margins, -margins_of(robust, found.images, targets), rtol=1e-3, atol=1e-3)
        assert int((found.margins >= 0).sum()) > 3 * int((robust(images).argmax(1) == targets).sum())
    diverged = attacks.kl_pgd(robust, images, labels, threat_model=threat_model)
    assert inside(diverged.images, images, threat_model)
    divergence = F.kl_div(robust(diverged.images).log_softmax(1), robust(images).softmax(1), reduction="none").sum(1)
    assert torch.allclose(diverged.margins, divergence, rtol=1e-2, atol=1e-3)
    assert float(divergence.mean()) > 0.1
    other_labels = attacks.kl_pgd(robust, images, labels.flip(0), threat_model=threat_model)
    assert torch.equal(diverged.images, other_labels.images)


@pytest.mark.parametrize("threat_model", THREAT_MODELS, ids=str)
def test_kl_pgd_starts_where_the_gradient_is_not_zero(threat_model: NormBall) -> None:
    """At the clean prediction, here one half each, the gradient of the divergence is exactly 0."""
    images = torch.full((3, 1, 8, 8), 0.5)
    weights = torch.randn(64, 2, generator=seeded())

    def model(images: Tensor) -> Tensor:
        return (images.flatten(1) - 0.5) @ weights

    found = attacks.kl_pgd(model, images, torch.zeros(3, dtype=torch.int64), threat_model=threat_model)
    assert bool((found.margins > 0.5).all())


@pytest.mark.slow
@pytest.mark.parametrize("threat_model", THREAT_MODELS, ids=str)
def test_stronger_attacks_misclassify_more(threat_model: NormBall, robust: Model, few: Batch) -> None:
    images, labels = few
    success = {name: attack(robust, images, labels).margins > 0 for name, attack in untargeted(threat_model).items()}
    count = {name: int(column.sum()) for name, column in success.items()}
    assert count["fgsm"] <= count["pgd margin"] <= count["worst case"]
    assert count["pgd random"] <= count["pgd restarts"]
    for attack in attacks.gradient_ensemble(threat_model, 10):  # no single attack finds what all of them together miss
        single = attack(robust, images, labels).margins > 1e-3
        assert int((single & ~success["worst case"]).sum()) == 0


@pytest.mark.slow
def test_the_same_generator_gives_the_same_images(standard: Model, few: Batch) -> None:
    for name in ("pgd random", "pgd restarts", "worst case"):
        one, two = (untargeted(THREAT_MODELS[0])[name](standard, *few) for _ in range(2))
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.margins, two.margins)


def test_cross_entropy_alone_stalls_on_large_logits() -> None:
    """Why the margin is maximized: of a linear model with large logits the cross-entropy leaves images that it need not leave."""
    threat_model = NormBall("l2", 0.1)
    model, images, labels, worst = linear_problem(2, 1000.0, threat_model)
    exact = int((worst <= 0).sum())
    attack = partial(attacks.pgd, model, images, labels, threat_model=threat_model)
    assert remaining(attack()) == exact
    assert remaining(attack(loss="cross_entropy")) > exact + 10


def test_one_epsilon_per_image_is_for_single_attacks(few: Batch, standard: Model) -> None:
    each = NormBall("l2", torch.linspace(0, 1, 60))
    found = attacks.pgd(standard, *few, threat_model=each)
    assert bool((each.distance(found.images - few[0]) <= each.epsilon + 1e-5).all())
    for attack in (
        partial(attacks.adaptive_ensemble, threat_model=each),
        partial(attacks.square_attack, threat_model=each),
        partial(attacks.pgd, threat_model=each, restarts=2, generator=seeded()),
    ):
        with pytest.raises(InputError, match=r"^epsilon: must be one number for all images"):
            attack(standard, *few)


@pytest.mark.slow
@pytest.mark.parametrize("threat_model", THREAT_MODELS, ids=str)
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
def test_apgd_is_as_strong_as_that_of_torchattacks(loss: str, threat_model: NormBall, robust: Model, batch: Batch) -> None:
    """Over four random starts each: of one alone the images left differ by up to 4 between starts, for either of the two."""
    images, labels = batch
    theirs = ours = 0
    for seed in range(4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
            norm, name = threat_model.norm.capitalize(), "ce" if loss == "cross_entropy" else "dlr"
            referee = torchattacks.APGD(robust.eval(), norm=norm, eps=threat_model.epsilon, steps=50, loss=name, seed=seed)
            theirs += int((margins_of(robust, referee(images, labels), labels) < 0).sum())
        generator = torch.Generator().manual_seed(seed)
        found = attacks.apgd(robust, images, labels, threat_model=threat_model, steps=50, loss=loss, generator=generator)
        assert inside(found.images, images, threat_model)
        assert torch.allclose(found.margins, margins_of(robust, found.images, labels), rtol=1e-3, atol=1e-3)
        ours += remaining(found)
    assert ours <= theirs + 8


@pytest.mark.slow
def test_apgd_halves_steps_that_gain_nothing() -> None:
    """Fixed steps of 2 epsilon jump across this hidden for ever; halved, they end at its top."""
    images, labels = torch.full((4, 1, 1, 2), 0.5), torch.zeros(4, dtype=torch.int64)
    tops = torch.tensor([0.32, 0.41, 0.6, 0.69])

    def model(images: Tensor) -> Tensor:
        logit = -(images[:, 0, 0, 0] - tops).abs() - 1
        return torch.stack([torch.zeros_like(logit), logit], dim=1)

    threat_model = NormBall("linf", 0.2)
    found = attacks.apgd(model, images, labels, threat_model=threat_model, steps=100, loss="margin")
    assert found.images[:, 0, 0, 0].tolist() == pytest.approx(tops.tolist(), abs=2e-3)
    rule = search.cosine_steps(threat_model, 0.4)
    fixed = search.maximize(objectives.untargeted(model, labels), images, threat_model, steps=100, rule=rule)
    assert float((fixed.images[:, 0, 0, 0] - tops).abs().max()) > 0.05


def test_options_that_make_no_sense_are_rejected(standard: Model, batch: Batch) -> None:
    with pytest.raises(InputError, match=r"^restarts: needs a generator: .*, got 2$"):
        attacks.pgd(standard, *batch, threat_model=THREAT_MODELS[0], restarts=2)
    for rank in (0, 10):
        with pytest.raises(InputError, match=rf"^rank: must be from 1 to 9, .*, got {rank}$"):
            attacks.rank_targeted_pgd(standard, *batch, threat_model=THREAT_MODELS[0], rank=rank)
    with pytest.raises(InputError, match=r"^epsilon: two images of this size"):
        attacks.fgsm(standard, *batch, threat_model=NormBall("l2", 8.1))


@pytest.mark.slow
def test_dlr_needs_three_classes_and_the_ensemble_does_not(few: Batch) -> None:
    images, labels = 0.1 * few[0], torch.zeros(60, dtype=torch.int64)
    with pytest.raises(InputError, match=r"^loss: dlr needs 3 classes or more, got 2; use margin$"):
        attacks.apgd(brightness_model, images, labels, threat_model=THREAT_MODELS[0], loss="dlr")
    with pytest.raises(InputError, match=r"^loss: must be margin or dlr .*, got 'cross_entropy'$"):
        attacks.apgd(brightness_model, images, labels, threat_model=THREAT_MODELS[0], rank=1)
    for budget in attacks.BUDGETS:
        attacks.adaptive_ensemble(brightness_model, images, labels, threat_model=THREAT_MODELS[0], budget=budget)
