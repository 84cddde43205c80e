"""Classifiers: frozen models, and copies with fused batch norm that are the same function."""

import copy
import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from notbugs import models
from notbugs.models.fusion import fused_now

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 12, 20)]
DEEP = ("resnet50", "resnet", "inception", "densenet")
Build = Callable[..., models.Classifier]
Images = Callable[..., Tensor]


@pytest.mark.parametrize("fails", [False, True])
def test_frozen_restores_every_mode_and_flag(fails: bool, build_used: Build) -> None:
    model = build_used("resnet9", (1, 8, 8))
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


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in models.ARCHITECTURES]
)
def test_fused_copy_has_the_same_values_and_gradients(
    name: str, shape: tuple[int, int, int], build_used: Build, random_images: Images
) -> None:
    """Features through the head are the logits. The fused copy has no batch norm, the same values and gradients of images."""
    model, images = build_used(name, shape).double(), random_images(shape).double()
    logits = model(images)
    assert logits.shape == (3, 4)
    assert torch.equal(model.head(model.features(images)), logits)
    before = copy.deepcopy(model.state_dict())
    fused = models.fuse_batchnorm(model.train(), images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert not any(module.training for module in fused.modules())
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    gradients = []
    for network in (model.eval(), fused):
        leaf = images.clone().requires_grad_()
        outputs = network(leaf)
        assert torch.allclose(outputs, logits, rtol=1e-9, atol=1e-9)
        gradients += torch.autograd.grad(outputs[:, 1].sum(), leaf)
    assert gradients[0].abs().max() > 0
    assert torch.allclose(*gradients, rtol=1e-7, atol=1e-7 * float(gradients[0].abs().max()))


class DataDependent(nn.Module):
    """Cannot be traced: its control flow depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.norm(self.convolution(images)).mean((2, 3))
        return result if result.sum() > 0 else -result


def test_network_that_cannot_be_traced_is_copied(random_images: Images) -> None:
    model = models.Classifier(DataDependent(), nn.Linear(4, 2), mean=[0.5], std=[0.5], architecture={}).eval()
    images = random_images((1, 8, 8))
    fused = models.fuse_batchnorm(model, images)
    assert fused is not model
    assert torch.allclose(fused(images), model(images), atol=1e-6)
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_fused_copy_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch, build_used: Build, random_images: Images) -> None:
    optimization = pytest.importorskip("torch.fx.experimental.optimization")
    model, images = build_used("small", (1, 8, 8)), random_images((1, 8, 8))
    monkeypatch.setattr(optimization, "fuse", lambda body: nn.Sequential(body, nn.Softplus()))
    with torch.no_grad():  # a copy has another memory format, so the last bits may differ
        assert torch.allclose(models.fuse_batchnorm(model, images)(images), model(images), atol=1e-6)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in models.ARCHITECTURES]
)
def test_fused_copy_of_a_model_in_training_has_its_weights_of_the_moment(
    name: str, build_used: Build, random_images: Images
) -> None:
    model, images = build_used(name, (3, 8, 8)).double(), random_images((3, 8, 8)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    copies = []
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        model(images)[:, 0].sum().backward()
        optimizer.step()
        state = copy.deepcopy(model.state_dict())
        copies.append(fused := fused_now(model, images))
        assert model.training
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        if fused is None:
            assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        else:
            assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
            assert torch.allclose(fused(images), model.eval()(images), rtol=1e-9, atol=1e-9)
    assert all(each is copies[0] for each in copies)


def test_fused_copy_of_a_model_in_training_fuses_linear_layers_too(random_images: Images) -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5))
    model = models.Classifier(body, nn.Linear(5, 2), mean=[0.5], std=[0.5], architecture={}).train()
    images = random_images((1, 8, 8))
    assert fused_now(model, images) is not None
    with torch.no_grad():
        body[1].weight.mul_(3)
        model(images)
        fused = fused_now(model, images)
        assert fused is not None and torch.allclose(fused(images), model.eval()(images), atol=1e-5)


class Body(nn.Module):
    """A convolution and a batch norm, and something that fusing or copying may trip over."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.scale = kind, 1.0
        self.convolution, self.norm, self.other = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.register_buffer("shift", torch.zeros(4, 1, 1), persistent=False)
        self.register_buffer("calls", torch.zeros(()))
        self.plain = torch.ones(4, 1, 1) if kind == "tensor that is no buffer" else 1.0
        if kind == "spectral norm":
            nn.utils.spectral_norm(self.convolution)
        if kind == "lock":
            self.lock = threading.Lock()

    def forward(self, images: Tensor) -> Tensor:
        found = self.norm(self.convolution(images)) + self.shift
        if self.kind == "shared convolution":
            found = found + self.other(self.convolution(images))
        if self.kind == "counts" and self.training:
            self.calls.add_(1)
        if self.kind == "branches in training" and self.training:
            return torch.zeros_like(found).mean((2, 3)) if bool(images.sum() > 0) else found.mean((2, 3))
        if self.kind == "constant":
            found = found * torch.tensor(2.0)
        result: Tensor = (found * self.plain * self.scale).mean((2, 3))
        return result


def trained_on(model: nn.Module, images: Tensor, steps: int) -> None:
    """Weights and batch-norm statistics that are not those of a new network."""
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.5)
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(images), torch.arange(len(images)) % 2).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("kind", "fused"),
    [
        ("as usual", True), ("counts", True), ("branches in training", True), ("constant", False),
        ("shared convolution", False), ("spectral norm", False), ("lock", False), ("tensor that is no buffer", False),
    ],
)  # fmt: skip
def test_the_attack_of_training_is_on_the_function_of_the_moment(kind: str, fused: bool, random_images: Images) -> None:
    """Whatever the body does: either the copy computes the same, or there is none; the model itself stays as it is."""
    torch.manual_seed(0)
    model = models.Classifier(Body(kind), nn.Linear(4, 2), mean=[0.5], std=[0.5], architecture={})
    images = random_images((1, 8, 8), 6)
    found = None
    for _ in range(9):
        trained_on(model, images, 1)
        calls = float(model.body.calls)  # type: ignore[arg-type]
        state = {name: value.clone() for name, value in model.named_parameters()}
        found = fused_now(model, images)
        assert float(model.body.calls) == calls  # type: ignore[arg-type]
        assert model.training and all(parameter.requires_grad for parameter in model.parameters())
        assert all(torch.equal(value, state[name]) for name, value in model.named_parameters())
    assert (found is not None) is fused
    if found is not None:
        with torch.no_grad():
            assert torch.allclose(found(images), model.eval()(images), atol=1e-5)


