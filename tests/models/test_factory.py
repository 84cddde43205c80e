"""Networks by name, and users' networks wrapped."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from notbugs import models

Raises = Callable[[str], AbstractContextManager[None]]
Images = Callable[..., Tensor]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("resnet18", 11_173_962), ("resnet50", 23_520_842)])
def test_residual_networks_have_the_known_number_of_parameters(name: str, count: int) -> None:
    """For 32x32 images and ten classes, as reported for these networks on CIFAR-10."""
    model = models.build(name, shape=(3, 32, 32), classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert model.features(torch.zeros(2, 3, 32, 32)).shape == (2, 512 if name == "resnet18" else 2048)


def test_build_follows_the_seed_and_restores_the_callers_random_state() -> None:
    state = torch.random.get_rng_state()
    one, two, other = (models.build("small", shape=(1, 8, 8), classes=3, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())
    assert not torch.equal(one.get_parameter("head.weight"), other.get_parameter("head.weight"))


@pytest.mark.parametrize(("name", "layer", "wide"), [("small", "body.1", 8), ("factory_nets:network", "0", 64)])
def test_features_can_be_the_outputs_of_any_module(
    name: str,
    layer: str,
    wide: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    random_images: Images,
    raises_one_line: Raises,
) -> None:
    """Logits, seeds and the layer that `head_only` trains are as without; a checkpoint keeps the choice."""
    code = "from torch import nn\ndef network(classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))"
    (tmp_path / "factory_nets.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    options = {"shape": (1, 8, 8), "classes": 3, "width": 4}
    plain, chosen = models.build(name, **options).eval(), models.build(name, **options, layer=layer).eval()
    images = random_images((1, 8, 8))
    assert torch.equal(plain(images), chosen(images)) and chosen.features(images).shape == (3, wide)
    last = models.classifier.head_name(chosen)
    assert chosen.get_parameter(f"{last}.weight").shape[0] == 3
    assert models.with_features(chosen, images)[1] == f"the output of its layer {layer}"
    models.save(chosen, tmp_path / "m.safetensors")
    again, _ = models.load(tmp_path / "m.safetensors", name)
    assert torch.equal(again.features(images), chosen.features(images))
    started = models.build_from(str(tmp_path / "m.safetensors"), name, shape=(1, 8, 8), classes=5, seed=3, layer=layer).eval()
    assert torch.equal(started.features(images), chosen.features(images)) and started(images).shape == (3, 5)
    with raises_one_line(r"^layer: must be a module of the network \(.*, got 'none'$"):
        models.build(name, **options, layer="none")
    sys.modules.pop("factory_nets", None)


def test_unknown_network_raises(raises_one_line: Raises) -> None:
    with raises_one_line(r"^--network: must be one of small, .*, or module:function, got 'alexnet'$"):
        models.build("alexnet", shape=(1, 8, 8), classes=3)


# ---- a user's network ---------------------------------------------------------------------------------------------------


class UserNetwork(nn.Module):
    """Declares its layers in another order than it runs them, and returns an object."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.head, self.first = nn.Linear(5, classes), nn.Linear(64, 7)
        self.second, self.unused = nn.Linear(7, 5), nn.Linear(5, 9)

    def forward(self, images: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.second(self.first(images.flatten(1)).relu()).relu()))


def test_features_are_the_input_of_the_last_linear_layer_that_runs(random_images: Images) -> None:
    network, images = UserNetwork().train(), random_images((1, 8, 8))
    wrapped = models.wrap(network, images, mean=[0.5], std=[0.25])
    assert wrapped.layer == "head"
    normalized = ((images - 0.5) / 0.25).flatten(1)
    assert torch.equal(wrapped(images), network((images - 0.5) / 0.25).logits)
    assert torch.equal(wrapped.features(images), network.second(network.first(normalized).relu()).relu())
    assert torch.equal(network.head(wrapped.features(images)), wrapped(images))
    assert all(module.training for module in network.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())


