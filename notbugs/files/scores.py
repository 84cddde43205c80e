"""Which files carry robust and which non-robust evidence: every file is judged by models that never saw it.

The files are dealt into folds, again and again; what the readers of each fold see in its files (`readers.look`) becomes one row a
file, with a rank in its class and a word.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.files.crossfit import (
    ATTACK_STEPS,
    CrossfitConfig,
    FoldScores,
    Progress,
    fold_seed,
    merge_folds,
    score_fold,
    stratified_folds,
)

COLUMNS = {  # name: (range, what a high value means, what it is)
    "robustness": ("0 to 1", "a person's evidence carries it", "rank, within the class, of the evidence that robust readers find "
                   "in the file, for the evidence that ordinary readers find"),
    "kind": ("", "", "robust, non-robust (robustness below 0.5), mislabelled-looking (all readers see the same other class) or "
             "ambiguous (read wrongly by most readers)"),
    "suggested": ("", "", "the class that readers see, all taken together"),
    "label_quality": ("0 to 1", "the label looks right", "probability that an ordinary model gives the label (self-confidence)"),
    "standard_radius": ("0 up", "hard to flip", "smallest change that flips an ordinary model; 0: misread as it is"),
    "robust_radius": ("0 up", "hard to flip", "smallest change that flips a robust model; 0: misread as it is"),
    "standard_lead": ("any", "clear to an ordinary model", "logit of the label less the best other"),
    "robust_lead": ("any", "clear to a robust model", "logit of the label less the best other"),
    "carried_robust": ("any", "robust features speak for the label", "part of the ordinary model's lead over its runner-up that "
                       "its features carry as far as they stay useful on the robust version"),
    "carried_nonrobust": ("any", "non-robust features speak for the label", "the rest of that lead, but for its mean"),
    "carried_spurious": ("any", "features that fail elsewhere speak for the label", "part of that lead that features carry as "
                         "far as they are less useful on the test part"),
    "on_robust_right": ("0 to 1", "right", "share of models, trained only on the robust version of other files, that read it"),
    "on_robust_lead": ("any", "clear to them", "their logit of the label less the best other"),
    "on_nonrobust_right": ("0 to 1", "right", "the same, trained only on the non-robust version of other files"),
    "on_nonrobust_lead": ("any", "clear to them", "their logit of the label less the best other"),
    "robust_confidence": ("0 to 1", "sure", "probability that a robust model gives the label"),
    "standard_drop": ("-1 to 1", "easily talked out of it", "that probability less the one under attack, ordinary model"),
    "robust_drop": ("-1 to 1", "easily talked out of it", "that probability less the one under attack, robust model"),
    "steps_to_flip": (f"0 to {ATTACK_STEPS + 1}", "hard to flip", f"steps of an attack that flip the robust model; {ATTACK_STEPS + 1}: none"),
    "inversion_error": ("0 up", "not held by robust features", "relative error of its robust version's features"),
    "epochs_learned": ("0 to 1", "learned early", "share of passes after which an ordinary model in training reads it"),
    "epochs_confidence": ("0 to 1", "learned early and surely", "mean probability of the label after each of these passes"),
    "forgotten": ("0 up", "unlearned again and again", "how often a pass undid what one before had learned"),
}  # fmt: skip
ROBUST_EVIDENCE = ("robust_radius", "robust_attacked_lead", "on_robust_lead")
STANDARD_EVIDENCE = ("standard_radius", "standard_lead", "on_nonrobust_lead")


def per_file(
    part: Dataset,
    recipe: CrossfitConfig,
    *,
    folds: int = 3,
    repeats: int = 3,
    seed: int = 0,
    test: Dataset | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """One row a file in the set's order, with the scores of `COLUMNS`. No model ever scores a file that it was trained on.

    folds: files are dealt into so many; repeats: this is done so often, dealt anew, with fresh models. See `combined`.
    """
    if repeats < 1:
        raise InputError("--repeats", "must be 1 or more", repeats)
    whole = []
    for repeat in range(repeats):
        dealt, parts = stratified_folds(part.labels, folds, fold_seed(seed, repeat)), []
        for fold in range(folds):
            share = (repeat * folds + fold) / (repeats * folds)
            told = (lambda done, words, share=share: progress(share + done / (repeats * folds), words)) if progress else None
            own = fold_seed(seed, repeat, fold)
            parts.append(score_fold(part, recipe, dealt == fold, seed=own, test=test, device=device, progress=told))
        whole.append(merge_folds(dealt, parts))
    return combine(part, whole)


def combine(part: Dataset, whole: Sequence[FoldScores]) -> list[dict[str, Any]]:
    """Rows of `per_file` from what the repetitions saw: means over them, ranks within classes, and the word for each file.

    robustness: see `robustness_of`. The rest are means; a smallest radius that was not found counts as the largest that was.
    """
    labels, names = part.labels.numpy(), part.classes
    mean = _finite(whole)
    readers = [name.removesuffix("_probabilities") for name in whole[0] if name.endswith("_probabilities")]
    robustness = robustness_score(mean, labels)
    right = {name: np.stack([each[f"{name}_lead"] > 0 for each in whole]).mean(0) for name in readers}
    probabilities = np.mean([mean[f"{name}_probabilities"] for name in readers], axis=0)
    suggested = probabilities.argmax(1)
    doubted = likely_label_errors(mean, readers, labels)
    read = np.mean(list(right.values()), axis=0)
    rows = []
    for number, file in enumerate(part.names):
        kind = "robust" if robustness[number] >= 0.5 else "non-robust"
        kind = "mislabelled-looking" if doubted[number] else "ambiguous" if read[number] < 0.5 else kind
        row: dict[str, Any] = {"number": number, "file": file, "label": names[labels[number]]}
        known = {
            "robustness": float(robustness[number]),
            "kind": kind,
            "suggested": names[suggested[number]],
            "label_quality": float(mean["standard_probabilities"][number, labels[number]]),
            "robust_confidence": float(mean["robust_probabilities"][number, labels[number]]),
            "steps_to_flip": float(mean["robust_steps_to_flip"][number]),
            **{f"{name}_right": float(right[name][number]) for name in readers},
        }
        for name in COLUMNS:
            if name in known or (name in mean and mean[name].ndim == 1):
                row[name] = known[name] if name in known else float(mean[name][number])
        rows.append(row)
    return rows


def robustness_score(mean: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """How much robust evidence a file has for its ordinary evidence, as a rank within its class: (N,), in [0, 1].

    R and T are mean ranks within the class: R of the smallest change that flips robust readers, their lead under attack and the
    lead of readers of robust versions; T of the smallest change that flips ordinary readers, their lead and the lead of readers
    of non-robust versions. Ranked is R - a s T: what T does not explain of R, so that files do not end up high for being easy
    for all readers. s is the slope of R over T, over the reliability of T (Cronbach's alpha of its three ranks):
    a slope over something measured with noise comes out too flat (Spearman 1904). a is the accuracy of the ordinary readers, 0 at
    chance and 1 where they read every file: of a file that they cannot read T tells that it is hard, not what is missing in it.
    """
    robust, standard = (
        np.stack([class_ranks(mean[name], labels) for name in names if name in mean])
        for names in (ROBUST_EVIDENCE, STANDARD_EVIDENCE)
    )
    alone, together = standard.var(1, ddof=1).sum(), max(float(standard.sum(0).var(ddof=1)), 1e-12)
    reliability = len(standard) / (len(standard) - 1) * (1 - alone / together)
    one, other = robust.mean(0), standard.mean(0)
    slope = np.cov(one, other)[0, 1] / max(float(other.var(ddof=1)), 1e-12) / max(reliability, 0.5)
    chance = 1 / len(np.unique(labels))
    read = max(float((mean["standard_lead"] > 0).mean() - chance) / max(1 - chance, 1e-12), 0.0)
    return class_ranks(one - read * slope * other, labels)


def rank_reliability(whole: Sequence[FoldScores], labels: np.ndarray) -> float:
    """How well the ranks of `robustness` would agree with those of as many other repetitions: Spearman's, in [-1, 1].

    From the agreement of single repetitions, by the Spearman-Brown formula; nan for one repetition.
    """
    from scipy.stats import spearmanr

    if len(whole) < 2:
        return float("nan")
    single = [robustness_score(_finite([each]), labels) for each in whole]
    pairs = [spearmanr(one, other)[0] for place, one in enumerate(single) for other in single[place + 1 :]]
    agreement = float(np.mean(pairs))
    if agreement <= 0:
        return agreement
    return len(whole) * agreement / (1 + (len(whole) - 1) * agreement)


def _finite(whole: Sequence[FoldScores]) -> FoldScores:
    """Means over repetitions; what was not found counts as the largest that was."""
    mean: FoldScores = {}
    for name in whole[0]:
        stack = np.stack([each[name] for each in whole]).astype(np.float64)
        known = stack[np.isfinite(stack)]
        top = known.max() if known.size and known.max() > 0 else 1.0  # of what was never found any number will do: all are alike
        mean[name] = np.where(np.isposinf(stack), top, stack).mean(0)
    return mean


def class_ranks(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rank of each value among those of its class, from 0 (the lowest) to 1; ties share the mean, a class of one has 0.5."""
    from scipy.stats import rankdata

    found = np.full(len(values), 0.5)
    for label in np.unique(labels):
        own = labels == label
        if own.sum() > 1:
            found[own] = (rankdata(values[own]) - 1) / (own.sum() - 1)
    return found


def likely_label_errors(mean: Mapping[str, np.ndarray], readers: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Which files all readers take for the same other class, and as surely as files that bear its label are taken for it: (N,).

    The threshold is that of confident learning (Northcutt et al. 2021, section 3.1): the mean probability of a class over the
    files labelled so.
    """
    answers = np.stack([mean[f"{name}_probabilities"].argmax(1) for name in readers])
    same = (answers == answers[0]).all(0) & (answers[0] != labels)
    probabilities = np.mean([mean[f"{name}_probabilities"] for name in readers], axis=0)
    sure = np.array([probabilities[labels == k, k].mean() if (labels == k).any() else 1.0 for k in range(probabilities.shape[1])])
    found: np.ndarray = same & (probabilities[np.arange(len(labels)), answers[0]] >= sure[answers[0]])
    return found


def top_and_bottom(rows: Sequence[Mapping[str, Any]], top: float, by: str = "robustness") -> tuple[list[int], list[int]]:
    """Numbers of the files with the highest and with the lowest score, a share `top` of each class, in the set's order."""
    classes: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        classes.setdefault(str(row["label"]), []).append(number)
    check_fraction(top, min(map(len, classes.values())))
    high: list[int] = []
    low: list[int] = []
    for numbers in classes.values():
        ranked = sorted(numbers, key=lambda number: (float(rows[number][by]), number))
        count = int(top * len(ranked) + 1e-9)
        high, low = high + ranked[len(ranked) - count :], low + ranked[:count]
    return sorted(high), sorted(low)


def check_fraction(top: float, fewest: int) -> None:
    """Raises BadInput unless this share of a class, of which the smallest has so many files, can go to either half."""
    if not 0 < top <= 0.5:
        raise InputError("--top", "is a share of each class that goes to either half: above 0, at most 0.5", top)
    if int(top * fewest + 1e-9) < 1:
        raise InputError("--top", f"must leave a file of each class: {1 / fewest:.3g} or more", top)
