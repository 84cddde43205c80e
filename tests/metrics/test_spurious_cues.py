"""Spurious cues and features: the synthetic background is found, and chance alone finds nothing."""

import numpy as np
import pytest
import torch

from notbugs import data, metrics
from notbugs.data import Splits, synthetic


def drops(train: data.Dataset, test: data.Dataset) -> list[metrics.UsefulnessDrop]:
    """All cues from training to test images."""
    names, values = metrics.cue_values(train)
    _, test_values = metrics.cue_values(test)
    return metrics.spurious_features(names, values, train.labels, test_values, test.labels, train.classes)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_synthetic_background_is_found_by_name(seed: int) -> None:
    made = synthetic.make_synthetic(seed=seed)
    spurious = [drop for drop in drops(made.train, made.test) if drop.spurious]
    sizes = [drop.usefulness_drop for drop in spurious]
    assert sizes == sorted(sizes, reverse=True)
    assert "background brightness" in [drop.name for drop in spurious][:2]
    names, values = metrics.cue_values(made.test)
    light = values[:, names.index("background brightness")] > 0.5
    assert (light.numpy() == made.test_truth.light_background).mean() > 0.99


@pytest.mark.slow
def test_without_a_spurious_cue_none_is_found(digits: Splits) -> None:
    """Digits are split at random; and synthetic images can be drawn without a cue."""
    assert not any(drop.spurious for drop in drops(digits.train, digits.test))
    made = synthetic.make_synthetic(background=0.5)
    assert not any(drop.spurious for drop in drops(made.train, made.test))


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "count", "test"), [(10, 32, 20), (10, 32, 120), (2, 32, 40), (4, 64, 60)])
def test_chance_alone_is_seldom_spurious(classes: int, count: int, test: int) -> None:
    """Training and test images alike, sparse features as networks have them: at most one data set in twenty has a false one."""
    false = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        labels, test_labels = (np.arange(n) % classes for n in (400, test))
        mean = generator.normal(size=(classes, count))
        values, test_values = (
            np.maximum(mean[own] - 0.5 + generator.normal(size=(len(own), count)), 0) for own in (labels, test_labels)
        )
        arrays = [torch.from_numpy(array) for array in (values, labels, test_values, test_labels)]
        found = metrics.spurious_features([*map(str, range(count))], *arrays, [*map(str, range(classes))])
        false += any(drop.spurious for drop in found)
    assert false <= 4


def test_the_accuracy_gap_is_that_between_usual_and_unusual() -> None:
    values, labels = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]), torch.zeros(8, dtype=torch.int64)
    correct = torch.tensor([True, True, True, True, True, False, False, False])
    training = {"train_values": torch.tensor([1.0, 0.0]), "train_labels": torch.tensor([0, 1])}
    found = metrics.accuracy_gap(values, labels, correct, label=0, **training)
    assert found[:3] == (1.0, 0.25, 0.75)
    assert -1 <= found.accuracy_gap_ci_low < 0.75 < found.accuracy_gap_ci_high <= 1.01
    none_unusual = metrics.accuracy_gap(values[:4], labels[:4], correct[:4], label=0, **training)
    assert np.isnan(none_unusual.accuracy_gap)


def test_the_nearest_cue_is_the_one_with_the_highest_correlation() -> None:
    cues = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    values = torch.stack([2 * cues[:, 1] + 1, -cues[:, 2]], dim=1)
    found = metrics.nearest_cue(values, ["a", "b", "c"], cues)
    assert [(cue.name, round(cue.correlation, 3)) for cue in found] == [("b", 1.0), ("c", -1.0)]
