"""What the parts of files.py share, and the parts `stability`, `label-errors`, `cost` and `features`."""

import argparse
import os
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from harness import ResultsFile, Row
from scipy.stats import rankdata, spearmanr

import notbugs.train as train
from notbugs import data, files, metrics, models
from notbugs.data import DataConfig, Dataset
from notbugs.files import crossfit, scores
from notbugs.files.columns import COLUMNS
from notbugs.files.config import FilesConfig, crossfit_config, fold_path, load_splits
from notbugs.files.crossfit import CrossfitConfig
from notbugs.files.fold_scores import FoldScores
from notbugs.files.label_errors import label_errors as find_label_errors
from notbugs.files.subset_pairs import train_and_attack
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.files import FileRow

FOLDS = 3
CATEGORIES_OF_FEATURES = {"robust": "robust_features", "non-robust": "nonrobust_features", "useless": "useless_features"}
loaded_splits = lru_cache(maxsize=1)(load_splits)  # worker processes train on parts of one data set, again and again
FEATURE_IMAGES = 1000  # of training and of testing, in `features`


class Benchmark:
    """What every part gets: two scorings of one data set, with the seeds 0 and 1."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.name = Path(options.dataset).stem

    def config(self, seed: int = 0) -> FilesConfig:
        """The configuration of one scoring."""
        options = self.options
        chosen = DataConfig(options.dataset, limit=options.limit, resize=options.resize, resize_mode=options.resize_mode)
        pairs = options.subset_regression if seed == options.scoring else 0
        return FilesConfig(chosen, seed=seed, folds=FOLDS, repeats=options.repeats, subset_regression=pairs)

    def splits(self, seed: int = 0) -> data.Splits:
        """The data set; the synthetic one differs by seed."""
        return loaded_splits(self.config(seed))

    def crossfit_config(self, seed: int = 0) -> CrossfitConfig:
        """How cross-fitted models are trained."""
        return crossfit_config(self.config(seed), self.splits(seed))

    def folder(self, seed: int) -> Path:
        """The run folder of one scoring."""
        folder: Path = self.options.runs / f"{self.name}-seed{seed}"
        return folder

    def fold_scores(self, seed: int) -> list[FoldScores]:
        """Scores of all files by cross-fitted models, repetition by repetition; computed if they are missing."""
        self.run(seed)
        config, labels, whole = self.config(seed), self.splits(seed).train.labels, []
        for repeat in range(config.repeats):
            folds = crossfit.stratified_folds(labels, FOLDS, crossfit.fold_seed(seed, repeat))
            parts = [data.load_arrays(fold_path(self.folder(seed), repeat, fold)) for fold in range(FOLDS)]
            whole.append(crossfit.merge_folds(folds, parts))
        return whole

    def run(self, seed: int) -> RunFolder:
        """The run of one scoring, finished."""
        config = self.config(seed)
        read = {name: getattr(self.options, name, None) for name in ("limit", "resize", "resize_mode")}
        given = "".join(f" --{name.replace('_', '-')} {value}" for name, value in read.items() if value)
        command = f"notbugs files {self.options.dataset}{given} --seed {seed} --repeats {config.repeats}"
        command += f" --subset-regression {config.subset_regression}" if config.subset_regression else ""
        return files.run(config, self.folder(seed), command=command, workers=self.options.workers)

    def file_rows(self, seed: int) -> list[FileRow]:
        """The scores as `notbugs files` writes them."""
        epsilon = float(self.crossfit_config(seed).threat_model.epsilon)
        return scores.combine(self.splits(seed).train, self.fold_scores(seed), epsilon)

    def subset(self, dataset: Dataset) -> Dataset:
        """At most `--max-files` files, evenly spaced."""
        most = self.options.max_files
        return dataset.select(torch.arange(most) * len(dataset) // most) if most else dataset


def auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive has a higher score than a negative."""
    ranks, count = rankdata(score), int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(score) - count)))


