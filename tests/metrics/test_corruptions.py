"""Noise, blur, fog, contrast and JPEG against their definitions, on digits and on crops of photographs."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from notbugs import data, metrics, models
from notbugs.errors import InputError
from notbugs.metrics import corrupt
from notbugs.metrics.corruptions import CORRUPTIONS, SEVERITIES

NOISE = (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)  # Hendrycks & Dietterich 2019, small and larger images
BLUR = (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)
FOG = (0.2, 0.5, 0.75, 1.0, 1.5), (1.5, 2.0, 2.5, 2.5, 3.0)
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)
JPEG = (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)
SIDES = [32, 80]
RANDOM = ["noise", "fog"]


def photographs(side: int, count: int, height: int | None = None) -> Tensor:
    """Square crops of two photographs, resized."""
    generator, crops = np.random.default_rng(0), []
    for number in range(count):
        whole = load_sample_images().images[number % 2]
        size = int(generator.integers(100, 400))
        top, left = (int(generator.integers(0, length - size)) for length in whole.shape[:2])
        crop = Image.fromarray(whole[top : top + size, left : left + size]).resize((side, height or side))
        crops.append(np.asarray(crop))
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def real(digits: data.Splits) -> dict[str, Tensor]:
    return {"digits": digits.test.pixels(slice(0, 60)), "small": photographs(32, 30), "larger": photographs(96, 6, 80)}


def rounded(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round() / 255


def settings(pair: tuple[Any, Any], side: int) -> Any:
    return pair[side > 64]


# ---- all corruptions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 3, 9, 14), (2, 4, 12, 8), (1, 3, 70, 40), (2, 2, 1, 9)], ids=str)
def test_corrupted_images_are_valid_and_reproducible(name: str, shape: tuple[int, ...]) -> None:
    """Same shape, in [0, 1], on the 8-bit grid, the same twice; the input stays as it was; seeds matter for noise and fog."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    for severity in SEVERITIES:
        found = corrupt(images, name, severity, seed=1)
        assert found.shape == images.shape and found.dtype == torch.float32
        assert torch.equal(found, data.from_8bit(data.to_8bit(found)))
        assert torch.equal(found, corrupt(images, name, severity, seed=1)) and not torch.equal(found, before)
        assert torch.equal(found, corrupt(images, name, severity, seed=2)) == (name not in RANDOM)
    assert torch.equal(images, before)


KINDS = [(name, kind) for name in CORRUPTIONS for kind in ("digits", "small", "larger")]


# from severity 3 to 4 fog on larger images is no thicker, but finer
@pytest.mark.parametrize(("name", "kind"), [pair for pair in KINDS if pair != ("fog", "larger")])
def test_the_distance_increases_with_the_severity(name: str, kind: str, real: dict[str, Tensor]) -> None:
    images = real[kind]
    distance = torch.stack([(corrupt(images, name, severity) - images).flatten(1).norm(dim=1) for severity in SEVERITIES])
    assert (distance[0] > 0).all()
    assert (distance.mean(1).diff() > 0).all()
    assert (distance.diff(dim=0) > 0).float().mean() > 0.9  # image by image, nearly always


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in RANDOM])
def test_every_image_is_corrupted_independently_of_the_others(name: str, real: dict[str, Tensor]) -> None:
    for images in real.values():
        alone = torch.cat([corrupt(image[None], name, 4) for image in images[:5]])
        assert torch.equal(alone, corrupt(images[:5], name, 4))


@pytest.mark.parametrize("name", RANDOM)
def test_no_two_images_have_the_same_noise(name: str) -> None:
    found = corrupt(torch.full((3, 1, 16, 16), 0.5), name, 3)
    assert len({tuple(image.flatten().tolist()) for image in found}) == 3


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_dtype_memory_layout_and_gradients_of_the_input(name: str, real: dict[str, Tensor]) -> None:
    images = real["digits"][:3]
    found = corrupt(images.double(), name, 3)
    assert found.dtype == torch.float64 and torch.equal(found.float(), corrupt(images, name, 3))
    transposed = real["small"][:2].transpose(2, 3)
    assert torch.equal(corrupt(transposed, name, 3), corrupt(transposed.contiguous(), name, 3))
    assert not corrupt(images.clone().requires_grad_(), name, 3).requires_grad


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_empty_batch_stays_empty(name: str) -> None:
    assert corrupt(torch.zeros(0, 3, 8, 8), name, 1).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("name", ["contrast", "noise"])
