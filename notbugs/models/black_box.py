"""Black boxes: functions and scikit-learn estimators as models, and black boxes with the gradients of a surrogate."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from notbugs import search
from notbugs.errors import InputError, one_line
from notbugs.models.linear import Estimator, closed_form
from notbugs.models.reading import read_single, single_as_logits

Function = Callable[[np.ndarray], Any]  # images, float32 (N, C, H, W) in [0, 1] -> logits (N, K), or class indices or names (N,)

MULTI_LABEL = "several labels of an image are not supported: make a classifier of one of them, that label against its opposite"
CHECKED_IMAGES = 64  # the first images that a black box with a surrogate gets: its logits must be those of the surrogate
FEW_IMAGES = 2  # of fewer the gradients are not looked at
DIFFERENT = 1e-3  # share of the spread of the logits: below, a difference is rounding
DIFFERENT_IN_HALF = 1e-2  # the same for a black box that computes in half precision


class BlackBox(nn.Module):
    """A function as a model: images (N, C, H, W) to logits (N, K) on the images' device, without gradients.

    Parameters
    ----------
    function : callable
        Takes a float32 array (N, C, H, W) in [0, 1]. Returns an array or tensor of logits (N, K), or predictions (N,) or (N, 1)
        as class indices or names, which become logits of 1 for that class and -1 for all others. With two classes also one
        score of the second class, if `single` says which.
    classes : sequence of str
        Names of the K classes.
    no_gradient : str
        Why it has no gradients, in a line.

    Attributes
    ----------
    eight_bits : bool
        Whether it converts pixels to 8 bits itself.
    note : str
        What is to be said of how it gets its images, "" if nothing is.
    single : {"", "labels", "logit", "probability"}
        What one output is, (N,) or (N, 1), of floats for two classes: set by `settle_single`. "labels": 0 and 1, between
        which it may lie for other images, as a saturated sigmoid does.

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

    def __init__(self, function: Function, classes: Sequence[str], no_gradient: str = "it is a function of arrays") -> None:
        super().__init__()
        self.function, self.classes, self.no_gradient = function, tuple(classes), no_gradient
        self.eight_bits, self.note, self.single = False, "", ""

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, K)."""
        outputs = self.function(images.detach().cpu().float().numpy().copy())  # a copy: the function may work in place
        if isinstance(outputs, Tensor):
            outputs = outputs.detach().cpu().numpy()
        outputs, shape = np.asarray(outputs), (len(images), len(self.classes))
        if outputs.shape == (shape[0], 1):
            outputs = outputs[:, 0]
        if outputs.shape == shape[:1] and self.single and outputs.dtype.kind == "f":
            return single_as_logits(torch.from_numpy(outputs.astype(np.float32)), self.single).to(images.device)
        if outputs.shape == shape[:1] and _are_labels(outputs):
            predicted = torch.from_numpy(class_indices(outputs, self.classes))
            return (2 * nn.functional.one_hot(predicted, shape[1]).float() - 1).to(images.device)
        if outputs.shape != shape or outputs.dtype.kind not in "fiu":
            rule = f"must return logits of shape {shape}, or class indices or names of shape {shape[:1]}"
            remedy = ""
            if outputs.shape == shape[:1] and shape[1] == 2:
                remedy = "of one logit z return np.stack([-z, z], 1), of one probability p np.stack([1 - p, p], 1)"
            raise InputError("model", rule, f"{outputs.dtype} {outputs.shape}", remedy)
        return torch.from_numpy(outputs.astype(np.float32)).to(images.device)


def settle_single(model: nn.Module, images: Tensor) -> str:
    """Find out what the one output of a black box for two classes is, and say so: "" if it has others.

    From 0 to 1 on all images, and not 0 and 1 alone, it is the probability of the second class, else its logit.

    Parameters
    ----------
    model : nn.Module
        A black box, alone or as the attribute `box` of what gives it gradients. Any other stays as it is.
    images : Tensor, (N, C, H, W), in [0, 1]
        A hundred or so.
    """
    box = getattr(model, "box", model)
    if not isinstance(box, BlackBox) or len(box.classes) != 2:
        return ""
    try:
        outputs = np.asarray(box.function(images.cpu().float().numpy().copy()))
    except Exception:  # a user's own function may raise anything; whoever calls the model says so
        return ""
    if outputs.shape not in ((len(images),), (len(images), 1)) or outputs.dtype.kind != "f" or not np.isfinite(outputs).all():
        return ""
    box.single, words = read_single(float(outputs.min()), float(outputs.max()), len(images), box.classes)
    if not _are_labels(outputs):
        return words
    box.single = "labels" if box.single == "probability" else ""
    return ""


class SurrogateGradients(nn.Module):
    """A black box with the gradients of a surrogate that computes the same logits. The values are always those of the black box.

    Of the first 64 images both must give the same logits, up to `tolerance`, and at most half may have gradients of 0. Else
    the next surrogate is used; without one there are no gradients, and the attribute `no_gradient` says why.

    Parameters
    ----------
    box : BlackBox
    *surrogates : nn.Module
        Images (N, C, H, W) to logits (N, K), differentiable.
    tolerance : float
        In shares of the spread of the logits.

    Examples
    --------
    >>> box = BlackBox(lambda images: 2 * images.reshape(len(images), -1), ("left", "right"))
    >>> model = SurrogateGradients(box, nn.Sequential(nn.Flatten(), nn.Linear(2, 2)))
    >>> model(torch.tensor([[[[0.0, 1.0]]]], requires_grad=True)), model.no_gradient
    (tensor([[0., 2.]]), 'the network converted from it gives other logits: they differ by ... of their spread')
    """

    def __init__(self, box: BlackBox, *surrogates: nn.Module, tolerance: float = DIFFERENT) -> None:
        super().__init__()
        self.tolerance = tolerance
        self.box, self.surrogates = box, nn.ModuleList(surrogates).eval().requires_grad_(False)
        self.no_gradient, self.unchecked = "", CHECKED_IMAGES

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the black box, (N, K)."""
        exact: Tensor = self.box(images)
        if self.unchecked > 0:
            self._check(images.detach()[: self.unchecked], exact[: self.unchecked])
        if not len(self.surrogates) or not (torch.is_grad_enabled() and images.requires_grad):
            return exact
        value: Tensor = _WithValue.apply(self._smooth(images), exact)  # type: ignore[no-untyped-call]
        return value

    def _smooth(self, images: Tensor) -> Tensor:
        """Logits of the surrogate, whose one output is read as that of the black box."""
        outputs: Tensor = self.surrogates[0](images)
        return single_as_logits(outputs[:, 0], self.box.single) if self.box.single and outputs.shape[1] == 1 else outputs

    def _check(self, images: Tensor, exact: Tensor) -> None:
        """Removes surrogates until one gives the same logits."""
        self.unchecked -= len(images)
        reasons = []
        single = self.box.single == "probability"
        while len(self.surrogates) and (
            reason := _disagreement(self._smooth, images, exact, self.tolerance, of_probability=single)
        ):
            reasons.append(reason)
            del self.surrogates[0]
        if reasons and not len(self.surrogates):
            self.no_gradient, self.unchecked = "; ".join(dict.fromkeys(reasons)), 0


