"""Configuration of file scores: what was asked for, and the settings of cross-fitted models that follow from the data."""

from dataclasses import asdict, dataclass
from pathlib import Path

from notbugs.data import DataConfig, Splits
from notbugs.data.load import SYNTHETIC
from notbugs.files.crossfit import CrossfitConfig
from notbugs.study.config import StudyConfig, load
from notbugs.study.resolve import TINY, resolve

PARTS = "parts"  # what folds keep until the end
FREE = ("repeats", "subset_regression", "device", "pictures", "write", "flip")  # may differ when a run is resumed


@dataclass(frozen=True)
class FilesConfig:
    """Everything that decides the scores of files; None is decided by `crossfit_config`.

    Parameters
    ----------
    data : DataConfig
    norm : {"l2", "linf"}
    epsilon : float, optional
        Of adversarial training and of the attacks. Pixels in [0, 1].
    seed : int
    network : str, optional
        As in `study.config.StudyConfig`.
    width, epochs : int, optional
        Of every training.
    device : str
    folds : int
        Each file is scored by models trained on the other folds.
    repeats : int
        How often, with other folds and other models each time.
    subset_regression : int
        Pairs of trainings on halves of the files, from which it is learned which combination of scores separates robust from
        non-robust files (`subset_regression`); 0: none.
    pictures : float
        Megabytes, before compression, up to which the adversarial examples, D_R and D_NR of all files are stored.
    write : {"folder", "parquet", "npz", "webdataset"}, optional
        The form of the subsets. Default: the input's.
    flip : bool, optional
        Augmentation: random horizontal flips. Default: as in a study.
    pretrained, head_only, layer
        As in `study.config.StudyConfig`.
    """

    data: DataConfig
    norm: str = "l2"
    epsilon: float | None = None
    seed: int = 0
    network: str | None = None
    width: int | None = None
    epochs: int | None = None
    device: str = "cpu"
    folds: int = 3
    repeats: int = 3
    subset_regression: int = 0
    pictures: float = 1000
    write: str | None = None
    flip: bool | None = None
    pretrained: bool = False
    head_only: bool = False
    layer: str | None = None


def load_splits(config: FilesConfig) -> Splits:
    """The data, loaded once in each run. Raises InputError for settings or data that cannot be used."""
    return load(_study_config(config))


def written_form(config: FilesConfig, splits: Splits) -> str:
    """The form in which subsets are written: the chosen one, or the input's."""
    return config.write or splits.form


def crossfit_config(config: FilesConfig, splits: Splits) -> CrossfitConfig:
    """How cross-fitted models are trained: as in a study, but with a small network, for half as long, where images are not tiny.

    Many models matter more here than good ones: the ranks of files hardly change with the network (docs/results.md).

    Parameters
    ----------
    config : FilesConfig
    splits : Splits
        Its data.

    Raises
    ------
    InputError
        For settings that cannot be used with these data.

    Examples
    --------
    >>> config = FilesConfig(DataConfig("digits", limit=100))
    >>> crossfit_config(config, load_splits(config)).threat_model
    NormBall(norm='l2', epsilon=0.75)
    """
    study = resolve(_study_config(config), splits)
    asked = config.network is not None or config.width is not None or config.layer is not None
    small = not asked and config.data.dataset != SYNTHETIC and max(splits.train.shape[1:]) > TINY
    return CrossfitConfig(
        threat_model=study.threat_model,
        network="small" if small else study.network,
        width=16 if small else study.width,
        epochs=max(8, study.epochs // 2) if small and config.epochs is None else study.epochs,
        batch_size=128 if small else study.batch_size,
        learning_rate=0.02 if small else study.learning_rate,
        weight_decay=study.weight_decay,
        translate=study.translate,
        flip=study.flip,
        adversarial_steps=study.adversarial_steps,
        invert_steps=min(20, study.invert_steps),
        pretrained=study.pretrained,
        head_only=study.head_only,
        layer=study.layer,
    )


def _study_config(config: FilesConfig) -> StudyConfig:
    """A study with the same settings, for its checks and defaults."""
    return StudyConfig(
        **asdict(config.data),
        norm=config.norm,
        epsilon=config.epsilon,
        seed=config.seed,
        network=config.network,
        width=config.width,
        epochs=config.epochs,
        device=config.device,
        write=config.write,
        flip=config.flip,
        pretrained=config.pretrained,
        head_only=config.head_only,
        layer=config.layer,
        bf16=False,  # not used here
    )


def resumable_arguments(config: FilesConfig) -> dict[str, object]:
    """What must be as before to resume a run. Repeats may be added, the device may change."""
    own = {name: value for name, value in asdict(config).items() if name not in (*FREE, "data")}
    own = {
        name: value for name, value in own.items() if name not in ("pretrained", "head_only", "layer") or value
    }  # newer than some runs
    return {"kind": "files", **config.data.arguments, **own}


def fold_path(folder: Path, repeat: int, fold: int) -> Path:
    """Where the scores of one fold are kept."""
    return folder / PARTS / f"{repeat:03d}-{fold:03d}.npz"


def pair_path(folder: Path, number: int) -> Path:
    """Where the halves of one pair of trainings and their accuracies are kept."""
    return folder / PARTS / f"pair-{number:04d}.npz"


def examples_path(folder: Path, fold: int) -> Path:
    """Where a fold of the first repetition keeps pictures and nearest files until they are written to explorer/."""
    return folder / PARTS / f"examples-{fold:03d}.npz"
