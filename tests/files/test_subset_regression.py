"""Subset regression: the weights of scores from trainings on halves, and the columns and subsets that follow."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cli.conftest import call_here
from files.conftest import QUICK, Done, stop_once_in

from notbugs import data
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.files.fold_scores import FoldScores
from notbugs.files.robustness import top_and_bottom
from notbugs.files.score_coordinates import SCORES, scores_to_combine, whitened
from notbugs.files.subset_pairs import Pair, deal, train_pair
from notbugs.files.subset_regression import left_out_predictions, orthogonal, regress, ridge_weights
from notbugs.report import files_summary
from notbugs.runs.folder import RunFolder, write_table
from notbugs.runs.tables.files import FileRow, SubsetPairRow, SubsetRegressionRow, SubsetRegressionWeightRow
from notbugs.search import NormBall
from notbugs.stats import correlation_interval


def test_ridge_weights_are_found_again() -> None:
    generator = np.random.default_rng(0)
    differences, truth = generator.normal(size=(60, 9)), generator.normal(size=9)
    outcomes = differences @ truth + 0.1 * generator.normal(size=60)
    np.testing.assert_allclose(ridge_weights(differences, outcomes), truth, atol=0.2)
    assert np.corrcoef(left_out_predictions(differences, outcomes), outcomes)[0, 1] > 0.99


def test_a_pair_left_out_does_not_change_its_own_prediction() -> None:
    generator = np.random.default_rng(1)
    differences, outcomes = generator.normal(size=(24, 3)), generator.normal(size=24)
    predicted = left_out_predictions(differences, outcomes)
    outcomes[5] += 100
    assert left_out_predictions(differences, outcomes)[5] == predicted[5]


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [20, 40])
def test_chance_is_seldom_called_predictable(pairs: int) -> None:
    """A lower end of the CI above 0: 2.5 % by chance, if it is one. 200 draws give at most 7 % with a probability of 0.999."""
    generator, called = np.random.default_rng(0), 0
    for _ in range(200):
        differences = generator.normal(size=(pairs, 6)) @ generator.normal(size=(6, 10))  # scores that are correlated
        outcomes = generator.normal(size=pairs)
        r = np.corrcoef(left_out_predictions(differences, outcomes), outcomes)[0, 1]
        called += correlation_interval(float(r), pairs)[0] > 0
    assert called / 200 <= 0.07


def test_coordinates_are_uncorrelated_and_orthogonal_weights_do_not_move_the_other_outcome() -> None:
    generator = np.random.default_rng(0)
    ranks = (0.9 * generator.uniform(size=(4000, 1)) + 0.1 * generator.uniform(size=(4000, 9))).T
    values, by_score = whitened(dict(zip("abcdefghi", ranks, strict=True)))
    np.testing.assert_allclose(np.cov(values.T), np.eye(9), atol=1e-6)
    np.testing.assert_allclose((ranks.T - ranks.mean(1)) @ by_score, values)
    truth = generator.normal(size=9)
    other = truth + generator.normal(size=9)
    found = orthogonal(truth, other)
    gaps = []
    for score in (values @ truth, values @ found):
        upper, lower = top_and_bottom(["a"] * 4000, score.tolist(), 0.5)
        gaps.append((values[upper].mean(0) - values[lower].mean(0)) @ np.stack([truth, other], axis=1))
    assert abs(gaps[1][1]) < 0.1 * abs(gaps[0][1]) and gaps[1][0] > 0.2
    assert (orthogonal(truth, np.zeros(9)) == truth).all()  # clean accuracy that nothing moves
    same = whitened({"a": ranks[0], "b": ranks[0]})  # two names of one score
    assert same.values.shape == (4000, 1)


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
    assert max(found.weights, key=found.weights.__getitem__) == "margin" and found.correlation[1] > 0.9
    assert max(found.clean_weights, key=found.clean_weights.__getitem__) == "loss" and found.clean_correlation[1] > 0.9
    assert np.corrcoef(found.combined, ranks[:, 1])[0, 1] > 0.95
    mixed = regress(pairs_by(np.array([0.0, 0.3, 0.3]), np.array([0.0, 0.0, 0.3]), ranks), scores, labels)
    assert np.corrcoef(mixed.equal_clean, ranks[:, 1])[0, 1] > 0.95  # the loss, which moves clean accuracy, does not count
    null = regress(pairs_by(np.zeros(3), np.zeros(3), ranks, 20), scores, labels)
    assert null.correlation[1] <= 0


@pytest.mark.parametrize(
    ("ci_low", "clean_ci_low", "says", "not_says"),
    [
        (0.5, 0.5, "of robust accuracy with r = 0.80 [0.50, 0.90], of clean accuracy with r = 0.70 [0.50, 0.90].", "do not use"),
        (-0.1, 0.5, "do not use its columns", "equal_clean"),
        (0.5, -0.1, "do not use subset_regression_equal_clean", "its columns"),
    ],
)
def test_what_is_no_better_than_chance_is_said(ci_low: float, clean_ci_low: float, says: str, not_says: str) -> None:
    row = SubsetRegressionRow(
        pairs=20,
        files=400,
        n=50,
        correlation=0.8,
        ci_low=ci_low,
        ci_high=0.9,
        clean_correlation=0.7,
        clean_ci_low=clean_ci_low,
        clean_ci_high=0.9,
    )
    text = files_summary.subset_regression(row)
    assert says in text and not_says not in text
    assert "left out" not in text.replace("pairs left out", "")
    assert "the same for all: influence." in files_summary.subset_regression(replace(row, left_out="influence"))


def test_held_out_files_share_no_group_with_the_others_and_too_few_files_are_an_error(few: Dataset) -> None:
    groups = [f"g{index // 3}" for index in range(len(few))]
    pools = [deal(replace(few, groups=tuple(groups)), 0, number) for number in range(5)]
    for pool in pools:
        assert not {groups[index] for index in pool.held_out} & {groups[index] for index in pool.files}
        assert sorted([*pool.held_out, *pool.files]) == [*range(len(few))]
    assert sorted(np.concatenate([pool.held_out for pool in pools[:4]])) == [*range(len(few))]  # each file once in four pairs
    assert pools[4].held_out.tolist() == pools[0].held_out.tolist()
    for part, given in (
        (few.select(torch.cat([(few.labels == label).nonzero().squeeze(1)[:3] for label in (0, 1)])), ()),  # three of each class
        (few, [f"g{index % 3}" for index in range(len(few))]),  # three groups
        (few, ["all zeros" if label == 0 else str(index) for index, label in enumerate(few.labels.tolist())]),
    ):
        with pytest.raises(InputError, match="--subset-regression: holds a quarter of each class out, which needs 4"):
            deal(replace(part, groups=tuple(given)), 0, 0)


@pytest.mark.parametrize(
    "damage",
    [
        {"upper": np.array([0, 1]), "lower": np.array([1, 2])},  # a file in both
        {"upper": np.array([0, 30])},
        {"upper": np.array([-1, 1])},
        {"upper": np.array([0.0, 1.0])},
        {"robust": np.array([0.5, np.nan])},
        {"clean": np.array([0.5, 1.5])},
        {"clean": np.array([0.5])},
        {"held_out": np.array(0)},
        {"held_out": None},
    ],
)
def test_a_damaged_pair_is_one_line(damage: dict[str, np.ndarray | None], tmp_path: Path) -> None:
    pair = Pair(np.array([0, 1]), np.array([2, 3]), (0.5, 0.4), (0.3, 0.2), 9)
    data.save_arrays(pair.arrays(), tmp_path / "pair.npz")
    again = Pair.load(tmp_path / "pair.npz", 30)
    assert (again.upper.tolist(), again.lower.tolist(), again.clean, again.robust, again.held_out) == (
        *([0, 1], [2, 3], pair.clean, pair.robust, 9),
    )
    kept = {name: values for name, values in {**pair.arrays(), **damage}.items() if values is not None}
    data.save_arrays(kept, tmp_path / "damaged.npz")
    with pytest.raises(InputError, match=r"damaged\.npz: must hold two halves of the files"):
        Pair.load(tmp_path / "damaged.npz", 30)


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
    assert not {"influence", "margin_kept_minus_lost"} & found.keys() and len(found) == 8
    del whole["influence"]  # of an older version
    assert found.keys() == scores_to_combine([whole, some_scores(30, 3)], labels).keys()  # or of one of two repetitions
    whole["forgetting_events"][:] = 1  # of all files
    assert "forgetting_events" not in scores_to_combine([whole], labels)


@pytest.mark.slow
def test_a_pair_is_two_halves_of_the_files_that_are_not_held_out(few: Dataset) -> None:
    scores = scores_to_combine([some_scores(len(few), 10)], few.labels.numpy())
    pair, pool = train_pair(few, scores, QUICK, seed=0, number=1), deal(few, 0, 1)
    halves = {*pair.upper.tolist()}, {*pair.lower.tolist()}
    assert not halves[0] & halves[1] and halves[0] | halves[1] <= {*pool.files.tolist()}
    assert torch.equal(*(few.labels[torch.from_numpy(half)].bincount(minlength=10) for half in (pair.upper, pair.lower)))
    assert pair.held_out == len(pool.held_out) and all(0 <= each <= 1 for each in (*pair.clean, *pair.robust))
    again = train_pair(few, scores, QUICK, seed=0, number=1)
    assert (again.clean, again.robust) == (pair.clean, pair.robust)
    other = train_pair(few, scores, QUICK, seed=0, number=2)
    assert {*other.upper.tolist()} != halves[0]


@pytest.mark.slow
@pytest.mark.parametrize("threat_model", [QUICK.threat_model, NormBall("linf", 0.1)], ids=str)
@pytest.mark.parametrize("killed_in", [("upper/half", 1), ("upper/half", 2), ("lower/half", 1)])
def test_a_pair_that_was_stopped_goes_on_with_the_same_result(
    killed_in: tuple[str, int], threat_model: NormBall, few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, config = scores_to_combine([some_scores(len(few), 10)], few.labels.numpy()), replace(QUICK, threat_model=threat_model)
    whole, said = train_pair(few, scores, config, seed=0, number=3), list[str]()
    epochs = stop_once_in(killed_in, tmp_path, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_pair(few, scores, config, seed=0, number=3, unfinished=tmp_path)
    found = train_pair(
        few, scores, config, seed=0, number=3, unfinished=tmp_path, progress=lambda share, words: said.append(words)
    )
    assert said == ["training on the upper half", "training on the lower half"]
    done = [(f"{side}/half", epoch) for side in ("upper", "lower") for epoch in (1, 2)]
    assert epochs == [*done[: done.index(killed_in) + 1], *done[done.index(killed_in) :]]  # no other epoch is done again
    assert (found.clean, found.robust) == (whole.clean, whole.robust)


@pytest.mark.slow
def test_pairs_are_added_to_a_run_and_decide_its_subsets(done: Done, tmp_path: Path) -> None:
    run, words = tmp_path / "run", [*done.words]
    words[words.index("--out") + 1] = str(run)
    shutil.copytree(done.run, run)
    before = RunFolder.read(run).rows(FileRow)
    assert before[0].subset_regression is None and before[0].influence is not None
    words[words.index("split")] = "files"
    ranked = words.copy()
    del words[words.index("--by-file") : words.index("--by-file") + 3]  # and --top
    printed = call_here(*words, "--subset-regression", "20")
    assert printed.returncode == 0, printed.stderr
    finished = [line for line in printed.stderr.splitlines() if line.startswith("done:")]
    assert finished == [f"done: subset regression, pair {number + 1}" for number in range(20)]
    assert re.search(r"Subset regression: 20 pairs .* of robust accuracy with r = −?\d\.\d\d \[", printed.stdout)
    record = RunFolder.read(run)
    rows, pairs, weights = record.rows(FileRow), record.rows(SubsetPairRow), record.rows(SubsetRegressionWeightRow)
    (found,) = record.rows(SubsetRegressionRow)
    left_out = found.left_out.split(", ") if found.left_out else []
    assert (found.pairs, len(pairs)) == (20, 20) and sorted([row.score for row in weights] + left_out) == sorted(SCORES)
    assert all(row.separation == pytest.approx(row.robust_upper - row.robust_lower) for row in pairs)
    assert [row.robustness for row in rows] == [row.robustness for row in before]
    assert "Subset regression: 20 pairs" in (run / "report.html").read_text()

    ranked[0] = "split"
    for ci_low in (0.3, -0.1):  # as if it had been found so
        table = record.folder / "tables" / "subset_regression.csv"
        write_table([replace(found, ci_low=ci_low)], table)
        split = call_here(*ranked, "--subset-regression", "20")
        assert split.returncode == (0 if ci_low > 0 else 2), split.stderr
        if ci_low <= 0:
            assert "--subset-regression: must predict the separation of pairs left out" in split.stderr
            continue
        robust, others = (data.load_part(run / f"datasets/{name}-files", "folder") for name in ("robust", "nonrobust"))
        rank = {row.file: row.subset_regression or 0.0 for row in rows}
        assert np.mean([rank[name] for name in robust.names]) > np.mean([rank[name] for name in others.names]) + 0.3
        assert "highest subset_regression" in (run / "datasets/robust-files/README.md").read_text()

    repeated = call_here(*words, "--subset-regression", "20", "--repeats", "2")
    assert repeated.returncode == 0, repeated.stderr
    finished = [line for line in repeated.stderr.splitlines() if line.startswith("done:")]
    assert finished == ["done: repeat 2, fold 1", "done: repeat 2, fold 2"]  # no pair is trained again
    record = RunFolder.read(run)
    assert [replace(row, predicted=0.0) for row in record.rows(SubsetPairRow)] == [replace(row, predicted=0.0) for row in pairs]
    assert record.rows(FileRow) != rows and all(row.subset_regression is not None for row in record.rows(FileRow))

    again = call_here(*words)  # as before: no column and no table says what is not asked for
    assert again.returncode == 0 and "done:" not in again.stderr and "Subset regression" not in again.stdout
    assert RunFolder.read(run).rows(FileRow) == before and not [*(run / "tables").glob("subset_regression*")]


@pytest.mark.parametrize(("pairs", "message"), [("5", "must be 0 or from 20 to 1,000 pairs"), ("-1", "must be 0 or from 20")])
def test_too_few_pairs_are_an_error_before_anything_is_written(pairs: str, message: str, tmp_path: Path) -> None:
    printed = call_here("files", "digits", "--limit", "100", "--subset-regression", pairs, "--out", str(tmp_path / "run"))
    assert printed.returncode == 2 and "--subset-regression" in printed.stderr and message in printed.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "says"), [([], "ranks files: it needs --by-file"), (["--files", "list.txt"], "has no effect with --files")]
)
def test_without_by_file_the_option_is_an_error(words: list[str], says: str, tmp_path: Path) -> None:
    printed = call_here("split", "digits", *words, "--subset-regression", "20", "--out", str(tmp_path / "run"))
    assert printed.returncode == 2 and f"--subset-regression: {says}" in printed.stderr
    assert not (tmp_path / "run").exists()