def _disagreement(
    surrogate: Callable[[Tensor], Tensor], images: Tensor, exact: Tensor, tolerance: float, *, of_probability: bool
) -> str:
    """Why a surrogate cannot stand for a black box with these logits; empty if it can."""
    if not len(images):
        return ""
    try:
        with torch.no_grad():
            found = surrogate(images)
            if of_probability:  # near 1 the logarithm of the complement is mostly rounding
                found, exact = found.exp(), exact.exp()
            difference = float((found - exact).abs().max() / exact.std(1, correction=0).mean().clamp_min(1e-12))
    except Exception as error:  # a converted network may fail in any way
        return one_line(f"the network converted from it fails: {type(error).__name__}: {error}")
    if difference <= tolerance:  # NaN fails, too
        return _no_slope(surrogate, images)
    return f"the network converted from it gives other logits: they differ by {difference:.2g} of their spread"


def _no_slope(surrogate: Callable[[Tensor], Tensor], images: Tensor) -> str:
    """Why a surrogate's gradients are of no use, as those of int8 networks, whose rounding has none; empty if they are."""
    if len(images) < FEW_IMAGES:  # one image may lie where a good network is flat
        return ""
    try:
        slopes = search.gradients(lambda pixels: surrogate(pixels)[:, 1:2] - surrogate(pixels)[:, :1], images)[1][0]
    except Exception as error:  # a converted network may fail in any way
        return one_line(f"the network converted from it has no gradients: {error}")
    flat = int((slopes.flatten(1) == 0).all(1).sum())
    few = 2 * flat <= len(images)
    return "" if few else f"the gradients of the network converted from it are 0 for {flat} of {len(images)} images"


