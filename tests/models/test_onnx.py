"""ONNX files predict what the original predicts."""

import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks, data, search
from notbugs.errors import InputError
from notbugs.models import frozen_copy
from notbugs.models.by_name import classifier_by_name
from notbugs.models.checkpoint import CheckpointMetadata
from notbugs.models.onnx import from_onnx
from notbugs.models.output_names import OutputNames
from notbugs.search import NormBall, objectives
from notbugs.study.given import load_fitting

onnx = pytest.importorskip("onnx")
NAMES = [f"digit {number}" for number in range(10)]


def save_onnx(
    path: Path, *, shape: list[Any], kind: str = "float", channels_last: bool = False, zipmap: bool = False
) -> np.ndarray:
    """Writes a linear model of 8x8 grayscale images as an ONNX file; returns its weights."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    entry = helper.make_tensor_value_info("x", getattr(TensorProto, kind.upper()), shape)
    nodes, constants = [], [numpy_helper.from_array(weights, "w")]
    value = "x"
    if kind in ("uint8", "int32", "int64"):
        constants.append(numpy_helper.from_array(np.array(255, dtype=np.float32), "top"))
        nodes += [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), helper.make_node("Div", ["f", "top"], ["scaled"])]
        value = "scaled"
    if kind == "float16":
        nodes.append(helper.make_node("Cast", ["x"], ["single"], to=TensorProto.FLOAT))
        value = "single"
    if len(shape) > 2:
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
        {"shape": ["n", 8, 8]},
        {"shape": ["n", 1, 8, 8], "kind": "uint8"},
        {"shape": ["n", 1, 8, 8], "kind": "int32"},
        {"shape": ["n", 8, 8, 1], "kind": "int64"},
        {"shape": ["n", 64], "zipmap": True},
    ],
    ids=str,
)
def test_onnx_file_gives_the_logits_of_its_weights(
    options: dict[str, Any], tmp_path: Path, digits: data.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_converters(monkeypatch)  # none, whatever is installed
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
    with pytest.raises(InputError, match=r"bad.onnx: must be an ONNX model that onnxruntime can run"):
        from_onnx(tmp_path / "bad.onnx", NAMES)
    with pytest.raises(InputError, match="no such model"):
        from_onnx(tmp_path / "none.onnx", NAMES)
    save_onnx(tmp_path / "odd.onnx", shape=["n", 1, 1, 8, 8])
    with pytest.raises(InputError, match=r"must take images, N x C x H x W, .* got tensor\(float\) \['n', 1, 1, 8, 8\]"):
        from_onnx(tmp_path / "odd.onnx", NAMES)


def save_graph(
    path: Path,
    operations: list[tuple[str, list[str], list[str]]],
    outputs: dict[str, list[Any]],
    *,
    zero: bool = False,
    kinds: dict[str, str] | None = None,
) -> None:
    """Writes a graph of images "x" of 2x2 pixels, flattened to "flat", and a matrix "w" of 4x3.

    zero: an index "zero", too. kinds: types of outputs that are no floats.
    """
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), "w")
    constants = [weights, *([numpy_helper.from_array(np.array([0]), "zero")] if zero else [])]
    axis: dict[str, dict[str, int]] = {"Gather": {"axis": 1}, "Cast": {"to": TensorProto.INT64}}
    nodes = [helper.make_node(kind, *names, **axis.get(kind, {})) for kind, *names in [("Flatten", ["x"], ["flat"]), *operations]]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 2, 2])
    types = {name: getattr(TensorProto, (kinds or {}).get(name, "FLOAT")) for name in outputs}
    infos = [helper.make_tensor_value_info(name, types[name], ["n", *shape]) for name, shape in outputs.items()]
    graph = helper.make_graph(nodes, "g", [entry], infos, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


LOGITS, PROBABILITIES = ("MatMul", ["flat", "w"], ["logits"]), ("Softmax", ["logits"], ["probabilities"])
THREE = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("operations", "outputs"),
    [
        ([LOGITS], {"flat": [4], "logits": [3]}),
        ([LOGITS, PROBABILITIES], {"probabilities": [3], "logits": [3]}),
        ([LOGITS, ("Identity", ["logits"], ["again"])], {"logits": [3], "again": [3]}),
        ([LOGITS, ("LogSoftmax", ["logits"], ["logarithms"])], {"logarithms": [3], "logits": [3]}),
        ([LOGITS, ("LogSoftmax", ["logits"], ["logarithms"])], {"logits": [3], "logarithms": [3]}),
        ([LOGITS, ("Sigmoid", ["logits"], ["sigmoids"])], {"sigmoids": [3], "logits": [3]}),
    ],
    ids=["beside an embedding", "beside their softmax", "twice", "after their log-softmax", "before it", "beside sigmoids"],
)
def test_logits_are_chosen_among_several_outputs(operations: Any, outputs: dict[str, list[Any]], tmp_path: Path) -> None:
    save_graph(tmp_path / "m.onnx", operations, outputs)
    save_graph(tmp_path / "alone.onnx", [LOGITS], {"logits": [3]})
    images = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(from_onnx(tmp_path / "m.onnx", THREE)(images), from_onnx(tmp_path / "alone.onnx", THREE)(images))


def test_outputs_that_could_both_be_the_logits_are_refused(tmp_path: Path) -> None:
    images = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    save_graph(tmp_path / "m.onnx", [LOGITS, ("Sin", ["logits"], ["auxiliary"])], {"logits": [3], "auxiliary": [3]})
    with pytest.raises(
        InputError, match=r"must have one output of images x 3 classes, got logits, auxiliary; keep one of them: onnx"
    ):
        from_onnx(tmp_path / "m.onnx", THREE)(images)
    save_graph(tmp_path / "m.onnx", [LOGITS], {"flat": [4], "logits": [3]})
    with pytest.raises(InputError, match=r"must give logits, images x 9 classes, .* got flat \(5, 4\), logits \(5, 3\)"):
        from_onnx(tmp_path / "m.onnx", list("abcdefghi"))(images)


def test_maps_of_probabilities_are_read_by_their_classes(tmp_path: Path) -> None:
    """As scikit-learn's converters write them (ZipMap); a class that the estimator never saw has probability 0."""
    from onnx import TensorProto, helper

    save_graph(tmp_path / "m.onnx", [LOGITS, PROBABILITIES], {"probabilities": [3]})
    model = onnx.load(tmp_path / "m.onnx")
    zipped = helper.make_node("ZipMap", ["probabilities"], ["maps"], domain="ai.onnx.ml", classlabels_strings=["c", "a", "d"])
    value = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    maps = helper.make_value_info("maps", helper.make_sequence_type_proto(value))
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["n"])
    top = helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0)
    graph = helper.make_graph(
        [*model.graph.node, top, zipped], "g", list(model.graph.input), [label, maps], list(model.graph.initializer)
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "maps.onnx")
    images = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    probabilities = from_onnx(tmp_path / "m.onnx", THREE)(images)
    found = from_onnx(tmp_path / "maps.onnx", ["a", "b", "c", "d"])(images)
    assert torch.allclose(found[:, [2, 0, 3]], probabilities, atol=1e-6) and bool((found[:, 1] == 0).all())


