"""What a finished study is asked further: explanations, corruptions, frequencies, kernel features.

Each function is a stage: (plan, folder, seed, tell) -> rows for the tables. `FURTHER` lists them with what they need.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from notbugs import data, metrics, models
from notbugs.data import Dataset, subset
from notbugs.metrics import ntk
from notbugs.runs.scheduler import Progress
from notbugs.search import NormBall
from notbugs.stats import mean_interval_row
from notbugs.study.config import StudyConfig, known, load
from notbugs.study.datasets import QUICK
from notbugs.study.tasks import Tables, load_model, model_path

MAIN_MODELS = ("standard", "adversarial", "on-robust", "on-nonrobust")  # the models whose reasons are looked at
CORRUPTION_MODELS = ("standard", "adversarial", *(f"on-{name}" for name in QUICK))
PAIRS = (
    ("adversarial", "standard"),
    ("on-robust", "standard"),
    ("on-nonrobust", "standard"),
    ("adversarial", "on-robust"),
    ("on-robust", "on-nonrobust"),
)
SALIENCY_IMAGES, CORRUPTION_IMAGES, FOURIER_IMAGES, ATTACKED_IMAGES = 500, 1000, 200, 200  # test images at most
SAMPLE, SEARCHED, STEPS = (
    60,
    40,
    6,
)  # images that eigenvectors are searched on, how many in steps, and these: half a minute in all
MEASURES = ("alignment", "chance_alignment", "low", "deletion", "chance_deletion", "faithful")
NTK_EIGENVECTORS = (10, 30, 100, 300)  # eigenvectors that a kernel machine may use, and all


def saliency(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress) -> Tables:
    """What each model's explanations show of the same test images, and the differences, image by image; pictures for one seed."""
    splits = load(plan, seed)
    part = splits.test.select(subset.balanced(splits.test.labels, SALIENCY_IMAGES))
    means, chance = metrics.class_means(splits.train), metrics.white_noise_energy(part.shape)
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    found: dict[tuple[str, str], metrics.Saliency] = {}
    for number, name in enumerate(MAIN_MODELS):
        for method in metrics.METHODS:
            told = metrics.saliency(
                load_model(plan, folder, seed, name), part, means, method=method, seed=seed, device=plan.device
            )
            found[name, method] = told
            columns = {measure: getattr(told, measure) for measure in MEASURES}
            for measure, values in columns.items():
                rows.append({"model": name, "method": method, "measure": measure, "seed": seed, **mean_interval_row(values)})
            rows.append({"model": name, "method": method, "measure": "chance_low", "seed": seed, "value": chance, "n": len(part)})
        report_progress("", (number + 1) / len(MAIN_MODELS), name)
    for one, other in PAIRS:
        for method in metrics.METHODS:
            for measure in ("alignment", "low", "faithful"):
                values = getattr(found[one, method], measure) - getattr(found[other, method], measure)
                pairs.append(
                    {
                        "model": one,
                        "other": other,
                        "method": method,
                        "measure": measure,
                        "seed": seed,
                        **mean_interval_row(values),
                    }
                )
    tables = {"explanations": rows, "explained": pairs}
    if seed == plan.seed:
        tables["explanation_pictures"] = _pictures(part, folder, found)
    return tables


class ClassifierSaliency(NamedTuple):
    """One classifier's explanations: rows with value, low, high, n by method and measure; a row a file; a sheet (C, H, W)."""

    rows: list[dict[str, Any]]
    files: list[dict[str, Any]]
    sheet: Tensor


