"""Configuration of a study: `StudyConfig` is what was asked for; `resolve.resolve` decides from the data what was left open."""

from dataclasses import asdict, dataclass, fields, replace
from typing import get_args, get_type_hints

import torch

from notbugs import data, precision
from notbugs.data import DataConfig, Splits
from notbugs.data.load import check_training_part
from notbugs.data_config import DataOptions
from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.search import NormBall
from notbugs.study.epsilon_source import EpsilonSource

RELABEL_STEPS = 20  # of PGD, of D_rand and D_det


@dataclass(frozen=True)
class StudyConfig(DataConfig):
    """Everything that decides a study's figures; None is decided by `resolve.resolve`.

    Parameters
    ----------
    dataset, resize, limit, …
        Which data: the fields of `data.DataConfig`.
    norm : {"l2", "linf"}
    epsilon : float, optional
        Of adversarial training and of evaluation, which also uses half of it. Pixels in [0, 1]. Default: 0.75 in L2 for `digits`,
        0.8 for `planted`, else `epsilon.default_epsilon`.
    relabel_epsilon : float, optional
        Of the perturbations of relabeled data sets. Default: epsilon; in L2 twice that where the gap between classes decided it.
    relabel_reach : float, optional
        Share of a relabeled set's images that must reach their new label: while fewer do, relabel_epsilon is enlarged by half for
        that set, four times at most. 0: never. Default: 0.75; 0 if relabel_epsilon is given.
    seed, seeds : int
        The first seed and how many.
    model : str, optional
        A trained classifier that is studied as the standard model, in place of one that is trained here: as
        `models.by_name.classifier_by_name` takes it, with gradients. It is the same in every seed.
    classes, class_map : str, optional
        What its outputs are, as in `audit.AuditConfig`.
    layer : str, optional
        The module whose outputs are the features: of `model` or, without one, of all classifiers with `network`. Default: the
        input of the last layer.
    network : str, optional
        As `models.build` takes it: an architecture, a network of timm, Hugging Face or torchvision, or `module:function`.
    pretrained : bool
        All classifiers with `network` begin with its weights, and are fine-tuned.
    head_only : bool
        Train the last layer alone.
    robust_model : str, optional
        Adversarial training begins with these weights, of a robust network (`models.build_from`).
    width, epochs, batch_size, learning_rate, weight_decay : optional
        Of every training. width: channels of the first layer; with `network`, None is that network's usual width.
    relabel_learning_rate : float, optional
        For relabeled data sets.
    relabel_translate : int, optional
        Translations in training on relabeled sets, in pixels.
    adapt_batchnorm : bool, optional
        After training on a relabeled set, take the batch-norm statistics from the original training images, without their labels
        (`train.adapt_batchnorm`).
    translate : int, optional
        Augmentation: random translations by at most this many pixels, 0 for none.
    flip : bool, optional
        Augmentation: random horizontal flips. Default: for color images, unless `datacheck.measure_mirroring` finds it not safe.
    adversarial_steps : int
        PGD steps within adversarial training.
    adversarial_noise : float, optional
        Standard deviation of Gaussian noise that is added to each image before that PGD, pixels in [0, 1]; of a classifier that
        is trained at a part of epsilon, that part. Default: 0, but for `mnist5k` in L2 a tenth of epsilon.
    invert_steps, invert_start, versions
        Of D_R and D_NR: steps, start ("image" or "noise"), versions of each image.
    robust_strong : bool
        Also a stronger D_R, with its control: eight versions of each image that two robust models classify correctly, trained on
        for four times as long with noise. No adversarial example is made in that training.
    relabel_steps : int
    patience : int, optional
        Further epochs at most for relabeled data sets whose accuracy is still at chance level (`train.fit`).
    full : bool
        Also all controls, transfer, and all models on all data sets under attack.
    replicate : bool
        Full, and also what else the paper measured.
    bf16 : bool, optional
        Train and construct in bfloat16. Default: on a GPU that supports it, and on a CPU where `bfloat16.pays`; of images of up
        to 16 pixels never on a CPU.
    compile : bool
        Compile networks first.
    device : str
    write : {"folder", "parquet", "npz", "webdataset"}, optional
        The form in which data sets are written. Default: the input's.
    stratified_targets : bool
        Draw random labels so that every class is the target equally often (`construct.random_labels`).
    """

    norm: str = "l2"
    epsilon: float | None = None
    relabel_epsilon: float | None = None
    relabel_reach: float | None = None
    seed: int = 0
    seeds: int | None = None
    model: str | None = None
    classes: str | None = None
    class_map: str | None = None
    network: str | None = None
    width: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    relabel_learning_rate: float | None = None
    weight_decay: float | None = None
    relabel_translate: int | None = None
    adapt_batchnorm: bool | None = None
    translate: int | None = None
    flip: bool | None = None
    adversarial_steps: int = 3
    adversarial_noise: float | None = None
    invert_steps: int | None = None
    invert_start: str = "image"
    versions: int = 1
    robust_strong: bool = False
    relabel_steps: int = RELABEL_STEPS
    patience: int | None = None
    full: bool = False
    replicate: bool = False
    bf16: bool | None = None
    compile: bool = False
    device: str = "cpu"
    write: str | None = None
    stratified_targets: bool = False
    pretrained: bool = False
    head_only: bool = False
    robust_model: str | None = None
    layer: str | None = None


