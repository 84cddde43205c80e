"""Parts `study`, `autoattack` and `storage` of cifar10.py."""

import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from typing import NamedTuple

import torch
from harness import ResultsFile, Row, TimeLimit
from study_benchmark import Benchmark
from torch import Tensor

import notbugs.train as train
from notbugs import construct, data, metrics, models, search
from notbugs.data import Dataset
from notbugs.report.findings.replication import replication_rows
from notbugs.report.results import StudyResults
from notbugs.report.tables import figure_3_table
from notbugs.runs.folder import RunFolder
from notbugs.search import NormBall, objectives
from notbugs.study import pipeline
from notbugs.study.catalog.models import trained_on
from notbugs.study.graph import study_graph

FIGURE_3_COLUMNS = ("architecture", "accuracy_paper", "accuracy_here", "transfer_rate_paper", "transfer_rate_here")
AUTOATTACK_MODELS = ("adversarial", trained_on("robust"), trained_on("robust-from-noise"))
AUTOATTACK_BATCH = 100  # images per row: what can be lost if it is stopped
FOREIGN_NORMS = {"l2": "L2", "linf": "Linf"}  # in torchattacks
STORAGES = ("8 bits", "float16")


class OutOfTime(KeyboardInterrupt):
    """Stops a study as Ctrl-C does."""


# ---- the study -------------------------------------------------------------------------------------------------------------


def study(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """Run the study until the time is up; its figures so far, whether or not it is finished."""
    with suppress(OutOfTime):
        pipeline.run(
            benchmark.asked,
            benchmark.folder,
            only=benchmark.options.stages or None,
            command=f"notbugs run {benchmark.config.dataset} --replicate",
            workers=benchmark.options.workers,
            report_progress=_StopAfterStage(benchmark.limit),
        )
    found = StudyResults.read(benchmark.folder)
    yield from ({"part": "study", **asdict(row)} for row in replication_rows(found))
    yield from ({"part": "figure-3", **dict(zip(FIGURE_3_COLUMNS, line, strict=True))} for line in figure_3_table(found)[1])
    yield from _seconds_per_stage(benchmark, found.run)
    yield {
        "part": "total",
        "seconds": sum(stage["seconds"] for stage in found.run.metadata["stages"].values()),
        "seeds": len(found.metadata.seeds),
        "finished": found.metadata.finished,
        "training_images": found.metadata.data.train,
        "settings": found.metadata.settings,
        **_peak_memory(benchmark.config.device),
    }


class _StopAfterStage:
    """Progress of a study: prints each finished stage, and raises OutOfTime after the one that uses the time up."""

    def __init__(self, limit: TimeLimit) -> None:
        self.limit = limit

    def __call__(self, stage: str, share: float, words: str) -> None:
        if share >= 1 and not words:
            print(f"done: {stage}", flush=True)
            if self.limit.over:
                raise OutOfTime


def _seconds_per_stage(benchmark: Benchmark, run: RunFolder) -> Iterator[Row]:
    """Mean over seeds, longest stage first."""
    stages = run.metadata["stages"]
    whole = replace(benchmark.config, full=True, replicate=True, seeds=run.study().seeds[-1] - benchmark.config.seed + 1)
    spent: dict[str, list[float]] = {}
    for stage_id in study_graph(whole, analyses=True):
        if str(stage_id) in stages:
            spent.setdefault(stage_id.label, []).append(stages[str(stage_id)]["seconds"])
    total = sum(map(sum, spent.values()))
    for label, seconds in sorted(spent.items(), key=lambda item: -sum(item[1])):
        mean, share = sum(seconds) / len(seconds), sum(seconds) / total
        yield {"part": "seconds", "stage": label, "seconds": mean, "share": share, "seeds": len(seconds)}


def _peak_memory(device: str) -> Row:
    """The most that this process has held, in MiB."""
    if device.startswith("cuda"):
        return {"peak_device_mib": torch.cuda.max_memory_allocated() / 2**20}
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}


# ---- AutoAttack ------------------------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """A model, a threat model and the images of one row."""

    model: str
    threat_model: NormBall
    first: int
    images: Dataset

    @property
    def columns(self) -> Row:
        """What identifies the row."""
        return {"part": "autoattack", "model": self.model, "epsilon": self.threat_model.epsilon, "first": self.first}


