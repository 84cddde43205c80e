"""Pictures of a study: the same training images in every version, and the gradients of models."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from notbugs import attacks, data, models, precision, predict
from notbugs.data import Dataset
from notbugs.runs.attempts import Attempt
from notbugs.runs.tables.analyses import SaliencyPictureRow
from notbugs.runs.tables.row import Row
from notbugs.runs.tables.study import AdversarialPictureRow, PictureRow
from notbugs.search import NormBall, objectives
from notbugs.study.catalog.datasets import ORIGINAL, QUICK
from notbugs.study.config import ResolvedConfig, load
from notbugs.study.store import load_dataset, load_model

PERTURBATION = "perturbation"  # the column whose pictures are no images: no model classifies them
ATTACK_STEPS = 50
EXAMPLES = 5  # test images whose smallest adversarial examples are shown
OVERSHOOT = (1.0, 1.02, 1.05, 1.1, 1.2, 1.4)  # lengths of a perturbation, of which rounding to 8 bits leaves one misclassified
BY_ATTACK, BY_VERSIONS = 0.1, 0.3  # share of the stage that is done after the attack, and after all versions
SATURATED = 0.001  # share of a gradient's values that become black or white
ENLARGED_SIDE = 128  # pixels of a small image on a sheet


@precision.full_precision()
def pictures(config: ResolvedConfig, folder: Path, seed: int, attempt: Attempt) -> list[Row]:
    """Stage: training images in every version, and adversarial examples of test images, with what two models predict."""
    original = load(config, seed).train
    chosen = data.first_per_class(original)
    classifiers = {name: load_model(config, folder, seed, name).to(config.device) for name in ("standard", "adversarial")}
    images, labels = original.pixels(chosen), original.labels[chosen]
    attacked = _attacked(classifiers["standard"], images, labels, config.threat_model, config.device)
    attempt("", BY_ATTACK, "attacked")
    versions: dict[str, tuple[Tensor, Tensor]] = {
        ORIGINAL: (images, labels),
        "adversarial": (attacked, labels),
        PERTURBATION: (_amplified(attacked - images), labels),
    }
    for name in QUICK:
        part = load_dataset(config, folder, seed, name).select(chosen)
        versions[name] = (part.pixels(slice(None)), part.labels)
    files = [original.names[index] for index in chosen]
    rows: list[Row] = []
    for number, (column, (pixels, given)) in enumerate(versions.items(), start=1):
        rows += _version_rows(attempt.folder, column, files, pixels, given, original.classes, classifiers, config.device)
        attempt("", BY_ATTACK + (BY_VERSIONS - BY_ATTACK) * number / len(versions), f"{number} of {len(versions)} versions")
    return rows + adversarial_examples(
        load(config, seed).test,
        classifiers,
        attempt.folder,
        norm=config.norm,
        device=config.device,
        progress=lambda share: attempt("", BY_VERSIONS + (1 - BY_VERSIONS) * share, "smallest perturbations"),
    )


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


# ---- adversarial examples ----------------------------------------------------------------------------------------------------


def adversarial_examples(
    dataset: Dataset,
    classifiers: Mapping[str, nn.Module],
    folder: Path,
    *,
    norm: str,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> list[AdversarialPictureRow]:
    """Save the smallest adversarial examples of a few images, one per class, for each classifier.

    Parameters
    ----------
    dataset : Dataset
        Of it the first image of each class that the first classifier predicts as labeled.
    classifiers : mapping of str to nn.Module
        On `device`.
    folder : Path
        Of an attempt; pictures are saved in pictures/.
    norm : {"l2", "linf"}
    device : torch.device or str
    progress : callable, optional
        Called after each classifier with the share that is done, in [0, 1].

    Returns
    -------
    list of AdversarialPictureRow
        By image, then by classifier. Images for which no adversarial example was found, or none that survives rounding to 8 bits,
        are left out.
    """
    first = next(iter(classifiers.values()))
    correct = (predict.predict(first, dataset, device) == dataset.labels).nonzero().squeeze(1)
    part = dataset.select(correct)
    part = part.select(data.first_per_class(part, EXAMPLES)) if len(part) else part
    if not len(part):
        return []
    images, rows = part.pixels(slice(None)), list[AdversarialPictureRow]()
    for number, (name, classifier) in enumerate(classifiers.items(), start=1):
        found = _smallest_examples(classifier, images.to(device), part.labels.to(device), norm)
        rows += _example_rows(part, found, name, folder, norm)
        if progress:
            progress(number / len(classifiers))
    order = {file: place for place, file in enumerate(part.names)}
    return sorted(rows, key=lambda row: order[row.file])


class _Examples(NamedTuple):
    """images (n, C, H, W): 8-bit, misclassified where `found` (n,); predictions and confidences (n,) of a classifier."""

    images: Tensor
    found: Tensor
    predicted: Tensor
    confidence: Tensor
    clean_confidence: Tensor


def _smallest_examples(model: nn.Module, images: Tensor, labels: Tensor, norm: str) -> _Examples:
    """Minimum-norm adversarial examples, rounded to 8 bits and still misclassified. On the CPU."""
    with models.frozen(model):
        smallest = attacks.minimum_norm(model, images, labels, norm=norm).images
    with torch.no_grad():
        best, found = images.clone(), torch.zeros_like(labels, dtype=torch.bool)
        for length in OVERSHOOT:
            stored = ((images + length * (smallest - images)).clamp(0, 1) * 255).round() / 255
            new = (objectives.logits(model, stored).argmax(1) != labels) & ~found
            best[new], found = stored[new], found | new
        confidence, predicted = objectives.logits(model, best).softmax(1).max(1)
        clean = objectives.logits(model, images).softmax(1).amax(1)
    return _Examples(best.cpu(), found.cpu(), predicted.cpu(), confidence.cpu(), clean.cpu())


def _example_rows(part: Dataset, found: _Examples, name: str, folder: Path, norm: str) -> list[AdversarialPictureRow]:
    """Save the examples of one classifier, and a row for each."""
    images = part.pixels(slice(None))
    perturbation = found.images - images
    distances = NormBall(norm, 0.0).distance(perturbation).tolist()
    amplified = _amplified(perturbation)
    rows = []
    for number in found.found.nonzero().squeeze(1).tolist():
        paths = [f"pictures/example-{number:02d}-{suffix}.png" for suffix in ("clean", name, f"{name}-perturbation")]
        for pixels, path in zip((images[number], found.images[number], amplified[number]), paths, strict=True):
            data.save_image(pixels, folder / path)
        rows.append(
            AdversarialPictureRow(
                file=part.names[number],
                label=part.classes[int(part.labels[number])],
                model=name,
                predicted=part.classes[int(found.predicted[number])],
                confidence=float(found.confidence[number]),
                clean_confidence=float(found.clean_confidence[number]),
                norm=norm,
                distance=float(distances[number]),
                amplification=0.5 / max(float(perturbation[number].abs().max()), 1e-6),
                clean_picture=paths[0],
                picture=paths[1],
                perturbation_picture=paths[2],
            )
        )
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
