"""Classifiers on disk: weights without pickles, and beside them what network they are."""

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from notbugs.errors import InputError
from notbugs.models.classifier import Model
from notbugs.models.factory import build, one_line


def check_writable(path: Path) -> None:
    """Raises BadInput where no model could be saved; asked before training, not after."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(str(path), "cannot be written", error.strerror or one_line(error)) from None


def save(model: Model, path: Path, **facts: Any) -> None:
    """Weights to `path` (.safetensors), architecture and `facts` to the .json beside it; both appear whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    weights, words = path.with_suffix(".safetensors.part"), path.with_suffix(".json.part")
    # copied: safetensors refuses weights that two layers share
    tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(tensors, weights)
            words.write_text(json.dumps({"architecture": model.architecture, **facts}, indent=1))
            path.unlink(missing_ok=True)  # an earlier model's: new words must never stand beside old weights
            os.replace(words, path.with_suffix(".json"))
            os.replace(weights, path)
        finally:
            weights.unlink(missing_ok=True)
            words.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:  # the latter carries a full disk
        raise InputError(str(path), "cannot be written", getattr(error, "strerror", None) or one_line(error)) from None


def load(path: Path, network: str | None = None) -> tuple[Model, dict[str, Any]]:
    """The network `save` wrote, and its facts. Raises BadInput: a missing, foreign or damaged file, weights that do not fit.

    network: the `module:function` that the file is expected to name. Building it runs that code, so a file alone cannot ask it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(str(path), "no such model", remedy="give the .safetensors file of models/ in a run folder")
    words = path.with_suffix(".json")
    if path.suffix != ".safetensors":
        raise InputError(
            str(path),
            "must be a .safetensors file; pickles can run code and are not read",
            path.suffix or "no ending",
            "save the weights with safetensors.torch.save_file(network.state_dict(), …)",
        )
    if not words.is_file():
        raise InputError(str(path), f"needs {words.name} beside it, which says what network it is")
    try:
        facts = json.loads(words.read_text())
        wanted = facts["architecture"]["name"]
        trusted = ":" not in wanted or wanted == network
        model = build(**facts["architecture"]) if trusted else None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise InputError(str(words), "is not the description of a model that can be built", one_line(error)) from None
    if model is None:
        raise InputError(str(words), "asks to run code", repr(wanted), f"if you trust it, say --network {wanted}")
    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise InputError(str(path), f"is damaged, or does not fit the network of {words.name}", one_line(error)) from None
    return model.eval(), facts