class _WithValue(torch.autograd.Function):
    """The value of `exact` with the gradient of `smooth`."""

    @staticmethod
    def forward(_: object, smooth: Tensor, exact: Tensor) -> Tensor:
        return exact.clone()

    @staticmethod
    def backward(_: object, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def from_sklearn(estimator: Estimator, classes: Sequence[str]) -> BlackBox | SurrogateGradients:
    """A fitted classifier of flattened pixels, (N, C * H * W), with the interface of scikit-learn; pipelines are such.

    Logits are its decision function, or else its log-probabilities, or else its predictions. Where the first two disagree with
    its prediction, as those of support vector machines may, the predicted class gets the highest logit. A class that it never saw
    has a logit of 1 below the lowest. Linear classifiers and perceptrons have gradients (`models.linear`).

    Parameters
    ----------
    estimator : classifier
        With `predict`, `predict_proba` or both. Without `classes_`, its probabilities are those of `classes`, in that order.
    classes : sequence of str
        Names of the K classes; the estimator predicts names or indices of these.

    Raises
    ------
    InputError
        If the estimator is not fitted, has several outputs, or predicts other classes.
    """
    name = type(estimator).__name__
    known = _known_classes(estimator)
    if known is None:
        return BlackBox(lambda images: _outputs(estimator, _rows(images)), classes, f"it is a {name}")
    columns = class_indices(known, classes)
    numbers = dict(zip(known.tolist(), columns.tolist(), strict=True))

    def outputs(images: np.ndarray) -> np.ndarray:
        rows = _rows(images)
        scores = _scores(estimator, rows, len(columns))
        predicted = None if not hasattr(estimator, "predict") else _predicted(estimator.predict(rows), numbers, len(rows))
        if scores is None:
            if predicted is None:
                raise InputError("model", "must have predict, or probabilities of its classes", name)
            return predicted
        logits = np.repeat(scores.min(1, keepdims=True) - 1.0, len(classes), axis=1)
        logits[:, columns] = scores
        return logits if predicted is None else _raise_predicted(logits, predicted)

    box = BlackBox(outputs, classes, f"it is a {name}, not a linear classifier or a perceptron")
    network = closed_form(estimator, lambda rows: _scores(estimator, rows, len(columns)))
    return box if network is None else SurrogateGradients(box, _InColumns(network, columns, len(classes)))


class _InColumns(nn.Module):
    """Scores of some of K classes as logits of all: those of the others are 1 below the lowest."""

    def __init__(self, network: nn.Module, columns: np.ndarray, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes
        self.register_buffer("columns", torch.from_numpy(columns))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(images.flatten(1))
        lowest = scores.amin(1, keepdim=True) - 1
        return lowest.expand(-1, self.classes).index_copy(1, self.get_buffer("columns"), scores)


def _known_classes(estimator: Estimator) -> np.ndarray | None:
    """Its `classes_`; None for an object of another library that has none."""
    from sklearn.base import BaseEstimator, is_regressor

    name = type(estimator).__name__
    refuse_several_outputs(estimator)
    known = getattr(estimator, "classes_", None)
    if known is not None:
        return np.asarray(known)
    if isinstance(estimator, BaseEstimator):
        regressor = is_regressor(estimator)
        remedy = "" if regressor else "call its fit first"
        raise InputError(
            "model", "must be a fitted scikit-learn classifier", f"{name}, a regressor" if regressor else name, remedy
        )
    return None


def refuse_several_outputs(estimator: Estimator) -> None:
    """Raises InputError for an estimator that predicts several labels of an image."""
    known, name = getattr(estimator, "classes_", None), type(estimator).__name__
    if isinstance(known, list) and known and np.ndim(known[0]):
        remedy = "give one estimator of one label per image: of a MultiOutputClassifier one of estimators_"
        raise InputError("model", "must predict one class for each image", f"{name}, which has several outputs", remedy)
    binarizer = getattr(estimator, "_label_binarizer", None)  # of a perceptron
    if getattr(estimator, "multilabel_", False) is True or str(getattr(binarizer, "y_type_", "")).startswith("multilabel"):
        raise InputError("model", "must predict one class for each image", f"{name}, fitted to several labels", MULTI_LABEL)


def _rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _outputs(estimator: Estimator, rows: np.ndarray) -> object:
    """Log-probabilities of an estimator without `classes_`, or else what it predicts: labels or scores."""
    if hasattr(estimator, "predict_proba"):
        probabilities = np.asarray(estimator.predict_proba(rows))
        single = probabilities.ndim == 1 or probabilities.shape[1:] == (1,)
        return probabilities if single else _logarithm(probabilities)
    return estimator.predict(rows)


def _predicted(predictions: object, numbers: dict[object, int], n: int) -> np.ndarray:
    """Class indices of what an estimator predicts, (N,) or (N, 1)."""
    found = np.asarray(predictions)
    if found.shape not in ((n,), (n, 1)):
        remedy = MULTI_LABEL if found.ndim == 2 else ""
        raise InputError("model", f"must predict one class for each of {n} images", f"predictions of shape {found.shape}", remedy)
    labels = found.reshape(n).tolist()
    if unknown := [label for label in labels if label not in numbers]:
        raise InputError("model", "must predict one of its classes_", repr(unknown[0]))
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def _scores(estimator: Estimator, rows: np.ndarray, classes: int) -> np.ndarray | None:
    """Decision function or log-probabilities, (N, classes), or None if the estimator has neither."""
    if hasattr(estimator, "decision_function"):
        scores = np.asarray(estimator.decision_function(rows), dtype=np.float64)
        if scores.shape == (len(rows), 1):
            scores = scores[:, 0]
        scores = np.stack([-scores, scores], axis=1) / 2 if scores.ndim == 1 else scores
    elif hasattr(estimator, "predict_proba"):
        scores = _logarithm(estimator.predict_proba(rows))
    else:
        return None
    return scores if scores.shape == (len(rows), classes) else None


def _logarithm(probabilities: object) -> np.ndarray:
    """Of probabilities; those below 1e-12 count as that. NaN stays."""
    found: np.ndarray = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), 1e-12))
    return found