def test_features_of_a_named_layer_have_gradients(random_images: Images) -> None:
    network, images = UserNetwork(), random_images((1, 8, 8)).requires_grad_()
    wrapped = models.wrap(network, images.detach(), layer="second")
    assert torch.equal(wrapped.features(images), network.first(images.flatten(1)).relu())
    (gradient,) = torch.autograd.grad(wrapped.features(images).sum(), images)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("layer", ["third", "unused", "head.weight"])
def test_layer_that_does_not_run_raises(layer: str, random_images: Images, raises_one_line: Raises) -> None:
    rule = rf"^layer: must be a module that runs in the network \(head, first, second, unused …\), got '{layer}'$"
    with raises_one_line(rule):
        models.wrap(UserNetwork(), random_images((1, 8, 8)), layer=layer)


def test_networks_that_cannot_be_wrapped_raise(random_images: Images, raises_one_line: Raises) -> None:
    with raises_one_line(r"^model: has no linear layer whose input could be the features; name the layer: layer=…$"):
        models.wrap(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), random_images((1, 8, 8)))
    with raises_one_line(r"^model: must take images of shape \(3, 3, 8, 8\), got .*192"):
        models.wrap(UserNetwork(), random_images((3, 8, 8)))
    with raises_one_line(r"^model Conv2d: must return logits of shape \(3, classes\), got \(3, 2, 2, 2\)$"):
        models.wrap(nn.Conv2d(1, 2, 7), random_images((1, 8, 8)))


@pytest.fixture
def user_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user's modules in the working directory."""
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


@pytest.mark.usefixtures("user_modules")
def test_users_network_by_name_and_from_its_checkpoint(tmp_path: Path, random_images: Images, raises_one_line: Raises) -> None:
    path, images = list(sys.path), random_images((1, 8, 8))
    for function in ("network", "tied"):
        model = models.build(f"own_network:{function}", shape=(1, 8, 8), classes=4, seed=3, mean=[0.3], std=[0.6])
        assert isinstance(model, models.WrappedClassifier)
        models.save(model.eval(), tmp_path / "user.safetensors")
        with raises_one_line("asks to run code, got 'own_network:"):  # a file alone cannot make the program run code
            models.load(tmp_path / "user.safetensors")
        loaded, _ = models.load(tmp_path / "user.safetensors", f"own_network:{function}")
        assert torch.equal(loaded(images), model(images))
        assert torch.equal(loaded.features(images), model.features(images))
    assert sys.path == path


def test_network_with_another_number_of_outputs_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raises_one_line: Raises
) -> None:
    text = "from torch import nn\ndef five(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))\n"
    (tmp_path / "fixed_outputs.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with raises_one_line(r"^--network: fixed_outputs:five must give one output for each of the 10 classes, got 5$"):
        models.build("fixed_outputs:five", shape=(1, 8, 8), classes=10)


@pytest.mark.usefixtures("user_modules")
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
def test_name_that_gives_no_network_raises(name: str, got: str, raises_one_line: Raises) -> None:
    with raises_one_line(f"^--network: {name} must .*{got}"):
        models.build(name, shape=(1, 8, 8), classes=4)


class _WithFeatures(nn.Module):
    """A network with a method `features`."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.count, self.layer = features, nn.Linear(64, 3)

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, : self.count] if self.count else images

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))  # type: ignore[no-any-return]


def test_features_are_the_networks_own_or_the_input_of_its_last_linear_layer_or_its_logits() -> None:
    images = torch.rand(2, 1, 8, 8)
    own, words = models.with_features(_WithFeatures(5), images)
    assert words == "what its own features(images) returns" and torch.equal(own.features(images), images.flatten(1)[:, :5])
    hooked, words = models.with_features(_WithFeatures(0), images)  # feature maps are no features
    assert words == "the input of its layer layer" and hooked.features(images).shape == (2, 64)
    convolutional = nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten())
    logits, words = models.with_features(convolutional, images)
    assert words.startswith("its logits") and torch.equal(logits.features(images), convolutional(images))
    small = models.build("small", shape=(1, 8, 8), classes=3, width=4)
    assert models.with_features(small, images) == (small, "the input of its last layer")
    again, words = models.with_features(hooked, images)
    assert again is hooked and words == "the input of its layer layer"
