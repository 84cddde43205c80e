"""The configuration of an audit, and what it names: classifiers, test images, threat models."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from notbugs import attacks, data, models
from notbugs.data import DataConfig, Dataset
from notbugs.data.names import printable
from notbugs.data.sources.splits import listed
from notbugs.data.subset import evenly_spaced
from notbugs.errors import InputError
from notbugs.models.black_box import BlackBox
from notbugs.models.by_name import is_code
from notbugs.models.notes import report_notes
from notbugs.models.output_names import OutputNames
from notbugs.models.preprocessing import Preprocessing
from notbugs.search import Mask, NormBall, SpatialTransforms, objectives
from notbugs.search.threat_models import parse_threat_model
from notbugs.study.given import DIGEST_IMAGES, LoadedClassifier, load_fitting, logits_digest
from notbugs.study.outputs import prediction_warning

Threat = NormBall | SpatialTransforms
TARGET_RULES = {"random": "a random wrong class of each image", "least-likely": "the least likely wrong class of each image"}
NORM_ORDER = {"l2": 0, "linf": 1, "l1": 2, "l0": 3}  # spatial transforms come last


@dataclass(frozen=True)
class AuditConfig:
    """One classifier, its images and its threat models.

    Parameters
    ----------
    model : str
        As `models.classifier_by_name` takes it.
    data : DataConfig
        The data set, whose test images are attacked.
    threats : tuple of str
        As `parse_threat_model` takes them: "l2:0.5", "linf:8/255", "l0:1", "spatial:30,3". Empty: the epsilon that the model was
        trained with, and half of it.
    mask : str, optional
        A file that says which pixels may change, in every threat model (`data.read_mask`).
    target : str, optional
        Attacks are targeted: at the class of this name, at a `random` wrong class for each image, or at the `least-likely` one.
    only_classes : tuple of str, optional
        Attack only images of these classes. Every class may be predicted.
    budget : {"quick", "standard", "thorough"}
        Of the attack ensemble.
    images : int, optional
        Attack at most this many test images, evenly spaced.
    others : tuple of str
        Other models of the same task, whose adversarial examples are tried on this one.
    network : str, optional
        What the weights in the model's file belong to, as `models.classifier_by_name` takes it.
    classes : str, optional
        A file with the names of the model's outputs (`models.output_names.read_classes`). Default: its own, if it has any.
    class_map : str, optional
        Which outputs each class of the data set has (`models.output_names.read_class_map`).
    mean, std, pixel_range : tuple of float, optional
        Preprocessing that the model needs and does not do itself (`models.preprocessing.Preprocessing`).
    device : str
    """

    model: str
    data: DataConfig
    threats: tuple[str, ...] = ()
    budget: str = "standard"
    images: int | None = None
    others: tuple[str, ...] = ()
    network: str | None = None
    classes: str | None = None
    class_map: str | None = None
    device: str = "cpu"
    mask: str | None = None
    target: str | None = None
    only_classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pixel_range: tuple[float, ...] | None = None


def test_part(config: AuditConfig) -> tuple[Dataset, str]:
    """The test images that are attacked, and the format of the data set."""
    splits = data.load_dataset(config.data)
    part = splits.test
    if config.target is not None or config.only_classes is not None:
        part = part.select(_attacked_rows(config, part))
    if config.images is not None:
        if config.images < 1:
            raise InputError("--images", "must be 1 or more", config.images)
        count = min(config.images, len(part))
        part = part.select(evenly_spaced(count, len(part)))
    return part, splits.form


def _attacked_rows(config: AuditConfig, part: Dataset) -> list[int]:
    """Rows of the images of the classes that are attacked; those of the target are left out, as it is their label."""
    classes = part.classes
    chosen = set(classes if config.only_classes is None else config.only_classes)
    if unknown := sorted(chosen - set(classes)):
        raise InputError("--only-class", f"must be a class of {config.data.dataset}: {listed(classes)}", printable(unknown[0]))
    goals = [*TARGET_RULES, *classes]
    if config.target is not None and goals.count(config.target) != 1:
        rule = f"must be a class of {config.data.dataset}, {' or '.join(TARGET_RULES)}: {listed(classes)}"
        remedy = "a class has the name of a rule: rename it" if config.target in goals else ""
        raise InputError("--target", rule, printable(config.target), remedy)
    attacked = [number for number, name in enumerate(classes) if name in chosen and name != config.target]
    rows = [row for row, label in enumerate(part.labels.tolist()) if label in attacked]
    if not rows:
        raise InputError("--only-class", "must leave test images to attack", "none", "--target leaves out those of the target")
    return rows


def all_classes(config: AuditConfig) -> AuditConfig:
    """The same images and those of all other classes: predictions of a few classes alone say little of a model."""
    return replace(config, only_classes=None, target=None)


def mask_of(config: AuditConfig) -> Mask | None:
    """The mask, checked against the images."""
    return None if config.mask is None else data.read_mask(config.mask, test_part(config)[0].shape)


def threat_models(config: AuditConfig) -> list[Threat]:
    """The threat models, norm by norm, each with ascending epsilon.

    Raises
    ------
    InputError
        If none is given and the model's file names no epsilon, or if an epsilon or the mask does not fit the images; if L-inf has
        limits of channels of several proportions, whose minimum norms are of different kinds.
    """
    training = load_classifier(config, config.model).metadata
    threats: list[Threat] = [parse_threat_model(text, training.norm or "l2") for text in config.threats]
    if not threats:
        if not training.epsilon:
            raise InputError("--epsilon", "must be given: the model's file does not say with which epsilon it was trained", None)
        threats = [NormBall(training.norm, training.epsilon / 2), NormBall(training.norm, training.epsilon)]
    for threat in threats:
        if isinstance(threat, NormBall) and threat.epsilon == math.inf:
            raise InputError("--epsilon", "must be finite: within the whole pixel range any image becomes any other", str(threat))
    if mask := mask_of(config):
        threats = [_masked(threat, mask) for threat in threats]
    if len(proportions := {threat.channels for threat in threats if isinstance(threat, NormBall) and threat.norm == "linf"}) > 1:
        rule = "must have limits of channels in one proportion: a minimum norm is in units of the largest"
        limits = ", ".join(str(threat) for threat in threats if norm_of(threat) == "linf")
        raise InputError("--epsilon", rule, limits, f"use one command for each of the {len(proportions)}")
    shape = torch.Size((1, *test_part(config)[0].shape))
    unique = {str(threat): threat.fit(shape) for threat in threats}
    return sorted(unique.values(), key=_order)


def _masked(threat: Threat, mask: Mask) -> NormBall:
    if isinstance(threat, NormBall):
        return replace(threat, mask=mask)
    rule = "has no meaning for rotations and translations, which move all pixels"
    raise InputError("--mask", rule, str(threat), "leave one of the two out")


def _order(threat: Threat) -> tuple[int, float]:
    if not isinstance(threat, NormBall):
        return len(NORM_ORDER), 0.0
    return NORM_ORDER[threat.norm], float(threat.epsilon)


def load_classifier(config: AuditConfig, name: str) -> LoadedClassifier:
    """A model of the audit, checked against the shape and the classes of the images."""
    loaded = _load_classifier(config, name, _file_digest(name), _said_of_outputs(config, name))
    report_notes(name, loaded.metadata.notes)
    return loaded


def _said_of_outputs(config: AuditConfig, name: str) -> OutputNames:
    """What the user says of a model's outputs; of the other models nothing."""
    return OutputNames.read(config.classes, config.class_map) if name == config.model else OutputNames()


