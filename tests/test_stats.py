"""Confidence intervals against closed forms, published examples and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from notbugs import stats

VALUES = st.lists(st.floats(-10, 10), min_size=2, max_size=20)


def proportion(correct: int, n: int) -> tuple[float, float, float]:
    return (correct / n, *stats.wilson_interval(correct, n))


@given(st.integers(1, 5000), st.data())
def test_wilson_interval_has_the_closed_form(n: int, draw: st.DataObject) -> None:
    correct = draw.draw(st.integers(0, n))
    z, share = 1.959963984540054, correct / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = stats.wilson_interval(correct, n)
    assert low == pytest.approx(middle - half_width, abs=1e-9)
    assert high == pytest.approx(middle + half_width, abs=1e-9)
    assert 0 <= low <= share <= high <= 1


def test_newcombe_difference_of_the_published_example() -> None:
    """Newcombe 1998, table II, example (a), method 10."""
    found = stats.newcombe_difference(proportion(56, 70), proportion(48, 80))
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@given(st.integers(1, 500), st.integers(1, 500), st.data())
def test_newcombe_difference_is_antisymmetric_and_contains_the_difference(n: int, m: int, draw: st.DataObject) -> None:
    p, q = proportion(draw.draw(st.integers(0, n)), n), proportion(draw.draw(st.integers(0, m)), m)
    difference, low, high = stats.newcombe_difference(p, q)
    assert difference == p[0] - q[0] and low <= difference <= high
    assert low >= -1 - 1e-9 and high <= 1 + 1e-9
    assert stats.newcombe_difference(q, p) == pytest.approx((-difference, -high, -low), abs=1e-12)


def test_newcombe_difference_from_a_certain_proportion_shifts_the_interval() -> None:
    p = proportion(30, 100)
    assert stats.newcombe_difference(p, (0.1, 0.1, 0.1)) == pytest.approx([end - 0.1 for end in p])


@pytest.mark.slow
@given(VALUES)
def test_student_interval_is_that_of_a_t_test(values: list[float]) -> None:
    if np.ptp(values) < 1e-6:
        return
    mean, low, high = stats.student_interval(values)
    wanted = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean == pytest.approx(np.mean(values))
    assert (low, high) == pytest.approx((wanted.low, wanted.high))


@given(VALUES, st.integers(1, 20))
def test_student_interval_of_several_comparisons_has_the_level_of_one_comparison_in_all(
    values: list[float], comparisons: int
) -> None:
    if np.ptp(values) < 1e-6:
        return
    mean, low, high = stats.student_interval(values, comparisons)
    wanted = scipy_stats.t.interval(1 - 0.05 / comparisons, len(values) - 1, np.mean(values), scipy_stats.sem(values))
    assert mean == pytest.approx(np.mean(values))
    assert (low, high) == pytest.approx(wanted)


@given(VALUES)
def test_mean_interval_over_images_is_student_s(values: list[float]) -> None:
    if np.ptp(values) < 1e-6:
        return
    found = stats.mean_interval(np.array(values))
    assert found.n == len(values)
    assert found[:3] == pytest.approx(stats.student_interval(values))


def test_the_mean_of_one_image_has_an_infinite_interval() -> None:
    assert stats.mean_interval(np.array([0.25])) == (0.25, -math.inf, math.inf, 1)


@pytest.mark.parametrize("freedom", [1, 2, 7, 100.5])
def test_student_quantile_is_that_of_both_tails(freedom: float) -> None:
    assert stats.student_quantile(freedom) == pytest.approx(scipy_stats.t.interval(0.95, freedom)[1])
    assert stats.student_quantile(freedom, 4) == pytest.approx(scipy_stats.t.interval(1 - 0.05 / 4, freedom)[1])


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=4, max_size=30))
def test_correlation_and_its_interval_are_pearsons(pairs: list[tuple[int, int]]) -> None:
    x, y = ([float(value) for value in column] for column in zip(*pairs, strict=True))
    found = stats.correlation(x, y)
    if len({*x}) == 1 or len({*y}) == 1:
        assert found == 0
        return
    wanted = scipy_stats.pearsonr(x, y)
    assert found == pytest.approx(wanted.statistic)
    if abs(found) < 0.9999:
        assert stats.correlation_interval(found, len(x)) == pytest.approx(tuple(wanted.confidence_interval()), abs=1e-6)


def test_the_interval_of_a_perfect_correlation_is_finite() -> None:
    for correlation in (-1.0, 1.0):
        low, high = stats.correlation_interval(correlation, 10)
        assert -1 <= low <= high <= 1 and high - low < 1e-6
