"""ONNX files predict what the original predicts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from notbugs import attacks, data
from notbugs.errors import InputError
from notbugs.models.by_name import classifier_by_name
from notbugs.models.checkpoint import CheckpointMetadata
from notbugs.models.onnx import from_onnx
from notbugs.search import NormBall, objectives

onnx = pytest.importorskip("onnx")
NAMES = [f"digit {number}" for number in range(10)]


def save_onnx(
    path: Path, *, shape: list[Any], kind: str = "float", channels_last: bool = False, zipmap: bool = False
) -> np.ndarray:
    """Writes a linear model of 8x8 grayscale images as an ONNX file; returns its weights."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    entry = helper.make_tensor_value_info("x", TensorProto.UINT8 if kind == "uint8" else TensorProto.FLOAT, shape)
    nodes, constants = [], [numpy_helper.from_array(weights, "w")]
    value = "x"
    if kind == "uint8":
        constants.append(numpy_helper.from_array(np.array(255, dtype=np.float32), "top"))
        nodes += [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), helper.make_node("Div", ["f", "top"], ["scaled"])]
        value = "scaled"
    if len(shape) == 4:
        nodes.append(helper.make_node("Flatten", [value], ["flat"]))
        value = "flat"
    nodes.append(helper.make_node("MatMul", [value, "w"], ["logits"]))
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 10])]
    if zipmap:  # as scikit-learn's converters do: labels come first
        nodes.append(helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0))
        outputs.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, [None]))
    graph = helper.make_graph(nodes, "g", [entry], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return weights


@pytest.mark.parametrize(
    "options",
    [
        {"shape": ["n", 1, 8, 8]},
        {"shape": ["n", 8, 8, 1]},
        {"shape": ["n", 64]},
        {"shape": [4, 1, 8, 8]},
        {"shape": ["n", 1, 8, 8], "kind": "uint8"},
        {"shape": ["n", 64], "zipmap": True},
    ],
    ids=str,
)
def test_onnx_file_gives_the_logits_of_its_weights(options: dict[str, Any], tmp_path: Path, digits: data.Splits) -> None:
    weights = save_onnx(tmp_path / "m.onnx", **options)
    box, metadata = classifier_by_name(str(tmp_path / "m.onnx"), classes=NAMES)
    images, labels = digits.test.pixels(slice(0, 10)), digits.test.labels[:10]
    assert metadata == CheckpointMetadata()
    assert torch.allclose(box(images), images.flatten(1) @ torch.from_numpy(weights), atol=1e-4)
    assert not attacks.has_gradient(box, images)
    result = attacks.adaptive_ensemble(box, images, labels, threat_model=NormBall("l2", 0.5), budget="quick")
    assert torch.allclose(result.margins, -objectives.margin(box(result.images), labels), atol=1e-4)


def test_onnx_files_that_cannot_be_used_raise(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"bad.onnx: is no ONNX model that onnxruntime can run"):
        from_onnx(tmp_path / "bad.onnx", NAMES)
    with pytest.raises(InputError, match="no such model"):
        from_onnx(tmp_path / "none.onnx", NAMES)
    save_onnx(tmp_path / "odd.onnx", shape=["n", 8, 64])
    with pytest.raises(InputError, match=r"must take images, N x C x H x W, .* got tensor\(float\) \['n', 8, 64\]"):
        from_onnx(tmp_path / "odd.onnx", NAMES)
