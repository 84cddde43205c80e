"""Files of PyTorch: weights, TorchScript, exported programs. Nothing is unpickled that could run code.

What cannot be loaded so is refused with the way out: whole pickled networks, estimators of scikit-learn, other frameworks.
"""

import argparse
import builtins
import datetime
import importlib
import io
import json
import logging
import re
import struct
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from notbugs.data.names import printable
from notbugs.data.sources.limits import check_members, is_zip
from notbugs.data.sources.tensors import holds_its_values, load_saved
from notbugs.decoding.foreign import BEGIN, foreign_content
from notbugs.errors import InputError, one_line

Weights = Mapping[str, Tensor]
Kind = Literal["", "TorchScript", "an exported program"]
WEIGHTS_KEYS = ("state_dict", "model_state_dict", "model", "net", "weights", "module")  # under which checkpoints hold them
BOOSTER = "return the fitted estimator from a function of yours: module:function"
NO_WEIGHTS = ("optim", "sched", "scaler", "loops", "callbacks", "rng", "hyper_parameters")  # other parts of checkpoints
HARMLESS = {"abs", "float", "int", "max", "min", "pow", "round"}  # built-in functions that a size may be computed with
# Operators with the name of a file as an argument: aten::from_file makes and changes files, aten::save writes them
FILE_OPERATORS = re.compile(r"\b(?:from_file|load_tensor|save)\b[.\w]*\s*\(")
# PyTorch's own operators may begin with one _, as aten._softmax of decomposed programs; aten._print writes what it is given
OPERATOR = re.compile(
    r"torch\.ops\.(?:aten\._(?!_|print\b|dir\b)\w+|[a-zA-Z]\w*\.(?!_)\w+)(?:\.(?!__)\w+)?"
    r"|torch\._?sym_\w+|_operator\.[a-z]\w*|math\.[a-z]\w*|#.*"
)
OWN_CODE = "give the network's weights and --network module:function"
SKOPS = "save it with skops: skops.io.dump(estimator, 'model.skops')"
OTHER_KINDS = {
    ".joblib": ("an estimator of scikit-learn", SKOPS),
    ".pkl": ("a pickle", f"{SKOPS}, or the weights of a network with torch.save(network.state_dict(), 'weights.pt')"),
    ".pickle": ("a pickle", f"{SKOPS}, or the weights of a network with torch.save(network.state_dict(), 'weights.pt')"),
    ".h5": ("a model of Keras", "export it: model.export('model.onnx', format='onnx')"),
    ".keras": ("a model of Keras", "export it: model.export('model.onnx', format='onnx')"),
    ".pb": ("a graph of TensorFlow", "convert it: python -m tf2onnx.convert --saved-model FOLDER --output model.onnx"),
    ".tflite": ("a model of TensorFlow Lite", "convert it: python -m tf2onnx.convert --tflite FILE --output model.onnx"),
    ".xml": ("a model of OpenVINO", "give the .onnx file or the network that it was made from"),
    ".msgpack": ("weights of Flax", "convert the network to PyTorch or ONNX"),
    ".pdparams": ("weights of Paddle", "convert the model: paddle2onnx --model_dir FOLDER --save_file model.onnx"),
    ".pdmodel": ("a model of Paddle", "convert it: paddle2onnx --model_dir FOLDER --save_file model.onnx"),
    ".caffemodel": ("weights of Caffe", "convert the network to ONNX"),
    ".gguf": ("a model of llama.cpp", "give the network that it was made from"),
    ".npz": ("arrays of NumPy", "torch.save({name: torch.from_numpy(array), …}, 'weights.pt') and pass --network"),
    ".npy": ("an array of NumPy", "give the weights of a network as torch.save or safetensors write them"),
    ".cbm": ("a model of CatBoost", BOOSTER),
    ".ubj": ("a model of XGBoost", BOOSTER),
    ".lgb": ("a model of LightGBM", BOOSTER),
    ".json": ("JSON", f"of XGBoost: {BOOSTER}; of weights in several files: put them into one .safetensors"),
    ".txt": ("text", f"of LightGBM: {BOOSTER}"),
    ".engine": ("an engine of TensorRT", "give the .onnx file or the network that it was built from"),
    ".mlmodel": ("a model of Core ML", "give the .onnx file or the network that it was made from"),
}
FOLDERS = {  # by a file in them
    "saved_model.pb": OTHER_KINDS[".pb"],
    "Manifest.json": OTHER_KINDS[".mlmodel"],
    "model.safetensors.index.json": ("a folder of Hugging Face in several files", "pass hf:FOLDER"),
    "config.json": ("a folder of Hugging Face transformers", "pass hf:FOLDER"),
}


