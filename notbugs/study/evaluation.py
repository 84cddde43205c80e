"""Accuracy of a study's models as table rows, and two stages: all models on all data sets, clean and under attack.

A stage is a function (config, folder, seed, report_progress) -> rows for the tables.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from notbugs import attacks, data, metrics, precision
from notbugs.attacks.budgets import GRADIENT_ENSEMBLE, UNTARGETED_ATTACKS
from notbugs.data import Dataset
from notbugs.metrics import Accuracy
from notbugs.models import Model, fuse_batchnorm
from notbugs.runs.engine import Progress
from notbugs.runs.tables.study import AccuracyRow
from notbugs.search import Attack, NormBall
from notbugs.study.catalog.datasets import CONTROL_DATASETS, ORIGINAL, OWN_DATASETS, QUICK
from notbugs.study.catalog.models import MAIN_MODELS, MODELS, OWN_MODELS
from notbugs.study.config import ResolvedConfig, load
from notbugs.study.epsilon import neighbor_distances
from notbugs.study.store import has_dataset, has_model, load_dataset, load_model

CLEAN_IMAGES = 1000  # of each training set
ATTACKED_IMAGES = 100  # of each training set
CURVE_ROLES = ("main", "reference", "strong")  # of models whose accuracy is measured at further epsilons
CURVE = (0.25, 0.75, 1.5)  # of epsilon: where accuracy is measured beside the two epsilons of the main table


def accuracy_row(model: str, set_name: str, accuracy: Accuracy, *, config: ResolvedConfig, seed: int) -> AccuracyRow:
    """One accuracy of one model of the study as a table row."""
    counts = {**asdict(accuracy), "norm": config.norm}
    return AccuracyRow(model=model, trained_on=MODELS[model].trained_on, set=set_name, seed=seed, **counts)


def accuracy_on_all_datasets(
    config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress, *, models: tuple[str, ...]
) -> list[AccuracyRow]:
    """Clean accuracy of each model on the original training set, on those that the quick study constructs and on your own."""
    original = load(config, seed).train
    parts = {**{name: load_dataset(config, folder, seed, name) for name in (*QUICK, *OWN_DATASETS)}, ORIGINAL: original}
    rows = []
    for number, name in enumerate(models):
        model = _fused(config, folder, seed, name)
        rows += [_clean_row(name, model, set_name, part, config, seed) for set_name, part in parts.items()]
        report_progress("", (number + 1) / len(models), name)
    return rows


def curve_balls(config: ResolvedConfig, seed: int) -> list[NormBall]:
    """Further epsilons of the accuracy curves, without those within which a test image can become one of another class."""
    nearest = neighbor_distances(load(config, seed).train, config.norm).other_class
    return [NormBall(config.norm, share * config.epsilon) for share in CURVE if share <= 1 or share * config.epsilon < nearest]


def robust_accuracy_on_all_datasets(
    config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress
) -> list[AccuracyRow]:
    """Each model on each training set: clean, and on fewer images under three gradient attacks at half of epsilon."""
    parts = {ORIGINAL: load(config, seed).train}
    for name in (*QUICK, *CONTROL_DATASETS, *OWN_DATASETS):
        if has_dataset(config, folder, seed, name):
            parts[name] = load_dataset(config, folder, seed, name)
    attacked = {name: data.balanced_subset(part, ATTACKED_IMAGES) for name, part in parts.items()}
    names = [name for name, spec in MODELS.items() if spec.role in ("main", "control", "own")]
    names = [name for name in names if has_model(config, folder, seed, name)]
    rows = []
    for number, name in enumerate(names):
        model = _fused(config, folder, seed, name)
        done = (ORIGINAL, *QUICK, *OWN_DATASETS) if name in (*MAIN_MODELS, *OWN_MODELS) else ()  # by `accuracy_on_all_datasets`
        rows += [_clean_row(name, model, on, part, config, seed) for on, part in parts.items() if on not in done]
        for on, accuracy in _attacked_accuracies(model, attacked, config.threat_models[0], config.device).items():
            rows.append(accuracy_row(name, on, accuracy, config=config, seed=seed))
        report_progress("", (number + 1) / len(names), name)
    return rows


def _fused(config: ResolvedConfig, folder: Path, seed: int, name: str) -> Model:
    model: Model = fuse_batchnorm(
        load_model(config, folder, seed, name), load(config, seed).train.pixels(slice(0, 2)), config.device
    )
    return model


def _clean_row(name: str, model: Model, on: str, part: Dataset, config: ResolvedConfig, seed: int) -> AccuracyRow:
    part = data.random_subset(part, CLEAN_IMAGES)
    return accuracy_row(name, on, metrics.clean_accuracy(model, part, device=config.device), config=config, seed=seed)


def _attacked_accuracies(model: Model, parts: dict[str, Dataset], threat_model: NormBall, device: str) -> dict[str, Accuracy]:
    """Robust accuracy on each part; the images of all parts are attacked together, since small batches take as long."""
    images = torch.cat([part.images[:] for part in parts.values()])
    labels = torch.cat([part.labels for part in parts.values()])
    classes = len(next(iter(parts.values())).classes)
    ensemble = attacks.gradient_ensemble(threat_model, classes)[: len(UNTARGETED_ATTACKS)]
    work, size = partial(_is_robust, model, labels, ensemble), precision.bounded_batch_size(1000, device, images.shape[1:])
    robust: Tensor = data.map_batches(work, images, batch_size=size, device=device)
    by_part = torch.split(robust, [len(part) for part in parts.values()])
    return {
        name: Accuracy.from_counts(
            int(correct.sum()),
            len(correct),
            norm=threat_model.norm,
            epsilon=float(threat_model.epsilon),
            attack=GRADIENT_ENSEMBLE,
        )
        for name, correct in zip(parts, by_part, strict=True)
    }


def _is_robust(model: Model, labels: Tensor, ensemble: list[Attack], images: Tensor, index: Tensor) -> Tensor:
    """Whether each image is classified correctly under all attacks."""
    return attacks.worst_case(model, images, labels[index].to(images.device), ensemble).margins < 0
