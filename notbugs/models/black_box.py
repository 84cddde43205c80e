"""Classifiers that are no networks of ours: functions, scikit-learn estimators, ONNX files. Seen as models without gradients."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from notbugs.errors import InputError
from notbugs.models import checkpoint, factory

Function = Callable[[np.ndarray], Any]  # images, float32 (n, C, H, W) in [0, 1] -> logits (n, K), or class indices or names (n,)


class BlackBox(nn.Module):
    """A function as a model: images (n, C, H, W) -> logits (n, K) on the images' device; it has no gradients.

    function: takes a float32 array (n, C, H, W) in [0, 1]; returns an array or tensor of logits (n, K), or of predicted classes
    (n,), integers or names, which become logits of 1 for that class and -1 for all others. What it raises goes through.
    """

    def __init__(self, function: Function, classes: Sequence[str]) -> None:
        super().__init__()
        self.function, self.classes = function, tuple(classes)

    def forward(self, images: Tensor) -> Tensor:
        answer = self.function(images.detach().cpu().float().numpy().copy())  # it may work in place
        if isinstance(answer, Tensor):
            answer = answer.detach().cpu().numpy()
        answer, wanted = np.asarray(answer), (len(images), len(self.classes))
        if answer.shape == wanted[:1] and answer.dtype.kind in "iuUO":
            index = torch.from_numpy(_indices(answer, self.classes))
            return (2 * nn.functional.one_hot(index, wanted[1]).float() - 1).to(images.device)
        if answer.shape != wanted or answer.dtype.kind not in "fiu":
            got = f"{answer.dtype} {answer.shape}"
            raise InputError(
                "model", f"must return logits of shape {wanted}, or class indices or names of shape {wanted[:1]}", got
            )
        return torch.from_numpy(answer.astype(np.float32)).to(images.device)


def from_sklearn(estimator: Any, classes: Sequence[str]) -> BlackBox:
    """A fitted scikit-learn classifier or pipeline, which is given pixels in rows: (n, C x H x W).

    Its decision function, or the logarithms of its probabilities, or its bare predictions. Where the first two disagree with
    what it predicts, as those of support vector machines may, its prediction gets the highest score.
    """
    own = getattr(estimator, "classes_", None)
    if own is None:
        raise InputError("model", "must be a fitted scikit-learn classifier", type(estimator).__name__, "call its fit first")
    places = _indices(np.asarray(own), classes)

    def answer(images: np.ndarray) -> np.ndarray:
        rows = images.reshape(len(images), -1)
        predicted = _indices(np.asarray(estimator.predict(rows)), classes)
        scores = _scores(estimator, rows)
        if scores is None or scores.shape != (len(rows), len(places)):
            return predicted
        logits = np.full((len(rows), len(classes)), scores.min() - 1.0)
        logits[:, places] = scores
        top = np.arange(len(rows)), predicted
        others = logits.copy()
        others[top] = -np.inf
        second = others.max(1)
        logits[top] = np.maximum(logits[top], second + 1e-3 * np.abs(second) + 1e-6)
        return logits

    return BlackBox(answer, classes)


def from_onnx(path: Path, classes: Sequence[str]) -> BlackBox:
    """An ONNX file, run by onnxruntime: one input of images (N x C x H x W, N x H x W x C or flat), in [0, 1] or 8 bits.

    Its first output of N x K numbers, or where there is none its first of N class indices or names.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError(str(path), "needs onnxruntime to run", remedy="pip install onnxruntime") from None
    if not path.is_file():
        raise InputError(str(path), "no such model")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has classes of its own for each kind of damage
        raise InputError(str(path), "is no ONNX model that onnxruntime can run", " ".join(str(error).split())[:200]) from None
    if len(session.get_inputs()) != 1:
        raise InputError(str(path), "must have one input, the images", len(session.get_inputs()))
    entry = session.get_inputs()[0]
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
    if entry.type not in kinds or len(entry.shape) not in (2, 4):
        raise InputError(str(path), "must take images, N x C x H x W, N x H x W x C or flat", f"{entry.type} {entry.shape}")
    dtype, fixed = kinds[entry.type], entry.shape[0] if isinstance(entry.shape[0], int) and entry.shape[0] > 0 else 0

    def run(batch: np.ndarray) -> np.ndarray:
        outputs = [np.asarray(one) for one in session.run(None, {entry.name: batch}) if not isinstance(one, list)]
        for one in outputs:
            if one.ndim == 2 and one.dtype.kind == "f":
                return one
        for one in outputs:
            if one.ndim == 1:
                return one
        raise InputError(str(path), "must give logits, N x K, or class indices, N", [one.shape for one in outputs])

    def answer(images: np.ndarray) -> np.ndarray:
        channels = images.shape[1]
        if len(entry.shape) == 2:
            images = images.reshape(len(images), -1)
        elif entry.shape[1] != channels and entry.shape[3] == channels:
            images = images.transpose(0, 2, 3, 1)
        batch = np.ascontiguousarray((images * 255).round() if dtype is np.uint8 else images).astype(dtype)
        if not fixed:
            return run(batch)
        parts = []
        for start in range(0, len(batch), fixed):
            part = batch[start : start + fixed]
            filled = np.concatenate([part, np.repeat(part[-1:], fixed - len(part), 0)])
            parts.append(run(filled)[: len(part)])
        return np.concatenate(parts) if parts else np.zeros((0, len(classes)), np.float32)

    return BlackBox(answer, classes)


def load_classifier(name: str, *, classes: Sequence[str], network: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """A classifier by name, and what is known of it: a .safetensors file of ours, an .onnx file, or `module:function`.

    module:function: called with classes=K; returns a trained torch network of pixels in [0, 1], a fitted scikit-learn classifier,
    or a function for `BlackBox`. Naming it runs that code. network: as in `models.load`. Raises BadInput.
    """
    if name.endswith(".onnx"):
        return from_onnx(Path(name), classes), {}
    module, colon, function = name.partition(":")
    if not colon or Path(name).exists() or not all(part.isidentifier() for part in [*module.split("."), *function.split(".")]):
        return checkpoint.load(Path(name), network)
    made = factory.user_object(name, len(classes), "MODEL")
    if isinstance(made, nn.Module):
        return made.eval(), {}
    if hasattr(made, "predict"):
        return from_sklearn(made, classes), {}
    if not callable(made):
        rule = f"{name} must return a network, a scikit-learn classifier or a function of images"
        raise InputError("MODEL", rule, type(made).__name__)
    return BlackBox(made, classes), {}


def _scores(estimator: Any, rows: np.ndarray) -> np.ndarray | None:
    if hasattr(estimator, "decision_function"):
        found = np.asarray(estimator.decision_function(rows), dtype=np.float64)
        return np.stack([-found, found], axis=1) / 2 if found.ndim == 1 else found
    if hasattr(estimator, "predict_proba"):
        return np.log(np.maximum(np.asarray(estimator.predict_proba(rows), dtype=np.float64), 1e-12))
    return None


def _indices(names: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Class indices of what a classifier predicts: integers as they are, names by their place."""
    if names.dtype.kind in "iu":
        found = names.astype(np.int64)
    else:
        place = {name: number for number, name in enumerate(classes)}
        found = np.array([place.get(str(name), -1) for name in names.tolist()], dtype=np.int64)
    if len(found) and not (found.min() >= 0 and found.max() < len(classes)):
        odd = names[(found < 0) | (found >= len(classes))][0]
        raise InputError(
            "model", f"must predict one of the classes {', '.join(classes[:12])}, or their indices", repr(odd.item())
        )
    return found
