"""ONNX files: run by onnxruntime, with the gradients of a network converted from them where one gives the same logits."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from notbugs.errors import InputError, one_line
from notbugs.models.black_box import DIFFERENT, DIFFERENT_IN_HALF, BlackBox, SurrogateGradients, class_indices
from notbugs.models.onnx_gradients import converted, linear
from notbugs.models.onnx_names import Labels

DTYPES = {
    "tensor(float)": (np.float32, torch.float32),
    "tensor(double)": (np.float64, torch.float64),
    "tensor(float16)": (np.float16, torch.float16),
    "tensor(uint8)": (np.uint8, torch.float32),  # the converted network gets the same values, with a gradient
    "tensor(int32)": (np.int32, torch.float32),
    "tensor(int64)": (np.int64, torch.float32),
}
CHANNELS = (1, 3)
EIGHT_BITS = ("tensor(uint8)", "tensor(int32)", "tensor(int64)")  # types of pixels from 0 to 255
Session = Any  # of onnxruntime


@dataclass(frozen=True)
class _Input:
    """What a file takes: its name, type and shape; batch_size 0: any."""

    name: str
    type: str
    shape: tuple[object, ...]

    @property
    def batch_size(self) -> int:
        return self.shape[0] if isinstance(self.shape[0], int) and self.shape[0] > 0 else 0

    @property
    def channels_last(self) -> bool:
        if len(self.shape) != 4 or self.shape[1] in CHANNELS:
            return False
        is_height = isinstance(self.shape[1], int) and self.shape[1] > max(CHANNELS)
        return self.shape[3] in CHANNELS or (is_height and not isinstance(self.shape[3], int))

    @property
    def channels(self) -> int:
        """How many it takes; 0: any, or unknown."""
        if len(self.shape) < 4:
            return 0
        found = self.shape[3 if self.channels_last else 1]
        return found if isinstance(found, int) and found > 0 else 0

    def note(self, shape: Sequence[int], name: str) -> str:
        """What is said of how it gets images of a shape (C, H, W), "" if nothing is. Raises InputError if it cannot take them."""
        if shape[0] == 3 and (self.channels == 1 or len(self.shape) == 3):
            remedy = "make gray copies of the images, or a network whose first layer does it"
            raise InputError(name, "takes gray images, of one channel", f"images of shape {tuple(shape)}", remedy)
        height, width = self._size(shape)
        if (height, width) != (shape[1], shape[2]):
            remedy = f"use --resize {height}" if height == width else "resize copies of the images"
            raise InputError(name, f"takes images of {width}x{height} pixels", f"{shape[2]}x{shape[1]}", remedy)
        return "it takes RGB: the gray channel is repeated three times" if shape[0] == 1 and self._repeats(shape[0]) else ""

    def _repeats(self, channels: int) -> bool:
        return channels == 1 and self.channels == 3

    def _size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Height and width that it takes; those of the images where it takes any."""
        if len(self.shape) == 2:
            pixels = self.shape[1]
            side = round((pixels / shape[0]) ** 0.5) if isinstance(pixels, int) and pixels > 0 else 0
            is_square = side and shape[0] * side**2 == pixels != shape[0] * shape[1] * shape[2]
            return (side, side) if is_square else (shape[1], shape[2])
        start = 1 if self.channels_last or len(self.shape) == 3 else 2
        given = zip(self.shape[start : start + 2], shape[1:], strict=True)
        height, width = (one if isinstance(one, int) and one > 0 else other for one, other in given)
        return height, width

    def arrange(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] as the file takes them: flat, channels last, in 8 bits."""
        if self._repeats(images.shape[1]):
            images = images.expand(-1, 3, -1, -1)
        if len(self.shape) == 2:
            images = images.flatten(1)
        elif len(self.shape) == 3 and images.shape[1] == 1:
            images = images.squeeze(1)
        elif self.channels_last:
            images = images.permute(0, 2, 3, 1)
        images = images * 255 if self.type in EIGHT_BITS else images
        return images.to(DTYPES[self.type][1])

    def parts(self, images: Tensor) -> list[tuple[Tensor, int]]:
        """Batches of the size that the file takes, the last one filled up with its last image, and how many images count."""
        if not self.batch_size:
            return [(images, len(images))]
        parts = [images[start : start + self.batch_size] for start in range(0, len(images), self.batch_size)]
        return [(torch.cat([part, part[-1:].expand(self.batch_size - len(part), *part.shape[1:])]), len(part)) for part in parts]


def from_onnx(
    path: Path, classes: Sequence[str], labels: Labels | None = None, shape: Sequence[int] | None = None
) -> BlackBox | SurrogateGradients:
    """An ONNX file, run by onnxruntime on the CPU.

    Logits are its output of shape N x K (of logits and their softmax the logits; ZipMap's probabilities by class are such), or
    else its output of N class indices or names. Where a classifier of scikit-learn gives scores and a label, and the scores are
    highest for another class, as those of support vector machines may be, the label counts. A class that it never saw has a score
    of 0, or 1 below the lowest.

    It has the gradients of a linear function, if its scores are one, or their logarithms up to a constant; or, with one of the
    packages in `CONVERTERS`, those of a network converted from it, if that gives the same logits on images. Values are always
    those of onnxruntime.

    Parameters
    ----------
    path : Path
        A model with one input: images N x C x H x W, N x H x W x C, of gray ones N x H x W, or flattened, in [0, 1] or in 8 bits.
    classes : sequence of str
        Names of the K classes.
    labels : tuple of str or of int, optional
        That its classifier gives, in the order of its scores: names of classes, or their indices.
    shape : sequence of int, optional
        Of the images, (C, H, W). Default: not checked, and linear functions are not found.

    Raises
    ------
    InputError
        If onnxruntime is not installed, the file is missing or has another input, or several of its outputs could be the logits.
    """
    session = _session(path)
    if len(session.get_inputs()) != 1:
        raise InputError(str(path), "must have one input, the images", len(session.get_inputs()))
    entry = session.get_inputs()[0]
    if entry.type not in DTYPES or len(entry.shape) not in (2, 3, 4):
        rule = "must take images, N x C x H x W, N x H x W x C, N x H x W or flat, as floats or in 8 bits"
        raise InputError(str(path), rule, f"{entry.type} {entry.shape}")
    takes = _Input(entry.name, entry.type, tuple(entry.shape))
    note = takes.note(shape, str(path)) if shape else ""  # first: it may refuse the images
    choice = _Choice(path, tuple(output.name for output in session.get_outputs()), tuple(classes), _of_these(labels, classes))

    def outputs(images: np.ndarray) -> np.ndarray:
        found = []
        for part, count in takes.parts(takes.arrange(torch.from_numpy(images))):
            inputs = (part.round() if takes.type in EIGHT_BITS else part).numpy().astype(DTYPES[takes.type][0])
            found.append(choice.logits(session.run(None, {takes.name: np.ascontiguousarray(inputs)}))[:count])
        return np.concatenate(found) if found else np.zeros((0, len(classes)), np.float32)

    networks, reason = converted(path)
    box = BlackBox(outputs, classes, reason)
    box.eight_bits, box.note = takes.type in EIGHT_BITS, note
    surrogates: list[nn.Module] = [_Converted(network, takes, choice, kept) for network, kept in networks]
    if shape and not box.eight_bits and not surrogates and (simple := linear(lambda images: choice.own(outputs, images), shape)):
        surrogates.append(_InOrder(simple, choice))
    tolerance = DIFFERENT_IN_HALF if takes.type == "tensor(float16)" else DIFFERENT
    return SurrogateGradients(box, *surrogates, tolerance=tolerance) if surrogates else box


def _of_these(labels: Labels | None, classes: Sequence[str]) -> Labels | None:
    """The labels if they are classes; else what the file says of its outputs elsewhere counts: None."""
    try:
        class_indices(np.array(labels or ()), classes)
    except InputError:
        return None
    return labels


@dataclass
class _Choice:
    """Which of a file's outputs are the logits; decided on the first images. labels: of `from_onnx`; index: of that output."""

    path: Path
    names: tuple[str, ...]
    classes: tuple[str, ...]
    labels: Labels | None = None
    index: int | None = None

    def own(self, function: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
        """Scores of the classes that the file has alone, of a function that gives those of all."""
        found = function(images)
        return found if self.columns is None or found.ndim != 2 else found[:, self.columns]

    def logits(self, outputs: list[object]) -> np.ndarray:
        """Logits, probabilities or labels among the outputs for a batch."""
        found = [self._as_array(output) for output in outputs]
        if self.index is None:
            self.index = self._decide(found)
        chosen = found[self.index]
        if self.labels is None or chosen.ndim != 2 or chosen.dtype.kind != "f":
            return chosen
        given = next((one for one in found if one.ndim == 1 and one.dtype.kind in "iuUO"), None)
        return chosen if given is None else _with_highest(chosen, class_indices(given, self.classes))

    @property
    def columns(self) -> np.ndarray | None:
        """For each score of a classifier of scikit-learn its class; None if they stand in the order of the classes."""
        if self.labels is None:
            return None
        found = class_indices(np.array(self.labels), self.classes)
        return None if np.array_equal(found, np.arange(len(self.classes))) else found

    def _as_array(self, output: object) -> np.ndarray:
        """An output as an array; scores of a classifier of scikit-learn, also of ZipMap, in the order of the classes."""
        if isinstance(output, list) and output and isinstance(output[0], dict):
            known = np.array(list(output[0]))
            scores = torch.tensor([[row[name] for name in output[0]] for row in output], dtype=torch.float32)
            return _in_columns(scores, class_indices(known, self.classes), len(self.classes)).numpy()
        found = np.asarray(output)
        if found.ndim > 2 and sum(size > 1 for size in found.shape[1:]) <= 1:
            found = found.reshape(len(found), -1)
        return self.in_order(torch.from_numpy(found)).numpy() if found.ndim == 2 and found.dtype.kind == "f" else found

    def in_order(self, scores: Tensor) -> Tensor:
        """Scores of the classes that the file has as those of all classes, in their order."""
        columns = self.columns
        return scores if columns is None or scores.shape[1] != len(columns) else _in_columns(scores, columns, len(self.classes))

    def _decide(self, outputs: list[np.ndarray]) -> int:
        scores = [number for number, one in enumerate(outputs) if one.ndim == 2 and one.dtype.kind == "f"]
        fitting = [number for number in scores if outputs[number].shape[1] == len(self.classes)]
        fitting = [one for one in fitting if not any(_is_same(outputs[one], outputs[other]) for other in fitting if other < one)]
        if len(fitting) > 1:  # logits, and the probabilities made of them
            fitting = [one for one in fitting if not any(_is_made_of(outputs[one], outputs[other]) for other in fitting)]
        if len(fitting) > 1:
            listed = ", ".join(self.names[number] for number in fitting)
            rule = f"must have one output of images x {len(self.classes)} classes"
            remedy = "keep one of them: onnx.utils.extract_model(FILE, NEW_FILE, [INPUT], [OUTPUT])"
            raise InputError(str(self.path), rule, listed, remedy)
        labels = [number for number, one in enumerate(outputs) if one.ndim == 1 or one.shape[1:] == (1,)]
        single = [number for number in labels if outputs[number].dtype.kind == "f"] if len(self.classes) == 2 else []
        single = [one for one in single if not any(_is_made_of(outputs[one], outputs[other]) for other in single)]
        labels = [*single, *labels]  # a logit before its probability and before a label
        if not fitting and not labels and len(scores) != 1:
            shapes = ", ".join(f"{name} {one.shape}" for name, one in zip(self.names, outputs, strict=True))
            raise InputError(str(self.path), f"must give logits, images x {len(self.classes)} classes, or class indices", shapes)
        return (fitting or labels or scores)[0]


def _with_highest(scores: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Scores in which the predicted class has the highest: exchanged with that of the class that had it."""
    rows, highest = np.arange(len(scores)), scores.argmax(1)
    found = scores.copy()
    found[rows, predicted], found[rows, highest] = scores[rows, highest], scores[rows, predicted]
    return found


def _is_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two outputs are the same."""
    return bool(np.allclose(one, other, equal_nan=True))


def _is_made_of(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether one output is the softmax, its logarithm or the sigmoids of another."""
    if one is other or one.shape != other.shape:
        return False
    logits = other.astype(np.float64).reshape(len(other), -1)
    shifted = logits - logits.max(1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    sigmoids = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    values = one.reshape(len(one), -1)
    return any(np.allclose(values, made, atol=1e-4) for made in (np.exp(logarithms), sigmoids)) or (
        bool((values < 0).any()) and np.allclose(values, logarithms, atol=1e-4) and not np.allclose(values, logits, atol=1e-4)
    )


class _Converted(nn.Module):
    """A network converted from a file, with its input arranged and its output chosen as for onnxruntime.

    kept: the places of its outputs among those of the file.
    """

    def __init__(self, network: nn.Module, takes: _Input, choice: _Choice, kept: Sequence[int]) -> None:
        super().__init__()
        self.network, self.takes = network, takes
        self.choice, self.kept = choice, kept  # copies of the network share the choice, which is made on the first images

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Converted":
        return _Converted(copy.deepcopy(self.network, memo), self.takes, self.choice, self.kept)

    def forward(self, images: Tensor) -> Tensor:
        logits = [self._logits(part)[:count] for part, count in self.takes.parts(self.takes.arrange(images))]
        return torch.cat(logits)

    def _logits(self, inputs: Tensor) -> Tensor:
        outputs = self.network(inputs)
        if isinstance(outputs, Mapping):
            outputs = list(outputs.values())
        if (index := self.choice.index or 0) not in self.kept:
            raise ValueError("the output that is used has labels, which have no gradient")
        place = self.kept.index(index)
        chosen: Tensor = outputs[place] if isinstance(outputs, list | tuple) else outputs
        return self.choice.in_order(chosen.flatten(1).float())


class _InOrder(nn.Module):
    """Scores of the classes that a file has as those of all."""

    def __init__(self, network: nn.Module, choice: _Choice) -> None:
        super().__init__()
        self.network, self.choice = network, choice

    def forward(self, images: Tensor) -> Tensor:
        return self.choice.in_order(self.network(images))


def _in_columns(scores: Tensor, columns: np.ndarray, classes: int) -> Tensor:
    """Scores of some of the classes as those of all: 0 for the others beside probabilities, else 1 below the lowest."""
    lowest = scores.new_zeros((len(scores), 1)) if bool((scores >= 0).all()) else scores.amin(1, keepdim=True) - 1
    return lowest.repeat(1, classes).index_copy(1, torch.from_numpy(columns).to(scores.device), scores)


def _session(path: Path) -> Session:
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
        remedy = "export it in float32" if "NOT_IMPLEMENTED" in str(error) else ""
        raise InputError(str(path), "must be an ONNX model that onnxruntime can run", one_line(error), remedy) from None
