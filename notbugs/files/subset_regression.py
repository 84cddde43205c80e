"""Which files make a classifier robust? Learned from trainings on halves of the training files.

Every score of a file says what some model does with it, none what training on it does. Here standard classifiers are trained on
pairs of halves of the files, by random combinations of the scores, and attacked on files that are held out. The difference of
their robust accuracies, the separation, is regressed on how much the halves differ in the scores. This is a datamodel (Ilyas et
al. 2022) with one parameter for each score, not for each file. The test part is not used.

Scores are correlated: all of them say in part how difficult a file is. Combinations are drawn, and regressed, in coordinates that
are not (whitened), so that the pairs tell as much about what distinguishes two scores as about what they share.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import notbugs.train as train
from notbugs import metrics
from notbugs.data import Dataset
from notbugs.data.single_files import load_arrays
from notbugs.errors import InputError
from notbugs.files.crossfit import CrossfitConfig, stratified_folds, train_crossfit_model
from notbugs.files.fold_scores import FoldScores
from notbugs.files.robustness import class_ranks, finite_means, robustness_score, top_and_bottom
from notbugs.runs.tables.files import FileRow, SubsetPairRow, SubsetRegressionRow, SubsetRegressionWeightRow
from notbugs.runs.tables.row import Row
from notbugs.stats import correlation_interval

FEWEST, MOST = 20, 1000  # pairs
HELD_OUT_FOLDS = 4  # one of them is held out, another one by each pair in turn
SIDES = ("upper", "lower")
LEAST_VARIANCE = 1e-3  # of the largest
RIDGES = tuple(10.0**power for power in np.arange(-4, 2.5, 0.5))  # beside a mean of 1 on the diagonal
EVIDENCE_OF_ROBUST_MODELS = (
    *("robust_minimum_norm", "robust_margin", "robust_attacked_margin", "robust_pgd_steps_to_misclassify"),
    "trained_on_robust_margin",
)
SCORES = (
    *("robustness", "label_quality", "standard_margin", "epochs_confidence", "forgetting_events", "pgd_steps_to_misclassify"),
    *("robust_margin", "robust_evidence", "margin_kept_minus_lost", "influence"),
)


def scores_to_combine(whole: Sequence[FoldScores], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Those of `SCORES` that are known, as ranks within the class; whole: one entry for each repetition.

    Columns of tables/files.csv, and two that follow from such: robust_evidence, the mean rank by what robust models do with a
    file, and margin_kept_minus_lost on the robust version. Those that a model does not have, or that are equal for all files, are
    left out.
    """
    mean = finite_means(whole)
    own = np.arange(len(labels)), labels
    robust = [class_ranks(mean[name], labels) for name in EVIDENCE_OF_ROBUST_MODELS if name in mean]
    found = {
        "robustness": robustness_score(mean, labels),
        "label_quality": np.mean([np.log(each["standard_probabilities"][own].clip(1e-12)) for each in whole], axis=0),
        "standard_margin": mean["standard_margin"],
        "epochs_confidence": mean["epochs_confidence"],
        "forgetting_events": mean["forgetting_events"],
        "pgd_steps_to_misclassify": mean["robust_pgd_steps_to_misclassify"],
        "robust_margin": mean["robust_margin"],
        "robust_evidence": np.mean(robust, axis=0),
        "margin_kept_minus_lost": mean["margin_kept_on_robust_version"] - mean["margin_lost_on_robust_version"],
    }
    if "influence" in mean:
        found["influence"] = mean["influence"]
    told = {name: values for name, values in found.items() if np.isfinite(values).all() and np.ptp(values) > 0}
    return {name: class_ranks(values, labels) for name, values in told.items()}


class Coordinates(NamedTuple):
    """Uncorrelated combinations of the scores, each with variance 1.

    Attributes
    ----------
    values : ndarray, (N, K)
    by_score : ndarray, (scores, K)
        How much of each score's rank is in each of them.
    """

    values: np.ndarray
    by_score: np.ndarray


