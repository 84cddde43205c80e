"""The loop that changes weights. Standard training, adversarial training and TRADES differ only in the loss."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from notbugs import precision
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.models import head_name, memory_format
from notbugs.train.augment import Augment
from notbugs.train.losses import Loss, cross_entropy
from notbugs.train.optimizers import EarlyStopping, MakeOptimizer, RateShape, adamw
from notbugs.train.schedule import RESTART_RATE, Schedule, above_chance


class Epoch(NamedTuple):
    """One epoch of a training curve.

    Attributes
    ----------
    epoch : int
        From 1.
    loss, accuracy : float
        Means over the training set, on its labels, from the forward passes of training. Accuracy in [0, 1].
    learning_rate : float
        Of the last step.
    seconds : float
        Since training started.
    """

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float


def fit(
    model: nn.Module,
    data: Dataset,
    loss: Loss = cross_entropy,
    *,
    epochs: int,
    batch_size: int = 128,
    learning_rate: float = 0.01,
    weight_decay: float = 0.05,
    optimizer: MakeOptimizer = adamw,
    schedule: RateShape | None = None,
    stopping: EarlyStopping | None = None,
    augment: Augment | None = None,
    patience: int = 0,
    bf16: bool | None = None,
    compile: bool = False,
    head_only: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train a model in place; the weights are those of the last epoch.

    The same seed on the same machine gives the same weights. The caller's random state stays as it was.

    Parameters
    ----------
    model : nn.Module
        Images (N, C, H, W) in [0, 1] to logits (N, K).
    data : Dataset
    loss : Loss
        `cross_entropy`, `adversarial_loss(attack)`, `trades(attack)`, or your own.
    epochs : int
        Epochs of the schedule, 1 or more.
    batch_size : int
        At most this many images per step; batches are of equal size.
    learning_rate, weight_decay : float
        Of the optimizer. With AdamW biases and batch norm have no weight decay.
    optimizer : callable
        Makes a torch.optim.Optimizer of (model, learning_rate, weight_decay): `train.adamw`, `train.sgd`, or your own.
    schedule : callable, optional
        The share of the steps that are done, in (0, 1], to a factor of the learning rate: `train.step_decay`, or your own.
        Default: linear warm-up over 15 % of the steps, then linear decay to 0.
    stopping : EarlyStopping, optional
        Ends training early by validation images; the weights are then the best by these.
    augment : Augment, optional
    patience : int
        At most this many extra epochs, at the full learning rate, while accuracy on the training labels is still at chance level.
        Labels that only non-robust features explain can stay there for long (Ilyas et al. 2019, figure 10). If it is still there
        afterwards, training starts again from the initial weights, once, at a quarter of the rate.
    bf16 : bool, optional
        Train in bfloat16: see `precision.autocast`.
    compile : bool
        Compile the model: see `precision.compiled`.
    head_only : bool
        Train the last layer alone (`models.head_name`). All others stay as they are, their batch norm and dropout in evaluation
        mode.
    seed : int
        Of the order of images, the augmentation, and dropout.
    device : torch.device or str
    progress : callable, optional
        Gets each Epoch as it ends.

    Returns
    -------
    list of Epoch
        The training curve, with the epochs before such a restart.

    Raises
    ------
    InputError
        If epochs is below 1, the loss is no longer finite, or `patience` is combined with `schedule` or `stopping`.

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").train.select(slice(0, 100))
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> [epoch.epoch for epoch in fit(model, digits, epochs=2)]
    [1, 2]
    """
    if epochs < 1:
        raise InputError("epochs", "must be 1 or more", epochs)
    if patience and (schedule or stopping):
        raise InputError("patience", "must be 0 with a schedule or early stopping of your own", patience)
    device = torch.device(device)
    model.to(device).to(memory_format=memory_format(model)).train()  # type: ignore[call-overload]
    batches = max(1, min(math.ceil(len(data) / batch_size), len(data) // 2))  # batch norm cannot train on one image
    run_epoch = _epoch_runner(model, data, loss, augment, seed=seed, bf16=bf16, compile=compile, device=device)
    threshold = above_chance(data.labels, len(data.classes))
    start = partial(
        _start, model, optimizer, weight_decay, Schedule(learning_rate, epochs, batches, not patience, shape=schedule)
    )
    making, rates = start(learning_rate)
    initial = copy.deepcopy(model.state_dict()) if patience else {}
    curve: list[Epoch] = []
    before_restart = 0
    started = time.perf_counter()
    with _seeded(device, seed), _head_only(model) if head_only else nullcontext():
        while (epoch := len(curve) - before_restart) < rates.total_epochs:
            mean_loss, accuracy = run_epoch(making, rates, epoch * batches)
            step = (epoch + 1) * batches
            curve.append(Epoch(len(curve) + 1, mean_loss, accuracy, rates.rate(step), time.perf_counter() - started))
            if not math.isfinite(mean_loss):
                raise InputError("learning rate", "training diverged: the loss is no longer finite", learning_rate, "lower it")
            if progress:
                progress(curve[-1])
            if stopping and stopping.after_epoch(model, device):
                break
            rates = rates.after_epoch(step, at_chance=accuracy < threshold, patience=patience)
            if rates.used_up(patience) and not before_restart:
                before_restart = len(curve)
                model.load_state_dict(initial)
                making, rates = start(RESTART_RATE * learning_rate)
    if stopping:
        stopping.take_best(model)
    model.eval()
    return curve


def _start(
    model: nn.Module, optimizer: MakeOptimizer, weight_decay: float, rates: Schedule, rate: float
) -> tuple[torch.optim.Optimizer, Schedule]:
    return optimizer(model, rate, weight_decay), rates._replace(learning_rate=rate)


def _epoch_runner(
    model: nn.Module,
    data: Dataset,
    loss: Loss,
    augment: Augment | None,
    *,
    seed: int,
    bf16: bool | None,
    compile: bool,
    device: torch.device,
) -> Callable[[torch.optim.Optimizer, Schedule, int], tuple[float, float]]:
    """A function that trains for one epoch, given the steps done so far, and returns mean loss and accuracy."""
    images = data.images.to(device) if isinstance(data.images, Tensor) else data.images  # files too large for memory stay on disk
    labels = data.labels.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    forward, layout = precision.compiled(model) if compile else model, memory_format(model)

    def run_epoch(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> tuple[float, float]:
        total, correct = torch.zeros((), device=device), torch.zeros((), device=device)
        order = torch.randperm(len(labels), generator=generator, device=device)
        for number, index in enumerate(order.tensor_split(schedule.batches), start=1):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step + number)
            batch = images[index if isinstance(images, Tensor) else index.cpu()].to(device).float().div_(255)
            if augment:
                batch = augment(batch, generator)
            with precision.autocast(device, bf16):
                value, logits = loss(forward, batch.clone(memory_format=layout), labels[index])
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += value.detach() * len(index)
            correct += (logits.detach().argmax(1) == labels[index]).sum()
        return total.item() / len(labels), correct.item() / len(labels)

    return run_epoch


@contextmanager
def _head_only(model: nn.Module) -> Iterator[None]:
    """Meanwhile the last layer alone has gradients and is in training mode."""
    head = model.get_submodule(head_name(model))
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    head.train().requires_grad_(True)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's global random state, which dropout uses, seeded inside and restored afterwards."""
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        torch.default_generator.manual_seed(seed)  # forked above; torch.manual_seed would seed every device
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield
