"""D_R and D_NR: starts, convergence, preconditioner and metric in closed form, versions."""

import pytest
import torch
from construct.conftest import assert_norms, assert_same_files, pixels, random_dataset
from scipy import stats
from torch import Tensor

from notbugs import construct, models, search
from notbugs.construct import base
from notbugs.construct.base import perturbation_norms
from notbugs.data import Dataset, from_8bit
from notbugs.errors import InputError


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 50])
def test_the_start_is_another_image_and_each_is_used_once(n: int, standard: models.Model) -> None:
    part = random_dataset(n, (1, 8, 8))
    for seed in range(5):
        starts = construct.invert_features(standard, part, steps=0, seed=seed, batch_size=20).dataset.images[:]
        matches = (starts.flatten(1)[:, None] == part.images[:].flatten(1)[None]).all(2)
        assert matches.sum(0).tolist() == matches.sum(1).tolist() == [1] * n
        assert not matches.diagonal().any()


def test_norms_are_the_same_whatever_is_computed_at_a_time(part: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    images, sizes = 255 - part.images[:], list[int]()
    expected = perturbation_norms(part, images)
    monkeypatch.setattr(base, "AT_ONCE", 7 * 64)
    monkeypatch.setattr(base, "from_8bit", lambda pixels: sizes.append(len(pixels)) or from_8bit(pixels))
    assert perturbation_norms(part, images) == expected and max(sizes) == 7  # large images: few at a time


def test_the_start_can_be_chosen_for_each_image(standard: models.Model, robust: models.Model, part: Dataset) -> None:
    chosen = torch.cat([torch.arange(len(part)).roll(1), torch.arange(len(part)).roll(2)])
    made = construct.invert_features(standard, part, start=chosen, steps=0, versions=2, batch_size=20).dataset
    assert torch.equal(made.images[:], part.images[:][chosen])
    several = construct.invert_features([standard, robust], part, start=chosen, steps=0, versions=2).dataset
    assert torch.equal(several.images[:], made.images[:])


@pytest.mark.parametrize(
    ("start", "got"),
    [
        (torch.arange(3), r"start: must have an index \(int64\) for each of 50 images, got \(3,\) of torch.int64"),
        (torch.arange(50).float(), r"start: must have an index \(int64\) for each of 50 images, got \(50,\) of torch.float32"),
        (torch.arange(50) + 1, r"start: must have indices from 0 to 49, got 1 to 50"),
        (torch.arange(50) - 1, r"start: must have indices from 0 to 49, got -1 to 48"),
        (
            torch.arange(50).roll(1).index_fill(0, torch.tensor([7]), 7),
            r"start: must be another image for each image, got image 7 for itself",
        ),
    ],
)
def test_an_index_of_starts_must_fit(start: torch.Tensor, got: str, standard: models.Model, part: Dataset) -> None:
    with pytest.raises(InputError, match=f"^{got}$"):
        construct.invert_features(standard, part.select(slice(0, 50)), start=start)


def test_the_start_can_be_noise(standard: models.Model, part: Dataset) -> None:
    starts = construct.invert_features(standard, part, start="noise", steps=0, batch_size=50).dataset.images[:]
    assert stats.kstest((starts.flatten() + torch.rand(starts.numel())) / 256, "uniform").pvalue > 0.001
    assert len({image.numpy().tobytes() for image in starts}) == len(part)
    smaller = construct.invert_features(standard, part, start="noise", steps=0, batch_size=7).dataset.images[:]
    assert torch.equal(starts, smaller)  # seeded by the image: whoever computes which batch
    other = construct.invert_features(standard, part, start="noise", steps=0, batch_size=50, seed=1).dataset.images[:]
    assert not (starts == other).flatten(1).all(1).any()


@pytest.mark.slow
@pytest.mark.parametrize("start", ["image", "noise"])
@pytest.mark.parametrize("which", ["standard", "robust"])
def test_inverted_images_have_the_features_of_the_given_ones(
    start: str, which: str, request: pytest.FixtureRequest, part: Dataset
) -> None:
    model = request.getfixturevalue(which)
    made = construct.invert_features(model, part, start=start, steps=40, batch_size=50)
    assert_same_files(made, part)
    assert_norms(made, part)
    assert torch.equal(made.dataset.labels, part.labels)
    wanted, found = model.features(pixels(part)), model.features(pixels(made.dataset))
    error = float(((found - wanted).norm(dim=1) / wanted.norm(dim=1)).mean())
    assert made.stats.feature_error == pytest.approx(error, rel=1e-3)
    assert (made.stats.steps, made.stats.relabeled, made.stats.target_reached) == (40, 0, None)
    before = construct.invert_features(model, part, start=start, steps=0, batch_size=50).stats.feature_error
    rule = construct.paper_update_rule()
    paper = construct.invert_features(model, part, start=start, steps=40, rule=rule, batch_size=50).stats.feature_error
    assert before is not None and paper is not None
    assert error < paper < before
    assert error < 0.2 * before


def test_an_inversion_that_diverges_keeps_its_start_and_never_the_solution(standard: models.Model, part: Dataset) -> None:
    """NaN falls back to the start: falling back to the image itself would be a perfect, and worthless, match."""

    def broken(step: search.StepState, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return step.images * torch.nan, state

    made = construct.invert_features(standard, part, steps=3, rule=broken)
    starts = construct.invert_features(standard, part, steps=0)
    assert torch.equal(made.dataset.images[:], starts.dataset.images[:])


def test_the_root_of_the_covariance_in_closed_form() -> None:
    """Two channels of white noise, blurred around the edges and mixed: at every frequency |blur| times the root of M Mᵀ."""
    generator = torch.Generator().manual_seed(0)
    height, width, mix = 6, 8, torch.tensor([[2.0, 0.5], [1.0, 1.0]])
    blur = torch.fft.rfft2(torch.rand(height, width, generator=generator) / 10 + torch.eye(height, width))

    def colored(white: Tensor) -> Tensor:
        return torch.einsum("nchw,cd->ndhw", torch.fft.irfft2(torch.fft.rfft2(white) * blur, s=(height, width)), mix.T)

    root_map = construct.spectral_covariance_sqrt(0.5 + colored(torch.randn(20_000, 2, height, width, generator=generator)))
    values, axes = torch.linalg.eigh(mix @ mix.T)
    root = (axes * values.sqrt() @ axes.T).cfloat()
    gradient = torch.randn(5, 2, height, width, generator=generator)
    exact = torch.fft.irfft2(torch.einsum("nchw,cd->ndhw", torch.fft.rfft2(gradient) * blur.abs(), root), s=(height, width))
    found = root_map(gradient)
    assert torch.stack([found.flatten(), exact.flatten()]).corrcoef()[0, 1] > 0.999
    other = torch.randn(5, 2, height, width, generator=generator)
    assert torch.allclose((found * other).sum(), (gradient * root_map(other)).sum(), rtol=1e-4, atol=1e-4)  # symmetric
    assert (found * gradient).flatten(1).sum(1).min() > 0  # positive definite


@pytest.mark.parametrize("images", [torch.zeros(3, 1, 8, 8), torch.rand(1, 3, 9, 5)], ids=["all equal", "only one"])
def test_images_without_variance_give_the_identity(images: Tensor) -> None:
    gradient = torch.randn(2, *images.shape[1:])
    result = construct.spectral_covariance_sqrt(images)(gradient)
    assert torch.allclose(result, result.norm() / gradient.norm() * gradient, atol=1e-5)


def test_the_metric_whitens_the_response_of_the_features() -> None:
    """Four features A x, the first a hundred times as strong: C = A Aᵀ, so the metric is (A Aᵀ / mean + 1)^(−1/2)."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 64, generator=generator) * torch.tensor([100.0, 1, 1, 1])[:, None]
    images = torch.rand(40, 1, 8, 8, generator=generator)
    found = construct.whitened_metric(lambda images: images.flatten(1) @ matrix.T, images.repeat(50, 1, 1, 1))
    assert found is not None
    exact = (matrix @ matrix.T).double()
    values, vectors = torch.linalg.eigh(exact / exact.trace() * 4)
    assert torch.allclose(found.double(), vectors * (values + 1).rsqrt() @ vectors.T, atol=0.03)
    assert found[0, 0] < 0.55 < 0.97 < found[1, 1]


def test_constant_features_have_the_plain_metric() -> None:
    metric = construct.whitened_metric(lambda images: torch.zeros(len(images), 3), torch.rand(2, 1, 8, 8))
    assert metric is not None
    assert torch.equal(metric, torch.eye(3))


@pytest.mark.slow
def test_sixty_steps_come_closer_than_hundreds_of_the_papers(standard: models.Model, part: Dataset) -> None:
    ours = construct.invert_features(standard, part, steps=60).stats.feature_error
    paper = construct.invert_features(standard, part, steps=400, rule=construct.paper_update_rule()).stats.feature_error
    assert ours is not None and paper is not None
    assert ours < paper


def test_versions_of_one_image_have_different_starts(standard: models.Model, part: Dataset) -> None:
    once = construct.invert_features(standard, part, steps=0, seed=3).dataset
    made = construct.invert_features(standard, part, steps=0, seed=3, versions=3)
    versions = made.dataset.images[:].reshape(3, len(part), -1)
    assert torch.equal(versions[0], once.images[:].flatten(1))
    index_of = {image.numpy().tobytes(): number for number, image in enumerate(part.images[:])}
    starts = torch.tensor([[index_of[image.numpy().tobytes()] for image in version] for version in versions])
    assert all(sorted(version.tolist()) == list(range(len(part))) for version in starts)
    assert not (starts == torch.arange(len(part))).any()
    assert all((starts[one] == starts[other]).sum() < 10 for one, other in ((0, 1), (0, 2), (1, 2)))
    assert torch.equal(made.dataset.labels, part.labels.repeat(3))
    stem = part.names[5].removesuffix(".png")
    assert made.dataset.names[5 :: len(part)] == (f"{stem}.png", f"{stem}~2.png", f"{stem}~3.png")
    assert_norms(made, part.select(torch.arange(len(part)).repeat(3)))


def test_versions_have_the_features_of_several_models_in_turn(
    standard: models.Model, robust: models.Model, part: Dataset
) -> None:
    few = part.select(slice(0, 12))
    made = construct.invert_features([standard, robust], few, steps=6, seed=3, versions=3)
    alone = [construct.invert_features(model, few, steps=6, seed=3 + k) for k, model in enumerate((standard, robust, standard))]
    assert torch.equal(made.dataset.images[:], torch.cat([each.dataset.images[:] for each in alone]))
    assert made.dataset.names == few.repeated_names(3) and torch.equal(made.dataset.labels, few.labels.repeat(3))
    assert made.stats.n == 36 and made.stats.max_linf == max(each.stats.max_linf or 0 for each in alone)
    errors = [each.stats.feature_error or 0 for each in alone]
    assert made.stats.feature_error == pytest.approx(sum(errors) / 3)
    with pytest.raises(InputError, match=r"^model: must be one model, or at most as many as versions, got 2$"):
        construct.invert_features([standard, robust], few, steps=6)


def test_versions_with_the_name_of_another_file_are_rejected(standard: models.Model, part: Dataset) -> None:
    two = Dataset(part.images[:2], part.labels[:2], part.classes, ("cat.png", "cat~2.png"))
    with pytest.raises(InputError, match=r"^versions: need file names that are not taken, got files called NAME~2; rename them$"):
        construct.invert_features(standard, two, steps=0, versions=2)
    with pytest.raises(InputError, match=r"^versions: must be 1 or more, got 0$"):
        construct.invert_features(standard, part, versions=0)


def test_an_unknown_start_is_rejected(standard: models.Model, part: Dataset) -> None:
    with pytest.raises(InputError, match=r"^start: must be image, noise, or an index of images, got 'zeros'$"):
        construct.invert_features(standard, part, start="zeros")
