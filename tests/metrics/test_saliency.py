"""Explanations and frequencies: models whose reasons are known exactly, and completeness on trained ones."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from notbugs import data, metrics, models
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.metrics.fourier import MAX_FREQUENCIES, wave
from notbugs.metrics.saliency import blur

CLASSES = ("one", "two", "three")


def dataset(images: Tensor, labels: Tensor, classes: tuple[str, ...] = CLASSES) -> Dataset:
    return Dataset(data.to_8bit(images), labels, classes, tuple(f"{number}.png" for number in range(len(labels))))


def linear(weights: Tensor) -> nn.Sequential:
    """Logits of images by weights (K, C, H, W), and a bias that decides ties."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weights[0].numel(), len(weights)))
    with torch.no_grad():
        model[1].weight.copy_(weights.flatten(1))
        model[1].bias.copy_(0.01 * torch.arange(len(weights)))
    return model


@pytest.fixture(scope="module")
def some() -> tuple[nn.Module, Dataset, Tensor]:
    """A linear model of 5x6 colour images, images, and the means of their classes."""
    chance = torch.Generator().manual_seed(0)
    images = torch.rand(60, 3, 5, 6, generator=chance)
    part = dataset(images, torch.arange(60) % 3)
    return linear(torch.randn(3, 3, 5, 6, generator=chance)), part, metrics.class_means(part)


def two_best(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        said, rivals = model(images).argsort(1, descending=True)[:, :2].T
    return said, rivals


def added(model: nn.Module, images: Tensor) -> Tensor:
    """By how much an image's lead of its answer over its second best exceeds that of the blurred image."""
    places = torch.stack(two_best(model, images), dim=1)
    with torch.no_grad():
        own, rival = (model(images) - model(blur(images))).gather(1, places).T
    return own - rival


# ---- what is explained -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", metrics.METHODS)
def test_a_linear_models_explanation_is_its_weights(method: str, some: tuple[Any, Dataset, Tensor]) -> None:
    model, part, means = some
    told, images = metrics.saliency(model, part, means, method=method, batch_size=7), part.pixels(slice(None))
    said, rivals = two_best(model, images)
    weights = model[1].weight.detach().reshape(3, 3, 5, 6)
    wanted = weights[said] - weights[rivals]
    torch.testing.assert_close(told.gradients, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(told.parts, (images - blur(images)) * wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(told.parts.flatten(1).sum(1), added(model, images), atol=1e-4, rtol=1e-4)
    apart = (means[said] - means[rivals]).flatten(1).double().numpy()
    flat = wanted.flatten(1).double().numpy()
    cosines = (apart * flat).sum(1) / np.linalg.norm(apart, axis=1) / np.linalg.norm(flat, axis=1)
    np.testing.assert_allclose(told.alignment, cosines, atol=1e-5)
    each = (flat / np.linalg.norm(flat, axis=1)[:, None]) @ (apart / np.linalg.norm(apart, axis=1)[:, None]).T
    chance = [np.delete(line, place).mean() for place, line in enumerate(each)]
    np.testing.assert_allclose(told.chance_alignment, chance, atol=1e-5)
    np.testing.assert_allclose(told.low, metrics.low_frequency_energy(wanted).numpy(), atol=1e-5)


def test_a_model_that_compares_with_the_means_is_aligned(some: tuple[Any, Dataset, Tensor]) -> None:
    _, part, means = some
    for sign in (1.0, -1.0):
        told = metrics.saliency(linear(sign * means), part, means)
        np.testing.assert_allclose(told.alignment, sign, atol=1e-5)
        assert np.abs(told.chance_alignment).max() <= 1 + 1e-6


def smooth() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 20), nn.Softplus(), nn.Linear(20, 10))


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_parts_of_a_smooth_model_add_up_to_what_the_image_adds(scale: float, digits: data.Splits) -> None:
    model, part, means = smooth(), digits.test.select(slice(0, 100)), metrics.class_means(digits.train)
    with torch.no_grad():
        model[1].weight.mul_(scale)
    wanted = added(model, part.pixels(slice(None)))
    parts = metrics.saliency(model, part, means, method="integrated").parts.flatten(1).sum(1)
    torch.testing.assert_close(parts, wanted, atol=2e-4, rtol=0)
    alone = metrics.saliency(model, part, means).parts.flatten(1).sum(1)
    assert (alone - wanted).abs().mean() > 10 * (parts - wanted).abs().mean()


def test_parts_of_a_trained_network_nearly_add_up(standard: models.Model, robust: models.Model, digits: data.Splits) -> None:
    """ReLUs have kinks, which sixteen places on the way cannot all see: 2 % of what the image adds on average."""
    for model in (standard, robust):
        wanted = added(model, digits.test.pixels(slice(None)))
        told = metrics.saliency(model, digits.test, metrics.class_means(digits.train), method="integrated")
        off = (told.parts.flatten(1).sum(1) - wanted).abs()
        assert off.mean() < 0.03 * wanted.abs().mean() and off.max() < 0.15 * wanted.abs().mean()


def test_alignment_follows_robustness_and_chance_does_not(
    standard: models.Model, robust: models.Model, digits: data.Splits
) -> None:
    means = metrics.class_means(digits.train)
    told = [metrics.saliency(model, digits.test, means, method="integrated") for model in (standard, robust)]
    assert told[1].alignment.mean() > told[0].alignment.mean() + 0.1
    for one in told:
        assert abs(one.chance_alignment.mean()) < 0.1 and one.alignment.mean() > 0.3
        assert one.faithful.mean() > 0.1 and one.low.mean() > metrics.white_noise_energy((1, 8, 8))
        assert one.faithful == pytest.approx(one.chance_deletion - one.deletion)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 20)], ids=str)
