"""What a study's configuration leaves open is decided here, from the data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from notbugs import datacheck, models, precision
from notbugs.data import Dataset, Splits
from notbugs.data.load import SYNTHETIC
from notbugs.data_config import DataConfig
from notbugs.errors import InputError
from notbugs.models.notes import report_notes
from notbugs.study import bfloat16
from notbugs.study.catalog.datasets import MIN_TARGET_REACHED, STRONG_VERSIONS
from notbugs.study.config import ResolvedConfig, StudyConfig, TrainingSettings, check, network_layer
from notbugs.study.epsilon import CIFAR_LINF_EPSILON, check_epsilon, default_epsilon, default_relabel_epsilon
from notbugs.study.epsilon_source import EpsilonSource

Value = TypeVar("Value")
TINY = 16  # pixels of the longer side, up to which the small network and its settings are the default
MANY_IMAGES, LARGE_SIDE = 20_000, 64  # of so many images a batch has more, unless they are so large that it would take gigabytes
MIN_SIDE = 8
MIN_IMAGES = 20  # fewer cannot be trained on
FINETUNING_RATE, HEAD_RATE, FINETUNING_EPOCHS = 1e-3, 2e-3, 15  # docs/lab-log.md
MNIST = "mnist5k"  # how its settings were chosen: docs/lab-log.md


@dataclass(frozen=True)
class _Defaults:
    """Settings that depend on the data; how they were found is in docs/lab-log.md."""

    epsilon: float
    epsilon_from: EpsilonSource
    relabel_factor: float  # relabeling epsilon / epsilon
    epochs: int
    batch_size: int
    translate: int
    flip: bool
    invert_steps: int
    seeds: int = 1
    network: str = "resnet9"
    width: int = 16
    learning_rate: float = 0.01
    weight_decay: float = 0.05
    relabel_translate: int = 0
    adapt_batchnorm: bool = False


def uses_bfloat16(asked: bool | None, device: str, *, on_cpu: bool = False) -> bool:
    """Whether networks are trained in bfloat16: as asked for, else on a GPU that has it, and on a CPU where that was decided."""
    return _or(asked, on_cpu if device == "cpu" else precision.supports_bfloat16(device))


def resolve(config: StudyConfig, splits: Splits) -> ResolvedConfig:
    """Decide every open setting from the data.

    Parameters
    ----------
    config : StudyConfig
    splits : Splits
        Its data: `load(config)`.

    Raises
    ------
    InputError
        For settings that cannot be used, or not with these data.

    Examples
    --------
    >>> config = StudyConfig("digits", limit=100)
    >>> from notbugs.study.config import load
    >>> resolved = resolve(config, load(config))
    >>> resolved.network, resolved.epsilon, resolved.relabel_epsilon
    ('small', 0.75, 1.5)
    """
    check(config)
    resolved = _with_defaults(config, _defaults(config, splits.train), splits.train)
    if config.pretrained or config.robust_model:
        resolved = replace(resolved, from_scratch=_training(config, _defaults_from_scratch(config, splits.train)))
    built = _check_with_data(resolved, splits)
    on_cpu = config.bf16 is None and config.device == "cpu" and max(splits.train.shape[1:]) > TINY
    on_cpu = on_cpu and bfloat16.pays(built, splits.train, resolved.network, head_only=config.head_only)
    return replace(resolved, bf16=uses_bfloat16(config.bf16, config.device, on_cpu=on_cpu))


def default_invert_steps(dataset: str, shape: Sequence[int]) -> int:
    """Steps of feature inversion, of the commands and in Python: by the name of the data set, else by the size of the images.

    Parameters
    ----------
    dataset : str
        "" for images in memory.
    shape : sequence of int, (C, H, W)

    Examples
    --------
    >>> default_invert_steps("", (3, 32, 32)), default_invert_steps("", (1, 8, 8)), default_invert_steps("mnist5k", (1, 28, 28))
    (40, 25, 20)
    """
    if dataset in (SYNTHETIC, MNIST):
        return 20
    return 40 if max(shape[1:]) > TINY else 25


def default_adversarial_noise(dataset: str, norm: str, epsilon: float) -> float:
    """Standard deviation of noise in adversarial training, by the name of the data set.

    Without it adversarial training of `mnist5k` overfits to its three steps of PGD; others gain nothing: docs/lab-log.md.

    Examples
    --------
    >>> default_adversarial_noise("mnist5k", "l2", 1.5), default_adversarial_noise("digits", "l2", 0.75)
    (0.15, 0.0)
    """
    return round(epsilon / 10, 6) if dataset == MNIST and norm == "l2" else 0.0


def check_size(config: DataConfig, splits: Splits) -> None:
    """Raises InputError for fewer training images than constructed data sets need, which begin with all of them."""
    if len(splits.train) < MIN_IMAGES:
        remedy = "add images" if config.limit is None else "raise --limit, or add images"
        raise InputError(config.dataset, f"needs at least {MIN_IMAGES} training images", len(splits.train), remedy)


def flip_is_measured(flip: bool | None, dataset: str, train: Dataset) -> bool:
    """Whether `datacheck.measure_mirroring` decides on flips: of color images, if nobody else did."""
    return flip is None and dataset != SYNTHETIC and train.shape[0] == 3


def _may_mirror(train: Dataset) -> bool:
    """Whether mirrored images may be trained on: not where a small classifier, trained without, takes them for another class."""
    return datacheck.measure_mirroring(train).outcome != "not safe"


def _with_defaults(config: StudyConfig, defaults: _Defaults, train: Dataset) -> ResolvedConfig:
    """The configuration with defaults for what is open, some of which follow others."""
    epsilon = _or(config.epsilon, defaults.epsilon)
    return ResolvedConfig(
        **config.data.__dict__,
        norm=config.norm,
        epsilon=epsilon,
        epsilon_from=defaults.epsilon_from if config.epsilon is None else "option",
        relabel_epsilon=_or(
            config.relabel_epsilon, default_relabel_epsilon(train, config.norm, epsilon, defaults.relabel_factor)
        ),
        relabel_reach=_or(config.relabel_reach, 0.0 if config.relabel_epsilon else MIN_TARGET_REACHED),
        seed=config.seed,
        seeds=_or(config.seeds, defaults.seeds),
        model=config.model,
        classes=config.classes,
        class_map=config.class_map,
        network=_or(config.network, defaults.network),
        width=config.width if config.network else _or(config.width, defaults.width),
        **vars(_training(config, defaults)),
        # elsewhere their signal is pixel-exact, and translations hide it
        relabel_translate=_or(config.relabel_translate, defaults.relabel_translate),
        adapt_batchnorm=_or(config.adapt_batchnorm, defaults.adapt_batchnorm),
        translate=_or(config.translate, defaults.translate),
        flip=_may_mirror(train) if flip_is_measured(config.flip, config.dataset, train) else _or(config.flip, defaults.flip),
        adversarial_steps=config.adversarial_steps,
        adversarial_noise=_or(config.adversarial_noise, default_adversarial_noise(config.dataset, config.norm, epsilon)),
        invert_steps=_or(config.invert_steps, defaults.invert_steps),
        invert_start=config.invert_start,
        versions=config.versions,
        robust_strong=config.robust_strong,
        relabel_steps=config.relabel_steps,
        full=config.full or config.replicate,
        replicate=config.replicate,
        bf16=uses_bfloat16(config.bf16, config.device),
        compile=config.compile,
        device=config.device,
        write=config.write,
        stratified_targets=config.stratified_targets,
        pretrained=config.pretrained,
        head_only=config.head_only,
        robust_model=config.robust_model,
        layer=config.layer,
    )


def _training(config: StudyConfig, defaults: _Defaults) -> TrainingSettings:
    """The settings of one training, with defaults for what is open."""
    epochs, learning_rate = _or(config.epochs, defaults.epochs), _or(config.learning_rate, defaults.learning_rate)
    # faint features are not found at the learning rate of the rest, and at a low one images are memorized (docs/lab-log.md)
    relabel = learning_rate if defaults.network == "small" or config.dataset in (SYNTHETIC, MNIST) else learning_rate / 5
    return TrainingSettings(
        epochs=epochs,
        batch_size=_or(config.batch_size, defaults.batch_size),
        learning_rate=learning_rate,
        relabel_learning_rate=_or(config.relabel_learning_rate, relabel),
        weight_decay=_or(config.weight_decay, defaults.weight_decay),
        patience=_or(config.patience, max(8, epochs // 2)),
    )


def _or(value: Value | None, default: Value) -> Value:
    return default if value is None else value


def _defaults(config: StudyConfig, train: Dataset) -> _Defaults:
    """Defaults for the synthetic data, for tiny images, and for all others."""
    defaults = _defaults_from_scratch(config, train)
    if not (config.pretrained or config.robust_model):
        return defaults
    rate = HEAD_RATE if config.head_only else FINETUNING_RATE
    return replace(defaults, epochs=min(defaults.epochs, FINETUNING_EPOCHS), learning_rate=rate, weight_decay=0.05, batch_size=64)


def _defaults_from_scratch(config: StudyConfig, train: Dataset) -> _Defaults:
    """Defaults for networks with random weights."""
    l2, shape, count = config.norm == "l2", train.shape, len(train)
    epsilon = default_epsilon(train, config.norm)
    defaults = _Defaults(
        epsilon=epsilon.value,
        epsilon_from=epsilon.source,
        # in simple images a model needs twice the epsilon to turn the features of one class into those of the next
        relabel_factor=2 if l2 and epsilon.source == "gap" else 1,
        epochs=max(12, min(60, round(190_000 / count))),
        batch_size=256 if count >= MANY_IMAGES and max(shape[1:]) <= LARGE_SIDE else 64,
        translate=max(1, min(shape[1:]) // 8),
        flip=shape[0] == 3,
        invert_steps=default_invert_steps(config.dataset, shape),
    )
    if config.dataset == SYNTHETIC:
        epsilon_here = 0.8 if l2 else CIFAR_LINF_EPSILON
        synthetic = replace(defaults, epsilon=epsilon_here, epsilon_from="dataset", relabel_factor=1)
        return replace(synthetic, width=8, epochs=14, flip=False)
    if config.dataset == MNIST:
        epochs = max(8, round(16_000 / count))
        return replace(defaults, width=8, epochs=epochs, relabel_translate=3, adapt_batchnorm=True)
    if max(shape[1:]) > TINY:
        return defaults
    if config.dataset == "digits":
        defaults = replace(defaults, epsilon=0.75 if l2 else 0.1, epsilon_from="dataset", seeds=3)
    return replace(
        defaults,
        relabel_factor=2 if l2 else 1,
        network="small",
        width=32,
        epochs=14,
        batch_size=128,
        learning_rate=0.02,
        weight_decay=1.0,
        translate=0,
    )


def check_constructions(config: ResolvedConfig, splits: Splits) -> None:
    """Raises InputError for settings of constructed data sets that do not fit the data. Only a study has them."""
    check_epsilon("--relabel-epsilon", config.relabel_threat_model, splits.train)
    _check_translation("--relabel-translate", config.relabel_translate, splits)
    if config.versions > config.epochs:
        rule = f"must be at most {config.epochs}, the epochs, which the versions share"
        raise InputError("--versions", rule, config.versions, "train for more --epochs")
    most = max(config.versions, STRONG_VERSIONS if config.robust_strong else 1)
    splits.train.repeated_names(most)  # names that are taken fail here


def _check_translation(option: str, pixels: int, splits: Splits) -> None:
    shorter = min(splits.train.shape[1:])
    if not pixels < shorter:
        raise InputError(option, f"must be below {shorter}, the images' shorter side", pixels)


def _check_with_data(config: ResolvedConfig, splits: Splits) -> models.Model:
    """The network to train. Raises InputError for settings that do not fit the data."""
    shape = splits.train.shape
    shorter = min(shape[1:])
    check_epsilon("--epsilon", config.threat_model, splits.train)
    _check_translation("--translate", config.translate, splits)
    if config.dataset != SYNTHETIC and shorter < MIN_SIDE:
        rule = f"images must be at least {MIN_SIDE} pixels wide and high"
        raise InputError(config.dataset, rule, f"{shape[2]}x{shape[1]}", "use --resize")
    # bad ones fail here
    classes = len(splits.train.classes)
    layer = network_layer(config)
    built = models.build(
        config.network, shape=shape, classes=classes, width=config.width, pretrained=config.pretrained, layer=layer
    )
    report_notes(config.network, getattr(built, "notes", ()))
    if config.head_only:
        models.head_name(built)
    if config.robust_model:
        robust = models.build_from(config.robust_model, config.network, shape=shape, classes=classes, layer=layer)
        begins = "adversarial training begins with these weights and a new last layer"
        report_notes(config.robust_model, [*getattr(robust, "notes", ()), begins])
    return built
