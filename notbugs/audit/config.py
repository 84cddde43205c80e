"""What an audit asks: which classifier, which images, what may change."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from notbugs import attacks, data, models
from notbugs.data import Dataset
from notbugs.data.subset import evenly_spaced
from notbugs.errors import InputError
from notbugs.models import black_box
from notbugs.search import NormBall, SpatialTransforms, objectives
from notbugs.search.threat_models import parse_threat_model
from notbugs.study.config import StudyConfig, load

Threat = NormBall | SpatialTransforms
Tables = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class AuditConfig:
    """What is asked. model: see `blackbox.read`; source: see `data.read`; its test part is attacked.

    within: what may change, as `ball.within` reads it ("l2:0.5", "linf:8/255", "l0:1", "spatial:30,3"); empty: what the model was
    trained against, and half of it. images: at most so many, spread evenly. others: models whose examples are tried on this one.
    """

    model: str
    source: str
    within: tuple[str, ...] = ()
    budget: str = "standard"
    images: int | None = None
    others: tuple[str, ...] = ()
    network: str | None = None
    resize: int | None = None
    limit: int | None = None
    skip_bad: bool = False
    device: str = "cpu"


def test_part(audit: AuditConfig) -> tuple[Dataset, str]:
    """The images that are attacked, and the form they came in."""
    splits = load(StudyConfig(audit.source, resize=audit.resize, limit=audit.limit, skip_bad=audit.skip_bad))
    part = splits.test
    if audit.images is not None:
        if audit.images < 1:
            raise InputError("--images", "must be 1 or more", audit.images)
        count = min(audit.images, len(part))
        part = part.select(evenly_spaced(count, len(part)))
    return part, splits.form


def data_notes(audit: AuditConfig) -> tuple[str, list[str]]:
    """What was said when the data were read (a test part split off, for one), and the files left out."""
    splits = load(StudyConfig(audit.source, resize=audit.resize, limit=audit.limit, skip_bad=audit.skip_bad))
    return splits.note, list(splits.skipped)


def threat_models(audit: AuditConfig) -> list[Threat]:
    """What may change: norm by norm, radii ascending. Raises BadInput where nothing is said and the model says nothing either."""
    said = load_classifier(audit, audit.model)[1]
    training = said.get("training", {})
    sets: list[Threat] = [parse_threat_model(text, training.get("norm", "l2")) for text in audit.within]
    if not sets:
        if not training.get("epsilon"):
            raise InputError("--epsilon", "must be given: the model does not say what radius it was trained with", None)
        sets = [NormBall(training["norm"], training["epsilon"] / 2), NormBall(training["norm"], training["epsilon"])]
    shape = torch.Size((1, *test_part(audit)[0].shape))
    places = {norm: place for place, norm in enumerate(("l2", "linf", "l1", "l0"))}
    for one in sets:
        if isinstance(one, NormBall) and one.epsilon == math.inf:
            raise InputError("--epsilon", "must be finite: with the whole pixel range every image can be any other", str(one))
    unique = {str(one): one.fit(shape) for one in sets}
    return sorted(unique.values(), key=lambda one: (places[one.norm], one.epsilon) if isinstance(one, NormBall) else (9, 0.0))


def load_classifier(audit: AuditConfig, name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A model of the audit, on its device, and what its file says; checked against the images' shape and classes."""
    return _classifier(audit, name, _file_digest(name))


def digest(audit: AuditConfig, name: str) -> str:
    """What tells a model from another of the same name: its files, or where it is code its answers to a few images."""
    if found := _file_digest(name):
        return found
    part = test_part(audit)[0]
    some, model = part.select(evenly_spaced(20, len(part))), load_classifier(audit, name)[0].eval()
    with blame_failing_image(model, some, audit.device):
        answers = attacks.clean_logits(model, some.pixels(slice(None)).to(audit.device), some.labels.to(audit.device)).cpu()
    return sha256(repr([[f"{value:.3g}" for value in row] for row in answers.tolist()]).encode()).hexdigest()[:16]


def _file_digest(name: str) -> str:
    paths = [path for path in (Path(name), Path(name).with_suffix(".json")) if path.is_file()]
    return sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16] if paths else ""


@cache
def _classifier(audit: AuditConfig, name: str, digest: str) -> tuple[nn.Module, dict[str, Any]]:
    part, _ = test_part(audit)
    model, said = black_box.load_classifier(name, classes=part.classes, network=audit.network)
    shape, classes = list(part.shape), list(part.classes)
    wanted = getattr(model, "architecture", {}).get("shape", shape)
    if list(said.get("classes", classes)) != classes or wanted != shape:
        rule = f"must hold images of shape {wanted} of the classes that the model {name} knows"
        raise InputError(audit.source, rule, f"{shape}, {len(classes)} classes")
    sample, labels = part.pixels([0]).to(audit.device), part.labels[:1].to(audit.device)
    model = model.to(audit.device)
    outputs = attacks.clean_logits(model.eval(), sample, labels).shape[1]
    if outputs != len(classes):
        raise InputError(name, f"must have one output for each of the {len(classes)} classes of {audit.source}", outputs)
    return model, said


def search_copy(audit: AuditConfig, name: str) -> nn.Module:
    """The model ready to be searched."""
    model, _ = load_classifier(audit, name)
    sample = test_part(audit)[0].pixels([0])
    view: nn.Module = model if isinstance(model, black_box.BlackBox) else models.fuse_batchnorm(model, sample, audit.device)
    return view


def norm_of(one: Threat | None) -> str:
    return "" if one is None else one.norm if isinstance(one, NormBall) else "spatial"


def norms_of(sets: Sequence[Threat]) -> list[str]:
    return list(dict.fromkeys(one.norm for one in sets if isinstance(one, NormBall)))


def folder_name(one: Threat) -> str:
    return "attacked-" + str(one).replace("/", "of").replace(" ", "-").replace(",", "-")


@contextmanager
def blame_failing_image(model: nn.Module, part: Dataset, device: str) -> Iterator[None]:
    """A user's own model may raise anything, or answer with what is no number: say on which file it did, if it is one."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if data.is_out_of_memory(error):
            raise
        cause = error.__cause__ if isinstance(error, InputError) else error
        if cause is None:
            for row, name in enumerate(part.names if "finite" in str(error) else ()):
                with torch.no_grad():
                    if not bool(objectives.logits(model, part.pixels([row]).to(device)).isfinite().all()):
                        raise InputError(name, "the model must give finite logits for this image", "others") from None
            raise
        kept = "mend it and give the same command again: what is finished is kept"
        said = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
        failing = [name for row, name in enumerate(part.names) if _raises(model, part.pixels([row]).to(device))]
        place = f"{part.names[0]} to {part.names[-1]}"
        if len(failing) == len(part) > 1:
            raise InputError(place, "the model has begun to raise an error on every image", said, kept) from cause
        if failing:
            raise InputError(failing[0], "the model raised an error on this image", said, kept) from cause
        raise InputError(place, "the model raised an error on a changed image of these", said, kept) from cause


def _raises(model: nn.Module, image: Tensor) -> bool:
    try:
        with torch.no_grad():
            model(image)
    except Exception:
        return True
    return False
