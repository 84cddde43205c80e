"""Part `floor` of cifar10.py: image passes per second of each kind of work, relative to bare passes of the same network."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from harness import ResultsFile, Row
from study_benchmark import Benchmark
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import notbugs.train as train
from notbugs import attacks, construct, models, precision
from notbugs.data import Dataset

Precisions = dict[str, dict[str, Any]]  # name -> bf16 and compile

TRAINING_BATCHES = 4  # of an epoch
ATTACK_STEPS, INVERT_STEPS = 10, 40


class _Setup(NamedTuple):
    """What is timed: model, its fused copy, a batch as data set and as tensors, and the largest matrix product per second."""

    device: str
    model: models.Model
    fused: Any
    train: Dataset
    batch: Dataset
    images: Tensor
    labels: Tensor
    matmul: float


def floor(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """Bare passes, then each kind of work in passes of the same kind; operations from torch's own counter."""
    setup = _prepare(benchmark)
    precisions: Precisions = {"float32": {"bf16": False}, "bfloat16": {"bf16": True}}
    if benchmark.options.compile:
        precisions["compiled, bfloat16"] = {"bf16": True, "compile": True}
    bare = _bare_input_gradient(setup)
    yield bare
    if benchmark.config.bf16:
        yield _bare_input_gradient(setup, bare["passes_per_second"])
    yield from _searches(benchmark, setup, precisions, bare)
    yield from _trainings(benchmark, setup, precisions, bare["passes_per_second"])
    yield {"work": "matrix product, bare", "gflops_per_second": setup.matmul / 1e9, "threads": torch.get_num_threads()}


def _prepare(benchmark: Benchmark) -> _Setup:
    device = benchmark.config.device
    dataset = benchmark.splits().train
    batch_size = precision.default_batch_size(device, dataset.shape)
    dataset = dataset.select(torch.arange(min(TRAINING_BATCHES * batch_size, len(dataset))))
    model = benchmark.untrained("floor", 0)
    fused = models.fuse_batchnorm(model, dataset.pixels(slice(0, 2)), device)
    batch = dataset.select(torch.arange(min(batch_size, len(dataset))))
    images, labels = batch.pixels(slice(None)).to(device), batch.labels.to(device)
    side = 4096 if device.startswith("cuda") else 1024
    matrix = torch.rand(side, side, device=device)
    matmul = 2 * side**3 / _seconds(lambda: matrix @ matrix, device)
    images = images.contiguous(memory_format=torch.channels_last)
    return _Setup(device, model, fused, dataset, batch, images, labels, matmul)


def _row(setup: _Setup, work: str, passes: float, n: int, seconds: float, bare: float | None, operations: int) -> Row:
    """passes: per image; bare: bare passes per second; operations: of one pass of one image."""
    rate = passes * n / seconds
    return {
        "work": work,
        "passes_per_second": rate,
        "relative_to_bare": rate / bare if bare else 1.0,
        "gflops_per_second": rate * operations / 1e9,
        "relative_to_matmul": rate * operations / setup.matmul,
        "threads": torch.get_num_threads(),
    }


# ---- searches: forward and input-backward passes ---------------------------------------------------------------------------


def _input_operations(setup: _Setup) -> int:
    """Operations of a forward and input-backward pass of one image."""
    with FlopCounterMode(display=False) as counter:  # it does not see autograd.grad
        F.cross_entropy(setup.fused(setup.images[:1].clone().requires_grad_()), setup.labels[:1]).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


def _bare_input_gradient(setup: _Setup, float32: float | None = None) -> Row:
    """float32: bare passes per second; with it, the passes are in bfloat16."""
    seconds = _seconds(lambda: _input_gradient(setup, bf16=float32 is not None), setup.device)
    work = "forward and input-backward, bare" + ("" if float32 is None else ", bfloat16")
    return _row(setup, work, 1, len(setup.batch), seconds, float32, _input_operations(setup))


