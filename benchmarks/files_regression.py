"""Part `regression` of files.py: which combination of scores separates furthest, from trainings on halves by random combinations.

The separation of halves by random weights is regressed on how much the halves differ in each score. The weights that come out are
a score of their own, SUBSET_REGRESSION, for the part `halves`. This is a datamodel (Ilyas et al. 2022) of few parameters: not one
for each file, but one for each score. Everything happens within the training files: a quarter is held out to measure on.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from files_scoring import Benchmark, accuracies_after_training, loaded_splits
from harness import ResultsFile, Row

from notbugs.errors import InputError
from notbugs.files import crossfit
from notbugs.files.config import FilesConfig, crossfit_config
from notbugs.files.robustness import class_ranks, top_and_bottom

SUBSET_REGRESSION = "subset regression"
EQUAL_CLEAN = "subset regression, equal clean accuracy"
OUTCOMES = ("separation", "clean_difference")  # in this order in `regressed_scores`
HELD_OUT_FOLDS = 4  # one of them is held out
RIDGES = tuple(10.0**power for power in np.arange(-4, 2.5, 0.5))  # beside a mean of 1 on the diagonal


def regression(benchmark: Benchmark, results: ResultsFile, scores: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """The separation of one training on each half by random combinations; then the weight of each score."""
    known = {"part": "regression", "dataset": benchmark.name}
    options, sides = benchmark.options, _Sides(benchmark, scores)
    todo = [number for number in range(options.directions) if not results.has(**known, direction=number)]
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as executor:
        config, held_out = benchmark.config(), sides.held_out.tolist()
        futures = [
            [executor.submit(held_out_accuracy, config, half.tolist(), held_out, 2000 + number) for half in sides.halves(number)]
            for number in todo
        ]
        for number, pair in zip(todo, futures, strict=True):
            (clean_upper, upper), (clean_lower, lower) = (future.result() for future in pair)
            differences = {"separation": upper - lower, "clean_difference": clean_upper - clean_lower}
            yield {"direction": number, **differences, "n": len(held_out)}
    results.drop(**known, direction=None)
    for outcome in OUTCOMES:
        weights, correlation = _fitted(benchmark.name, results, sides, outcome)
        for name, weight in zip(scores, weights, strict=True):
            yield {"outcome": outcome, "score": name, "weight": float(weight)}
        yield {"outcome": outcome, "score": SUBSET_REGRESSION, "correlation_left_out": correlation}


class _Sides:
    """The halves of each random combination of the scores, of three quarters of the training files; the others are held out."""

    def __init__(self, benchmark: Benchmark, scores: Mapping[str, np.ndarray]) -> None:
        labels = benchmark.splits().train.labels
        self.ranks = np.stack([class_ranks(each, labels.numpy()) for each in scores.values()], axis=1)
        held_out = (crossfit.stratified_folds(labels, HELD_OUT_FOLDS, 0) == 0).numpy()
        self.held_out, self.pool = held_out.nonzero()[0], (~held_out).nonzero()[0]
        self.labels = [str(label) for label in labels[torch.from_numpy(self.pool)].tolist()]

    def halves(self, number: int) -> list[np.ndarray]:
        """Upper and lower half."""
        weights = np.random.default_rng(number).standard_normal(self.ranks.shape[1])
        sides = top_and_bottom(self.labels, (self.ranks[self.pool] @ weights).tolist(), 0.5)
        return [self.pool[side] for side in sides]

    def difference(self, number: int) -> np.ndarray:
        """How much the halves differ in each score, in ranks."""
        upper, lower = self.halves(number)
        found: np.ndarray = self.ranks[upper].mean(0) - self.ranks[lower].mean(0)
        return found


def held_out_accuracy(config: FilesConfig, files: list[int], test: list[int], seed: int) -> tuple[float, float]:
    """Standard training on some of the training files. Accuracy on others: clean, and robust (mean of both epsilons, quick)."""
    torch.set_num_threads(1)
    splits = loaded_splits(config)
    half, others = (splits.train.select(torch.tensor(each)) for each in (files, test))
    row = accuracies_after_training(half, others, crossfit_config(config, splits), seed, budget="quick")
    return row["clean_accuracy"], (row["robust_accuracy_half_epsilon"] + row["robust_accuracy"]) / 2


def regressed_scores(benchmark: Benchmark, results: ResultsFile, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The combination predicted to separate furthest, and that of those whose halves are predicted to be equally accurate."""
    sides = _Sides(benchmark, scores)
    ranks = sides.ranks
    separation, clean = (_fitted(benchmark.name, results, sides, outcome)[0] for outcome in OUTCOMES)
    return {SUBSET_REGRESSION: ranks @ separation, EQUAL_CLEAN: ranks @ orthogonal(separation, clean, np.cov(ranks.T))}


def orthogonal(weights: np.ndarray, other: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Weights whose halves do not differ in what the other ones predict.

    Halves by weights w differ in the scores in proportion to covariance @ w.
    """
    shared = (other @ covariance @ weights) / (other @ covariance @ other)
    found: np.ndarray = weights - shared * other
    return found


def _fitted(dataset: str, results: ResultsFile, sides: _Sides, outcome: str) -> tuple[np.ndarray, float]:
    known = {"part": "regression", "dataset": dataset}
    rows = [row for row in results.rows if known.items() <= row.items() and row.get("direction") is not None]
    if not rows:
        raise InputError("--scores", f"{SUBSET_REGRESSION} needs the part `regression` first", "none of its rows in --out")
    differences = np.array([sides.difference(row["direction"]) for row in rows])
    return ridge_weights(differences, np.array([row[outcome] for row in rows]))


def ridge_weights(differences: np.ndarray, outcomes: np.ndarray) -> tuple[np.ndarray, float]:
    """The weight of each score, and the correlation of the outcomes with predictions for rows left out.

    Ridge regression without an intercept: halves that do not differ do not separate. The ridge is that with the least error for
    rows left out one by one.
    """
    gram = differences.T @ differences
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for ridge in RIDGES:
        inverse = np.linalg.inv(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)))
        weights = inverse @ differences.T @ outcomes
        leverage = np.einsum("ij,jk,ik->i", differences, inverse, differences)
        errors = (outcomes - differences @ weights) / (1 - leverage)
        if best is None or (errors**2).mean() < best[0]:
            best = float((errors**2).mean()), weights, outcomes - errors
    assert best is not None
    return best[1], float(np.corrcoef(best[2], outcomes)[0, 1])
