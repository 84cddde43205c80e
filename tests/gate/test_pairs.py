"""Pairs of audits, as of several training seeds."""

from pathlib import Path

import numpy as np
import pytest
from cli.conftest import call_here, error_line
from gate.test_compare import audited, outcomes
from scipy import stats

from notbugs.errors import InputError
from notbugs.gate.pairs import _interval, compare_pairs


def test_the_mean_of_the_pairs_with_the_images_that_all_have(tmp_path: Path) -> None:
    pairs = []
    for number, (only_first, only_second) in enumerate([(5, 20), (10, 15), (4, 26)]):
        first, second = outcomes(50, only_first, only_second, 50 - only_first - only_second)
        if number == 2:  # an image that the others do not have
            first["more.png"] = second["more.png"] = True
        pairs.append((audited(tmp_path / f"a{number}", first), audited(tmp_path / f"b{number}", second)))
    clean, attacked = compare_pairs(pairs)
    assert (clean.threat, clean.n, clean.difference, clean.differences) == ("clean", 100, 0, (0, 0, 0))
    assert clean.ci_low == -clean.ci_high and 0.03 < clean.ci_high < 0.04  # 100 images that agree leave that open
    assert attacked.n == 100 and attacked.differences == pytest.approx((0.15, 0.05, 0.22))
    assert (attacked.difference, attacked.second - attacked.first) == pytest.approx((0.14, 0.14))
    assert attacked.ci_low < 0 < attacked.ci_high  # pairs differ: one training alone would not show it
    assert attacked.conclusion.startswith("Undecided which has higher robust accuracy within l2 0.5")


def test_the_variance_is_that_of_a_two_way_table() -> None:
    """By mean squares: images, pairs, and what is left."""
    found = np.random.default_rng(0).integers(-1, 2, (3, 40)).astype(float)
    found[1] += 0.2  # pairs differ
    images, pairs = 3 * found.mean(0).var(ddof=1), 40 * found.mean(1).var(ddof=1)
    left = 120 * found.var() - 39 * images - 2 * pairs
    variance = (images + pairs - left / 78) / 120
    freedom = variance**2 / ((images / 120) ** 2 / 39 + (pairs / 120) ** 2 / 2)
    low, mean, high = _interval(found)
    assert mean == pytest.approx(found.mean())
    width = float(stats.t.ppf(0.975, freedom)) * variance**0.5
    assert (low, high) == pytest.approx((mean - width, mean + width))


@pytest.mark.parametrize(("trainings", "of_training"), [(3, 0.06), (3, 0.0), (5, 0.1)])
def test_the_interval_covers_the_true_difference_in_95_percent(trainings: int, of_training: float) -> None:
    """60 images, some of which the second gets right more often, and trainings that are better or worse on all of them."""
    generator, covered, repeats, true = np.random.default_rng(0), 0, 1000, 0.08
    for _ in range(repeats):
        easy = generator.uniform(0, 1, 60)  # of each image, drawn anew: its accuracy with the first
        better = np.clip(easy + true, 0, 1)
        luck = generator.normal(0, of_training, (trainings, 1))
        first = generator.uniform(size=(trainings, 60)) < easy
        second = generator.uniform(size=(trainings, 60)) < np.clip(better + luck, 0, 1)
        low, _, high = _interval(second.astype(float) - first)
        covered += low <= float(np.clip(np.linspace(0, 1, 10_001) + true, 0, 1).mean() - 0.5) <= high
    assert covered / repeats >= 0.94


def test_two_pairs_are_needed_and_each_audit_once(tmp_path: Path) -> None:
    first, second = (audited(tmp_path / name, right) for name, right in zip("ab", outcomes(5, 1, 2, 2), strict=True))
    with pytest.raises(InputError, match="RUN: must be two pairs or more, got 1"):
        compare_pairs([(first, second)])
    with pytest.raises(InputError, match=r"RUN: must be in one pair only, got .*/a, .*/b; train and attack anew"):
        compare_pairs([(first, second), (first, second)])


def test_the_command_prints_each_pair_and_the_mean_and_writes_one_page(tmp_path: Path) -> None:
    folders = []
    for seed, (only_first, only_second) in enumerate([(2, 30), (3, 29)]):
        for name, right in zip("ab", outcomes(60, only_first, only_second, 6), strict=True):
            folders.append(audited(tmp_path / f"{name}-{seed}", right).folder)
    done = call_here("compare", "--pairs", *folders, "--out", tmp_path / "both.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Second: ") == 2 and "Mean of 2 pairs." in done.stdout
    mean = done.stdout.partition("Mean of 2 pairs.")[2]
    assert all(words in mean for words in ("+27.6", "+28.6, +26.5", "The second has higher robust accuracy within l2 0.5."))
    page = (tmp_path / "both.html").read_text()
    assert "Mean of 2 pairs of audits" in page and page.count("<table>") == 3
    assert "must be two pairs or more with --pairs, got 3 runs" in error_line(call_here("compare", "--pairs", *folders[:3]))