def report_order(config: AuditConfig, *names: str) -> None:
    """Report as notes, before any work, whose outputs stand in another order than the classes, or are no better than chance."""
    for name in names:
        if found := prediction_warning(load_classifier(config, name).model, test_part(all_classes(config))[0], config.device):
            report_notes(name, [f"WARNING: {found.removesuffix('.')}"])


def digest(config: AuditConfig, name: str) -> str:
    """What tells a model from another of the same name: its files; of code, also as its network, its logits on a few images."""
    found, said = _file_digest(name), _said_of_outputs(config, name).digest
    if not found:
        return _logits_digest(config, name)
    parts = [found, *([said[:16]] if said else []), *([_logits_digest(config, name)] if is_code(config.network) else [])]
    return "-".join(parts)


def _logits_digest(config: AuditConfig, name: str) -> str:
    part = test_part(config)[0]
    sample, model = part.select(evenly_spaced(DIGEST_IMAGES, len(part))), load_classifier(config, name).model.eval()
    with blame_failing_image(model, sample, config.device):
        images, labels = sample.pixels(slice(None)).to(config.device), sample.labels.to(config.device)
        logits = attacks.clean_logits(model, images, labels).cpu()
    return logits_digest(logits.tolist())[:16]


def _file_digest(name: str) -> str:
    paths = [path for path in (Path(name), Path(name).with_suffix(".json")) if path.is_file()]
    return sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16] if paths else ""


@cache
def _load_classifier(config: AuditConfig, name: str, digest: str, outputs: OutputNames) -> LoadedClassifier:
    """Loaded once per process; `digest` is there for the cache: a file that changed is loaded again."""
    part = test_part(config)[0]
    dataset, device = config.data.dataset, config.device
    own = Preprocessing(config.mean, config.std, config.pixel_range) if name == config.model else Preprocessing()
    return load_fitting(name, part, dataset=dataset, network=config.network, device=device, outputs=outputs, preprocessing=own)


