"""Square Attack and HopSkipJump: without gradients, and at least as strong as the implementations of other libraries."""

import math
import warnings

import pytest
import torch
from attacks.conftest import Batch, LabelsOnly, brightness_model, inside, margins_of, remaining, seeded
from torch import Tensor

from notbugs import attacks, data
from notbugs.attacks import black_box
from notbugs.errors import InputError
from notbugs.models import Model
from notbugs.search import NormBall

EVERY_NORM = [NormBall("l2", 0.75), NormBall("linf", 0.15), NormBall("l1", 2.0), NormBall("l0", 3)]


@pytest.mark.slow
@pytest.mark.parametrize("threat_model", EVERY_NORM, ids=str)
def test_square_attack_needs_no_gradients(threat_model: NormBall, standard: Model, few: Batch) -> None:
    images, labels = few
    queries = 0

    def black_box(images: Tensor) -> Tensor:
        nonlocal queries
        queries += len(images)
        return standard(images).detach()

    found = attacks.square_attack(black_box, images, labels, threat_model=threat_model, queries=200)
    assert queries <= 60 * 201
    assert inside(found.images, images, threat_model)
    assert torch.allclose(found.margins, margins_of(standard, found.images, labels), atol=1e-3)
    clean = int((margins_of(standard, images, labels) <= 0).sum())
    ensemble = attacks.adaptive_ensemble(standard, images, labels, threat_model=threat_model)
    assert remaining(ensemble) <= remaining(found) < 0.7 * clean
    again = attacks.square_attack(black_box, images, labels, threat_model=threat_model, queries=200)
    assert torch.equal(again.images, found.images)
    generator = torch.Generator().manual_seed(1)
    other = attacks.square_attack(black_box, images, labels, threat_model=threat_model, queries=200, generator=generator)
    assert not torch.equal(other.images, found.images)


@pytest.mark.slow
@pytest.mark.parametrize("threat_model", EVERY_NORM[:2], ids=str)
def test_square_attack_is_as_strong_as_that_of_torchattacks(threat_model: NormBall, standard: Model, batch: Batch) -> None:
    images, labels = batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
        norm = threat_model.norm.capitalize()
        referee = torchattacks.Square(standard, norm=norm, eps=threat_model.epsilon, n_queries=300, n_restarts=1, seed=0)
        theirs = referee(images, labels)
    found = attacks.square_attack(standard, images, labels, threat_model=threat_model, queries=300)
    assert remaining(found) <= int((margins_of(standard, theirs, labels) <= 0).sum())


