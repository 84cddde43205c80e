"""ONNX files: run by onnxruntime, with the gradients of a network converted from them where one gives the same logits."""

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from notbugs.errors import InputError, one_line
from notbugs.models.black_box import DIFFERENT, DIFFERENT_IN_HALF, BlackBox, SurrogateGradients, class_indices

DTYPES = {
    "tensor(float)": (np.float32, torch.float32),
    "tensor(double)": (np.float64, torch.float64),
    "tensor(float16)": (np.float16, torch.float16),
    "tensor(uint8)": (np.uint8, torch.float32),  # the converted network gets the same values, with a gradient
    "tensor(int32)": (np.int32, torch.float32),
    "tensor(int64)": (np.int64, torch.float32),
}
EIGHT_BITS = ("tensor(uint8)", "tensor(int32)", "tensor(int64)")  # types of pixels from 0 to 255
# packages that convert ONNX to PyTorch, with the function that does it. None converts every graph: those that are installed are
# tried on images before one is used (docs/lab-log.md)
CONVERTERS = {"onnx2fx": "convert", "onnx2pytorch": "ConvertModel"}
NO_CONVERTER = (
    f"an ONNX file has gradients only with one of the packages {', '.join(CONVERTERS)}: pip install notbugs[onnx-gradients]"
)

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

    def arrange(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] as the file takes them: flat, channels last, in 8 bits."""
        if len(self.shape) == 2:
            images = images.flatten(1)
        elif len(self.shape) == 3 and images.shape[1] == 1:
            images = images.squeeze(1)
        elif len(self.shape) == 4 and self.shape[1] != images.shape[1] and self.shape[3] == images.shape[1]:
            images = images.permute(0, 2, 3, 1)
        images = images * 255 if self.type in EIGHT_BITS else images
        return images.to(DTYPES[self.type][1])

    def parts(self, images: Tensor) -> list[tuple[Tensor, int]]:
        """Batches of the size that the file takes, the last one filled up with its last image, and how many images count."""
        if not self.batch_size:
            return [(images, len(images))]
        parts = [images[start : start + self.batch_size] for start in range(0, len(images), self.batch_size)]
        return [(torch.cat([part, part[-1:].expand(self.batch_size - len(part), *part.shape[1:])]), len(part)) for part in parts]


def from_onnx(path: Path, classes: Sequence[str]) -> BlackBox | SurrogateGradients:
    """An ONNX file, run by onnxruntime on the CPU.

    Logits are its output of shape N x K (of logits and their softmax the logits; ZipMap's probabilities by class are such), or
    else its output of N class indices or names. With one of the packages in `CONVERTERS` it has the gradients of a network
    converted from it, if that gives the same logits on images. Values are always those of onnxruntime.

    Parameters
    ----------
    path : Path
        A model with one input: images N x C x H x W, N x H x W x C, of gray ones N x H x W, or flattened, in [0, 1] or in 8 bits.
    classes : sequence of str
        Names of the K classes.

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
    choice = _Choice(path, tuple(output.name for output in session.get_outputs()), tuple(classes))

    def outputs(images: np.ndarray) -> np.ndarray:
        found = []
        for part, count in takes.parts(takes.arrange(torch.from_numpy(images))):
            inputs = (part.round() if takes.type in EIGHT_BITS else part).numpy().astype(DTYPES[takes.type][0])
            found.append(choice.logits(session.run(None, {takes.name: np.ascontiguousarray(inputs)}))[:count])
        return np.concatenate(found) if found else np.zeros((0, len(classes)), np.float32)

    networks, reason = _converted(path)
    box = BlackBox(outputs, classes, reason)
    box.eight_bits = takes.type in EIGHT_BITS
    surrogates = [_Converted(network, takes, lambda: choice.index or 0) for network in networks]
    tolerance = DIFFERENT_IN_HALF if takes.type == "tensor(float16)" else DIFFERENT
    return SurrogateGradients(box, *surrogates, tolerance=tolerance) if surrogates else box


@dataclass
class _Choice:
    """Which of a file's outputs are the logits; decided on the first images. index: of that output."""

    path: Path
    names: tuple[str, ...]
    classes: tuple[str, ...]
    index: int | None = None

    def logits(self, outputs: list[object]) -> np.ndarray:
        """Logits, probabilities or labels among the outputs for a batch."""
        found = [_as_array(output, self.classes) for output in outputs]
        if self.index is None:
            self.index = self._decide(found)
        return found[self.index]

    def _decide(self, outputs: list[np.ndarray]) -> int:
        scores = [number for number, one in enumerate(outputs) if one.ndim == 2 and one.dtype.kind == "f"]
        fitting = [number for number in scores if outputs[number].shape[1] == len(self.classes)]
        fitting = [one for one in fitting if not any(_is_same(outputs[one], outputs[other]) for other in fitting if other < one)]
        if len(fitting) > 1:  # logits, and the probabilities made of them
            fitting = [one for one in fitting if not any(_is_softmax(outputs[one], outputs[other]) for other in fitting)]
        if len(fitting) > 1:
            listed = ", ".join(self.names[number] for number in fitting)
            rule = f"must have one output of images x {len(self.classes)} classes"
            remedy = "keep one of them: onnx.utils.extract_model(FILE, NEW_FILE, [INPUT], [OUTPUT])"
            raise InputError(str(self.path), rule, listed, remedy)
        labels = [number for number, one in enumerate(outputs) if one.ndim == 1 or one.shape[1:] == (1,)]
        if not fitting and not labels and len(scores) != 1:
            shapes = ", ".join(f"{name} {one.shape}" for name, one in zip(self.names, outputs, strict=True))
            raise InputError(str(self.path), f"must give logits, images x {len(self.classes)} classes, or class indices", shapes)
        return (fitting or labels or scores)[0]


def _as_array(output: object, classes: Sequence[str]) -> np.ndarray:
    """An output as an array; of ZipMap, {class: probability} for each image, the probabilities in the order of the classes."""
    if not isinstance(output, list) or not output or not isinstance(output[0], dict):
        found = np.asarray(output)
        return found.reshape(found.shape[:2]) if found.ndim == 4 and found.shape[2:] == (1, 1) else found
    known = np.array(list(output[0]))
    columns = class_indices(known, classes)
    probabilities = np.zeros((len(output), len(classes)), np.float32)
    probabilities[:, columns] = [[row[name] for name in output[0]] for row in output]
    return probabilities


def _is_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two outputs are the same."""
    return bool(np.allclose(one, other, equal_nan=True))


def _is_softmax(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether one output is the softmax of another."""
    shifted = np.exp(other.astype(np.float64) - other.max(1, keepdims=True))
    return one is not other and bool(np.allclose(one, shifted / shifted.sum(1, keepdims=True), atol=1e-4))


class _Converted(nn.Module):
    """A network converted from a file, with its input arranged and its output chosen as for onnxruntime."""

    def __init__(self, network: nn.Module, takes: _Input, chosen: Callable[[], int]) -> None:
        super().__init__()
        self.network, self.takes, self.chosen = network, takes, chosen  # a function: copies of the network share it

    def forward(self, images: Tensor) -> Tensor:
        logits = [self._logits(part)[:count] for part, count in self.takes.parts(self.takes.arrange(images))]
        return torch.cat(logits)

    def _logits(self, inputs: Tensor) -> Tensor:
        outputs = self.network(inputs)
        if isinstance(outputs, Mapping):
            outputs = list(outputs.values())
        chosen: Tensor = outputs[self.chosen()] if isinstance(outputs, list | tuple) else outputs
        return chosen.flatten(1).float()


def _converted(path: Path) -> tuple[list[nn.Module], str]:
    """Networks that the installed packages convert a file to; if there is none, the reason."""
    networks, reasons = list[nn.Module](), list[str]()
    for package, function in CONVERTERS.items():
        if importlib.util.find_spec(package) is None:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network = getattr(importlib.import_module(package), function)(importlib.import_module("onnx").load(path))
            networks.append(network.eval().requires_grad_(False))
        except Exception as error:  # an operator that it does not know, a package that it needs
            reasons.append(one_line(f"{package} cannot convert it: {type(error).__name__}: {error}"))
    return networks, "; ".join(reasons) or NO_CONVERTER


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
        raise InputError(str(path), "is no ONNX model that onnxruntime can run", one_line(error)) from None