def search_copy(config: AuditConfig, name: str) -> nn.Module:
    """The model as attacks use it: frozen, batch normalization fused into its convolutions; a black box as it is."""
    model = load_classifier(config, name).model
    if isinstance(model, BlackBox):
        return model
    fused: nn.Module = models.fuse_batchnorm(model, test_part(config)[0].pixels([0]), config.device)
    return fused


def with_gradients(config: AuditConfig, name: str, why: str) -> nn.Module:
    """The model as `search_copy` gives it. Raises InputError if it has no gradients; why: they are needed."""
    model = search_copy(config, name)
    if missing := attacks.missing_gradient(model, test_part(config)[0].pixels(slice(0, 2)).to(config.device)):
        raise InputError("MODEL", f"must have gradients: {why}", f"{name}, which has none: {missing}")
    return model


def norm_of(threat: Threat | None) -> str:
    """Its norm, "spatial", or "" for no perturbation."""
    if threat is None:
        return ""
    return threat.norm if isinstance(threat, NormBall) else "spatial"


def norms_of(threats: Sequence[Threat]) -> list[str]:
    """The norms among the threat models, each once.

    Examples
    --------
    >>> norms_of([NormBall("l2", 0.5), NormBall("l2", 1.0), SpatialTransforms(30, 3)])
    ['l2']
    """
    return list(dict.fromkeys(threat.norm for threat in threats if isinstance(threat, NormBall)))


def folder_name(threat: Threat) -> str:
    """The folder of the perturbed images.

    Examples
    --------
    >>> folder_name(NormBall("linf", 8 / 255))
    'attacked-linf-8of255'
    """
    return "attacked-" + re.sub("[ ,]+", "-", str(threat).replace("/", "of"))


def threat_id(config: AuditConfig, threat: Threat) -> str:
    """The threat model in tables: what may change, and toward which class.

    Examples
    --------
    >>> threat_id(AuditConfig("m.onnx", DataConfig("digits"), target="3"), NormBall("l2", 0.5))
    'l2 0.5, target 3'
    """
    return str(threat) if config.target is None else f"{threat}, target {config.target}"


def restriction(config: AuditConfig, threats: Sequence[Threat], norm: str) -> str | None:
    """Beyond the norm what minimum norms are of: limits of channels, mask and target; None if nothing."""
    found = [threat.restriction for threat in threats if isinstance(threat, NormBall) and threat.norm == norm][:1]
    return "; ".join([each for each in found if each] + ([f"target {config.target}"] if config.target else [])) or None


def conditions(config: AuditConfig) -> list[str]:
    """What a reader must know of the threat models and the images: one sentence each, none for the usual ones."""
    said = []
    if mask := mask_of(config):
        said.append(f"{str(mask).capitalize()} is {Path(config.mask or '').name}: {mask.described}")
    if config.only_classes is not None:
        classes = ", ".join(config.only_classes)
        said.append(f"Only images of these classes are attacked: {classes}. Every class may be predicted")
    if config.target is not None:
        goal = TARGET_RULES.get(config.target, f"the class {config.target}")
        left = "" if config.target in TARGET_RULES else ". Images of that class are left out"
        said.append(
            f"Attacks are targeted at {goal}. They succeed only if the target is predicted{left}. Robust accuracy is then the "
            "share of images that are classified correctly and do not reach their target. Untargeted attacks leave at most that"
        )
    return said


@contextmanager
def blame_failing_image(model: nn.Module, part: Dataset, device: str) -> Iterator[None]:
    """If the model raises inside or returns logits that are not finite, raise an InputError that names the file.

    A user's own model may raise anything.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if data.is_out_of_memory(error):
            raise
        cause = error.__cause__ if isinstance(error, InputError) else error
        if cause is None:
            if "finite" in str(error):
                _raise_if_not_finite(model, part, device)
            raise
        raise _failure(model, part, device, cause) from cause


def _raise_if_not_finite(model: nn.Module, part: Dataset, device: str) -> None:
    for row, name in enumerate(part.names):
        with torch.no_grad():
            finite = bool(objectives.logits(model, part.pixels([row]).to(device)).isfinite().all())
        if not finite:
            raise InputError(name, "the model must return finite logits for this image", "others") from None


def _failure(model: nn.Module, part: Dataset, device: str, cause: BaseException) -> InputError:
    """The error that names the first image on which the model raises."""
    remedy = "fix it and repeat the command: finished stages are kept"
    got = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
    failing = [name for row, name in enumerate(part.names) if _raises(model, part.pixels([row]).to(device))]
    files = f"{part.names[0]} to {part.names[-1]}"
    if len(failing) == len(part) > 1:
        return InputError(files, "the model now raises an error on every image", got, remedy)
    if failing:
        return InputError(failing[0], "the model raised an error on this image", got, remedy)
    return InputError(files, "the model raised an error on a perturbed image of these", got, remedy)


def _raises(model: nn.Module, image: Tensor) -> bool:
    try:
        with torch.no_grad():
            model(image)
    except Exception:  # a user's own model may raise anything
        return True
    return False
