"""Clean and robust accuracy: counts against the model itself, and against one call of the attack ensemble."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks, data, metrics, models, search, stats
from notbugs.data import Dataset
from notbugs.errors import InputError, NotbugsWarning
from notbugs.metrics import Accuracy
from notbugs.search import NormBall

BALLS = [NormBall("l2", epsilon) for epsilon in (0.25, 0.75, 1.5)]


@pytest.fixture(scope="module")
def part(digits: data.Splits) -> Dataset:
    """70 test digits."""
    return digits.test.select(slice(0, 70))


def test_an_accuracy_has_its_counts_and_interval() -> None:
    low, high = stats.wilson_interval(3, 4)
    attacked = Accuracy.from_counts(3, 4, epsilon=0.5, norm="l2", attack="pgd")
    assert attacked == Accuracy(epsilon=0.5, norm="l2", attack="pgd", correct=3, n=4, accuracy=0.75, ci_low=low, ci_high=high)
    assert Accuracy.from_counts(3, 4) == replace(attacked, epsilon=0.0, norm="", attack="none")


def test_clean_accuracy_counts_the_predictions_of_the_model(standard: models.Model, digits: data.Splits) -> None:
    correct = standard(digits.test.pixels(slice(None))).argmax(1) == digits.test.labels
    accuracy = metrics.clean_accuracy(standard, digits.test)
    assert accuracy == Accuracy.from_counts(int(correct.sum()), 450)
    assert accuracy.accuracy > 0.9


@pytest.mark.slow
def test_robust_accuracy_is_that_of_the_worst_case(robust: models.Model, part: Dataset) -> None:
    """Clean first, then epsilon by epsilon, ascending, in whatever order they are given. Batches change random starts alone."""
    rows = metrics.robust_accuracy(robust, part, [BALLS[2], BALLS[0], BALLS[1]])
    assert [row.epsilon for row in rows] == [0.0, 0.25, 0.75, 1.5]
    assert [row.attack for row in rows] == ["none", *[attacks.ensemble_name("standard")] * 3]
    assert {row.norm for row in rows} == {"l2"}
    assert replace(rows[0], norm="") == metrics.clean_accuracy(robust, part)
    correct = [row.correct for row in rows]
    assert correct == sorted(correct, reverse=True)
    assert correct[0] > correct[1] > correct[3]
    for row, threat_model in zip(rows[1:], BALLS, strict=True):
        result = attacks.adaptive_ensemble(robust, part.pixels(slice(None)), part.labels, threat_model=threat_model)
        assert row.correct <= int((result.margins < 0).sum()) <= row.correct + 1
        assert row.accuracy == row.correct / 70
        assert (row.ci_low, row.ci_high) == stats.wilson_interval(row.correct, 70)
    batches = metrics.robust_accuracy(robust, part, BALLS, batch_size=32)
    assert all(abs(one.correct - other.correct) <= 1 for one, other in zip(rows, batches, strict=True))
    assert metrics.robust_accuracy(robust, part, BALLS) == rows


def test_a_curve_attacks_only_what_the_threat_models_leave_open(
    robust: models.Model, part: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 0.5 the images that are lost between 0.25 and 0.75, within 2 those that are left at 0.75."""
    attacked: dict[float, int] = {}
    ensemble = attacks.adaptive_ensemble

    def count(*args: Any, threat_model: NormBall, budget: str, progress: Any) -> search.AttackResult:
        attacked[float(threat_model.epsilon)] = len(args[1])
        return ensemble(*args, threat_model=threat_model, budget="quick")

    monkeypatch.setattr(attacks, "adaptive_ensemble", count)
    curve = [NormBall("l2", epsilon) for epsilon in (2.0, 0.5, 0.25)]
    rows = metrics.robust_accuracy(robust, part, BALLS[:2], curve=curve)
    clean, first, between, second, beyond = (row.correct for row in rows)
    assert [row.epsilon for row in rows] == [0.0, 0.25, 0.5, 0.75, 2.0]
    names = [attacks.ensemble_name(budget) for budget in ("standard", "quick", "standard", "quick")]
    assert [row.attack for row in rows] == ["none", *names]
    assert attacked == {0.25: clean, 0.75: first, 0.5: first - second, 2.0: second}
    assert first > between > second > beyond
    alone = metrics.robust_accuracy(robust, part, [NormBall("l2", 0.5)], budget="quick")[1]
    assert abs(alone.correct - between) <= 1


@pytest.mark.slow
def test_progress_rises_with_the_attacks(robust: models.Model, part: Dataset) -> None:
    """In one batch, too, and by no more than a tenth at once; an epsilon of the curve counts for a tenth of another."""
    for options in ({}, {"batch_size": 35}, {"curve": [NormBall("l2", 0.5)]}):
        shares: list[float] = []
        metrics.robust_accuracy(robust, part, BALLS[:2], progress=shares.append, **options)
        assert shares[-1] == 1.0
        steps = [after - before for before, after in pairwise([0.0, *shares])]
        assert all(0 < step <= 0.1 for step in steps)
        assert all(step >= 0.05 - 1e-9 for step in steps[:-1])


def test_progress_ends_at_1_where_nothing_is_attacked(standard: models.Model, part: Dataset) -> None:
    shares: list[float] = []
    metrics.robust_accuracy(standard, part.with_labels((part.labels + 1) % 10), BALLS[:1], progress=shares.append)
    assert shares[-1] == 1.0


def test_progress_never_falls_where_memory_runs_out(standard: models.Model, part: Dataset) -> None:
    """A batch that memory does not suffice for is begun anew, with half of the images."""
    passes, shares = 0, list[float]()

    class Large(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            nonlocal passes
            passes += 1
            if passes > 20 and len(images) > 10:
                raise MemoryError
            return standard(images)

    with pytest.warns(NotbugsWarning, match="memory ran out"):
        metrics.robust_accuracy(
            Large(), part.select(slice(0, 20)), BALLS[:2], budget="quick", batch_size=20, progress=shares.append
        )
    assert shares == sorted(set(shares)) and shares[-1] == 1.0


def test_one_image_and_an_epsilon_of_0(standard: models.Model, part: Dataset) -> None:
    single = part.select([3])
    rows = metrics.robust_accuracy(standard, single, [NormBall("linf", 0.0), NormBall("linf", 1.0)])
    assert [(row.correct, row.n, row.norm) for row in rows] == [(1, 1, "linf"), (1, 1, "linf"), (0, 1, "linf")]


def test_images_that_are_misclassified_clean_stay_misclassified(standard: models.Model, part: Dataset) -> None:
    wrong = part.with_labels((part.labels + 1) % 10)
    rows = metrics.robust_accuracy(standard, wrong, [NormBall("l2", 8.0)])
    assert [row.correct for row in rows] == [int((standard(wrong.pixels(slice(None))).argmax(1) == wrong.labels).sum()), 0]


@pytest.mark.parametrize(("norms", "got"), [((), "none"), (("l2", "linf"), "l2, linf")])
def test_threat_models_are_in_one_norm(norms: tuple[str, ...], got: str, standard: models.Model, part: Dataset) -> None:
    with pytest.raises(InputError, match=rf"^threat_models: must be one or more, all in the same norm, got {got}$"):
        metrics.robust_accuracy(standard, part, [NormBall(norm, 0.1) for norm in norms])


def test_metrics_leave_the_model_as_it_was(part: Dataset) -> None:
    model = models.build("small", shape=(1, 8, 8), classes=10, width=4).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    metrics.clean_accuracy(model, part)
    metrics.robust_accuracy(model, part, BALLS[:1])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