class Program(NamedTuple):
    """A network that a file holds whole.

    Attributes
    ----------
    network : nn.Module
    batch_size : int or None
        The one number of images that it takes. None: any, or not known.
    words : str
        What it is.
    """

    network: nn.Module
    batch_size: int | None
    words: str


class Checkpoint(NamedTuple):
    """The weights in a file.

    Attributes
    ----------
    weights : dict
    notes : tuple of str
        What was decided: one sentence each.
    """

    weights: Weights
    notes: tuple[str, ...] = ()


def refuse_folder(path: Path) -> None:
    """Raises InputError for a folder, with what it is."""
    found = next((known for file, known in FOLDERS.items() if (path / file).exists()), None)
    kind, remedy = found or ("a folder", "give the file in it")
    raise InputError(str(path), "must be a file of a model", kind, remedy.replace("FOLDER", str(path)))


def load_file(path: Path) -> Program | Checkpoint:
    """The network or the weights in a file.

    Parameters
    ----------
    path : Path
        Of `torch.save` (weights alone), `safetensors`, `torch.jit.save` or `torch.export.save`.

    Raises
    ------
    InputError
        If it is of another kind, damaged, or could run code.
    """
    with path.open("rb") as file:
        begin = file.read(BEGIN)
    if foreign := foreign_content(begin) or (None if begin else ("is empty", "save it again")):
        raise InputError(str(path), "must be a file of a model", f"one that {foreign[0]}", foreign[1])
    if path.suffix == ".safetensors":
        return Checkpoint(_safetensors(path))
    if path.suffix in OTHER_KINDS:
        kind, remedy = OTHER_KINDS[path.suffix]
        code = "; pickles can run code and are not loaded" if path.suffix in (".joblib", ".pkl", ".pickle") else ""
        raise InputError(str(path), f"must be a model of PyTorch, scikit-learn or ONNX{code}", kind, remedy)
    match program_kind(path):
        case "TorchScript":
            return _torchscript(path)
        case "an exported program":
            return _exported(path)
    return _weights(path)


def program_kind(path: Path) -> Kind:
    """What program a file holds, which C++ code of PyTorch reads and runs: TorchScript or an exported one; empty if none."""
    if path.suffix in (".safetensors", *OTHER_KINDS) or not is_zip(path):
        return ""
    with _opened(path) as archive:
        names = [name.partition("/")[2] or name for name in archive.namelist()]
    if any(name.startswith("code/") or name == "constants.pkl" for name in names):
        return "TorchScript"
    exported = ("models/", "data/aotinductor/", "serialized_exported_program")
    return "an exported program" if any(name.startswith(exported) for name in names) else ""


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive that a file of PyTorch is. InputError in place of all that is raised if it is damaged or claims too much."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(path, archive.infolist())
            yield archive
    except InputError:
        raise
    except Exception as error:  # damaged archives raise almost anything
        raise InputError(str(path), "is damaged", one_line(error), "save it again") from None


def _safetensors(path: Path) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_safetensors

    try:
        return load_safetensors(path)
    except (SafetensorError, OSError) as error:
        raise InputError(str(path), "is damaged", one_line(error)) from None