def _searches(benchmark: Benchmark, setup: _Setup, precisions: Precisions, bare: Row) -> Iterator[Row]:
    """PGD, relabeling, and inversion."""
    threat_model, device = benchmark.config.threat_model, setup.device
    n, rate, operations = len(setup.batch), bare["passes_per_second"], _input_operations(setup)
    with models.frozen(setup.fused):
        attack = partial(attacks.pgd, setup.fused, setup.images, setup.labels, threat_model=threat_model, steps=ATTACK_STEPS)
        seconds = _seconds(attack, device)
    yield _row(setup, f"attack, {ATTACK_STEPS} steps", ATTACK_STEPS, n, seconds, rate, operations)
    targets = construct.next_labels(setup.batch.labels, len(setup.batch.classes))
    for name, settings in precisions.items():
        relabel = partial(
            construct.relabel,
            *(setup.model, setup.batch, targets),
            threat_model=threat_model,
            steps=ATTACK_STEPS,
            device=device,
            **settings,
        )
        work = f"relabeling, {ATTACK_STEPS} steps, {name}"
        yield _row(setup, work, ATTACK_STEPS, n, _seconds(relabel, device), rate, operations)
        invert = partial(construct.invert_features, setup.model, setup.batch, steps=INVERT_STEPS, device=device, **settings)
        work = f"D_R or D_NR, {INVERT_STEPS} steps with preparation, {name}"
        yield _row(setup, work, INVERT_STEPS, n, _seconds(invert, device), rate, operations)


def _input_gradient(setup: _Setup, *, bf16: bool) -> Tensor:
    images = setup.images.detach().requires_grad_()
    with models.frozen(setup.fused), precision.full_precision(), precision.autocast(setup.device, bf16):
        loss = F.cross_entropy(setup.fused(images), setup.labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


# ---- training: forward and backward passes ---------------------------------------------------------------------------------


def _trainings(benchmark: Benchmark, setup: _Setup, precisions: Precisions, input_rate: float) -> Iterator[Row]:
    """Standard and adversarial training; input_rate: bare input-backward passes per second, of which the attack is made."""
    model = benchmark.untrained("floor", 0).to(setup.device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(setup.images[:2]), setup.labels[:2]).backward()  # type: ignore[no-untyped-call]
    operations = counter.get_total_flops() // 2
    seconds = _seconds(lambda: _weight_gradient(model, setup.images, setup.labels), setup.device)
    bare = _row(setup, "forward and backward, bare", 1, len(setup.batch), seconds, None, operations)
    yield bare
    steps = benchmark.config.adversarial_steps
    attack = partial(attacks.pgd, threat_model=benchmark.config.threat_model, steps=steps, loss="cross_entropy")
    least = len(setup.train) * (steps / input_rate + 1 / bare["passes_per_second"])
    epoch = partial(_epoch, setup, model, benchmark.config.batch_size)
    for name, settings in precisions.items():
        seconds = _seconds(partial(epoch, train.cross_entropy, settings), setup.device, 3)
        work = f"standard training, augmented, {name}"
        yield _row(setup, work, 1, len(setup.train), seconds, bare["passes_per_second"], operations)
        seconds = _seconds(partial(epoch, train.adversarial_loss(attack), settings), setup.device, 3)
        yield {
            "work": f"adversarial training, {steps} steps, {name}",
            "passes_per_second": len(setup.train) / seconds,
            "relative_to_bare": least / seconds,
            "threads": torch.get_num_threads(),
        }


def _epoch(setup: _Setup, model: nn.Module, batch_size: int, loss: train.Loss, settings: dict[str, Any]) -> None:
    train.fit(
        model,
        setup.train,
        loss,
        epochs=1,
        batch_size=batch_size,
        learning_rate=1e-4,
        augment=train.random_translate(4, flip=True),
        device=setup.device,
        **settings,
    )


def _weight_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]


def _seconds(work: Callable[[], Any], device: str, rounds: int = 5) -> float:
    """The shortest of several rounds, after one to warm up."""
    spent = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - started)
    return min(spent[1:])
