"""Stages that a study does when asked: saliency, common corruptions, sensitivity to frequencies, features of the tangent kernel.

A stage is a function (config, folder, seed, report_progress) -> rows for the tables. `ANALYSES` lists them with what they need.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from notbugs import data, metrics, models
from notbugs.data import Dataset, Splits
from notbugs.metrics import ntk
from notbugs.runs.attempts import Attempt
from notbugs.runs.engine import Progress
from notbugs.runs.tables.analyses import (
    CorruptionDifferenceRow,
    CorruptionRow,
    FourierRow,
    NTKAccuracyRow,
    NTKFeatureRow,
    SaliencyDifferenceRow,
    SaliencyRow,
)
from notbugs.runs.tables.row import Row
from notbugs.stats import mean_interval
from notbugs.study.catalog.models import ANALYZED_MODELS, MAIN_MODELS, STRONG_MODELS, trained_on
from notbugs.study.config import ResolvedConfig, load
from notbugs.study.pictures import gradient_as_gray, save_saliency_pictures, sheet
from notbugs.study.store import has_model, load_model

SALIENCY_IMAGES, CORRUPTION_IMAGES, FOURIER_IMAGES, NTK_ATTACKED_IMAGES = 500, 1000, 200, 200  # test images at most
# Of the search on eigenvectors: images, eigenvectors with more than one step, and these steps. Half a minute in all
NTK_SAMPLE, NTK_SEARCHED, NTK_STEPS = 60, 40, 6
NTK_EIGENVECTORS = (10, 30, 100, 300)  # of kernel regression, and all of them
COMPARED = (
    ("adversarial", "standard"),
    ("trained-on-robust", "standard"),
    ("trained-on-nonrobust", "standard"),
    ("adversarial", "trained-on-robust"),
    ("trained-on-robust", "trained-on-nonrobust"),
    *((trained_on("robust-strong"), other) for other in ("standard", trained_on("robust"), trained_on("correct-only"))),
)
MEASURES = ("alignment", "chance_alignment", "low_frequency_energy", "deletion", "chance_deletion", "deletion_gain")
COMPARED_MEASURES = ("alignment", "low_frequency_energy", "deletion_gain")
WHITE_NOISE = "chance_low_frequency_energy"  # the measure that does not depend on the model


# ---- saliency --------------------------------------------------------------------------------------------------------------


def saliency(config: ResolvedConfig, folder: Path, seed: int, attempt: Attempt) -> list[Row]:
    """Measures of each model's attributions on the same test images, their differences image by image, and pictures."""
    splits = load(config, seed)
    images = data.balanced_subset(splits.test, SALIENCY_IMAGES)
    means = metrics.class_means(splits.train)
    rows: list[Row] = []
    results: dict[tuple[str, str], metrics.Saliency] = {}
    names = (*ANALYZED_MODELS, *_there(config, folder, seed, STRONG_MODELS))
    for number, name in enumerate(names):
        model = load_model(config, folder, seed, name)
        for method in metrics.METHODS:
            result = metrics.saliency(model, images, means, method=method, seed=seed, device=config.device)
            results[name, method] = result
            rows += saliency_rows(result, model=name, method=method, seed=seed)
        attempt("", (number + 1) / len(names), name)
    rows += _saliency_differences(results, seed)
    if seed == config.seed:
        gradients = {name: results[name, "gradient"].gradients for name in ANALYZED_MODELS}
        rows += save_saliency_pictures(images, data.first_per_class(images), gradients, attempt.folder)
    return rows


def saliency_rows(result: metrics.Saliency, *, model: str, method: str, seed: int) -> list[SaliencyRow]:
    """The mean of each measure over images, and the low-frequency energy of white noise."""
    rows = [
        SaliencyRow(model=model, method=method, measure=measure, seed=seed, **mean_interval(getattr(result, measure))._asdict())
        for measure in MEASURES
    ]
    _, channels, height, width = result.gradients.shape
    chance = metrics.white_noise_energy((channels, height, width))
    n = len(result.gradients)
    return [*rows, SaliencyRow(model=model, method=method, measure=WHITE_NOISE, seed=seed, value=chance, n=n)]


