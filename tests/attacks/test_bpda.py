"""Straight-through gradients: the same model to the last bit, whatever operations it uses."""

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from attacks.conftest import Batch, LabelsOnly, Layer, remaining
from torch import Tensor, nn

from notbugs import attacks, data
from notbugs.models import Model
from notbugs.search import NormBall

THREAT_MODEL = NormBall("l2", 0.75)


def assert_straight_through(model: Callable[[Tensor], Tensor], images: Tensor) -> None:
    """The same logits to the last bit, with and without gradients, and a gradient for every image."""
    differentiable = attacks.straight_through(model, images)
    assert differentiable is not None
    pixels = images.clone().requires_grad_()
    logits = differentiable(pixels)
    with torch.no_grad():
        assert torch.equal(logits.detach(), model(images))
        assert torch.equal(differentiable(images), model(images))
    logits.sum().backward()
    assert pixels.grad is not None and (pixels.grad.flatten(1).abs().amax(1) > 0).all()


def ensemble_remaining(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> int:
    return remaining(attacks.adaptive_ensemble(model, images, labels, threat_model=THREAT_MODEL))


@pytest.fixture(scope="module")
def plain_remaining(standard: Model, digits: data.Splits) -> Callable[[int], int]:
    """How many of the first 40 or 60 test images remain without any quantization."""
    images, labels = digits.test.pixels(slice(0, 60)), digits.test.labels[:60]
    counts = {count: ensemble_remaining(standard, images[:count], labels[:count]) for count in (40, 60)}
    return counts.__getitem__


def floor_in_place(images: Tensor) -> Tensor:
    levels = images * 15
    levels.floor_()
    return levels / 15


class To8Bit(nn.Module):
    """Leaves the graph: its output has no gradient at all."""

    def forward(self, images: Tensor) -> Tensor:
        return (images * 15).to(torch.uint8).float() / 15


QUANTIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "cast": lambda images: (images * 15).to(torch.uint8).float() / 15,
    "byte": lambda images: (images * 15).byte().to(images.dtype) / 15,
    "long": lambda images: (images * 15).long().type(torch.float32) / 15,
    "rounding mode": lambda images: torch.div(images, 1 / 15, rounding_mode="floor") / 15,
    "method with rounding mode": lambda images: images.div(1 / 15, rounding_mode="trunc") / 15,
    "remainder": lambda images: images - images % (1 / 15),
    "fraction": lambda images: (15 * images - (15 * images).frac()) / 15,
    "keyword": lambda images: torch.round(input=15 * images) / 15,
    "floor division": lambda images: torch.floor_divide(15 * images, other=1) / 15,
    "in place": floor_in_place,
    "threshold": lambda images: 0.7 * images + 0.3 * (images > 0.5).float(),
    "threshold below": lambda images: 0.7 * images + 0.3 * (1 - (images <= 0.5).to(images.dtype)),
    "numpy module": Layer(lambda images: torch.from_numpy((15 * images.detach().numpy()).round() / 15)),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", QUANTIZATIONS)
def test_every_spelling_of_quantization_gets_gradients(
    how: str, standard: Model, few: Batch, plain_remaining: Callable[[int], int]
) -> None:
    images, labels = few[0][:40], few[1][:40]

    def model(images: Tensor) -> Tensor:
        return standard(QUANTIZATIONS[how](images))

    assert_straight_through(model, images)
    assert ensemble_remaining(model, images, labels) <= plain_remaining(40) + 3


class Quantized(nn.Module):
    """A module with a quantization of its input, in one of several spellings."""

    def __init__(self, model: Model, how: str) -> None:
        super().__init__()
        self.model, self.how, self.front = model, how, To8Bit() if how == "8-bit module" else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        quantized = self.front(images)
        if self.how == "round":
            quantized = torch.round(15 * images) / 15
        elif self.how == "in place":
            quantized = (images * 15).round_().div_(15)
        elif self.how == "decimals":
            quantized = images.round(decimals=1)
        elif self.how == "quotient":
            quantized = (images // (1 / 15)) / 15
        elif self.how == "sign":
            quantized = (images + 0.1 * torch.sign(images - 0.5)).clamp(0, 1)
        return self.model(quantized)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["round", "in place", "decimals", "quotient", "8-bit module"])
def test_quantization_does_not_make_a_module_robust(
    how: str, standard: Model, few: Batch, plain_remaining: Callable[[int], int]
) -> None:
    """As few images remain as without it."""
    (images, labels), model = few, Quantized(standard, how).eval()
    assert_straight_through(model, images)
    assert ensemble_remaining(model, images, labels) <= plain_remaining(60) + 3


@pytest.mark.slow
def test_quantization_that_changes_the_clean_accuracy_does_not_make_a_module_robust(
    convolutional_standard: Model, few: Batch
) -> None:
    (images, labels), model = few, Quantized(convolutional_standard, "sign").eval()
    assert_straight_through(model, images)
    assert ensemble_remaining(model, images, labels) <= 12


def test_models_without_such_operations_stay_as_they_are(standard: Model, few: Batch) -> None:
    assert attacks.straight_through(standard, few[0]) is None
    assert attacks.straight_through(LabelsOnly(standard), few[0]) is None
    assert not torch.nn.modules.module._global_forward_hooks  # nothing is left behind


class Lookup(nn.Module):
    """An embedding of pixel values: an index must stay an integer."""

    def __init__(self) -> None:
        super().__init__()
        self.index, self.values = Layer(lambda images: (15 * images).long()), nn.Embedding(16, 1)
        self.values.weight.data = torch.linspace(0, 1, 16)[:, None]

    def forward(self, images: Tensor) -> Tensor:
        return self.values(self.index(images)).squeeze(-1)


to_uint8 = Layer(lambda images: (images * 255).to(torch.uint8))
INTEGERS: dict[str, Callable[[Tensor], Tensor]] = {
    "mask": lambda images: images.masked_fill(Layer(lambda pixels: pixels > 0.5)(images), 1.0),
    "lookup": Lookup(),
    "shift": lambda images: (to_uint8(images) >> 4).float() / 15,
    "overflow": lambda images: (to_uint8(images) + 60).float() / 255,
    "where": lambda images: torch.where(images > 0.5, images, 0.5 * images),
}


@pytest.mark.parametrize("how", INTEGERS)
def test_integers_stay_exact(how: str, standard: Model, few: Batch) -> None:
    """Straight-through gradients are exact or None, and the ensemble runs either way."""
    images, labels = few[0][:40], few[1][:40]

    def model(images: Tensor) -> Tensor:
        return standard(INTEGERS[how](images))

    differentiable = attacks.straight_through(model, images)
    with torch.no_grad():
        logits = model(images)
        if differentiable is not None:
            assert torch.equal(differentiable(images), logits)
    found = attacks.adaptive_ensemble(model, images, labels, threat_model=THREAT_MODEL, budget="quick")
    assert remaining(found) <= int((logits.argmax(1) == labels).sum())
    assert torch.isfinite(found.images).all()


def test_mode_and_statistics_of_the_model_stay(few: Batch) -> None:
    model = nn.Sequential(Layer(torch.round), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)).train()
    before = model.get_submodule("2").get_buffer("running_mean").clone()
    differentiable = attacks.straight_through(model, few[0])
    assert differentiable is not None
    differentiable(few[0])
    assert model.training and torch.equal(model.get_submodule("2").get_buffer("running_mean"), before)