def test_a_fused_copy_follows_a_new_layer_another_type_and_buffers_that_no_file_holds(random_images: Images) -> None:
    images = random_images((1, 8, 8), 6)
    model = models.Classifier(Body("as usual"), nn.Linear(4, 2), mean=[0.5], std=[0.5], architecture={})

    def agree() -> bool:
        found = fused_now(model.train(), images.to(next(model.parameters()).dtype))
        assert found is not None
        with torch.no_grad():
            same = images.to(next(model.parameters()).dtype)
            return torch.allclose(found(same), model.eval()(same), atol=1e-5)

    trained_on(model, images, 3)
    assert agree()
    model.body.shift.add_(1.0)  # type: ignore[operator, union-attr]
    assert agree()
    model.head = nn.Linear(4, 5)
    assert agree()
    model.double()
    assert agree()


def test_a_fused_copy_that_went_stale_is_given_up(random_images: Images) -> None:
    """What is no tensor cannot be brought up to date: it is noticed at one of the next checks."""
    images = random_images((1, 8, 8), 6)
    model = models.Classifier(Body("as usual"), nn.Linear(4, 2), mean=[0.5], std=[0.5], architecture={})
    trained_on(model, images, 3)
    assert fused_now(model, images) is not None
    model.body.scale = 3.0
    found = [fused_now(model, images) for _ in range(60)]
    assert found[-1] is None


def test_models_that_cannot_be_fused_are_searched_as_they_are(random_images: Images) -> None:
    images = random_images((1, 8, 8))
    own = models.Classifier(DataDependent(), nn.Linear(4, 2), mean=[0.5], std=[0.5], architecture={})
    assert fused_now(own, images) is None
    assert fused_now(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), images) is None
    locked = models.Classifier(Body("lock"), nn.Linear(4, 2), mean=[0.5], std=[0.5], architecture={})
    with torch.no_grad():
        assert torch.allclose(models.fuse_batchnorm(locked, images)(images), locked.eval()(images), atol=1e-6)


def test_pixels_are_normalized_inside() -> None:
    model = models.build("small", shape=(3, 8, 8), classes=3, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 1.0])
    inputs: list[Tensor] = []
    model.get_submodule("body").register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    model(torch.ones(2, 3, 8, 8))
    assert inputs[0][0, :, 0, 0].tolist() == pytest.approx([1.8, 3.2, 0.7])


@pytest.mark.parametrize(
    ("width", "wanted"), [(4, torch.contiguous_format), (6, torch.contiguous_format), (8, torch.channels_last)]
)
def test_narrow_residual_networks_are_not_trained_in_channels_last(width: int, wanted: torch.memory_format) -> None:
    """Backward passes of strided 1x1 convolutions of 4 or 6 channels corrupt memory there (torch 2.13 on an AMD EPYC)."""
    assert models.memory_format(models.build("resnet", shape=(1, 8, 8), classes=10, width=width)) == wanted
