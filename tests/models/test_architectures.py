"""The networks that examples are tried on, and the one that is linear: odd sizes, narrow widths, and whether they learn."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from notbugs import data, metrics, models, train
from notbugs.errors import InputError

SIZES = [(3, 40, 28), (1, 9, 64), (1, 8, 8), (3, 96, 96)]
NAMES = [*models.TRANSFER_ARCHITECTURES, "linear"]


def pixels(shape: tuple[int, int, int], n: int = 2) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))


def lively(model: models.Model) -> models.Model:
    """Weights and statistics of batch norms unlike 1 and 0, so that every layer passes something on."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low in ((module.running_mean, -0.2), (module.running_var, 0.02), (module.weight, 0.5), (module.bias, 0.1)):
                assert value is not None
                value.dataset = low + 0.2 * torch.rand(value.shape, generator=generator)
    return model.eval().requires_grad_(False)


# A mixer of width 1 would have a layer norm over one channel, which is always 0, and answer the same for every image.
WIDTHS = [(name, width) for name in NAMES for width in ((2, 3) if name == "mixer" else (1, 3))]


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize(("name", "width"), WIDTHS)
def test_odd_sizes_and_narrow_widths(name: str, width: int, shape: tuple[int, int, int]) -> None:
    """Built without a warning; folded it is the same; what it answers depends on the image (of width 1 units may be off)."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = lively(models.build(name, shape=shape, classes=3, width=width))
    images = pixels(shape)
    logits = model(images)
    assert logits.shape == (2, 3) and bool(logits.isfinite().all())
    assert torch.equal(model.get_submodule("head")(model.features(images)), logits)
    assert torch.allclose(models.fuse_batchnorm(model, images)(images), logits, rtol=1e-3, atol=1e-4)
    if width > 1:
        assert float((logits[0] - logits[1]).abs().max()) > 0


def test_a_mixer_of_width_1_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--width: must be 2 or more for a mixer, got 1$"):
        models.build("mixer", shape=(1, 8, 8), classes=3, width=1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 28)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_batch_norm_is_folded(name: str, shape: tuple[int, int, int]) -> None:
    model = lively(models.build(name, shape=shape, classes=3, width=4))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert bool(norms) == (name not in ("mixer", "linear"))
    fast = models.fuse_batchnorm(model, pixels(shape))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    convolutions = [sum(isinstance(module, nn.Conv2d) for module in each.modules()) for each in (model, fast)]
    assert convolutions[0] == convolutions[1] and (not norms or len(norms) == convolutions[0])


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_pixel_counts(name: str, shape: tuple[int, int, int]) -> None:
    """Some unit sees every pixel: no row or column of the picture has a gradient of zero."""
    model, images = lively(models.build(name, shape=shape, classes=3, width=4)), pixels(shape).requires_grad_()
    (gradient,) = torch.autograd.grad(model(images).square().sum(), images)
    seen = gradient.abs().sum((0, 1))
    assert bool((seen.sum(0) > 0).all()) and bool((seen.sum(1) > 0).all())


FIT = [(1, 8, 8), (3, 32, 32), (3, 96, 96)]
UNFIT = [(1, 28, 28), (3, 40, 28), (1, 9, 64), (1, 3, 3), (3, 17, 23), (1, 31, 8)]  # 28 pixels: 9 patches of 3, and one left


@pytest.mark.parametrize("shape", FIT + UNFIT, ids=str)
def test_every_pixel_counts_for_a_mixer_whether_patches_fit_or_not(shape: tuple[int, int, int]) -> None:
    model, images = models.build("mixer", shape=shape, classes=3).eval(), pixels(shape).requires_grad_()
    (gradient,) = torch.autograd.grad(model(images).square().sum(), images)
    assert bool((gradient.abs().sum((0, 1)) > 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    one, two, other = (models.build(name, shape=(3, 12, 20), classes=3, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert not torch.equal(one["head.weight"], other["head.weight"])
    weights = [key for key, value in one.items() if value.dim() > 1 and "mean" not in key and "std" not in key]
    assert all(not torch.equal(one[key], other[key]) for key in weights)


def test_the_linear_network_is_linear_in_the_pixels() -> None:
    model = models.build("linear", shape=(3, 5, 4), classes=3, mean=[0.1, 0.2, 0.3], std=[0.5, 0.4, 0.2]).eval()
    one, other = pixels((3, 5, 4))
    middle = model(torch.stack([0.3 * one + 0.7 * other]))
    assert torch.allclose(middle, 0.3 * model(one[None]) + 0.7 * model(other[None]), atol=1e-5)
    assert sum(parameter.numel() for parameter in model.parameters()) == 3 * 60 + 3


def test_the_families_are_unlike_one_another() -> None:
    """Each has a kind of layer, or a way of joining them, that no other has."""
    kinds = {}
    for name in models.TRANSFER_ARCHITECTURES:
        model = models.build(name, shape=(3, 32, 32), classes=10)
        kinds[name] = {type(module).__name__ for module in model.modules()}
    marks = {"resnet": "Residual", "densenet": "Dense", "inception": "Branches", "mixer": "Mixing"}
    for name, mark in marks.items():
        assert [other for other, found in kinds.items() if mark in found] == [name]
    assert not {*marks.values()} & kinds["vgg"]


@pytest.mark.parametrize("name", NAMES)
def test_each_learns_digits_in_a_few_passes(name: str, digits: data.Splits) -> None:
    model = models.build(name, shape=(1, 8, 8), classes=10, width={"mixer": 32}.get(name, 6), seed=1)
    train.fit(model, digits.train, epochs=8 if name == "mixer" else 4, batch_size=64)
    assert metrics.clean_accuracy(model, digits.test)["accuracy"] > 0.9