def save_classifier(path: Path, labels: list[int], *, exchanged: bool = False, opset: int = 13, zipmap: bool = True) -> None:
    """Writes a scaled logistic regression of 2x2 pixels as scikit-learn's converters do: a label, and probabilities by label."""
    from onnx import TensorProto, helper

    weights = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    names = {"classlabels_ints": labels, "post_transform": "LOGISTIC", "multi_class": 1}
    linear = {"coefficients": weights.ravel().tolist(), "intercepts": [0.1] * len(labels)}
    learned = "ai.onnx.ml"
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Scaler", ["flat"], ["scaled"], domain=learned, offset=[0.5] * 4, scale=[2.0] * 4),
        helper.make_node("LinearClassifier", ["scaled"], ["label", "raw"], domain=learned, **names, **linear),
        helper.make_node("Normalizer", ["raw"], ["shares"], domain=learned, norm="L1"),
    ]
    scores = "shares"
    if exchanged:
        nodes.append(helper.make_node("Neg", ["shares"], ["negated"]))
        scores = "negated"
    outputs = [helper.make_tensor_value_info("label", TensorProto.INT64, ["n"])]
    if zipmap:
        nodes.append(helper.make_node("ZipMap", [scores], ["maps"], domain=learned, classlabels_int64s=labels))
        value = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        outputs.append(helper.make_value_info("maps", helper.make_sequence_type_proto(value)))
    else:
        outputs.append(helper.make_tensor_value_info(scores, TensorProto.FLOAT, ["n", len(labels)]))
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 2, 2])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(learned, 1)]
    graph = helper.make_graph(nodes, "g", [entry], outputs)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def few_images(count: int = 6) -> data.Dataset:
    """Images of 2x2 pixels."""
    pixels = torch.randint(256, (count, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return data.Dataset(pixels, torch.arange(count) % 3, ("0", "1", "2"), tuple(map(str, range(count))))


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("zipmap", [True, False])
def test_linear_classifiers_of_scikit_learn_have_gradients(opset: int, zipmap: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnx2fx")
    save_classifier(tmp_path / "m.onnx", [0, 1, 2], opset=opset, zipmap=zipmap)
    part = few_images()
    images = part.pixels(slice(None))
    model, metadata = classifier_by_name(str(tmp_path / "m.onnx"), classes=part.classes, part=part)
    assert metadata.classes is None and torch.allclose(model(images).sum(1), torch.ones(6), atol=1e-5)
    assert attacks.missing_gradient(model, images) == ""


def test_numbers_of_classes_in_a_file_are_places_or_names(tmp_path: Path, raises_one_line: Any) -> None:
    part = few_images()
    images = part.pixels(slice(None))
    save_classifier(tmp_path / "m.onnx", [0, 1, 2])
    plain = from_onnx(tmp_path / "m.onnx", part.classes)(images)
    for zipmap in (True, False):
        save_classifier(tmp_path / "tens.onnx", [0, 10, 20], zipmap=zipmap)
        model, metadata = classifier_by_name(str(tmp_path / "tens.onnx"), classes=part.classes, part=part)
        assert metadata.classes is not None and len(metadata.classes) == 21
        assert [name for name in metadata.classes if name] == ["0", "10", "20"]
        found = model(images)
        assert torch.allclose(found[:, [0, 10, 20]], plain, atol=1e-6) and float(found[:, 1:10].abs().max()) == 0
        with raises_one_line(r"got none called 1, 2 among 3 outputs: 0, 10, 20; say which they are: "):
            load_fitting(str(tmp_path / "tens.onnx"), part, dataset="few")
        said = OutputNames.read(None, "0=0,1=10,2=20")
        fitting = load_fitting(str(tmp_path / "tens.onnx"), part, dataset="few", outputs=said)
        assert torch.allclose(fitting.model(images), plain, atol=1e-5)
        with raises_one_line(r"--class-map: must name outputs of .*, got 5"):
            load_fitting(str(tmp_path / "tens.onnx"), part, dataset="few", outputs=OutputNames.read(None, "0=0,1=5,2=20"))


def test_the_label_of_a_classifier_goes_before_its_scores(tmp_path: Path) -> None:
    """Scores of support vector machines may be highest for another class than the predicted one."""
    part = few_images()
    images = part.pixels(slice(None))
    for zipmap in (True, False):
        save_classifier(tmp_path / "m.onnx", [0, 1, 2], zipmap=zipmap)
        save_classifier(tmp_path / "exchanged.onnx", [0, 1, 2], exchanged=True, zipmap=zipmap)
        plain, exchanged = (
            classifier_by_name(str(tmp_path / f"{name}.onnx"), classes=part.classes, part=part)[0](images)
            for name in ("m", "exchanged")
        )
        assert exchanged.argmax(1).tolist() == plain.argmax(1).tolist()


def test_images_are_given_as_the_file_takes_them_or_refused(tmp_path: Path, raises_one_line: Any) -> None:
    from onnx import TensorProto, helper

    def save(shape: list[Any], nodes: list[Any]) -> Path:
        entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "g", [entry], [result])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    part, mean = few_images(), helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=1)
    images, classes = part.pixels(slice(None)), ["a", "b", "c"]
    model, metadata = classifier_by_name(str(save(["n", 3, 2, 2], [mean])), classes=classes, part=part)
    assert metadata.notes == ("it takes RGB: the gray channel is repeated three times",)
    assert torch.allclose(model(images), images.mean((2, 3)).expand(-1, 3), atol=1e-6)
    last = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=1)  # N x 1 x 1 x K
    four = part.with_images(part.images.repeat(1, 1, 4, 4))
    unknown, _ = classifier_by_name(str(save(["n", 8, 8, "c"], [last])), classes=["a"], part=four)
    assert unknown.box.function(four.pixels(slice(None)).numpy()).shape == (6, 1)  # channels come last
    model, metadata = classifier_by_name(str(save(["n", 2, 2, 3], [last])), classes=classes, part=part)
    assert len(metadata.notes) == 1 and torch.allclose(model(images), images.mean((2, 3)).expand(-1, 3), atol=1e-6)
    for shape, words in (
        (["n", 3, 16, 16], r"m.onnx: takes images of 16x16 pixels, got 2x2; use --resize 16"),
        (["n", 8, 4, 1], r"m.onnx: takes images of 4x8 pixels, got 2x2; resize copies"),
        (["n", 25], r"m.onnx: takes images of 5x5 pixels, got 2x2; use --resize 5"),
    ):
        with raises_one_line(words):
            classifier_by_name(str(save(shape, [helper.make_node("Identity", ["x"], ["y"])])), classes=classes, part=part)
    colored = part.with_images(part.images.expand(-1, 3, -1, -1).contiguous())
    with raises_one_line(r"m.onnx: takes gray images, of one channel, got images of shape \(3, 2, 2\)"):
        classifier_by_name(str(save(["n", 1, 2, 2], [mean])), classes=classes, part=colored)


