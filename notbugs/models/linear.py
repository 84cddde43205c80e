"""Linear classifiers and perceptrons of scikit-learn as networks: what an estimator computes, in closed form, with gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Estimator = Any  # a classifier of scikit-learn, or of a library with its interface
Scores = Callable[[np.ndarray], np.ndarray | None]  # rows of pixels (N, D) in [0, 1] -> scores (N, K), None: it has none

PROBES = 16  # random rows on which a function must be affine
ROWS = 256  # rows of the unit matrix at a time: all of them take a gigabyte for 3 x 64 x 64 pixels
MOST_PIXELS = 20_000  # with more, the columns of the matrix take minutes
TOLERANCE = 1e-6  # of the largest score


def closed_form(estimator: Estimator, scores: Scores) -> nn.Module | None:
    """A network of flattened pixels with the scores of a fitted estimator, or None if it is of another kind.

    Whatever has affine scores is found by what it computes, not by its name: logistic regression, linear support vector machines,
    ridge classifiers, linear discriminant analysis, perceptrons, one-vs-rest of these, alone or behind steps that are affine on
    [0, 1], as scaling, PCA and selection are. An `MLPClassifier`, alone or behind such steps, is rebuilt from its weights.

    Parameters
    ----------
    estimator : scikit-learn classifier
    scores : callable
        Its scores: rows (N, D) in [0, 1] to (N, K).

    Examples
    --------
    >>> from sklearn.linear_model import RidgeClassifier
    >>> rows = np.random.default_rng(0).random((20, 4))
    >>> ridge = RidgeClassifier().fit(rows, rows[:, 0] > 0.5)
    >>> closed_form(ridge, lambda rows: ridge.decision_function(rows)[:, None])
    Linear(in_features=4, out_features=1, bias=True)
    """
    pixels = getattr(estimator, "n_features_in_", None)
    if not isinstance(pixels, int) or not 0 < pixels <= MOST_PIXELS:
        return None
    try:
        return affine(scores, pixels) or _perceptron(estimator, pixels)
    except (ValueError, TypeError, AttributeError, IndexError):  # it does not take such rows
        return None


def affine(function: Scores, pixels: int) -> nn.Linear | None:
    """The matrix and the offset of an affine function, from its values at 0 and at each unit vector; None if it is not affine.

    Parameters
    ----------
    function : callable
        Rows (N, D) in [0, 1] to values (N, K).
    pixels : int
        D. Above 20,000 it is not tried: None.
    """
    if pixels > MOST_PIXELS:
        return None
    probes = np.random.default_rng(0).random((2 * PROBES, pixels), dtype=np.float32)
    values = function(probes)
    if values is None or values.ndim != 2 or not np.isfinite(values).all():
        return None
    middle = function((probes[:PROBES] + probes[PROBES:]) / 2)
    size = TOLERANCE * max(1.0, float(np.abs(values).max()))
    if middle is None or np.abs(values[:PROBES] + values[PROBES:] - 2 * middle).max() > 8 * size:  # float32 rows are rounded
        return None
    offset = function(np.zeros((1, pixels), np.float32))
    found = [function(np.eye(min(ROWS, pixels - start), pixels, start, np.float32)) for start in range(0, pixels, ROWS)]
    parts = [part for part in found if part is not None]
    if offset is None or len(parts) < len(found):
        return None
    matrix: np.ndarray = np.concatenate(parts) - offset
    if not matrix.any() or np.abs(probes.astype(np.float64) @ matrix + offset - values).max() > 100 * size:
        return None  # constant scores have no use for gradients
    return _linear(matrix, offset[0])


def _linear(matrix: np.ndarray, offset: np.ndarray) -> nn.Linear:
    """A layer with this matrix (D, K) and offset (K,)."""
    layer = nn.Linear(matrix.shape[0], matrix.shape[1])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(matrix.T)))
        layer.bias.copy_(torch.from_numpy(offset))
    return layer


ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "logistic": nn.Sigmoid, "identity": nn.Identity}


def _perceptron(estimator: Estimator, pixels: int) -> nn.Module | None:
    """An `MLPClassifier`, behind affine steps if it is the last of a pipeline."""
    last, layers = estimator, list[nn.Module]()
    if hasattr(estimator, "steps") and len(estimator.steps) > 1:
        last = estimator.steps[-1][1]
        if not hasattr(last, "coefs_"):
            return None
        before = affine(lambda rows: np.asarray(estimator[:-1].transform(rows), dtype=np.float64), pixels)
        if before is None:
            return None
        layers.append(before)
    if not hasattr(last, "coefs_") or last.activation not in ACTIVATIONS:
        return None
    for matrix, offset in zip(last.coefs_, last.intercepts_, strict=True):
        layers += [_linear(matrix, offset), ACTIVATIONS[last.activation]()]
    return nn.Sequential(*layers[:-1], _LogProbabilities())


class _LogProbabilities(nn.Module):
    """Logarithms of the softmax; of a single output, that of a logistic function and of its complement.

    Values below the logarithm of 1e-12 are those of the black box, which ends there; their gradients go on.
    """

    def forward(self, outputs: Tensor) -> Tensor:
        if outputs.shape[1] == 1:
            outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
        logarithms = outputs.log_softmax(1)
        return logarithms + (logarithms.clamp_min(float(np.log(1e-12))) - logarithms).detach()
