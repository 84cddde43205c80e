"""One classifier, trained on the original images: all of `notbugs train`, and what `notbugs.train` has in common with it."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import notbugs.train as train
from notbugs import data, metrics, models
from notbugs.atomic import StrPath, only_writer
from notbugs.data import Dataset, Splits
from notbugs.data.load import fingerprint
from notbugs.data.parts import stratified_split
from notbugs.data_config import check_outside
from notbugs.errors import InputError, NotbugsWarning
from notbugs.metrics import Accuracy
from notbugs.models.notes import report_notes
from notbugs.runs.engine import Progress
from notbugs.runs.scheduler import ignore_progress
from notbugs.study.catalog.models import MODELS, Loss, ModelSpec
from notbugs.study.classifiers import TrainedClassifier, noise_of, save_classifier, train_classifier, validation_attack
from notbugs.study.config import ResolvedConfig, StudyConfig, load, resumable_arguments
from notbugs.study.overfitting import overfitting_warning
from notbugs.study.resolve import resolve

LOSSES: tuple[Loss, ...] = ("standard", "adversarial", "trades")
OPTIMIZERS = ("adamw", "sgd")
SGD_RATE, SGD_FINETUNING_RATE, SGD_WEIGHT_DECAY = 0.1, 0.01, 5e-4  # Ilyas et al. 2019; fine-tuning begins near a minimum
SGD_SCHEDULE = train.step_decay(1 / 3, 2 / 3)
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class SingleTraining:
    """Settings of one training that a study does not have.

    Parameters
    ----------
    loss : {"standard", "adversarial", "trades"}
    optimizer : {"adamw", "sgd"}
        AdamW with warm-up and linear decay; or SGD with momentum 0.9, whose learning rate falls to a tenth after each third.
    stop_early : int, optional
        Set a tenth of the training images aside, end once accuracy on them has not risen for so many epochs, and take the best
        weights.
    noise : float, optional
        Standard deviation of Gaussian noise that is added to each training image, pixels in [0, 1]. Default: that of a study,
        `StudyConfig.adversarial_noise`; 0 in standard training and TRADES.
    adversarial_steps : int, optional
        PGD steps in training with an adversarial loss. Default: those of a study.
    """

    loss: str = "standard"
    optimizer: str = "adamw"
    stop_early: int | None = None
    noise: float | None = None
    adversarial_steps: int | None = None

    def check(self, named: Callable[[str], str] = str) -> None:
        """Raises InputError for settings that cannot be used. named: what the user calls a setting."""
        for name, value, known in (("loss", self.loss, LOSSES), ("optimizer", self.optimizer, OPTIMIZERS)):
            if value not in known:
                raise InputError(named(name), f"must be one of {', '.join(known)}", repr(value))
        if isinstance(self.stop_early, bool) or (self.stop_early is not None and self.stop_early < 1):  # True would be 1
            raise InputError(named("stop_early"), "must be a number of epochs, 1 or more", self.stop_early, "5 for example")
        if not 0 <= (self.noise or 0) <= 1:
            raise InputError(named("noise"), "must be a standard deviation from 0 to 1, for pixels in [0, 1]", self.noise)
        if self.adversarial_steps is not None and self.loss == "standard":
            rule = "has no effect in standard training, which attacks no image"
            raise InputError(named("adversarial_steps"), rule, self.adversarial_steps, f"choose an adversarial {named('loss')}")

    @property
    def spec(self) -> ModelSpec:
        """The standard classifier of a study, with this loss and noise."""
        return replace(MODELS["standard"], loss=next(each for each in LOSSES if each == self.loss), noise=float(self.noise or 0))

    def with_defaults(self, config: StudyConfig) -> StudyConfig:
        """The configuration with this noise and, where SGD is chosen, the learning rate and weight decay that suit it."""
        if self.noise is not None:
            config = replace(config, adversarial_noise=float(self.noise))
        if self.adversarial_steps is not None:
            config = replace(config, adversarial_steps=self.adversarial_steps)
        if self.optimizer != "sgd":
            return config
        rate = SGD_FINETUNING_RATE if config.pretrained or config.robust_model else SGD_RATE
        return replace(
            config,
            learning_rate=rate if config.learning_rate is None else config.learning_rate,
            weight_decay=SGD_WEIGHT_DECAY if config.weight_decay is None else config.weight_decay,
        )


class Single(NamedTuple):
    """A classifier that was trained alone.

    Attributes
    ----------
    trained : TrainedClassifier
    images : Dataset
        Those that its weights were trained on.
    settings : mapping
        What its JSON says of the training, beside what that of a study's classifier says.
    """

    trained: TrainedClassifier
    images: Dataset
    settings: Mapping[str, object]


def train_single(
    config: ResolvedConfig,
    splits: Splits,
    training: SingleTraining,
    *,
    report_progress: Progress,
    callback: Callable[[train.Epoch], None] | None = None,
    checkpoint: train.Checkpoint | None = None,
) -> Single:
    """Train one classifier on the training part. What early stopping does is a note of the model, and reported.

    Parameters
    ----------
    config : ResolvedConfig
        Resolved from `training.with_defaults`.
    splits : Splits
    training : SingleTraining
    report_progress : callable
    callback : callable, optional
        Gets each Epoch as it ends.
    checkpoint : Checkpoint, optional
    """
    images, stopping, notes = splits.train, None, list[str]()
    if config.bf16:
        notes.append("trained in bfloat16 (--no-bf16, bf16=False: float32)")
        report_notes(config.network, notes)
    if training.stop_early is not None:
        images, validation = set_aside(splits.train, config.seed)
        stopping = train.EarlyStopping(validation, training.stop_early, validation_attack(config, training.spec))
        notes.append(
            f"early stopping: {len(validation):,} of {len(splits.train):,} training images are set aside for validation, "
            f"about {100 * VALIDATION_SHARE:.0f} % of each class, with seed {config.seed}"
        )
        report_notes(config.network, notes[-1:])
    trained = train_classifier(
        config,
        images,
        training.spec,
        seed=config.seed,
        report_progress=report_progress,
        checkpoint=checkpoint,
        optimizer=train.sgd if training.optimizer == "sgd" else train.adamw,
        schedule=SGD_SCHEDULE if training.optimizer == "sgd" else None,
        stopping=stopping,
        callback=callback,
    )
    settings: dict[str, object] = {"optimizer": training.optimizer}
    if training.loss == "adversarial":
        weak = overfitting_warning(
            trained.model,
            images,
            config.threat_model,
            config.adversarial_steps,
            config.device,
            noise=config.adversarial_noise,
            python=True,
        )
        if weak:
            notes.append(weak)
            warnings.warn(weak, NotbugsWarning, stacklevel=2)
    if stopping:
        accuracy, epochs = max(stopping.accuracies), len(stopping.accuracies)
        under = " under the attack of training" if stopping.attack else ""
        notes.append(
            f"early stopping: the weights are those of epoch {stopping.best_epoch} of {epochs}, validation accuracy "
            f"{100 * accuracy:.1f} %{under}"
        )
        report_notes(config.network, notes[-1:])
        settings |= {"validation_images": len(stopping.validation), "best_epoch": stopping.best_epoch}
    trained.model.notes = (*trained.model.notes, *notes)
    return Single(trained, images, settings)


def save_single(single: Single, config: ResolvedConfig, training: SingleTraining, path: Path, **also: object) -> None:
    """Save it with what is known of its training. also: further keys of its JSON."""
    save_classifier(
        single.trained, config, single.images, training.spec, seed=config.seed, path=path, settings=single.settings, **also
    )


def train_and_save(
    config: StudyConfig,
    path: StrPath,
    *,
    loss: str = "standard",
    optimizer: str = "adamw",
    stop_early: int | None = None,
    noise: float | None = None,
    adversarial_steps: int | None = None,
    report_progress: Progress | None = None,
) -> list[Accuracy]:
    """Train one classifier on the original images and save it. A call that was stopped resumes from NAME.training.pt.

    Parameters
    ----------
    config : StudyConfig
    path : str or path
        NAME.safetensors; NAME.json is written, too, with a summary of the data.
    loss, optimizer, stop_early, noise, adversarial_steps
        As `SingleTraining` has them.
    report_progress : callable, optional

    Returns
    -------
    list of Accuracy
        On the test images: clean, at half of epsilon and at epsilon.

    Raises
    ------
    InputError
        Before training if the input cannot be used or the file cannot be written.
    """
    path, training = Path(path), SingleTraining(loss, optimizer, stop_early, noise, adversarial_steps)
    training.check(lambda name: "--" + name.replace("_", "-"))
    check_outside(config, path, path.with_suffix(".json"), unfinished_path(path))
    splits = load(config)
    resolved = resolve(training.with_defaults(config), splits)
    models.check_writable(path)
    report = report_progress or ignore_progress
    with resumable(path, resolved, splits, training, report=lambda: report("", 0.0, "")) as checkpoint:
        found = train_single(resolved, splits, training, report_progress=report, checkpoint=checkpoint)
        about = {"dataset": config.dataset, **data.summary(splits)}
        save_single(found, resolved, training, path, data=about, flip=resolved.flip)
    model = found.trained.model
    return metrics.robust_accuracy(model, splits.test, resolved.threat_models, device=resolved.device)


@contextmanager
def resumable(
    path: Path, config: ResolvedConfig, splits: Splits, training: SingleTraining, *, report: Callable[[], object] = lambda: None
) -> Iterator[train.Checkpoint]:
    """What a training that will be saved at `path` is resumed from, beside that; it is deleted at the end. One process writes.

    report: called once it is this process.
    """
    with only_writer(path):
        report()
        options = resumable_arguments(replace(config, dataset="", adversarial_noise=0.0))  # its images are compared
        noise = noise_of(config, training.spec, splits.train.shape)
        identity = {
            "options": repr({**options, "bf16": config.bf16}),
            "loss": training.loss,
            **({"noise": noise} if noise else {}),
            "data": fingerprint(splits.train, splits.test),
        }
        yield train.Checkpoint(unfinished_path(path), identity)
        unfinished_path(path).unlink(missing_ok=True)


def unfinished_path(path: Path) -> Path:
    """Of the checkpoint beside a model file."""
    return path.with_suffix(".training.pt")


def set_aside(part: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """The images to train on, and about a tenth of each class for validation, at least one image; no group is in both.

    Raises
    ------
    InputError
        If groups are so large that a class would be in one part alone, or each class has one image.
    """
    labels = part.labels.tolist()
    if part.groups:
        folds = max(2, min(round(1 / VALIDATION_SHARE), len(set(part.groups)), *Counter(labels).values()))
        remedy = "take smaller groups, or train without --stop-early"
        aside = data.grouped_folds(labels, part.groups, folds, seed, part.classes, remedy) == 0
        kept, validation = np.flatnonzero(~aside).tolist(), np.flatnonzero(aside).tolist()
    else:
        kept, validation = stratified_split(labels, VALIDATION_SHARE, seed)
    if not validation:
        raise InputError("--stop-early", "needs a class of two training images or more", None, "add images")
    return part.select(kept), part.select(validation)
