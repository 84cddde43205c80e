"""Part `floor` of cifar10.py: image passes per second of each kind of work, relative to bare passes of the same network."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
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

BATCHES = 2  # of a set, and of an epoch
ROUNDS = 3
ATTACK_STEPS, RELABEL_STEPS, INVERT_STEPS = 10, (10, 20), 40  # 20 and 40 are those of a study


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


class _Bare(NamedTuple):
    """Passes that cannot be avoided: the work, and on how many images it is."""

    work: Callable[[], Any]
    images: int


class _Timed(NamedTuple):
    """Seconds of the fastest round, and the time of bare passes relative to that of the work."""

    seconds: float
    relative: float


def floor(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """Bare passes, then each kind of work in passes of the same kind; operations from torch's own counter."""
    setup = _prepare(benchmark)
    precisions: Precisions = {"float32": {"bf16": False}, "bfloat16": {"bf16": True}}
    if benchmark.options.compile:
        precisions["compiled, bfloat16"] = {"bf16": True, "compile": True}
    yield from _searches(benchmark, setup, precisions)
    yield from _trainings(benchmark, setup, precisions)
    yield {"work": "matrix product, bare", "gflops_per_second": setup.matmul / 1e9, "threads": torch.get_num_threads()}


def _prepare(benchmark: Benchmark) -> _Setup:
    device = benchmark.config.device
    dataset = benchmark.splits().train
    batch_size = precision.default_batch_size(device, dataset.shape)
    dataset = dataset.select(torch.arange(min(BATCHES * batch_size, len(dataset))))
    model = benchmark.untrained("floor", 0)
    fused = models.fuse_batchnorm(model, dataset.pixels(slice(0, 2)), device)
    batch = dataset.select(torch.arange(min(batch_size, len(dataset))))
    images, labels = batch.pixels(slice(None)).to(device), batch.labels.to(device)
    side = 4096 if device.startswith("cuda") else 1024
    matrix = torch.rand(side, side, device=device)
    matmul = 2 * side**3 / _seconds(lambda: matrix @ matrix, device)
    images = images.contiguous(memory_format=torch.channels_last)
    return _Setup(device, model, fused, dataset, batch, images, labels, matmul)


def _row(setup: _Setup, work: str, passes: float, timed: _Timed, operations: int) -> Row:
    """passes: of all images in the work; operations: of one pass of one image, 0 if there are several kinds."""
    rate = passes / timed.seconds
    row = {"work": work, "passes_per_second": rate, "relative_to_bare": timed.relative, "threads": torch.get_num_threads()}
    if operations:
        row |= {"gflops_per_second": rate * operations / 1e9, "relative_to_matmul": rate * operations / setup.matmul}
    return row


# ---- searches: forward and input-backward passes ---------------------------------------------------------------------------


def _input_operations(setup: _Setup) -> int:
    """Operations of a forward and input-backward pass of one image."""
    with FlopCounterMode(display=False) as counter:  # it does not see autograd.grad
        F.cross_entropy(setup.fused(setup.images[:1].clone().requires_grad_()), setup.labels[:1]).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


