"""Shared by the tests of this folder: few digits, quick training, and one run of the command."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cli.conftest import call_here
from conftest import shared_folder

from notbugs import data, train
from notbugs.data import Dataset
from notbugs.files import CrossfitConfig
from notbugs.search import NormBall
from notbugs.train import state

QUICK = CrossfitConfig(NormBall("l2", 0.75), "small", 8, epochs=2, batch_size=32, adversarial_steps=1, invert_steps=2)


def stop_once_in(killed_in: tuple[str, int], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Interrupts a training after one of its epochs, once; returns those that were done: checkpoint in the folder, number."""
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0)
    fit, epochs, stops = train.fit, list[tuple[str, int]](), [killed_in]

    def recorded_fit(model: Any, *args: Any, checkpoint: Any, progress: Any = None, **options: Any) -> Any:
        def interrupt(epoch: train.Epoch) -> None:
            if progress:
                progress(epoch)
            epochs.append((checkpoint.path.relative_to(folder).with_suffix("").as_posix(), epoch.epoch))
            if epochs[-1] in stops:
                stops.remove(epochs[-1])
                raise KeyboardInterrupt

        return fit(model, *args, progress=interrupt, checkpoint=checkpoint, **options)

    monkeypatch.setattr(train, "fit", recorded_fit)
    return epochs


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
    """A folder of 150 pictures, scored and split by file; of the run, each worker process of the tests has its own copy."""
    words = ["--by-file", "--top", "0.4", "--repeats", "1", "--folds", "2", "--epochs", "2", "--width", "8", "--epsilon", "0.75"]

    def command(made: Path, run: Path) -> list[str]:
        return ["split", str(made / "set"), *words, "--workers", "1", "--out", str(run)]

    def make(made: Path) -> None:
        data.export(digits.train.select(slice(0, 150)), made / "set", "folder", card="Some digits.")
        printed = call_here(*command(made, made / "run"))
        assert printed.returncode == 0, printed.stderr
        (made / "printed.json").write_text(json.dumps([printed.args, printed.returncode, printed.stdout, printed.stderr]))

    made = shared_folder(tmp_path_factory, "files", make, copy=False)
    run = Path(shutil.copytree(made / "run", tmp_path_factory.mktemp("files") / "run"))
    printed = subprocess.CompletedProcess(*json.loads((made / "printed.json").read_text()))
    return Done(made / "set", run, command(made, run), printed)
