"""Work for tests of ranks: functions that worker processes import and do, each as one rank of a process group."""

import hashlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributed import FileStore

from notbugs import attacks, construct, data, models, train
from notbugs.data import Dataset, keeping_loads
from notbugs.errors import InputError
from notbugs.runs import attempts, ranks, torchrun
from notbugs.runs.attempts import Attempt
from notbugs.runs.engine import Engine
from notbugs.runs.folder import RunFolder
from notbugs.runs.runner import Stage, run_stages
from notbugs.runs.tables.files import CategoryRow
from notbugs.runs.workers import WorkerEndedError, WorkerProcesses
from notbugs.search import NormBall
from notbugs.train import state

Result = TypeVar("Result")

PGD = partial(attacks.pgd, threat_model=NormBall("linf", 0.1), steps=2, loss="cross_entropy")
LOSSES = {"standard": train.cross_entropy, "adversarial": train.adversarial_loss(PGD), "trades": train.trades(PGD)}


def on_ranks(count: int, folder: Path, work: Callable[[], Result]) -> list[Result]:
    """What some work, which must pickle, returns in each of several processes that are the ranks of one group."""
    with WorkerProcesses(count, environments=[]) as executor:
        futures = [executor.submit(_as_rank, rank, count, folder, work) for rank in range(count)]
        return [future.result(120) for future in futures]


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


# ---- runs ----------------------------------------------------------------------------------------------------------------------


def run_on_ranks(count: int, folder: Path, run: Callable[[Engine], Result], *, blind: bool = False) -> list[Result | str]:
    """A run on rank 0 of several processes that are as those of torchrun; the others follow.

    run: must pickle. What it returns, or the text of an error. The others return "", or "killed". As torchrun does, this ends all
    soon after one has failed: "ended". blind: rank 1 does not see the run folder.
    """
    store = folder / f"store{len([*folder.iterdir()])}"
    with WorkerProcesses(count, environments=[]) as executor:
        futures = [executor.submit(_run_as_rank, rank, count, store, run, blind and rank == 1) for rank in range(count)]
        wait(futures, 120, FIRST_EXCEPTION)
        wait(futures, 0.5)
        return [_how_it_ended(future) for future in futures]


def _how_it_ended(future: "Future[Result | str]") -> Result | str:
    if not future.done():
        return "ended"
    error = future.exception()
    return future.result() if error is None else "killed" if isinstance(error, WorkerEndedError) else str(error)


def _run_as_rank(rank: int, count: int, store: Path, run: Callable[[Engine], Result], blind: bool) -> Result | str:
    connection = torchrun.Connection(rank, count, FileStore(str(store), count))
    if blind:
        attempts.SECONDS_TO_SEE, attempts.ATTEMPTS = 0, "elsewhere"
    if rank:
        torchrun.follow(connection, keeping_loads)
        return ""
    with torchrun.open_engine(lambda: "cpu", connection) as engine:
        result = run(engine)
    torchrun.end(connection)
    return result


def do_stages(folder: Path, stages: dict[str, Stage], engine: Engine) -> dict[str, object]:
    """Do stages in a run folder; the entry of each in run.json."""
    with RunFolder.open(folder, {}) as run:
        run_stages(run, stages, device="cpu", engine=engine)
        found: dict[str, object] = run.metadata["stages"]
        return found


def who(marks: Path, attempt: Attempt) -> list[CategoryRow]:
    """A stage that leaves a mark of its process and writes a file."""
    marks.mkdir(parents=True, exist_ok=True)
    (marks / str(os.getpid())).touch()
    (attempt.folder / "models").mkdir(parents=True)
    (attempt.folder / "models" / f"{marks.name}.json").write_text("{}")
    return [CategoryRow(category="robust", files=ranks.world_size(), n=10)]


def wait_for_another(marks: Path, attempt: Attempt) -> list[CategoryRow]:
    """A stage that ends once it was begun twice, in two processes."""
    who(marks / str(os.getpid()), attempt)
    while len([*marks.iterdir()]) < 2:
        time.sleep(0.01)
    return []


def fail_on(rank: int, attempt: Attempt) -> list[CategoryRow]:
    """A stage in which one rank fails and the others wait for what it does not do."""
    together = ranks.together()
    assert together is not None
    if together.rank == rank:
        raise InputError("--epsilon", "must be above 0", -1)
    together.blocks("never", 1).wait()
    return []


def train_and_map(killed: Path | None, place: Path, attempt: Attempt) -> list[CategoryRow]:
    """A training and a map over batches. killed: rank 1 ends at once in the second epoch, or in the map, unless this exists."""

    def end(what: str) -> None:
        if ranks.is_follower() and killed is not None and killed.name == what and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    state.SECONDS_BETWEEN = 0
    model, epochs = perceptron(), list[int]()

    def progress(epoch: train.Epoch) -> None:
        epochs.append(epoch.epoch)
        end(f"epoch{epoch.epoch}")

    train.fit(model, images(12), epochs=3, batch_size=6, progress=progress, checkpoint=attempt.unfinished / "training.pt")
    data.map_batches(lambda batch, _: end("map") or batch, images(8), batch_size=2)
    attempt.folder.joinpath("models").mkdir(parents=True)
    weights = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
    (attempt.folder / "models" / "weights.json").write_text(f"{epochs} {hashlib.sha256(weights).hexdigest()}")
    return []


# ---- constructions -------------------------------------------------------------------------------------------------------------


def constructed() -> list[Tensor]:
    """Images of data sets that are constructed in batches of 4: 10 images from images, from noise, and relabeled."""
    part, model = images(10), models.build("small", shape=(1, 6, 6), classes=3, width=4)
    inverted = [construct.invert_features(model, part, start=start, steps=3, batch_size=4) for start in ("image", "noise")]
    targets = construct.next_labels(part.labels, 3)
    relabeled = construct.relabel(model, part, targets, threat_model=NormBall("l2", 0.5), steps=3, batch_size=4)
    return [made.dataset.images[:] for made in (*inverted, relabeled)]
