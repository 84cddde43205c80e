"""Any classifier by its name: a file, a network of timm, Hugging Face or torchvision, or `module:function`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn
from torch.export import ExportedProgram

from notbugs.data import Dataset
from notbugs.data.subset import evenly_spaced
from notbugs.errors import InputError
from notbugs.models import checkpoint, torch_files, trial
from notbugs.models.adapt import SINGLE_OUTPUT_IMAGES, adapt, refuse_meta, settled
from notbugs.models.architectures import ARCHITECTURES
from notbugs.models.black_box import BlackBox, SurrogateGradients, from_sklearn, refuse_several_outputs, settle_single
from notbugs.models.checkpoint import CheckpointMetadata
from notbugs.models.class_map import estimator_names, names_of_numbers
from notbugs.models.factory import build
from notbugs.models.libraries import hub_file, is_library_name, library_network
from notbugs.models.linear import Estimator
from notbugs.models.onnx import from_onnx
from notbugs.models.onnx_names import onnx_labels, onnx_names
from notbugs.models.preprocessing import Preprocessing, preprocessed
from notbugs.models.reading import Reading
from notbugs.models.skops_files import load_skops
from notbugs.models.user_code import user_network, user_object
from notbugs.models.weights import clean_weights, left_out, network_with

INNER = {"fastai": "model", "transformers": "model", "skorch": "module_"}  # where learners and pipelines have their network


class _Loaded(NamedTuple):
    """A classifier before it is adapted, and what is known of it. given: None: it needs no adapting."""

    model: nn.Module
    given: Reading | None = None
    metadata: CheckpointMetadata = CheckpointMetadata()
    notes: tuple[str, ...] = ()


def classifier_by_name(
    name: str,
    *,
    classes: Sequence[str],
    network: str | None = None,
    part: Dataset | None = None,
    preprocessing: Preprocessing = Preprocessing(),  # noqa: B008  # it is frozen
) -> tuple[nn.Module, CheckpointMetadata]:
    """A classifier by name, and what is known of it.

    Parameters
    ----------
    name : str
        One of (docs/models.md):

        - a file: .safetensors that `models.save` wrote; weights of PyTorch, with `network`; TorchScript; an exported program
          (.pt2); .onnx; .skops
        - `timm:NAME`, `hf:NAME_OR_PATH`, `torchvision:NAME[@WEIGHTS]`, with its weights; `hf:OWNER/REPOSITORY/FILE`, a file
        - `module:function`, called with classes=K, that returns a trained network of pixels in [0, 1], a fitted scikit-learn
          classifier, or a function for `BlackBox`. Naming it runs that code.
    classes : sequence of str
        Names of the K classes, in the order of its outputs if it has no names of its own.
    network : str, optional
        What the weights in a file belong to: `module:function`, called with classes=K, or a network of another package. Of a
        .safetensors file that `models.save` wrote: see `models.load`.
    part : Dataset, optional
        A few of its images decide how the network takes and returns them (`adapt`). Default: not tried.
    preprocessing : Preprocessing
        What the model needs and does not do itself.

    Returns
    -------
    nn.Module
        In evaluation mode.
    CheckpointMetadata
        Its own names of its outputs, its training, and what was decided in loading it (notes).

    Raises
    ------
    InputError
        If there is no such classifier or it cannot be used, or if it has a normalization of its own beside a given one.
    """
    if preprocessing and part is not None:
        preprocessing.check_channels(sorted({part.shape[0], 3}))
    loaded = _load(name, classes, network, part, preprocessing)
    refuse_meta(loaded.model, "MODEL", name)
    if preprocessing:
        loaded = _preprocessed(name, loaded, preprocessing, part)
    model, notes = settled(loaded.model), loaded.notes
    if part is not None and (said := settle_single(model, part.pixels(_tried(part)))):
        notes = (*notes, said)
    if part is not None and loaded.given is not None:
        names = loaded.metadata.classes
        adapted = adapt(model, part, name, loaded.given, names if names and len(names) > 1 else classes)
        model, notes = adapted.network.eval(), (*notes, *adapted.notes)
    return model, replace(loaded.metadata, notes=notes)


def _tried(part: Dataset) -> Tensor:
    """Images on which one output is told to be a logit or a probability, by index."""
    return evenly_spaced(min(SINGLE_OUTPUT_IMAGES, len(part)), len(part))


def is_code(network: str | None) -> bool:
    """Whether what weights belong to is a function of the user's, which may have changed since.

    Examples
    --------
    >>> is_code("mine:network"), is_code("timm:resnet18"), is_code("resnet18")
    (True, False, False)
    """
    return network is not None and ":" in network and not is_library_name(network)


def _preprocessed(name: str, loaded: _Loaded, preprocessing: Preprocessing, part: Dataset | None) -> _Loaded:
    """A classifier that gets pixels as the user says. Raises InputError if its own configuration says how."""
    model, own = loaded.model, ""
    note = f"{preprocessing.words}, as you say"
    mean, std = preprocessing.in_unit_range()
    if loaded.given is not None:
        if not loaded.given.mean:
            return loaded._replace(given=replace(loaded.given, mean=mean, std=std), notes=(*loaded.notes, note))
        own = f"mean {_listed(loaded.given.mean)}, standard deviation {_listed(loaded.given.std)}"
    elif isinstance(model, BlackBox | SurrogateGradients):
        if not getattr(model, "box", model).eight_bits:
            if part is not None:
                preprocessing.check_channels([part.shape[0]])
            return loaded._replace(model=preprocessed(model, preprocessing), notes=(*loaded.notes, note))
        own = "it takes 8-bit pixels, from 0 to 255"
    else:
        own_mean, own_std = (model.get_buffer(each).flatten().tolist() for each in ("mean", "std"))
        own = f"mean {_listed(own_mean)}, standard deviation {_listed(own_std)}"
    raise InputError("--mean, --std, --range", f"must be left out: {name} states its own normalization", own)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _load(name: str, classes: Sequence[str], network: str | None, part: Dataset | None, preprocessing: Preprocessing) -> _Loaded:
    file = hub_file(name)
    path = file or Path(name)
    if path.suffix == ".onnx":
        return _of_onnx(path, classes, part)
    if file or path.is_file():
        return _of_file(path, classes, network, part, preprocessing)
    if is_library_name(name):
        return _of_library(name, preprocessing)
    module, colon, function = name.partition(":")
    if path.exists() or not colon or not all(part.isidentifier() for part in [*module.split("."), *function.split(".")]):
        if path.is_dir():
            torch_files.refuse_folder(path)
        return _checkpoint(path, network)
    return _of_code(name, classes)


def _of_onnx(path: Path, classes: Sequence[str], part: Dataset | None) -> _Loaded:
    """An ONNX file, with the names of its outputs, which for one of scikit-learn may be numbers."""
    names, labels = onnx_names(path), onnx_labels(path)
    if names is None and labels is not None:
        own = names_of_numbers([label for label in labels if isinstance(label, int)], classes)
        names = None if own == tuple(classes) else own
    model = from_onnx(path, names or classes, labels, part.shape if part is not None else None)
    note = str(getattr(model, "box", model).note)
    return _Loaded(model, None, CheckpointMetadata(classes=names), (note,) if note else ())


def _of_code(name: str, classes: Sequence[str]) -> _Loaded:
    """What a user's function returns."""
    classifier = user_object(name, len(classes), "MODEL")
    if isinstance(classifier, ExportedProgram):
        classifier = classifier.module()
    if isinstance(classifier, nn.Module):
        return _Loaded(classifier, Reading())
    packages = [base.__module__.partition(".")[0] for base in type(classifier).__mro__]
    inner = next((INNER[package] for package in packages if package in INNER), "")
    if inner and isinstance(getattr(classifier, inner, None), nn.Module):
        rule = f"{name} must return the network itself, whose gradients attacks follow"
        raise InputError("MODEL", rule, f"a {type(classifier).__name__} around it", f"return its .{inner}")
    if hasattr(classifier, "predict") or hasattr(classifier, "predict_proba"):
        return _of_estimator(classifier, classes)
    if not callable(classifier) or isinstance(classifier, type):
        rule = f"{name} must return a network, a scikit-learn classifier or a function of images"
        got = f"the class {classifier.__name__}" if isinstance(classifier, type) else type(classifier).__name__
        remedy = "make one of it" if isinstance(classifier, type) else ""
        if isinstance(classifier, Mapping):
            remedy = "load these weights into the network: network.load_state_dict(…), and return it"
        if isinstance(classifier, tuple | list):
            remedy = "return the network alone"
        raise InputError("MODEL", rule, got, remedy)
    return _Loaded(BlackBox(classifier, classes))