@pytest.mark.slow
def test_models_of_other_threads_are_left_alone(standard: Model, few: Batch) -> None:
    images, labels, stop, failures = few[0][:40], few[1][:40], threading.Event(), list[Exception]()
    cut = Layer(lambda values: (values * 3).round().detach())

    def other_thread() -> None:
        while not stop.is_set():
            if cut(torch.ones(2, requires_grad=True)).requires_grad:
                failures.append(AssertionError("a module of another thread got straight-through gradients"))

    worker = threading.Thread(target=other_thread)
    worker.start()
    try:
        model = nn.Sequential(Layer(lambda images: (15 * images).round() / 15), standard)
        attacks.adaptive_ensemble(model, images, labels, threat_model=THREAT_MODEL, budget="quick")
    finally:
        stop.set()
        worker.join()
    assert failures == []


@pytest.mark.slow
def test_float16_models_get_hop_skip_jump_and_straight_through_gradients(standard: Model, few: Batch) -> None:
    half, images, labels = copy.deepcopy(standard).half(), few[0][:40].half(), few[1][:40]
    found = attacks.hop_skip_jump(half, images, labels, norm="l2", queries=200)
    assert found.images.dtype == torch.float16 and int(found.norms.isfinite().sum()) > 30
    model = nn.Sequential(Layer(lambda images: (15 * images).round() / 15), half)
    assert ensemble_remaining(model, images, labels) < 10
