"""Checkpoints: weights as safetensors, and the architecture as JSON beside them. No pickles."""

import errno
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from notbugs.atomic import StrPath, check_no_device, part_of, read_at_most, sync
from notbugs.errors import InputError, one_line
from notbugs.models.architectures import ARCHITECTURES
from notbugs.models.classifier import Model
from notbugs.models.factory import build
from notbugs.models.libraries import is_library_name
from notbugs.models.reading import Options

MOST_DESCRIPTION = 2**24  # bytes of a .json file; one of a thousand classes has 20,000
MOST_PIXELS = 3 * 2**24  # values of an image for which a network was built: 4096 x 4096 pixels


@dataclass(frozen=True)
class CheckpointMetadata:
    """What the description of a checkpoint says besides the architecture; fields that it lacks have their defaults.

    Attributes
    ----------
    classes : tuple of str or None
        Names of its outputs, in order.
    trained_on : str
        The training set.
    seed : int or None
    norm, epsilon : str, float or None
        Of adversarial training, or of the attacks that the model was evaluated with.
    notes : tuple of str
        What was decided in building or loading the model: one sentence each.
    """

    classes: tuple[str, ...] | None = None
    trained_on: str = ""
    seed: int | None = None
    norm: str = ""
    epsilon: float | None = None
    notes: tuple[str, ...] = ()


def check_writable(path: StrPath) -> None:
    """Raise InputError if a model cannot be saved at `path`; called before training, not after."""
    path = Path(path)
    check_no_device(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(str(path), "cannot be written", error.strerror or one_line(error)) from None


def save(model: Model, path: StrPath, **metadata: object) -> None:
    """Save weights to `path` (.safetensors), and architecture and metadata to the .json beside it; both files or neither.

    Parameters
    ----------
    model : Model
    path : str or path
    **metadata
        Anything that JSON can hold, e.g. classes.

    Raises
    ------
    InputError
        If the files cannot be written.
    """
    path = Path(path)
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    weights, description = part_of(path), part_of(path)
    # copied: safetensors refuses weights that two layers share
    tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(tensors, weights)
            description.write_text(json.dumps({"architecture": model.architecture, **metadata}, indent=1), encoding="utf-8")
            weights.chmod(description.stat().st_mode & 0o777)  # as the umask has it: save_file lets nobody else read
            sync(weights)
            sync(description)
            path.unlink(missing_ok=True)  # an earlier model's: a new description must never stand beside old weights
            os.replace(description, path.with_suffix(".json"))
            os.replace(weights, path)
        finally:
            weights.unlink(missing_ok=True)
            description.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:  # the latter is raised when the disk is full
        raise InputError(str(path), "cannot be written", getattr(error, "strerror", None) or one_line(error)) from None


def load(path: StrPath, network: str | None = None) -> tuple[Model, CheckpointMetadata]:
    """Load a model that `save` wrote, in evaluation mode, and its metadata.

    Parameters
    ----------
    path : str or path
        The .safetensors file.
    network : str, optional
        The `module:function` that the description names. Building it runs that code, so a file alone cannot cause it.

    Raises
    ------
    InputError
        If a file is missing, damaged or of another kind, or if the weights do not fit.
    """
    path = Path(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description = _description(path)
    rule = "is not the description of a model that can be built"
    fits = f"is damaged, or does not fit the network of {description.name}"
    try:
        shapes = weight_shapes(path)
    except (RuntimeError, SafetensorError, OSError) as error:
        raise InputError(str(path), fits, one_line(error)) from None
    try:
        metadata = json.loads(read_at_most(description, MOST_DESCRIPTION))
        architecture = _architecture(metadata["architecture"], sum(map(math.prod, shapes.values())))
        name = str(architecture["name"])
        if ":" in name and name != network and not is_library_name(name):
            raise InputError(str(description), "asks to run code", repr(name), f"if you trust it, pass --network {name}")
        model, other = _built(architecture, shapes)
    except InputError as error:
        if error.args[0] == str(description):
            raise
        raise InputError(str(description), rule, one_line(error)) from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, AssertionError) as error:
        raise InputError(str(description), rule, one_line(error)) from None
    if model is None:
        raise InputError(str(path), fits, other)
    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise InputError(str(path), fits, one_line(error)) from None
    return model.eval(), _parsed(metadata)


def weight_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a .safetensors file, by name; it raises an error unless the file is as long as they claim."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # it is no dictionary


def _architecture(given: object, weights: int) -> Options:
    """What a description says of the network, its types checked. weights: numbers in the file, of which each output has one.

    Raises
    ------
    TypeError, ValueError
        For what cannot be so.
    """
    if not isinstance(given, dict) or not {"name", "shape", "classes"} <= {*given} <= {*ARCHITECTURE}:
        raise TypeError(f"architecture: it must have name, shape and classes, and at most {', '.join(ARCHITECTURE)}")
    for key, value in given.items():
        if not ARCHITECTURE[key](value):
            raise TypeError(f"architecture: {key} cannot be {str(value)[:40]!r}")
    if given["classes"] > weights or math.prod(given["shape"]) > MOST_PIXELS:
        raise ValueError(f"{given['classes']} classes of images {given['shape']}, but {weights:,} weights in the file")
    return given


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_count, value))


