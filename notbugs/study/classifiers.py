"""A study's classifiers, from their specs in the catalog: training, and evaluation in stages of its own."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypedDict

import torch

import notbugs.train as train
from notbugs import attacks, construct, metrics, models
from notbugs.data import Dataset
from notbugs.runs.attempts import Attempt
from notbugs.runs.engine import Progress
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import AccuracyRow, TrainingRow
from notbugs.search import Attack, NormBall
from notbugs.study.catalog.datasets import ORIGINAL
from notbugs.study.catalog.models import MODELS, ModelSpec, dataset_of
from notbugs.study.config import ResolvedConfig, load, network_layer
from notbugs.study.evaluation import CURVE_ROLES, accuracy_row, curve_balls
from notbugs.study.given import GIVEN
from notbugs.study.overfitting import training_attack_accuracy
from notbugs.study.store import derive_seed, has_dataset, has_model, load_dataset, load_model, model_path

STATISTICS_NUMBERS = 2**26  # of images that the statistics of pixels are of: 256 MB
NOISE, MOST_NOISE = 0.05, 0.3  # more costs clean accuracy on digits: docs/lab-log.md
MONITORED_IMAGES = 500  # test images at most whose accuracy stands in the training curve


class PixelStatistics(TypedDict):
    """Mean and standard deviation of pixels, per channel."""

    mean: list[float]
    std: list[float]


class TrainedClassifier(NamedTuple):
    """A classifier and its training curve."""

    model: models.Model
    curve: list[TrainingRow]


def train_model(config: ResolvedConfig, folder: Path, seed: int, attempt: Attempt, *, spec: ModelSpec) -> list[TrainingRow]:
    """Stage: train one classifier and save it. What is constructed with it need not wait until it is evaluated.

    Returns
    -------
    list of TrainingRow
        Empty if the data set that it is trained on could not be constructed.
    """
    splits, trained_on = load(config, seed), dataset_of(spec)
    if trained_on and not has_dataset(config, folder, seed, trained_on.name):
        return []
    dataset = load_dataset(config, folder, seed, trained_on.name) if trained_on else splits.train
    checkpoint = attempt.unfinished / "training.pt"
    trained = train_classifier(config, dataset, spec, seed=seed, report_progress=attempt, checkpoint=checkpoint)
    save_classifier(trained, config, dataset, spec, seed=seed, path=model_path(config, attempt.folder, seed, spec.name))
    return trained.curve


def evaluate_model(
    config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress, *, spec: ModelSpec
) -> list[AccuracyRow]:
    """Stage: one classifier, trained or given, on the test images, clean and under attack.

    Returns
    -------
    list of AccuracyRow
        Empty if it could not be trained.
    """
    if not has_model(config, folder, seed, spec.name):
        return []
    model, splits, trained_on = load_model(config, folder, seed, spec.name), load(config, seed), dataset_of(spec)
    accuracies = metrics.robust_accuracy(
        model,
        splits.test,
        (config.threat_model,) if spec.attack_budget == "quick" else config.threat_models,
        budget=spec.attack_budget,
        curve=curve_balls(config, seed) if spec.role in CURVE_ROLES else (),
        device=config.device,
        progress=lambda share: report_progress("", share, f"attacked: {share:.0%}"),
    )
    rows = [accuracy_row(spec.name, "test", accuracy, config=config, seed=seed) for accuracy in accuracies]
    if trained_on and trained_on.labels == "next":  # how far the new labels were learned: on real images, the next class
        next_class = splits.test.with_labels(construct.next_labels(splits.test.labels, len(splits.train.classes)))
        accuracy = metrics.clean_accuracy(model, next_class, device=config.device)
        rows.append(accuracy_row(spec.name, "test-next", accuracy, config=config, seed=seed))
    if spec.loss == "adversarial":
        accuracy = training_attack_accuracy(
            model, splits.test, _threat_model(config, spec), config.adversarial_steps, config.device
        )
        rows.append(accuracy_row(spec.name, "test-training-attack", accuracy, config=config, seed=seed))
    return rows


def repeat_given(config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress) -> list[AccuracyRow]:
    """Stage: the figures of the given model for a further seed: model, test images and attack are those of the first."""
    rows = RunFolder.read(folder).rows(AccuracyRow)
    same = [row for row in rows if (row.model, row.set, row.seed) == (GIVEN, "test", config.seed)]
    return [replace(row, seed=seed) for row in same]


def train_classifier(
    config: ResolvedConfig,
    dataset: Dataset,
    spec: ModelSpec,
    *,
    seed: int,
    report_progress: Progress,
    checkpoint: Path | train.Checkpoint | None = None,
    optimizer: train.MakeOptimizer = train.adamw,
    schedule: train.RateShape | None = None,
    stopping: train.EarlyStopping | None = None,
    callback: Callable[[train.Epoch], None] | None = None,
) -> TrainedClassifier:
    """Train one classifier in memory.

    Without `stopping` the weights are those of the last epoch: no part of a relabeled data set could decide which epoch is best
    (Ilyas et al. 2019, appendix D.4). The curve of a classifier trained on a constructed data set has the clean test accuracy of
    each epoch, too.

    Parameters
    ----------
    config : ResolvedConfig
    dataset : Dataset
        Its training images: those that `spec.trained_on` names.
    spec : ModelSpec
    seed : int
        The study's; weights and batches are derived from it and from `spec.seed_key`.
    report_progress : callable
    checkpoint : Path or Checkpoint, optional
        A file from which training goes on (`train.fit`).
    optimizer, schedule, stopping
        As `train.fit` takes them.
    callback : callable, optional
        Gets each Epoch as it ends.

    Returns
    -------
    TrainedClassifier
    """
    config, splits, trained_on = with_spec(config, spec), load(config, seed), dataset_of(spec)
    relabeled = trained_on is not None and trained_on.is_relabeled
    epochs = epochs_on(config, spec, len(dataset) / len(splits.train))
    model = _untrained(config, dataset, splits.train, spec, derive_seed(seed, _init_key(spec)))
    test = _monitored(splits.test) if spec.trained_on != ORIGINAL else None

    def progress(epoch: train.Epoch) -> None:
        report_progress("", min(epoch.epoch / epochs, 1), _words(epoch.epoch, epochs))
        if callback:
            callback(epoch)

    def within_epoch(done: float) -> None:
        report_progress("", min(done / epochs, 1), _words(int(done) + 1, epochs))

    curve = train.fit(
        model,
        dataset,
        _loss(config, spec),
        epochs=epochs,
        optimizer=optimizer,
        schedule=schedule,
        stopping=stopping,
        batch_size=config.batch_size,
        learning_rate=config.relabel_learning_rate if relabeled else config.learning_rate,
        weight_decay=config.weight_decay,
        augment=_augmentation(config, spec, dataset.shape),
        patience=config.patience if relabeled else 0,
        bf16=config.bf16,
        compile=config.compile,
        head_only=config.head_only and _finetuned(config, spec),
        seed=derive_seed(seed, spec.seed_key),
        device=config.device,
        progress=progress,
        within_epoch=within_epoch,
        monitor=None if test is None else lambda: metrics.clean_accuracy(model, test, device=config.device).accuracy,
        checkpoint=checkpoint,
    )
    if relabeled and config.adapt_batchnorm:
        train.adapt_batchnorm(model, splits.train, seed=seed, device=config.device)
    return TrainedClassifier(model, [_row(spec, seed, epoch) for epoch in curve])


def _row(spec: ModelSpec, seed: int, epoch: train.Epoch) -> TrainingRow:
    """An epoch in the table of training, which has no early stopping."""
    values = epoch._asdict()
    del values["validation_accuracy"]
    return TrainingRow(model=spec.name, seed=seed, **values)


def _words(epoch: int, epochs: int) -> str:
    """How far a training is."""
    return f"epoch {epoch} of {epochs}{'' if epoch <= epochs else ', more while accuracy is at chance level'}"


def epochs_on(config: ResolvedConfig, spec: ModelSpec, size: float) -> int:
    """Epochs on a set of that size, relative to the original: about as many steps, on a smaller one as many epochs.

    Where the spec sets the steps, they are as many on a smaller set, too.
    """
    return max(1, round(config.epochs / max(1, size) if spec.steps is None else spec.steps * config.epochs / size))


def _init_key(spec: ModelSpec) -> str:
    return MODELS[spec.init_from].seed_key if spec.init_from else spec.seed_key


def _starts_robust(config: ResolvedConfig, spec: ModelSpec) -> bool:
    """Whether a classifier begins with the weights of the given robust network: those of adversarial training do."""
    return config.robust_model is not None and spec.loss != "standard" and not spec.architecture


def _finetuned(config: ResolvedConfig, spec: ModelSpec) -> bool:
    """Whether a classifier begins with weights that were trained elsewhere."""
    return _starts_robust(config, spec) or (config.pretrained and not spec.architecture)


def _untrained(config: ResolvedConfig, dataset: Dataset, original: Dataset, spec: ModelSpec, seed: int) -> models.Model:
    """A classifier before training: random, or with weights that were trained elsewhere. original: whose pixels normalize."""
    shape, classes = dataset.shape, len(dataset.classes)
    if config.robust_model and _starts_robust(config, spec):
        layer = network_layer(config)
        return models.build_from(config.robust_model, config.network, shape=shape, classes=classes, seed=seed, layer=layer)
    return models.build(
        config.network,
        shape=shape,
        classes=classes,
        width=config.width,
        seed=seed,
        pretrained=_finetuned(config, spec),
        layer=None if spec.architecture else network_layer(config),
        **pixel_statistics(original),
    )


def save_classifier(
    trained: TrainedClassifier,
    config: ResolvedConfig,
    dataset: Dataset,
    spec: ModelSpec,
    *,
    seed: int,
    path: Path,
    settings: Mapping[str, object] = MappingProxyType({}),
    **also: object,
) -> None:
    """Save a classifier with what is known of its training.

    settings: further keys of `training` in its JSON; also: of the JSON itself.
    """
    notes = list(getattr(trained.model, "notes", ()))
    models.save(
        trained.model,
        path,
        classes=list(dataset.classes),
        trained_on=spec.trained_on,
        seed=seed,
        training={
            "loss": spec.loss,
            "norm": config.norm,
            "epsilon": _threat_model(config, spec).epsilon,
            "epochs": len(trained.curve),
            "augmented": _augmentation(config, spec, dataset.shape) is not None,
            **({"noise": noise} if (noise := noise_of(config, spec, dataset.shape)) else {}),
            **settings,
        },
        **({"notes": notes} if notes else {}),
        **also,
    )


def pixel_statistics(dataset: Dataset) -> PixelStatistics:
    """Mean and standard deviation of each channel over about 2,000 images, of large ones fewer, for the normalization layer."""
    count = max(1, min(2000, STATISTICS_NUMBERS // math.prod(dataset.shape)))
    pixels = dataset.pixels(list(range(0, len(dataset), max(1, len(dataset) // count))))
    return {"mean": pixels.mean((0, 2, 3)).tolist(), "std": pixels.std((0, 2, 3)).clamp_min(0.05).tolist()}


def with_spec(config: ResolvedConfig, spec: ModelSpec) -> ResolvedConfig:
    """The configuration with what the spec sets otherwise.

    Another architecture has its usual width and, in a study that fine-tunes, the settings of training from random weights.
    """
    if config.from_scratch and not _finetuned(config, spec):
        config = replace(config, **vars(config.from_scratch))
    return replace(
        config,
        network=spec.architecture or config.network,
        width=None if spec.architecture else config.width,
        epochs=spec.epochs or config.epochs,
        learning_rate=spec.learning_rate_factor * config.learning_rate,
    )


def _threat_model(config: ResolvedConfig, spec: ModelSpec) -> NormBall:
    return NormBall(config.norm, spec.epsilon_fraction * config.epsilon)


def validation_attack(config: ResolvedConfig, spec: ModelSpec) -> Attack | None:
    """PGD under which early stopping measures; None for standard training."""
    if spec.loss == "standard":
        return None
    return partial(attacks.pgd, threat_model=_threat_model(config, spec), steps=config.adversarial_steps, loss="cross_entropy")


def _loss(config: ResolvedConfig, spec: ModelSpec) -> train.Loss:
    if spec.loss == "standard":
        return train.cross_entropy
    attack = attacks.training_pgd if spec.loss == "adversarial" else attacks.kl_pgd
    loss = train.adversarial_loss if spec.loss == "adversarial" else train.trades
    return loss(partial(attack, threat_model=_threat_model(config, spec), steps=config.adversarial_steps))


def noise_std(config: ResolvedConfig, shape: Sequence[int]) -> float:
    """Standard deviation of the noise in training on the stronger D_R and its control, pixels in [0, 1].

    Chosen on CIFAR-10: 0.05 at an L2 epsilon of 0.5. In L2 the norm of the noise has the same ratio to epsilon for all images, up
    to a standard deviation of 0.3.
    """
    if config.norm != "l2":
        return NOISE
    return min(NOISE * config.epsilon / 0.5 * math.sqrt(3 * 32 * 32 / math.prod(shape)), MOST_NOISE)


def _augmentation(config: ResolvedConfig, spec: ModelSpec, shape: Sequence[int]) -> train.Augment | None:
    """Translations and flips; of relabeled data sets, whose signal is faint, only the translations configured for them."""
    trained_on = dataset_of(spec)
    relabeled = trained_on is not None and trained_on.is_relabeled
    pixels, flip = (config.relabel_translate, False) if relabeled else (config.translate, config.flip)
    translate = train.random_translate(pixels, flip=flip) if pixels or flip else None
    noise = noise_of(config, spec, shape)
    return train.add_noise(noise, after=translate, clip=spec.loss != "standard") if noise else translate


def noise_of(config: ResolvedConfig, spec: ModelSpec, shape: Sequence[int]) -> float:
    """Standard deviation of the noise in a training, pixels in [0, 1]."""
    if spec.loss == "adversarial":
        return config.adversarial_noise * spec.epsilon_fraction
    return noise_std(config, shape) if spec.noise is None else spec.noise


def _monitored(test: Dataset) -> Dataset:
    """Evenly spaced test images for the training curve."""
    return test.select(torch.arange(0, len(test), max(1, len(test) // MONITORED_IMAGES))[:MONITORED_IMAGES])
