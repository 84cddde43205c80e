"""Names of outputs are read from ONNX files without the package onnx, and from damaged files not at all."""

import json
from pathlib import Path

import pytest
import torch

from notbugs.models import by_name
from notbugs.models.by_name import classifier_by_name
from notbugs.models.onnx_names import onnx_names

onnx = pytest.importorskip("onnx")
ANIMALS = ("ant", "bee", "cät")


def save(path: Path, metadata: dict[str, str] | None = None, labels: list[list[str]] | None = None) -> Path:
    """A linear model of 4 pixels and three classes; for each list of labels an operator, as converters of scikit-learn do."""
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(torch.eye(4, 3).numpy(), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["scores"])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 3])]
    for number, names in enumerate(labels or ()):
        result = f"maps{number}"
        nodes.append(helper.make_node("ZipMap", ["scores"], [result], domain="ai.onnx.ml", classlabels_strings=names))
        map_type = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        outputs.append(helper.make_value_info(result, helper.make_sequence_type_proto(map_type)))
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])
    graph = helper.make_graph(nodes, "g", [entry], outputs, [weights])
    sets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    "text",
    [json.dumps(ANIMALS), json.dumps(dict(enumerate(ANIMALS))), repr(dict(enumerate(ANIMALS))), "ant, bee, cät"],
)
@pytest.mark.parametrize("key", ["names", "classes", "id2label"])
def test_names_in_metadata(key: str, text: str, tmp_path: Path) -> None:
    assert onnx_names(save(tmp_path / "m.onnx", {"author": "ant, bee, cat", key: text})) == ANIMALS


def test_labels_of_operators(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", labels=[[*ANIMALS]])
    assert onnx_names(path) == ANIMALS
    box, metadata = classifier_by_name(str(path), classes=["a", "b", "c"])
    assert metadata.classes == ANIMALS and box(torch.eye(3, 4).reshape(3, 1, 2, 2)).argmax(1).tolist() == [0, 1, 2]
    assert onnx_names(save(tmp_path / "two.onnx", labels=[[*ANIMALS], ["x", "y", "z"]])) is None


def test_a_file_without_names_or_a_damaged_one_has_none(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", {"names": "{1: 'a', 2: 'b'}", "classes": "3", "license": "x, y, z"})
    assert onnx_names(path) is None and onnx_names(tmp_path / "none.onnx") is None
    content = path.read_bytes()
    for damaged in (b"", b"\x00", b"not a model", content[: len(content) // 2], b"\xff" * 50, content[::-1]):
        path.write_bytes(damaged)
        assert onnx_names(path) is None


def test_a_file_on_the_hub_is_as_one_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    path = save(tmp_path / "model.onnx", {"classes": json.dumps(ANIMALS)})
    monkeypatch.setattr(by_name, "hub_file", lambda name: path if name == "hf:owner/ants/model.onnx" else None)
    model, metadata = classifier_by_name("hf:owner/ants/model.onnx", classes=ANIMALS)
    assert metadata == classifier_by_name(str(path), classes=ANIMALS)[1]
    assert model(torch.eye(4)[:2].reshape(2, 1, 2, 2)).tolist() == torch.eye(2, 3).tolist()