def _saliency_differences(results: dict[tuple[str, str], metrics.Saliency], seed: int) -> list[SaliencyDifferenceRow]:
    rows = []
    for name, other in _compared({name for name, _ in results}):
        for method in metrics.METHODS:
            for measure in COMPARED_MEASURES:
                difference = getattr(results[name, method], measure) - getattr(results[other, method], measure)
                interval = mean_interval(difference)._asdict()
                rows.append(
                    SaliencyDifferenceRow(model=name, other_model=other, method=method, measure=measure, seed=seed, **interval)
                )
    return rows


class ClassifierSaliency(NamedTuple):
    """The attributions of one classifier.

    Attributes
    ----------
    rows : list of SaliencyRow
        Measures by method; `model` is "".
    files : list of dict
        One record per test image: file, label and, by method, the measures that `COMPARED_MEASURES` names.
    sheet : Tensor, (C, H, W), in [0, 1]
        The first image of each class, its gradient, its integrated gradient.
    """

    rows: list[SaliencyRow]
    files: list[dict[str, str | float]]
    sheet: Tensor


def classifier_saliency(model: nn.Module, splits: Splits, *, seed: int = 0, device: str = "cpu") -> ClassifierSaliency:
    """The attributions of one classifier on test images.

    Parameters
    ----------
    model : nn.Module
        Images (N, C, H, W) in [0, 1] to logits (N, K).
    splits : Splits
        Its data.
    seed : int
        Of the random order of pixels that deletion is compared with.
    device : str

    Returns
    -------
    ClassifierSaliency
    """
    images, means = data.balanced_subset(splits.test, SALIENCY_IMAGES), metrics.class_means(splits.train)
    results = {
        method: metrics.saliency(model, images, means, method=method, seed=seed, device=device) for method in metrics.METHODS
    }
    chosen = data.first_per_class(images)
    grays = [gradient_as_gray(result.gradients[chosen]) for result in results.values()]
    rows = [row for method, result in results.items() for row in saliency_rows(result, model="", method=method, seed=seed)]
    columns = {
        f"{method}_{measure}": getattr(result, measure).tolist()
        for method, result in results.items()
        for measure in COMPARED_MEASURES
    }
    files = [
        {"file": file, "label": images.classes[int(label)], **{name: values[index] for name, values in columns.items()}}
        for index, (file, label) in enumerate(zip(images.names, images.labels, strict=True))
    ]
    return ClassifierSaliency(rows, files, sheet([images.pixels(chosen), *grays]))


# ---- corruptions and frequencies -------------------------------------------------------------------------------------------


def corruptions(config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress) -> list[Row]:
    """Accuracy of each model under common corruptions, and the differences between models."""
    images = data.balanced_subset(load(config, seed).test, CORRUPTION_IMAGES)
    names = _there(config, folder, seed, (*MAIN_MODELS, *STRONG_MODELS))
    rows: list[Row] = []
    results: dict[str, metrics.CorruptionResult] = {}
    for number, name in enumerate(names):
        model = load_model(config, folder, seed, name)
        results[name] = metrics.corruption_accuracy(model, images, seed=seed, device=config.device)
        rows += [CorruptionRow(model=name, seed=seed, **row._asdict()) for row in results[name].accuracies]
        report_progress("", (number + 1) / len(names), name)
    for name, other in _compared(results):
        for kind, shares in results[name].correct_shares.items():
            difference = mean_interval(shares - results[other].correct_shares[kind])._asdict()
            rows.append(CorruptionDifferenceRow(model=name, other_model=other, corruption=kind, seed=seed, **difference))
    return rows


def fourier(config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress) -> list[FourierRow]:
    """Error rate of each model with one Fourier basis vector added to every image."""
    images = data.balanced_subset(load(config, seed).test, FOURIER_IMAGES)
    names = _there(config, folder, seed, (*MAIN_MODELS, *STRONG_MODELS))
    rows = []
    for number, name in enumerate(names):
        model = models.fuse_batchnorm(load_model(config, folder, seed, name), images.pixels(slice(0, 2)), config.device)
        errors = metrics.fourier_sensitivity(model, images, seed=seed, device=config.device)
        rows += [FourierRow(model=name, seed=seed, **error._asdict()) for error in errors]
        report_progress("", (number + 1) / len(names), name)
    return rows


