"""What a finished study is asked further: explanations, corruptions, frequencies, kernel features.

Each function is a stage: (plan, folder, seed, tell) -> rows for the tables. `FURTHER` lists them with what they need.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from notbugs import data, models, scores
from notbugs.ball import Ball
from notbugs.data import Dataset
from notbugs.plan import Plan, known, load
from notbugs.pool import Told
from notbugs.sets import QUICK
from notbugs.stages import Tables, load_model, model_path

TOLD = ("standard", "adversarial", "on-robust", "on-nonrobust")  # the models whose reasons are looked at
EVERY = ("standard", "adversarial", *(f"on-{name}" for name in QUICK))
PAIRS = (
    ("adversarial", "standard"),
    ("on-robust", "standard"),
    ("on-nonrobust", "standard"),
    ("adversarial", "on-robust"),
    ("on-robust", "on-nonrobust"),
)
EXPLAINED, CORRUPTED, WAVED, ATTACKED = 500, 1000, 200, 200  # test images at most
SAMPLE, DEEP, STEPS = 60, 40, 6  # images that eigenvectors are searched on, how many in steps, and these: half a minute in all
MEASURES = ("alignment", "chance_alignment", "low", "deletion", "chance_deletion", "faithful")
KEPT = (10, 30, 100, 300)  # eigenvectors that a kernel machine may use, and all


def explanations(plan: Plan, folder: Path, seed: int, tell: Told) -> Tables:
    """What each model's explanations show of the same test images, and the differences, image by image; pictures for one seed."""
    splits = load(plan, seed)
    part = splits.test.take(scores.balanced(splits.test.labels, EXPLAINED))
    means, chance = scores.class_means(splits.train), scores.white_share(part.shape)
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    found: dict[tuple[str, str], scores.Explained] = {}
    for number, name in enumerate(TOLD):
        for method in scores.METHODS:
            told = scores.explain(load_model(plan, folder, seed, name), part, means, method=method, seed=seed, device=plan.device)
            found[name, method] = told
            columns = {measure: getattr(told, measure) for measure in MEASURES}
            for measure, values in columns.items():
                rows.append({"model": name, "method": method, "measure": measure, "seed": seed, **mean_of(values)})
            rows.append({"model": name, "method": method, "measure": "chance_low", "seed": seed, "value": chance, "n": len(part)})
        tell("", (number + 1) / len(TOLD), name)
    for one, other in PAIRS:
        for method in scores.METHODS:
            for measure in ("alignment", "low", "faithful"):
                values = getattr(found[one, method], measure) - getattr(found[other, method], measure)
                pairs.append(
                    {"model": one, "other": other, "method": method, "measure": measure, "seed": seed, **mean_of(values)}
                )
    tables = {"explanations": rows, "explained": pairs}
    if seed == plan.seed:
        tables["explanation_pictures"] = _pictures(part, folder, found)
    return tables


class OneExplained(NamedTuple):
    """One classifier's explanations: rows with value, low, high, n by method and measure; a row a file; a sheet (C, H, W)."""

    rows: list[dict[str, Any]]
    files: list[dict[str, Any]]
    sheet: Tensor


