"""Transferability: examples of a linear model are known exactly, and counts are checked by hand with lookup tables as models."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from notbugs import data, models, predict, stats
from notbugs.data import Dataset
from notbugs.metrics import PERTURBATIONS, AdversarialExamples, TransferRates, make_examples, transfer_rates
from notbugs.models import black_box
from notbugs.search import Mask, NormBall

CLASSES = tuple("abcd")


def dataset(images: Tensor, labels: Tensor, classes: tuple[str, ...] = CLASSES) -> Dataset:
    """Images from 0 to 255 as a data set."""
    return Dataset(images.to(torch.uint8), labels.long(), classes, tuple(f"{number:04d}.png" for number in range(len(images))))


def numbered(first: int, n: int) -> Tensor:
    """n images whose pixels are all their number, from `first` on."""
    return torch.arange(first, first + n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 2, 2).clone()


def lookup_model(predictions: dict[int, int]) -> Any:
    """A model that looks up its prediction by the number of an image."""

    def model(images: Tensor) -> Tensor:
        classes = [predictions[number] for number in (images[:, 0, 0, 0] * 255).round().int().tolist()]
        return F.one_hot(torch.tensor(classes), len(CLASSES)).float()

    return model


# ---- examples -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("threat_model", [NormBall("l2", 1.0), NormBall("linf", 0.2)], ids=str)
def test_examples_are_within_the_ball_and_predicted_as_recorded(
    threat_model: NormBall, standard: models.Model, digits: data.Splits
) -> None:
    part = digits.test.select(slice(0, 90))
    examples = make_examples(standard, part, threat_model, steps=10, batch_size=40, seed=3)
    assert not bool((examples.targets == part.labels).any())
    clean = part.images[:].int()
    limit = threat_model.epsilon * 255
    for images in (examples.untargeted, examples.targeted):
        perturbation = (images.int() - clean).flatten(1)
        if threat_model.norm == "l2":
            assert float(perturbation.square().sum(1).max()) <= limit**2
        else:
            assert float(perturbation.abs().max()) <= limit
    stored = (examples.untargeted, examples.targeted, examples.random)
    predicted = (examples.predicted_untargeted, examples.predicted_targeted, examples.predicted_random)
    for images, classes in zip(stored, predicted, strict=True):
        assert torch.equal(standard(part.with_images(images).pixels(slice(None))).argmax(1), classes)
    assert torch.equal(standard(part.pixels(slice(None))).argmax(1), examples.predicted)
    assert float((examples.predicted_untargeted != part.labels).float().mean()) > 0.75
    assert float((examples.predicted_targeted == examples.targets).float().mean()) > 0.3
    shuffled, untargeted = ((images.int() - clean).flatten(1) for images in (examples.random, examples.untargeted))
    fits = untargeted.abs().amax(1) <= 127  # a larger perturbation may be clipped elsewhere
    assert int(fits.sum()) > 20
    assert torch.equal(shuffled.abs().sort(1).values[fits], untargeted.abs().sort(1).values[fits])
    assert not torch.equal(shuffled, untargeted)
    assert float((examples.predicted_random != part.labels).float().mean()) < 0.3


@pytest.mark.slow
def test_examples_are_reproducible_in_any_batches_and_the_model_stays_as_it_was(digits: data.Splits) -> None:
    part = digits.test.select(slice(0, 50))
    model = models.build("small", shape=(1, 8, 8), classes=10, width=4).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    one, two, other = (
        make_examples(model, part, NormBall("l2", 0.5), steps=2, seed=seed, batch_size=size)
        for seed, size in ((1, 250), (1, 20), (2, 250))
    )
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one.targets, other.targets) and not torch.equal(one.random, other.random)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_examples_of_a_linear_model_are_the_steepest_perturbations(norm: str) -> None:
    """Two classes, gray images: away from the label and toward the target are one direction, which is known exactly.

    The whole epsilon is used, although a hundredth of it would do.
    """
    generator = torch.Generator().manual_seed(0)
    model = models.build("linear", shape=(1, 4, 4), classes=2, mean=[0.0], std=[1.0])
    weights = torch.randn(2, 16, generator=generator)
    model.head.weight.data, model.head.bias.data = weights, torch.zeros(2)  # type: ignore[union-attr]
    difference = weights[1] - weights[0]
    images = torch.randint(110, 146, (30, 1, 4, 4), generator=generator)
    labels = (images.float().flatten(1) @ difference > 0).long()
    epsilon = 0.2 if norm == "l2" else 0.1
    examples = make_examples(model, dataset(images, labels, ("a", "b")), NormBall(norm, epsilon), steps=10)
    steepest = difference / difference.norm() if norm == "l2" else difference.sign()
    wanted = epsilon * 255 * (1 - 2 * labels)[:, None] * steepest
    for perturbed in (examples.untargeted, examples.targeted):
        assert float(((perturbed.int() - images).flatten(1) - wanted).abs().max()) <= 1.01  # rounded to 8 bits inside the ball
    assert torch.equal(examples.predicted, labels) and torch.equal(examples.targets, 1 - labels)


# ---- rates --------------------------------------------------------------------------------------------------------------


def test_all_examples_keep_to_a_mask(digits: data.Splits) -> None:
    free = torch.zeros(1, 8, 8, dtype=torch.bool)
    free[:, :, 3:6] = True
    part, model = digits.test.select(slice(0, 5)), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    examples = make_examples(model, part, NormBall("linf", 0.2, mask=Mask(free)), steps=1)
    for images in (examples.untargeted, examples.targeted, examples.random):
        changed = (images != part.images[:]).any(0)
        assert bool(changed.any()) and not bool((changed & ~free).any())


def test_transfer_rates_by_hand() -> None:
    """Eight images. Both models classify 0 to 5 correctly; the source misclassifies 6, the target 7."""
    n, labels = 8, torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    examples = AdversarialExamples(
        untargeted=numbered(50, n),
        targeted=numbered(100, n),
        random=numbered(150, n),
        targets=torch.tensor([1, 2, 3, 0, 2, 3, 0, 1]),
        predicted=torch.tensor([0, 1, 2, 3, 0, 1, 0, 3]),
        predicted_untargeted=torch.tensor([1, 2, 3, 3, 1, 2, 0, 0]),  # 3 stays correct
        predicted_targeted=torch.tensor([1, 2, 3, 0, 0, 2, 0, 1]),  # the target for 0 to 3
        predicted_random=torch.tensor([0, 2, 2, 0, 0, 3, 2, 3]),  # 1, 3 and 5 are misclassified
    )
    clean = [0, 1, 2, 3, 0, 1, 2, 0]
    untargeted = [1, 3, 2, 1, 1, 2, 0, 0]  # same, other, correct, other (the source is correct), same, same
    targeted = [1, 2, 2, 1, 2, 2, 0, 1]  # target, target, correct, other, target (though the source is not), other
    random = [0, 3, 2, 3, 0, 3, 0, 1]  # correct, but for two other mistakes and one same mistake
    columns = enumerate((clean, untargeted, targeted, random))
    predictions = {50 * step + i: label for step, column in columns for i, label in enumerate(column)}
    rates = transfer_rates(examples, dataset(numbered(0, n), labels), lookup_model(predictions))

    def wanted(perturbation: str, correct: int, same: int, other: int, hits: int, source: float) -> TransferRates:
        low, high = stats.wilson_interval(hits, 6)
        counts = {"n": 6, "not_misclassified": correct, "same_mistake": same, "other_mistake": other}
        interval = {"transfer_rate": hits / 6, "ci_low": low, "ci_high": high}
        return TransferRates(perturbation=perturbation, **counts, **interval, source_rate=source, clean_accuracy=7 / 8)

    for found, expected in zip(
        rates,
        [
            wanted("untargeted", 1, 3, 2, 5, 5 / 6),
            wanted("targeted", 1, 3, 2, 3, 4 / 6),
            wanted("random", 4, 1, 1, 2, 3 / 6),
        ],
        strict=True,
    ):
        assert found._asdict() == expected._asdict() | {"source_rate": pytest.approx(expected.source_rate)}


@pytest.mark.slow
@given(st.integers(1, 25), st.integers(0, 10**6))
def test_transfer_rates_against_brute_force(n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels, targets = generator.integers(0, 4, n), generator.integers(0, 4, n)
    targets = np.where(targets == labels, (labels + 1) % 4, targets)

    def mostly_correct() -> np.ndarray:
        return np.where(generator.random(n) < 0.6, labels, generator.integers(0, 4, n))

    source_clean, *source = (mostly_correct() for _ in range(4))
    predictions = {50 * step + i: int(label) for step in range(4) for i, label in enumerate(mostly_correct())}
    columns = [torch.from_numpy(column).long() for column in (targets, source_clean, *source)]
    examples = AdversarialExamples(numbered(50, n), numbered(100, n), numbered(150, n), *columns)
    found = transfer_rates(examples, dataset(numbered(0, n), torch.from_numpy(labels)), lookup_model(predictions))
    both = [i for i in range(n) if predictions[i] == labels[i] == source_clean[i]]
    for step, rates in enumerate(found, start=1):
        targeted = rates.perturbation == "targeted"
        wanted = targets if targeted else source[step - 1]
        predicted = {i: predictions[50 * step + i] for i in both}
        mistakes = [i for i in both if predicted[i] != labels[i]]
        same = [i for i in mistakes if predicted[i] == wanted[i]]
        assert (rates.n, rates.same_mistake, rates.not_misclassified) == (len(both), len(same), len(both) - len(mistakes))
        assert rates.not_misclassified + rates.same_mistake + rates.other_mistake == rates.n
        hits = len(same) if targeted else len(mistakes)
        assert rates.transfer_rate == (hits / len(both) if both else None)
        assert (rates.ci_low, rates.ci_high) == (stats.wilson_interval(hits, len(both)) if both else (0, 1))
        source_hits = (source[step - 1] == targets if targeted else source[step - 1] != labels)[both]
        assert rates.source_rate == (pytest.approx(source_hits.mean()) if both else None)
        assert rates.clean_accuracy == pytest.approx(np.mean([predictions[i] == labels[i] for i in range(n)]))


def test_examples_transfer_to_their_own_source_at_the_source_rate(standard: models.Model, digits: data.Splits) -> None:
    part = digits.test.select(slice(0, 60))
    examples = make_examples(standard, part, NormBall("l2", 0.75), steps=5)
    untargeted, targeted, random = transfer_rates(examples, part, standard)
    assert [rates.perturbation for rates in (untargeted, targeted, random)] == list(PERTURBATIONS)
    for rates in (untargeted, targeted, random):
        assert rates.transfer_rate == pytest.approx(rates.source_rate)
    assert untargeted.other_mistake == random.other_mistake == 0
    assert targeted.transfer_rate is not None and 0 < targeted.transfer_rate < 1
    assert random.transfer_rate is not None and untargeted.transfer_rate is not None
    assert random.transfer_rate < untargeted.transfer_rate


class WithLogitsObject(nn.Module):
    """A user's network that returns an object with the attribute `logits`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return SimpleNamespace(logits=self.model(images))


def test_predictions_of_networks_functions_and_black_boxes_are_the_same(standard: models.Model, digits: data.Splits) -> None:
    part = digits.test.select(slice(0, 30))
    wanted = standard(part.pixels(slice(None))).argmax(1)
    box = black_box.BlackBox(lambda images: standard(torch.from_numpy(images)), part.classes)
    for model in (standard, lambda images: standard(images), box, WithLogitsObject(standard)):
        assert torch.equal(predict.predict(model, part), wanted)


def test_a_source_may_return_an_object_with_logits(standard: models.Model, digits: data.Splits) -> None:
    part = digits.test.select(slice(0, 5))
    examples = make_examples(WithLogitsObject(standard), part, NormBall("l2", 0.5), steps=1)
    assert torch.equal(examples.predicted, predict.predict(standard, part))
