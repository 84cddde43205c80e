"""Whether mirroring is safe: not for digits, for images that are as likely as their mirror image it is."""

import pytest
import torch
from torch import Tensor

from notbugs import data
from notbugs.data import Dataset
from notbugs.datacheck import check_data, measure_mirroring, mirroring
from notbugs.datacheck.mirroring import from_predictions

CLASSES = ("left", "right", "none")


@pytest.fixture(autouse=True)
def _short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "STEPS", 3000)


def predictions(labels: Tensor, turns: list[int]) -> Tensor:
    """Each class predicted as one other once mirrored."""
    return torch.tensor(turns)[labels]


@pytest.mark.slow
def test_digits_are_not_mirrored(digits: data.Splits) -> None:
    found = measure_mirroring(digits.train.select(slice(0, 300)))
    assert found.outcome == "not safe" and found.n == 300 and found.ci_low > 0.3 and found.turned
    assert found == measure_mirroring(digits.train.select(slice(0, 300)))


def test_it_is_measured_once_for_the_same_images(digits: data.Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Dataset] = []
    result = from_predictions(*[digits.train.labels] * 3, digits.train.classes)
    monkeypatch.setattr(mirroring, "_MEASURED", {})
    monkeypatch.setattr(mirroring, "_measure", lambda training: measured.append(training) or result)
    part = digits.train.select(slice(0, 40))
    assert measure_mirroring(part) is measure_mirroring(digits.train.select(slice(0, 40))) is result and len(measured) == 1
    flipped = part.with_images(part.images[:].flip(3))
    wide = part.with_images(part.images[:].reshape(40, 1, 4, 16))  # the same bytes
    for other in (flipped, wide, part.with_labels(part.labels.flip(0)), digits.train.select(slice(0, 41))):
        measure_mirroring(other)
    assert len(measured) == 5


def test_the_random_state_of_the_caller_stays(digits: data.Splits) -> None:
    state = torch.random.get_rng_state()
    measure_mirroring(digits.train.select(slice(0, 40)))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.slow
def test_images_that_are_as_likely_as_their_mirror_image_are_safe() -> None:
    """Disc and cross; with their left and right halves as classes it is not safe, and the classes are named."""
    planted = data.load_dataset(data.DataConfig("planted", limit=400)).train
    chosen = planted.select(((planted.labels == 0) | (planted.labels == 3)).nonzero().squeeze(1))
    assert measure_mirroring(chosen).outcome == "safe"
    sides = torch.arange(len(chosen)) % 2
    images = chosen.images[:].clone()
    images[sides == 0, :, :, 20:] = 128
    images[sides == 1, :, :, :12] = 128
    found = measure_mirroring(Dataset(images, sides, ("left", "right"), chosen.names))
    assert found.outcome == "not safe" and {(each.name, each.predicted) for each in found.turned} == {
        ("left", "right"), ("right", "left")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mirrored", "outcome", "turned"),
    [([0, 1, 2], "safe", []), ([1, 0, 2], "not safe", ["left", "right"]), ([0, 1, 0], "not safe", ["none"])],
)
def test_outcome_from_predictions(mirrored: list[int], outcome: str, turned: list[str]) -> None:
    labels = torch.arange(600) % 3
    found = from_predictions(labels, labels, predictions(labels, mirrored), CLASSES)
    assert found.outcome == outcome and sorted(each.name for each in found.turned) == turned
    assert found.accuracy == 1 and found.drop == pytest.approx(len(turned) / 3)


def test_one_pair_of_many_classes_is_found() -> None:
    labels = torch.arange(40 * 25) % 40
    mirrored = torch.where(labels == 4, 5, torch.where(labels == 5, 4, labels))
    found = from_predictions(labels, labels, mirrored, tuple(map(str, range(40))))
    assert found.outcome == "not safe" and {each.name for each in found.turned} == {"4", "5"}


def test_a_classifier_at_chance_level_says_nothing() -> None:
    labels = torch.arange(200) % 2
    guessed = torch.arange(200) // 100
    assert from_predictions(labels, guessed, 1 - guessed, ("a", "b")).outcome == "inconclusive"


def test_few_images_are_inconclusive() -> None:
    labels = torch.arange(20) % 2
    predicted, mirrored = labels.clone(), labels.clone()
    predicted[[0, 1, 2]] = 1 - labels[[0, 1, 2]]
    mirrored[[2, 3, 4]] = 1 - labels[[2, 3, 4]]
    found = from_predictions(labels, predicted, mirrored, ("a", "b"))
    assert found.outcome == "inconclusive" and found.drop == 0


@pytest.mark.slow
def test_mirroring_is_serious_where_training_flips(digits: data.Splits) -> None:
    train, test = digits.train.select(slice(0, 300)), digits.test
    (gray,) = [row for row in check_data(train, test).findings if row.problem == "mirroring changes the class"]
    colored = [part.with_images(part.images[:].repeat(1, 3, 1, 1)) for part in (train, test)]
    (color,) = [row for row in check_data(*colored, flips=True).findings if row.problem == "mirroring changes the class"]
    assert not gray.serious and color.serious and color.remedy == "Train with --no-flip." and "→" in color.examples
