"""From scores to rows: ranks, robustness, likely label errors, subsets, ranges of all columns."""

from dataclasses import replace

import numpy as np
import pytest
from files.conftest import QUICK

from notbugs import data
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.files import scores
from notbugs.files.columns import CATEGORIES, COLUMNS
from notbugs.files.fold_scores import FoldScores


def test_ranks_are_within_classes_and_ties_share_theirs() -> None:
    values, labels = np.array([3.0, 1.0, 2.0, 2.0, 9.0, 5.0, 7.0]), np.array([0, 0, 0, 0, 1, 1, 2])
    assert scores.class_ranks(values, labels).tolist() == pytest.approx([1, 0, 0.5, 0.5, 1, 0, 0.5])


def test_robustness_is_what_standard_evidence_does_not_explain() -> None:
    """Robust evidence = standard evidence + something else: the ranks are that something's.

    Standard evidence counts as far as standard models are above chance level: at chance level it is not subtracted.
    """
    generator = np.random.default_rng(0)
    labels, shared, own = np.arange(2000) % 2, 9 + generator.normal(size=2000), generator.normal(size=2000)
    mean = dict.fromkeys(scores.STANDARD_EVIDENCE, shared) | dict.fromkeys(scores.ROBUST_EVIDENCE, shared + own)
    found = scores.robustness_score(mean, labels)
    assert np.corrcoef(found, own)[0, 1] > 0.8
    assert found.min() == 0 and found.max() == 1
    assert found[labels == 0].mean() == pytest.approx(0.5)
    at_chance = scores.robustness_score({**mean, "standard_margin": shared - np.median(shared)}, labels)
    assert np.corrcoef(at_chance, scores.class_ranks(shared + own, labels))[0, 1] > 0.999


def test_a_likely_label_error_needs_all_models_and_their_confidence() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    confident, uncertain = [0.9, 0.1], [0.45, 0.55]
    one = np.array([confident, confident, confident[::-1], confident[::-1], confident[::-1], uncertain])
    mean = {"standard_probabilities": one, "robust_probabilities": one}
    found = scores.likely_label_errors(mean, ["standard", "robust"], labels)
    assert found.tolist() == [False, False, True, False, False, False]
    other = one.copy()
    other[2] = confident  # one model agrees with the label
    mean["robust_probabilities"] = other
    assert not scores.likely_label_errors(mean, ["standard", "robust"], labels).any()


@pytest.mark.parametrize("top", [0.5, 0.2, 0.04])
def test_subsets_are_balanced_and_hold_the_highest_and_the_lowest(top: float) -> None:
    generator = np.random.default_rng(0)
    labels = ["abc"[index % 3] for index in range(100)]
    values = [float(generator.random()) for _ in range(100)]
    high, low = scores.top_and_bottom(labels, values, top)
    assert not {*high} & {*low} and high == sorted(high)
    for label in "abc":
        own = [index for index in range(100) if labels[index] == label]
        count = int(top * len(own) + 1e-9)
        ranked = sorted(own, key=lambda index: values[index])
        assert {index for index in low if labels[index] == label} == {*ranked[:count]}
        assert {index for index in high if labels[index] == label} == {*ranked[len(own) - count :]}
    for wrong in (0.0, 0.51, float("nan"), 0.02):  # of 33 files the last leaves none
        with pytest.raises(InputError, match=r"^--top"):
            scores.top_and_bottom(labels, values, wrong)


@pytest.mark.slow
def test_one_row_per_file_with_every_score_in_its_range_and_reproducible(few: Dataset, digits: data.Splits) -> None:
    rows = scores.per_file(few, QUICK, folds=2, repeats=2, seed=3, test=digits.test)
    assert [row.file for row in rows] == [*few.names]
    assert [row.index for row in rows] == [*range(120)]
    assert [row.label for row in rows] == [few.classes[label] for label in few.labels.tolist()]
    described = {column.column for column in COLUMNS}
    assert {*vars(rows[0])} == {"index", "file", "label", *described} and None not in vars(rows[0]).values()
    for column in COLUMNS:
        assert column.description
        if column.range == "":
            continue
        assert column.high_means
        values = np.array([getattr(row, column.column) for row in rows])
        assert np.isfinite(values).all(), column.column
        low, _, high = column.range.partition(" to ")
        if column.range != "any":
            assert values.min() >= float(low.split()[0]) - 1e-6, column.column
        if high:
            assert values.max() <= float(high) + 1e-6, column.column
    assert {row.category for row in rows} <= {*CATEGORIES}
    assert rows == scores.per_file(few, QUICK, folds=2, repeats=2, seed=3, test=digits.test)


@pytest.mark.slow
def test_without_versions_two_models_are_trained_and_their_scores_are_empty(few: Dataset) -> None:
    rows = scores.per_file(few, replace(QUICK, train_on_versions=False), folds=2, repeats=1)
    assert {name for name, value in vars(rows[0]).items() if value is None} == {
        "trained_on_robust_correct",
        "trained_on_robust_margin",
        "trained_on_nonrobust_correct",
        "trained_on_nonrobust_margin",
        "margin_from_spurious_features",
    }
    assert np.isfinite([row.robustness for row in rows]).all()


def test_rank_reliability_is_the_agreement_of_repetitions() -> None:
    generator = np.random.default_rng(0)
    labels, true = np.arange(900) % 3, generator.normal(size=900)

    def noisy(noise: float) -> FoldScores:
        names = (*scores.ROBUST_EVIDENCE, *scores.STANDARD_EVIDENCE)
        own = {name: true if name in scores.ROBUST_EVIDENCE else 0 * true for name in names}
        return {name: value + noise * generator.normal(size=900) for name, value in own.items()}

    high, low = (scores.rank_reliability([noisy(noise), noisy(noise)], labels) for noise in (0.1, 2.0))
    assert high > 0.95 > 0.8 > low > 0.1
    assert scores.rank_reliability([noisy(2.0) for _ in range(8)], labels) > low
    assert np.isnan(scores.rank_reliability([noisy(0.1)], labels))
    opposed = noisy(0.0)
    assert -1 <= scores.rank_reliability([opposed, {name: -value for name, value in opposed.items()}], labels) < 0
