"""Combined scores of files for the part `halves` of files.py, and halves of equal difficulty."""

import numpy as np
from files_scoring import Benchmark

from notbugs.files.fold_scores import FoldScores
from notbugs.files.robustness import class_ranks
from notbugs.files.score_coordinates import scores_to_combine

STRATA = 10
STRATIFIED = ", stratified"
HALF_RANDOM = ", half of the files at random"
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


def candidates(benchmark: Benchmark, whole: list[FoldScores], names: list[str]) -> dict[str, np.ndarray]:
    """The named candidates; files with a high score are kept."""
    ranks = scores_to_combine(whole, benchmark.splits(benchmark.options.scoring).train.labels.numpy())
    robustness, steps, margin = (ranks[name] for name in ("robustness", "pgd_steps_to_misclassify", "robust_margin"))
    kept, influence = ranks["margin_kept_minus_lost"], ranks.get(INFLUENCE)
    parts = {
        "robustness + steps": [robustness, steps],
        "robust evidence": [ranks["robust_evidence"]],
        "robustness + steps + robust margin": [robustness, steps, margin],
        "kept - lost": [kept],
        "four": [robustness, steps, margin, kept],
    }
    if influence is not None:
        parts |= {INFLUENCE: [influence], "influence + robustness + steps": [influence, robustness, steps]}
    return {name: np.mean(each, axis=0) for name, each in parts.items() if name in names}


def stratified(score: np.ndarray, difficulty: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rank of each file by the score among files of its class that are about as difficult: ten strata of each class."""
    strata = np.minimum((class_ranks(difficulty, labels) * STRATA).astype(int), STRATA - 1)
    return class_ranks(score, labels * STRATA + strata)


def half_random(score: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rank of each file by the score for half of the files of each class, drawn at random; random for the others."""
    generator = np.random.default_rng(0)
    by_score = class_ranks(generator.random(len(labels)), labels) > 0.5
    groups = 2 * labels + by_score
    return class_ranks(np.where(by_score, score, generator.random(len(labels))), groups)
