"""Subset regression: the weights of scores from trainings on halves, and the columns and subsets that follow."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cli.conftest import call_here
from files.conftest import QUICK, Done

from notbugs import data
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.files.fold_scores import FoldScores
from notbugs.files.robustness import top_and_bottom
from notbugs.files.subset_regression import Pair, deal, orthogonal, regress, ridge_weights, scores_to_combine, train_pair
from notbugs.report import files_summary
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.files import FileRow, SubsetPairRow, SubsetRegressionRow, SubsetRegressionWeightRow


def test_ridge_weights_are_found_again_and_chance_is_not_predicted() -> None:
    generator = np.random.default_rng(0)
    differences, truth = generator.normal(size=(60, 9)), generator.normal(size=9)
    outcomes = differences @ truth + 0.1 * generator.normal(size=60)
    weights, predicted = ridge_weights(differences, outcomes)
    np.testing.assert_allclose(weights, truth, atol=0.2)
    assert np.corrcoef(predicted, outcomes)[0, 1] > 0.99
    by_chance = generator.normal(size=60)
    assert abs(np.corrcoef(ridge_weights(differences, by_chance)[1], by_chance)[0, 1]) < 0.6


def test_predictions_of_pairs_left_out_are_those_of_regressions_without_them() -> None:
    generator = np.random.default_rng(1)
    differences = generator.normal(size=(12, 3))
    outcomes = differences @ [1.0, -2.0, 0.5] + generator.normal(size=12)
    weights, predicted = ridge_weights(differences, outcomes)
    residual = outcomes - differences @ weights
    ridges = [10.0**power * np.trace(differences.T @ differences) / 3 for power in np.arange(-4, 2.5, 0.5)]
    fits = [
        (ridge, np.linalg.solve(differences.T @ differences + ridge * np.eye(3), differences.T @ outcomes)) for ridge in ridges
    ]
    ridge = min(fits, key=lambda fit: np.abs(fit[1] - weights).max())[0]
    for left in range(12):
        others = np.delete(differences, left, 0)
        without = np.linalg.solve(others.T @ others + ridge * np.eye(3), others.T @ np.delete(outcomes, left))
        assert predicted[left] == pytest.approx(differences[left] @ without)
    assert np.abs(outcomes - predicted).mean() > np.abs(residual).mean()


def test_orthogonal_weights_do_not_move_the_other_outcome() -> None:
    generator = np.random.default_rng(0)
    ranks, truth = generator.uniform(size=(4000, 9)), generator.normal(size=9)
    other = truth + generator.normal(size=9)
    found = orthogonal(truth, other, np.cov(ranks.T))
    gaps = []
    for score in (ranks @ truth, ranks @ found):
        upper, lower = top_and_bottom(["a"] * 4000, score.tolist(), 0.5)
        gaps.append((ranks[upper].mean(0) - ranks[lower].mean(0)) @ np.stack([truth, other], axis=1))
    assert abs(gaps[1][1]) < 0.1 * abs(gaps[0][1]) and gaps[1][0] > 0.2
    assert (orthogonal(truth, np.zeros(9), np.cov(ranks.T)) == truth).all()  # clean accuracy that nothing moves


def pairs_by(separation: np.ndarray, clean: np.ndarray, ranks: np.ndarray, count: int = 60) -> list[Pair]:
    """Pairs of halves whose accuracies follow from known weights."""
    generator, found = np.random.default_rng(3), []
    for _ in range(count):
        upper, lower = top_and_bottom(["a"] * len(ranks), (ranks @ generator.normal(size=ranks.shape[1])).tolist(), 0.5)
        gap = ranks[upper].mean(0) - ranks[lower].mean(0)
        robust, accuracy = (float(gap @ each + 0.01 * generator.normal()) for each in (separation, clean))
        found.append(Pair(np.array(upper), np.array(lower), (0.5 + accuracy, 0.5), (0.4 + robust, 0.4), 50))
    return found


def test_the_score_that_moves_robust_accuracy_is_found_and_a_null_is_called_one() -> None:
    generator = np.random.default_rng(2)
    ranks, labels = generator.uniform(size=(400, 3)), np.zeros(400, dtype=int)
    scores = dict(zip(("steps", "margin", "loss"), ranks.T, strict=True))
    found = regress(pairs_by(np.array([0.0, 0.3, 0.0]), np.array([0.0, 0.0, 0.3]), ranks), scores, labels)
    assert max(found.weights, key=found.weights.__getitem__) == "margin" and found.ci_low > 0.9
    assert max(found.clean_weights, key=found.clean_weights.__getitem__) == "loss"
    assert np.corrcoef(found.combined, ranks[:, 1])[0, 1] > 0.95
    null = regress(pairs_by(np.zeros(3), np.zeros(3), ranks, 20), scores, labels)
    assert null.ci_low <= 0
    row = SubsetRegressionRow(pairs=20, files=400, n=50, correlation=null.correlation, ci_low=null.ci_low, ci_high=null.ci_high)
    assert "not measurably: do not use subset_regression" in files_summary.subset_regression(row)


def test_held_out_files_share_no_group_with_the_others_and_too_few_files_are_an_error(few: Dataset) -> None:
    groups = [f"g{index // 3}" for index in range(len(few))]
    pool = deal(replace(few, groups=tuple(groups)), 0)
    assert not {groups[index] for index in pool.held_out} & {groups[index] for index in pool.files}
    assert sorted([*pool.held_out, *pool.files]) == [*range(len(few))]
    with pytest.raises(InputError, match="--subset-regression: needs 4 or more files of each class, got 3"):
        deal(few.select(torch.cat([(few.labels == label).nonzero().squeeze(1)[:3] for label in (0, 1)])), 0)


def some_scores(count: int, classes: int) -> FoldScores:
    generator = np.random.default_rng(0)
    names = (
        *("standard_margin", "robust_margin", "robust_minimum_norm", "robust_attacked_margin", "standard_minimum_norm"),
        *("robust_pgd_steps_to_misclassify", "epochs_confidence", "forgetting_events", "margin_kept_on_robust_version"),
        *("margin_lost_on_robust_version", "influence"),
    )
    probabilities = generator.dirichlet(np.ones(classes), size=count)
    return {**{name: generator.normal(size=count) for name in names}, "standard_probabilities": probabilities}


def test_scores_that_a_model_does_not_have_are_left_out() -> None:
    whole, labels = some_scores(30, 3), np.arange(30) % 3
    assert "influence" in scores_to_combine([whole], labels)
    whole["influence"][:] = np.nan
    whole["margin_lost_on_robust_version"][:] = np.nan
    found = scores_to_combine([whole], labels)
    assert not {"influence", "margin kept - lost on the robust version"} & found.keys() and len(found) == 8
    del whole["influence"]  # of an older version
    assert found.keys() == scores_to_combine([whole], labels).keys()


@pytest.mark.slow
def test_a_pair_is_two_halves_of_the_files_that_are_not_held_out(few: Dataset) -> None:
    scores = scores_to_combine([some_scores(len(few), 10)], few.labels.numpy())
    pair, pool = train_pair(few, scores, QUICK, seed=0, number=1), deal(few, 0)
    halves = {*pair.upper.tolist()}, {*pair.lower.tolist()}
    assert not halves[0] & halves[1] and halves[0] | halves[1] <= {*pool.files.tolist()}
    assert torch.equal(*(few.labels[torch.from_numpy(half)].bincount(minlength=10) for half in (pair.upper, pair.lower)))
    assert pair.held_out == len(pool.held_out) and all(0 <= each <= 1 for each in (*pair.clean, *pair.robust))
    again = train_pair(few, scores, QUICK, seed=0, number=1)
    assert (again.clean, again.robust) == (pair.clean, pair.robust)
    other = train_pair(few, scores, QUICK, seed=0, number=2)
    assert {*other.upper.tolist()} != halves[0]


@pytest.mark.slow
def test_pairs_are_added_to_a_run_and_decide_its_subsets(done: Done, tmp_path: Path) -> None:
    run, words = tmp_path / "run", [*done.words]
    words[words.index("--out") + 1] = str(run)
    shutil.copytree(done.run, run)
    before = RunFolder.read(run).rows(FileRow)
    assert before[0].subset_regression is None and before[0].influence is not None
    printed = call_here(*words, "--subset-regression", "10")
    assert printed.returncode == 0, printed.stderr
    finished = [line for line in printed.stderr.splitlines() if line.startswith("done:")]
    assert finished == [f"done: subset regression, pair {number + 1}" for number in range(10)]
    assert re.search(r"Subset regression: 10 pairs .* predicted with r = −?\d\.\d\d \[", printed.stdout)
    record = RunFolder.read(run)
    rows, pairs, weights = record.rows(FileRow), record.rows(SubsetPairRow), record.rows(SubsetRegressionWeightRow)
    (found,) = record.rows(SubsetRegressionRow)
    assert (found.pairs, len(pairs)) == (10, 10) and len(weights) == 10
    assert all(row.separation == pytest.approx(row.robust_upper - row.robust_lower) for row in pairs)
    assert [row.robustness for row in rows] == [row.robustness for row in before]
    subset = data.load_part(run / "datasets/robust-files", "folder")
    rank = {row.file: row.subset_regression or 0.0 for row in rows}
    others = data.load_part(run / "datasets/nonrobust-files", "folder")
    assert np.mean([rank[name] for name in subset.names]) > np.mean([rank[name] for name in others.names]) + 0.3
    assert "highest subset_regression" in (run / "datasets/robust-files/README.md").read_text()
    assert "Subset regression: 10 pairs" in (run / "report.html").read_text()
    again = call_here(*words)  # as before: by robustness, and no column says what is not asked for
    assert again.returncode == 0 and "done:" not in again.stderr and "Subset regression" not in again.stdout
    assert RunFolder.read(run).rows(FileRow) == before


@pytest.mark.parametrize(("pairs", "message"), [("5", "must be 0 or from 10 to 1,000 pairs"), ("-1", "must be 0 or from 10")])
def test_too_few_pairs_are_an_error_before_anything_is_written(pairs: str, message: str, tmp_path: Path) -> None:
    printed = call_here("files", "digits", "--limit", "100", "--subset-regression", pairs, "--out", str(tmp_path / "run"))
    assert printed.returncode == 2 and "--subset-regression" in printed.stderr and message in printed.stderr
    assert not (tmp_path / "run").exists()
