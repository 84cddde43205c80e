"""What the explorer of the report shows besides the scores: pictures of all files, predictions, nearest files.

Pictures come from the models of the first repetition. Each fold keeps the adversarial examples of its files, and those robust and
non-robust versions that belong to the files of the fold before: one of every file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from notbugs import data
from notbugs.atomic import StrPath
from notbugs.data import Dataset, Images
from notbugs.errors import InputError
from notbugs.files.config import FilesConfig, crossfit_config, examples_path, load_splits
from notbugs.files.crossfit import fold_seed, stratified_folds
from notbugs.files.fold_scores import FoldScores
from notbugs.runs.folder import RunFolder
from notbugs.runs.scheduler import Progress
from notbugs.runs.tables.files import AdversarialExampleRow, FilePredictionRow, NeighborRow, PictureSheetRow
from notbugs.runs.tables.row import Row
from notbugs.search import NormBall

ATTACKED_MODELS = ("standard", "robust")
VERSIONS = ("robust_version", "nonrobust_version")
PICTURES = (*(f"{model}_adversarial" for model in ATTACKED_MODELS), *VERSIONS)
THUMBNAIL = 64  # pixels: larger images are made smaller for the overview
IMAGES_AT_ONCE = 1000


def picture_megabytes(dataset: Dataset) -> float:
    """Pixels of the pictures of all files but the originals, before compression."""
    return len(PICTURES) * len(dataset) * float(np.prod(dataset.shape)) / 1e6


def keeps_pictures(config: FilesConfig, dataset: Dataset) -> bool:
    """Whether pictures of all files are within --pictures."""
    return picture_megabytes(dataset) <= config.pictures


# ---- one fold --------------------------------------------------------------------------------------------------------------


def of_fold(kept: Mapping[str, np.ndarray], folds: Tensor, fold: int) -> FoldScores:
    """What one fold keeps of what `score_fold` hands out.

    Parameters
    ----------
    kept : mapping of str to ndarray
        By name: one entry for each file of the fold, or for each other file (the versions).
    folds : Tensor, int64, (N,)
    fold : int

    Returns
    -------
    FoldScores
        Neighbors as indices into the data set; versions only of the files of the fold before.
    """
    own, others = (folds == fold).nonzero().squeeze(1).numpy(), folds[folds != fold].numpy()
    shared = {name: values for name, values in kept.items() if name not in VERSIONS}
    for name in ("same_class", "other_class"):
        shared[name] = np.where(kept[name] < 0, -1, own[kept[name]])
    before = (fold - 1) % (int(folds.max()) + 1)
    return shared | {name: kept[name][others == before] for name in VERSIONS if name in kept}


# ---- all folds -------------------------------------------------------------------------------------------------------------


def explorer_stage(config: FilesConfig, folder: Path, report_progress: Progress) -> list[Row]:
    """Write the pictures of all files; rows of the pictures, of the adversarial examples and of the nearest files."""
    splits = load_splits(config)
    dataset, crossfit = splits.train, crossfit_config(config, splits)
    folds = stratified_folds(dataset.labels, config.folds, fold_seed(config.seed, 0), dataset.groups)
    paths = [examples_path(folder, fold) for fold in range(config.folds)]
    # folds that were scored before there was an explorer kept nothing
    parts = [data.load_arrays(path) for path in paths] if all(path.is_file() for path in paths) else []
    kept = [name for name in PICTURES if parts and all(name in part for part in parts)]
    rows: list[Row] = [*_original_sheets(dataset, folder, full_size=bool(kept))]
    for place, name in enumerate(kept, start=1):
        report_progress("", place / (len(kept) + 1), name.replace("_", " "))
        images = torch.from_numpy(_merged(parts, folds, name))
        rows += sheet_rows(name, images, folder)
        if name not in VERSIONS:
            rows += _adversarial_rows(
                name.removesuffix("_adversarial"), dataset, images, folds, parts, crossfit.threat_model.norm
            )
    return rows + (_neighbor_rows(dataset, folds, parts) if parts else [])


def _merged(parts: Sequence[FoldScores], folds: Tensor, name: str) -> np.ndarray:
    """One entry for each file of the data set, from all folds."""
    merged = np.empty((len(folds), *parts[0][name].shape[1:]), parts[0][name].dtype)
    for fold, part in enumerate(parts):
        owner = (fold - 1) % len(parts) if name in VERSIONS else fold
        merged[(folds == owner).numpy()] = part[name]
    return merged


def _original_sheets(dataset: Dataset, folder: Path, full_size: bool) -> list[PictureSheetRow]:
    """Pictures of the files: as they are if they are small, else as thumbnails, and in full size where that is asked for."""
    small = max(dataset.shape[1:]) <= THUMBNAIL
    sheets = [] if small else sheet_rows("thumbnail", dataset.images, folder)
    return sheets + (sheet_rows("original", dataset.images, folder) if small or full_size else [])


def sheet_rows(kind: str, images: Images, folder: Path) -> list[PictureSheetRow]:
    """Write all images as sheets in explorer/."""
    scaled, rows = kind == "thumbnail", []
    _, _, height, width = data.thumbnails(images[0:1], THUMBNAIL).shape if scaled else images.shape
    columns = data.sheet_columns(height, width)
    for first in range(0, len(images), columns * columns):
        part = images[first : first + columns * columns]
        picture = f"explorer/{kind}-{first:07d}.webp"
        part = data.thumbnails(part, THUMBNAIL) if scaled else part
        data.save_sheet(part, folder / picture, columns=columns, lossless=not scaled)
        rows.append(
            PictureSheetRow(kind=kind, picture=picture, first=first, files=len(part), columns=columns, width=width, height=height)
        )
    return rows


def _adversarial_rows(
    model: str, dataset: Dataset, examples: Tensor, folds: Tensor, parts: Sequence[FoldScores], norm: str
) -> list[AdversarialExampleRow]:
    """One row per file; the norms are those of the 8-bit images."""
    clean, attacked = (_merged(parts, folds, f"{model}_{name}") for name in ("clean_prediction", "adversarial_prediction"))
    distance, largest = [], []
    for index in torch.split(torch.arange(len(dataset)), IMAGES_AT_ONCE):
        change = data.from_8bit(examples[index]) - dataset.pixels(index)
        distance += NormBall(norm, 1.0).distance(change).tolist()
        largest += NormBall("linf", 1.0).distance(change).tolist()
    labels, classes = dataset.labels.tolist(), dataset.classes
    return [
        AdversarialExampleRow(
            index=index,
            file=file,
            model=model,
            clean_prediction=classes[clean[index]],
            adversarial_prediction=classes[attacked[index]],
            norm=None if clean[index] == attacked[index] == labels[index] else distance[index],
            linf=largest[index],
        )
        for index, file in enumerate(dataset.names)
    ]


def _neighbor_rows(dataset: Dataset, folds: Tensor, parts: Sequence[FoldScores]) -> list[NeighborRow]:
    """The nearest files of each file: first those of its class."""
    groups = [
        (same, _merged(parts, folds, name), _merged(parts, folds, f"{name}_distance"))
        for same, name in ((True, "same_class"), (False, "other_class"))
    ]
    return [
        NeighborRow(
            index=index,
            file=file,
            same_class=same,
            rank=rank,
            neighbor=int(neighbor),
            neighbor_file=dataset.names[neighbor],
            distance=float(distance),
        )
        for index, file in enumerate(dataset.names)
        for same, neighbors, distances in groups
        for rank, (neighbor, distance) in enumerate(zip(neighbors[index], distances[index], strict=True), start=1)
        if neighbor >= 0
    ]


# ---- predictions -----------------------------------------------------------------------------------------------------------


def prediction_rows(dataset: Dataset, probabilities: Mapping[str, np.ndarray]) -> list[FilePredictionRow]:
    """What the cross-fitted models predict for each file; probabilities: (N, K) by model, means over the repetitions."""
    labels = dataset.labels.numpy()
    return [
        FilePredictionRow(
            index=index,
            file=file,
            model=model,
            predicted=dataset.classes[int(values[index].argmax())],
            confidence=float(values[index].max()),
            label_probability=float(values[index, labels[index]]),
        )
        for index, file in enumerate(dataset.names)
        for model, values in probabilities.items()
    ]


# ---- the pictures as an array ----------------------------------------------------------------------------------------------


def load_pictures(folder: StrPath, kind: str) -> np.ndarray:
    """The pictures of one kind, in the order of the data set.

    Parameters
    ----------
    folder : str or path
        Of a run of file scores.
    kind : str
        original (thumbnail, where the images are large), standard_adversarial, robust_adversarial, robust_version or
        nonrobust_version.

    Returns
    -------
    ndarray, uint8, (N, H, W, 3)

    Raises
    ------
    InputError
        If the run has no such pictures, or one cannot be read.
    """
    folder = Path(folder)
    sheets = RunFolder.read(folder).rows(PictureSheetRow)
    chosen = [row for row in sheets if row.kind == kind]
    if not chosen:
        raise InputError("kind", f"must be one of {', '.join(dict.fromkeys(row.kind for row in sheets)) or 'none'}", kind)
    return np.concatenate(
        [
            data.load_sheet(folder / row.picture, row.files, columns=row.columns, height=row.height, width=row.width)
            for row in chosen
        ]
    )
