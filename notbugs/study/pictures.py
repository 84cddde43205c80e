"""Pictures of a study: the same training images in every version, and the gradients of models."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from notbugs import attacks, data, models, precision
from notbugs.data import Dataset
from notbugs.runs.scheduler import Progress
from notbugs.runs.tables import PictureRow, SaliencyPictureRow
from notbugs.search import NormBall
from notbugs.study.catalog import ORIGINAL, QUICK
from notbugs.study.config import ResolvedConfig, load
from notbugs.study.store import load_dataset, load_model

PERTURBATION = "perturbation"  # the column whose pictures are no images: no model classifies them
ATTACK_STEPS = 50
SATURATED = 0.001  # share of a gradient's values that become black or white
ENLARGED_SIDE = 128  # pixels of a small image on a sheet


@precision.full_precision()
def pictures(config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress) -> list[PictureRow]:
    """Stage: one training image per class in every version, as pictures, with what two models predict for each."""
    original = load(config, seed).train
    chosen = data.first_per_class(original)
    classifiers = {name: load_model(config, folder, seed, name).to(config.device) for name in ("standard", "adversarial")}
    images, labels = original.pixels(chosen), original.labels[chosen]
    attacked = _attacked(classifiers["standard"], images, labels, config.threat_model, config.device)
    versions: dict[str, tuple[Tensor, Tensor]] = {
        ORIGINAL: (images, labels),
        "adversarial": (attacked, labels),
        PERTURBATION: (_amplified(attacked - images), labels),
    }
    for name in QUICK:
        part = load_dataset(config, folder, seed, name).select(chosen)
        versions[name] = (part.pixels(slice(None)), part.labels)
    files = [original.names[index] for index in chosen]
    return [
        row
        for column, (pixels, given) in versions.items()
        for row in _version_rows(folder, column, files, pixels, given, original.classes, classifiers, config.device)
    ]


def _attacked(model: nn.Module, images: Tensor, labels: Tensor, threat_model: NormBall, device: str) -> Tensor:
    """PGD on one model, rounded to 8 bits, on the CPU."""
    with models.frozen(model):
        result = attacks.pgd(model, images.to(device), labels.to(device), threat_model=threat_model, steps=ATTACK_STEPS)
    return threat_model.round_to_8bit(result.images.cpu(), images)


def _amplified(perturbation: Tensor) -> Tensor:
    """Perturbations as pictures: gray is 0, the largest value of each is black or white."""
    largest = perturbation.abs().flatten(1).amax(1).clamp_min(1e-6).reshape(-1, 1, 1, 1)
    return 0.5 + perturbation / (2 * largest)


def _version_rows(
    folder: Path,
    column: str,
    files: Sequence[str],
    pixels: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    classifiers: Mapping[str, nn.Module],
    device: str,
) -> list[PictureRow]:
    """Save one version of the images, and a row for each with the predictions."""
    rows = []
    with torch.no_grad():
        predictions = {name: model(pixels.to(device)).argmax(1).tolist() for name, model in classifiers.items()}
    for number, file in enumerate(files):
        picture = f"pictures/{number:02d}-{column}.png"
        data.save_image(pixels[number], folder / picture)
        predicted = {name: "" if column == PERTURBATION else classes[found[number]] for name, found in predictions.items()}
        rows.append(PictureRow(file=file, column=column, picture=picture, label=classes[int(labels[number])], **predicted))
    return rows


# ---- gradients -------------------------------------------------------------------------------------------------------------


def save_saliency_pictures(
    dataset: Dataset, chosen: Sequence[int], gradients: Mapping[str, Tensor], folder: Path
) -> list[SaliencyPictureRow]:
    """Save the chosen images and, for each, the gradient of each model. gradients: (N, C, H, W) by model, of all images."""
    rows = []
    for number, index in enumerate(chosen):
        label = dataset.classes[int(dataset.labels[index])]
        grays = {name: gradient_as_gray(values[[index]])[0] for name, values in gradients.items()}
        for column, pixels in {"image": dataset.pixels([index])[0], **grays}.items():
            picture = f"pictures/saliency-{number:02d}-{column}.png"
            data.save_image(pixels, folder / picture)
            rows.append(SaliencyPictureRow(file=dataset.names[index], column=column, picture=picture, label=label))
    return rows


def gradient_as_gray(gradients: Tensor) -> Tensor:
    """Gradients (N, C, H, W) as images: gray is 0, the largest 0.1 % of the values of each are black or white."""
    largest = gradients.abs().flatten(1).quantile(1 - SATURATED, dim=1).clamp_min(1e-12).reshape(-1, 1, 1, 1)
    return (0.5 + gradients / (2 * largest)).clamp(0, 1)


def sheet(columns: Sequence[Tensor]) -> Tensor:
    """Columns of images (N, C, H, W) as one image, small images enlarged by a whole number."""
    whole = torch.cat([torch.cat(list(column), dim=1) for column in columns], dim=2)
    factor = max(1, ENLARGED_SIDE // max(columns[0].shape[2:]))
    for axis in (1, 2):
        whole = whole.repeat_interleave(factor, dim=axis)
    return whole