def test_a_blurred_image_has_no_detail(shape: tuple[int, int, int]) -> None:
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    found = blur(images)
    assert found.shape == images.shape and found.dtype == images.dtype and 0 <= found.min() <= found.max() <= 1
    left, whole = (some - some.mean((2, 3), keepdim=True) for some in (found, images))
    assert (metrics.low_frequency_energy(left) > 2 * metrics.low_frequency_energy(whole)).all()
    high = [(1 - metrics.low_frequency_energy(some)) * some.flatten(1).square().sum(1) for some in (left, whole)]
    assert (high[0] < 0.1 * high[1]).all()
    assert torch.equal(found[1:2], blur(images[1:2]))
    torch.testing.assert_close(blur(torch.full((1, *shape), 0.3)), torch.full((1, *shape), 0.3))


# ---- is it the reason? ---------------------------------------------------------------------------------------------------


class OnePixel(nn.Module):
    """Says "two" where one pixel is above 0.6, "one" elsewhere, "three" never."""

    def forward(self, images: Tensor) -> Tensor:
        seen = 5 * (images[:, :, 2, 5].mean(1) - 0.6)
        return torch.stack([-seen, seen, seen - 100], dim=1)


def lit(level: float, label: int, count: int = 400) -> tuple[Dataset, Tensor]:
    """Dark images whose telling pixel is at a level; blurred, it is dark too, and the model says "one"."""
    images = 0.4 * torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images[:, :, 2, 5] = level
    return dataset(images, torch.full((count,), label)), torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", metrics.METHODS)
@pytest.mark.parametrize("label", [1, 0], ids=["right", "wrong"])
def test_the_pixel_that_is_looked_at_goes_first_and_takes_the_answer_along(method: str, label: int) -> None:
    """At once, where the explanation says so, and half-way in random order; a wrong answer has its reasons, too."""
    told = metrics.saliency(OnePixel(), *lit(0.9, label), method=method)
    assert (told.deletion == 0).all()
    cuts = [round(64 * cut / 10) for cut in range(1, 11)]
    wanted = np.mean([np.mean([rank >= cut for cut in cuts]) for rank in range(64)])  # each place in the order equally likely
    assert told.chance_deletion.mean() == pytest.approx(wanted, abs=0.06) and wanted == pytest.approx(0.5, abs=0.06)
    assert told.faithful.mean() == pytest.approx(wanted, abs=0.06)
    assert (told.parts != 0).flatten(1).sum(1).tolist() == [1] * 400


@pytest.mark.parametrize("method", metrics.METHODS)
def test_an_answer_that_a_blurred_image_gets_too_is_never_lost(method: str) -> None:
    told = metrics.saliency(OnePixel(), *lit(0.1, 0, 20), method=method)
    assert (told.deletion == 1).all() and (told.chance_deletion == 1).all() and (told.faithful == 0).all()


