"""Crops of photographs in the format of another data set."""

import numpy as np
import pytest
import torch
from data.conftest import stored

from notbugs import data
from notbugs.data import Dataset
from notbugs.errors import InputError


def like(shape: tuple[int, int, int]) -> Dataset:
    return Dataset(torch.zeros(2, *shape, dtype=torch.uint8), torch.tensor([0, 1]), tuple("abcd"), ("0.png", "1.png"))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 12, 20), (3, 600, 5)], ids=str)
def test_crops_have_the_format_of_the_data_set_and_differ_by_seed(shape: tuple[int, int, int]) -> None:
    target = like(shape)
    one, two, other = (data.photo_crops(9, target, seed=seed) for seed in (0, 0, 1))
    assert one.shape == shape and one.classes == target.classes and len(one) == 9
    assert one.labels.tolist() == [0] * 9 and len({*one.names}) == 9
    assert torch.equal(one.images[:], two.images[:]) and not torch.equal(one.images[:], other.images[:])
    assert len(one.images[:].flatten(1).unique(dim=0)) == 9
    assert torch.equal(data.photo_crops(4, target).images[:], one.images[:4])


def test_a_crop_at_full_size_is_a_piece_of_the_photograph() -> None:
    """As large as the photograph is high: nothing is resized, so that every crop can be found in it."""
    from sklearn.datasets import load_sample_images

    crops = data.photo_crops(2, like((3, 427, 427)))
    for number, source in enumerate(load_sample_images().images):
        whole = torch.from_numpy(np.array(source)).permute(2, 0, 1)
        assert any(torch.equal(crops.images[number], whole[:, :, left : left + 427]) for left in range(640 - 427 + 1))


def test_gray_crops_are_the_mean_of_the_colors() -> None:
    gray, color = (data.photo_crops(6, like((channels, 16, 16))) for channels in (1, 3))
    assert float((stored(gray).float()[:, 0] - stored(color).float().mean(1)).abs().max()) <= 1.01


def test_no_crops_at_all_are_rejected() -> None:
    with pytest.raises(InputError, match=r"^count: must be 1 or more, got 0$"):
        data.photo_crops(0, like((1, 8, 8)))