@pytest.mark.parametrize("shape", [(64, 64), (65, 8), (8, 65)], ids=str)
def test_the_longer_side_decides_the_strength(name: str, shape: tuple[int, int]) -> None:
    large = max(shape) > 64
    images = torch.where(torch.arange(shape[1]) % 2 == 0, 0.3, 0.7).expand(20, 1, *shape)
    found = corrupt(images, name, 1)
    if name == "contrast":
        contrast = found.amax((1, 2, 3)) - found.amin((1, 2, 3))
        torch.testing.assert_close(contrast / 0.4, torch.full((20,), 0.4 if large else 0.75), atol=0.01, rtol=0)
    else:
        assert (found - images).std() == pytest.approx(0.08 if large else 0.04, rel=0.05)


# ---- each corruption -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_moves_every_pixel_toward_the_mean_of_its_channel(severity: int, side: int, real: dict[str, Tensor]) -> None:
    images = real["small" if side == 32 else "larger"]
    mean = images.mean((2, 3), keepdim=True)
    wanted = rounded(mean + settings(CONTRAST, side)[severity - 1] * (images - mean))
    assert (corrupt(images, "contrast", severity) - wanted).abs().max() < 1.01 / 255


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_its_standard_deviation_and_no_pattern(severity: int, side: int) -> None:
    wanted = settings(NOISE, side)[severity - 1]
    noise = corrupt(torch.full((20, 3, side, side), 0.5), "noise", severity) - 0.5
    unclipped = torch.special.erf(torch.tensor(0.5 / wanted / 2**0.5)).item()  # share that stays within black and white
    if unclipped > 0.9999:
        assert noise.std() == pytest.approx(wanted, rel=0.02)
    assert (noise.abs() < wanted).float().mean() == pytest.approx(0.6827, abs=0.02)
    assert noise.mean().abs() < 0.01
    for shifted in (noise.roll(1, 3), noise.roll(1, 2), noise.roll(1, 1), noise.roll(1, 0)):
        assert (noise * shifted).mean().abs() < 0.02 * wanted**2 + 1e-5


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_turns_a_step_into_a_gaussian_of_its_standard_deviation(severity: int, side: int) -> None:
    std, middle = settings(BLUR, side)[severity - 1], side // 2
    step = (torch.arange(side) >= middle).float().expand(side, side)
    found = corrupt(torch.stack([step, step.T])[None], "blur", severity)[0]
    places = torch.arange(1 - middle, side - middle).double()
    wanted = torch.exp(-(places**2) / 2 / std**2)
    torch.testing.assert_close(found[0, middle].diff(), (wanted / wanted.sum()).float(), atol=1.1 / 255, rtol=0)
    torch.testing.assert_close(found[1], found[0].T)  # the same in both directions, channel by channel


def test_blur_removes_detail_and_keeps_the_mean(real: dict[str, Tensor]) -> None:
    for images in real.values():
        found = corrupt(images, "blur", 5)
        torch.testing.assert_close(found.mean((2, 3)), images.mean((2, 3)), atol=2 / 255, rtol=0)
        assert (found.diff(dim=3).abs().mean((1, 2, 3)) < images.diff(dim=3).abs().mean((1, 2, 3))).all()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_adds_clouds_from_0_to_its_thickness(severity: int, side: int) -> None:
    """On a uniform image the clouds can be recovered: from 0 to 1 in every image, the same in all channels, and smooth."""
    thickness, level = settings(FOG, side)[severity - 1], 0.8
    found = corrupt(torch.full((12, 3, side, side), level), "fog", severity)
    clouds = (found * (level + thickness) / level - level) / thickness
    tolerance = 0.6 / 255 * (level + thickness) / level / thickness
    assert clouds.amin((2, 3)).abs().max() <= tolerance and (clouds.amax((2, 3)) - 1).abs().max() <= tolerance
    assert torch.equal(found[:, 0], found[:, 1]) and torch.equal(found[:, 0], found[:, 2])
    assert clouds.mean() == pytest.approx(0.5, abs=0.1)
    assert clouds.diff(dim=3).abs().mean() < 0.3 * clouds.std((2, 3)).mean()