def autoattack(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """Images still classified correctly under the ensemble and under AutoAttack, at both epsilons, of the first seed's models."""
    for piece in _pieces(benchmark):
        if not results.has(**piece.columns) and not benchmark.limit.over:
            yield _beside_autoattack(benchmark, piece)


def _pieces(benchmark: Benchmark) -> Iterator[_Piece]:
    test = benchmark.test_images(benchmark.options.images)
    for name in AUTOATTACK_MODELS:
        for threat_model in benchmark.config.threat_models:
            for first in range(0, len(test), AUTOATTACK_BATCH):
                index = torch.arange(first, min(first + AUTOATTACK_BATCH, len(test)))
                yield _Piece(name, threat_model, first, test.select(index))


def _beside_autoattack(benchmark: Benchmark, piece: _Piece) -> Row:
    import torchattacks

    device = benchmark.config.device
    model = benchmark.model(piece.model, benchmark.config.seed).to(device)
    started = time.perf_counter()
    found = metrics.robust_accuracy(model, piece.images, [piece.threat_model], device=device)[-1]
    middle = time.perf_counter()
    images, labels = piece.images.pixels(slice(None)).to(device), piece.images.labels.to(device)
    fused = models.fuse_batchnorm(model, images, device)  # attacked and evaluated, as by the ensemble
    attack = torchattacks.AutoAttack(
        fused,
        norm=FOREIGN_NORMS[piece.threat_model.norm],
        eps=piece.threat_model.epsilon,
        n_classes=len(piece.images.classes),
        seed=0,
    )
    with models.frozen(fused):
        perturbed = attack(images, labels)
        correct = int((fused(perturbed).argmax(1) == labels).sum())
    return {
        **piece.columns,
        "n": len(piece.images),
        "correct": found.correct,
        "autoattack_correct": correct,
        "seconds": middle - started,
        "autoattack_seconds": time.perf_counter() - middle,
    }


# ---- storage ---------------------------------------------------------------------------------------------------------------


class StoredImages:
    """Training images (N, C, H, W) of any type, on the scale of 8-bit ones: what `train.fit` reads of a data set."""

    def __init__(self, images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
        self.images, self.labels, self.classes = images, labels, classes

    def __len__(self) -> int:
        return len(self.labels)


def storage(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """The same perturbations in 8 bits and in 16-bit floats: test accuracy of standard training on each."""
    for seed in benchmark.seeds:
        missing = [name for name in STORAGES if not results.has(part="storage", seed=seed, storage=name)]
        if not missing or benchmark.limit.over:
            continue
        splits = benchmark.splits(seed)
        labels = construct.random_labels(splits.train.labels, len(splits.train.classes), seed=seed)
        stored = dict(zip(STORAGES, _relabeled(benchmark, splits.train, labels, seed), strict=True))
        for name in missing:
            images = stored[name].cpu()
            model = benchmark.untrained("storage", seed)  # the same initial weights for both
            _train(benchmark, model, StoredImages(images, labels, splits.train.classes), seed)
            accuracy = metrics.clean_accuracy(model, splits.test, device=benchmark.config.device)
            norms = (images.float() / 255 - splits.train.pixels(slice(None))).flatten(1).norm(dim=1)
            yield {"part": "storage", "storage": name, "seed": seed, "mean_l2": float(norms.mean()), **asdict(accuracy)}


def _relabeled(benchmark: Benchmark, dataset: Dataset, labels: Tensor, seed: int) -> tuple[Tensor, ...]:
    """Images perturbed towards their new labels: uint8 inside the ball, and float16 from 0 to 255."""
    config = benchmark.config
    fused = models.fuse_batchnorm(benchmark.model("standard", seed), dataset.pixels(slice(0, 2)), config.device)
    threat_model = config.relabel_threat_model

    def perturb(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        objective = objectives.targeted(fused, labels[index].to(images.device), "cross_entropy")
        rule = search.cosine_steps(threat_model, 2 * threat_model.epsilon, end=0.01)
        found = search.maximize(objective, images, threat_model, steps=config.relabel_steps, rule=rule).images
        return data.to_8bit(threat_model.round_to_8bit(found, images)), (255 * found).half()

    return data.map_batches(perturb, dataset, batch_size=250, device=config.device)


def _train(benchmark: Benchmark, model: models.Model, dataset: StoredImages, seed: int) -> None:
    """Standard training as in the study, on relabeled images."""
    config = benchmark.config
    train.fit(
        model,
        dataset,  # type: ignore[arg-type]  # it has what is read of a Dataset
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=seed,
        learning_rate=config.relabel_learning_rate,
        weight_decay=config.weight_decay,
        patience=config.patience,
        device=config.device,
    )