def normalized(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities that add up to 1."""
    shares: np.ndarray = probabilities / probabilities.sum(1, keepdims=True)
    return shares


def accuracies_after_training(half: Dataset, test: Dataset, settings: CrossfitConfig, seed: int, budget: str = "standard") -> Row:
    """Of standard training on half of the files."""
    clean, half_epsilon, epsilon = train_and_attack(half, test, settings, seed=seed, budget=budget)
    return {
        "clean_accuracy": clean.accuracy,
        "robust_accuracy_half_epsilon": half_epsilon.accuracy,
        "robust_accuracy": epsilon.accuracy,
        "n": len(test),
    }


# ---- the parts -------------------------------------------------------------------------------------------------------------


def stability(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """Rank correlation of each numeric column between the two scorings."""
    first, second = (benchmark.file_rows(seed) for seed in (0, 1))
    for column in (each.column for each in COLUMNS):
        if isinstance(getattr(first[0], column), float):
            values = [[getattr(row, column) for row in rows] for rows in (first, second)]
            yield {"column": column, "spearman": float(spearmanr(*values)[0]), "repeats": benchmark.options.repeats}


def label_errors(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """One repetition for each `--relabeled` share: AUC of each score, and how many labels each rule calls wrong."""
    for share in benchmark.options.relabeled:
        dataset, relabeled = _relabel(benchmark.subset(benchmark.splits().train), share)
        whole, labels = _score_once(dataset, benchmark.crossfit_config()), dataset.labels.numpy()
        common = {"relabeled_share": share, "n": len(dataset), "n_relabeled": int(relabeled.sum())}
        for name, score in _error_scores(whole, labels).items() if relabeled.any() else ():
            yield {"score": name, "auc": auc(relabeled, score), **common}
        found = find_label_errors(scores.mean_probabilities([whole]), labels)
        rules = {
            "confident agreement of all models": _confident_agreement(whole, labels),
            "cleanlab find_label_issues, standard models": _cleanlab_issues(whole["standard_probabilities"], labels),
            "notbugs likely label error": found.likely,
        }
        common["accuracy"] = float((whole["standard_probabilities"].argmax(1) == labels).mean())
        common |= {"detectable": found.detectable, "estimated_rate": found.rate}
        for rule, called in rules.items():
            counts = {"relabeled_files": int(called[relabeled].sum()), "other_files": int(called[~relabeled].sum())}
            yield {"label_rule": rule, **counts, **common}


def _relabel(dataset: Dataset, share: float) -> tuple[Dataset, np.ndarray]:
    """The data set with another label for a share of its files, and which."""
    generator, classes = np.random.default_rng(0), len(dataset.classes)
    relabeled = generator.permutation(len(dataset)) < round(share * len(dataset))
    labels = dataset.labels.numpy().copy()
    labels[relabeled] = (labels[relabeled] + generator.integers(1, classes, relabeled.sum())) % classes
    return dataset.with_labels(torch.from_numpy(labels)), relabeled


def _error_scores(whole: FoldScores, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Scores that are to be high for a wrong label."""
    from cleanlab.rank import get_label_quality_scores

    standard = whole["standard_probabilities"]
    predictions = {"all cross-fitted models": scores.mean_probabilities([whole]), "standard cross-fitted models": standard}
    found = {"notbugs `label_quality`": 1 - standard[np.arange(len(labels)), labels]}
    found["notbugs `label_error_probability`"] = find_label_errors(scores.mean_probabilities([whole]), labels).probability
    for name, probabilities in predictions.items():
        for method in ("self_confidence", "normalized_margin"):
            quality = get_label_quality_scores(labels, normalized(probabilities), method=method)
            found[f"cleanlab `{method}`, {name}"] = 1 - quality
    return found


def _confident_agreement(whole: FoldScores, labels: np.ndarray) -> np.ndarray:
    """The rule that `label_errors` replaced: all models predict the same other class, at least as confidently as for its files.

    The threshold is the mean probability of a class over the files with that label (Northcutt et al. 2021, section 3.1).
    """
    predictions = np.stack([whole[f"{name}_probabilities"].argmax(1) for name in scores.fitted_models(whole)])
    same = (predictions == predictions[0]).all(0) & (predictions[0] != labels)
    probabilities = scores.mean_probabilities([whole])
    thresholds = np.array([probabilities[labels == label, label].mean() for label in range(probabilities.shape[1])])
    called: np.ndarray = same & (probabilities[np.arange(len(labels)), predictions[0]] >= thresholds[predictions[0]])
    return called


def _cleanlab_issues(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    from cleanlab.filter import find_label_issues

    called: np.ndarray = find_label_issues(labels, normalized(probabilities), n_jobs=1)
    return called


def _score_once(dataset: Dataset, config: CrossfitConfig) -> FoldScores:
    """Scores of all files, one repetition."""
    torch.set_num_threads(1)
    folds = crossfit.stratified_folds(dataset.labels, FOLDS, 0)
    parts = [crossfit.score_fold(dataset, config, folds == fold, seed=crossfit.fold_seed(0, 0, fold)) for fold in range(FOLDS)]
    return crossfit.merge_folds(folds, parts)


def cost(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """One fold: CPU seconds of everything, and of the trainings in it, from a clock around `train.fit`."""
    torch.set_num_threads(1)
    splits = benchmark.splits()
    dataset = benchmark.subset(splits.train)
    fit, spent = train.fit, []

    def timed_fit(*args: Any, **options: Any) -> Any:
        started = time.process_time()
        curve = fit(*args, **options)
        spent.append(time.process_time() - started)
        return curve

    with patch.object(train, "fit", timed_fit):
        started = time.process_time()
        held_out = crossfit.stratified_folds(dataset.labels, FOLDS, 0) == 0
        crossfit.score_fold(dataset, benchmark.crossfit_config(), held_out, seed=0, test=splits.test)
        total = time.process_time() - started
    times = {"cpu_seconds": total, "training_cpu_seconds": sum(spent), "scoring_over_training": total / sum(spent)}
    yield {"files": len(dataset), **times}


def features(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """A ResNet-18 after one epoch on 1,000 images: enough for features that differ in usefulness."""
    torch.set_num_threads(os.cpu_count() or 1)
    splits = benchmark.splits()
    every = max(1, len(splits.train) // FEATURE_IMAGES)
    dataset = splits.train.select(torch.arange(0, len(splits.train), every)[:FEATURE_IMAGES])
    model = models.build("resnet18", shape=dataset.shape, classes=len(dataset.classes))
    train.fit(model, dataset, epochs=1, batch_size=50, learning_rate=0.002)
    fused = models.fuse_batchnorm(model, dataset.pixels(slice(0, 2)))
    test = splits.test.select(torch.arange(min(FEATURE_IMAGES, len(splits.test))))
    threat_model = benchmark.crossfit_config().threat_model
    started, cpu = time.perf_counter(), time.process_time()
    rows = metrics.per_feature(fused, test, threat_model)
    seconds = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    categories = [row.category for row in metrics.best_class_rows(rows)]
    counts = {column: categories.count(name) for name, column in CATEGORIES_OF_FEATURES.items()}
    yield {"images": len(test), "features": len(categories), "n_attacked": rows[0].n_attacked, **counts, **seconds}
