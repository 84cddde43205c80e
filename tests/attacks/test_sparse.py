"""One pixel and few pixels: exact where every candidate is tried."""

import pytest
import torch
from attacks.conftest import Batch, margins_of, misclassified
from torch import Tensor

from notbugs import attacks
from notbugs.errors import InputError
from notbugs.models import Model
from notbugs.search import NormBall


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
        random = attacks.few_pixels(standard, images, labels, pixels=pixels, candidates=30, gradient=False)
        assert misclassified(found) > misclassified(random)


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
