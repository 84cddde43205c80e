"""Error consistency: by hand, by brute force, and against scikit-learn's kappa."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notbugs import metrics, stats


def test_error_consistency_by_hand() -> None:
    """Ten images; one model errs on 5, the other on 4, both on 3 of these, and alike on 2."""
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    one = np.array([1, 1, 2, 0, 0, 2, 0, 1, 2, 2])
    other = np.array([1, 2, 0, 0, 0, 2, 1, 0, 2, 2])
    found = metrics.error_consistency(one, other, labels)
    assert found.n == 10 and found.agreement == 0.6
    assert found.both_wrong == 3 and found.same_mistake == pytest.approx(2 / 3)
    assert (found.same_mistake_ci_low, found.same_mistake_ci_high) == stats.wilson_interval(2, 3)
    # class 0: one model predicts 1, 1, 2, the other 1, 2: alike in 1/2 (two images); class 1: 2, 0 and 2, 0: in 1/2
    by_chance = (2 * (2 / 3 * 1 / 2 + 1 / 3 * 1 / 2) + 1 * (1 / 4 + 1 / 4)) / 3
    assert found.same_mistake_by_chance == pytest.approx(by_chance)
    p, q, alike = 0.5, 0.6, 0.7
    expected = p * q + (1 - p) * (1 - q)
    assert found.consistency == pytest.approx((alike - expected) / (1 - expected))


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_error_consistency_is_symmetric_and_each_part_is_its_definition(rows: list[tuple[int, int, int]]) -> None:
    from sklearn.metrics import cohen_kappa_score

    one, other, labels = (np.array(column) for column in zip(*rows, strict=True))
    found, swapped = metrics.error_consistency(one, other, labels), metrics.error_consistency(other, one, labels)
    assert found._asdict() == pytest.approx(swapped._asdict())
    both = [i for i, (a, b, label) in enumerate(rows) if label not in (a, b)]
    assert found.both_wrong == len(both)
    if both:
        assert found.same_mistake == pytest.approx(sum(one[i] == other[i] for i in both) / len(both))
        by_chance = []  # every mistake of the one on that class with every mistake of the other
        for i in both:
            pairs = [(a, b) for a, _, x in rows for _, b, y in rows if x == y == labels[i] and a != x and b != y]
            by_chance.append(sum(a == b for a, b in pairs) / len(pairs))
        assert found.same_mistake_by_chance == pytest.approx(sum(by_chance) / len(by_chance))
    else:
        interval = (found.same_mistake_ci_low, found.same_mistake_ci_high)
        assert (found.same_mistake, *interval, found.same_mistake_by_chance) == (None, None, None, None)
    correct = one == labels, other == labels
    if found.consistency is not None and len({*correct[0], *correct[1]}) == 2:
        assert found.consistency == pytest.approx(cohen_kappa_score(*correct))
        assert -1 <= found.consistency <= 1


def test_a_model_agrees_with_itself_and_independent_models_do_not() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 20_000)
    one, other = (np.where(generator.random(20_000) < share, labels, generator.integers(0, 5, 20_000)) for share in (0.8, 0.6))
    itself = metrics.error_consistency(one, one, labels)
    assert itself.agreement == itself.same_mistake == itself.consistency == 1
    independent = metrics.error_consistency(one, other, labels)
    assert independent.consistency is not None and abs(independent.consistency) < 0.03
    assert independent.same_mistake_by_chance == pytest.approx(0.25, abs=0.01)
    assert independent.same_mistake == pytest.approx(0.25, abs=0.05)


def test_models_that_are_always_right_or_always_wrong_have_no_consistency() -> None:
    labels = np.array([0, 1, 2, 0])
    right = metrics.error_consistency(labels, labels, labels)
    assert (right.consistency, right.same_mistake, right.agreement) == (None, None, 1)
    wrong = metrics.error_consistency((labels + 1) % 3, (labels + 2) % 3, labels)
    assert (wrong.consistency, wrong.same_mistake) == (None, 0)
