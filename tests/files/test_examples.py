"""Adversarial examples in 8 bits, and nearest files, beside what is known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from notbugs import attacks, data, models
from notbugs.attacks.minimum_norm import MinimumNormResult
from notbugs.files.examples import nearest_files, round_to_8bit
from notbugs.search import objectives


def above_half(images: Tensor) -> Tensor:
    """Class 1 if the mean pixel is above 0.5: the nearest adversarial example is known."""
    mean = images.mean((1, 2, 3))
    return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def test_a_rounded_example_is_misclassified_and_hardly_longer() -> None:
    images = (torch.linspace(60, 120, 7).round() / 255).reshape(7, 1, 1, 1).repeat(1, 1, 8, 8)
    labels = torch.zeros(7, dtype=torch.int64)
    found = attacks.minimum_norm(above_half, images, labels)
    rounded = round_to_8bit(above_half, images, labels, found)
    assert torch.equal((rounded * 255).round() / 255, rounded)
    assert above_half(rounded).argmax(1).tolist() == [1] * 7
    norms = (rounded - images).flatten(1).norm(dim=1)
    nearest = (0.5 - images[:, 0, 0, 0]) * 8
    assert (norms >= nearest - 1e-6).all() and (norms <= 1.1 * nearest + 1 / 255 * 8).all()


def test_without_an_example_the_image_stays() -> None:
    images, labels = torch.full((3, 1, 4, 4), 0.8), torch.tensor([0, 1, 1])
    nowhere = MinimumNormResult(images.clone(), torch.tensor([0.0, torch.inf, 0.001]))
    assert torch.equal(round_to_8bit(above_half, images, labels, nowhere), images)


@pytest.mark.slow
def test_examples_for_a_network_survive_rounding(standard: models.Model, digits: data.Splits) -> None:
    images, labels = digits.test.pixels(slice(0, 60)), digits.test.labels[:60]
    found = attacks.minimum_norm(standard, images, labels, rounds=3)
    rounded = round_to_8bit(standard, images, labels, found)
    with torch.no_grad():
        wrong = objectives.margin(standard(rounded), labels) <= 0
    assert wrong.all()
    ratio = (rounded - images).flatten(1).norm(dim=1) / found.norms
    assert ratio[found.norms > 0].median() < 1.02


def test_nearest_files_are_those_of_a_search_file_by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.rand(40, 5, generator=generator), torch.randint(0, 3, (40,), generator=generator)
    monkeypatch.setattr("notbugs.files.examples.DISTANCES_AT_ONCE", 130)  # several parts
    found = nearest_files(features, labels, count=4)
    for index in range(40):
        distances = ((features - features[index]) ** 2).sum(1).sqrt() / features[index].norm()
        for name, wanted in (("same_class", labels == labels[index]), ("other_class", labels != labels[index])):
            places = [place for place in distances.argsort().tolist() if wanted[place] and place != index][:4]
            assert found[name][index].tolist() == places
            assert found[f"{name}_distance"][index] == pytest.approx(distances[places].numpy(), rel=1e-4)


def test_a_file_alone_in_its_class_has_no_neighbor_there() -> None:
    found = nearest_files(torch.eye(3), torch.tensor([0, 1, 1]), count=2)
    assert found["same_class"].tolist() == [[-1, -1], [2, -1], [1, -1]]
    assert np.isinf(found["same_class_distance"][0]).all()