def _searches(benchmark: Benchmark, setup: _Setup, precisions: Precisions) -> Iterator[Row]:
    """PGD on a batch; relabeling and inversion of a set, with all that they do once for a set or an image."""
    threat_model, device = benchmark.config.threat_model, setup.device
    n, operations = len(setup.train), _input_operations(setup)
    bare = _Bare(partial(_input_gradient, setup, bf16=False), len(setup.batch))

    def row(work: str, done: Callable[[], Any], passes: int) -> Row:
        return _row(setup, work, passes, _timed(done, passes, bare, device), operations)

    yield row("forward and input-backward, bare", bare.work, len(setup.batch))
    if benchmark.config.bf16:
        in_bfloat16 = partial(_input_gradient, setup, bf16=True)
        yield row("forward and input-backward, bare, bfloat16", in_bfloat16, len(setup.batch))
    with models.frozen(setup.fused):
        attack = partial(attacks.pgd, setup.fused, setup.images, setup.labels, threat_model=threat_model, steps=ATTACK_STEPS)
        yield row(f"attack, {ATTACK_STEPS} steps", attack, ATTACK_STEPS * len(setup.batch))
    targets = construct.next_labels(setup.train.labels, len(setup.train.classes))
    for name, settings in precisions.items():
        for steps in RELABEL_STEPS:
            made = partial(construct.relabel, setup.model, setup.train, targets, threat_model=threat_model, steps=steps)
            yield row(f"relabeling, {steps} steps, {name}", partial(made, device=device, **settings), steps * n)
        made = partial(construct.invert_features, setup.model, setup.train, steps=INVERT_STEPS)
        work = f"D_R or D_NR, {INVERT_STEPS} steps with preparation, {name}"
        yield row(work, partial(made, device=device, **settings), INVERT_STEPS * n)


def _input_gradient(setup: _Setup, *, bf16: bool) -> Tensor:
    images = setup.images.detach().requires_grad_()
    with models.frozen(setup.fused), precision.full_precision(), precision.autocast(setup.device, bf16):
        loss = F.cross_entropy(setup.fused(images), setup.labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


# ---- training: forward and backward passes ---------------------------------------------------------------------------------


def _trainings(benchmark: Benchmark, setup: _Setup, precisions: Precisions) -> Iterator[Row]:
    """Bare adversarial training is a bare input gradient for each step, then one of the weights."""
    model = benchmark.untrained("floor", 0).to(setup.device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(setup.images[:2]), setup.labels[:2]).backward()  # type: ignore[no-untyped-call]
    operations = counter.get_total_flops() // 2
    steps, n = benchmark.config.adversarial_steps, len(setup.batch)
    attack = partial(attacks.training_pgd, threat_model=benchmark.config.threat_model, steps=steps)

    def bare_adversarial() -> None:
        for _ in range(steps):
            _input_gradient(setup, bf16=False)
        _weight_gradient(model, setup.images, setup.labels)

    bare = _Bare(partial(_weight_gradient, model, setup.images, setup.labels), n)
    yield _row(setup, "forward and backward, bare", n, _timed(bare.work, n, bare, setup.device), operations)
    epoch, count = partial(_epoch, setup, model, benchmark.config.batch_size), len(setup.train)
    for name, settings in precisions.items():
        timed = _timed(partial(epoch, train.cross_entropy, settings), count, bare, setup.device)
        yield _row(setup, f"standard training, augmented, {name}", count, timed, operations)
        adversarial = partial(epoch, train.adversarial_loss(attack), settings)
        timed = _timed(adversarial, count, _Bare(bare_adversarial, n), setup.device)
        yield _row(setup, f"adversarial training, {steps} steps, {name}", count, timed, 0)


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


def _timed(work: Callable[[], Any], passes: int, bare: _Bare, device: str) -> _Timed:
    """Work and bare passes in turn: the median of the ratios is that of one state of a busy machine; after one to warm up."""
    _clocked(bare.work, device), _clocked(work, device)
    ratios, spent = [], []
    for _ in range(ROUNDS):
        before = _clocked(bare.work, device)
        spent.append(_clocked(work, device))
        floor = (before + _clocked(bare.work, device)) / 2 * passes / bare.images
        ratios.append(floor / spent[-1])
    return _Timed(min(spent), median(ratios))


def _seconds(work: Callable[[], Any], device: str) -> float:
    """The shortest of several rounds, after one to warm up."""
    return min([_clocked(work, device) for _ in range(ROUNDS + 1)][1:])


def _clocked(work: Callable[[], Any], device: str) -> float:
    """Seconds: on a CPU its time, of all threads, which others do not lengthen."""
    on_gpu = device.startswith("cuda")
    clock = time.perf_counter if on_gpu else time.process_time
    started = clock()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - started
