"""The classifiers of an audit: loaded, told from others of the same name, ready for attacks."""

from functools import cache
from hashlib import sha256
from pathlib import Path

from torch import nn

from notbugs import attacks, models
from notbugs.audit.config import AuditConfig, all_classes
from notbugs.audit.failures import blame_failing_image
from notbugs.audit.images import test_part
from notbugs.data.subset import evenly_spaced
from notbugs.errors import InputError
from notbugs.models.black_box import BlackBox
from notbugs.models.by_name import is_code
from notbugs.models.notes import report_notes
from notbugs.models.output_names import OutputNames
from notbugs.models.preprocessing import Preprocessing
from notbugs.study.given import DIGEST_IMAGES, LoadedClassifier, load_fitting, logits_digest
from notbugs.study.outputs import prediction_warning


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