def _are_numbers(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(type(each) in (int, float) for each in value))


ARCHITECTURE: Mapping[str, Callable[[object], bool]] = {  # what `build` is called with
    "name": lambda value: isinstance(value, str) and value.isprintable(),
    "shape": _is_shape,
    "classes": _is_count,
    "width": lambda value: value is None or _is_count(value),
    "mean": _are_numbers,
    "std": _are_numbers,
    "options": lambda value: value is None or isinstance(value, dict),
    "layer": lambda value: value is None or isinstance(value, str),
}


def _built(architecture: Options, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Model | None, str]:
    """The network, without its weights; None, and why, if it does not fit their shapes. Only what fits takes memory.

    A network of ours is built on the device `meta`, where it takes none. Those of other packages cannot all be, and a function of
    the user's is trusted.
    """
    if architecture["name"] not in ARCHITECTURES:
        return build(**architecture), ""
    with torch.device("meta"):
        model = build(**architecture)
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    other = next((name for name in {**own, **shapes} if own.get(name) != shapes.get(name)), None)
    if other is None:
        return model.to_empty(device="cpu"), ""
    if other in own and other in shapes:
        return None, f"a size mismatch: {other} of {shapes[other]}, in the network of {own[other]}"
    return None, f"{'Missing' if other in own else 'Unexpected'} weights, {other}"


def _parsed(metadata: Mapping[str, object]) -> CheckpointMetadata:
    """The metadata of a description; what has another type than expected is ignored."""
    classes, trained_on, seed, notes = (metadata.get(name) for name in ("classes", "trained_on", "seed", "notes"))
    training = metadata.get("training")
    norm, epsilon = (training.get(name) if isinstance(training, dict) else None for name in ("norm", "epsilon"))
    return CheckpointMetadata(
        classes=tuple(map(str, classes)) if isinstance(classes, list) else None,
        trained_on=trained_on if isinstance(trained_on, str) else "",
        seed=seed if isinstance(seed, int) else None,
        norm=norm if isinstance(norm, str) else "",
        epsilon=float(epsilon) if isinstance(epsilon, int | float) else None,
        notes=tuple(map(str, notes)) if isinstance(notes, list) else (),
    )


def _description(path: Path) -> Path:
    """The .json file beside a checkpoint; raises InputError unless both are there."""
    if not path.is_file():
        known = path.suffix in ("", ".safetensors", ".json")
        remedy = "give the .safetensors file of models/ in a run folder" if known else "there is no such file"
        raise InputError(str(path), "no such model", remedy=remedy)
    if path.suffix != ".safetensors":
        rule = "must be a .safetensors file; pickles can run code and are not loaded"
        remedy = "save the weights with safetensors.torch.save_file(network.state_dict(), …)"
        raise InputError(str(path), rule, path.suffix or "no suffix", remedy)
    description = path.with_suffix(".json")
    if not description.is_file():
        raise InputError(str(path), f"needs {description.name} beside it, which describes the network")
    return description
