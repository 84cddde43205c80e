"""Models as people have them: used as they are meant, or refused with what was found and the way out."""

import argparse
import datetime
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from notbugs import attacks, models
from notbugs.attacks.sanity_checks import forward
from notbugs.data import Dataset
from notbugs.models import torch_files
from notbugs.models.by_name import classifier_by_name
from notbugs.models.classifier import frozen
from notbugs.models.output_names import OutputNames
from notbugs.study.given import LoadedClassifier, load_fitting

Raises = Callable[[str], AbstractContextManager[None]]
CLASSES = ("a", "b", "c")
CODE = """
import numpy as np
import torch
from torch import nn

CLASSES = ("a", "b", "c")
WEIGHT = torch.linspace(-1, 1, 3 * 16).reshape(3, 16).sin()

class Net(nn.Linear):
    def __init__(self, change=lambda z: z, take=lambda images: images):
        super().__init__(16, 3)
        self.weight.data, self.bias.data, self.change, self.take = WEIGHT.clone(), torch.zeros(3), change, take
    def forward(self, images): return self.change(super().forward(self.take(images).flatten(1)))

class Batches(Net):
    # takes batches of some sizes alone
    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
    def forward(self, images):
        assert self.sizes(len(images)), f"{len(images)} images"
        return super().forward(images)

def hidden_change(images):
    images.data.mul_(0.5)
    return 2 * images

class Two(nn.Module):
    def forward(self, images, labels): return labels

class Learner:
    __module__ = "fastai.learner"
    def __init__(self): self.model = Net()
    def predict(self, item): return "a"

def bytes_only(images):
    assert images.dtype == torch.uint8, "expected uint8"
    return images / 255

def half(classes):
    net = Net()
    net.bias = nn.Parameter(torch.zeros(3, device="meta"))
    return net

def plain(classes): return Net()
def training_mode(classes): return nn.Sequential(nn.BatchNorm2d(1, eps=0), nn.Dropout(0.9), Net()).train()
def parallel(classes): return nn.DataParallel(Net())
def bfloat(classes): return Net().bfloat16()
def log_softmax(classes): return Net(lambda z: z.log_softmax(1))
def middle(classes): return Net(lambda z: z[:, None])
def with_probabilities(classes): return Net(lambda z: (z, z.softmax(1)))
def unknown_keys(classes): return Net(lambda z: {"embedding": z.repeat(1, 4), "pred": z, "uncertainty": z.mean(1)})
def ensemble(classes): return Net(lambda z: [z, z.flip(1), 2 * z])
def teacher(classes): return Net(lambda z: {"student": z, "teacher": z.flip(1)})
def stacked(classes): return Net(lambda z: torch.stack([z, z.flip(1)]))
def labels(classes): return Net(lambda z: z.argmax(1))
def nothing(classes): return Net(lambda z: None)
def bytes_in(classes): return Net(take=bytes_only)
def on_cuda(classes): return Net(take=lambda images: images.to("cuda:999"))
def in_place(classes): return Net(take=lambda images: images.mul_(0.5).mul_(2))
def in_place_hidden(classes): return Net(take=hidden_change)
def in_place_relu(classes): return nn.Sequential(nn.ReLU(inplace=True), Net())
def no_single_image(classes): return Batches(lambda count: count > 1)
def small_batches(classes): return Batches(lambda count: count <= 5)
def even_batches(classes): return Batches(lambda count: count % 2 == 0)
def flat(classes): return Net(take=lambda images: images.view(-1, 16) if images.dim() == 2 else None)
def without_channel(classes): return Net(take=lambda images: images if images.dim() == 3 else None)
def two_arguments(classes): return Two()
def a_class(classes): return Net
def a_tuple(classes): return Net(), "preprocess"
def a_state(classes): return Net().state_dict()
def of_tensors(classes): return Net().forward
def learner(classes): return Learner()
def empty(classes): return Net().to("meta")
def half_empty(classes): return half(classes)

class Estimator:
    def __init__(self, known, numbers): self.classes_, self.numbers = known, np.asarray(numbers)
    def predict(self, rows): return self.numbers[places(torch.from_numpy(rows).float())]

def places(rows): return ((rows.flatten(1) - 0.5) @ WEIGHT.T).argmax(1).numpy()
def several_outputs(classes): return Estimator([np.arange(3), np.arange(2)], np.zeros((3, 2), int))
def several_labels(classes): return Estimator(np.arange(3), np.eye(3, dtype=int))
def tens(classes): return Estimator(np.array([0, 10, 20]), [0, 10, 20])
def text(classes): return Estimator(np.array(CLASSES), CLASSES)
def from_one(classes): return lambda images: 1 + places(torch.from_numpy(images))
def below_zero(classes): return lambda images: places(torch.from_numpy(images)) - 2
def one_score(classes): return lambda images: (torch.from_numpy(images).flatten(1) @ WEIGHT[0]).numpy()
def one_column(classes): return lambda images: one_score(classes)(images)[:, None]
def one_probability(classes): return lambda images: 1 / (1 + np.exp(-one_score(classes)(images)))
"""


