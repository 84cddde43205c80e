"""A classifier of the user in a study: loaded, checked against the images, with gradients and features.

It takes the place of the model `GIVEN` of the catalog. It is one model, the same in every seed, and stays where it is.
"""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from torch import nn

from notbugs import attacks, data, models
from notbugs.data import DataConfig, Dataset
from notbugs.data.subset import evenly_spaced
from notbugs.errors import InputError
from notbugs.models.black_box import BlackBox
from notbugs.models.by_name import classifier_by_name
from notbugs.models.checkpoint import CheckpointMetadata
from notbugs.models.notes import report_notes
from notbugs.study.config import ResolvedConfig, StudyConfig

GIVEN = "standard"
DIGEST_IMAGES = 20  # images whose logits tell models apart that are code


class LoadedClassifier(NamedTuple):
    """A model on its device, and the metadata in its file."""

    model: nn.Module
    metadata: CheckpointMetadata


@dataclass(frozen=True)
class GivenModel:
    """A given model, ready for a study.

    Attributes
    ----------
    name : str
        As it was given.
    model : Model
    features : str
        What its features are, in words: those that D_NR keeps.
    sha256, sha256_of : str
        A hash that tells it from others, and of what: its file or, if it is code, its logits on a few images.
    notes : tuple of str
        What was decided in loading it: one sentence each.
    """

    name: str
    model: models.Model
    features: str
    sha256: str
    sha256_of: str
    notes: tuple[str, ...] = ()


def check_fit(name: str, loaded: LoadedClassifier, part: Dataset, *, dataset: str, device: str = "cpu") -> LoadedClassifier:
    """The classifier on its device, checked against images: their shape, their classes, one output for each.

    Parameters
    ----------
    name : str
        The classifier's, for errors.
    loaded : LoadedClassifier
        What `models.by_name.classifier_by_name` returns.
    part : Dataset
    dataset : str
        Its name, for errors.
    device : str

    Raises
    ------
    InputError
        If the classifier does not fit the images.
    """
    model, metadata = loaded
    shape, classes = list(part.shape), list(part.classes)
    expected = getattr(model, "architecture", {}).get("shape", shape)
    if expected != shape:
        square = expected[0] == shape[0] and expected[1] == expected[2]
        rule = f"must hold images of shape {expected}, as the model {name} takes them"
        raise InputError(dataset, rule, shape, f"use --resize {expected[1]}" if square else "")
    if list(metadata.classes or classes) != classes:
        rule = f"must have the classes of the model {name}, {_listed(metadata.classes or ())}"
        raise InputError(dataset, rule, _listed(classes))
    model = model.to(device)
    sample, labels = part.pixels([0]).to(device), part.labels[:1].to(device)
    try:
        outputs = attacks.clean_logits(model.eval(), sample, labels.clamp_max(0)).shape[1]
    except InputError as error:
        raise InputError(name, *error.args[1:]) if error.args[0] == "model" else error from None
    if outputs != len(classes):
        raise InputError(name, f"must have one output for each of the {len(classes)} classes of {dataset}", outputs)
    return LoadedClassifier(model, metadata)


def given_model(config: StudyConfig | ResolvedConfig) -> GivenModel | None:
    """The model that a study was given, None if it trains its own; loaded once per process.

    Raises
    ------
    InputError
        If it does not fit the images, or has no gradients.
    """
    if config.model is None:
        return None
    path = Path(config.model)
    digest = sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    found = _given_model(config.model, config.network, config.layer, config.device, config.data, digest)
    report_notes(found.name, found.notes)
    return found


@cache
def _given_model(
    name: str, network: str | None, layer: str | None, device: str, images_of: DataConfig, digest: str
) -> GivenModel:
    """digest: of the file, "" of code; also there for the cache: a file that changed is loaded again."""
    part, dataset = data.load_dataset(images_of).train, images_of.dataset
    found = LoadedClassifier(*classifier_by_name(name, classes=part.classes, network=network, part=part))
    rule = "must have gradients: D_NR, D_rand and D_det are constructed with them"
    remedy = f"for its robust accuracy alone: notbugs attack {name} {dataset}"
    if isinstance(found.model, BlackBox):
        raise InputError("--model", rule, f"{name}, a black box", remedy)
    loaded = check_fit(name, found, part, dataset=dataset, device=device).model
    sample = part.select(evenly_spaced(DIGEST_IMAGES, len(part)))
    images, labels = sample.pixels(slice(None)).to(device), sample.labels.to(device)
    logits = attacks.clean_logits(loaded, images, labels)
    if not attacks.has_gradient(loaded, images):
        raise InputError("--model", rule, f"{name}, whose logits cannot be differentiated", remedy)
    model, features = models.with_features(loaded, images[:2], layer)
    hashed = (digest, "its file") if digest else (_logits_digest(logits.tolist()), f"its logits on {len(sample)} images")
    return GivenModel(name, model.eval(), features, *hashed, notes=found.metadata.notes)


def _logits_digest(logits: list[list[float]]) -> str:
    """A hash of logits, rounded to three digits: another machine rounds otherwise."""
    return sha256(repr([[f"{value:.3g}" for value in row] for row in logits]).encode()).hexdigest()


def _listed(classes: tuple[str, ...] | list[str]) -> str:
    """Classes in a short line."""
    return ", ".join(classes[:12]) + (f", … ({len(classes)})" if len(classes) > 12 else "")
