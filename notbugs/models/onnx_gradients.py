"""Gradients of ONNX files: networks converted from them, and linear functions."""

import importlib
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from notbugs.errors import one_line
from notbugs.models.black_box import Function
from notbugs.models.linear import affine

# packages that convert ONNX to PyTorch, with the function that does it. None converts every graph: those that are installed are
# tried on images before one is used (docs/lab-log.md)
CONVERTERS = {"onnx2fx": "convert", "onnx2pytorch": "ConvertModel"}
NO_CONVERTER = (
    f"an ONNX file has gradients only with one of the packages {', '.join(CONVERTERS)}: pip install notbugs[onnx-gradients]"
)
AXES_ARE_INPUTS = 13  # from this version of the operators on
POST_TRANSFORMS = {b"NONE": "Identity", b"SOFTMAX": "Softmax", b"LOGISTIC": "Sigmoid"}
LABELS_ALONE = "its outputs are labels, which have no gradient"
FLOATS = (1, 10, 11, 16)  # types of elements in ONNX: float, float16, double, bfloat16
Proto = Any  # of the package onnx


def converted(path: Path) -> tuple[list[tuple[nn.Module, Sequence[int]]], str]:
    """Networks that installed packages convert a file to, and which of its outputs they have; without one, the reason."""
    networks, reasons = list[tuple[nn.Module, Sequence[int]]](), list[str]()
    for package, function in CONVERTERS.items():
        if importlib.util.find_spec(package) is None:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model, kept = differentiable_part(importlib.import_module("onnx").load(path))
                if not kept:
                    return [], LABELS_ALONE
                network = getattr(importlib.import_module(package), function)(model)
            networks.append((network.eval().requires_grad_(False), kept))
        except Exception as error:  # an operator that it does not know, a package that it needs
            reasons.append(one_line(f"{package} cannot convert it: {type(error).__name__}: {error}"))
    return networks, "; ".join(reasons) or NO_CONVERTER


def differentiable_part(model: Proto) -> tuple[Proto, Sequence[int]]:
    """The model with its outputs of floats alone, without what makes labels of them; and which of its outputs these are.

    Scores that ZipMap turns into dictionaries are outputs themselves, and linear classifiers of scikit-learn and what scales
    their input are plain operators: converters know none of these.
    """
    maps = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "ZipMap"}
    kept = [place for place, output in enumerate(model.graph.output) if output.name in maps or _is_float(output)]
    if len(kept) == len(model.graph.output) and not maps:
        return model, kept
    onnx = importlib.import_module("onnx")
    outputs = [
        onnx.helper.make_tensor_value_info(maps[output.name], FLOATS[0], None) if output.name in maps else output
        for output in (model.graph.output[place] for place in kept)
    ]
    wanted, nodes = {output.name for output in outputs}, list[Proto]()
    opset = max((each.version for each in model.opset_import if not each.domain), default=1)
    part = onnx.ModelProto()
    part.CopyFrom(model)
    for node in reversed(model.graph.node):  # in topological order, as ONNX has it
        if wanted & {*node.output}:
            plain, constants = _plain(onnx, node, old=opset < AXES_ARE_INPUTS)
            nodes[:0] = plain
            part.graph.initializer.extend(constants)
            wanted |= {*node.input}
    del part.graph.node[:], part.graph.output[:]
    part.graph.node.extend(nodes)
    part.graph.output.extend(outputs)
    return part, kept


def _plain(onnx: Any, node: Proto, *, old: bool) -> tuple[list[Proto], list[Proto]]:
    """Plain operators for one of scikit-learn, and their constants; any other operator itself. old: axes are attributes."""
    values = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    constants = list[Proto]()

    def constant(name: str, shape: tuple[int, ...]) -> str:
        array = np.array(values[name], np.float32).reshape(shape)
        constants.append(onnx.numpy_helper.from_array(array.T.copy(), f"{node.output[-1]}/{name}"))
        return str(constants[-1].name)

    def step(operator: str, inputs: Sequence[str], output: str = "", **attributes: object) -> str:
        made.append(onnx.helper.make_node(operator, inputs, [output or f"{node.output[-1]}/{len(made)}"], **attributes))
        return str(made[-1].output[0])

    made, pixels, last = list[Proto](), node.input[0] if node.input else "", node.output[-1] if node.output else ""
    if node.op_type == "Scaler":
        step("Mul", [step("Sub", [pixels, constant("offset", (-1,))]), constant("scale", (-1,))], last)
    elif node.op_type == "Normalizer" and values.get("norm") == b"L1":
        sizes, axes = step("Abs", [pixels]), f"{last}/axes"
        if old:
            total = step("ReduceSum", [sizes], keepdims=1, axes=[1])
        else:
            constants.append(onnx.numpy_helper.from_array(np.array([1], np.int64), axes))
            total = step("ReduceSum", [sizes, axes], keepdims=1)
        step("Div", [pixels, total], last)
    elif node.op_type == "LinearClassifier" and values.get("post_transform", b"NONE") in POST_TRANSFORMS:
        classes = len(values["intercepts"])
        scores = step("MatMul", [pixels, constant("coefficients", (classes, -1))])
        scores = step("Add", [scores, constant("intercepts", (-1,))])
        operator = POST_TRANSFORMS[values.get("post_transform", b"NONE")]
        step(operator, [scores], last, **({"axis": 1} if operator == "Softmax" else {}))
    return (made, constants) if made else ([node], [])


def _is_float(output: Proto) -> bool:
    return output.type.HasField("tensor_type") and output.type.tensor_type.elem_type in FLOATS


def linear(function: Function, shape: Sequence[int]) -> nn.Module | None:
    """A network with the same outputs, if these are an affine function of the pixels, or the softmax of one; else None.

    Found by what the file computes, as of scikit-learn's own classifiers, whose operators converters do not know.

    Parameters
    ----------
    function : callable
        Images, float32 (N, C, H, W), to outputs (N, K).
    shape : sequence of int
        Of its images, (C, H, W).
    """

    def scores(rows: np.ndarray) -> np.ndarray | None:
        found: object = function(rows.reshape(len(rows), *shape))
        return found if isinstance(found, np.ndarray) and found.ndim == 2 and found.dtype.kind == "f" else None

    def centered(rows: np.ndarray) -> np.ndarray | None:
        found = scores(rows)
        if found is None or not (found > 0).all() or np.abs(found.sum(1) - 1).max() > 1e-3:
            return None
        logarithms = np.log(found.astype(np.float64))
        relative: np.ndarray = logarithms - logarithms.mean(1, keepdims=True)
        return relative

    pixels = int(np.prod(shape))
    try:
        if plain := affine(scores, pixels):
            return nn.Sequential(nn.Flatten(), plain)
        softmax = affine(centered, pixels)
    except Exception:  # of a file that fails on such images whoever runs it says so
        return None
    return nn.Sequential(nn.Flatten(), softmax, nn.Softmax(1)) if softmax else None
