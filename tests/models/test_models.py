"""Classifiers: frozen and folded copies that are what they were, networks of every size, the user's own, and the disk."""

import copy
import json
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from notbugs import models
from notbugs.errors import InputError

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 12, 20)]


@contextmanager
def refused(pattern: str) -> Iterator[None]:
    """BadInput, and its message is one line."""
    with pytest.raises(InputError, match=pattern) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def used(name: str, shape: tuple[int, int, int], classes: int = 4) -> models.Classifier:
    """A network whose batch norms have something to fold: statistics, factors and offsets unlike 0 and 1."""
    model = models.build(name, shape=shape, classes=classes, width=4, mean=[0.4] * shape[0], std=[0.2] * shape[0])
    assert isinstance(model, models.Classifier)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low in ((module.running_mean, -0.5), (module.running_var, 0.5), (module.weight, 0.5), (module.bias, -0.5)):
                assert value is not None
                value.dataset = low + torch.rand(value.shape, generator=generator)
    return model.eval()


def pixels(shape: tuple[int, int, int], n: int = 3) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))


# ---- frozen, folded -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_frozen_puts_every_mode_and_every_flag_back(fails: bool) -> None:
    model = used("resnet9", (1, 8, 8))
    for number, module in enumerate(model.modules()):
        module.training = number % 3 == 0
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    try:
        with models.frozen(model):
            assert not any(module.training for module in model.modules())
            assert not any(parameter.requires_grad for parameter in model.parameters())
            if fails:
                raise InterruptedError
    except InterruptedError:
        assert fails
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert {*modes} == {*flags} == {True, False}


