"""Means over seeds: Student's interval, that of one seed, and what was not measured."""

import math

import pytest
from report.conftest import student

from notbugs.report.seed_mean import Value, seed_mean


def test_means_over_seeds_have_students_interval_and_one_seed_its_own() -> None:
    values = [Value(rate, 0.1, 0.3, 50) for rate in (0.2, 0.3, 0.5)]
    mean = seed_mean(values)
    assert mean and (mean.ci_low, mean.ci_high) == pytest.approx(student([0.2, 0.3, 0.5])) and mean.mean == pytest.approx(1 / 3)
    assert (mean.n, mean.seeds, mean.over_seeds) == (50, 3, True)
    single = seed_mean(values[:1])
    assert single and (single.mean, single.ci_low, single.ci_high, single.seeds, single.over_seeds) == (0.2, 0.1, 0.3, 1, False)
    equal = seed_mean([values[0], values[0]])
    assert equal and (equal.ci_low, equal.ci_high, equal.seeds, equal.over_seeds) == (0.1, 0.3, 2, False)
    bare = seed_mean([Value(0.2)])
    assert bare and math.isnan(bare.ci_low) and math.isnan(bare.ci_high)


def test_means_leave_out_what_was_not_measured() -> None:
    assert seed_mean([]) is None
    assert seed_mean([Value(None), Value(None, None, None)]) is None
    mean = seed_mean([Value(None), Value(0.4, 0.3, 0.5)])
    assert mean and (mean.mean, mean.seeds, mean.n) == (0.4, 1, 0)


def test_the_interval_of_a_share_ends_at_0_and_1() -> None:
    for low, values in ((True, (0.0, 0.02, 0.1)), (False, (1.0, 0.98, 0.9))):
        free, share = seed_mean(map(Value, values)), seed_mean(map(Value, values), share=True)
        assert free and share
        wanted = student(values)
        assert (free.ci_low, free.ci_high) == pytest.approx(wanted) and (free.ci_low < 0 if low else free.ci_high > 1)
        assert (share.ci_low, share.ci_high) == (pytest.approx(max(wanted[0], 0)), pytest.approx(min(wanted[1], 1)))
        assert (share.mean, share.seeds, share.over_seeds) == (free.mean, 3, True)


def test_seeds_that_agree_but_for_rounding_have_no_interval_of_length_0() -> None:
    """0.42 − 0.4 and 0.92 − 0.9 are the same excess, of 10 images in 500, but differ in their last bit."""
    one, other = (Value(p - q, -0.04, 0.08) for p, q in ((0.42, 0.4), (0.92, 0.9)))
    assert one.value != other.value and one.value == pytest.approx(other.value)
    mean = seed_mean([one, other])
    assert mean and (mean.mean, mean.ci_low, mean.ci_high, mean.over_seeds) == (0.02, -0.04, 0.08, False)