class StudyOptions(DataOptions, total=False):
    """The fields of `StudyConfig` that are no parameters of `notbugs.study` by themselves, as its keyword arguments."""

    relabel_epsilon: float | None
    relabel_reach: float | None
    classes: str | None
    class_map: str | None
    batch_size: int | None
    learning_rate: float | None
    relabel_learning_rate: float | None
    weight_decay: float | None
    relabel_translate: int | None
    adapt_batchnorm: bool | None
    translate: int | None
    flip: bool | None
    adversarial_steps: int
    adversarial_noise: float | None
    invert_steps: int | None
    invert_start: str
    versions: int
    robust_strong: bool
    relabel_steps: int
    patience: int | None
    replicate: bool
    bf16: bool | None
    compile: bool
    write: str | None
    stratified_targets: bool
    pretrained: bool
    head_only: bool
    robust_model: str | None
    layer: str | None


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training, as in `StudyConfig`."""

    epochs: int
    batch_size: int
    learning_rate: float
    relabel_learning_rate: float
    weight_decay: float
    patience: int


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(DataConfig):
    """`StudyConfig` with every setting decided. These may stay None: those of the data, model and its outputs, layer,
    robust_model, width, write.

    from_scratch: in a study that fine-tunes, the settings of the classifiers that begin with random weights (targets of
    transferability); else None.
    """

    norm: str
    epsilon: float
    epsilon_from: EpsilonSource
    relabel_epsilon: float
    relabel_reach: float
    seed: int
    seeds: int
    model: str | None
    classes: str | None
    class_map: str | None
    network: str
    width: int | None
    epochs: int
    batch_size: int
    learning_rate: float
    relabel_learning_rate: float
    weight_decay: float
    relabel_translate: int
    adapt_batchnorm: bool
    translate: int
    flip: bool
    adversarial_steps: int
    adversarial_noise: float
    invert_steps: int
    invert_start: str
    versions: int
    robust_strong: bool
    relabel_steps: int
    patience: int
    full: bool
    replicate: bool
    bf16: bool
    compile: bool
    device: str
    write: str | None
    stratified_targets: bool
    pretrained: bool
    head_only: bool
    robust_model: str | None
    layer: str | None
    from_scratch: TrainingSettings | None = None

    @property
    def threat_model(self) -> NormBall:
        """Of adversarial training and of evaluation."""
        return NormBall(self.norm, self.epsilon)

    @property
    def threat_models(self) -> tuple[NormBall, NormBall]:
        """Half of epsilon, and epsilon."""
        return replace(self.threat_model, epsilon=self.epsilon / 2), self.threat_model

    @property
    def relabel_threat_model(self) -> NormBall:
        """Of the perturbations of relabeled data sets."""
        return NormBall(self.norm, self.relabel_epsilon)


def load(config: StudyConfig | ResolvedConfig, seed: int | None = None) -> Splits:
    """The data of a study, loaded once in each run.

    Parameters
    ----------
    config : StudyConfig or ResolvedConfig
    seed : int, optional
        The synthetic data differ by seed. Default: the first seed.

    Raises
    ------
    InputError
        For settings that cannot be used, and for data that cannot be.
    """
    check(config)
    splits = data.load_dataset(config.data, config.seed if seed is None else seed)
    check_training_part(config.dataset, splits)
    return splits


def network_layer(config: StudyConfig | ResolvedConfig) -> str | None:
    """The module of `network` whose outputs are its features; None where `layer` is of the given model, or not given."""
    return config.layer if config.model is None else None


def written_form(config: StudyConfig | ResolvedConfig, splits: Splits) -> str:
    """The form in which data sets are written: the chosen one, or the input's."""
    return config.write or splits.form


# ---- checks ----------------------------------------------------------------------------------------------------------------

MINIMA: dict[str, float] = {
    "seed": 0, "seeds": 1, "width": 1, "epochs": 1, "batch_size": 2, "translate": 0, "relabel_translate": 0, "relabel_reach": 0,
    "adversarial_steps": 1, "invert_steps": 1,
    "versions": 1, "relabel_steps": 1, "patience": 0, "learning_rate": 1e-12, "relabel_learning_rate": 1e-12, "weight_decay": 0,
    "epsilon": 1e-12, "relabel_epsilon": 1e-12,
}  # fmt: skip
MAXIMA = {"seeds": 1000, "width": 2**20, "seed": 2**63 - 1}  # what torch counts, and what memory holds


