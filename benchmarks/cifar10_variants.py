"""Part `versions` of cifar10.py: variants of D_R, and standard training on each."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from harness import ResultsFile, Row
from study_benchmark import Benchmark
from torch import Tensor, nn

from notbugs import construct, metrics, models
from notbugs.data import Dataset
from notbugs.metrics import Accuracy
from notbugs.runs.scheduler import ignore_progress
from notbugs.study.catalog.models import MODELS, ModelSpec, trained_on
from notbugs.study.classifiers import save_classifier, train_classifier

PAPER_STEPS = 1000
MIDDLE_WEIGHT = 0.25  # of the middle layer's features relative to the last one's
TILES = 4  # the middle layer is averaged over 4 x 4 tiles


class HasFeatures(Protocol):
    """What features are inverted of."""

    def features(self, images: Tensor) -> Tensor:
        """Images to features (N, F)."""


class Variant(NamedTuple):
    """How D_R is constructed: whose features are inverted, and settings of `construct.invert_features`."""

    model: HasFeatures
    settings: dict[str, Any]


def versions(benchmark: Benchmark, results: ResultsFile) -> Iterator[Row]:
    """Each variant for each seed: accuracy after standard training on it, clean and under attack."""
    for seed in benchmark.seeds:
        dataset = benchmark.splits(seed).train
        dataset = dataset.select(torch.arange(min(benchmark.options.files, len(dataset))))
        for name, variant in _variants(benchmark, seed, dataset.pixels(slice(0, 100))).items():
            columns = {"part": "versions", "variant": name, "seed": seed, "files": len(dataset)}
            columns["training_bf16"] = benchmark.config.bf16
            wanted = not benchmark.options.variants or name in benchmark.options.variants
            if wanted and not results.has(**columns) and not benchmark.limit.over:
                yield {**columns, **_measure(benchmark, variant(), dataset, seed)}


def _measure(benchmark: Benchmark, variant: Variant, dataset: Dataset, seed: int) -> Row:
    """Construct a variant and train on it."""
    config, train_images = benchmark.config, len(benchmark.splits(seed).train)
    started = time.perf_counter()
    settings = {"steps": config.invert_steps, "bf16": config.bf16, **variant.settings}
    model: Any = variant.model
    constructed = construct.invert_features(model, dataset, seed=seed, device=config.device, **settings)
    middle = time.perf_counter()
    # as many steps as on one version of each file; `train_classifier` sees to it only beyond the size of the whole data set
    count = len(constructed.dataset)
    share = len(dataset) / count * max(1, count / train_images)
    clean, half, full = _train_and_attack(benchmark, constructed.dataset, seed, share)
    return {
        "bf16": settings["bf16"],
        "feature_error": constructed.stats.feature_error,
        "clean_accuracy": clean.accuracy,
        "robust_accuracy_half_epsilon": half.accuracy,
        "robust_accuracy": full.accuracy,
        "n": clean.n,
        "seconds": middle - started,
        "training_seconds": time.perf_counter() - middle,
    }


def _train_and_attack(benchmark: Benchmark, dataset: Dataset, seed: int, share: float) -> list[Accuracy]:
    """Standard training as in the study, for a share of its epochs: clean accuracy, at half of epsilon, at epsilon."""
    config = replace(benchmark.config, epochs=max(1, round(share * benchmark.config.epochs)))
    spec = MODELS[trained_on("robust")]
    model = train_classifier(config, dataset, spec, seed=seed, report_progress=ignore_progress).model
    test = benchmark.test_images(benchmark.options.images, seed)
    return metrics.robust_accuracy(model, test, config.threat_models, device=config.device)


# ---- the variants ----------------------------------------------------------------------------------------------------------


def _variants(benchmark: Benchmark, seed: int, sample: Tensor) -> dict[str, Callable[[], Variant]]:
    """The variants by name."""
    robust = partial(benchmark.model, "adversarial", seed)

    def fused() -> Any:
        return models.fuse_batchnorm(robust(), sample)

    def with_settings(**settings: Any) -> Callable[[], Variant]:
        return lambda: Variant(robust(), settings)

    def beside(other: Callable[[], models.Model]) -> Callable[[], Variant]:
        return lambda: Variant(Concatenated([fused(), models.fuse_batchnorm(other(), sample)], sample), {})

    paper = {"steps": PAPER_STEPS, "rule": construct.paper_update_rule(), "bf16": True}
    return {
        "default": with_settings(),
        "inverted from noise": with_settings(start="noise"),
        "float32": with_settings(bf16=False),
        "bfloat16": with_settings(bf16=True),
        "the paper's 1,000 steps of 0.1, bfloat16": with_settings(**paper),
        "80 steps": with_settings(steps=80),
        "two versions of each file, half the epochs": with_settings(versions=2),
        "four versions of each file, a quarter of the epochs": with_settings(versions=4),
        "noise of 0.03 on the model's input": lambda: Variant(NoisyInput(fused(), 0.03), {}),
        "a middle layer beside the last": lambda: Variant(WithMiddleLayer(fused(), sample), {}),
        "robust model trained at 2 ε": lambda: Variant(_more_robust(benchmark, seed, "wide", 2.0), {}),
        "the robust model trained at ε / 2 beside the first": beside(partial(benchmark.model, "adversarial-half", seed)),
        "robust model of image orientation, trained without class labels": lambda: Variant(_orientation(benchmark, seed), {}),
        "a second robust model beside the first": beside(partial(_more_robust, benchmark, seed, "again", 1.0)),
    }


class Concatenated(nn.Module):
    """The features of several models side by side, each model's scaled to the same mean norm."""

    def __init__(self, parts: list[Any], sample: Tensor) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        with torch.no_grad():
            self.norms = [float(part.features(sample).norm(dim=1).mean()) for part in parts]

    def features(self, images: Tensor) -> Tensor:
        """Images to features (N, F)."""
        return torch.cat([part.features(images) / norm for part, norm in zip(self.parts, self.norms, strict=True)], dim=1)  # type: ignore[operator]


