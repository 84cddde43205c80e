"""What run.json says of a study: its settings, its data set, the machine."""

import math
from dataclasses import asdict

import torch

from notbugs import data
from notbugs.attacks.own import attack_name
from notbugs.data import Dataset, Splits
from notbugs.runs.folder import common_metadata
from notbugs.runs.metadata import epsilon_text
from notbugs.runs.scheduler import describe_machine
from notbugs.study.catalog.datasets import EXTENSIONS
from notbugs.study.config import ADDED, ResolvedConfig, written_form
from notbugs.study.epsilon import neighbor_distances
from notbugs.study.given import GivenModel

NOT_SETTINGS = (
    "dataset",
    "norm",
    "epsilon",
    "device",
    "skip_unreadable",
    "from_scratch",
    *ADDED,
    "model",
    "classes",
    "class_map",
)  # own keys, or none
NORM_NUMBERS = 2**24  # of images whose norms are computed at a time
NORM_IMAGES = 1000  # test images over which the mean norm is taken


def study_metadata(config: ResolvedConfig, splits: Splits, given: GivenModel | None, command: str) -> dict[str, object]:
    """What run.json says of a study, but for its seeds.

    Parameters
    ----------
    config : ResolvedConfig
    splits : Splits
        Its data set.
    given : GivenModel or None
        The standard model, where that was given.
    command : str

    Returns
    -------
    dict
        As `runs.metadata.StudyMetadata` reads it.
    """
    settings = {name: value for name, value in asdict(config).items() if name not in NOT_SETTINGS}
    settings |= {"from_scratch": asdict(config.from_scratch)} if config.from_scratch else {}
    if given:
        settings |= {"model": given.name, "model_sha256": given.sha256, "model_sha256_of": given.sha256_of}
        settings |= {"model_features": given.features}
        settings |= {name: text for name in ("classes", "class_map") if (text := getattr(config, name)) is not None}
        settings |= {"model_notes": list(given.notes)} if given.notes else {}
        settings |= {"model_warning": given.warning} if given.warning else {}
    return {
        **common_metadata(config.device, describe_machine(config.device), command),
        "dataset": config.dataset,
        "norm": config.norm,
        "epsilon": config.epsilon,
        "epsilon_text": epsilon_text(config.epsilon),
        "settings": {**settings, "attack": attack_name("standard", config.threat_model, gradient=True)},
        "data": {
            **data.summary(splits),
            "form": written_form(config, splits),
            "most_common": splits.test.labels.bincount().max().item() / len(splits.test),
            "mean_l2": round(_mean_norm(splits.test), 3),
            **_nearest(config, splits.train),
        },
        **{name: getattr(config, name) for name in ADDED},
        **({"extensions": EXTENSIONS.names, "extension_files": EXTENSIONS.hashes()} if EXTENSIONS.names else {}),
        "finished": False,
    }


def _nearest(config: ResolvedConfig, train: Dataset) -> dict[str, float | None]:
    """Median distances to the nearest images, which epsilon is compared with; None where there is none."""
    found = neighbor_distances(train, config.norm)
    distances = {"nearest_same_class": found.same_class, "nearest_other_class": found.other_class}
    return {name: float(f"{distance:.4g}") if math.isfinite(distance) else None for name, distance in distances.items()}


def _mean_norm(dataset: Dataset) -> float:
    """Mean L2 norm of the images."""
    index = torch.arange(min(len(dataset), NORM_IMAGES))
    parts = torch.split(index, max(1, NORM_NUMBERS // math.prod(dataset.shape)))
    return float(torch.cat([dataset.pixels(part).flatten(1).norm(dim=1) for part in parts]).mean())