def test_misread_images_are_explained_as_faithfully(robust: models.Model, digits: data.Splits) -> None:
    with torch.no_grad():
        wrong = (robust(digits.test.pixels(slice(None))).argmax(1) != digits.test.labels).numpy()
    means = metrics.class_means(digits.train)
    told = metrics.saliency(robust, digits.test, means)
    assert wrong.sum() > 5 and told.faithful[wrong].mean() > 0
    relabelled = metrics.saliency(robust, digits.test.with_labels(9 - digits.test.labels), means)
    assert all((np.asarray(one) == np.asarray(other)).all() for one, other in zip(told, relabelled, strict=True))


# ---- parts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (6, 10), (7, 9), (5, 1)], ids=str)
def test_waves_are_low_or_not(shape: tuple[int, int]) -> None:
    height, width = shape
    for down in range(-((height - 1) // 2), height // 2 + 1):
        for across in range(width // 2 + 1):
            image = wave(height, width, down, across)[None, None]
            low = math.hypot(down / height, across / width) <= 0.25
            assert metrics.low_frequency_energy(image).item() == pytest.approx(float(low), abs=1e-9), (down, across)
            shifted = image.roll(1, 2).expand(1, 3, -1, -1)  # whatever its phase, and in colour
            assert metrics.low_frequency_energy(-7 * shifted).item() == pytest.approx(float(low), abs=1e-9)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9)], ids=str)
def test_the_share_is_that_of_the_energy(shape: tuple[int, int, int]) -> None:
    """Parseval: what is left of an image without its high frequencies, over the image, in squared lengths; white noise."""
    noise = torch.randn(4000, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    down, across = torch.fft.fftfreq(shape[1]), torch.fft.fftfreq(shape[2])
    low = torch.hypot(down[:, None], across[None, :]) <= 0.25
    kept = torch.fft.ifft2(torch.fft.fft2(noise) * low).real
    share = metrics.low_frequency_energy(noise)
    torch.testing.assert_close(share, kept.flatten(1).square().sum(1) / noise.flatten(1).square().sum(1))
    assert metrics.white_noise_energy(shape) == low.double().mean() == pytest.approx(share.mean().item(), abs=0.01)
    torch.testing.assert_close(metrics.low_frequency_energy(noise - kept), torch.zeros(4000, dtype=torch.float64))
    assert metrics.low_frequency_energy(torch.ones(2, *shape)).tolist() == pytest.approx([1, 1])
    assert metrics.low_frequency_energy(torch.zeros(2, *shape)).tolist() == [0, 0]


def test_class_means_are_exact(digits: data.Splits) -> None:
    part = digits.train
    images = part.pixels(slice(None)).double()
    for found, each in zip(metrics.class_means(part), range(10), strict=True):
        torch.testing.assert_close(found.double(), images[part.labels == each].mean(0), atol=1e-7, rtol=0)
    without = part.select(part.labels != 3)
    found = metrics.class_means(without)
    torch.testing.assert_close(found[3].double(), images[part.labels != 3].mean(0), atol=1e-7, rtol=0)
    torch.testing.assert_close(found[4], metrics.class_means(part)[4])
    assert metrics.class_means(part.select([])).shape == (10, 1, 8, 8)


@pytest.mark.parametrize("method", metrics.METHODS)
def test_the_same_twice_in_any_batch_and_the_seed_is_of_chance_alone(
    method: str, standard: models.Model, digits: data.Splits
) -> None:
    part, means = digits.test.select(slice(0, 120)), metrics.class_means(digits.train)
    told = metrics.saliency(standard, part, means, method=method)
    for other in (metrics.saliency(standard, part, means, method=method, batch_size=size) for size in (250, 17)):
        for name, one in told._asdict().items():
            np.testing.assert_allclose(np.asarray(getattr(other, name)), np.asarray(one), atol=1e-5, err_msg=name)
    seeded = metrics.saliency(standard, part, means, method=method, seed=1)
    for name in ("gradients", "alignment", "chance_alignment", "low", "deletion"):
        assert (np.asarray(getattr(seeded, name)) == np.asarray(getattr(told, name))).all()
    assert (seeded.chance_deletion != told.chance_deletion).any()
    for name in ("deletion", "chance_deletion", "low"):
        assert getattr(told, name).min() >= 0 and getattr(told, name).max() <= 1


def test_a_model_is_left_as_it_was(digits: data.Splits) -> None:
    model = models.build("small", shape=(1, 8, 8), classes=10, width=8).train()
    before = [value.clone() for value in model.state_dict().values()]
    part = digits.test.select(slice(0, 10))
    metrics.saliency(model, part, metrics.class_means(digits.test), method="integrated")
    metrics.fourier_sensitivity(model, part)
    assert model.training and all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, model.state_dict().values(), strict=True))


