"""All that changes while a network is trained, and checkpoints, from which training goes on as if nothing had stopped it."""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from notbugs.atomic import StrPath, atomic_write
from notbugs.data.sources.tensors import load_saved
from notbugs.errors import InputError, NotbugsWarning
from notbugs.train.optimizers import EarlyStopping
from notbugs.train.schedule import Schedule

SECONDS_BETWEEN = 10.0  # of two checkpoints: every epoch that takes longer has its own


class Epoch(NamedTuple):
    """One epoch of a training curve.

    Attributes
    ----------
    epoch : int
        From 1.
    loss, accuracy : float
        Means over the training set, on its labels, from the forward passes of training. Accuracy in [0, 1].
    learning_rate : float
        Of the last step; that of the first parameter group.
    seconds : float
        Since training started.
    test_accuracy : float or None
        What `monitor` returned; None without it.
    validation_accuracy : float or None
        Of early stopping; None without it.
    """

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float
    test_accuracy: float | None = None
    validation_accuracy: float | None = None


@dataclass
class State:
    """A network in training.

    Attributes
    ----------
    model : nn.Module
    optimizer : Optimizer
    schedule : Schedule
    generator : Generator
        Of the order of images and the augmentation.
    device : device
    stopping : EarlyStopping or None
    curve : list of Epoch
    before_restart : int
        Epochs before training started again; 0 if it did not.
    started : float
        `time.perf_counter()` at the start; earlier by what was done before, where training goes on.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    generator: torch.Generator
    device: torch.device
    stopping: EarlyStopping | None = None
    curve: list[Epoch] = field(default_factory=list)
    before_restart: int = 0
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        if self.stopping:
            self.stopping.begin()

    @property
    def epoch(self) -> int:
        """Epochs since training started for the last time."""
        return len(self.curve) - self.before_restart

    @property
    def done(self) -> bool:
        """Whether no epoch is left."""
        return self.epoch >= self.schedule.total_epochs or (self.stopping is not None and self.stopping.done)

    def content(self) -> dict[str, object]:
        """What a checkpoint holds."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": tuple(self.schedule._replace(shape=None)),  # a function: it is given again
            "generator": self.generator.get_state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "curve": [tuple(epoch) for epoch in self.curve],
            "before_restart": self.before_restart,
            "seconds": time.perf_counter() - self.started,
            "stopping": self.stopping.content() if self.stopping else None,
        }

    def restore(self, content: Mapping[str, object], place: str) -> None:
        """Become what the checkpoint at a place holds. Raises InputError if it holds another thing than was written."""
        try:
            self._restore({**content})
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            rule = "must hold the training as it was written"
            raise InputError(place, rule, f"{type(error).__name__}: {error}", "remove it to train from the start") from None

    def _restore(self, found: dict[str, object]) -> None:
        self.model.load_state_dict(found["model"])  # type: ignore[arg-type]  # as `content` made it
        self._restore_optimizer(found["optimizer"])  # type: ignore[arg-type]
        self.schedule = Schedule(*found["schedule"])._replace(shape=self.schedule.shape)  # type: ignore[misc]
        self.generator.set_state(found["generator"])  # type: ignore[arg-type]
        torch.set_rng_state(found["random"])  # type: ignore[arg-type]
        if isinstance(found["random_cuda"], Tensor):
            torch.cuda.set_rng_state(found["random_cuda"], self.device)
        self.curve = [Epoch(*epoch) for epoch in found["curve"]]  # type: ignore[attr-defined]
        self.before_restart = index(found["before_restart"])  # type: ignore[arg-type]
        self.started = time.perf_counter() - found["seconds"]  # type: ignore[operator]
        if self.stopping:
            self.stopping.restore(**found["stopping"], model=self.model)  # type: ignore[arg-type]

    def _restore_optimizer(self, found: dict[str, object]) -> None:
        """PyTorch believes the settings and shapes that it is given, and fails at the next step."""
        own = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict(found)
        for group, before in zip(self.optimizer.param_groups, own, strict=True):
            if {name: isinstance(each, int | float) for name, each in before.items() if name != "params"} != {
                name: isinstance(each, int | float) for name, each in group.items() if name != "params"
            }:
                raise ValueError("settings of another optimizer")
            if not isinstance(self.optimizer, torch.optim.AdamW | torch.optim.SGD):
                continue  # another optimizer may hold values of other shapes, as Adafactor does
            for parameter in group["params"]:
                values = [each for each in self.optimizer.state.get(parameter, {}).values() if isinstance(each, Tensor)]
                if any(each.ndim and each.shape != parameter.shape for each in values):
                    raise ValueError("values of other shapes than the weights")


class Checkpoint:
    """A file that holds a training after its last epoch, or after one of its last.

    Parameters
    ----------
    path : str or path
    identity : mapping, optional
        What the training is, by name, beside what `fit` compares itself: a checkpoint of another one is not used, with a warning.
    before : callable, optional
        Called before it is written: it keeps what else belongs to these epochs.
    seconds : float, optional
        It is written after an epoch that ends this long after the start or after the last time; 0: after each epoch. Default: 10,
        so that a training that is stopped within its first 10 seconds leaves no file.

    Raises
    ------
    InputError
        If `seconds` is no number of 0 or more; in `fit` if `identity` has a name that it compares itself.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from notbugs import data, models, train
    >>> digits = data.load("digits").train.select(slice(0, 100))
    >>> model = models.build("linear", shape=digits.shape, classes=10)
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "training.pt"
    ...     curve = train.fit(model, digits, epochs=2, checkpoint=Checkpoint(path, seconds=0))
    ...     path.is_file()
    True
    """

    def __init__(
        self,
        path: StrPath,
        identity: Mapping[str, object] = MappingProxyType({}),
        before: Callable[[], None] | None = None,
        *,
        seconds: float | None = None,
    ) -> None:
        if seconds is not None and not seconds >= 0:
            raise InputError("Checkpoint.seconds", "must be 0 or more", seconds)
        self.path, self.identity, self.before, self.seconds = Path(path), dict(identity), before, seconds
        self.written = time.monotonic()

    def of(self, identity: Mapping[str, object]) -> "Checkpoint":
        """The same file for a training of which more is known. Raises InputError for names that are taken."""
        if taken := sorted(self.identity.keys() & identity.keys()):
            raise InputError(
                "Checkpoint.identity", "must not have names that fit compares itself", ", ".join(taken), "rename them"
            )
        return Checkpoint(self.path, {**self.identity, **identity}, self.before, seconds=self.seconds)

    def save(self, state: State) -> None:
        """Write it, unless there is one from a moment ago."""
        if time.monotonic() - self.written >= (SECONDS_BETWEEN if self.seconds is None else self.seconds):
            if self.before:
                self.before()
            content = {**state.content(), "identity": self.identity}
            atomic_write(self.path, lambda stream: torch.save(content, stream))
            self.written = time.monotonic()

    def load(self) -> dict[str, object] | None:
        """What it holds; None if there is none of this training."""
        if not self.path.is_file():
            return None
        try:
            content = load_saved(self.path)
            if not isinstance(content, dict):
                raise TypeError("no dictionary")
            found = content["identity"]
            other = [name for name, value in self.identity.items() if found.get(name) != value]
        except Exception:  # a damaged pickle may raise any
            self._start_again("is damaged")
            return None
        if other:
            self._start_again(f"is of a training with another {', '.join(other)}")
        return None if other else content

    def _start_again(self, why: str) -> None:
        warnings.warn(f"{self.path} {why}: training starts again", NotbugsWarning, stacklevel=4)