@pytest.mark.parametrize(("name", "count"), [("resnet18", 11_173_962), ("resnet50", 23_520_842)])
def test_residual_networks_have_as_many_parameters_as_known(name: str, count: int) -> None:
    """For 32x32 images and ten classes, as reported for these networks on CIFAR-10."""
    model = models.build(name, shape=(3, 32, 32), classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert model.features(torch.zeros(2, 3, 32, 32)).shape == (2, 512 if name == "resnet18" else 2048)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", list(models.ARCHITECTURES))
def test_networks_of_every_size_folded_and_plain(name: str, shape: tuple[int, int, int]) -> None:
    """Features through the head are the logits; the folded copy has no batch norm left, the same values and input gradients."""
    model, images = used(name, shape).double(), pixels(shape).double()
    logits = model(images)
    assert logits.shape == (3, 4)
    assert torch.equal(model.head(model.features(images)), logits)
    before = copy.deepcopy(model.state_dict())
    fast = models.fuse_batchnorm(model.train(), images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert not any(module.training for module in fast.modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    gradients = []
    for network in (model.eval(), fast):
        at = images.clone().requires_grad_()
        value = network(at)
        assert torch.allclose(value, logits, rtol=1e-9, atol=1e-9)
        gradients += torch.autograd.grad(value[:, 1].sum(), at)
    assert gradients[0].abs().max() > 0
    assert torch.allclose(*gradients, rtol=1e-7, atol=1e-7 * float(gradients[0].abs().max()))


class Fickle(nn.Module):
    """Cannot be traced: what it does depends on what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.norm(self.convolution(images)).mean((2, 3))
        return result if result.sum() > 0 else -result


def test_what_cannot_be_folded_is_copied() -> None:
    model = models.Classifier(Fickle(), nn.Linear(4, 2), mean=[0.5], std=[0.5], architecture={}).eval()
    fast = models.fuse_batchnorm(model, pixels((1, 8, 8)))
    assert fast is not model
    assert torch.allclose(fast(pixels((1, 8, 8))), model(pixels((1, 8, 8))), atol=1e-6)
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_folding_that_changes_the_function_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    optimization = pytest.importorskip("torch.fx.experimental.optimization")
    model, images = used("small", (1, 8, 8)), pixels((1, 8, 8))
    monkeypatch.setattr(optimization, "fuse", lambda body: nn.Sequential(body, nn.Softplus()))
    with torch.no_grad():  # a copy lies otherwise in memory, so the last bits may differ
        assert torch.allclose(models.fuse_batchnorm(model, images)(images), model(images), atol=1e-6)


# ---- networks -----------------------------------------------------------------------------------------------------------


def test_build_is_the_seeds_and_leaves_the_callers_chance_alone() -> None:
    state = torch.random.get_rng_state()
    one, two, other = (models.build("small", shape=(1, 8, 8), classes=3, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())
    assert not torch.equal(one.get_parameter("head.weight"), other.get_parameter("head.weight"))


def test_pixels_are_normalised_inside() -> None:
    model = models.build("small", shape=(3, 8, 8), classes=3, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 1.0])
    seen: list[Tensor] = []
    model.get_submodule("body").register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(torch.ones(2, 3, 8, 8))
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx([1.8, 3.2, 0.7])


def test_an_unknown_network_is_refused() -> None:
    with refused(r"^--network: must be one of small, .*, or module:function, got 'alexnet'$"):
        models.build("alexnet", shape=(1, 8, 8), classes=3)


# ---- the user's own -----------------------------------------------------------------------------------------------------


class Theirs(nn.Module):
    """Declares its layers in another order than it uses them, and returns an object."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.head, self.first = nn.Linear(5, classes), nn.Linear(64, 7)
        self.second, self.unused = nn.Linear(7, 5), nn.Linear(5, 9)

    def forward(self, images: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.second(self.first(images.flatten(1)).relu()).relu()))


def test_features_enter_the_last_linear_layer_that_runs() -> None:
    network, images = Theirs().train(), pixels((1, 8, 8))
    wrapped = models.wrap(network, images, mean=[0.5], std=[0.25])
    assert wrapped.layer == "head"
    normalised = ((images - 0.5) / 0.25).flatten(1)
    assert torch.equal(wrapped(images), network((images - 0.5) / 0.25).logits)
    assert torch.equal(wrapped.features(images), network.second(network.first(normalised).relu()).relu())
    assert torch.equal(network.head(wrapped.features(images)), wrapped(images))
    assert all(module.training for module in network.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())


def test_features_can_be_of_a_named_layer_and_carry_gradients() -> None:
    network, images = Theirs(), pixels((1, 8, 8)).requires_grad_()
    wrapped = models.wrap(network, images.detach(), layer="second")
    assert torch.equal(wrapped.features(images), network.first(images.flatten(1)).relu())
    (gradient,) = torch.autograd.grad(wrapped.features(images).sum(), images)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("layer", ["third", "unused", "head.weight"])
def test_a_layer_that_does_not_run_is_refused(layer: str) -> None:
    with refused(rf"^layer: must be a module that runs in the network \(head, first, second, unused …\), got '{layer}'$"):
        models.wrap(Theirs(), pixels((1, 8, 8)), layer=layer)


def test_networks_that_cannot_serve_are_refused() -> None:
    with refused(r"^model: has no linear layer whose input could be the features; name the layer: layer=…$"):
        models.wrap(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), pixels((1, 8, 8)))
    with refused(r"^model: must take images of shape \(3, 3, 8, 8\), got .*192"):
        models.wrap(Theirs(), pixels((3, 8, 8)))
    with refused(r"^model Conv2d: must return logits of shape \(3, classes\), got \(3, 2, 1, 1\)$"):
        models.wrap(nn.Conv2d(1, 2, 8), pixels((1, 8, 8)))


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of the user's in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_network.py").write_text(
        "from torch import nn\n"
        "def network(classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, classes))\n"
        "def number(classes):\n    return 3\n"
        "def nothing():\n    return None\n"
        "def tied(classes):\n"
        "    one, two = nn.Linear(64, 64), nn.Linear(64, 64)\n"
        "    two.weight = one.weight\n"
        "    return nn.Sequential(nn.Flatten(), one, two, nn.Linear(64, classes))\n"
    )
    (tmp_path / "broken_network.py").write_text("def network(:\n")
    yield
    for name in ("own_network", "broken_network"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("beside")
def test_a_network_of_the_users_by_name_and_back_from_disk(tmp_path: Path) -> None:
    path = list(sys.path)
    for function in ("network", "tied"):
        model = models.build(f"own_network:{function}", shape=(1, 8, 8), classes=4, seed=3, mean=[0.3], std=[0.6])
        assert isinstance(model, models.WrappedClassifier)
        models.save(model.eval(), tmp_path / "their.safetensors")
        with refused("asks to run code, got 'own_network:"):  # a file alone cannot make the program run code
            models.load(tmp_path / "their.safetensors")
        again, _ = models.load(tmp_path / "their.safetensors", f"own_network:{function}")
        assert torch.equal(again(pixels((1, 8, 8))), model(pixels((1, 8, 8))))
        assert torch.equal(again.features(pixels((1, 8, 8))), model.features(pixels((1, 8, 8))))
    assert sys.path == path


def test_a_network_with_other_outputs_than_classes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from torch import nn\ndef five(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))\n"
    (tmp_path / "fixed_outputs.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with refused(r"^--network: fixed_outputs:five must give one output for each of the 10 classes, got 5$"):
        models.build("fixed_outputs:five", shape=(1, 8, 8), classes=10)


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("own_network:missing", "got .*missing"),
        ("no_such_module:network", "got No module named 'no_such_module'"),
        ("own_network:", "got"),
        (":network", "got"),
        (".own_network:network", "got"),
        ("own_network:nothing", "got .*classes"),
        ("own_network:number", "return a torch.nn.Module, got int"),
        ("broken_network:network", "got .*broken_network.py"),
        ("os:getcwd", "got"),
    ],
)
def test_a_name_that_leads_to_no_network_is_refused(name: str, got: str) -> None:
    with refused(f"^--network: {name} must .*{got}"):
        models.build(name, shape=(1, 8, 8), classes=4)