def test_fog_is_no_brighter_than_the_brightest_pixel_and_brightens_dark_images(real: dict[str, Tensor]) -> None:
    for images in real.values():
        brightest = images.amax((1, 2, 3))
        for severity in SEVERITIES:
            found = corrupt(images, "fog", severity)
            assert (found.amax((1, 2, 3)) <= brightest + 0.51 / 255).all()
            assert (found.mean((1, 2, 3)) <= brightest).all()
        dark = images.flatten(1).mean(1) < 0.3 * brightest
        assert (found.flatten(1).mean(1) > images.flatten(1).mean(1))[dark].all()


@pytest.mark.parametrize("level", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("side", [8, 96])
def test_uniform_images_stay_nearly_as_they_are(level: float, side: int) -> None:
    images = rounded(torch.full((2, 3, side, side), level))
    for severity in SEVERITIES:
        for name in ("blur", "contrast"):
            assert (corrupt(images, name, severity) - images).abs().max() <= 1.01 / 255
        found = corrupt(images, "fog", severity)
        assert found.isfinite().all() and (found <= images + 1e-6).all()
        found = corrupt(images, "jpeg", severity)
        assert (found == found[:1, :, :1, :1]).all() and (found - images).abs().max() <= 8 / 255  # at quality 7


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_is_that_of_pillow(severity: int, side: int, real: dict[str, Tensor]) -> None:
    quality = settings(JPEG, side)[severity - 1]

    def compressed(pixels: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    image = real["small" if side == 32 else "larger"][3:4]
    stored = data.to_8bit(image)[0].permute(1, 2, 0).numpy()
    found = data.to_8bit(corrupt(image, "jpeg", severity))[0].permute(1, 2, 0).numpy()
    assert (found == compressed(stored)).all() and (found != stored).any()
    for channels in (1, 2, 4):  # no color image: channel by channel
        selected = image[:, [0, 1, 2, 0][:channels]]
        found = data.to_8bit(corrupt(selected, "jpeg", severity))[0].numpy()
        for place in range(channels):
            assert (found[place] == compressed(np.ascontiguousarray(stored[:, :, place % 3]))).all()


# ---- bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "Noise", "snow", None])
def test_unknown_corruptions_are_rejected(name: Any) -> None:
    with pytest.raises(InputError, match=r"^corruption: must be one of noise, blur, fog, contrast, jpeg, got "):
        corrupt(torch.zeros(1, 1, 8, 8), name, 1)


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5, "1", None, 1.0])
def test_unknown_severities_are_rejected(severity: Any) -> None:
    with pytest.raises(InputError, match=r"^severity: must be 1, 2, 3, 4 or 5"):
        corrupt(torch.zeros(1, 1, 8, 8), "noise", severity)


# ---- accuracy under corruptions ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_accuracies_count_correct_predictions(standard: models.Model, digits: data.Splits) -> None:
    part = digits.test.select(slice(0, 120))
    found = metrics.corruption_accuracy(standard, part, seed=3, batch_size=50)
    assert [(row.corruption, row.severity) for row in found.accuracies] == [
        ("clean", 0), *((name, severity) for name in CORRUPTIONS for severity in SEVERITIES)
    ]  # fmt: skip
    columns: dict[str, list[Tensor]] = {}
    for row in found.accuracies:
        images = part.pixels(slice(None))
        with torch.no_grad():
            corrupted = corrupt(images, row.corruption, row.severity, seed=3) if row.severity else images
            correct = standard(corrupted).argmax(1) == part.labels
        counted = metrics.Accuracy.from_counts(int(correct.sum()), 120)
        assert row[2:] == (counted.correct, counted.n, counted.accuracy, counted.ci_low, counted.ci_high)
        columns.setdefault(row.corruption, []).append(correct.double())
    for name, shares in found.correct_shares.items():
        assert shares.tolist() == torch.stack(columns[name]).mean(0).tolist()
    accuracy = {name: float(shares.mean()) for name, shares in found.correct_shares.items()}
    assert accuracy["clean"] > 0.9 and min(accuracy.values()) < accuracy["clean"]
    again = metrics.corruption_accuracy(standard, part, seed=3)
    assert again.accuracies == found.accuracies
    assert metrics.corruption_accuracy(standard, part, seed=4).accuracies != found.accuracies


def test_fog_on_larger_images_is_thicker_or_finer_with_severity(real: dict[str, Tensor]) -> None:
    images = torch.full_like(real["larger"], 0.5)
    found = [corrupt(images, "fog", severity) for severity in SEVERITIES]
    roughness = torch.stack([fog.diff(dim=3).abs().mean() for fog in found])
    assert (roughness.diff() > 0).all()
