"""Saliency: models whose attributions are known exactly, and completeness of integrated gradients on trained ones."""

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
from notbugs.metrics.fourier import wave
from notbugs.metrics.saliency import blur


def linear(weights: Tensor) -> nn.Sequential:
    """A model with weights (K, C, H, W), and a bias that decides ties."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weights[0].numel(), len(weights)))
    with torch.no_grad():
        model[1].weight.copy_(weights.flatten(1))
        model[1].bias.copy_(0.01 * torch.arange(len(weights)))
    return model


@pytest.fixture(scope="module")
def linear_case() -> tuple[nn.Module, Dataset, Tensor]:
    """A linear model of 5x6 color images, images, and their class means."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(60, 3, 5, 6, generator=generator)
    part = dataset(images, torch.arange(60) % 3)
    return linear(torch.randn(3, 3, 5, 6, generator=generator)), part, metrics.class_means(part)


def two_best(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The predicted and the second class."""
    with torch.no_grad():
        predicted, second = model(images).argsort(1, descending=True)[:, :2].T
    return predicted, second


def margin_gain(model: nn.Module, images: Tensor) -> Tensor:
    """Margin of the predicted class over the second on the image, minus that on the blurred image."""
    classes = torch.stack(two_best(model, images), dim=1)
    with torch.no_grad():
        predicted, second = (model(images) - model(blur(images))).gather(1, classes).T
    return predicted - second


# ---- attributions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", metrics.METHODS)
def test_the_gradient_of_a_linear_model_is_its_weights(method: str, linear_case: tuple[Any, Dataset, Tensor]) -> None:
    model, part, means = linear_case
    result, images = metrics.saliency(model, part, means, method=method, batch_size=7), part.pixels(slice(None))
    predicted, second = two_best(model, images)
    weights = model[1].weight.detach().reshape(3, 3, 5, 6)
    wanted = weights[predicted] - weights[second]
    torch.testing.assert_close(result.gradients, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result.attributions, (images - blur(images)) * wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result.attributions.flatten(1).sum(1), margin_gain(model, images), atol=1e-4, rtol=1e-4)
    difference = (means[predicted] - means[second]).flatten(1).double().numpy()
    flat = wanted.flatten(1).double().numpy()
    cosines = (difference * flat).sum(1) / np.linalg.norm(difference, axis=1) / np.linalg.norm(flat, axis=1)
    np.testing.assert_allclose(result.alignment, cosines, atol=1e-5)
    all_cosines = (flat / np.linalg.norm(flat, axis=1)[:, None]) @ (difference / np.linalg.norm(difference, axis=1)[:, None]).T
    others = [np.delete(row, index).mean() for index, row in enumerate(all_cosines)]
    np.testing.assert_allclose(result.chance_alignment, others, atol=1e-5)
    np.testing.assert_allclose(result.low_frequency_energy, metrics.low_frequency_energy(wanted).numpy(), atol=1e-5)


def test_a_model_whose_weights_are_the_class_means_is_aligned(linear_case: tuple[Any, Dataset, Tensor]) -> None:
    _, part, means = linear_case
    for sign in (1.0, -1.0):
        result = metrics.saliency(linear(sign * means), part, means)
        np.testing.assert_allclose(result.alignment, sign, atol=1e-5)
        assert np.abs(result.chance_alignment).max() <= 1 + 1e-6


def smooth() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 20), nn.Softplus(), nn.Linear(20, 10))


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_attributions_of_a_smooth_model_are_complete(scale: float, digits: data.Splits) -> None:
    model, part, means = smooth(), digits.test.select(slice(0, 100)), metrics.class_means(digits.train)
    with torch.no_grad():
        model[1].weight.mul_(scale)
    wanted = margin_gain(model, part.pixels(slice(None)))
    integrated = metrics.saliency(model, part, means, method="integrated").attributions.flatten(1).sum(1)
    torch.testing.assert_close(integrated, wanted, atol=2e-4, rtol=0)
    gradient = metrics.saliency(model, part, means).attributions.flatten(1).sum(1)
    assert (gradient - wanted).abs().mean() > 10 * (integrated - wanted).abs().mean()


@pytest.mark.slow
def test_attributions_of_a_trained_network_are_nearly_complete(
    standard: models.Model, robust: models.Model, digits: data.Splits
) -> None:
    """Sixteen nodes cannot capture all kinks of ReLUs: 2 % of the margin gain on average."""
    for model in (standard, robust):
        wanted = margin_gain(model, digits.test.pixels(slice(None)))
        result = metrics.saliency(model, digits.test, metrics.class_means(digits.train), method="integrated")
        error = (result.attributions.flatten(1).sum(1) - wanted).abs()
        assert error.mean() < 0.03 * wanted.abs().mean() and error.max() < 0.15 * wanted.abs().mean()


@pytest.mark.slow
def test_alignment_increases_with_robustness_and_chance_alignment_does_not(
    standard: models.Model, robust: models.Model, digits: data.Splits
) -> None:
    means = metrics.class_means(digits.train)
    result = [metrics.saliency(model, digits.test, means, method="integrated") for model in (standard, robust)]
    assert result[1].alignment.mean() > result[0].alignment.mean() + 0.1
    for one in result:
        assert abs(one.chance_alignment.mean()) < 0.1 and one.alignment.mean() > 0.3
        assert one.deletion_gain.mean() > 0.1 and one.low_frequency_energy.mean() > metrics.white_noise_energy((1, 8, 8))
        assert one.deletion_gain == pytest.approx(one.chance_deletion - one.deletion)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 20)], ids=str)
def test_a_blurred_image_has_no_high_frequencies(shape: tuple[int, int, int]) -> None:
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    found = blur(images)
    assert found.shape == images.shape and found.dtype == images.dtype and 0 <= found.min() <= found.max() <= 1
    blurred, sharp = (batch - batch.mean((2, 3), keepdim=True) for batch in (found, images))
    assert (metrics.low_frequency_energy(blurred) > 2 * metrics.low_frequency_energy(sharp)).all()
    high = [(1 - metrics.low_frequency_energy(batch)) * batch.flatten(1).square().sum(1) for batch in (blurred, sharp)]
    assert (high[0] < 0.1 * high[1]).all()
    assert torch.equal(found[1:2], blur(images[1:2]))
    torch.testing.assert_close(blur(torch.full((1, *shape), 0.3)), torch.full((1, *shape), 0.3))


# ---- deletion ------------------------------------------------------------------------------------------------------------


class OnePixel(nn.Module):
    """Predicts "two" where one pixel is above 0.6, else "one", and never "three"."""

    def forward(self, images: Tensor) -> Tensor:
        logit = 5 * (images[:, :, 2, 5].mean(1) - 0.6)
        return torch.stack([-logit, logit, logit - 100], dim=1)


def with_pixel(level: float, label: int, count: int = 400) -> tuple[Dataset, Tensor]:
    """Dark images with that pixel at a level; blurred, it is dark, too, and the model predicts "one"."""
    images = 0.4 * torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images[:, :, 2, 5] = level
    return dataset(images, torch.full((count,), label)), torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", metrics.METHODS)
@pytest.mark.parametrize("label", [1, 0], ids=["right", "wrong"])
def test_the_decisive_pixel_is_deleted_first_and_changes_the_prediction(method: str, label: int) -> None:
    """At once by attribution, halfway in random order; the same for a wrong prediction."""
    result = metrics.saliency(OnePixel(), *with_pixel(0.9, label), method=method)
    assert (result.deletion == 0).all()
    cuts = [round(64 * cut / 10) for cut in range(1, 11)]
    wanted = np.mean([np.mean([rank >= cut for cut in cuts]) for rank in range(64)])  # each rank of the pixel is equally likely
    assert result.chance_deletion.mean() == pytest.approx(wanted, abs=0.06) and wanted == pytest.approx(0.5, abs=0.06)
    assert result.deletion_gain.mean() == pytest.approx(wanted, abs=0.06)
    assert (result.attributions != 0).flatten(1).sum(1).tolist() == [1] * 400


@pytest.mark.parametrize("method", metrics.METHODS)
def test_the_prediction_for_the_blurred_image_never_changes(method: str) -> None:
    result = metrics.saliency(OnePixel(), *with_pixel(0.1, 0, 20), method=method)
    assert (result.deletion == 1).all() and (result.chance_deletion == 1).all() and (result.deletion_gain == 0).all()


@pytest.mark.slow
def test_attributions_of_misclassified_images_are_faithful_and_independent_of_the_label(
    robust: models.Model, digits: data.Splits
) -> None:
    with torch.no_grad():
        wrong = (robust(digits.test.pixels(slice(None))).argmax(1) != digits.test.labels).numpy()
    means = metrics.class_means(digits.train)
    result = metrics.saliency(robust, digits.test, means)
    assert wrong.sum() > 5 and result.deletion_gain[wrong].mean() > 0
    relabeled = metrics.saliency(robust, digits.test.with_labels(9 - digits.test.labels), means)
    assert all((np.asarray(one) == np.asarray(other)).all() for one, other in zip(result, relabeled, strict=True))


# ---- helpers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (6, 10), (7, 9), (5, 1)], ids=str)
def test_energy_of_a_single_wave_is_low_or_high(shape: tuple[int, int]) -> None:
    height, width = shape
    for down in range(-((height - 1) // 2), height // 2 + 1):
        for across in range(width // 2 + 1):
            image = wave(height, width, down, across)[None, None]
            low = math.hypot(down / height, across / width) <= 0.25
            assert metrics.low_frequency_energy(image).item() == pytest.approx(float(low), abs=1e-9), (down, across)
            shifted = image.roll(1, 2).expand(1, 3, -1, -1)  # independent of its phase, also in color
            assert metrics.low_frequency_energy(-7 * shifted).item() == pytest.approx(float(low), abs=1e-9)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9)], ids=str)
def test_low_frequency_energy_obeys_parseval(shape: tuple[int, int, int]) -> None:
    """Squared norm of an image without its high frequencies over that of the image; white noise."""
    noise = torch.randn(4000, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    down, across = torch.fft.fftfreq(shape[1]), torch.fft.fftfreq(shape[2])
    low = torch.hypot(down[:, None], across[None, :]) <= 0.25
    filtered = torch.fft.ifft2(torch.fft.fft2(noise) * low).real
    share = metrics.low_frequency_energy(noise)
    torch.testing.assert_close(share, filtered.flatten(1).square().sum(1) / noise.flatten(1).square().sum(1))
    assert metrics.white_noise_energy(shape) == low.double().mean() == pytest.approx(share.mean().item(), abs=0.01)
    torch.testing.assert_close(metrics.low_frequency_energy(noise - filtered), torch.zeros(4000, dtype=torch.float64))
    assert metrics.low_frequency_energy(torch.ones(2, *shape)).tolist() == pytest.approx([1, 1])
    assert metrics.low_frequency_energy(torch.zeros(2, *shape)).tolist() == [0, 0]


def test_class_means_are_exact_and_those_of_all_images_without_a_class(digits: data.Splits) -> None:
    part = digits.train
    images = part.pixels(slice(None)).double()
    for found, each in zip(metrics.class_means(part), range(10), strict=True):
        torch.testing.assert_close(found.double(), images[part.labels == each].mean(0), atol=1e-7, rtol=0)
    without = part.select(part.labels != 3)
    found = metrics.class_means(without)
    torch.testing.assert_close(found[3].double(), images[part.labels != 3].mean(0), atol=1e-7, rtol=0)
    torch.testing.assert_close(found[4], metrics.class_means(part)[4])
    assert metrics.class_means(part.select([])).shape == (10, 1, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("method", metrics.METHODS)
def test_saliency_is_reproducible_and_only_chance_deletion_depends_on_the_seed(
    method: str, standard: models.Model, digits: data.Splits
) -> None:
    part, means = digits.test.select(slice(0, 120)), metrics.class_means(digits.train)
    result = metrics.saliency(standard, part, means, method=method)
    for other in (metrics.saliency(standard, part, means, method=method, batch_size=size) for size in (250, 17)):
        for name, one in result._asdict().items():
            np.testing.assert_allclose(np.asarray(getattr(other, name)), np.asarray(one), atol=1e-5, err_msg=name)
    seeded = metrics.saliency(standard, part, means, method=method, seed=1)
    for name in ("gradients", "alignment", "chance_alignment", "low_frequency_energy", "deletion"):
        assert (np.asarray(getattr(seeded, name)) == np.asarray(getattr(result, name))).all()
    assert (seeded.chance_deletion != result.chance_deletion).any()
    for name in ("deletion", "chance_deletion", "low_frequency_energy"):
        assert getattr(result, name).min() >= 0 and getattr(result, name).max() <= 1


def test_the_model_stays_as_it_was(digits: data.Splits) -> None:
    model = models.build("small", shape=(1, 8, 8), classes=10, width=8).train()
    before = [value.clone() for value in model.state_dict().values()]
    part = digits.test.select(slice(0, 10))
    metrics.saliency(model, part, metrics.class_means(digits.test), method="integrated")
    assert model.training and all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, model.state_dict().values(), strict=True))


def test_other_methods_and_means_of_other_shapes_are_rejected(linear_case: tuple[Any, Dataset, Tensor]) -> None:
    model, part, means = linear_case
    with pytest.raises(InputError, match=r"^method: must be one of gradient, integrated, got 'saliency'"):
        metrics.saliency(model, part, means, method="saliency")
    for wrong in (means[:2], means[:, :1], means.mean(0)):
        with pytest.raises(InputError, match=r"^means: must be one image for each class, \(3, 3, 5, 6\), got .*class_means"):
            metrics.saliency(model, part, wrong)


def test_an_empty_data_set_is_rejected(linear_case: tuple[Any, Dataset, Tensor]) -> None:
    model, part, means = linear_case
    with pytest.raises(InputError, match="must hold images"):
        metrics.saliency(model, part.select([]), means)
