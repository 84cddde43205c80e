"""A classifier of the user in a study: loaded, checked against the images, with gradients and features.

It takes the place of the model `GIVEN` of the catalog. It is one model, the same in every seed, and stays where it is.
"""

from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from torch import nn

from notbugs import attacks, data, models
from notbugs.attacks.sanity_checks.class_order import class_order
from notbugs.data import DataConfig, Dataset
from notbugs.data.subset import evenly_spaced
from notbugs.errors import InputError
from notbugs.models.black_box import BlackBox
from notbugs.models.by_name import classifier_by_name, is_code
from notbugs.models.checkpoint import CheckpointMetadata
from notbugs.models.notes import report_notes
from notbugs.models.output_names import ClassMap, OutputNames
from notbugs.models.preprocessing import Preprocessing
from notbugs.study.config import ResolvedConfig, StudyConfig
from notbugs.study.outputs import of_classes, prediction_warning

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
        A hash that tells it from others, and of what: its file and, if it or its network is code, its logits on a few images.
    notes : tuple of str
        What was decided in loading it: one sentence each.
    warning : str
        That its outputs stand in another order than the classes; "" if nothing speaks for that.
    """

    name: str
    model: models.Model
    features: str
    sha256: str
    sha256_of: str
    notes: tuple[str, ...] = ()
    warning: str = ""


def load_fitting(
    name: str,
    part: Dataset,
    *,
    dataset: str,
    network: str | None = None,
    device: str = "cpu",
    outputs: OutputNames = OutputNames(),  # noqa: B008  # it is frozen
    preprocessing: Preprocessing = Preprocessing(),  # noqa: B008
) -> LoadedClassifier:
    """A classifier by its name, on its device, with the outputs of the classes of a data set.

    Parameters
    ----------
    name, network, preprocessing
        As `models.by_name.classifier_by_name` takes them.
    part, dataset, device
        As in `check_fit`.
    outputs : OutputNames
        What the user says of its outputs. It goes before what its file says.

    Raises
    ------
    InputError
        If there is no such classifier, or it does not fit the images.
    """
    classes = part.classes if outputs.names is None else outputs.names
    model, metadata = classifier_by_name(name, classes=classes, network=network, part=part, preprocessing=preprocessing)
    if outputs.names is not None:
        metadata = replace(metadata, classes=outputs.names)
    loaded = LoadedClassifier(model, metadata)
    return check_fit(name, loaded, part, dataset=dataset, device=device, class_map=outputs.class_map)


def check_fit(
    name: str,
    loaded: LoadedClassifier,
    part: Dataset,
    *,
    dataset: str,
    device: str = "cpu",
    class_map: ClassMap | None = None,
) -> LoadedClassifier:
    """The classifier on its device, checked against images: their shape, their classes; its outputs are those of the classes.

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
    class_map : ClassMap, optional
        Which outputs each class has. Default: by the names of the outputs, or else in order.

    Raises
    ------
    InputError
        If the classifier does not fit the images.
    """
    model, metadata = loaded
    shape = list(part.shape)
    expected = getattr(model, "architecture", {}).get("shape", shape)
    if expected != shape:
        square = expected[0] == shape[0] and expected[1] == expected[2]
        rule = f"must hold images of shape {expected}, as the model {name} takes them"
        raise InputError(dataset, rule, shape, f"use --resize {expected[1]}" if square else "")
    model = model.to(device).eval()
    try:
        model, note = of_classes(name, model, metadata.classes, part, dataset=dataset, device=device, class_map=class_map)
    except InputError as error:
        raise InputError(name, *error.args[1:]) if error.args[0] == "model" else error from None
    return LoadedClassifier(model, replace(metadata, notes=(*metadata.notes, *([note] if note else ()))))


def given_model(config: StudyConfig | ResolvedConfig) -> GivenModel | None:
    """The model that a study was given, None if it trains its own; loaded once per process.

    Raises
    ------
    InputError
        If it does not fit the images, or has no gradients.
    """
    if config.model is None:
        return None
    path, outputs = Path(config.model), OutputNames.read(config.classes, config.class_map)
    digest = sha256(path.read_bytes() + outputs.digest.encode()).hexdigest() if path.is_file() else ""
    found = _given_model(config.model, config.network, config.layer, config.device, config.data, digest, outputs)
    report_notes(found.name, found.notes)
    return found


@cache
def _given_model(
    name: str, network: str | None, layer: str | None, device: str, images_of: DataConfig, digest: str, outputs: OutputNames
) -> GivenModel:
    """digest: of the file, "" of code; also there for the cache: a file that changed is loaded again."""
    part, dataset = data.load_dataset(images_of).train, images_of.dataset
    loaded, metadata = load_fitting(name, part, dataset=dataset, network=network, device=device, outputs=outputs)
    rule = "must have gradients: D_NR, D_rand and D_det are constructed with them"
    remedy = f"for its robust accuracy alone: notbugs attack {name} {dataset}"
    if isinstance(loaded, BlackBox):
        raise InputError("--model", rule, f"{name}, a black box", remedy)
    sample = part.select(evenly_spaced(DIGEST_IMAGES, len(part)))
    images, labels = sample.pixels(slice(None)).to(device), sample.labels.to(device)
    logits = attacks.clean_logits(loaded, images, labels)
    if missing := attacks.missing_gradient(loaded, images):
        raise InputError("--model", rule, f"{name}, whose logits cannot be differentiated: {missing}", remedy)
    model, features = models.with_features(loaded, images[:2], layer)
    of_file = "its file and what was said of its outputs" if outputs.digest else "its file"
    hashes = [(digest, of_file)] if digest else []
    if not digest or is_code(network):
        hashes.append((logits_digest(logits.tolist()), f"its logits on {len(sample)} images"))
    hashed, words = zip(*hashes, strict=True)
    return GivenModel(name, model.eval(), features, "-".join(hashed), " and ".join(words), notes=metadata.notes)


def with_warning(given: GivenModel, part: Dataset, device: str) -> GivenModel:
    """A given model with the warning that its outputs stand in another order than the classes, if they seem to."""
    return replace(given, warning=prediction_warning(given.model, part, device, [class_order]))


def logits_digest(logits: list[list[float]]) -> str:
    """A hash of logits, rounded to three digits: another machine rounds otherwise. It tells models apart that are code."""
    return sha256(repr([[f"{value:.3g}" for value in row] for row in logits]).encode()).hexdigest()
