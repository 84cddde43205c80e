"""Accuracy tables: intervals in closed form, counts against the model itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from notbugs import attacks, data, metrics, models, stats
from notbugs.data import Dataset
from notbugs.search import NormBall

BALLS = [NormBall("l2", radius) for radius in (0.25, 0.75, 1.5)]


@pytest.fixture(scope="module")
def part(digits: data.Splits) -> Dataset:
    """70 test digits."""
    return digits.test.select(slice(0, 70))


@given(st.integers(1, 5000), st.dataset())
def test_the_interval_is_wilsons(n: int, draw: st.DataObject) -> None:
    correct = draw.draw(st.integers(0, n))
    z, share = 1.959963984540054, correct / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = stats.wilson_interval(correct, n)
    assert low == pytest.approx(middle - half, abs=1e-9)
    assert high == pytest.approx(middle + half, abs=1e-9)
    assert 0 <= low <= share <= high <= 1


def test_a_row_says_what_was_counted() -> None:
    low, high = stats.wilson_interval(3, 4)
    wanted = {"epsilon": 0.5, "attack": "pgd", "correct": 3, "n": 4, "accuracy": 0.75, "low": low, "high": high}
    assert metrics.accuracy_row(3, 4, epsilon=0.5, attack="pgd") == wanted
    assert metrics.accuracy_row(3, 4) == {**wanted, "epsilon": 0.0, "attack": "none"}


def test_clean_accuracy_is_the_models(standard: models.Model, digits: data.Splits) -> None:
    right = standard(digits.test.pixels(slice(None))).argmax(1) == digits.test.labels
    row = metrics.clean_accuracy(standard, digits.test, batch_size=64)
    assert row == metrics.accuracy_row(int(right.sum()), 450)
    assert row["accuracy"] > 0.9


def test_accuracy_under_attack_is_the_worst_cases(robust: models.Model, part: Dataset) -> None:
    """Row by row: clean, then each radius ascending, whatever the order given; batches and their sizes change nothing."""
    rows = metrics.robust_accuracy(robust, part, [BALLS[2], BALLS[0], BALLS[1]])
    assert [row["epsilon"] for row in rows] == [0.0, 0.25, 0.75, 1.5]
    assert [row["attack"] for row in rows] == ["none", *[attacks.ensemble_name("standard")] * 3]
    assert {row["norm"] for row in rows} == {"l2"}
    assert {key: value for key, value in rows[0].items() if key != "norm"} == metrics.clean_accuracy(robust, part)
    correct = [row["correct"] for row in rows]
    assert correct == sorted(correct, reverse=True)
    assert correct[0] > correct[1] > correct[3]
    for row, threat_model in zip(rows[1:], BALLS, strict=True):
        found = attacks.adaptive_ensemble(robust, part.pixels(slice(None)), part.labels, threat_model=threat_model)
        assert row["correct"] <= int((found.margins < 0).sum()) <= row["correct"] + 1
        assert row["accuracy"] == row["correct"] / 70
        assert (row["low"], row["high"]) == stats.wilson_interval(row["correct"], 70)
    assert metrics.robust_accuracy(robust, part, BALLS, batch_size=32) == rows
    assert metrics.robust_accuracy(robust, part, BALLS) == rows


def test_one_image_and_no_radius_at_all(standard: models.Model, part: Dataset) -> None:
    single = part.select([3])
    rows = metrics.robust_accuracy(standard, single, [NormBall("linf", 0.0), NormBall("linf", 1.0)])
    assert [(row["correct"], row["n"], row["norm"]) for row in rows] == [(1, 1, "linf"), (1, 1, "linf"), (0, 1, "linf")]


def test_mistakes_stay_mistakes(standard: models.Model, part: Dataset) -> None:
    wrong = part.with_labels((part.labels + 1) % 10)
    rows = metrics.robust_accuracy(standard, wrong, [NormBall("l2", 8.0)])
    assert [row["correct"] for row in rows] == [int((standard(wrong.pixels(slice(None))).argmax(1) == wrong.labels).sum()), 0]


def test_scores_leave_the_model_alone(part: Dataset) -> None:
    model = models.build("small", shape=(1, 8, 8), classes=10, width=4).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    metrics.clean_accuracy(model, part)
    metrics.robust_accuracy(model, part, BALLS[:1])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
