"""Training curves in TensorBoard, MLflow and Weights & Biases: callbacks for `train.fit` and `notbugs.train`."""

import importlib
import weakref
from collections.abc import Callable, Mapping
from os import PathLike, fspath
from types import ModuleType

from notbugs.errors import InputError
from notbugs.train.state import Epoch

Logger = Callable[[Epoch], None]


def tensorboard(folder: str | PathLike[str]) -> Logger:
    """Write each epoch into a folder of TensorBoard.

    Parameters
    ----------
    folder : str or path
        One run: `tensorboard --logdir` shows it.

    Returns
    -------
    callable
        For `progress` of `train.fit`, or `callback` of `notbugs.train`. Its writer is closed when nothing refers to the callback
        any more.

    Raises
    ------
    InputError
        If TensorBoard is not installed.
    """
    _needs("tensorboard")
    writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(fspath(folder))

    def log(epoch: Epoch) -> None:
        for name, number in _metrics(epoch).items():
            writer.add_scalar(name, number, epoch.epoch)
        writer.flush()

    weakref.finalize(log, writer.close)  # `fit` says of no epoch that it is the last
    return log


def mlflow() -> Logger:
    """Log each epoch to the active run of MLflow; MLflow starts one if there is none.

    Returns
    -------
    callable
        For `progress` of `train.fit`, or `callback` of `notbugs.train`.

    Raises
    ------
    InputError
        If MLflow is not installed.
    """
    package = _needs("mlflow")
    return lambda epoch: package.log_metrics(_metrics(epoch), step=epoch.epoch)


def wandb() -> Logger:
    """Log each epoch to the active run of Weights & Biases, which `wandb.init` starts.

    Returns
    -------
    callable
        For `progress` of `train.fit`, or `callback` of `notbugs.train`.

    Raises
    ------
    InputError
        If wandb is not installed, or no run is active.
    """
    package = _needs("wandb")
    if package.run is None:
        raise InputError("wandb", "needs an active run", remedy="call wandb.init(project=...) first")
    return lambda epoch: package.log(_metrics(epoch), step=epoch.epoch, commit=True)  # else it waits for the next epoch


def _needs(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        missing = error.name or package  # or a package that it needs
        raise InputError("progress", f"needs the package {missing}", remedy=f"pip install {package}") from None


def _metrics(epoch: Epoch) -> Mapping[str, float]:
    """All figures of an epoch but its number; no test accuracy without `monitor`, no validation accuracy without `stopping`."""
    return {name: number for name, number in epoch._asdict().items() if name != "epoch" and number is not None}
