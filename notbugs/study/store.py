"""Where the parts of a study are in its run folder, and their random seeds.

Whether there is a part is what its stage recorded: one that vanished from the folder is an error that names it.
"""

import zlib
from pathlib import Path
from typing import TypeAlias

from notbugs import data, models
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import SetRow, TrainingRow
from notbugs.study.config import ResolvedConfig, StudyConfig, load, written_form
from notbugs.study.given import GIVEN, given_model

Config: TypeAlias = StudyConfig | ResolvedConfig


def load_dataset(config: Config, folder: Path, seed: int, name: str) -> Dataset:
    """A constructed data set as it is stored. Raises InputError if it is not, or not whole."""
    path = _existing(dataset_path(config, folder, seed, name))
    return data.load_part(path, written_form(config, load(config, seed)))


def load_model(config: Config, folder: Path, seed: int, name: str) -> models.Model:
    """A trained classifier as it is stored; the given one from where it is. Raises InputError if it is not there."""
    if name == GIVEN and (given := given_model(config)):
        return given.model
    return models.load(_existing(model_path(config, folder, seed, name)), config.network)[0]


def has_dataset(config: Config, folder: Path, seed: int, name: str) -> bool:
    """Whether such a data set was constructed, with enough images to be trained on."""
    if dataset_path(config, folder, seed, name).exists():
        return True
    return any(row.written for row in RunFolder.read(folder).rows(SetRow) if (row.set, row.seed) == (name, seed))


def has_model(config: Config, folder: Path, seed: int, name: str) -> bool:
    """Whether there is such a classifier: trained already, or given."""
    if (name == GIVEN and config.model is not None) or model_path(config, folder, seed, name).exists():
        return True
    return any((row.model, row.seed) == (name, seed) for row in RunFolder.read(folder).rows(TrainingRow))


def missing(config: Config, folder: Path, seed: int, kind: str, name: str) -> Path | None:
    """What a finished stage wrote and is not there any more; None if all is there, or the stage writes only rows.

    kind: as in `graph.StageId`.
    """
    if kind == "dataset" and has_dataset(config, folder, seed, name):
        path = dataset_path(config, folder, seed, name)
    elif kind == "model" and has_model(config, folder, seed, name):
        path = model_path(config, folder, seed, name)
    elif kind == "examples":
        path = examples_path(config, folder, seed, name)
    else:
        return None
    return None if path.exists() else path


def vanished(path: Path) -> InputError:
    """The error for what is not there any more."""
    return InputError(str(path), "must be where this run wrote it", "nothing", "put it back, or begin a new run")


def _existing(path: Path) -> Path:
    if not path.exists():
        raise vanished(path)
    return path


def model_path(config: Config, folder: Path, seed: int, name: str) -> Path:
    """The file of a model's weights."""
    return folder / "models" / f"{name}{_suffix(config, seed)}.safetensors"


def dataset_path(config: Config, folder: Path, seed: int, name: str) -> Path:
    """The folder of a constructed data set."""
    return folder / "datasets" / f"{name}{_suffix(config, seed)}"


def examples_path(config: Config, folder: Path, seed: int, source: str) -> Path:
    """The file of a model's adversarial examples."""
    return folder / "examples" / f"{source}{_suffix(config, seed)}.npz"


def _suffix(config: Config, seed: int) -> str:
    """The first seed's files have the plain name."""
    return "" if seed == config.seed else f"-seed{seed}"


def derive_seed(seed: int, key: str) -> int:
    """A random seed for one part of a study. key: `seed_key` of its spec.

    Examples
    --------
    >>> derive_seed(0, "standard") == derive_seed(0, "standard"), derive_seed(0, "standard") == derive_seed(1, "standard")
    (True, False)
    """
    return zlib.crc32(f"{seed}/{key}".encode())