def check(config: StudyConfig | ResolvedConfig) -> None:
    """Raises InputError for settings that are wrong whatever the data are."""
    for name, minimum in MINIMA.items():
        value = getattr(config, name)
        if value is not None and not minimum <= value < torch.inf:
            rule = f"must be {minimum} or more" if isinstance(minimum, int) else "must be a number above 0"
            raise InputError(_option(name), rule, value)
    for name, maximum in MAXIMA.items():
        if (getattr(config, name) or 0) > maximum:
            raise InputError(_option(name), f"must be at most {maximum:,}", getattr(config, name))
    if config.relabel_reach is not None and config.relabel_reach > 1:
        raise InputError("--relabel-reach", "must be a share from 0 to 1", config.relabel_reach)
    if not 0 <= (config.adversarial_noise or 0) <= 1:
        rule = "must be a standard deviation from 0 to 1, for pixels in [0, 1]"
        raise InputError("--adversarial-noise", rule, config.adversarial_noise)
    if config.norm not in ("l2", "linf"):
        raise InputError("--norm", "must be l2 or linf for training and studies", repr(config.norm))
    NormBall(config.norm, config.epsilon or 0.0)  # an epsilon above 1 in L-inf fails here
    if config.model is None and (config.classes or config.class_map):
        raise InputError("--classes, --class-map", "can only be used with --model, whose outputs they name")
    if config.compile:
        precision.check_compiler(config.device)
    if config.replicate and config.invert_start != "image":
        rule = "must be image with --replicate, which constructs the versions from noise, too"
        raise InputError("--invert-start", rule, config.invert_start)
    if config.pretrained and config.network is None:
        raise InputError("--pretrained", "needs a network that has weights", None, "pass --network timm:resnet18")
    if config.head_only and not (config.pretrained or config.robust_model):
        raise InputError("--head-only", "needs weights to begin with", None, "pass --pretrained")
    data.check_form("--write", config.write)
    if config.invert_start not in ("image", "noise"):
        raise InputError("--invert-start", "must be image or noise", repr(config.invert_start))


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


# ---- a run's arguments -----------------------------------------------------------------------------------------------------

NEWER = (
    "stratified_targets",
    "pretrained",
    "head_only",
    "robust_model",
    "layer",
    "adversarial_noise",
)  # runs that began before these options have none
ADDED: tuple[str, ...] = ("full", "replicate", "robust_strong")  # stages that may be added to a study later
FREE = ("seeds", *ADDED, "bf16", "compile", "device")  # may differ when a run is resumed
DERIVED = ("from_scratch", "epsilon_from")  # follow from the others


def resumable_arguments(config: ResolvedConfig) -> dict[str, object]:
    """What must be as before to resume a run. Seeds and what is in `ADDED` may be added, device and speed may change."""
    own = {name: value for name, value in asdict(config).items() if name not in (*FREE, *DERIVED, *asdict(config.data))}
    for name in NEWER:
        if not own[name]:
            del own[name]
    return {"kind": "study", **config.arguments, **own}


def stored_config(run: RunFolder) -> StudyConfig:
    """The arguments of a study in its run.json, which are fields of `StudyConfig`.

    Raises
    ------
    InputError
        If the folder holds no study, or one whose run.json was changed.
    """
    arguments = {name: value for name, value in run.metadata["arguments"].items() if name != "kind"}
    hints = get_type_hints(StudyConfig)
    complete = run.kind == "study" and {"dataset"} <= {*arguments} <= {field.name for field in fields(StudyConfig)}
    if not complete or not all(_is_a(value, hints[name]) for name, value in arguments.items()):
        raise InputError("RUN", "must be a study's folder", run.folder, "make one: notbugs run DATASET --out FOLDER")
    return StudyConfig(**arguments)


def _is_a(value: object, hint: type) -> bool:
    """Whether a value of JSON has the type of a field."""
    kinds = get_args(hint) or (hint,)
    if value is None or isinstance(value, bool):
        return type(value) in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def config_of_run(run: RunFolder) -> StudyConfig:
    """The configuration that a study was run with.

    Raises
    ------
    InputError
        If the folder holds no study, or one that stopped before it began.
    """
    study, config = run.study(), stored_config(run)
    if not study.seeds:
        raise InputError("RUN", "must be a study that began", run.folder, "make one: notbugs run DATASET --out FOLDER")
    return replace(
        config,
        bf16=given if isinstance(given := study.options.get("bf16"), bool) else None,  # else decided where it goes on
        compile=study.settings.get("compile", config.compile) is True,
        seeds=study.seeds[-1] - config.seed + 1,
        **{name: getattr(study, name) for name in ADDED},
        device=study.device,
    )
