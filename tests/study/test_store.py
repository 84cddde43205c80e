"""Where a study's parts are, and their random seeds."""

import zlib
from pathlib import Path

from study.conftest import resolved

from notbugs.study.config import StudyConfig
from notbugs.study.store import dataset_path, derive_seed, examples_path, model_path


def test_the_first_seeds_files_have_the_plain_name() -> None:
    config, folder = resolved(StudyConfig("digits", seed=5, seeds=2)), Path("run")
    assert model_path(config, folder, 5, "standard") == folder / "models/standard.safetensors"
    assert model_path(config, folder, 6, "standard") == folder / "models/standard-seed6.safetensors"
    assert dataset_path(config, folder, 5, "robust") == folder / "datasets/robust"
    assert dataset_path(config, folder, 6, "robust") == folder / "datasets/robust-seed6"
    assert examples_path(config, folder, 6, "standard") == folder / "examples/standard-seed6.npz"


def test_a_seed_is_that_of_its_key() -> None:
    assert derive_seed(3, "on-robust") == zlib.crc32(b"3/on-robust")
    assert len({derive_seed(seed, key) for seed in (0, 1) for key in ("standard", "adversarial")}) == 4
