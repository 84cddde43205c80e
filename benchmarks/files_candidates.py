"""Combined scores of files for the part `halves` of files.py, and halves of equal difficulty."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from files_scoring import FOLDS, Benchmark
from torch import Tensor

import notbugs.train as train
from notbugs import attacks, data, predict
from notbugs.data import Dataset
from notbugs.files import crossfit
from notbugs.files.crossfit import CrossfitConfig
from notbugs.files.fold_scores import FoldScores, linear_head
from notbugs.files.robustness import class_ranks, finite_means
from notbugs.models import Model, frozen
from notbugs.search import AttackResult

STRATA = 10
STRATIFIED = ", stratified"
ROBUST_EVIDENCE = ("minimum_norm", "margin", "attacked_margin", "pgd_steps_to_misclassify")  # of robust models
INFLUENCE = "influence"
CANDIDATES = (
    "robustness + steps",
    "robust evidence",
    "robustness + steps + robust margin",
    "kept - lost",
    "four",
    INFLUENCE,
    "influence + robustness + steps",
)


def candidates(benchmark: Benchmark, whole: list[FoldScores], robustness: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """The named candidates; files with a high score are kept."""
    mean, labels = finite_means(whole), benchmark.splits().train.labels.numpy()
    steps, margin = mean["robust_pgd_steps_to_misclassify"], mean["robust_margin"]
    kept = mean["margin_kept_on_robust_version"] - mean["margin_lost_on_robust_version"]
    evidence = [*(mean[f"robust_{name}"] for name in ROBUST_EVIDENCE), mean["trained_on_robust_margin"]]
    influence = _influence(benchmark) if any(INFLUENCE in name for name in names) else np.zeros(len(labels))
    parts = {
        "robustness + steps": [robustness, steps],
        "robust evidence": evidence,
        "robustness + steps + robust margin": [robustness, steps, margin],
        "kept - lost": [kept],
        "four": [robustness, steps, margin, kept],
        INFLUENCE: [influence],
        "influence + robustness + steps": [influence, robustness, steps],
    }
    return {name: np.mean([class_ranks(each, labels) for each in parts[name]], axis=0) for name in CANDIDATES if name in names}


def stratified(score: np.ndarray, difficulty: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rank of each file by the score among files of its class that are about as difficult: ten strata of each class."""
    strata = np.minimum((class_ranks(difficulty, labels) * STRATA).astype(int), STRATA - 1)
    return class_ranks(score, labels * STRATA + strata)


# ---- influence ---------------------------------------------------------------------------------------------------------------


def _influence(benchmark: Benchmark) -> np.ndarray:
    """That of the first repetition; kept beside the scores."""
    path = benchmark.folder(0) / "influence.npz"
    if not path.exists():
        data.save_arrays({INFLUENCE: crossfitted_influence(benchmark.splits().train, benchmark.crossfit_config())}, path)
    found: np.ndarray = data.load_arrays(path)[INFLUENCE]
    return found


def crossfitted_influence(dataset: Dataset, config: CrossfitConfig) -> np.ndarray:
    """How much a step of the last layer on each file would reduce the loss on the other attacked files of its fold."""
    folds = crossfit.stratified_folds(dataset.labels, FOLDS, crossfit.fold_seed(0, 0))
    found = np.zeros(len(dataset))
    for fold in range(FOLDS):
        held_out = folds == fold
        others, files = (dataset.select(each.nonzero().squeeze(1)) for each in (~held_out, held_out))
        seed = crossfit.fold_seed(0, 0, fold)
        model = crossfit.train_crossfit_model(others, "standard", train.cross_entropy, config=config, seed=seed, device="cpu")
        threat_model = replace(config.threat_model, epsilon=config.threat_model.epsilon / 2)
        attack = partial(attacks.pgd, threat_model=threat_model, steps=10, loss="cross_entropy")
        found[held_out.numpy()] = fold_influence(model, files, attack).numpy()
    return found


def fold_influence(model: Model, files: Dataset, attack: Callable[..., AttackResult]) -> Tensor:
    """The influence of each file on the attacked others, (n,)."""
    assert linear_head(model, files.pixels(slice(0, 2))) is not None

    def gradients(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of the cross-entropy: by the logits, and the features that these are to be multiplied with."""
        features = model.features(images)
        by_logits = model(images).softmax(1) - torch.nn.functional.one_hot(labels, len(files.classes))
        return by_logits, torch.cat([features, torch.ones(len(features), 1)], 1)

    own, attacked = [], []
    for index in torch.split(torch.arange(len(files)), predict.BATCH_SIZE):
        images, labels = files.pixels(index), files.labels[index]
        with frozen(model):
            moved = attack(model, images, labels).images
            with torch.no_grad():
                own.append(gradients(images, labels))
                attacked.append(gradients(moved, labels))
    (by_logits, features), (by_attacked_logits, attacked_features) = (
        [torch.cat(each) for each in zip(*pairs, strict=True)] for pairs in (own, attacked)
    )
    total = by_attacked_logits.T @ attacked_features
    itself = (by_logits * by_attacked_logits).sum(1) * (features * attacked_features).sum(1)
    influence: Tensor = ((by_logits @ total) * features).sum(1) - itself
    return influence
