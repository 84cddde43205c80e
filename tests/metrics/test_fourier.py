"""Fourier sensitivity: waves are orthonormal, and a detector of one wave errs at its frequency."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from metrics.conftest import dataset
from torch import Tensor, nn

from notbugs import data, metrics, models
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.metrics import FourierError
from notbugs.metrics.fourier import MAX_FREQUENCIES, wave


class WaveDetector(nn.Module):
    """Predicts "two" where a channel contains a wave of either sign (signed: of one sign only), else "one"."""

    def __init__(self, pattern: Tensor, level: float, *, signed: bool = False) -> None:
        super().__init__()
        self.pattern, self.level, self.signed = pattern, level, signed
        self.inputs: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.inputs.append(images)
        response = ((images - 0.5) * self.pattern).sum((2, 3)).amax(1) if self.signed else self._either_sign(images)
        return torch.stack([self.level - response, response - self.level], dim=1)

    def _either_sign(self, images: Tensor) -> Tensor:
        return ((images - 0.5) * self.pattern).sum((2, 3)).abs().amax(1)


def gray_images(count: int, channels: int, height: int, width: int) -> Dataset:
    return dataset(torch.full((count, channels, height, width), 0.5), torch.zeros(count, dtype=torch.int64), ("one", "two"))


def errors_of(part: Dataset, model: nn.Module, **options: Any) -> dict[tuple[int, int], FourierError]:
    """Errors by frequency."""
    rows = metrics.fourier_sensitivity(model, part, **options)
    found = {(row.cycles_down, row.cycles_across): row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("shape", [(8, 8), (6, 9), (7, 7)], ids=str)
def test_waves_are_orthonormal_and_complete(shape: tuple[int, int]) -> None:
    height, width = shape
    part = gray_images(2, 1, height, width)
    frequencies = list(errors_of(part, WaveDetector(torch.zeros(shape), 1.0), amplitude=0.1))
    assert len(frequencies) == (height * width + (1 + (height % 2 == 0)) * (1 + (width % 2 == 0))) / 2  # all but mirror images
    waves = torch.stack([wave(height, width, *frequency).flatten() for frequency in frequencies]).double()
    torch.testing.assert_close(waves.norm(dim=1), torch.ones(len(frequencies), dtype=torch.float64))
    products = (waves @ waves.T).abs()
    torch.testing.assert_close(products, torch.eye(len(frequencies), dtype=torch.float64), atol=1e-5, rtol=0)
    covered = {(i % height, j % width) for i, j in frequencies} | {(-i % height, -j % width) for i, j in frequencies}
    assert len(covered) == height * width


@pytest.mark.parametrize("frequency", [(2, 3), (-3, 1), (0, 0), (4, 4), (0, 4)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_detector_of_one_frequency_errs_at_this_one(frequency: tuple[int, int], channels: int) -> None:
    model = WaveDetector(wave(8, 8, *frequency), 0.4)
    rows = errors_of(gray_images(30, channels, 8, 8), model, amplitude=0.1)
    assert {where: row.error_rate for where, row in rows.items() if row.error_rate} == {frequency: 1.0}
    assert {(row.n, row.amplitude) for row in rows.values()} == {(30, 0.1)}


def test_signs_are_random_for_each_image_and_channel() -> None:
    row = errors_of(gray_images(400, 1, 8, 8), WaveDetector(wave(8, 8, 1, 2), 0.4, signed=True), amplitude=0.1)[1, 2]
    assert row.error_rate == pytest.approx(0.5, abs=0.1)
    three = errors_of(gray_images(400, 3, 8, 8), WaveDetector(wave(8, 8, 1, 2), 0.4, signed=True), amplitude=0.1)[1, 2]
    assert three.error_rate == pytest.approx(7 / 8, abs=0.07)


def test_the_norm_of_the_added_wave(digits: data.Splits) -> None:
    """That of the amplitude, up to rounding, on gray images; less on digits, most of whose pixels are black; never more."""
    for part, least in ((gray_images(20, 1, 8, 8), 0.97), (digits.test.select(slice(0, 50)), 0.5)):
        model = WaveDetector(torch.zeros(8, 8), 1.0)
        rows = errors_of(part, model, amplitude=0.12)
        wanted, images = 0.12 * 8, part.pixels(slice(None))
        assert len(model.inputs) == len(rows)
        for perturbed in model.inputs:
            assert (
                torch.equal(perturbed, data.from_8bit(data.to_8bit(perturbed))) and perturbed.min() >= 0 and perturbed.max() <= 1
            )
            norm = (perturbed - images).flatten(1).norm(dim=1)
            assert norm.max() <= 1.03 * wanted and norm.mean() >= least * wanted


@pytest.mark.slow
def test_the_default_amplitude_is_half_the_standard_deviation_and_seeds_matter(
    standard: models.Model, robust: models.Model, digits: data.Splits
) -> None:
    part = digits.test.select(slice(0, 200))
    images = part.pixels(slice(None)).double()
    rows = [errors_of(part, model) for model in (standard, robust)]
    for row in rows[0].values():
        assert row.amplitude == pytest.approx(0.5 * images.std(0).mean().item(), rel=1e-5)
    errors = np.array([[row.error_rate for row in one.values()] for one in rows])
    assert errors[1].mean() < errors[0].mean() + 0.1 and errors.min() >= 0 and errors.max() < 0.5
    again = metrics.fourier_sensitivity(standard, part, batch_size=33)
    assert [row.error_rate for row in again] == errors[0].tolist()
    assert [row.error_rate for row in metrics.fourier_sensitivity(standard, part, seed=1)] != errors[0].tolist()
    tiny = metrics.fourier_sensitivity(standard, part, amplitude=1e-6)
    with torch.no_grad():
        wrong = (standard(part.pixels(slice(None))).argmax(1) != part.labels).float().mean().item()
    assert [row.error_rate for row in tiny] == pytest.approx([wrong] * len(tiny))


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 33, 40, 64, 65, 66, 90])
def test_frequencies_of_larger_images_are_evenly_spaced(side: int) -> None:
    frequencies = list(errors_of(gray_images(1, 1, side, side), WaveDetector(torch.zeros(side, side), 1.0), amplitude=0.1))
    downs, acrosses = (sorted({frequency[axis] for frequency in frequencies}) for axis in (0, 1))
    for found, first in ((downs, -((side - 1) // 2)), (acrosses, 0)):
        assert found[0] == first and found[-1] == side // 2 and 0 in found
        assert np.diff(found).max() <= math.ceil(side / 2 / MAX_FREQUENCIES)
    mirrored = sum(down < 0 and -down in downs for down in downs)  # one of each pair is left out
    twice = mirrored * sum(2 * across in (0, side) for across in acrosses)
    assert len(frequencies) == len(downs) * len(acrosses) - twice
    assert len(downs) <= 2 * MAX_FREQUENCIES + 1 and len(acrosses) <= MAX_FREQUENCIES + 1


def test_a_single_image_has_a_default_amplitude() -> None:
    metrics.fourier_sensitivity(WaveDetector(torch.zeros(8, 8), 1.0), gray_images(1, 1, 8, 8))


@pytest.mark.parametrize("amplitude", [0.0, -0.1, math.nan])
def test_an_amplitude_of_0_or_below_is_rejected(amplitude: float) -> None:
    with pytest.raises(InputError, match=r"^amplitude: must be above 0, got "):
        metrics.fourier_sensitivity(WaveDetector(torch.zeros(8, 8), 1.0), gray_images(2, 1, 8, 8), amplitude=amplitude)


def test_an_empty_data_set_is_rejected() -> None:
    with pytest.raises(InputError, match="must hold images"):
        metrics.fourier_sensitivity(WaveDetector(torch.zeros(8, 8), 1.0), gray_images(0, 1, 8, 8))


def test_the_model_stays_as_it_was(digits: data.Splits) -> None:
    model = models.build("small", shape=(1, 8, 8), classes=10, width=8).train()
    before = [value.clone() for value in model.state_dict().values()]
    metrics.fourier_sensitivity(model, digits.test.select(slice(0, 10)))
    assert model.training and all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, model.state_dict().values(), strict=True))
