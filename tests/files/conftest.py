"""Shared by the tests of this folder: few digits, quick training, and one run of the command."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from cli.conftest import call_here

from notbugs import data
from notbugs.data import Dataset
from notbugs.files import CrossfitConfig
from notbugs.search import NormBall

QUICK = CrossfitConfig(NormBall("l2", 0.75), "small", 8, epochs=2, batch_size=32, adversarial_steps=1, invert_steps=2)


class Done(NamedTuple):
    """A run of the command: data set, run folder, arguments, and what was printed."""

    dataset: Path
    run: Path
    words: list[str]
    printed: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def few(digits: data.Splits) -> Dataset:
    """120 training digits."""
    return digits.train.select(slice(0, 120))


@pytest.fixture(scope="session")
def done(digits: data.Splits, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A folder of 150 pictures, scored and split by file."""
    folder = tmp_path_factory.mktemp("files")
    dataset, run = folder / "set", folder / "run"
    data.export(digits.train.select(slice(0, 150)), dataset, "folder", card="Some digits.")
    words = ["split", str(dataset), "--by-file", "--top", "0.4", "--repeats", "1", "--folds", "2", "--epochs", "2"]
    words += ["--width", "8", "--epsilon", "0.75", "--workers", "1", "--out", str(run)]
    return Done(dataset, run, words, call_here(*words))
