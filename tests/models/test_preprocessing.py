"""Preprocessing that is given: every kind of model gets it, what states its own is refused, and what is said of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from notbugs import models
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.models.black_box import BlackBox, SurrogateGradients, from_sklearn
from notbugs.models.by_name import classifier_by_name
from notbugs.models.preprocessing import Preprocessing, preprocessed

SHAPE = (3, 4, 4)
GIVEN = Preprocessing(mean=(100.0, 110.0, 120.0), std=(50.0,), pixel_range=(0.0, 255.0))


PROGRAMS = ("TorchScript", "torch.export")


def expected(images: Tensor) -> Tensor:
    """What a model gets, by the definition."""
    return (255 * images - torch.tensor([100.0, 110, 120])[:, None, None]) / 50


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).eval()


@pytest.fixture
def part() -> Dataset:
    images = torch.randint(0, 256, (6, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Dataset(images, torch.tensor([0, 1, 2, 3, 0, 1]), ("a", "b", "c", "d"), tuple("abcdef"))


def save_onnx(path: Path, *, eight_bits: bool = False) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    layer = network()[1]  # type: ignore[index]
    constants = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in layer.named_parameters()]
    kind = TensorProto.UINT8 if eight_bits else TensorProto.FLOAT
    entry, exit = helper.make_tensor_value_info("x", kind, ["n", *SHAPE]), helper.make_tensor_value_info("y", 1, ["n", 4])
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["y"], transB=1),
    ]
    graph = helper.make_graph(nodes, "g", [entry], [exit], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def save(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of this kind, by its name."""
    monkeypatch.chdir(folder)
    module = f"given_{folder.name}".replace("-", "_")
    (folder / f"{module}.py").write_text(
        "from models.test_preprocessing import network\nimport torch\n"
        "def net(classes): return network()\n"
        "def function(classes): return lambda images: network()(torch.from_numpy(images)).detach().numpy()\n"
    )
    if kind == "TorchScript":
        torch.jit.trace(network(), torch.zeros(2, *SHAPE)).save("m.pt")  # type: ignore[no-untyped-call]
    elif kind == "torch.export":
        batch = {0: torch.export.Dim("n", min=1)}
        torch.export.save(torch.export.export(network(), (torch.zeros(2, *SHAPE),), dynamic_shapes=(batch,)), "m.pt2")
    elif kind == "weights":
        torch.save(network().state_dict(), "w.pt")
    elif kind == "ONNX":
        save_onnx(folder / "m.onnx")
    return {"TorchScript": "m.pt", "torch.export": "m.pt2", "weights": "w.pt", "ONNX": "m.onnx"}.get(kind, f"{module}:{kind}")


