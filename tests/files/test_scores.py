"""From scores to rows and accuracies: ranges of all columns, categories, correct within epsilon."""

from dataclasses import replace

import numpy as np
import pytest
from files.conftest import QUICK

from notbugs import data
from notbugs.data import Dataset
from notbugs.files import scores
from notbugs.files.columns import CATEGORIES, COLUMNS
from notbugs.files.fold_scores import FoldScores
from notbugs.stats import wilson_interval

BY_OPTION = {"subset_regression", "subset_regression_equal_clean"}  # of a run with pairs of trainings


@pytest.mark.slow
def test_one_row_per_file_with_every_score_in_its_range_and_reproducible(few: Dataset, digits: data.Splits) -> None:
    rows = scores.per_file(few, QUICK, folds=2, repeats=2, seed=3, test=digits.test)
    assert [row.file for row in rows] == [*few.names]
    assert [row.index for row in rows] == [*range(120)]
    assert [row.label for row in rows] == [few.classes[label] for label in few.labels.tolist()]
    described = {column.column for column in COLUMNS}
    assert {*vars(rows[0])} == {"index", "file", "label", *described}
    assert {name for name, value in vars(rows[0]).items() if value is None} == BY_OPTION
    for column in COLUMNS:
        assert column.description
        if column.column in BY_OPTION:
            continue
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
        "margin_lost_on_test_part",
        *BY_OPTION,
    }
    assert np.isfinite([row.robustness for row in rows]).all()


def some_scores(**changed: list[float]) -> FoldScores:
    """One repetition over six files of two classes: all models are right, clean and within epsilon 1."""
    scores: FoldScores = {}
    for model in ("standard", "robust"):
        scores |= {f"{model}_{name}": np.full(6, 2.0) for name in ("margin", "attacked_margin", "minimum_norm")}
        scores[f"{model}_probabilities"] = np.eye(2)[np.arange(6) % 2]
    return scores | {name: np.array(values) for name, values in changed.items()}


def test_correct_within_epsilon_needs_both_attacks_to_fail() -> None:
    found = some_scores(
        robust_margin=[2, 2, 2, -1, 2, 2],
        robust_attacked_margin=[1, -1, 1, 1, 1, 1],
        robust_minimum_norm=[2, 2, 1, 2, np.inf, 0.5],
    )
    assert scores.correct_within(found, "robust", 1.0).tolist() == [True, False, False, False, True, False]


def test_accuracies_are_means_over_repetitions_with_the_interval_of_the_files() -> None:
    whole = [some_scores(), some_scores(robust_margin=[2, 2, 2, -1, -1, -1], robust_minimum_norm=[5, 0.5, 4, 0, 0, 0])]
    standard, robust = scores.model_accuracies(whole, 1.0)
    assert (standard.model, standard.accuracy, standard.robust_accuracy) == ("standard", 1.0, 1.0)
    assert robust.accuracy == 0.75 and robust.robust_accuracy == pytest.approx(8 / 12)
    assert (robust.robust_ci_low, robust.robust_ci_high) == pytest.approx(wilson_interval(4, 6))
    assert robust.median_minimum_norm == 2.0  # of 2 2 2 2 2 2 and 5 0.5 4, the correctly classified ones
    assert (robust.n, robust.epsilon) == (6, 1.0)


def test_without_a_correct_file_there_is_no_median() -> None:
    (_, robust) = scores.model_accuracies([some_scores(robust_margin=[-1] * 6)], 1.0)
    assert robust.accuracy == 0 and robust.median_minimum_norm is None


def test_categories_are_absolute() -> None:
    """What the majority of models does with a file; its rank plays no part: all files may be robust, or none."""
    shares = {"robust_correct_within_epsilon": np.array([1.0, 0.6, 0.5, 0.0, 0.0, 1.0])}
    shares["standard_correct"] = np.array([0.0, 1.0, 0.6, 1.0, 0.5, 1.0])
    label_errors = np.array([False, False, False, False, False, True])
    found = ["robust", "robust", "non-robust", "non-robust", "misclassified", "likely label error"]
    assert scores.categories(shares, label_errors) == found
    assert scores.categories({name: np.ones(6) for name in shares}, np.zeros(6, bool)) == ["robust"] * 6
