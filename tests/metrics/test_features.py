"""Robust usefulness: the closed form of linear features, and features of trained networks."""

import math

import numpy as np
import pytest
import torch
from metrics.conftest import CLASSES
from torch import Tensor, nn

from notbugs import data, metrics, models
from notbugs.data import Dataset, subset
from notbugs.errors import InputError
from notbugs.runs.tables.features import FeatureRow
from notbugs.search import NormBall

DUAL = {"l2": 2.0, "linf": 1.0}


@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize("threat_model", [NormBall("l2", 0.05), NormBall("linf", 0.01)], ids=str)
def test_linear_features_have_the_closed_form(
    threat_model: NormBall, steps: int, linear_features: tuple[nn.Sequential, Dataset]
) -> None:
    """Robust usefulness is usefulness minus epsilon times the dual norm over the standard deviation (Goh 2019)."""
    linear, part = linear_features
    weights = linear[1].weight.detach().double()
    values = linear(part.pixels(slice(None))).detach()
    table = metrics.usefulness(values, part.labels, 3)
    for row in metrics.per_feature(linear, part, threat_model, forward=linear, steps=steps, sample=40):
        scale = table.scale[row.feature, CLASSES.index(row.class_name)]
        loss = float(threat_model.epsilon) * weights[row.feature].norm(p=DUAL[threat_model.norm]).item() / scale
        assert row.robust_usefulness == pytest.approx(row.usefulness - loss, abs=1e-4)
        assert row.usefulness_ci_low <= row.usefulness <= row.usefulness_ci_high
        assert row.robust_usefulness_ci_low <= row.robust_usefulness <= row.robust_usefulness_ci_high
        useful = row.usefulness >= 0.1 and row.usefulness_ci_low > 0
        assert row.category == ("useless" if not useful else "robust" if row.robust_usefulness > 0 else "non-robust")


def test_more_steps_find_no_less(standard: models.Model, digits: data.Splits) -> None:
    """Each feature decreases and increases at least as far, and never below the 0 of a ReLU."""
    images, threat_model, features = digits.test.pixels(slice(0, 30)), NormBall("l2", 0.75), [0, 5, 9]
    with models.frozen(standard):
        clean = standard.features(images)[:, features]
        one, more = (metrics.extremes(standard.features, images, threat_model, features, steps=steps) for steps in (0, 8))
    for before, after in zip(one, more, strict=True):
        assert (after >= before - 1e-5).all() and after.sum() > 1.02 * before.sum() > 0
    assert (more.decrease <= clean + 1e-5).all()
    off = clean == 0
    assert off.any() and (more.increase[off] > 0).float().mean() > 0.5  # a unit that is off has no gradient, and can increase


@pytest.mark.slow
def test_with_epsilon_robust_features_become_non_robust(robust: models.Model, digits: data.Splits) -> None:
    """Nothing is lost at epsilon 0, then more at every larger one; rows are the same in any batches."""
    part = digits.test.select(slice(0, 150))
    categories, left = [], []
    for epsilon in (0.0, 0.25, 1.5):
        rows = metrics.per_feature(robust, part, NormBall("l2", epsilon), steps=3, sample=50)
        assert [(row.feature, row.class_name) for row in rows[:11]] == [*((0, name) for name in digits.test.classes), (1, "0")]
        best = metrics.best_class_rows(rows)
        assert len(rows) == 10 * len(best)
        categories.append([row.category for row in best])
        left.append(np.array([row.robust_usefulness for row in best]))
        if epsilon == 0:
            finite = [row for row in rows if math.isfinite(row.robust_usefulness)]
            assert all(row.robust_usefulness == pytest.approx(row.usefulness) for row in finite)
    assert (left[0] >= left[1]).all() and (left[1] >= left[2]).all()
    assert "non-robust" not in categories[0]
    assert categories[1].count("robust") > categories[2].count("robust")
    again = metrics.per_feature(robust, part, NormBall("l2", 1.5), steps=3, sample=50, batch_size=7)
    assert [row.category for row in metrics.best_class_rows(again)] == categories[2]


@pytest.mark.slow
def test_an_adversarially_trained_model_has_the_robust_features(
    standard: models.Model, robust: models.Model, digits: data.Splits
) -> None:
    means = []
    for model in (standard, robust):
        rows = metrics.per_feature(model, digits.test, NormBall("l2", 0.4), steps=4)
        means.append(np.mean([row.robust_usefulness for row in metrics.best_class_rows(rows)]))
    assert means[1] > means[0] + 0.1


def test_of_two_classes_the_one_that_a_feature_speaks_for_is_its_best() -> None:
    numbers = dict.fromkeys(
        ("usefulness_ci_low", "usefulness_ci_high", "robust_usefulness", "robust_usefulness_ci_low", "robust_usefulness_ci_high"),
        0.5,
    )
    counts = dict.fromkeys(("n", "n_attacked", "steps"), 1)
    rows = [
        FeatureRow(
            feature=0, class_name=name, sign=sign, usefulness=0.5, category="robust", significant=True, **numbers, **counts
        )
        for name, sign in (("a", -1), ("b", 1))
    ]
    assert [row.class_name for row in metrics.best_class_rows(rows)] == ["b"]


def test_a_model_without_features_and_an_empty_data_set_are_rejected(linear_features: tuple[nn.Sequential, Dataset]) -> None:
    linear, part = linear_features
    with pytest.raises(InputError, match=r"model: must have features\(images\)"):
        metrics.per_feature(linear, part, NormBall("l2", 0.1))
    with pytest.raises(InputError, match="must hold images"):
        metrics.per_feature(linear, part.select([]), NormBall("l2", 0.1), forward=linear)


@pytest.mark.parametrize(("counts", "wanted"), [([50, 50], [10, 10]), ([3, 50, 50], [3, 8, 9]), ([1, 1, 1], [1, 1, 1])])
def test_the_attacked_sample_is_balanced_over_the_classes(counts: list[int], wanted: list[int]) -> None:
    labels = torch.cat([torch.full((count,), number) for number, count in enumerate(counts)])
    chosen: Tensor = subset.balanced(labels, 20)
    assert sorted(labels[chosen].bincount().tolist()) == sorted(wanted)
    assert chosen.unique().tolist() == chosen.tolist()  # type: ignore[no-untyped-call]


def test_the_model_stays_as_it_was(digits: data.Splits) -> None:
    model = models.build("small", shape=(1, 8, 8), classes=10, width=8).train()
    metrics.per_feature(model, digits.test.select(slice(0, 40)), NormBall("l2", 0.3), steps=1, sample=10)
    metrics.per_layer(model, digits.test.pixels(slice(0, 5)), NormBall("l2", 0.3), steps=1)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
