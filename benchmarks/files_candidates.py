"""Combined scores of files for the part `halves` of files.py, and halves of equal difficulty."""

import numpy as np
from files_scoring import Benchmark

from notbugs.files.fold_scores import FoldScores
from notbugs.files.robustness import class_ranks, finite_means

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
    parts = {
        "robustness + steps": [robustness, steps],
        "robust evidence": evidence,
        "robustness + steps + robust margin": [robustness, steps, margin],
        "kept - lost": [kept],
        "four": [robustness, steps, margin, kept],
        INFLUENCE: [mean[INFLUENCE]],
        "influence + robustness + steps": [mean[INFLUENCE], robustness, steps],
    }
    return {name: np.mean([class_ranks(each, labels) for each in parts[name]], axis=0) for name in CANDIDATES if name in names}


def stratified(score: np.ndarray, difficulty: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rank of each file by the score among files of its class that are about as difficult: ten strata of each class."""
    strata = np.minimum((class_ranks(difficulty, labels) * STRATA).astype(int), STRATA - 1)
    return class_ranks(score, labels * STRATA + strata)
