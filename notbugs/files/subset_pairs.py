"""Pairs of standard classifiers, each trained on one half of the files by a random combination of their scores.

A quarter of the files, another one for each pair in turn, is held out: on it the classifiers of the pair are attacked. The test
part is not used.
"""

import zlib
from collections.abc import Callable, Mapping
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
from notbugs.files.robustness import top_and_bottom
from notbugs.files.score_coordinates import whitened
from notbugs.metrics import Accuracy

FEWEST, MOST = 20, 1000  # pairs
HELD_OUT_FOLDS = 4  # one of them is held out, another one by each pair in turn
SIDES = ("upper", "lower")


def check_pairs(pairs: int) -> None:
    """Raises InputError unless so many pairs can be trained, or none."""
    if pairs and not FEWEST <= pairs <= MOST:
        raise InputError("--subset-regression", f"must be 0 or from {FEWEST} to {MOST:,} pairs of trainings", pairs)


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


def train_and_attack(
    half: Dataset,
    held_out: Dataset,
    config: CrossfitConfig,
    *,
    seed: int,
    budget: str = "standard",
    device: torch.device | str = "cpu",
    unfinished: Path | None = None,
) -> list[Accuracy]:
    """Accuracy on other files after standard training on half of them: clean, at epsilon / 2 and at epsilon.

    The batches have half of their size, so that it takes as many steps as training on all files.

    Parameters
    ----------
    half, held_out : Dataset
    config : CrossfitConfig
    seed : int
        Of the initial weights and of the batches.
    budget : str
        Of the attack, as of `metrics.robust_accuracy`.
    device : torch.device or str
    unfinished : Path, optional
        A folder of checkpoints, from which the training goes on.

    Returns
    -------
    list of Accuracy
    """
    settings = replace(config, batch_size=max(1, config.batch_size // 2))
    model = train_crossfit_model(
        half, "half", train.cross_entropy, config=settings, seed=seed, device=device, unfinished=unfinished
    )
    threat_models = [replace(config.threat_model, epsilon=config.threat_model.epsilon / 2), config.threat_model]
    return metrics.robust_accuracy(model, held_out, threat_models, budget=budget, device=device)


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
    held_out, clean, robust = dataset.select(torch.from_numpy(pool.held_out)), [], []
    for place, (side, half) in enumerate(zip(SIDES, halves, strict=True)):
        if progress:
            progress(place / len(SIDES), f"training on the {side} half")
        kept = unfinished / side if unfinished else None
        files = dataset.select(torch.from_numpy(half))
        accuracy, *attacked = train_and_attack(
            files, held_out, config, seed=own_seed, budget="quick", device=device, unfinished=kept
        )
        clean.append(accuracy.accuracy)
        robust.append(float(np.mean([each.accuracy for each in attacked])))
    upper, lower = halves
    return Pair(upper, lower, (clean[0], clean[1]), (robust[0], robust[1]), len(held_out))
