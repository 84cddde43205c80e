"""Black boxes: functions and scikit-learn estimators as models without gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from notbugs.errors import InputError

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