def whitened(scores: Mapping[str, np.ndarray]) -> Coordinates:
    """Coordinates of the ranks: their principal components over their standard deviations; without those that hardly vary."""
    ranks = np.stack([*scores.values()], axis=1)
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(ranks.T)))
    kept = variances > LEAST_VARIANCE * variances.max()
    by_score = axes[:, kept] / np.sqrt(variances[kept])
    return Coordinates((ranks - ranks.mean(0)) @ by_score, by_score)


class Pool(NamedTuple):
    """The files that halves are taken from, and those that their classifiers are measured on: indices, ascending."""

    files: np.ndarray
    held_out: np.ndarray


def deal(dataset: Dataset, seed: int, number: int) -> Pool:
    """The quarter of each class that pair `number` holds out, and the others; the files of a group are on one side.

    Raises
    ------
    InputError
        If that leaves fewer than two files of a class, or holds out none: with fewer than four files, or few large groups.
    """
    rule = f"holds a quarter of each class out, which needs {HELD_OUT_FOLDS} files or more of each, and as many groups"
    try:
        held_out = stratified_folds(dataset.labels, HELD_OUT_FOLDS, seed, dataset.groups) == number % HELD_OUT_FOLDS
    except InputError as error:
        raise InputError("--subset-regression", rule, error) from None
    for label in sorted({*dataset.labels.tolist()}):
        others, own = (int((dataset.labels[side] == label).sum()) for side in (~held_out, held_out))
        if others < len(SIDES) or own < 1:
            raise InputError("--subset-regression", rule, f"{own} held out and {others} others of {dataset.classes[label]}")
    return Pool((~held_out).numpy().nonzero()[0], held_out.numpy().nonzero()[0])


def check_pairs(pairs: int) -> None:
    """Raises InputError unless so many pairs can be trained, or none."""
    if pairs and not FEWEST <= pairs <= MOST:
        raise InputError("--subset-regression", f"must be 0 or from {FEWEST} to {MOST:,} pairs of trainings", pairs)


