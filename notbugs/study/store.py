"""Where the parts of a study are in its run folder, and their random seeds."""

import zlib
from pathlib import Path

from notbugs import data, models
from notbugs.data import Dataset
from notbugs.study.config import ResolvedConfig, StudyConfig, load, written_form
from notbugs.study.given import GIVEN, given_model

Config = StudyConfig | ResolvedConfig


def load_dataset(config: Config, folder: Path, seed: int, name: str) -> Dataset:
    """A constructed data set as it is stored."""
    return data.load_part(dataset_path(config, folder, seed, name), written_form(config, load(config, seed)))


def load_model(config: Config, folder: Path, seed: int, name: str) -> models.Model:
    """A trained classifier as it is stored; the given one from where it is."""
    if name == GIVEN and (given := given_model(config)):
        return given.model
    return models.load(model_path(config, folder, seed, name), config.network)[0]


def has_model(config: Config, folder: Path, seed: int, name: str) -> bool:
    """Whether there is such a classifier: trained already, or given."""
    return (name == GIVEN and config.model is not None) or model_path(config, folder, seed, name).exists()


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