def _of_estimator(estimator: Estimator, classes: Sequence[str]) -> _Loaded:
    """A classifier of scikit-learn, and the names of its columns."""
    refuse_several_outputs(estimator)
    names = estimator_names(estimator, classes)
    return _Loaded(from_sklearn(estimator, names), None, CheckpointMetadata(classes=names))


def _of_library(name: str, preprocessing: Preprocessing) -> _Loaded:
    """A network of another package with its weights."""
    found = library_network(name, pretrained=True)
    note = () if found.reading.mean or preprocessing else ("its configuration names no normalization: it gets pixels in [0, 1]",)
    return _Loaded(found.network, found.reading, CheckpointMetadata(classes=found.classes), (*note,))


def _of_file(
    path: Path, classes: Sequence[str], network: str | None, part: Dataset | None, preprocessing: Preprocessing
) -> _Loaded:
    """A classifier in a file."""
    if path.suffix == ".safetensors" and path.with_suffix(".json").exists():
        return _checkpoint(path, network)
    if path.suffix == ".skops":
        return _of_estimator(load_skops(path), classes)
    if torch_files.program_kind(path):
        trial.check_runs(path, part.shape if part else (), len(classes))
    found = torch_files.load_file(path)
    if isinstance(found, torch_files.Program):
        return _Loaded(found.network, Reading(batch_size=found.batch_size), notes=(f"it is {found.words}",))
    if network is None:
        needs = f"{path.with_suffix('.json').name} beside it, or " if path.suffix == ".safetensors" else ""
        remedy = "pass the --network that they belong to: module:function, timm:NAME or torchvision:NAME"
        got = f"{len(found.weights)} tensors"
        raise InputError(str(path), f"holds weights alone: it needs {needs}the network", got, remedy)
    own = [*found.notes]
    built, reading = network_with(
        found.weights, lambda outputs: _network(network, outputs, part, own, preprocessing), len(classes), str(path), network
    )
    if outside := left_out(clean_weights(found.weights).weights, built):
        own.append(outside)
    return _Loaded(built, reading, notes=tuple(dict.fromkeys(own)))


def _network(
    name: str, outputs: int, part: Dataset | None, notes: list[str], preprocessing: Preprocessing
) -> tuple[nn.Module, Reading]:
    """The network that weights belong to, and its normalization. A given one replaces that of a package, of other weights."""
    if is_library_name(name):
        found = library_network(name, pretrained=False, outputs=outputs, parameter="--network")
        if preprocessing:
            return found.network, replace(found.reading, size=None, mean=(), std=())
        if found.reading.mean:
            mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (found.reading.mean, found.reading.std))
            notes.append(f"its pixels are normalized as those of {name}: mean {mean}, standard deviation {std}")
        return found.network, replace(found.reading, size=None)  # these weights may be for another size
    if name in ARCHITECTURES and part is not None:
        return build(name, shape=part.shape, classes=outputs), Reading()
    return user_network(name, outputs), Reading()


def _checkpoint(path: Path, network: str | None) -> _Loaded:
    model, metadata = checkpoint.load(path, network)
    return _Loaded(model, None, metadata, metadata.notes)
