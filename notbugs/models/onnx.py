"""ONNX files as models without gradients."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from notbugs.errors import InputError
from notbugs.models.black_box import BlackBox


def from_onnx(path: Path, classes: Sequence[str]) -> BlackBox:
    """An ONNX file, run by onnxruntime on the CPU.

    Logits are its first output of shape N x K, or else its first output of N class indices or names.

    Parameters
    ----------
    path : Path
        A model with one input: images N x C x H x W, N x H x W x C or flattened, in [0, 1] or in 8 bits.
    classes : sequence of str
        Names of the K classes.

    Raises
    ------
    InputError
        If onnxruntime is not installed, or the file is missing or has another input.
    """
    session = _session(path)
    if len(session.get_inputs()) != 1:
        raise InputError(str(path), "must have one input, the images", len(session.get_inputs()))
    entry = session.get_inputs()[0]
    dtypes = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
    if entry.type not in dtypes or len(entry.shape) not in (2, 4):
        raise InputError(str(path), "must take images, N x C x H x W, N x H x W x C or flat", f"{entry.type} {entry.shape}")
    dtype, batch_size = dtypes[entry.type], entry.shape[0] if isinstance(entry.shape[0], int) and entry.shape[0] > 0 else 0

    def outputs(images: np.ndarray) -> np.ndarray:
        channels = images.shape[1]
        if len(entry.shape) == 2:
            images = images.reshape(len(images), -1)
        elif entry.shape[1] != channels and entry.shape[3] == channels:
            images = images.transpose(0, 2, 3, 1)
        inputs = np.ascontiguousarray((images * 255).round() if dtype is np.uint8 else images).astype(dtype)
        if not batch_size:
            return _outputs(session, inputs, path)
        parts = []
        for start in range(0, len(inputs), batch_size):
            part = inputs[start : start + batch_size]
            padded = np.concatenate([part, np.repeat(part[-1:], batch_size - len(part), 0)])
            parts.append(_outputs(session, padded, path)[: len(part)])
        return np.concatenate(parts) if parts else np.zeros((0, len(classes)), np.float32)

    return BlackBox(outputs, classes)


def _session(path: Path) -> Any:
    """An onnxruntime session of a file."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(str(path), "needs onnxruntime to run", remedy="pip install onnxruntime") from None
    if not path.is_file():
        raise InputError(str(path), "no such model")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own exception class for each kind of damage
        raise InputError(str(path), "is no ONNX model that onnxruntime can run", " ".join(str(error).split())[:200]) from None


def _outputs(session: Any, inputs: np.ndarray, path: Path) -> np.ndarray:
    """The session's first output of shape N x K, or else its first of shape N."""
    outputs = [np.asarray(one) for one in session.run(None, {session.get_inputs()[0].name: inputs}) if not isinstance(one, list)]
    for one in outputs:
        if one.ndim == 2 and one.dtype.kind == "f":
            return one
    for one in outputs:
        if one.ndim == 1:
            return one
    raise InputError(str(path), "must give logits, N x K, or class indices, N", [one.shape for one in outputs])
