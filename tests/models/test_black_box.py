"""Black boxes: functions, scikit-learn estimators and ONNX files predict what the original predicts."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from notbugs import attacks, data, models
from notbugs.errors import InputError
from notbugs.models import black_box
from notbugs.models.checkpoint import CheckpointMetadata
from notbugs.search import NormBall, objectives

onnx = pytest.importorskip("onnx")
NAMES = [f"digit {number}" for number in range(10)]


@pytest.fixture(scope="module")
def rows(digits: data.Splits) -> tuple[np.ndarray, np.ndarray]:
    return digits.train.pixels(slice(0, 600)).flatten(1).numpy(), digits.train.labels[:600].numpy()


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=200),
        make_pipeline(StandardScaler(), SVC()),
        SVC(decision_function_shape="ovo"),
        SVC(break_ties=False, gamma=0.5),
        LinearSVC(),
        RandomForestClassifier(20, random_state=0),
        KNeighborsClassifier(3),
        DecisionTreeClassifier(random_state=0),
    ],
    ids=lambda each: type(each).__name__,
)
def test_estimators_keep_their_predictions(estimator: Any, rows: Any, digits: data.Splits) -> None:
    """Whether its classes are indices or names, and if it was trained on some of them only."""
    images = digits.test.pixels(slice(0, 150))
    flat = images.flatten(1).numpy()
    pixels, labels = rows
    for targets in (labels, np.array(NAMES)[labels]):
        box = black_box.from_sklearn(estimator.fit(pixels, targets), NAMES)
        logits = objectives.logits(box, images)
        predicted = estimator.predict(flat)
        wanted = predicted if targets is labels else np.array([NAMES.index(name) for name in predicted])
        assert logits.shape == (150, 10)
        assert torch.equal(logits.argmax(1), torch.from_numpy(wanted))
        assert bool((objectives.margin(logits, torch.from_numpy(wanted)) > 0).all())
    known = labels < 4
    box = black_box.from_sklearn(estimator.fit(pixels[known], labels[known]), NAMES)
    assert torch.equal(objectives.logits(box, images).argmax(1), torch.from_numpy(estimator.predict(flat)))


def test_two_classes_and_estimators_without_scores(rows: Any, digits: data.Splits) -> None:
    pixels, labels = rows
    images = digits.test.pixels(slice(0, 50))
    learner = LogisticRegression(max_iter=200).fit(pixels, labels > 4)
    with pytest.raises(InputError, match="must predict one of the classes"):
        black_box.from_sklearn(learner, NAMES)
    learner = LogisticRegression(max_iter=200).fit(pixels, (labels > 4).astype(int))
    logits = objectives.logits(black_box.from_sklearn(learner, ["low", "high"]), images)
    wanted = torch.from_numpy(learner.decision_function(images.flatten(1))).float()
    assert torch.allclose(logits[:, 1] - logits[:, 0], wanted, atol=1e-4)

    class PredictOnly:
        classes_ = np.arange(2)

        def predict(self, rows: np.ndarray) -> np.ndarray:
            return (rows.sum(1) > 20).astype(int)

    logits = objectives.logits(black_box.from_sklearn(PredictOnly(), ["dark", "light"]), images)
    assert set(logits.flatten().tolist()) == {-1.0, 1.0}
    with pytest.raises(InputError, match="must be a fitted scikit-learn classifier, got SVC; call its fit first"):
        black_box.from_sklearn(SVC(), NAMES)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda images: np.zeros((len(images), 3)), r"must return logits of shape \(4, 10\), or class .*, got float64 \(4, 3\)"),
        (lambda images: np.full(len(images), 10), "must predict one of the classes digit 0.*, got 10"),
        (lambda images: ["cat"] * len(images), "got 'cat'"),
        (lambda images: None, r"got object \(\)"),
    ],
)
def test_functions_that_return_neither_logits_nor_classes_raise(function: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        black_box.BlackBox(function, NAMES)(torch.zeros(4, 1, 8, 8))


def test_functions_may_return_indices_names_or_logits(digits: data.Splits) -> None:
    images = digits.test.pixels(slice(0, 6))
    index = np.array([3, 1, 4, 1, 5, 9])
    for outputs in (index, list(index), torch.from_numpy(index), [NAMES[i] for i in index], np.array(NAMES)[index]):
        assert black_box.BlackBox(lambda images, outputs=outputs: outputs, NAMES)(images).argmax(1).tolist() == index.tolist()
    logits = torch.rand(6, 10, dtype=torch.float64)
    assert torch.allclose(black_box.BlackBox(lambda images: logits, NAMES)(images), logits.float())


# ---- ONNX ---------------------------------------------------------------------------------------------------------------------


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
    box, metadata = black_box.load_classifier(str(tmp_path / "m.onnx"), classes=NAMES)
    images, labels = digits.test.pixels(slice(0, 10)), digits.test.labels[:10]
    assert metadata == CheckpointMetadata()
    assert torch.allclose(box(images), images.flatten(1) @ torch.from_numpy(weights), atol=1e-4)
    assert not attacks.has_gradient(box, images)
    result = attacks.adaptive_ensemble(box, images, labels, threat_model=NormBall("l2", 0.5), budget="quick")
    assert torch.allclose(result.margins, -objectives.margin(box(result.images), labels), atol=1e-4)


def test_onnx_files_that_cannot_be_used_raise(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"bad.onnx: is no ONNX model that onnxruntime can run"):
        black_box.from_onnx(tmp_path / "bad.onnx", NAMES)
    with pytest.raises(InputError, match="no such model"):
        black_box.from_onnx(tmp_path / "none.onnx", NAMES)
    save_onnx(tmp_path / "odd.onnx", shape=["n", 8, 64])
    with pytest.raises(InputError, match=r"must take images, N x C x H x W, .* got tensor\(float\) \['n', 8, 64\]"):
        black_box.from_onnx(tmp_path / "odd.onnx", NAMES)


# ---- by name ------------------------------------------------------------------------------------------------------------


def test_classifiers_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standard: models.Model) -> None:
    (tmp_path / "my_models.py").write_text(
        "import numpy as np\nfrom torch import nn\nfrom sklearn.dummy import DummyClassifier\n"
        "def network(classes): return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, classes))\n"
        "def estimator(classes): return DummyClassifier().fit(np.zeros((classes, 64)), np.arange(classes))\n"
        "def function(classes): return lambda images: np.zeros(len(images), int)\n"
        "def nothing(classes): return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    network, _ = black_box.load_classifier("my_models:network", classes=NAMES)
    assert not any(module.training for module in network.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert isinstance(black_box.load_classifier("my_models:estimator", classes=NAMES)[0], black_box.BlackBox)
    assert isinstance(black_box.load_classifier("my_models:function", classes=NAMES)[0], black_box.BlackBox)
    with pytest.raises(InputError, match="must return a network, a scikit-learn classifier or a function of images, got int"):
        black_box.load_classifier("my_models:nothing", classes=NAMES)
    with pytest.raises(InputError, match=r"must be a function.* that returns a model"):
        black_box.load_classifier("my_models:missing", classes=NAMES)
    with pytest.raises(InputError, match="no such model"):
        black_box.load_classifier("missing.safetensors", classes=NAMES)
    models.save(standard, tmp_path / "m.safetensors", classes=NAMES)
    loaded, metadata = black_box.load_classifier("m.safetensors", classes=NAMES)
    assert list(metadata.classes or ()) == list(NAMES)
    assert torch.allclose(loaded(torch.ones(2, 1, 8, 8)), standard(torch.ones(2, 1, 8, 8)), atol=1e-5)
