"""Architectures: odd image sizes, narrow widths, fused batch norm, and whether each trains."""

import copy
import itertools
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from notbugs import data, metrics, models, train
from notbugs.errors import InputError

SIZES = [(3, 40, 28), (1, 9, 64), (1, 8, 8), (3, 96, 96)]
NAMES = [*models.TRANSFER_ARCHITECTURES, "linear"]
Shape = tuple[int, int, int]
Build = Callable[..., models.Model]
Images = Callable[..., Tensor]


@pytest.fixture(scope="module")
def build_active(randomize_batchnorm: Callable[..., None]) -> Build:
    """A function (name, shape, width) -> a frozen network of 3 classes whose batch norms keep every layer active."""

    def build(name: str, shape: Shape, width: int) -> models.Model:
        model = models.build(name, shape=shape, classes=3, width=width)
        randomize_batchnorm(model, (-0.2, 0.02, 0.5, 0.1), 0.2)
        return model.eval().requires_grad_(False)

    return build


# A mixer of width 1 would have layer norms over one channel, which are always 0, and the same logits for every image.
WIDTHS = [(name, width) for name in NAMES for width in ((2, 3) if name == "mixer" else (1, 3))]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize(("name", "width"), WIDTHS)
def test_odd_sizes_and_narrow_widths(name: str, width: int, shape: Shape, build_active: Build, random_images: Images) -> None:
    """Built without a warning, the same when fused; logits depend on the image (of width 1 all units may be inactive)."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = build_active(name, shape, width)
    images = random_images(shape, 2)
    logits = model(images)
    assert logits.shape == (2, 3) and bool(logits.isfinite().all())
    assert torch.equal(model.get_submodule("head")(model.features(images)), logits)
    assert torch.allclose(models.fuse_batchnorm(model, images)(images), logits, rtol=1e-3, atol=1e-4)
    if width > 1:
        assert float((logits[0] - logits[1]).abs().max()) > 0


def test_mixer_of_width_1_raises() -> None:
    with pytest.raises(InputError, match=r"^--width: must be 2 or more for a mixer, got 1$"):
        models.build("mixer", shape=(1, 8, 8), classes=3, width=1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 28)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_batch_norm_is_fused(name: str, shape: Shape, build_active: Build, random_images: Images) -> None:
    model = build_active(name, shape, 4)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert bool(norms) == (name not in ("mixer", "linear"))
    fused = models.fuse_batchnorm(model, random_images(shape, 2))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    convolutions = [sum(isinstance(module, nn.Conv2d) for module in network.modules()) for network in (model, fused)]
    assert convolutions[0] == convolutions[1] and (not norms or len(norms) == convolutions[0])


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_no_row_or_column_is_ignored(name: str, shape: Shape, build_active: Build, random_images: Images) -> None:
    """No row or column of the image has a zero gradient."""
    model, images = build_active(name, shape, 4), random_images(shape, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(model(images).square().sum(), images)
    magnitude = gradient.abs().sum((0, 1))
    assert bool((magnitude.sum(0) > 0).all()) and bool((magnitude.sum(1) > 0).all())


DIVISIBLE = [(1, 8, 8), (3, 32, 32), (3, 96, 96)]
NOT_DIVISIBLE = [(1, 28, 28), (3, 40, 28), (1, 9, 64), (1, 3, 3), (3, 17, 23), (1, 31, 8)]  # 28 pixels: 9 patches of 3, and one


@pytest.mark.parametrize("shape", DIVISIBLE + NOT_DIVISIBLE, ids=str)
def test_no_pixel_is_ignored_by_a_mixer(shape: Shape, random_images: Images) -> None:
    model, images = models.build("mixer", shape=shape, classes=3).eval(), random_images(shape, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(model(images).square().sum(), images)
    assert bool((gradient.abs().sum((0, 1)) > 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_the_same_weights(name: str) -> None:
    one, two, other = (models.build(name, shape=(3, 12, 20), classes=3, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert not torch.equal(one["head.weight"], other["head.weight"])
    weights = [key for key, value in one.items() if value.dim() > 1 and "mean" not in key and "std" not in key]
    assert all(not torch.equal(one[key], other[key]) for key in weights)


@pytest.mark.parametrize("name", ["resnet9", "vgg"])
def test_relu_after_pooling_is_relu_before_it_to_the_last_bit(name: str, build_active: Build, random_images: Images) -> None:
    """In training, too; and the names of the weights, the format of checkpoints, are those of a network with ReLU first."""
    model, images = build_active(name, (1, 13, 12), 3).train().requires_grad_(True), random_images((1, 13, 12), 4)
    usual = copy.deepcopy(model)
    for before, pooled in itertools.pairwise(usual.body.children()):
        if isinstance(pooled, nn.Sequential) and isinstance(pooled[0], nn.MaxPool2d):
            before.add_module("2", nn.ReLU())
            pooled[1] = nn.Identity()
    assert len({type(module) for module in usual.body.modules()} & {nn.Identity}) == 1
    assert model.state_dict().keys() == usual.state_dict().keys()
    found = []
    for network in (model, usual):
        pixels = images.clone().requires_grad_()
        logits = network(pixels)
        found.append([logits, *torch.autograd.grad(logits.square().sum(), [pixels, *network.parameters()])])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True)) and bool(found[0][1].any())


def test_linear_network_is_linear_in_the_pixels(random_images: Images) -> None:
    model = models.build("linear", shape=(3, 5, 4), classes=3, mean=[0.1, 0.2, 0.3], std=[0.5, 0.4, 0.2]).eval()
    one, other = random_images((3, 5, 4), 2)
    mixture = model(torch.stack([0.3 * one + 0.7 * other]))
    assert torch.allclose(mixture, 0.3 * model(one[None]) + 0.7 * model(other[None]), atol=1e-5)
    assert sum(parameter.numel() for parameter in model.parameters()) == 3 * 60 + 3


def test_families_differ_in_their_layers() -> None:
    """Each has a kind of layer that no other has; VGG has none of these."""
    layers = {}
    for name in models.TRANSFER_ARCHITECTURES:
        model = models.build(name, shape=(3, 32, 32), classes=10)
        layers[name] = {type(module).__name__ for module in model.modules()}
    typical = {"resnet": "Residual", "densenet": "DenseLayer", "inception": "Branches", "mixer": "MixerLayer"}
    for name, layer in typical.items():
        assert [other for other, found in layers.items() if layer in found] == [name]
    assert not {*typical.values()} & layers["vgg"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_learns_digits_in_a_few_epochs(name: str, digits: data.Splits) -> None:
    model = models.build(name, shape=(1, 8, 8), classes=10, width={"mixer": 32}.get(name, 6), seed=1)
    train.fit(model, digits.train, epochs=8 if name == "mixer" else 4, batch_size=64)
    assert metrics.clean_accuracy(model, digits.test).accuracy > 0.9
