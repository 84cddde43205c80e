"""Pictures of features and of spurious cues."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from notbugs import construct, data, metrics, models, search
from notbugs.data import Dataset, Splits
from notbugs.models import Model
from notbugs.runs.tables.features import CuePictureRow, FeatureCategoryRow, FeaturePictureRow
from notbugs.search import NormBall, StepState, objectives

PICTURED_FEATURES = 3  # robust, non-robust and spurious ones
PICTURED_FILES = 6  # with the highest values of a feature
PICTURED_CUE_FILES = 5


def feature_pictures(
    folder: Path, rows: Sequence[FeatureCategoryRow], values: Tensor, dataset: Dataset, model: Model, device: str
) -> list[FeaturePictureRow]:
    """Pictures of the most useful features: robust, non-robust, and spurious ones."""
    ranked = sorted(rows, key=lambda row: -row.usefulness)
    groups = (
        [row for row in ranked if row.category == "robust"],
        [row for row in ranked if row.category == "non-robust"],
        [row for row in ranked if row.spurious],
    )
    chosen = dict.fromkeys(row for group in groups for row in group[:PICTURED_FEATURES])  # a spurious one may be in two groups
    return [picture for row in chosen for picture in _pictures_of(folder, row, values[:, row.feature], dataset, model, device)]


def _pictures_of(
    folder: Path, row: FeatureCategoryRow, values: Tensor, dataset: Dataset, model: Model, device: str
) -> list[FeaturePictureRow]:
    """The files with the highest values of one feature, an image that maximizes it, and its gradient on the first file."""
    top = values.topk(min(PICTURED_FILES, len(dataset))).indices
    images: list[tuple[str, int | None, Tensor]] = [
        (f"file {place}", index, dataset.pixels([index])[0]) for place, index in enumerate(top.tolist(), start=1)
    ]
    with models.frozen(model):
        images.append(("maximizing image", None, maximizing_image(model, dataset, row.feature, device)))
        image = dataset.pixels(top[:1]).to(device)
        gradient = search.gradients(partial(_one_feature, model, row.feature), image)[1][0, 0].cpu()
    images.append(("gradient", None, 0.5 + gradient / (2 * gradient.abs().amax().clamp_min(1e-12))))
    rows = []
    for column, index, image in images:
        picture = f"pictures/feature-{row.feature:04d}-{column.replace(' ', '-')}.png"
        data.save_image(image.clamp(0, 1), folder / picture)
        rows.append(
            FeaturePictureRow(
                feature=row.feature,
                category=row.category,
                class_name=row.class_name,
                cue=row.cue,
                column=column,
                file=None if index is None else dataset.names[index],
                label=None if index is None else dataset.classes[int(dataset.labels[index])],
                picture=picture,
            )
        )
    return rows


def _one_feature(model: Model, feature: int, images: Tensor) -> Tensor:
    """One feature of images, (n, 1)."""
    return model.features(images)[:, feature : feature + 1]


def maximizing_image(model: Model, dataset: Dataset, feature: int, device: torch.device | str) -> Tensor:
    """An image (C, H, W) that maximizes one feature, from the mean image, by gradients shaped by the images' covariance."""
    images = dataset.pixels(torch.arange(0, len(dataset), max(1, len(dataset) // 500)))
    mean, precondition = images.mean(0, keepdim=True).to(device), construct.spectral_covariance_sqrt(images)
    unbounded, objective = NormBall("l2", torch.inf), objectives.maximize_feature(model.features, feature)
    length = 0.05 * (images - images.mean(0)).flatten(1).norm(dim=1).mean().item()

    def rule(now: StepState, state: None) -> tuple[Tensor, None]:
        return unbounded.steepest_step(now.images, precondition(now.gradient), length), None

    # a little noise, for the gradient of a unit that is off is zero
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0)).to(device)
    start = (mean + 0.01 * noise).clamp(0, 1)
    return search.maximize(objective, start, unbounded, steps=60, rule=rule).images[0].cpu()


def cue_pictures(
    splits: Splits,
    folder: Path,
    drop: metrics.UsefulnessDrop,
    cue: int,
    values: Tensor,
    test_values: Tensor,
    predicted: Tensor,
) -> list[CuePictureRow]:
    """Training files of the class with most of a cue, and test files of the class with least; predicted: of the test files."""
    label, sign = splits.train.classes.index(drop.class_name), 1.0 if drop.sign == "for" else -1.0
    rows = []
    for group, part, column, turn in (("most", splits.train, values, sign), ("least", splits.test, test_values, -sign)):
        own = (part.labels == label).nonzero().squeeze(1)
        for index in own[(turn * column[own]).topk(min(PICTURED_CUE_FILES, len(own))).indices].tolist():
            picture = f"pictures/cue-{cue:02d}-{group}-{index:06d}.png"
            data.save_image(part.pixels([index])[0], folder / picture)
            rows.append(
                CuePictureRow(
                    name=drop.name,
                    class_name=drop.class_name,
                    group=group,
                    file=part.names[index],
                    predicted="" if group == "most" else part.classes[int(predicted[index])],
                    value=float(column[index]),
                    picture=picture,
                )
            )
    return rows
