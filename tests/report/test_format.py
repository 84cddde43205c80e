"""Figures as text."""

import math

import pytest

from notbugs.report.format import Estimate, interval, join_names, plain, signed


def test_both_ends_of_an_interval_are_in_brackets_with_minus_signs() -> None:
    ends = {
        (0.012, 0.1): "[1.2, 10.0]",
        (-0.044, 0.017): "[−4.4, 1.7]",
        (-0.2, -0.05): "[−20.0, −5.0]",
        (0.0, 1.0): "[0.0, 100.0]",
    }
    for (low, high), text in ends.items():
        assert Estimate((low + high) / 2, low, high, 9, 3, True).interval == text


def test_zero_has_no_minus_sign() -> None:
    assert interval(-0.001, 0.0) == "[0.0, 0.0]"
    estimate = Estimate(-0.0001, -0.0001, 0.0001, 9, 3, True)
    assert estimate.signed_points == "+0.0" and signed(estimate) == "+0.00 [0.00, 0.00]"


def test_an_estimate_says_what_its_interval_is_over() -> None:
    assert Estimate(0.5, 0.4, 0.6, 9, 3, True).ci == "95 % CI [40.0, 60.0] over 3 seeds"
    assert Estimate(0.5, 0.4, 0.6, 9, 1, False).ci == "95 % CI [40.0, 60.0] over the test images"
    assert Estimate(-0.5, -0.6, -0.4, 9, 3, True).points == "−50.0 percentage points"
    assert Estimate(0.5, math.nan, math.nan, 9, 1, False).cell == "50.0 %"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00012345, "0.000123"), (1234567.0, "1,234,567"), ("", "–"), (None, "–"), (False, "no"), ([1, 2], "1, 2")],
)
def test_cells_of_settings_are_short(value: object, text: str) -> None:
    assert plain(value) == text


def test_no_names_are_none() -> None:
    assert join_names([]) == "none" and join_names(["a", "b"]) == "a, b"