# ---- one pair --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Two classifiers, each trained on one half.

    Attributes
    ----------
    upper, lower : ndarray, int
        The halves.
    clean, robust : tuple of float
        Accuracy on the held-out files, of the upper and of the lower half; robust: mean over epsilon / 2 and epsilon.
    held_out : int
        How many these are.
    """

    upper: np.ndarray
    lower: np.ndarray
    clean: tuple[float, float]
    robust: tuple[float, float]
    held_out: int

    def arrays(self) -> dict[str, np.ndarray]:
        """As they are kept in a file."""
        accuracies = {"clean": np.array(self.clean), "robust": np.array(self.robust)}
        return {"upper": self.upper, "lower": self.lower, "held_out": np.array(self.held_out), **accuracies}

    @classmethod
    def load(cls, path: Path, files: int) -> "Pair":
        """From a file with these arrays, of a run with so many files. Raises InputError if it holds anything else."""
        arrays = load_arrays(path)
        names = ("upper", "lower", "held_out", "clean", "robust")
        upper, lower, held_out, clean, robust = (arrays.get(name, np.zeros(0)) for name in names)
        halves, accuracies = np.concatenate([upper.ravel(), lower.ravel()]), np.concatenate([clean.ravel(), robust.ravel()])
        sound = upper.dtype == lower.dtype == held_out.dtype == np.int64 and upper.shape == lower.shape == (len(halves) // 2,)
        sound = sound and clean.shape == robust.shape == (len(SIDES),) and held_out.shape == () and len(upper) > 0
        if not sound or len(np.unique(halves)) < len(halves) or not 0 <= halves.min() <= halves.max() < files:
            raise _damaged(path)
        if not (held_out > 0 and ((accuracies >= 0) & (accuracies <= 1)).all()):
            raise _damaged(path)
        return cls(upper, lower, (float(clean[0]), float(clean[1])), (float(robust[0]), float(robust[1])), int(held_out))


def _damaged(path: Path) -> InputError:
    rule = "must hold two halves of the files and the accuracies of the classifiers trained on them"
    return InputError(str(path), rule, "something else", "restore it, or give another --out for a new run")


def train_pair(
    dataset: Dataset,
    scores: Mapping[str, np.ndarray],
    config: CrossfitConfig,
    *,
    seed: int,
    number: int,
    device: torch.device | str = "cpu",
    unfinished: Path | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Pair:
    """Standard training on the upper and on the lower half of the files by a random combination of the scores.

    Both take as many steps as on all files that are not held out, and start from the same weights.

    Parameters
    ----------
    dataset : Dataset
    scores : mapping
        As of `scores_to_combine`.
    config : CrossfitConfig
    seed : int
        Of all pairs.
    number : int
        Of this one.
    device : torch.device or str
    unfinished : Path, optional
        A folder of checkpoints, from which trainings go on.
    progress : callable, optional
        Called with the share done and a few words.

    Returns
    -------
    Pair
    """
    pool, own_seed = deal(dataset, seed, number), zlib.crc32(f"{seed}/subset-regression/{number}".encode())
    values = whitened(scores).values[pool.files]
    combined = values @ np.random.default_rng(own_seed).standard_normal(values.shape[1])
    labels = [str(label) for label in dataset.labels[torch.from_numpy(pool.files)].tolist()]
    halves = [pool.files[side] for side in top_and_bottom(labels, combined.tolist(), 0.5)]
    settings = replace(config, batch_size=max(1, config.batch_size // 2))
    threat_models = [replace(config.threat_model, epsilon=config.threat_model.epsilon / 2), config.threat_model]
    held_out, clean, robust = dataset.select(torch.from_numpy(pool.held_out)), [], []
    for place, (side, half) in enumerate(zip(SIDES, halves, strict=True)):
        if progress:
            progress(place / len(SIDES), f"training on the {side} half")
        kept = unfinished / side if unfinished else None
        files = dataset.select(torch.from_numpy(half))
        model = train_crossfit_model(
            files, "half", train.cross_entropy, config=settings, seed=own_seed, device=device, unfinished=kept
        )
        accuracy, *attacked = metrics.robust_accuracy(model, held_out, threat_models, budget="quick", device=device)
        clean.append(accuracy.accuracy)
        robust.append(float(np.mean([each.accuracy for each in attacked])))
    upper, lower = halves
    return Pair(upper, lower, (clean[0], clean[1]), (robust[0], robust[1]), len(held_out))


# ---- the regression --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Regression:
    """What was learned from all pairs.

    Attributes
    ----------
    weights, clean_weights : dict of str to float
        Of the rank by each score, for the separation and for the difference of clean accuracy.
    predicted : ndarray, (pairs,)
        The separation of each pair, by the regression of all others.
    correlation, clean_correlation : tuple of float
        Of what the regression of all other pairs predicts with what was measured, for the separation and for the difference of
        clean accuracy: Pearson's r, with its 95 % CI over the pairs (Fisher's z).
    combined, equal_clean : ndarray, (N,), in [0, 1]
        Rank of each file within its class by the combination that is predicted to separate furthest, and by that of those
        combinations whose halves are predicted to be equally accurate.
    """

    weights: dict[str, float]
    clean_weights: dict[str, float]
    predicted: np.ndarray
    correlation: tuple[float, float, float]
    clean_correlation: tuple[float, float, float]
    combined: np.ndarray
    equal_clean: np.ndarray


def regress(pairs: Sequence[Pair], scores: Mapping[str, np.ndarray], labels: np.ndarray) -> Regression:
    """The weight of each score, from all pairs; labels: int, (N,)."""
    values, by_score = whitened(scores)
    differences = np.stack([values[pair.upper].mean(0) - values[pair.lower].mean(0) for pair in pairs])
    separations = np.array([upper - lower for upper, lower in (pair.robust for pair in pairs)])
    clean = np.array([upper - lower for upper, lower in (pair.clean for pair in pairs)])
    weights, clean_weights = (ridge_weights(differences, each) for each in (separations, clean))
    predicted = left_out_predictions(differences, separations)
    equal = orthogonal(weights, clean_weights)
    return Regression(
        dict(zip(scores, (by_score @ weights).tolist(), strict=True)),
        dict(zip(scores, (by_score @ clean_weights).tolist(), strict=True)),
        predicted,
        _correlation(predicted, separations),
        _correlation(left_out_predictions(differences, clean), clean),
        class_ranks(values @ weights, labels),
        class_ranks(values @ equal, labels),
    )


def _correlation(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float, float]:
    """Pearson's r with its 95 % CI; 0 where either is constant."""
    constant = predicted.std() == 0 or measured.std() == 0
    found = 0.0 if constant else float(np.corrcoef(predicted, measured)[0, 1])
    return found, *correlation_interval(found, len(measured))