def classifier_saliency(model: nn.Module, splits: data.Splits, *, seed: int = 0, device: str = "cpu") -> ClassifierSaliency:
    """What a classifier's explanations show of test images, and the first of each class beside its gradients."""
    part = splits.test.select(subset.balanced(splits.test.labels, SALIENCY_IMAGES))
    means, rows, columns = metrics.class_means(splits.train), list[dict[str, Any]](), dict[str, list[float]]()
    shown = _first_of_each(part)
    sheet = [part.pixels(shown)]
    for method in metrics.METHODS:
        told = metrics.saliency(model, part, means, method=method, seed=seed, device=device)
        rows += [{"method": method, "measure": name, **mean_interval_row(getattr(told, name))} for name in MEASURES]
        rows.append({"method": method, "measure": "chance_low", "value": metrics.white_noise_energy(part.shape), "n": len(part)})
        columns |= {f"{method}_{name}": getattr(told, name).tolist() for name in ("alignment", "low", "faithful")}
        sheet.append(_as_gray(told.gradients[shown]))
    names = [part.classes[int(label)] for label in part.labels]
    files = [
        {"file": file, "label": label, **{name: values[place] for name, values in columns.items()}}
        for place, (file, label) in enumerate(zip(part.names, names, strict=True))
    ]
    whole = torch.cat([torch.cat(list(column), dim=1) for column in sheet], dim=2)
    for axis in (1, 2):  # small images enlarged, by a whole number
        whole = whole.repeat_interleave(max(1, 128 // max(part.shape[1:])), dim=axis)
    return ClassifierSaliency(rows, files, whole)


def corruptions(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress) -> Tables:
    """Every model on the test images as they come out of noise, blur, fog, contrast and JPEG, and what robust training costs."""
    part = _some(load(plan, seed).test, CORRUPTION_IMAGES)
    names = [name for name in CORRUPTION_MODELS if model_path(plan, folder, seed, name).exists()]
    rows, pairs, shares = list[dict[str, Any]](), list[dict[str, Any]](), {}
    for number, name in enumerate(names):
        found = metrics.corruption_accuracy(load_model(plan, folder, seed, name), part, seed=seed, device=plan.device)
        rows += [{"model": name, "seed": seed, **row} for row in found.rows]
        shares[name] = found.shares
        report_progress("", (number + 1) / len(names), name)
    for one, other in PAIRS:
        for kind in shares[one]:
            gain = mean_interval_row(shares[one][kind] - shares[other][kind])
            pairs.append({"model": one, "other": other, "corruption": kind, "seed": seed, **gain})
    return {"corruptions": rows, "corrupted": pairs}


def fourier(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress) -> Tables:
    """The errors of each model with one wave added to every image, frequency by frequency."""
    part, rows = _some(load(plan, seed).test, FOURIER_IMAGES), list[dict[str, Any]]()
    names = [name for name in CORRUPTION_MODELS if model_path(plan, folder, seed, name).exists()]
    for number, name in enumerate(names):
        model = models.fuse_batchnorm(load_model(plan, folder, seed, name), part.pixels(slice(0, 2)), plan.device)
        rows += [
            {"model": name, "seed": seed, **row}
            for row in metrics.fourier_sensitivity(model, part, seed=seed, device=plan.device)
        ]
        report_progress("", (number + 1) / len(names), name)
    return {"frequencies": rows}


def ntk_features(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress) -> Tables:
    """Eigenvectors of a wide network's tangent kernel: how useful and robust, and what regression on the first ones reads."""
    splits, threat_model = load(plan, seed), NormBall(plan.norm, known(plan.epsilon))
    train = splits.train.select(subset.balanced(splits.train.labels, ntk.MAX_IMAGES))
    whole = metrics.EigenFeatures(train).to(plan.device)
    chosen = metrics.chosen_eigenvectors(len(whole.values))
    report_progress("", 0.1, "taken apart")
    test = _some(splits.test, CORRUPTION_IMAGES)
    found = metrics.per_feature(
        _Some(whole, chosen),
        test,
        threat_model,
        sample=SAMPLE,
        most=SEARCHED,
        steps=STEPS,
        device=plan.device,
        progress=lambda share: report_progress("", 0.1 + 0.5 * share, "searched"),
    )
    values = (whole.values / whole.values.sum()).tolist()
    rows = [
        {"eigenvector": chosen[row["feature"]], "share": values[chosen[row["feature"]]], "seed": seed, **row}
        for row in metrics.best_class_rows(found)
    ]
    machines = []
    some = _some(splits.test, ATTACKED_IMAGES)
    kept = [count for count in NTK_EIGENVECTORS if count < len(whole.values)] + [len(whole.values)]
    for number, count in enumerate(kept):
        machine = metrics.EigenFeatures(train, keep=count).to(plan.device)
        told = metrics.robust_accuracy(machine, some, [threat_model], budget="quick", device=plan.device)
        machines += [{"kept": count, "seed": seed, **row} for row in told]
        report_progress("", 0.6 + 0.4 * (number + 1) / len(kept), f"{count} eigenvectors")
    return {"kernel": rows, "kernel_accuracy": machines}


# what, the models it needs, and whether once does: where nothing but the seed differs, and it decides nothing
ANALYSES: dict[str, tuple[Callable[..., Tables], tuple[str, ...], bool]] = {
    "explanations": (saliency, MAIN_MODELS, False),
    "corruptions": (corruptions, MAIN_MODELS, False),
    "frequencies": (fourier, MAIN_MODELS, False),
    "kernel": (ntk_features, (), True),
}


# ---- parts ---------------------------------------------------------------------------------------------------------------


class _Some(nn.Module):
    """Some features of a model that has more."""

    def __init__(self, model: metrics.EigenFeatures, chosen: list[int]) -> None:
        super().__init__()
        self.model, self.chosen = model, chosen

    def features(self, images: Tensor) -> Tensor:
        return self.model.features(images)[:, self.chosen]


def _pictures(part: Dataset, folder: Path, found: dict[tuple[str, str], metrics.Saliency]) -> list[dict[str, Any]]:
    """One image a class and, beside it, each model's gradient."""
    rows = []
    for place, number in enumerate(_first_of_each(part)):
        gradients = {name: _as_gray(found[name, "gradient"].gradients[[number]])[0] for name in MAIN_MODELS}
        versions = {"image": part.pixels([number])[0], **gradients}
        for column, pixels in versions.items():
            picture = f"pictures/explained-{place:02d}-{column}.png"
            data.save_image(pixels, folder / picture)
            label = part.classes[int(part.labels[number])]
            rows.append({"file": part.names[number], "column": column, "picture": picture, "label": label})
    return rows


def _first_of_each(part: Dataset) -> list[int]:
    """The first image of each class, of eight classes at most."""
    return [int((part.labels == k).nonzero()[0, 0]) for k in range(len(part.classes)) if (part.labels == k).any()][:8]


def _as_gray(gradients: Tensor) -> Tensor:
    """Gradients (n, C, H, W) as images: grey is none, the largest tenth of a percent of each is black or white."""
    largest = gradients.abs().flatten(1).quantile(0.999, dim=1).clamp_min(1e-12).reshape(-1, 1, 1, 1)
    return (0.5 + gradients / (2 * largest)).clamp(0, 1)


def _some(part: Dataset, most: int) -> Dataset:
    """At most so many images, evenly over the classes."""
    return part if len(part) <= most else part.select(subset.balanced(part.labels, most))