def test_what_cannot_be_explained_is_said(some: tuple[Any, Dataset, Tensor]) -> None:
    model, part, means = some
    with pytest.raises(InputError, match=r"^method: must be one of gradient, integrated, got 'saliency'"):
        metrics.saliency(model, part, means, method="saliency")
    for wrong in (means[:2], means[:, :1], means.mean(0)):
        with pytest.raises(InputError, match=r"^means: must be one image a class, \(3, 3, 5, 6\), got .*class_means"):
            metrics.saliency(model, part, wrong)


@pytest.mark.parametrize("work", ["explain", "frequencies"])
def test_no_images_are_named(work: str, some: tuple[Any, Dataset, Tensor]) -> None:
    model, part, means = some
    with pytest.raises(InputError, match="must hold images"):
        metrics.saliency(model, part.select([]), means) if work == "explain" else metrics.fourier_sensitivity(
            model, part.select([])
        )


# ---- frequencies ---------------------------------------------------------------------------------------------------------


class Hears(nn.Module):
    """Says "two" where a wave is in the image, either way up (or one way only), in some channel; "one" elsewhere."""

    def __init__(self, pattern: Tensor, level: float, *, signed: bool = False) -> None:
        super().__init__()
        self.pattern, self.level, self.signed = pattern, level, signed
        self.given: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.given.append(images)
        heard = ((images - 0.5) * self.pattern).sum((2, 3)).amax(1) if self.signed else self._both(images)
        return torch.stack([self.level - heard, heard - self.level], dim=1)

    def _both(self, images: Tensor) -> Tensor:
        return ((images - 0.5) * self.pattern).sum((2, 3)).abs().amax(1)


def grey(count: int, channels: int, height: int, width: int) -> Dataset:
    return dataset(torch.full((count, channels, height, width), 0.5), torch.zeros(count, dtype=torch.int64), ("one", "two"))