def learned_rows(
    rows: Sequence[FileRow], pairs: Sequence[Pair], whole: Sequence[FoldScores], dataset: Dataset
) -> tuple[list[FileRow], list[Row]]:
    """The rows of all files with both columns, and the tables of the regression; whole: one entry for each repetition."""
    labels = dataset.labels.numpy()
    found = regress(pairs, scores_to_combine(whole, labels), labels)
    both = zip(rows, found.combined.tolist(), found.equal_clean.tolist(), strict=True)
    with_ranks = [replace(row, subset_regression=rank, subset_regression_equal_clean=equal) for row, rank, equal in both]
    files = len(pairs[0].upper) + len(pairs[0].lower)
    correlation, ci_low, ci_high = found.correlation
    clean_correlation, clean_ci_low, clean_ci_high = found.clean_correlation
    summary = SubsetRegressionRow(
        left_out=", ".join(name for name in SCORES if name not in found.weights) or None,
        pairs=len(pairs),
        files=files,
        n=pairs[0].held_out,
        correlation=correlation,
        ci_low=ci_low,
        ci_high=ci_high,
        clean_correlation=clean_correlation,
        clean_ci_low=clean_ci_low,
        clean_ci_high=clean_ci_high,
    )
    learned: list[Row] = [summary]
    for name, weight in found.weights.items():
        learned.append(SubsetRegressionWeightRow(score=name, weight=weight, clean_weight=found.clean_weights[name]))
    for number, (pair, predicted) in enumerate(zip(pairs, found.predicted.tolist(), strict=True)):
        learned.append(
            SubsetPairRow(
                pair=number + 1,
                clean_upper=pair.clean[0],
                clean_lower=pair.clean[1],
                robust_upper=pair.robust[0],
                robust_lower=pair.robust[1],
                separation=pair.robust[0] - pair.robust[1],
                predicted=predicted,
            )
        )
    return with_ranks, learned


def left_out_predictions(differences: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """The outcome of each pair by the regression of all others, whose ridge is chosen without it, too."""
    every = np.arange(len(outcomes))
    rests = [every != left for left in every]
    return np.array([differences[~rest][0] @ ridge_weights(differences[rest], outcomes[rest]) for rest in rests])


def ridge_weights(differences: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """The weight of each coordinate.

    Ridge regression without an intercept: halves that do not differ do not separate. The ridge is the one with the least error
    for pairs left out one by one.

    Parameters
    ----------
    differences : ndarray, (pairs, K)
    outcomes : ndarray, (pairs,)

    Returns
    -------
    ndarray, (K,)
    """
    gram = differences.T @ differences
    fits = []
    for ridge in RIDGES:
        inverse = np.linalg.inv(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)))
        weights = inverse @ differences.T @ outcomes
        leverage = np.einsum("ij,jk,ik->i", differences, inverse, differences)
        errors = (outcomes - differences @ weights) / (1 - leverage)
        fits.append((float((errors**2).mean()), weights))
    best: np.ndarray = min(fits, key=lambda fit: fit[0])[1]
    return best


def orthogonal(weights: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Weights of coordinates whose halves do not differ in what the other ones predict."""
    length = float(other @ other)
    found: np.ndarray = weights - (float(other @ weights) / length if length > 0 else 0.0) * other
    return found