def test_one_output_of_a_file_is_a_probability_or_a_logit(tmp_path: Path) -> None:
    pytest.importorskip("onnx2fx")
    part = few_images()
    images, two = part.pixels(slice(None)), ["cat", "dog"]
    first = ("Gather", ["logits", "zero"], ["one"])
    for kind, operations, output in (("logit", [], "one"), ("probability", [("Sigmoid", ["one"], ["p"])], "p")):
        save_graph(tmp_path / "m.onnx", [LOGITS, first, *operations], {output: [1]}, zero=True)
        model, metadata = classifier_by_name(str(tmp_path / "m.onnx"), classes=two, part=part)
        assert metadata.notes[0].endswith(f"is read as the {kind} of dog against cat")
        assert model(images).shape == (6, 2) and attacks.missing_gradient(model, images) == ""
    label = ("Greater", ["one", "one"], ["label"])
    several = [LOGITS, first, label, ("Cast", ["label"], ["number"]), ("Sigmoid", ["one"], ["p"])]
    for outputs in ({"number": [1], "one": [1]}, {"p": [1], "one": [1]}, {"one": [1], "p": [1]}):
        save_graph(tmp_path / "m.onnx", several, outputs, zero=True, kinds={"number": "INT64"})
        model, metadata = classifier_by_name(str(tmp_path / "m.onnx"), classes=two, part=part)
        assert metadata.notes[0].endswith("is read as the logit of dog against cat")