class WithMiddleLayer(nn.Module):
    """The penultimate layer and, with a quarter of its norm, the output of a middle block, averaged over 4 x 4 tiles."""

    def __init__(self, model: Any, sample: Tensor) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            self.norms = [float(layer.norm(dim=1).mean()) for layer in self._layers(sample)]

    def _layers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs: list[Tensor] = []
        blocks = [module for _, module in self.model.body.named_children()]
        handle = blocks[len(blocks) // 2].register_forward_hook(lambda _, inputs, output: outputs.append(output))
        try:
            last = self.model.features(images)
        finally:
            handle.remove()
        return last, F.adaptive_avg_pool2d(outputs[0], TILES).flatten(1)

    def features(self, images: Tensor) -> Tensor:
        """Images to features (N, F)."""
        last, middle = self._layers(images)
        return torch.cat([last / self.norms[0], MIDDLE_WEIGHT * middle / self.norms[1]], dim=1)


class NoisyInput(nn.Module):
    """The features of images with new noise at every pass: features that tiny noise destroys cannot be inverted."""

    def __init__(self, model: Any, scale: float) -> None:
        super().__init__()
        self.model, self.scale, self.generator = model, scale, torch.Generator().manual_seed(0)

    def features(self, images: Tensor) -> Tensor:
        """Images to features (N, F)."""
        noise = torch.randn(images.shape, generator=self.generator)
        result: Tensor = self.model.features(images + self.scale * noise.to(images))
        return result


def _more_robust(benchmark: Benchmark, seed: int, name: str, epsilon_fraction: float) -> models.Model:
    """A further adversarially trained model; name: also the key of its seed."""
    title = f"adversarial training at {epsilon_fraction:g} ε"
    spec = ModelSpec(name, title, name, loss="adversarial", epsilon_fraction=epsilon_fraction)
    return _trained_once(benchmark, benchmark.splits(seed).train, spec, seed)


def _orientation(benchmark: Benchmark, seed: int) -> models.Model:
    """A robust model trained without class labels, to predict the quarter turns of an image (Gidaris et al. 2018)."""
    dataset = benchmark.splits(seed).train
    images = torch.cat([dataset.images[:].rot90(turns, (2, 3)) for turns in range(4)])
    labels = torch.arange(4).repeat_interleave(len(dataset))
    rotated = Dataset(images, labels, tuple("0123"), dataset.names * 4)
    spec = ModelSpec("upright", "adversarial training on image orientation", "upright", loss="adversarial")
    return _trained_once(benchmark, rotated, spec, seed)  # for a quarter of the epochs: as many steps


def _trained_once(benchmark: Benchmark, dataset: Dataset, spec: ModelSpec, seed: int) -> models.Model:
    """The model in RUN/models; trained and saved there if it is missing."""
    path: Path = benchmark.folder / "models" / f"benchmark-{spec.name}-seed{seed}.safetensors"
    if not path.exists():
        trained = train_classifier(benchmark.config, dataset, spec, seed=seed, report_progress=ignore_progress)
        save_classifier(trained, benchmark.config, dataset, spec, seed=seed, path=path)
    return models.load(path, benchmark.config.network)[0]