def _torchscript(path: Path) -> Program:
    _check_operators(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript as a whole is deprecated: a FutureWarning in PyTorch 2.14
            program = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # of any damage
        raise InputError(str(path), "must be a TorchScript file that this PyTorch can run", one_line(error)) from None
    return Program(program, None, "TorchScript")


def _check_operators(path: Path) -> None:
    """Raises InputError where the code of a TorchScript file has operators that read or write files, which they do when it runs.

    Its text is what PyTorch compiles; a name that is written there is the only way to an operator.
    """
    with _opened(path) as archive:
        for name in archive.namelist():
            if name.endswith(".py") and (found := FILE_OPERATORS.search(archive.read(name).decode("utf-8", "replace"))):
                raise InputError(str(path), "must not read or write files", found[0].strip(" ("), OWN_CODE)


def _weights(path: Path) -> Checkpoint:
    """Weights of `torch.save`, also inside a checkpoint of a training."""
    import pickle

    try:
        with torch.serialization.safe_globals(_harmless_types()):
            found = load_saved(path)
    except Exception as error:  # pickles and other files fail in many ways
        unknown = re.findall(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and unknown:
            rule = "must hold weights alone; a pickled network can run code and is not loaded"
            remedy = "where it was made: torch.save(network.state_dict(), 'weights.pt'); then pass --network module:function"
            if unknown[0].partition(".")[0] in ("sklearn", "joblib"):
                remedy = SKOPS
            raise InputError(str(path), rule, f"a pickle of {unknown[0]}", remedy) from None
        kinds = "weights, TorchScript or an exported program"
        rule = f"must be a file of PyTorch: {kinds}; other pickles can run code and are not loaded"
        known = is_zip(path) or not isinstance(error, pickle.UnpicklingError | IndexError | struct.error | EOFError)
        got = one_line(error) if known else "something else"
        remedy = "torch.save(network.state_dict(), 'weights.pt')" if known else OTHER_KINDS[".pkl"][1]
        raise InputError(str(path), rule, got, remedy) from None
    return _state(found, path)


def _harmless_types() -> list[Any]:
    """Types that stand beside weights in checkpoints, and do nothing when they are made: options, times, numbers of NumPy."""
    found: list[Any] = [
        argparse.Namespace,
        datetime.datetime,
        datetime.timedelta,
        defaultdict,
        dict,
        Path,
        PosixPath,
        PurePosixPath,
    ]
    found += [np.dtype, np.ndarray, type(np.dtype(np.float64)), type(np.dtype(np.float32)), type(np.dtype(np.int64))]
    core = importlib.import_module("numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray")
    return [*found, core.scalar, (core.scalar, "numpy.core.multiarray.scalar")]


def _state(found: object, path: Path) -> Checkpoint:
    """The weights among what a checkpoint holds: alone, under a usual name, or the only ones there are."""
    sets = dict(_sets_of_weights(found))
    key = next((key for key in ("", *WEIGHTS_KEYS) if key in sets), None)
    if key is None and len(sets) == 1:
        key = next(iter(sets))
    if key is None:
        got = f"several: under {', '.join(sets)}" if sets else type(found).__name__
        if not sets and isinstance(found, Mapping):
            got = f"a dictionary with {', '.join(list(map(str, found))[:8])}"
        first = next(iter(sets), "")
        remedy = "torch.save(network.state_dict(), 'weights.pt')"
        if first:
            remedy = f"save those that you mean: torch.save(torch.load({path.name!r})[{first!r}], 'weights.pt')"
        raise InputError(str(path), "must hold the weights of one network", got, remedy)
    if unreal := next((name for name, value in sets[key].items() if not holds_its_values(value)), None):
        value = sets[key][unreal]
        got = f"{unreal} of shape {tuple(value.shape)} with fewer values, or none"
        raise InputError(
            str(path), "must hold the values of its weights", got, "save network.state_dict() of a network on the CPU"
        )
    others = [other for other in sets if other != key]
    if others:
        note = f"of the weights in its file those under {key} are used, not those under {', '.join(others)}"
    else:
        note = "" if key in ("", *WEIGHTS_KEYS) else f"its weights are those under {key} in its file"
    return Checkpoint(sets[key], (note,) if note else ())


def _sets_of_weights(found: object, place: str = "", depth: int = 0) -> Iterator[tuple[str, Weights]]:
    """The dictionaries of weights in a checkpoint, by their place; those of optimizers are left out."""
    if not isinstance(found, Mapping):
        return
    tensors = {str(name): value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)}
    rest = [value for name, value in found.items() if str(name) not in tensors and not str(name).endswith("_extra_state")]
    if tensors and (len(tensors) > len(rest) or depth):
        yield place, tensors
    elif depth < 2:
        for name, value in found.items():
            if not any(part in str(name).lower() for part in NO_WEIGHTS):
                yield from _sets_of_weights(value, f"{place}.{name}" if place else str(name), depth + 1)


# ---- exported programs -----------------------------------------------------------------------------------------------------


def _exported(path: Path) -> Program:
    try:
        _check_harmless(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own old formats
            with _silent("torch.export"):
                exported = torch.export.load(str(path))
                network = exported.module()
    except InputError:
        raise
    except Exception as error:  # of any damage
        remedy = "export it again with this version of PyTorch"
        raise InputError(str(path), "must be an exported program that this PyTorch can run", one_line(error), remedy) from None
    images = [node for node in exported.graph.nodes if node.name in exported.graph_signature.user_inputs]
    if len(images) != 1:
        raise InputError(str(path), "must have one input, the images", len(images))
    count = images[0].meta["val"].shape[0]
    return Program(network, count if isinstance(count, int) else None, "an exported program")


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Without what a logger says: it prints a traceback of what is refused in one line."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _check_harmless(path: Path) -> None:
    """Raises InputError if a file of `torch.export` holds what could run code: torch would unpickle and evaluate it."""
    with _opened(path) as archive:
        contents = {name.partition("/")[2] or name: archive.read(name) for name in archive.namelist()}
    plain = {name for config in contents if config.endswith("_config.json") for name in _plain_tensors(config, contents[config])}
    for name, content in contents.items():
        if name.startswith("data/aotinductor/"):
            raise InputError(str(path), "must be a program, not compiled code", name, "save it with torch.export.save")
        if name.endswith(".json"):
            _check_expressions(path, content)
            _check_targets(path, json.loads(content))
        elif name not in plain and content[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            try:
                torch.load(io.BytesIO(content), weights_only=True)
            except Exception:
                rule = "must hold tensors alone; pickles can run code and are not loaded"
                raise InputError(str(path), rule, name, OWN_CODE) from None
        elif name.startswith("data/") and name not in plain and content:
            raise InputError(str(path), "must hold tensors alone", name)


def _plain_tensors(config: str, content: bytes) -> Iterator[str]:
    """The entries that are bytes of tensors, and are not unpickled."""
    for entry in json.loads(content).get("config", {}).values():
        if not entry.get("use_pickle") and str(entry.get("path_name")).startswith(("weight_", "tensor_")):
            yield f"{config.rpartition('/')[0]}/{entry['path_name']}"


def _check_expressions(path: Path, content: bytes) -> None:
    """Raises InputError unless what torch evaluates in a program's description, sizes and guards on them, is arithmetic."""
    for expression in _expressions(json.loads(content)):
        bare = re.sub(r"'\w*'|\.(size|stride|storage_offset|dim|numel)\(\)|[\[\]]", "", expression)
        words = set(re.findall(r"[A-Za-z_]\w*", expression))
        unsafe = any("__" in word or (word not in HARMLESS and callable(getattr(builtins, word, None))) for word in words)
        if unsafe or not re.fullmatch(r"[\w\s+\-*/%(),<>=!&|~.]*", bare) or re.search(r"\.\s*[A-Za-z_]", bare):
            raise InputError(str(path), "must have sizes that are arithmetic", repr(expression[:80]))


def _check_targets(path: Path, value: object) -> None:
    """Raises InputError where a description calls anything but operators: a name, torch.os.system, leads to any function."""
    if isinstance(value, dict):
        target = value.get("target")
        if (
            isinstance(target, str)
            and "inputs" in value
            and (not OPERATOR.fullmatch(target) or FILE_OPERATORS.search(f"{target}("))
        ):
            raise InputError(str(path), "must call operators of PyTorch alone", printable(target[:80]), OWN_CODE)
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            _check_targets(path, inner)


def _expressions(value: object) -> Iterator[str]:
    """What torch evaluates in a description of a program."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "expr_str":
                yield str(inner)
            elif key == "guards_code":
                yield from map(str, inner)
            else:
                yield from _expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _expressions(inner)