def test_a_class_that_a_classifier_never_saw_has_a_gradient_of_none(tmp_path: Path) -> None:
    pytest.importorskip("onnx2fx")
    part = few_images()
    images = part.pixels(slice(None))
    for zipmap in (True, False):
        save_classifier(tmp_path / "m.onnx", [0, 2], zipmap=zipmap)
        model, _ = classifier_by_name(str(tmp_path / "m.onnx"), classes=part.classes, part=part)
        assert bool((model(images)[:, 1] == 0).all()) and attacks.missing_gradient(model, images) == ""


class Converter(ModuleType):
    """Stands for a package that converts ONNX files."""

    def __init__(self, name: str, network: nn.Module | Exception) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.network = network

    def convert(self, _: Any) -> nn.Module:
        if isinstance(self.network, Exception):
            raise self.network
        return self.network


def linear_network(weights: np.ndarray) -> nn.Sequential:
    layer = nn.Linear(*weights.shape, bias=False)
    layer.weight.data = torch.from_numpy(weights.T.copy())
    return nn.Sequential(nn.Flatten(), layer)


class Rounded(nn.Module):
    """The same values, and gradients of 0: as a network in int8."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(images)
        return found.detach() + 0 * found


def use_converters(patch: pytest.MonkeyPatch, *networks: nn.Module | Exception) -> None:
    names = [f"converter{number}" for number in range(len(networks))]
    for name, network in zip(names, networks, strict=True):
        patch.setitem(sys.modules, name, Converter(name, network))
    patch.setattr("notbugs.models.onnx_gradients.CONVERTERS", dict.fromkeys(names, "convert"))


@pytest.mark.parametrize(("kind", "differs"), [("float", "they differ by"), ("float16", "")])
def test_what_half_precision_rounds_is_no_other_network(
    kind: str, differs: str, tmp_path: Path, digits: data.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = save_onnx(tmp_path / "m.onnx", shape=["n", 1, 8, 8], kind=kind)
    network = linear_network(1.003 * weights)
    use_converters(monkeypatch, network.half() if kind == "float16" else network)
    model = from_onnx(tmp_path / "m.onnx", NAMES)
    model(digits.test.pixels(slice(0, 4)))
    assert (differs in model.no_gradient) if differs else (model.no_gradient == "")


@pytest.mark.parametrize("options", [{"shape": ["n", 1, 8, 8]}, {"shape": [4, 1, 8, 8]}, {"shape": ["n", 64]}], ids=str)
def test_a_converted_network_gives_the_gradients_and_onnxruntime_the_values(
    options: dict[str, Any], tmp_path: Path, digits: data.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first converter fails, the second is wrong, the third right."""
    weights = save_onnx(tmp_path / "m.onnx", **options)
    networks = (NotImplementedError("Scan"), linear_network(1.1 * weights), linear_network(weights))
    use_converters(monkeypatch, *networks)
    images, box = digits.test.pixels(slice(0, 10)), from_onnx(tmp_path / "m.onnx", NAMES)
    values, gradients = search.gradients(lambda images: objectives.logits(box, images), images)
    assert attacks.missing_gradient(box, images) == ""
    assert torch.equal(values, box(images)) and torch.allclose(values, images.flatten(1) @ torch.from_numpy(weights), atol=1e-4)
    assert torch.allclose(gradients.flatten(2), torch.from_numpy(weights.T)[:, None].expand(-1, 10, -1), atol=1e-5)
    copied = frozen_copy(box)
    assert torch.equal(copied(images), values) and attacks.has_gradient(copied, images)