def rows_of(part: Dataset, model: nn.Module, **options: Any) -> dict[tuple[float, float], dict[str, float]]:
    rows = metrics.fourier_sensitivity(model, part, **options)
    found = {(row["down"], row["across"]): row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("shape", [(8, 8), (6, 9), (7, 7)], ids=str)
def test_every_wave_has_length_1_and_is_at_right_angles_to_all_others(shape: tuple[int, int]) -> None:
    height, width = shape
    part = grey(2, 1, height, width)
    places = list(rows_of(part, Hears(torch.zeros(shape), 1.0), amplitude=0.1))
    assert len(places) == (height * width + (1 + (height % 2 == 0)) * (1 + (width % 2 == 0))) / 2  # all but mirror images
    waves = torch.stack([wave(height, width, *place).flatten() for place in places]).double()
    torch.testing.assert_close(waves.norm(dim=1), torch.ones(len(places), dtype=torch.float64))
    products = (waves @ waves.T).abs()
    for one, (down, across) in enumerate(places):
        for other, place in enumerate(places):
            assert products[one, other] == pytest.approx(float(place == (down, across)), abs=1e-5), (places[one], place)
    covered = {(i % height, j % width) for i, j in places} | {(-i % height, -j % width) for i, j in places}
    assert len(covered) == height * width


@pytest.mark.parametrize("place", [(2, 3), (-3, 1), (0, 0), (4, 4), (0, 4)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_who_hears_one_frequency_errs_at_this_one(place: tuple[int, int], channels: int) -> None:
    model = Hears(wave(8, 8, *place), 0.4)
    rows = rows_of(grey(30, channels, 8, 8), model, amplitude=0.1)
    assert {where: row["errors"] for where, row in rows.items() if row["errors"]} == {place: 1.0}
    assert {(row["n"], row["amplitude"]) for row in rows.values()} == {(30, 0.1)}


def test_signs_are_drawn_for_each_image() -> None:
    row = rows_of(grey(400, 1, 8, 8), Hears(wave(8, 8, 1, 2), 0.4, signed=True), amplitude=0.1)[1, 2]
    assert row["errors"] == pytest.approx(0.5, abs=0.1)
    three = rows_of(grey(400, 3, 8, 8), Hears(wave(8, 8, 1, 2), 0.4, signed=True), amplitude=0.1)[1, 2]
    assert three["errors"] == pytest.approx(7 / 8, abs=0.07)  # and for each channel


def test_the_waves_real_size(digits: data.Splits) -> None:
    """As told, to rounding, where pixels have room; on digits, most of whose pixels are black, less and never more."""
    for part, least in ((grey(20, 1, 8, 8), 0.97), (digits.test.select(slice(0, 50)), 0.5)):
        model = Hears(torch.zeros(8, 8), 1.0)
        rows = rows_of(part, model, amplitude=0.12)
        wanted, images = 0.12 * 8, part.pixels(slice(None))
        assert len(model.given) == len(rows)
        for given in model.given:
            assert torch.equal(given, data.from_8bit(data.to_8bit(given))) and given.min() >= 0 and given.max() <= 1
            size = (given - images).flatten(1).norm(dim=1)
            assert size.max() <= 1.03 * wanted and size.mean() >= least * wanted


def test_the_usual_wave_is_half_the_pixels_deviation_and_robustness_turns_to_other_waves(
    standard: models.Model, robust: models.Model, digits: data.Splits
) -> None:
    part = digits.test.select(slice(0, 200))
    images = part.pixels(slice(None)).double()
    rows = [rows_of(part, model) for model in (standard, robust)]
    for row in rows[0].values():
        assert row["amplitude"] == pytest.approx(0.5 * images.std(0).mean().item(), rel=1e-5)
    errors = np.array([[row["errors"] for row in one.values()] for one in rows])
    assert errors[1].mean() < errors[0].mean() + 0.1 and errors.min() >= 0 and errors.max() < 0.5
    again = metrics.fourier_sensitivity(standard, part, batch_size=33)
    assert [row["errors"] for row in again] == errors[0].tolist()
    assert [row["errors"] for row in metrics.fourier_sensitivity(standard, part, seed=1)] != errors[0].tolist()
    calm = metrics.fourier_sensitivity(standard, part, amplitude=1e-6)
    with torch.no_grad():
        wrong = (standard(part.pixels(slice(None))).argmax(1) != part.labels).float().mean().item()
    assert [row["errors"] for row in calm] == pytest.approx([wrong] * len(calm))


@pytest.mark.parametrize("side", [32, 33, 40, 64, 65, 66, 90])
def test_of_larger_images_evenly_chosen_frequencies(side: int) -> None:
    places = list(rows_of(grey(1, 1, side, side), Hears(torch.zeros(side, side), 1.0), amplitude=0.1))
    downs, acrosses = (sorted({place[axis] for place in places}) for axis in (0, 1))
    for found, first in ((downs, -((side - 1) // 2)), (acrosses, 0)):
        assert found[0] == first and found[-1] == side // 2 and 0 in found
        assert np.diff(found).max() <= math.ceil(side / 2 / MAX_FREQUENCIES)
    mirrored = sum(down < 0 and -down in downs for down in downs)  # of these one is there
    twice = mirrored * sum(2 * across in (0, side) for across in acrosses)
    assert len(places) == len(downs) * len(acrosses) - twice
    assert len(downs) <= 2 * MAX_FREQUENCIES + 1 and len(acrosses) <= MAX_FREQUENCIES + 1


def test_one_image_has_a_wave_too() -> None:
    metrics.fourier_sensitivity(Hears(torch.zeros(8, 8), 1.0), grey(1, 1, 8, 8))


@pytest.mark.parametrize("amplitude", [0.0, -0.1, math.nan])
def test_no_wave_is_named(amplitude: float) -> None:
    with pytest.raises(InputError, match=r"^amplitude: must be above 0, got "):
        metrics.fourier_sensitivity(Hears(torch.zeros(8, 8), 1.0), grey(2, 1, 8, 8), amplitude=amplitude)