# ---- disk ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(models.ARCHITECTURES))
def test_saved_and_loaded_is_the_same_bit_for_bit(name: str, tmp_path: Path) -> None:
    model, images = used(name, (3, 12, 20)), pixels((3, 12, 20))
    logits = model(images)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as training leaves it
    path = tmp_path / "new folder" / "a model.v2.safetensors"
    models.save(model, path, classes=["a", "b", "c", "ü"], trained_on="original")
    again, facts = models.load(path)
    assert sorted(each.name for each in path.parent.iterdir()) == ["a model.v2.json", "a model.v2.safetensors"]
    assert facts["classes"] == ["a", "b", "c", "ü"]
    assert facts["trained_on"] == "original"
    assert not again.training
    assert model.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    assert torch.equal(again(images), logits)


def test_a_save_that_fails_leaves_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    models.save(used("small", (1, 8, 8)), path)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        models.save(used("small", (1, 8, 8)), path, facts=object())
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before
    (tmp_path / "file").write_text("")
    with refused(r"file/m.safetensors: cannot be written, got (Not a directory|File exists)"):
        models.save(used("small", (1, 8, 8)), tmp_path / "file" / "m.safetensors")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    models.save(used("small", (1, 8, 8)), path)
    return path


def test_a_model_that_is_not_there_or_is_no_safetensors_file_is_refused(saved: Path) -> None:
    with refused(r"none.safetensors: no such model; give the .safetensors file"):
        models.load(saved.with_name("none.safetensors"))
    with refused("no such model"):
        models.load(saved.parent)
    torch.save({"a": torch.ones(2)}, saved.with_suffix(".pt"))
    with refused(r"m.pt: must be a .safetensors file; pickles can run code and are not read, got .pt; save the weights with"):
        models.load(saved.with_suffix(".pt"))
    saved.with_suffix(".json").unlink()
    with refused(r"m.safetensors: needs m.json beside it"):
        models.load(saved)


def test_damaged_and_foreign_weights_are_refused(saved: Path) -> None:
    whole = saved.read_bytes()

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (sys.exit, ("the pickle ran",))

    torch_file = saved.with_suffix(".pt")
    torch.save(used("small", (1, 8, 8)).state_dict(), torch_file)
    for content in (b"", whole[: len(whole) // 2], whole[:20], pickle.dumps(Bomb()), torch_file.read_bytes()):
        saved.write_bytes(content)
        with refused(r"m.safetensors: is damaged, or does not fit the network of m.json, got \w+"):
            models.load(saved)


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    models.save(used("resnet9", (1, 8, 8)), saved.with_name("other.safetensors"))
    saved.write_bytes(saved.with_name("other.safetensors").read_bytes())
    with refused(r"m.safetensors: .*does not fit the network of m.json, got .*(Missing|size mismatch)"):
        models.load(saved)


ARCHITECTURE = {"name": "small", "shape": [1, 8, 8], "classes": 4, "width": 4, "mean": [0.5], "std": [0.5]}


@pytest.mark.parametrize(
    "words",
    [
        "", "{", "\x00\xff", "[]", "null", "3", "{}", '{"architecture": 3}', '{"architecture": {}}',
        '{"architecture": {"name": "x"}}',
        *(json.dumps({"architecture": ARCHITECTURE | change}) for change in (
            {"name": "alexnet"}, {"name": 3}, {"extra": 1}, {"classes": -1}, {"classes": "many"},
            {"classes": 10**15}, {"shape": []}, {"shape": "abc"}, {"shape": [1, -8, 8]}, {"mean": ["a"]},
            {"width": -3},
        )),
    ],
)  # fmt: skip
def test_a_description_of_no_network_is_refused(saved: Path, words: str) -> None:
    saved.with_suffix(".json").write_bytes(words.encode("latin-1"))
    with refused(r"m.json: is not the description of a model that can be built, got .+"):
        models.load(saved)