@pytest.mark.slow
def test_square_attack_on_a_scikit_learn_classifier(digits: data.Splits) -> None:
    from sklearn.linear_model import LogisticRegression

    pixels = digits.train.pixels(slice(None)).flatten(1).numpy()
    classifier = LogisticRegression(max_iter=300).fit(pixels, digits.train.labels.numpy())
    images, labels = digits.test.pixels(slice(0, 100)), digits.test.labels[:100]

    def logits(images: Tensor) -> Tensor:
        return torch.from_numpy(classifier.decision_function(images.flatten(1).double().numpy()))

    found = attacks.square_attack(logits, images, labels, threat_model=NormBall("l2", 1.0), queries=300)
    assert int((margins_of(logits, images, labels) <= 0).sum()) > 90
    assert remaining(found) < 40
    with pytest.raises(InputError, match=r"^queries: must be 1 or more, got 0$"):
        attacks.square_attack(logits, images, labels, threat_model=NormBall("l2", 1.0), queries=0)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_unbounded_epsilon_is_enough(norm: str) -> None:
    images, labels = 0.1 * torch.rand(5, 3, 5, 7, generator=seeded()), torch.zeros(5, dtype=torch.int64)
    threat_model = NormBall(norm, torch.inf)
    assert bool((attacks.adaptive_ensemble(brightness_model, images, labels, threat_model=threat_model).margins > 0).all())
    square = attacks.square_attack(brightness_model, images, labels, threat_model=threat_model, queries=100)
    assert bool((square.margins > 0).all())


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("which", ["standard", "robust"])
def test_hop_skip_jump_needs_labels_only(norm: str, which: str, request: pytest.FixtureRequest, few: Batch) -> None:
    """Smaller norms than those of foolbox with fewer queries, and not much larger than with gradients."""
    model, images, labels = request.getfixturevalue(which), few[0][:30], few[1][:30]
    black_box = LabelsOnly(model)
    found = attacks.hop_skip_jump(black_box, images, labels, norm=norm, queries=1000)
    assert black_box.queries <= 30 * 1000
    assert bool(found.norms.isfinite().all())
    assert torch.allclose(NormBall(norm, 0).distance(found.images - images), found.norms, atol=1e-5)
    assert bool((model(found.images).argmax(1) != labels).all())
    assert bool(((found.images >= 0) & (found.images <= 1)).all())
    with_gradients = attacks.minimum_norm(model, images, labels, norm=norm).norms
    assert float(with_gradients.mean()) < float(found.norms.mean()) < 1.5 * float(with_gradients.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox")
        counted = LabelsOnly(model).eval()
        torch.manual_seed(0)
        referee = foolbox.attacks.HopSkipJumpAttack(steps=6, constraint=norm)
        theirs = referee(foolbox.PyTorchModel(counted, bounds=(0, 1)), images, labels, epsilons=None)
    assert counted.queries > black_box.queries
    assert float(found.norms.mean()) < float(NormBall(norm, 0).distance(theirs[0] - images).mean())


@pytest.mark.slow
def test_square_attack_does_not_depend_on_the_other_images(standard: Model, few: Batch) -> None:
    images, labels = few
    alone, beside = (
        attacks.square_attack(standard, images[:count], labels[:count], threat_model=NormBall("l2", 0.5), queries=60).margins
        for count in (4, 12)
    )
    assert torch.allclose(alone, beside[:4], atol=1e-4)


def test_hop_skip_jump_does_not_depend_on_the_other_images(standard: Model, few: Batch) -> None:
    images, labels = few
    starts = images[20:30]
    alone, beside = (
        attacks.hop_skip_jump(standard, images[:count], labels[:count], queries=300, starts=starts).norms for count in (4, 12)
    )
    assert alone.isfinite().all() and alone.max() > 0
    assert torch.allclose(alone, beside[:4], rtol=1e-4)


def test_hop_skip_jump_stops_at_its_queries_and_at_stop_norm(standard: Model, few: Batch) -> None:
    images, labels = few
    for queries in (1, 5, 30, 200):
        black_box = LabelsOnly(standard)
        found = attacks.hop_skip_jump(black_box, images, labels, queries=queries)
        assert black_box.queries <= 60 * queries
        assert bool(((found.norms == 0) == (standard(images).argmax(1) != labels)).all())
    stopped = attacks.hop_skip_jump(standard, images, labels, queries=600, stop_norm=5.0)
    smallest = attacks.hop_skip_jump(standard, images, labels, queries=600)
    assert float(stopped.norms.mean()) > float(smallest.norms.mean())
    alone = attacks.hop_skip_jump(standard, images[3:4], labels[3:4], queries=600)  # no other image to start from: noise
    assert 0 < float(alone.norms) < 8
    with pytest.raises(InputError, match=r"^norm: must be l2 or linf"):
        attacks.hop_skip_jump(standard, images, labels, norm="l1")


@pytest.mark.parametrize("threat_model", [*EVERY_NORM, NormBall("l2", math.inf)], ids=str)
def test_square_attack_with_several_queries_at_once_finds_what_one_at_a_time_finds(
    threat_model: NormBall, few: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = few[0][:12].double()
    weights = torch.randn(10, 64, dtype=torch.float64, generator=seeded())
    labels = (images.flatten(1) @ weights.T).argmax(1)
    calls: list[int] = []

    def linear(images: Tensor) -> Tensor:
        calls.append(len(images))
        return images.flatten(1) @ weights.T

    found = attacks.square_attack(linear, images, labels, threat_model=threat_model, queries=150)
    at_once = len(calls)
    assert max(calls) <= black_box.PIXELS_AT_ONCE // 64
    monkeypatch.setattr(black_box, "PIXELS_AT_ONCE", 0)
    calls.clear()
    one_by_one = attacks.square_attack(linear, images, labels, threat_model=threat_model, queries=150)
    assert torch.equal(found.images, one_by_one.images) and torch.allclose(found.margins, one_by_one.margins)
    assert at_once <= len(calls) <= 151
