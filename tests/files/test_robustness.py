"""`robustness`: ranks within classes, what standard evidence does not explain, rank stability, subsets."""

import numpy as np
import pytest

from notbugs.errors import InputError
from notbugs.files import robustness
from notbugs.files.fold_scores import FoldScores


def test_ranks_are_within_classes_and_ties_share_theirs() -> None:
    values, labels = np.array([3.0, 1.0, 2.0, 2.0, 9.0, 5.0, 7.0]), np.array([0, 0, 0, 0, 1, 1, 2])
    assert robustness.class_ranks(values, labels).tolist() == pytest.approx([1, 0, 0.5, 0.5, 1, 0, 0.5])


def test_robustness_is_what_standard_evidence_does_not_explain() -> None:
    """Robust evidence = standard evidence + something else: the ranks are that something's.

    Standard evidence counts as far as standard models are above chance level: at chance level it is not subtracted.
    """
    generator = np.random.default_rng(0)
    labels, shared, own = np.arange(2000) % 2, 9 + generator.normal(size=2000), generator.normal(size=2000)
    mean = dict.fromkeys(robustness.STANDARD_EVIDENCE, shared) | dict.fromkeys(robustness.ROBUST_EVIDENCE, shared + own)
    found = robustness.robustness_score(mean, labels)
    assert np.corrcoef(found, own)[0, 1] > 0.8
    assert found.min() == 0 and found.max() == 1
    assert found[labels == 0].mean() == pytest.approx(0.5)
    at_chance = robustness.robustness_score({**mean, "standard_margin": shared - np.median(shared)}, labels)
    assert np.corrcoef(at_chance, robustness.class_ranks(shared + own, labels))[0, 1] > 0.999


@pytest.mark.parametrize("top", [0.5, 0.2, 0.04])
def test_subsets_are_balanced_and_hold_the_highest_and_the_lowest(top: float) -> None:
    generator = np.random.default_rng(0)
    labels = ["abc"[index % 3] for index in range(100)]
    values = [float(generator.random()) for _ in range(100)]
    high, low = robustness.top_and_bottom(labels, values, top)
    assert not {*high} & {*low} and high == sorted(high)
    for label in "abc":
        own = [index for index in range(100) if labels[index] == label]
        count = int(top * len(own) + 1e-9)
        ranked = sorted(own, key=lambda index: values[index])
        assert {index for index in low if labels[index] == label} == {*ranked[:count]}
        assert {index for index in high if labels[index] == label} == {*ranked[len(own) - count :]}
    for wrong in (0.0, 0.51, float("nan"), 0.02):  # of 33 files the last leaves none
        with pytest.raises(InputError, match=r"^--top"):
            robustness.top_and_bottom(labels, values, wrong)


def test_rank_stability_is_the_agreement_of_repetitions() -> None:
    generator = np.random.default_rng(0)
    labels, true = np.arange(900) % 3, generator.normal(size=900)

    def noisy(noise: float) -> FoldScores:
        names = (*robustness.ROBUST_EVIDENCE, *robustness.STANDARD_EVIDENCE)
        own = {name: true if name in robustness.ROBUST_EVIDENCE else 0 * true for name in names}
        return {name: value + noise * generator.normal(size=900) for name, value in own.items()}

    high, low = (robustness.rank_stability([noisy(noise), noisy(noise)], labels) for noise in (0.1, 2.0))
    assert high > 0.95 > 0.8 > low > 0.1
    assert robustness.rank_stability([noisy(2.0) for _ in range(8)], labels) > low
    assert np.isnan(robustness.rank_stability([noisy(0.1)], labels))
    opposed = noisy(0.0)
    assert -1 <= robustness.rank_stability([opposed, {name: -value for name, value in opposed.items()}], labels) < 0
