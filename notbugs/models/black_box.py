"""Black boxes: functions, scikit-learn estimators and ONNX files as models without gradients."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from notbugs.errors import InputError
from notbugs.models import checkpoint, factory
from notbugs.models.checkpoint import CheckpointMetadata

Function = Callable[[np.ndarray], Any]  # images, float32 (N, C, H, W) in [0, 1] -> logits (N, K), or class indices or names (N,)


class BlackBox(nn.Module):
    """A function as a model: images (N, C, H, W) to logits (N, K) on the images' device, without gradients.

    Parameters
    ----------
    function : callable
        Takes a float32 array (N, C, H, W) in [0, 1]. Returns an array or tensor of logits (N, K), or predictions (N,) as class
        indices or names, which become logits of 1 for that class and -1 for all others.
    classes : sequence of str
        Names of the K classes.

    Raises
    ------
    InputError
        From `forward`, if the function returns anything else. What the function raises is not caught.

    Examples
    --------
    >>> model = BlackBox(lambda images: images.mean((1, 2, 3)).round().astype(int), ("dark", "bright"))
    >>> model(torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """

    def __init__(self, function: Function, classes: Sequence[str]) -> None:
        super().__init__()
        self.function, self.classes = function, tuple(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, K)."""
        outputs = self.function(images.detach().cpu().float().numpy().copy())  # a copy: the function may work in place
        if isinstance(outputs, Tensor):
            outputs = outputs.detach().cpu().numpy()
        outputs, shape = np.asarray(outputs), (len(images), len(self.classes))
        if outputs.shape == shape[:1] and outputs.dtype.kind in "iuUO":
            predicted = torch.from_numpy(_indices(outputs, self.classes))
            return (2 * nn.functional.one_hot(predicted, shape[1]).float() - 1).to(images.device)
        if outputs.shape != shape or outputs.dtype.kind not in "fiu":
            rule = f"must return logits of shape {shape}, or class indices or names of shape {shape[:1]}"
            raise InputError("model", rule, f"{outputs.dtype} {outputs.shape}")
        return torch.from_numpy(outputs.astype(np.float32)).to(images.device)


def from_sklearn(estimator: Any, classes: Sequence[str]) -> BlackBox:
    """A fitted scikit-learn classifier or pipeline of flattened pixels, (N, C * H * W).

    Logits are its decision function, or else its log-probabilities, or else its predictions. Where the first two disagree with
    its prediction, as those of support vector machines may, the predicted class gets the highest logit.

    Parameters
    ----------
    estimator : scikit-learn classifier
    classes : sequence of str
        Names of the K classes; the estimator predicts names or indices of these.

    Raises
    ------
    InputError
        If the estimator is not fitted or predicts other classes.
    """
    known = getattr(estimator, "classes_", None)
    if known is None:
        raise InputError("model", "must be a fitted scikit-learn classifier", type(estimator).__name__, "call its fit first")
    columns = _indices(np.asarray(known), classes)

    def outputs(images: np.ndarray) -> np.ndarray:
        rows = images.reshape(len(images), -1)
        predicted = _indices(np.asarray(estimator.predict(rows)), classes)
        scores = _scores(estimator, rows)
        if scores is None or scores.shape != (len(rows), len(columns)):
            return predicted
        logits = np.full((len(rows), len(classes)), scores.min() - 1.0)
        logits[:, columns] = scores
        return _raise_predicted(logits, predicted)

    return BlackBox(outputs, classes)


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
    session = _onnx_session(path)
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
            return _onnx_outputs(session, inputs, path)
        parts = []
        for start in range(0, len(inputs), batch_size):
            part = inputs[start : start + batch_size]
            padded = np.concatenate([part, np.repeat(part[-1:], batch_size - len(part), 0)])
            parts.append(_onnx_outputs(session, padded, path)[: len(part)])
        return np.concatenate(parts) if parts else np.zeros((0, len(classes)), np.float32)

    return BlackBox(outputs, classes)


def load_classifier(name: str, *, classes: Sequence[str], network: str | None = None) -> tuple[nn.Module, CheckpointMetadata]:
    """A classifier by name, and its metadata if it is a checkpoint.

    Parameters
    ----------
    name : str
        A .safetensors file that `models.save` wrote, an .onnx file, or `module:function`. The function is called with classes=K
        and returns a trained network of pixels in [0, 1], a fitted scikit-learn classifier, or a function for `BlackBox`. Naming
        it runs that code.
    classes : sequence of str
        Names of the K classes.
    network : str, optional
        As in `models.load`.

    Raises
    ------
    InputError
        If there is no such classifier or it cannot be used.
    """
    if name.endswith(".onnx"):
        return from_onnx(Path(name), classes), CheckpointMetadata()
    module, colon, function = name.partition(":")
    if not colon or Path(name).exists() or not all(part.isidentifier() for part in [*module.split("."), *function.split(".")]):
        return checkpoint.load(Path(name), network)
    classifier = factory.user_object(name, len(classes), "MODEL")
    if isinstance(classifier, nn.Module):
        return classifier.eval(), CheckpointMetadata()
    if hasattr(classifier, "predict"):
        return from_sklearn(classifier, classes), CheckpointMetadata()
    if not callable(classifier):
        rule = f"{name} must return a network, a scikit-learn classifier or a function of images"
        raise InputError("MODEL", rule, type(classifier).__name__)
    return BlackBox(classifier, classes), CheckpointMetadata()


def _scores(estimator: Any, rows: np.ndarray) -> np.ndarray | None:
    """Decision function or log-probabilities, (N, classes), or None if the estimator has neither."""
    if hasattr(estimator, "decision_function"):
        scores = np.asarray(estimator.decision_function(rows), dtype=np.float64)
        return np.stack([-scores, scores], axis=1) / 2 if scores.ndim == 1 else scores
    if hasattr(estimator, "predict_proba"):
        return np.log(np.maximum(np.asarray(estimator.predict_proba(rows), dtype=np.float64), 1e-12))
    return None


def _raise_predicted(logits: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Logits in which the predicted class has the highest value, by a small margin at least."""
    entries = np.arange(len(logits)), predicted
    others = logits.copy()
    others[entries] = -np.inf
    highest = others.max(1)
    logits[entries] = np.maximum(logits[entries], highest + 1e-3 * np.abs(highest) + 1e-6)
    return logits


def _indices(predictions: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Class indices of predictions, which are indices or names."""
    if predictions.dtype.kind in "iu":
        indices = predictions.astype(np.int64)
    else:
        numbers = {name: number for number, name in enumerate(classes)}
        indices = np.array([numbers.get(str(name), -1) for name in predictions.tolist()], dtype=np.int64)
    if len(indices) and not (indices.min() >= 0 and indices.max() < len(classes)):
        unknown = predictions[(indices < 0) | (indices >= len(classes))][0]
        rule = f"must predict one of the classes {', '.join(classes[:12])}, or their indices"
        raise InputError("model", rule, repr(unknown.item()))
    return indices


def _onnx_session(path: Path) -> Any:
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


def _onnx_outputs(session: Any, inputs: np.ndarray, path: Path) -> np.ndarray:
    """The session's first output of shape N x K, or else its first of shape N."""
    outputs = [np.asarray(one) for one in session.run(None, {session.get_inputs()[0].name: inputs}) if not isinstance(one, list)]
    for one in outputs:
        if one.ndim == 2 and one.dtype.kind == "f":
            return one
    for one in outputs:
        if one.ndim == 1:
            return one
    raise InputError(str(path), "must give logits, N x K, or class indices, N", [one.shape for one in outputs])
