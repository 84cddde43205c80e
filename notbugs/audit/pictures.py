"""The perturbed images of an audit: in the format of the data set, and pictures of the most and the least fragile files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from notbugs import __version__, data
from notbugs.audit.config import TARGET_RULES, AuditConfig
from notbugs.audit.tables import CLEAN, minimum_norm
from notbugs.audit.threats import Threat, conditions, folder_name, norm_of, norms_of, target_name
from notbugs.data import Dataset, markdown
from notbugs.runs.tables.audit import AuditPictureRow, ImageRow, PredictionRow

PICTURED_FILES = 6  # of the most and of the least fragile


def stored_images(folder: Path, part: Dataset, threat: Threat) -> Dataset:
    """The perturbed images of all parts, in the order of the data set: the parts took turns."""
    parts = sorted((folder / "parts").glob(f"*-{folder_name(threat)}"))
    images = torch.empty((len(part), *part.shape), dtype=torch.uint8)
    for number, folder_of_part in enumerate(parts):
        images[number :: len(parts)] = data.load_part(folder_of_part, "npz").images[:]
    return part.with_images(images)


def export_perturbed(
    config: AuditConfig, folder: Path, part: Dataset, perturbed: Dataset, threat: Threat, *, form: str, attack: str
) -> None:
    """Write the perturbed images of one threat model to datasets/, with a card that names the attack."""
    target = folder / "datasets" / folder_name(threat)
    said = "".join(f"{markdown.plain(each)}. " for each in conditions(config))
    rule = markdown.plain(TARGET_RULES.get(config.target, target_name(config))) if config.target else ""
    goal = f"predicts {rule}" if rule else "misclassifies it"
    card = (
        f"# Adversarial examples\n\n{len(part)} images, each perturbed within {threat} so that "
        f"{markdown.code(Path(config.model).name)} {goal}, or clean if no attack succeeded. Labels are the original ones. {said}"
        f"Constructed by notbugs {__version__}, {attack}.\n"
    )
    origin = data.origin_of(config.data.dataset, data.load_dataset(config.data))
    data.export(perturbed, target, form, split="test", original=part, card=card, origin=origin)


def pictured_threats(threats: Sequence[Threat]) -> list[Threat]:
    """The threat model with the largest epsilon of each norm."""
    return list({norm_of(threat): threat for threat in threats}.values())


def fragile_files(images: Sequence[ImageRow], threats: Sequence[Threat]) -> dict[str, list[int]]:
    """Indices of the most and the least fragile correctly classified files, by their minimum norm in the first norm."""
    norms = norms_of(threats)
    ranked = [index for index, row in enumerate(images) if row.predicted == row.label]
    if norms:
        ranked.sort(key=lambda index: minimum_norm(images[index], norms[0]))
    half = min(PICTURED_FILES, len(ranked) // 2)
    return {"most fragile": ranked[:half], "least fragile": ranked[len(ranked) - half :]}


@dataclass(frozen=True)
class Picture:
    """One picture of the report: pixels (C, H, W) in [0, 1]."""

    index: int
    group: str
    column: str
    predicted: str
    pixels: Tensor


def pictures(
    part: Dataset,
    images: Sequence[ImageRow],
    by_threat: Mapping[str, Sequence[PredictionRow]],
    chosen: Mapping[str, Sequence[int]],
    stored: Mapping[str, Dataset],
) -> Iterator[Picture]:
    """The chosen files: clean, and for each pictured threat model as stored, with the perturbation beside it.

    stored: of each pictured threat model the chosen files alone, in order.
    """
    order = [(group, index) for group, indices in chosen.items() for index in indices]
    for position, (group, index) in enumerate(order):
        clean = part.pixels([index])[0]
        yield Picture(index, group, CLEAN, images[index].predicted, clean)
        for threat, dataset in stored.items():
            perturbed = dataset.pixels([position])[0]
            perturbation = perturbed - clean
            gray = 0.5 + perturbation / (2 * perturbation.abs().max().clamp_min(1e-6))
            yield Picture(index, group, threat, by_threat[threat][index].predicted_8bit, perturbed)
            yield Picture(index, group, f"perturbation, {threat}", "", gray)


def picture_rows(
    folder: Path, pictures: Iterable[Picture], images: Sequence[ImageRow], norms: Sequence[str]
) -> list[AuditPictureRow]:
    """Saves the pictures; minimum_norm is in the first of the norms."""
    rows = []
    for number, picture in enumerate(pictures):
        name, image = f"pictures/{number:04d}.png", images[picture.index]
        data.save_image(picture.pixels, folder / name)
        rows.append(
            AuditPictureRow(
                index=picture.index,
                file=image.file,
                group=picture.group,
                label=image.label,
                minimum_norm=minimum_norm(image, norms[0]) if norms else None,
                column=picture.column,
                predicted=picture.predicted,
                picture=name,
            )
        )
    return rows
