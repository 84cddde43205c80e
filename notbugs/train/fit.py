"""The loop that changes weights. Standard training, adversarial training and TRADES differ only in the loss."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from notbugs import precision
from notbugs.atomic import StrPath
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.models import head_name, memory_format
from notbugs.runs import ranks
from notbugs.search.maximize import refuse_inference_mode
from notbugs.train import parallel
from notbugs.train.augment import Augment
from notbugs.train.checks import check_functions, check_numbers, check_optimizer, factor_of, loss_and_logits
from notbugs.train.digest import digest
from notbugs.train.losses import Loss, cross_entropy
from notbugs.train.optimizers import EarlyStopping, MakeOptimizer, RateShape, adamw, settings_of
from notbugs.train.schedule import RESTART_RATE, Schedule, above_chance
from notbugs.train.state import Checkpoint, Epoch, State

SECONDS_BETWEEN_REPORTS = 1.0  # within an epoch
MOST_ON_DEVICE = 2**33  # bytes of images that a GPU holds as a whole


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
    within_epoch: Callable[[float], None] | None = None,
    monitor: Callable[[], float] | None = None,
    checkpoint: StrPath | Checkpoint | None = None,
) -> list[Epoch]:
    """Train a model in place; the weights are those of the last epoch.

    The same seed on the same machine gives the same weights. The caller's random state stays as it was.

    In a stage that ranks do together (`notbugs.runs.ranks`) each takes a part of every batch (DistributedDataParallel). The
    batches are the same for any number of ranks; sums, batch norm, augmentation and dropout are not.

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
        Makes a torch.optim.Optimizer of (model, learning_rate, weight_decay): `train.adamw`, `train.sgd`, or your own. Its
        parameter groups may have learning rates of their own.
    schedule : callable, optional
        The share of the steps that are done, in (0, 1], to a factor of the initial learning rate of each parameter group:
        `train.step_decay`, or your own.
        Default: linear warm-up over 15 % of the steps, then linear decay to 0.
    stopping : EarlyStopping, optional
        Ends training early by validation images; the weights are then the best by these. Each Epoch has their accuracy.
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
    within_epoch : callable, optional
        Called in epochs of more than a second, once a second, with the epochs that are done, such as 2.25.
    monitor : callable, optional
        Called after each epoch; what it returns is the `test_accuracy` of the Epoch.
    checkpoint : str, path or Checkpoint, optional
        A file that is written after each epoch, but not within 10 seconds of the start or of the last time: a training that is
        stopped earlier leaves no file. Where it is there, training resumes from it and has the same result as if nothing had
        stopped it. It stays when training is done. A `Checkpoint` sets other seconds, and says what the training is besides:
        images, loss and augmentation are not compared.

    Returns
    -------
    list of Epoch
        The training curve, with the epochs before such a restart.

    Raises
    ------
    InputError
        For numbers that are too small or not finite; no images; a loss, optimizer or schedule of torch in place of a function; an
        optimizer that needs a closure; `patience` with `schedule` or `stopping`; `stopping` with several processes or other
        classes; within torch.inference_mode; and where the loss is no longer finite.

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").train.select(slice(0, 100))
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> [epoch.epoch for epoch in fit(model, digits, epochs=2)]
    [1, 2]
    """
    refuse_inference_mode()
    stage = ranks.stage()
    share = parallel.share_of(ranks.together())
    numbers: dict[str, float] = {"epochs": epochs, "batch_size": batch_size, "patience": patience}
    numbers |= {"learning_rate": learning_rate, "weight_decay": weight_decay}
    check_numbers(data, numbers)
    check_functions(loss, optimizer, schedule)
    _check_together(data, patience, schedule, stopping, alone=share.world_size == 1)
    device = torch.device(device)
    model.to(device).to(memory_format=memory_format(model)).train()  # type: ignore[call-overload]
    batches = max(1, min(math.ceil(len(data) / batch_size), len(data) // 2))  # batch norm cannot train on one image
    rates = Schedule(learning_rate, epochs, batches, not patience, shape=schedule)
    start = partial(_start, model, optimizer, weight_decay, rates)
    state = State(model, *start(learning_rate), torch.Generator(device).manual_seed(seed), device, stopping)
    settings = {**numbers, "seed": seed, "head_only": head_only, "device": device.type}
    kept = _checkpoint(checkpoint, state, data, settings, share) if checkpoint and share.rank == 0 else None
    initial = copy.deepcopy(model.state_dict()) if patience else {}
    threshold = above_chance(data.labels, len(data.classes))
    with torch.enable_grad(), ranks.alone(), _seeded(device, seed), _head_only(model) if head_only else nullcontext():
        run_epoch = _epoch_runner(state, data, loss, augment, share, within_epoch, seed=seed, bf16=bf16, compile=compile)
        if content := parallel.from_first(kept.load() if kept else None, share):
            place = str(kept.path) if kept else "the checkpoint"  # of rank 0
            state.restore(content, place)  # type: ignore[arg-type]  # what a checkpoint holds
        while not state.done:
            _add_epoch(state, run_epoch, monitor if share.rank == 0 else None)
            if progress:
                progress(state.curve[-1])
            _after_epoch(state, initial, start, at_chance=state.curve[-1].accuracy < threshold, patience=patience)
            if kept:
                kept.save(state)
    if stopping:
        stopping.take_best(model)
    if stage:
        stage.trained = True
    model.eval()
    return state.curve


def _check_together(
    data: Dataset, patience: int, schedule: RateShape | None, stopping: EarlyStopping | None, *, alone: bool
) -> None:
    """Raises InputError for what cannot be used together."""
    if patience and (schedule or stopping):
        raise InputError("patience", "must be 0 with a schedule or early stopping of your own", patience)
    if stopping and not alone:
        raise InputError("stopping", "must not be combined with several processes", "both", "train in one process")
    if stopping and stopping.validation.classes != data.classes:
        got = f"{len(stopping.validation.classes)} classes for {len(data.classes)}"
        raise InputError("EarlyStopping.validation", "must have the classes of the training images in their order", got)


def _add_epoch(state: State, run_epoch: Callable[[int], tuple[float, float]], monitor: Callable[[], float] | None) -> None:
    """Train for an epoch, and add it to the curve."""
    schedule = state.schedule
    mean_loss, accuracy = run_epoch(state.epoch * schedule.batches)
    seconds = time.perf_counter() - state.started
    if not math.isfinite(mean_loss):
        rule = "training diverged: the loss is no longer finite"
        raise InputError("learning rate", rule, schedule.learning_rate, "lower it")
    rate = float(state.optimizer.param_groups[0]["lr"])
    test = monitor() if monitor else None
    validation = state.stopping.after_epoch(state.model, state.device) if state.stopping else None
    state.curve.append(Epoch(len(state.curve) + 1, mean_loss, accuracy, rate, seconds, test, validation))


def _after_epoch(
    state: State,
    initial: dict[str, Tensor],
    start: Callable[[float], tuple[torch.optim.Optimizer, Schedule]],
    *,
    at_chance: bool,
    patience: int,
) -> None:
    """The schedule after an epoch; training starts again, once, where patience is used up."""
    rate, step = state.schedule.learning_rate, state.epoch * state.schedule.batches
    state.schedule = state.schedule.after_epoch(step, at_chance=at_chance, patience=patience)
    if state.schedule.used_up(patience) and not state.before_restart:
        state.before_restart = len(state.curve)
        state.model.load_state_dict(initial)
        state.optimizer, state.schedule = start(RESTART_RATE * rate)


def _start(
    model: nn.Module, optimizer: MakeOptimizer, weight_decay: float, rates: Schedule, rate: float
) -> tuple[torch.optim.Optimizer, Schedule]:
    """A new optimizer, and the schedule from its start."""
    made = optimizer(model, rate, weight_decay)
    check_optimizer(made, model)
    for group in made.param_groups:
        group.setdefault("initial_lr", group["lr"])  # as the schedulers of torch have it
    return made, rates._replace(learning_rate=rate)


def _checkpoint(
    given: StrPath | Checkpoint, state: State, data: Dataset, settings: Mapping[str, object], share: parallel.Share
) -> Checkpoint:
    """The checkpoint at a path. It is of this training if settings, labels and first weights are the same."""
    shape, stopping = state.schedule.shape, state.stopping
    own = {
        "optimizer": settings_of(state.optimizer),
        "schedule": shape and [factor_of(shape, each / 20) for each in range(1, 21)],
        "early stopping": stopping and stopping.identity(),
        "world size": share.world_size,
        "images": list(data.images.shape),
        "labels": digest(data.labels),
        "first weights": digest(*filter(torch.is_tensor, state.model.state_dict().values())),
    }
    return (given if isinstance(given, Checkpoint) else Checkpoint(given)).of({**settings, **own})


def _epoch_runner(
    state: State,
    data: Dataset,
    loss: Loss,
    augment: Augment | None,
    share: parallel.Share,
    within_epoch: Callable[[float], None] | None,
    *,
    seed: int,
    bf16: bool | None,
    compile: bool,
) -> Callable[[int], tuple[float, float]]:
    """A function that trains for one epoch, given the steps done so far, and returns mean loss and accuracy."""
    model, device, generator = state.model, state.device, state.generator
    images = data.images  # files too large for memory stay on disk, and so do arrays
    if isinstance(images, Tensor) and images.numel() <= MOST_ON_DEVICE:
        images = images.to(device)
    labels = data.labels.to(device)
    forward, layout = precision.compiled(model) if compile else model, memory_format(model)
    forward = parallel.distributed(model, forward, share)
    augmenting = generator if share.world_size == 1 else torch.Generator(device)

    def run_epoch(step: int) -> tuple[float, float]:
        total, correct, said = torch.zeros((), device=device), torch.zeros((), device=device), time.monotonic()
        order = torch.randperm(len(labels), generator=generator, device=device)
        if share.world_size > 1:  # each rank draws what it needs for its own part
            own = share.seed(seed, len(state.curve))
            augmenting.manual_seed(own)
            torch.manual_seed(own)
        for number, whole in enumerate(order.tensor_split(state.schedule.batches), start=1):
            factor = state.schedule.factor(step + number)
            for group in state.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            index = share.slice_of(whole)
            count = len(index)
            if not count:  # more ranks than pairs of images: gradients of others, times 0
                index = whole[:2]
            on_device = isinstance(images, Tensor) and images.device == index.device
            batch = images[index if on_device else index.cpu()].to(device).float().div_(255)
            if augment:
                batch = augment(batch, augmenting)
            with precision.autocast(device, bf16), parallel.explained():
                value, logits = loss_and_logits(loss(forward, batch.clone(memory_format=layout), labels[index]))
            state.optimizer.zero_grad(set_to_none=True)
            (value if share.world_size == 1 else value * share.weight(count, len(whole))).backward()  # type: ignore[no-untyped-call]
            state.optimizer.step()
            total += value.detach() * count
            correct += (logits.detach().argmax(1) == labels[index])[:count].sum()
            if within_epoch and time.monotonic() - said > SECONDS_BETWEEN_REPORTS:
                within_epoch(len(state.curve) + number / state.schedule.batches)
                said = time.monotonic()
        parallel.send_buffers(model, share)
        sums = parallel.summed(torch.stack([total, correct]), share)
        return sums[0].item() / len(labels), sums[1].item() / len(labels)

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
