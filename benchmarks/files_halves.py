"""Part `halves` of files.py: standard training on the upper and on the lower half of the files by each score."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch
from files_candidates import CANDIDATES, HALF_RANDOM, STRATIFIED, candidates, half_random, stratified
from files_regression import REGRESSED, regressed_scores
from files_scoring import Benchmark, accuracies_after_training, loaded_splits, normalized
from harness import ResultsFile, Row

from notbugs import data
from notbugs.errors import InputError
from notbugs.files.config import FilesConfig, crossfit_config
from notbugs.files.fold_scores import FoldScores
from notbugs.files.robustness import top_and_bottom

CLEANLAB = "cleanlab label quality"


class _Training(NamedTuple):
    """One training: half is "upper" or "lower", "" for a random half; files: their indices."""

    score: str
    half: str
    seed: int
    files: list[int]


def halves(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """Some trainings per half; those in the file are not repeated."""
    known = {"part": "halves", "dataset": benchmark.name, "scoring": benchmark.options.scoring or None}
    todo = [each for each in _trainings(benchmark) if not results.has(**known, score=each.score, half=each.half, seed=each.seed)]
    with ProcessPoolExecutor(benchmark.options.workers, get_context("spawn")) as pool:
        config, test = benchmark.config(benchmark.options.scoring), benchmark.options.test
        futures = [pool.submit(train_on_half, config, each.files, 1000 + each.seed, test) for each in todo]
        for each, future in zip(todo, futures, strict=True):
            columns = {"score": each.score, "half": each.half, "seed": each.seed, "files": len(each.files)}
            yield {**columns, **future.result()}


def train_on_half(config: FilesConfig, indices: list[int], seed: int, test_images: int) -> Row:
    """Standard training on some of the files; accuracy on the test part, clean and under attack."""
    torch.set_num_threads(1)
    splits = loaded_splits(config)
    test = splits.test.select(data.evenly_spaced(test_images, len(splits.test)))
    return accuracies_after_training(splits.train.select(torch.tensor(indices)), test, crossfit_config(config, splits), seed)


def _trainings(benchmark: Benchmark) -> list[_Training]:
    """Random halves first, then both halves by each score; seed by seed, so that a benchmark that is stopped has pairs."""
    options = benchmark.options
    dataset = benchmark.splits(options.scoring).train
    labels = [dataset.classes[label] for label in dataset.labels.tolist()]
    generator, sets = np.random.default_rng(0), []
    for number in range(options.random):
        upper = top_and_bottom(labels, generator.random(len(labels)).tolist(), 0.5)[0]
        sets.append((f"random {number + 1}", "", upper))
    for name, score in _scores(benchmark).items():
        sides = zip(("upper", "lower"), top_and_bottom(labels, score.tolist(), 0.5), strict=True)
        sets += [(name, half, indices) for half, indices in sides]
    seeds = range(options.first_training, options.first_training + options.trainings)
    return [_Training(name, half, seed, indices) for seed in seeds for name, half, indices in sets]


def _scores(benchmark: Benchmark) -> dict[str, np.ndarray]:
    """The scores that were asked for: published ones, `robustness`, combinations, and the same within strata of difficulty."""
    options, labels = benchmark.options, benchmark.splits(benchmark.options.scoring).train.labels.numpy()
    whole = benchmark.fold_scores(options.scoring)
    robustness = np.array([row.robustness for row in benchmark.file_rows(options.scoring)])
    found = {"robustness": robustness, **_other_scores(whole, labels)}
    named = {*options.scores, *options.stratify, *options.half_random}
    if not options.scores or CLEANLAB in named:
        found[CLEANLAB] = _label_quality(whole, labels)
    plain = options.scores or [*found]
    found |= candidates(benchmark, whole, [*named])
    if REGRESSED.keys() & named:
        found |= {name: np.array(score) for name, score in regressed_scores(benchmark).items()}
    if unknown := named - found.keys():
        known = ", ".join(sorted({*found, CLEANLAB, *CANDIDATES, *REGRESSED}))
        raise InputError("--scores, --stratify, --half-random", f"must be of {known}", ", ".join(sorted(unknown)))
    difficulty = np.mean([each["standard_margin"] for each in whole], axis=0)
    tenths = {name + STRATIFIED: stratified(found[name], difficulty, labels) for name in options.stratify}
    mixed = {name + HALF_RANDOM: half_random(found[name], labels) for name in options.half_random}
    return {**{name: found[name] for name in plain}, **tenths, **mixed}


def _other_scores(whole: list[FoldScores], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Published scores, means over repetitions; files with a high one are kept."""
    mean = {name: np.mean([each[name] for each in whole], axis=0) for name in whole[0]}
    own = np.arange(len(labels)), labels
    return {
        "loss": np.mean([np.log(each["standard_probabilities"][own].clip(1e-12)) for each in whole], axis=0),
        "margin": mean["standard_margin"],
        "dataset cartography confidence": mean["epochs_confidence"],
        "forgetting events": -mean["forgetting_events"],
        "GAIRAT steps": mean["robust_pgd_steps_to_misclassify"],
        "robust margin": mean["robust_margin"],
    }


def _label_quality(whole: list[FoldScores], labels: np.ndarray) -> np.ndarray:
    """By cleanlab, which is not imported where this score is not asked for."""
    from cleanlab.rank import get_label_quality_scores

    mean = np.mean([each["standard_probabilities"] for each in whole], axis=0)
    quality: np.ndarray = get_label_quality_scores(labels, normalized(mean))
    return quality
