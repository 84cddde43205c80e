"""One pixel and few pixels: exact where every candidate is tried."""

from functools import partial

import pytest
import torch
from attacks.conftest import Batch, margins_of, misclassified
from torch import Tensor

from notbugs import attacks
from notbugs.errors import InputError
from notbugs.models import Model
from notbugs.search import Mask, NormBall


@pytest.mark.slow
def test_all_candidates_for_one_pixel_find_the_worst(standard: Model, few: Batch) -> None:
    images, labels = few[0][:20], few[1][:20]
    found = attacks.few_pixels(standard, images, labels, candidates=None)
    worst = margins_of(standard, images, labels)
    wrong = worst > 0
    for position in range(64):
        for color in (0.0, 1.0):
            changed = images.flatten(1).clone()
            changed[:, position] = color
            margins = margins_of(standard, changed.reshape(images.shape), labels)
            worst = torch.where(wrong, worst, torch.maximum(worst, margins))
    assert torch.equal(found.margins >= 0, worst >= 0)  # an image is left alone once it is misclassified
    assert torch.allclose(found.margins[worst < 0], worst[worst < 0], atol=1e-4)
    ranked = attacks.few_pixels(standard, images, labels, candidates=20)
    assert misclassified(ranked) >= int((worst > 0).sum()) - 2


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("pixels", [1, 3])
def test_so_many_pixels_change_to_corners_of_the_color_cube(pixels: int, gradient: bool, standard: Model, few: Batch) -> None:
    images, labels = few
    found = attacks.few_pixels(standard, images, labels, pixels=pixels, candidates=30, gradient=gradient)
    changed = found.images != images
    assert int(changed.flatten(1).sum(1).max()) == pixels
    assert bool(((found.images == 0) | (found.images == 1))[changed].all())
    assert torch.allclose(found.margins, margins_of(standard, found.images, labels), atol=1e-4)
    more = attacks.few_pixels(standard, images, labels, pixels=pixels + 2, candidates=30, gradient=gradient)
    assert misclassified(more) >= misclassified(found)
    if gradient:
        greedy = partial(attacks.few_pixels, standard, images, labels, pixels=pixels, candidates=30, exchanges=0)
        assert misclassified(greedy()) > misclassified(greedy(gradient=False))


def test_a_pixel_counts_once_for_all_channels_and_no_gradient_is_needed() -> None:
    """Class 1 wins where one pixel is pure yellow: one pixel, three channels, and a function without gradients."""
    images = torch.full((2, 3, 4, 4), 0.5)

    def black_box(images: Tensor) -> Tensor:
        yellow = (images[:, 0] * images[:, 1] * (1 - images[:, 2])).amax((1, 2)).detach()
        return torch.stack([torch.full_like(yellow, 0.9), yellow], dim=1)

    labels = torch.zeros(2, dtype=torch.int64)
    found = attacks.few_pixels(black_box, images, labels, candidates=None, gradient=False)
    assert bool((found.margins > 0).all())
    assert NormBall("l0", 1).distance(found.images - images).tolist() == [1, 1]
    assert torch.equal(attacks.few_pixels(black_box, images, labels, pixels=0).images, images)
    with pytest.raises(InputError, match=r"^candidates: must be 1 or more, got 0$"):
        attacks.few_pixels(black_box, images, labels, candidates=0)


def of_pixels(*gains: float, pairs: dict[tuple[int, int], float]) -> Model:
    """Class 1 wins where the gains of the white pixels, and of pairs of them, are more than 2."""

    def model(images: Tensor) -> Tensor:
        flat = images.flatten(1)
        total = flat[:, : len(gains)] @ torch.tensor(gains)
        for (first, second), gain in pairs.items():
            total = total + gain * flat[:, first] * flat[:, second]
        return torch.stack([torch.full_like(total, 2.0), total], dim=1)

    return model


def test_an_exchange_mends_what_greed_began_with() -> None:
    """Pixel 0 is the best alone, 1 and 2 are the best pair."""
    model = of_pixels(1.0, 0.8, 0.8, pairs={(0, 1): -0.6, (0, 2): -0.6, (1, 2): 1.2})
    images, labels = torch.zeros((1, 1, 3, 3)), torch.zeros(1, dtype=torch.int64)
    for gradient in (True, False):
        greedy = attacks.few_pixels(model, images, labels, pixels=2, candidates=40, gradient=gradient, exchanges=0)
        assert greedy.margins.tolist() == pytest.approx([-0.8])
        found = attacks.few_pixels(model, images, labels, pixels=2, candidates=40, gradient=gradient)
        assert found.images.flatten().nonzero().flatten().tolist() == [1, 2]
        assert found.margins.tolist() == pytest.approx([0.8])


@pytest.mark.usefixtures("whole_budgets")
def test_random_starts_find_pixels_that_do_nothing_alone() -> None:
    model = of_pixels(0.6, 0.4, 0.0, 0.0, pairs={(2, 3): 3.0})
    images, labels = torch.zeros((1, 1, 2, 2)), torch.zeros(1, dtype=torch.int64)
    assert float(attacks.few_pixels(model, images, labels, pixels=2, candidates=None).margins) == pytest.approx(-1.0)
    generator = torch.Generator().manual_seed(0)
    starts = [partial(attacks.few_pixels, pixels=2, random_start=True, generator=generator)] * 16
    assert float(attacks.worst_case(model, images, labels, starts).margins) == pytest.approx(1.0)
    assert float(attacks.adaptive_ensemble(model, images, labels, threat_model=NormBall("l0", 2)).margins) == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [True, False])
def test_exchanges_and_random_starts_keep_to_the_number_of_pixels_and_to_the_mask(
    gradient: bool, standard: Model, few: Batch
) -> None:
    images, labels = few
    free = torch.zeros((1, 8, 8), dtype=torch.bool)
    free[:, 2:6, 2:] = True
    found = attacks.few_pixels(
        standard, images, labels, pixels=3, candidates=20, gradient=gradient, random_start=True, mask=Mask(free)
    )
    changed = found.images != images
    assert int(changed.flatten(1).sum(1).max()) == 3 and not bool(changed[:, ~free].any())
    assert torch.allclose(found.margins, margins_of(standard, found.images, labels), atol=1e-4)
    assert torch.equal(
        attacks.few_pixels(
            standard, images, labels, pixels=3, candidates=20, gradient=gradient, random_start=True, mask=Mask(free)
        ).images,
        found.images,
    )


@pytest.mark.slow
def test_exchanges_leave_fewer_correct_and_the_ensemble_fewer_still(robust: Model, few: Batch) -> None:
    images, labels = few
    greedy, exchanged = (
        misclassified(attacks.few_pixels(robust, images, labels, pixels=3, candidates=20, exchanges=rounds)) for rounds in (0, 10)
    )
    ensemble = misclassified(attacks.adaptive_ensemble(robust, images, labels, threat_model=NormBall("l0", 3)))
    assert greedy <= exchanged <= ensemble and greedy < ensemble