def _there(config: ResolvedConfig, folder: Path, seed: int, names: Sequence[str]) -> list[str]:
    """Those of the models that are there."""
    return [name for name in names if has_model(config, folder, seed, name)]


def _compared(names: Container[str]) -> list[tuple[str, str]]:
    """The pairs that are compared, of models that are there."""
    return [(name, other) for name, other in COMPARED if name in names and other in names]


# ---- tangent kernel --------------------------------------------------------------------------------------------------------


def ntk_features(config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress) -> list[Row]:
    """Eigenvectors of a wide network's tangent kernel as features, and accuracy of kernel regression on the first ones."""
    splits = load(config, seed)
    training = data.balanced_subset(splits.train, ntk.MAX_IMAGES)
    kernel = metrics.EigenFeatures(training).to(config.device)
    report_progress("", 0.1, "eigenvectors")
    rows: list[Row] = [*_eigenvector_rows(kernel, splits.test, config, seed, report_progress)]
    attacked = data.balanced_subset(splits.test, NTK_ATTACKED_IMAGES)
    counts = [count for count in NTK_EIGENVECTORS if count < len(kernel.values)] + [len(kernel.values)]
    for number, count in enumerate(counts):
        regression = metrics.EigenFeatures(training, keep=count).to(config.device)
        threat_models = [config.threat_model]
        accuracies = metrics.robust_accuracy(regression, attacked, threat_models, budget="quick", device=config.device)
        rows += [NTKAccuracyRow(eigenvectors=count, seed=seed, **asdict(accuracy)) for accuracy in accuracies]
        report_progress("", 0.6 + 0.4 * (number + 1) / len(counts), f"{count} eigenvectors")
    return rows


def _eigenvector_rows(
    kernel: metrics.EigenFeatures, test: Dataset, config: ResolvedConfig, seed: int, report_progress: Progress
) -> list[NTKFeatureRow]:
    """Usefulness and robust usefulness of chosen eigenvectors."""
    chosen = metrics.chosen_eigenvectors(len(kernel.values))
    features = metrics.per_feature(
        _Selected(kernel, chosen),
        data.balanced_subset(test, CORRUPTION_IMAGES),
        config.threat_model,
        sample=NTK_SAMPLE,
        most=NTK_SEARCHED,
        steps=NTK_STEPS,
        device=config.device,
        progress=lambda share: report_progress("", 0.1 + 0.5 * share, "robust usefulness"),
    )
    shares = (kernel.values / kernel.values.sum()).tolist()
    rows = []
    for feature in metrics.best_class_rows(features):
        cells = asdict(feature)
        eigenvector = chosen[cells.pop("feature")]
        rows.append(NTKFeatureRow(eigenvector=eigenvector, eigenvalue_share=shares[eigenvector], seed=seed, **cells))
    return rows


class _Selected(nn.Module):
    """Selected features of a model."""

    def __init__(self, model: metrics.EigenFeatures, chosen: list[int]) -> None:
        super().__init__()
        self.model, self.chosen = model, chosen

    def features(self, images: Tensor) -> Tensor:
        return self.model.features(images)[:, self.chosen]


class Analysis(NamedTuple):
    """work: the stage; models: those it needs; once: for the first seed only, where only the seed differs and decides nothing."""

    work: Callable[[ResolvedConfig, Path, int, Attempt], Sequence[Row]]
    models: tuple[str, ...]
    once: bool


ANALYSES: dict[str, Analysis] = {
    "saliency": Analysis(saliency, ANALYZED_MODELS, once=False),
    "corruptions": Analysis(corruptions, ANALYZED_MODELS, once=False),
    "fourier": Analysis(fourier, ANALYZED_MODELS, once=False),
    "ntk": Analysis(ntk_features, (), once=True),
}