def _raise_predicted(logits: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Logits in which the predicted class has the highest value, by a small margin at least."""
    entries = np.arange(len(logits)), predicted
    others = logits.copy()
    others[entries] = -np.inf
    highest = others.max(1)
    raised = highest + 1e-3 * np.abs(highest) + 1e-6
    logits[entries] = np.where(logits[entries] > highest, logits[entries], raised)
    return logits


def _are_labels(outputs: np.ndarray) -> bool:
    """Whether outputs (N,) are labels: integers, text, flags, or whole numbers as floats."""
    return outputs.dtype.kind in "iuUOb" or (outputs.dtype.kind == "f" and bool((outputs == np.round(outputs)).all()))


def class_indices(predictions: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Class indices of predictions, which are indices or names; flags are 0 and 1 if there are two classes."""
    values = predictions
    if values.dtype.kind == "f" and bool((values == np.round(values)).all()):
        values = values.astype(np.int64)
    if values.dtype.kind == "b" and len(classes) == 2 and not {"False", "True"} <= set(classes):
        values = values.astype(np.int64)
    numbers = {name: number for number, name in enumerate(classes)}
    indices = np.array([numbers.get(str(name), -1) for name in values.tolist()], dtype=np.int64)
    if values.dtype.kind in "iu" and not (
        len(values) and (values.min() < 0 or values.max() >= len(classes)) and indices.min() >= 0
    ):
        indices = values.astype(np.int64)  # numbers are indices, unless they can only be names
    if len(indices) and not (indices.min() >= 0 and indices.max() < len(classes)):
        unknown = predictions[(indices < 0) | (indices >= len(classes))][0]
        rule = f"must predict one of the classes {', '.join(classes[:12])}, or their indices"
        got, remedy = repr(unknown.item() if isinstance(unknown, np.generic) else unknown), ""
        if values.dtype.kind in "iu":
            remedy = "return indices from 0" if values.min() < 0 else "say which label is which class: --class-map CLASS=LABEL,…"
        raise InputError("model", rule, got, remedy)
    return indices