def test_why_an_onnx_file_has_no_gradients_is_said(tmp_path: Path, digits: data.Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, images = save_onnx(tmp_path / "m.onnx", shape=["n", 1, 8, 8]), digits.test.pixels(slice(0, 10))
    for networks, reason in (
        ((), r"only with one of the packages .* pip install notbugs\[onnx-gradients\]"),
        ((NotImplementedError("Scan"),), "converter0 cannot convert it: NotImplementedError: Scan"),
        ((Rounded(linear_network(weights)),), "gradients of the network converted from it are 0 for 10 of 10 images"),
        ((linear_network(2 * weights), nn.Linear(3, 3)), "gives other logits: they differ by .*; the network converted .* fails"),
    ):
        use_converters(monkeypatch, *networks)
        model = from_onnx(tmp_path / "m.onnx", NAMES)
        model(images)
        assert re.search(reason, attacks.missing_gradient(model, images))


@pytest.mark.slow
def test_real_converters_give_gradients(tmp_path: Path, digits: data.Splits) -> None:
    pytest.importorskip("onnx2fx")
    weights, images = save_onnx(tmp_path / "m.onnx", shape=["n", 1, 8, 8]), digits.test.pixels(slice(0, 10))
    model = from_onnx(tmp_path / "m.onnx", NAMES)
    gradients = search.gradients(lambda images: objectives.logits(model, images), images)[1]
    assert torch.allclose(gradients.flatten(2), torch.from_numpy(weights.T)[:, None].expand(-1, 10, -1), atol=1e-5)
