"""What the parts of attacks.py share: models and images, turns of the tools, counts of passes, outcomes."""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from harness import Row
from torch import Tensor, nn

from notbugs import data, models
from notbugs.data import Dataset
from notbugs.models import Model
from notbugs.search import NormBall

Tool = Callable[[Tensor, Tensor], Tensor]  # images and labels to perturbed images
Result = TypeVar("Result")

SEED = 0
BATCH_SIZE = 250
MODELS = ("standard", "linf", "l2", "trades")
NORM_BALLS = (NormBall("linf", 8 / 255), NormBall("l2", 0.5))
FOREIGN_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}  # in torchattacks


class Benchmark(NamedTuple):
    """What every part gets: data, trained models by name, numbers of images, rounds."""

    splits: data.Splits
    trained: dict[str, Model]
    images: int
    autoattack_images: int
    minimum_norm_images: int
    rounds: int

    @property
    def fewer_images(self) -> int:
        """Where AutoAttack takes seconds per image."""
        return min(self.images, self.autoattack_images)


class Times(NamedTuple):
    """Wall-clock and CPU seconds of one round."""

    seconds: float
    cpu_seconds: float


def load_benchmark(options: argparse.Namespace) -> tuple[Benchmark, list[Path]]:
    """Data and models, and the paths of the models that are missing."""
    paths = {name: options.models / f"{name}.safetensors" for name in MODELS}
    missing = [path for path in paths.values() if not path.exists()]
    trained = {name: models.load(path)[0].eval().requires_grad_(False) for name, path in paths.items() if path not in missing}
    counts = options.images, options.autoattack_images, options.minimum_norm_images, options.rounds
    return Benchmark(data.load(str(options.data)), trained, *counts), missing


def in_turns(calls: Mapping[str, Callable[[], Result]], rounds: int = 1) -> dict[str, tuple[Result, Row]]:
    """Calls in turns, every second round in reverse order; results and times of each. Ratios are to the first call."""
    results: dict[str, Result] = {}
    times: dict[str, list[Times]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            torch.manual_seed(SEED)
            np.random.seed(SEED)  # ART draws from here
            wall, cpu = time.perf_counter(), time.process_time()
            results[name] = calls[name]()
            times[name].append(Times(time.perf_counter() - wall, time.process_time() - cpu))
    first = next(iter(times.values()))
    return {name: (results[name], _medians(times[name], first)) for name in calls}


def _medians(own: Sequence[Times], first: Sequence[Times]) -> Row:
    """Medians over rounds: seconds, and their ratio to those of the first call in the same round."""
    found: Row = {"rounds": len(own)}
    for place, prefix in enumerate(("", "cpu_")):
        found[f"{prefix}seconds"] = median(each[place] for each in own)
        found[f"{prefix}time_ratio"] = median(each[place] / other[place] for each, other in zip(own, first, strict=True))
    return found


@contextmanager
def counting(model: nn.Module) -> Iterator[Counter[str]]:
    """How many images go forward and how many gradients come back; copies of the model are counted, too."""
    count: Counter[str] = Counter()

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        count["forwards"] += len(logits)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: count.update(gradients=len(gradient)))  # type: ignore[no-untyped-call]

    handle = model.register_forward_hook(hook)
    try:
        yield count
    finally:
        handle.remove()


def evenly_spaced(dataset: Dataset, count: int) -> Dataset:
    """At most `count` images, evenly spaced over the data set."""
    return dataset.select(data.evenly_spaced(count, len(dataset)))


def correctly_classified(model: nn.Module, dataset: Dataset, count: int) -> Dataset:
    """At most `count` of the images that the model classifies correctly, evenly spaced."""
    correct = is_correct(model, dataset.pixels(slice(None)), dataset.labels)
    return evenly_spaced(dataset.select(correct.nonzero().squeeze(1)), count)


def in_batches(tool: Tool, images: Tensor, labels: Tensor, batch_size: int = BATCH_SIZE) -> Tensor:
    """A tool on batches."""
    batches = zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True)
    return torch.cat([tool(*batch) for batch in batches])


def is_correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Which images the model classifies correctly: bool (N,)."""
    with torch.no_grad():
        return torch.cat([model(batch).argmax(1) for batch in torch.split(images, BATCH_SIZE)]) == labels


def outcome(model: nn.Module, images: Tensor, labels: Tensor, perturbed: Tensor, threat_model: NormBall) -> Row:
    """Images that the plain model classifies correctly, clean and perturbed, and the largest perturbation over epsilon."""
    assert 0 <= perturbed.min() <= perturbed.max() <= 1
    correct = int((is_correct(model, images, labels) & is_correct(model, perturbed, labels)).sum())
    largest = float(threat_model.distance(perturbed.detach() - images).max()) / float(threat_model.epsilon)
    return {"correct": correct, "robust_accuracy": correct / len(images), "largest_perturbation": largest}


def about(model: str, threat_model: NormBall, n: int) -> Row:
    """The first columns of a row."""
    epsilon: Any = threat_model.epsilon
    return {"model": model, "norm": threat_model.norm, "epsilon": epsilon, "n": n}