@pytest.mark.parametrize(
    "kind", ["net", "function", "weights", "ONNX", *(pytest.param(kind, marks=pytest.mark.slow) for kind in PROGRAMS)]
)
@pytest.mark.filterwarnings("ignore")
def test_every_kind_of_model_gets_pixels_as_is_said(
    kind: str, part: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = save(kind, tmp_path, monkeypatch)
    own = f"given_{tmp_path.name}:net".replace("-", "_") if kind == "weights" else None
    model, metadata = classifier_by_name(name, classes=part.classes, network=own, part=part, preprocessing=GIVEN)
    images = part.pixels(slice(None))
    with torch.no_grad():
        assert torch.allclose(model(images), network()(expected(images)), atol=1e-4)
    assert metadata.notes[-1] == "it gets pixels from 0 to 255, minus 100, 110, 120, divided by 50, as you say"
    plain, metadata = classifier_by_name(name, classes=part.classes, network=own, part=part)
    with torch.no_grad():
        assert torch.allclose(plain(images), network()(images), atol=1e-4) and not any("as you say" in n for n in metadata.notes)


def test_gradients_of_a_surrogate_pass_through_the_preprocessing(part: Dataset) -> None:
    box = BlackBox(lambda images: network()(torch.from_numpy(images)).detach().numpy(), part.classes)
    model, images = preprocessed(SurrogateGradients(box, network()), GIVEN), part.pixels(slice(None)).requires_grad_()
    found = torch.autograd.grad(model(images)[:, 0].sum(), images)[0]
    assert torch.allclose(found, torch.autograd.grad(network()(expected(images))[:, 0].sum(), images)[0])
    assert isinstance(model, SurrogateGradients) and not model.no_gradient


def test_estimators_get_it_too(part: Dataset) -> None:
    from sklearn.linear_model import LogisticRegression

    images = part.pixels(slice(None))
    estimator = LogisticRegression().fit(expected(images).flatten(1).numpy(), part.labels.numpy())
    model = preprocessed(from_sklearn(estimator, ["0", "1", "2", "3"]), GIVEN)
    wanted = estimator.decision_function(expected(images).flatten(1).numpy())
    assert np.allclose(model(images).detach().numpy(), wanted, atol=1e-3)


def test_what_states_its_own_normalization_is_refused(
    part: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: None
) -> None:
    monkeypatch.chdir(tmp_path)
    models.save(models.build("linear", shape=SHAPE, classes=4), "m.safetensors")
    save_onnx(tmp_path / "eight.onnx", eight_bits=True)
    for name, says in (
        ("m.safetensors", r"mean 0\.5, 0\.5, 0\.5, standard deviation 0\.25"),
        ("timm:tiny", "states its own normalization, got mean"),
        ("eight.onnx", "it takes 8-bit pixels, from 0 to 255"),
    ):
        with pytest.raises(InputError, match=r"^--mean, --std, --range: must be left out: .*" + says):
            classifier_by_name(name, classes=part.classes, part=part, preprocessing=GIVEN)


def test_of_weights_the_normalization_of_their_network_s_package_is_replaced(
    part: Dataset, tmp_path: Path, stand_in: None
) -> None:
    import timm

    own = timm.create_model("tiny", pretrained=True, num_classes=4).eval()
    torch.save(own.state_dict(), tmp_path / "w.pt")
    given = {
        "classes": part.classes,
        "network": "timm:tiny",
        "part": part.with_images(part.images[..., [0, 1, 2, 3] * 3][:, :, [0] * 12]),
    }
    model, metadata = classifier_by_name(str(tmp_path / "w.pt"), **given, preprocessing=GIVEN)
    images = given["part"].pixels(slice(None))
    assert torch.allclose(model(images), own(expected(images)), atol=1e-4)
    assert [note for note in metadata.notes if "normalized" in note] == [] and metadata.notes[0].startswith("it gets pixels")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mean": (0.5, 0.5)}, r"^--mean: must have one value, or one for each of the 3 channels, got 2: 0\.5, 0\.5"),
        ({"mean": (0.5,) * 3, "std": (1.0,) * 2}, "^--std: must have one value"),
        ({"std": (0.0,)}, "^--std: must be above 0"),
        ({"std": (float("nan"),)}, "^--std: must be finite"),
        ({"pixel_range": (255.0,)}, "^--range: must be two different numbers"),
        ({"pixel_range": (1.0, 1.0)}, "^--range: must be two different numbers"),
    ],
)
def test_other_values_are_refused_at_once(given: dict[str, tuple[float, ...]], says: str, part: Dataset) -> None:
    with pytest.raises(InputError, match=says):
        classifier_by_name("never:imported", classes=part.classes, part=part, preprocessing=Preprocessing(**given))


def test_a_gray_image_and_three_values_make_rgb_for_a_network_and_are_refused_for_a_black_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray = Dataset(torch.full((4, 1, 4, 4), 90, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("a", "b"), tuple("abcd"))
    name = save("net", tmp_path, monkeypatch)
    model, metadata = classifier_by_name(name, classes=("a", "b", "c", "d"), part=gray, preprocessing=GIVEN)
    images = gray.pixels(slice(None))
    assert torch.allclose(model(images), network()(expected(images.expand(-1, 3, -1, -1))), atol=1e-4)
    assert "it takes RGB: the gray channel is repeated three times" in metadata.notes
    with pytest.raises(InputError, match="one for each of the 1 channels, got 3"):
        classifier_by_name(name.replace("net", "function"), classes=("a", "b"), part=gray, preprocessing=GIVEN)


def test_a_range_alone_and_what_is_said_of_it() -> None:
    centered = Preprocessing(pixel_range=(-1.0, 1.0))
    assert centered and not Preprocessing() and centered.words == "it gets pixels from -1 to 1"
    mean, std = centered.in_unit_range()
    assert [(value - mean[0]) / std[0] for value in (0, 0.5, 1)] == [-1, 0, 1]