@pytest.fixture
def part() -> Dataset:
    """Nine gray images of three classes."""
    images = torch.randint(256, (9, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Dataset(images, torch.arange(9) % 3, CLASSES, tuple(f"{number}.png" for number in range(9)))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with the module `owned` of networks."""
    (tmp_path / "owned.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("owned", None)


def load(name: str, part: Dataset, network: str | None = None) -> LoadedClassifier:
    return load_fitting(name, part, dataset="photos", network=network)


def logits_of(part: Dataset) -> Tensor:
    weight = torch.linspace(-1, 1, 48).reshape(3, 16).sin()
    return part.pixels(slice(None)).flatten(1) @ weight.T


COPIED = "it changes its input: it gets a copy of the images"
USED: dict[str, tuple[str, ...]] = {
    "training_mode": (),
    "parallel": (),
    "bfloat": ("its weights, in bfloat16, are computed with in float32",),
    "log_softmax": (),
    "middle": ("its outputs, (2, 1, 3), are flattened",),
    "with_probabilities": ("of its outputs, tuple of (2, 3), (2, 3), the logits are taken",),
    "in_place": (COPIED,),
    "in_place_hidden": (COPIED,),
    "in_place_relu": (COPIED,),
    "flat": ("it takes flattened images",),
    "without_channel": ("it takes images as N x H x W",),
    "no_single_image": ("it takes no batch of one image: a second one is added",),
    "small_batches": ("it takes no large batches: it gets 4 images at a time at most",),
    "even_batches": ("it takes 2 images at a time: the last batch is filled up",),
    "unknown_keys": ("of its outputs, dict with embedding, pred, uncertainty, the logits are taken",),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", USED)
def test_used_with_its_gradients_and_what_was_decided(name: str, part: Dataset) -> None:
    loaded = load(f"owned:{name}", part)
    found, wanted = loaded.model(part.pixels(slice(None))), logits_of(part)
    tolerance = 0.02 if name == "bfloat" else 1e-5
    assert torch.allclose(found.log_softmax(1), wanted.log_softmax(1), atol=tolerance) and loaded.metadata.notes == USED[name]
    assert torch.allclose(loaded.model(part.pixels([8])), found[8:], atol=1e-5)  # one image alone
    assert loaded.model(part.pixels([])).shape == (0, 3)
    with frozen(loaded.model):
        assert attacks.has_gradient(loaded.model, part.pixels([0, 1]))


REFUSED = {
    "ensemble": r"must return one table of logits, got list of \(2, 3\), .*; return one of them; of an ensemble the mean",
    "teacher": r"must return one table of logits, got dict with student, teacher, of which several could be it",
    "stacked": r"must return logits of shape \(1, classes\), got \(2, 1, 3\); return a row of logits for each image",
    "labels": r"must return logits of shape \(1, classes\), got \(1,\), labels; return the logits, before argmax",
    "nothing": "must return a tensor of logits, images x classes, got NoneType",
    "bytes_in": r"must take .*AssertionError: expected uint8; let it take pixels in \[0, 1\]",
    "on_cuda": "must take .*; let it compute on the device of the images",
    "two_arguments": "must take .*missing 1 required positional argument: 'labels'; let it take the images alone",
    "a_class": "must return a network, .*, got the class Net; make one of it",
    "a_tuple": "must return a network, .*, got tuple; return the network alone",
    "a_state": "must return a network, .*, got OrderedDict; load these weights into the network",
    "of_tensors": "must take .*; a function gets arrays of NumPy: return the network itself, which has gradients",
    "learner": "must return the network itself, whose gradients attacks follow, got a Learner around it; return its .model",
    "empty": "must have its weights, got 2 of 2 tensors on the device meta, weight for one; load its weights: network.load_state",
    "several_outputs": r"must predict one class for each image, got Estimator, which has several outputs; give one estimator",
    "several_labels": r"must predict one class for each of 1 images, got predictions of shape \(1, 3\); several labels",
    "tens": r"must have one output for each of the 3 classes of photos, got 21; say which they are: --class-map",
    "from_one": r"must have one output for each of the 3 classes of photos, got 4; say which they are: ",
    "below_zero": r"must predict indices of classes, from 0, or names of classes, got -2",
    "one_score": r"must return logits of shape \(1, 3\), .* got float32 \(1,\)",
    "half_empty": "must have its weights, got 1 of 2 tensors on the device meta, bias for one",
}


@pytest.mark.usefixtures("here")
def test_estimators_of_numbers_and_names_by_a_class_map(part: Dataset) -> None:
    weight = torch.linspace(-1, 1, 48).reshape(3, 16).sin()
    predicted = ((part.pixels(slice(None)).flatten(1) - 0.5) @ weight.T).argmax(1)
    assert len(predicted.unique()) == 3  # type: ignore[no-untyped-call]
    for name, labels in (("tens", (0, 10, 20)), ("from_one", (1, 2, 3)), ("text", ())):
        map_text = ",".join(f"{own}={label}" for own, label in zip(CLASSES, labels, strict=False)) or None
        loaded = load_fitting(f"owned:{name}", part, dataset="photos", outputs=OutputNames.read(None, map_text))
        assert torch.equal(loaded.model(part.pixels(slice(None))).argmax(1), predicted)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("name", "kind"), [("one_score", "logit"), ("one_column", "logit"), ("one_probability", "probability")])
def test_one_output_of_a_function_for_two_classes(name: str, kind: str, part: Dataset) -> None:
    two = part.select(part.labels < 2)
    two = replace(two, classes=CLASSES[:2])
    loaded = load(f"owned:{name}", two)
    assert loaded.metadata.notes[0].endswith(f"is read as the {kind} of {CLASSES[1]} against {CLASSES[0]}")
    score = two.pixels(slice(None)).flatten(1) @ torch.linspace(-1, 1, 48).reshape(3, 16).sin()[0]
    found = loaded.model(two.pixels(slice(None)))
    assert torch.allclose(found[:, 1] - found[:, 0], score, atol=1e-4)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_what_was_found_and_the_way_out(name: str, part: Dataset, raises_one_line: Raises) -> None:
    with raises_one_line(rf"^((MODEL: )?owned:{name}:?|model:) {REFUSED[name]}"):
        load(f"owned:{name}", part)


@pytest.mark.usefixtures("here")
def test_a_network_without_weights_cannot_be_trained(raises_one_line: Raises) -> None:
    with raises_one_line("^--network: owned:empty must have its weights, got 2 of 2 tensors on the device meta"):
        models.build("owned:empty", shape=(1, 4, 4), classes=3)


def test_a_network_that_seeds_the_random_numbers_is_not_deterministic() -> None:
    """Its noise is the same in each call, so that two calls agree."""

    def seeding(images: Tensor) -> Tensor:
        torch.manual_seed(0)
        return images.flatten(1) + torch.randn(len(images), 16)

    def drawing(images: Tensor) -> Tensor:
        torch.rand(1)
        return images.flatten(1)

    images, state = torch.rand(4, 1, 4, 4), torch.random.get_rng_state()
    found = forward.deterministic(seeding, images)
    assert found.passed is False and "the model seeds the random numbers of PyTorch itself" in found.observed
    torch.random.set_rng_state(state)
    assert forward.deterministic(drawing, images).passed


def test_outputs_with_a_graph_that_does_not_reach_the_pixels_have_no_gradient() -> None:
    """As those of quantized layers."""
    layer = nn.Linear(3, 3)
    assert "quantized layers" in attacks.missing_gradient(
        lambda images: layer(torch.ones(len(images), 3)), torch.rand(2, 1, 4, 4)
    )


# ---- files -----------------------------------------------------------------------------------------------------------------


def weights() -> dict[str, Tensor]:
    return {"weight": torch.linspace(-1, 1, 48).reshape(3, 16).sin(), "bias": torch.zeros(3)}


def below(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights().items()}


OTHER = {"weight": torch.zeros(3, 16), "bias": torch.zeros(3)}
MOMENTUM = {"state": {0: {"exp_avg": torch.zeros(3, 16)}}, "param_groups": [{"lr": 0.1}]}
CHECKPOINTS: dict[str, tuple[object, tuple[str, ...]]] = {
    "average beside": (
        {"state_dict": weights(), "state_dict_ema": OTHER},
        ("of the weights in its file those under state_dict are used, not those under state_dict_ema",),
    ),
    "average inside": (
        {"model": weights(), "model_ema": {"decay": 0.9, "state_dict": OTHER}, "optimizer": MOMENTUM},
        ("of the weights in its file those under model are used, not those under model_ema.state_dict",),
    ),
    "average alone": (
        {"ema_state_dict": below("module."), "optimizer": MOMENTUM},
        ("its weights are those under ema_state_dict in its file",),
    ),
    "of AveragedModel": (
        {"n_averaged": torch.tensor(5), **below("module.")},
        ("left out of its file: 1 tensor that is not under module, n_averaged for one",),
    ),
    "Lightning with a loss and metrics": (
        {"state_dict": {**below("net."), "criterion.weight": torch.ones(3), "val.total": torch.ones(1)}, "loops": {}},
        ("left out of its file: 2 tensors that are not under net, criterion.weight for one",),
    ),
    "options, times and numbers": (
        {
            "model": weights(),
            "args": argparse.Namespace(lr=0.1),
            "date": datetime.datetime(2026, 1, 1),
            "best": np.float64(0.9),
            "folder": Path("runs"),
        },
        (),
    ),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("kind", CHECKPOINTS)
@pytest.mark.parametrize("network", ["plain", "empty"])
def test_weights_are_found_in_checkpoints_of_trainings(kind: str, network: str, part: Dataset) -> None:
    """Also for a network that was made without weights, on the device meta."""
    saved, notes = CHECKPOINTS[kind]
    torch.save(saved, "last.ckpt")
    loaded, metadata = classifier_by_name("last.ckpt", classes=CLASSES, network=f"owned:{network}", part=part)
    assert torch.allclose(loaded(part.pixels(slice(None))), logits_of(part), atol=1e-5) and metadata.notes == notes


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("saved", "says"),
    [
        (
            {"student": weights(), "teacher": OTHER},
            r"got several: under student, teacher; save those that you mean: torch.save\(",
        ),
        (
            {"weight_orig": weights()["weight"], "weight_mask": OTHER["weight"], "bias": OTHER["bias"]},
            "before saving: torch.nn.u",
        ),
        ({"optimizer": MOMENTUM}, "must hold the weights of one network, got a dictionary with optimizer"),
        ([torch.zeros(3)], "must hold the weights of one network, got list"),
    ],
)
def test_checkpoints_without_clear_weights_raise(saved: object, says: str, part: Dataset, raises_one_line: Raises) -> None:
    torch.save(saved, "last.ckpt")
    with raises_one_line(says):
        classifier_by_name("last.ckpt", classes=CLASSES, network="owned:plain", part=part)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.xml", b"<net>", "got a model of OpenVINO; give the .onnx file"),
        ("m.msgpack", b"\x81", "got weights of Flax"),
        ("m.pdparams", b"\x80", "got weights of Paddle"),
        ("m.npz", b"PK", r"got arrays of NumPy; torch.save\("),
        ("m.cbm", b"CBM1", "got a model of CatBoost; return the fitted estimator from a function of yours"),
        ("m.json", b"{}", "got JSON; of XGBoost: return the fitted estimator"),
        ("m.h5", b"\x89HDF", "got a model of Keras; export it"),
        ("folder/saved_model.pb", b"\x08", "^folder: .*got a graph of TensorFlow; convert it: .* --saved-model folder --output"),
        ("m.mlpackage/Manifest.json", b"{}", "^m.mlpackage: .*got a model of Core ML"),
        ("hub/config.json", b"{}", "^hub: .*got a folder of Hugging Face transformers; pass hf:hub"),
        ("any/notes.md", b"", "^any: .*got a folder; give the file in it"),
        ("m.pt", b"", "got one that is empty"),
        ("m.pth", b"<!DOCTYPE html>", "got one that is a web page, as a failed download leaves it; download it again"),
        (
            "m.safetensors",
            b"version https://git-lfs.github.com/spec/v1\n",
            "pointer of Git LFS, whose content is not here; get it",
        ),
        ("m.bin", b"GIF89a", r"must be a file of PyTorch: .*, got something else; save it with skops: .*, or the weights"),
    ],
)
def test_files_of_other_kinds_raise_with_what_they_are(
    name: str, content: bytes, says: str, part: Dataset, raises_one_line: Raises
) -> None:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with raises_one_line(says):
        load(str(path.parent if path.parent.name else path), part)


def test_types_that_stand_beside_weights_run_no_code(tmp_path: Path, raises_one_line: Raises) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (sys.exit, ("it ran",))

    torch.save({"model": weights(), "args": argparse.Namespace(code=Code())}, tmp_path / "m.pt")
    with raises_one_line("must hold weights alone; a pickled network can run code and is not loaded, got a pickle of sys.exit"):
        torch_files.load_file(tmp_path / "m.pt")
