"""Part `one-pixel` of attacks.py: one pixel, beside differential evolution with as many queries (Su et al. 2019)."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from attacks_common import SEED, Benchmark, correctly_classified, counting, in_turns, is_correct
from harness import Row
from scipy.optimize import differential_evolution
from torch import Tensor, nn

import notbugs.train as train
from notbugs import attacks, data, models
from notbugs.data import Dataset
from notbugs.search import objectives

IMAGES = 150
STRATEGIES = ("rand1bin", "best1bin", "currenttobest1bin")  # of scipy; the first is the paper's
GENERATIONS = (8, 32)
MIN_POPULATION = 5  # of scipy


def one_pixel(benchmark: Benchmark) -> Iterator[Row]:
    """A small network on digits, then the standard model on CIFAR-10."""
    digits = data.load("digits")
    small = models.build("small", shape=digits.train.shape, classes=10, width=16, seed=SEED)
    train.fit(small, digits.train, train.cross_entropy, epochs=6, seed=SEED)
    small.eval().requires_grad_(False)
    count = min(IMAGES, benchmark.images)
    yield from _compare("digits", small, correctly_classified(small, digits.test, count), (40, 100, None))
    if "standard" in benchmark.trained:
        model = benchmark.trained["standard"]
        yield from _compare("standard", model, correctly_classified(model, benchmark.splits.test, count), (100, 400))


def _compare(name: str, model: Any, dataset: Dataset, budgets: Sequence[int | None]) -> Iterator[Row]:
    """One row per budget and tool. Budgets are candidates per image; None: every corner of every pixel, notbugs only."""
    for candidates in budgets:
        for tool, ((misclassified, count), times) in in_turns(_calls(model, dataset, candidates)).items():
            yield {
                "model": name,
                "tool": tool,
                "norm": "l0",
                "epsilon": 1,
                "n": len(dataset),
                "candidates": candidates or "all",
                "misclassified": misclassified,
                "success_rate": misclassified / len(dataset),
                "queries_per_image": count["forwards"] / len(dataset),
                "gradients_per_image": count["gradients"] / len(dataset),
                **times,
            }


def _calls(model: Any, dataset: Dataset, candidates: int | None) -> dict[str, Callable[[], tuple[int, Counter[str]]]]:
    """The tools for one budget: each returns the number of misclassified images, and how many passes it took."""
    notbugs = partial(_few_pixels, model, dataset, candidates)
    if not candidates:
        return {"notbugs": partial(notbugs, gradient=True)}
    calls: dict[str, Callable[[], tuple[int, Counter[str]]]] = {
        "notbugs": partial(notbugs, gradient=True),
        "notbugs, without gradients": partial(notbugs, gradient=False),
    }
    for strategy, generations in product(STRATEGIES, GENERATIONS):
        population = candidates // generations
        if population >= MIN_POPULATION:
            name = f"differential evolution, {strategy}, {generations} generations"
            calls[name] = partial(_evolution, model, dataset, queries=candidates, population=population, strategy=strategy)
    return calls


def _few_pixels(model: Any, dataset: Dataset, candidates: int | None, *, gradient: bool) -> tuple[int, Counter[str]]:
    images, labels = dataset.pixels(slice(None)), dataset.labels
    with counting(model) as count:
        fused = models.fuse_batchnorm(model, images[:2])
        found = attacks.few_pixels(fused, images, labels, pixels=1, candidates=candidates, gradient=gradient)
    return int((~is_correct(model, found.images, labels)).sum()), count


def _evolution(model: nn.Module, dataset: Dataset, *, queries: int, population: int, strategy: str) -> tuple[int, Counter[str]]:
    pairs = zip(dataset.pixels(slice(None)), dataset.labels, strict=True)
    with counting(model) as count:
        found = [_evolve(_PixelQueries(model, *pair), queries, population, strategy) for pair in pairs]
    return sum(found), count


class _PixelQueries:
    """Margins of one image with one pixel set; `misclassified` once any of them was below 0."""

    def __init__(self, model: nn.Module, image: Tensor, label: Tensor) -> None:
        self.model, self.image, self.label, self.misclassified = model, image, label, False

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Margins (count,) for points (row, column and one value per channel; count): one batch."""
        _, height, width = self.image.shape
        count = points.shape[1]
        perturbed = self.image.repeat(count, 1, 1, 1)
        row, column = torch.from_numpy(points[:2]).long()
        colors = torch.from_numpy(points[2:].T).to(self.image)
        perturbed[torch.arange(count), :, row.clamp(0, height - 1), column.clamp(0, width - 1)] = colors
        with torch.no_grad():
            margins = objectives.margin(self.model(perturbed), self.label.expand(count))
        self.misclassified |= bool((margins < 0).any())
        return margins.numpy()


def _evolve(query: _PixelQueries, queries: int, population: int, strategy: str) -> bool:
    """Differential evolution of position and color, started as in the paper; whether any query was misclassified.

    It minimizes the margin, as notbugs does, which finds more than the paper's probability of the label.
    """
    channels, height, width = query.image.shape
    generator = np.random.default_rng(SEED)
    positions = generator.random((population, 2)) * [height, width]
    colors = generator.normal(0.5, 0.5, (population, channels)).clip(0, 1)
    differential_evolution(
        query,
        [(0, height), (0, width), *[(0, 1)] * channels],
        strategy=strategy,
        init=np.hstack([positions, colors]),
        maxiter=queries // population - 1,
        mutation=0.5,
        recombination=1.0,
        tol=0.0,
        atol=-1.0,
        rng=SEED,
        polish=False,
        vectorized=True,
        updating="deferred",
        callback=lambda *_: query.misclassified,
    )
    return query.misclassified
