"""Work for tests of ranks: functions that worker processes import and do, each as one rank of a process group."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributed import FileStore

from notbugs import attacks, models, train
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.runs import ranks
from notbugs.runs.workers import WorkerProcesses
from notbugs.search import NormBall

Result = TypeVar("Result")

PGD = partial(attacks.pgd, threat_model=NormBall("linf", 0.1), steps=2, loss="cross_entropy")
LOSSES = {"standard": train.cross_entropy, "adversarial": train.adversarial_loss(PGD), "trades": train.trades(PGD)}


def on_ranks(count: int, folder: Path, work: Callable[[], Result]) -> list[Result]:
    """What some work, which must pickle, returns in each of several processes that are the ranks of one group."""
    with WorkerProcesses(count, environments=[]) as executor:
        futures = [executor.submit(_as_rank, rank, count, folder, work) for rank in range(count)]
        return [future.result(60) for future in futures]


def _as_rank(rank: int, count: int, folder: Path, work: Callable[[], Result]) -> Result:
    store = FileStore(str(folder / "store"), count)
    with ranks.in_job(ranks.Ranks(rank, count, store, "job")), ranks.in_stage(folder):
        return work()


def images(n: int) -> Dataset:
    """Random images of three classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, 1, 6, 6), generator=generator, dtype=torch.uint8)
    return Dataset(pixels, torch.arange(n) % 3, ("a", "b", "c"), tuple(f"{row}.png" for row in range(n)))


def perceptron(*, unused: bool = False) -> nn.Module:
    """Without batch norm, so that its gradients are sums over images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3)]
        model = nn.Sequential(*layers)
        if unused:
            model.register_parameter("unused", nn.Parameter(torch.zeros(2, 2)))
    return model


def gradients(loss: str, n: int) -> list[Tensor]:
    """The gradients of the first step of training."""
    model = perceptron()
    train.fit(model, images(n), LOSSES[loss], epochs=1, batch_size=n)
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def trained() -> tuple[dict[str, Tensor], list[tuple[float, float]]]:
    """Weights, buffers and curve of a network with batch norm, trained with augmentation."""
    model = models.build("small", shape=(1, 6, 6), classes=3, width=4)
    curve = train.fit(model, images(13), epochs=2, batch_size=6, augment=train.random_translate(1, flip=True))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return weights, [(epoch.loss, epoch.accuracy) for epoch in curve]


def unused() -> str:
    """The error for a network with a parameter that it does not use."""
    try:
        train.fit(perceptron(unused=True), images(6), epochs=2, batch_size=3)
    except InputError as error:
        return str(error)
    return ""


def trainings(cases: Sequence[tuple[str, int]]) -> tuple[list[list[Tensor]], dict[str, Tensor], list[tuple[float, float]], str]:
    """All of these, one after the other."""
    return [gradients(*case) for case in cases], *trained(), unused()