def explain_one(model: nn.Module, splits: data.Splits, *, seed: int = 0, device: str = "cpu") -> OneExplained:
    """What a classifier's explanations show of test images, and the first of each class beside its gradients."""
    part = splits.test.take(scores.balanced(splits.test.labels, EXPLAINED))
    means, rows, columns = scores.class_means(splits.train), list[dict[str, Any]](), dict[str, list[float]]()
    shown = _first_of_each(part)
    sheet = [part.pixels(shown)]
    for method in scores.METHODS:
        told = scores.explain(model, part, means, method=method, seed=seed, device=device)
        rows += [{"method": method, "measure": name, **mean_of(getattr(told, name))} for name in MEASURES]
        rows.append({"method": method, "measure": "chance_low", "value": scores.white_share(part.shape), "n": len(part)})
        columns |= {f"{method}_{name}": getattr(told, name).tolist() for name in ("alignment", "low", "faithful")}
        sheet.append(_grey(told.gradients[shown]))
    names = [part.classes[int(label)] for label in part.labels]
    files = [
        {"file": file, "label": label, **{name: values[place] for name, values in columns.items()}}
        for place, (file, label) in enumerate(zip(part.names, names, strict=True))
    ]
    whole = torch.cat([torch.cat(list(column), dim=1) for column in sheet], dim=2)
    for axis in (1, 2):  # small images enlarged, by a whole number
        whole = whole.repeat_interleave(max(1, 128 // max(part.shape[1:])), dim=axis)
    return OneExplained(rows, files, whole)


def corruptions(plan: Plan, folder: Path, seed: int, tell: Told) -> Tables:
    """Every model on the test images as they come out of noise, blur, fog, contrast and JPEG, and what robust training costs."""
    part = _some(load(plan, seed).test, CORRUPTED)
    names = [name for name in EVERY if model_path(plan, folder, seed, name).exists()]
    rows, pairs, shares = list[dict[str, Any]](), list[dict[str, Any]](), {}
    for number, name in enumerate(names):
        found = scores.corrupted(load_model(plan, folder, seed, name), part, seed=seed, device=plan.device)
        rows += [{"model": name, "seed": seed, **row} for row in found.rows]
        shares[name] = found.shares
        tell("", (number + 1) / len(names), name)
    for one, other in PAIRS:
        for kind in shares[one]:
            gain = mean_of(shares[one][kind] - shares[other][kind])
            pairs.append({"model": one, "other": other, "corruption": kind, "seed": seed, **gain})
    return {"corruptions": rows, "corrupted": pairs}


def frequencies(plan: Plan, folder: Path, seed: int, tell: Told) -> Tables:
    """The errors of each model with one wave added to every image, frequency by frequency."""
    part, rows = _some(load(plan, seed).test, WAVED), list[dict[str, Any]]()
    names = [name for name in EVERY if model_path(plan, folder, seed, name).exists()]
    for number, name in enumerate(names):
        model = models.folded(load_model(plan, folder, seed, name), part.pixels(slice(0, 2)), plan.device)
        rows += [{"model": name, "seed": seed, **row} for row in scores.frequencies(model, part, seed=seed, device=plan.device)]
        tell("", (number + 1) / len(names), name)
    return {"frequencies": rows}


def kernel(plan: Plan, folder: Path, seed: int, tell: Told) -> Tables:
    """Eigenvectors of a wide network's tangent kernel: how useful and robust, and what regression on the first ones reads."""
    splits, ball = load(plan, seed), Ball(plan.norm, known(plan.epsilon))
    train = splits.train.take(scores.balanced(splits.train.labels, scores.KERNEL_MOST))
    whole = scores.EigenFeatures(train).to(plan.device)
    chosen = scores.along_spectrum(len(whole.values))
    tell("", 0.1, "taken apart")
    test = _some(splits.test, CORRUPTED)
    found = scores.per_feature(
        _Some(whole, chosen),
        test,
        ball,
        sample=SAMPLE,
        most=DEEP,
        steps=STEPS,
        device=plan.device,
        progress=lambda share: tell("", 0.1 + 0.5 * share, "searched"),
    )
    values = (whole.values / whole.values.sum()).tolist()
    rows = [
        {"eigenvector": chosen[row["feature"]], "share": values[chosen[row["feature"]]], "seed": seed, **row}
        for row in scores.best_rows(found)
    ]
    machines = []
    some = _some(splits.test, ATTACKED)
    kept = [count for count in KEPT if count < len(whole.values)] + [len(whole.values)]
    for number, count in enumerate(kept):
        machine = scores.EigenFeatures(train, keep=count).to(plan.device)
        told = scores.under_attack(machine, some, [ball], budget="quick", device=plan.device)
        machines += [{"kept": count, "seed": seed, **row} for row in told]
        tell("", 0.6 + 0.4 * (number + 1) / len(kept), f"{count} eigenvectors")
    return {"kernel": rows, "kernel_accuracy": machines}


# what, the models it needs, and whether once does: where nothing but the seed differs, and it decides nothing
FURTHER: dict[str, tuple[Callable[..., Tables], tuple[str, ...], bool]] = {
    "explanations": (explanations, TOLD, False),
    "corruptions": (corruptions, TOLD, False),
    "frequencies": (frequencies, TOLD, False),
    "kernel": (kernel, (), True),
}


# ---- parts ---------------------------------------------------------------------------------------------------------------


def mean_of(values: np.ndarray) -> dict[str, Any]:
    """value, low, high, n: a mean over images with Student's 95 % interval."""
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.inf
    mean = float(values.mean())
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values)}


class _Some(nn.Module):
    """Some features of a model that has more."""

    def __init__(self, model: scores.EigenFeatures, chosen: list[int]) -> None:
        super().__init__()
        self.model, self.chosen = model, chosen

    def features(self, images: Tensor) -> Tensor:
        return self.model.features(images)[:, self.chosen]


def _pictures(part: Dataset, folder: Path, found: dict[tuple[str, str], scores.Explained]) -> list[dict[str, Any]]:
    """One image a class and, beside it, each model's gradient."""
    rows = []
    for place, number in enumerate(_first_of_each(part)):
        gradients = {name: _grey(found[name, "gradient"].gradients[[number]])[0] for name in TOLD}
        versions = {"image": part.pixels([number])[0], **gradients}
        for column, pixels in versions.items():
            picture = f"pictures/explained-{place:02d}-{column}.png"
            data.save_picture(pixels, folder / picture)
            label = part.classes[int(part.labels[number])]
            rows.append({"file": part.names[number], "column": column, "picture": picture, "label": label})
    return rows


def _first_of_each(part: Dataset) -> list[int]:
    """The first image of each class, of eight classes at most."""
    return [int((part.labels == k).nonzero()[0, 0]) for k in range(len(part.classes)) if (part.labels == k).any()][:8]


def _grey(gradients: Tensor) -> Tensor:
    """Gradients (n, C, H, W) as images: grey is none, the largest tenth of a percent of each is black or white."""
    largest = gradients.abs().flatten(1).quantile(0.999, dim=1).clamp_min(1e-12).reshape(-1, 1, 1, 1)
    return (0.5 + gradients / (2 * largest)).clamp(0, 1)


def _some(part: Dataset, most: int) -> Dataset:
    """At most so many images, evenly over the classes."""
    return part if len(part) <= most else part.take(scores.balanced(part.labels, most))
