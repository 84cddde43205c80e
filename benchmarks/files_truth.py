"""Parts `truth`, `feature-truth` and `oracle` of files.py: files, cues and features against those of the synthetic data set."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from files_scoring import FOLDS, Benchmark, accuracies_after_training, auc
from harness import ResultsFile, Row

import notbugs.train as train
from notbugs import metrics, models, predict
from notbugs.data import Dataset, synthetic
from notbugs.data.load import SYNTHETIC
from notbugs.files import crossfit, scores
from notbugs.files.features import feature_evidence, invert_both
from notbugs.files.robustness import class_ranks, top_and_bottom

# One cue alone predicts the label here: nearly all features of a network trained on it are of one kind
SINGLE_CUE_DATASETS: dict[str, dict[str, float]] = {
    "shape": {"texture_norm": 0.0, "background": 0.5, "shape_accuracy": 1.0},
    "grating": {"shape_accuracy": 0.25, "background": 0.5},
    "background": {"shape_accuracy": 0.25, "texture_norm": 0.0, "background": 0.95},
}
BACKGROUND_CUE = "background brightness"
MIN_EXPLAINED = 0.5  # of a feature's variance, by the cue that it is of


def truth(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """Files and cues, for both seeds."""
    if benchmark.options.dataset != SYNTHETIC:
        return
    for seed in (0, 1):
        splits = benchmark.splits(seed)
        known = synthetic.make_synthetic(seed=seed, train=len(splits.train), test=len(splits.test))
        wrong_shape = known.train_truth.shape_class != splits.train.labels.numpy()
        robustness = np.array([row.robustness for row in benchmark.file_rows(seed)])
        counts = {"n_positive": int(wrong_shape.sum()), "n": len(robustness)}
        test = "files whose shape is another class's"
        yield {"test": test, "seed": seed, "auc": auc(wrong_shape, -robustness), **counts}
        names, values = metrics.cue_values(splits.train)
        _, test_values = metrics.cue_values(splits.test)
        drops = metrics.spurious_features(
            names, values, splits.train.labels, test_values, splits.test.labels, splits.train.classes
        )
        cues = [drop.name for drop in drops if drop.spurious]
        yield {"test": "background as a spurious cue", "seed": seed, "found": int(BACKGROUND_CUE in cues), "cues": cues}


ORACLE_TEST = 500  # images
# by a grating of 0.5 all classifiers are fooled, those trained on the upper half by the truth, too
ORACLE_CUES: dict[str, Any] = {"background": 0.5, "texture_norm": 0.3}


def oracle(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """Halves by the truth beside halves by the scores. Half of the files have a shape of their class, the others of another one.

    The grating is always of the class. So the former have robust evidence for their label, the latter non-robust evidence alone.
    All test images have a shape of their class. There is no background cue.
    """
    if benchmark.options.dataset != SYNTHETIC:
        return
    made = synthetic.make_synthetic(test=synthetic.FEWEST, shape_accuracy=0.5, **ORACLE_CUES)
    test = synthetic.make_synthetic(seed=1, train=synthetic.FEWEST, test=ORACLE_TEST, shape_accuracy=1.0, **ORACLE_CUES).test
    files, settings = made.train, benchmark.crossfit_config()
    truth = made.train_truth.shape_class == files.labels.numpy()
    rows = scores.per_file(files, settings, folds=FOLDS, repeats=benchmark.options.repeats)
    names = ("pgd_steps_to_misclassify", "robust_margin", "robustness", "influence")
    steps, margin, robustness, influence = (np.array([getattr(row, name) for row in rows]) for name in names)
    labels = files.labels.numpy()
    by_score = {
        "truth": truth + np.random.default_rng(0).random(len(files)),
        "GAIRAT steps": steps,
        "robust margin": margin,
        "robustness": robustness,
        "influence + robustness + steps": np.mean([class_ranks(each, labels) for each in (influence, robustness, steps)], axis=0),
    }
    for name, score in by_score.items():
        yield {"score": name, "auc": auc(truth, score), "n_positive": int(truth.sum()), "n": len(files)}
    names_of_classes = [row.label for row in rows]
    for seed in range(benchmark.options.trainings):
        for name, score in by_score.items():
            for half, index in zip(("upper", "lower"), top_and_bottom(names_of_classes, score.tolist(), 0.5), strict=True):
                found = accuracies_after_training(files.select(torch.tensor(index)), test, settings, 1000 + seed)
                yield {"score": name, "half": half, "seed": seed, "files": len(index), **found}


def feature_truth(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """Features, for both seeds."""
    if benchmark.options.dataset == SYNTHETIC:
        for seed in (0, 1):
            yield from _true_features(benchmark, seed)


def _true_features(benchmark: Benchmark, seed: int) -> Iterator[Row]:
    """Category and evidence of each useful feature of three networks, beside the cue that it is known to be of.

    Known: the cue that explains most of its variance, and at least half, on 2,000 images in which the three are independent.
    """
    images = _prepare(benchmark, seed)
    found = [feature for cue in SINGLE_CUE_DATASETS for feature in _known_features(benchmark, seed, cue, images)]
    for cue in SINGLE_CUE_DATASETS:
        own = [feature for feature in found if feature.cue == cue]
        yield {
            "test": f"features of the {cue}",
            "seed": seed,
            "robust_features": sum(feature.category == "robust" for feature in own),
            "nonrobust_features": sum(feature.category == "non-robust" for feature in own),
            "spurious_features": sum(feature.spurious for feature in own),
            "kept_on_robust_features": sum(feature.kept_on_robust for feature in own),
            "features": len(own),
        }
    share = {"accuracy": float(np.mean([feature.guess == feature.cue for feature in found])), "n": len(found)}
    yield {"test": "cue by the evidence", "seed": seed, **share}


class _KnownFeature(NamedTuple):
    """One useful feature: the cue that it is of, its category, and the other evidence."""

    cue: str
    category: str
    spurious: bool
    kept_on_robust: bool  # more of its usefulness than on the non-robust version

    @property
    def guess(self) -> str:
        """The cue that the evidence points to."""
        return "background" if self.spurious else "shape" if self.kept_on_robust else "grating"


class _Images(NamedTuple):
    """What features are measured on: files, their robust and non-robust version, the test part, and independent cues."""

    files: Dataset
    versions: tuple[Dataset, Dataset]
    test: Dataset
    independent: Dataset
    cues: dict[str, np.ndarray]


def _prepare(benchmark: Benchmark, seed: int) -> _Images:
    splits = benchmark.splits(seed)
    folds = crossfit.stratified_folds(splits.train.labels, FOLDS, crossfit.fold_seed(seed, 0))
    files, others = (splits.train.select(side.nonzero().squeeze(1)) for side in (folds == 0, folds != 0))
    config = benchmark.crossfit_config(seed)
    losses = {"robust": crossfit.adversarial_loss(config), "standard": train.cross_entropy}
    robust, standard = (  # the models of the first fold, as in a run
        crossfit.train_crossfit_model(others, name, loss, config=config, seed=crossfit.fold_seed(seed, 0, 0), device="cpu")
        for name, loss in losses.items()
    )
    versions = invert_both(robust, standard, files, config, seed, "cpu")
    independent = synthetic.make_synthetic(
        seed=500 + seed, train=2000, test=8, shape_accuracy=1 / len(synthetic.CLASSES), background=0.5
    )
    known = independent.train_truth
    cues = {"shape": known.shape_class, "grating": known.texture_class, "background": known.light_background}
    return _Images(files, versions, splits.test, independent.train, cues)


def _known_features(benchmark: Benchmark, seed: int, name: str, images: _Images) -> Iterator[_KnownFeature]:
    """The useful features of known cue of a network trained where one cue alone predicts the label."""
    options: dict[str, Any] = SINGLE_CUE_DATASETS[name]
    dataset = synthetic.make_synthetic(seed=100 + seed, train=1500, test=8, **options).train
    config = benchmark.crossfit_config(seed)
    model = crossfit.train_crossfit_model(dataset, name, train.cross_entropy, config=config, seed=seed, device="cpu")
    parts = (images.files, *images.versions, images.test)
    values, on_robust, on_nonrobust, on_test = (predict.features(model, part) for part in parts)
    table = predict.features(model, images.independent).numpy()
    explained = np.stack([_explained_variance(table, known) for known in images.cues.values()])
    fused = models.fuse_batchnorm(model, images.files.pixels(slice(0, 2)))
    rows = metrics.best_class_rows(metrics.per_feature(fused, images.files, config.threat_model, sample=100, steps=4))
    evidence = feature_evidence(values, images.files, on_robust, on_nonrobust, on_test, images.test)
    for row, known, shares in zip(rows, evidence, explained.T, strict=True):
        if shares.max() >= MIN_EXPLAINED and row.category != "useless":
            cue = [*images.cues][int(shares.argmax())]
            yield _KnownFeature(cue, row.category, known.drop.spurious, known.kept_on_robust > known.kept_on_nonrobust)


def _explained_variance(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The share of each feature's variance that lies between groups: (F,)."""
    members = [groups == group for group in np.unique(groups)]
    between = sum(own.mean() * (values[own].mean(0) - values.mean(0)) ** 2 for own in members)
    share: np.ndarray = between / np.maximum(values.var(0), 1e-12)
    return share
