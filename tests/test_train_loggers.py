"""Loggers of training, with the real packages where they are installed."""

import importlib.util
import threading
from pathlib import Path

import pytest
from torch import nn

from notbugs import data, train
from notbugs.errors import InputError
from notbugs.train import loggers


def fit(progress: loggers.Logger, digits: data.Splits) -> list[train.Epoch]:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return train.fit(model, digits.train.select(slice(0, 50)), epochs=2, progress=progress, monitor=lambda: 0.5)


def test_tensorboard_holds_each_epoch(tmp_path: Path, digits: data.Splits) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    epochs = fit(loggers.tensorboard(tmp_path), digits)
    events = accumulators.EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (epoch.epoch, pytest.approx(epoch.loss)) for epoch in epochs
    ]
    assert [event.value for event in events.Scalars("test_accuracy")] == [0.5, 0.5]


def test_tensorboard_is_closed_with_its_callback(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    before = set(threading.enumerate())
    log = loggers.tensorboard(tmp_path)
    log(train.Epoch(epoch=1, loss=0.5, accuracy=0.5, learning_rate=0.1, seconds=1.0))
    writers = set(threading.enumerate()) - before
    assert writers and all(writer.is_alive() for writer in writers)
    del log
    assert not any(writer.is_alive() for writer in writers)


@pytest.mark.filterwarnings("default")  # deprecations within the database library of mlflow
def test_mlflow_holds_each_epoch(tmp_path: Path, digits: data.Splits) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with mlflow.start_run() as run:
        epochs = fit(loggers.mlflow(), digits)
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [(entry.step, entry.value) for entry in history] == [(epoch.epoch, pytest.approx(epoch.loss)) for epoch in epochs]


def test_wandb_needs_a_run_and_holds_the_last_epoch(tmp_path: Path, digits: data.Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(InputError, match=r"wandb\.init"):
        loggers.wandb()
    with wandb.init(project="test", dir=str(tmp_path)) as run:
        epochs = fit(loggers.wandb(), digits)
        assert run.summary["loss"] == pytest.approx(epochs[-1].loss) and run.summary["test_accuracy"] == 0.5


@pytest.mark.parametrize("package", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_package_is_named_with_its_remedy(package: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(InputError, match=f"pip install {package}"):
        loggers.tensorboard(tmp_path) if package == "tensorboard" else getattr(loggers, package)()
