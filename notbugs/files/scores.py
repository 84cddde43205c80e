"""From the scores of all folds to one row per file: means over repetitions, robustness, and a category; and to accuracies."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.files.columns import COLUMNS
from notbugs.files.crossfit import (
    SEED_KEYS,
    CrossfitConfig,
    Progress,
    fold_seed,
    merge_folds,
    score_fold,
    stratified_folds,
)
from notbugs.files.fold_scores import FoldScores
from notbugs.files.label_errors import LIKELY, label_errors
from notbugs.files.robustness import finite_means, robustness_score
from notbugs.runs.tables.files import FileRow, LabelErrorsRow, ModelAccuracyRow
from notbugs.stats import wilson_interval


def per_file(
    dataset: Dataset,
    config: CrossfitConfig,
    *,
    folds: int = 3,
    repeats: int = 3,
    seed: int = 0,
    test: Dataset | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> list[FileRow]:
    """Scores of every file. No file is scored by a model that was trained on it.

    Parameters
    ----------
    dataset : Dataset
    config : CrossfitConfig
    folds : int
        2 or more, at most the files of the smallest class.
    repeats : int
        How often, with other folds and other models each time; 1 or more.
    seed : int
    test : Dataset, optional
        The test part, for margin_lost_on_test_part.
    device : torch.device or str
    progress : callable, optional
        Called with the share done and a few words.

    Returns
    -------
    list of FileRow
        In the order of the data set; `COLUMNS` has range and direction of each column.

    Raises
    ------
    InputError
        If the files cannot be split into so many folds.

    Examples
    --------
    >>> from notbugs import data
    >>> from notbugs.search import NormBall
    >>> digits = data.load("digits").train.select(slice(0, 40))
    >>> config = CrossfitConfig(NormBall("l2", 0.5), width=2, epochs=1, invert_steps=1, train_on_versions=False)
    >>> rows = per_file(digits, config, folds=2, repeats=1)
    >>> len(rows), 0 <= rows[0].robustness <= 1
    (40, True)
    """
    if repeats < 1:
        raise InputError("--repeats", "must be 1 or more", repeats)
    whole = []
    for repeat in range(repeats):
        dealt, parts = stratified_folds(dataset.labels, folds, fold_seed(seed, repeat), dataset.groups), []
        for fold in range(folds):
            done = repeat * folds + fold
            report = (lambda share, words, done=done: progress((done + share) / (repeats * folds), words)) if progress else None
            own = fold_seed(seed, repeat, fold)
            parts.append(score_fold(dataset, config, dealt == fold, seed=own, test=test, device=device, progress=report))
        whole.append(merge_folds(dealt, parts))
    return combine(dataset, whole, float(config.threat_model.epsilon))


def combine(dataset: Dataset, whole: Sequence[FoldScores], epsilon: float) -> list[FileRow]:
    """One row per file from the scores of all repetitions.

    Parameters
    ----------
    dataset : Dataset
    whole : sequence of FoldScores
        One for each repetition: `merge_folds`.
    epsilon : float
        Of the threat model.

    Returns
    -------
    list of FileRow
        Means over the repetitions; robustness: `robustness_score`. A minimum norm that was not found counts as the largest that
        was.
    """
    labels = dataset.labels.numpy()
    mean, probabilities = finite_means(whole), mean_probabilities(whole)
    scores = {
        f"{name}_correct": np.stack([scores[f"{name}_margin"] > 0 for scores in whole]).mean(0)
        for name in fitted_models(whole[0])
    }
    scores["robust_correct_within_epsilon"] = np.stack([correct_within(scores, "robust", epsilon) for scores in whole]).mean(0)
    scores["robustness"] = robustness_score(mean, labels)
    scores["label_quality"] = _label_probabilities(mean["standard_probabilities"], labels)
    scores["robust_confidence"] = _label_probabilities(mean["robust_probabilities"], labels)
    scores["pgd_steps_to_misclassify"] = mean["robust_pgd_steps_to_misclassify"]
    errors = label_errors(probabilities, labels)
    scores["label_error_probability"] = errors.probability
    columns = {column.column for column in COLUMNS}
    scores |= {name: values for name, values in mean.items() if name in columns}
    suggested, found = probabilities.argmax(1), categories(scores, errors.likely)
    return [
        FileRow(
            index=index,
            file=file,
            label=dataset.classes[labels[index]],
            category=found[index],
            suggested_label=dataset.classes[suggested[index]],
            **{name: float(values[index]) for name, values in scores.items()},
        )
        for index, file in enumerate(dataset.names)
    ]


def categories(scores: Mapping[str, np.ndarray], label_errors: np.ndarray) -> list[str]:
    """The category of each file: what the majority of models does with it, unless its label is a likely error."""
    robust, standard = scores["robust_correct_within_epsilon"] > 0.5, scores["standard_correct"] > 0.5
    found: list[str] = np.select(
        [label_errors, robust, standard], ["likely label error", "robust", "non-robust"], "misclassified"
    ).tolist()
    return found


def correct_within(scores: FoldScores, model: str, epsilon: float) -> np.ndarray:
    """Files that a model classifies correctly, clean, under PGD, and by their minimum norm, within epsilon; bool, (N,)."""
    correct: np.ndarray = scores[f"{model}_margin"] > 0
    return correct & (scores[f"{model}_attacked_margin"] > 0) & (scores[f"{model}_minimum_norm"] > epsilon)


def probabilities_by_model(whole: Sequence[FoldScores]) -> dict[str, np.ndarray]:
    """Probabilities of all classes by each cross-fitted model, (N, K), means over the repetitions."""
    return {name: np.stack([scores[f"{name}_probabilities"] for scores in whole]).mean(0) for name in fitted_models(whole[0])}


def mean_probabilities(whole: Sequence[FoldScores]) -> np.ndarray:
    """Mean over all cross-fitted models and repetitions of the probabilities of all classes, (N, K)."""
    every = [scores[f"{name}_probabilities"] for scores in whole for name in fitted_models(scores)]
    mean: np.ndarray = np.stack(every).mean(0, dtype=np.float64)
    return mean


def model_accuracies(whole: Sequence[FoldScores], epsilon: float) -> list[ModelAccuracyRow]:
    """Accuracy of cross-fitted models on files that they were not trained on, kind by kind.

    Parameters
    ----------
    whole : sequence of FoldScores
        One for each repetition.
    epsilon : float
        Of the threat model.

    Returns
    -------
    list of ModelAccuracyRow
        Means over the repetitions, with a CI over the files. Models trained on versions were not attacked.
    """
    rows = []
    for name in fitted_models(whole[0]):
        correct = np.stack([scores[f"{name}_margin"] > 0 for scores in whole])
        accuracy, low, high = _share(correct)
        row = ModelAccuracyRow(model=name, n=correct.shape[1], accuracy=accuracy, ci_low=low, ci_high=high, epsilon=epsilon)
        if f"{name}_minimum_norm" in whole[0]:
            robust, low, high = _share(np.stack([correct_within(scores, name, epsilon) for scores in whole]))
            row = replace(row, robust_accuracy=robust, robust_ci_low=low, robust_ci_high=high)
            norms = np.stack([scores[f"{name}_minimum_norm"] for scores in whole])
            row = replace(row, median_minimum_norm=float(np.median(norms[correct])) if correct.any() else None)
        rows.append(row)
    return rows


def label_errors_row(whole: Sequence[FoldScores], dataset: Dataset) -> LabelErrorsRow:
    """Label errors of the whole data set, from the scores of all repetitions."""
    found = label_errors(mean_probabilities(whole), dataset.labels.numpy())
    return LabelErrorsRow(
        n=len(dataset),
        estimated_rate=found.rate,
        likely=int(found.likely.sum()),
        threshold=LIKELY,
        detectable=found.detectable,
        too_weak=found.too_weak,
    )


def _share(correct: np.ndarray) -> tuple[float, float, float]:
    """Accuracy over repetitions and files, with the CI of as many files; correct: bool, (repetitions, N)."""
    share, n = float(correct.mean()), correct.shape[1]
    return share, *wilson_interval(round(share * n), n)


def fitted_models(scores: Mapping[str, np.ndarray]) -> list[str]:
    """The cross-fitted models that these scores are of."""
    return [name for name in SEED_KEYS if f"{name}_probabilities" in scores]


def _label_probabilities(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probability of one class for each file, (N,)."""
    chosen: np.ndarray = probabilities[np.arange(len(labels)), labels]
    return chosen
