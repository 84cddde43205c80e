"""The data set type."""

import pytest
import torch
from data.conftest import random_dataset, stored
from hypothesis import given
from hypothesis import strategies as st

from notbugs.data import Dataset
from notbugs.errors import InputError


def test_select_keeps_images_labels_and_names_together() -> None:
    whole = random_dataset()
    for index in ([4, 1], torch.tensor([4, 1]), slice(1, 5, 3)):
        part = whole.select(index)
        kept = torch.arange(6)[index]
        assert torch.equal(stored(part), stored(whole)[kept]) and torch.equal(part.labels, whole.labels[kept])
        assert part.names == tuple(whole.names[i] for i in kept)
        assert torch.equal(whole.pixels(index), stored(part).float() / 255)


def test_a_dataset_that_does_not_fit_together_is_rejected() -> None:
    whole = random_dataset()
    for change in ({"labels": whole.labels[:5]}, {"labels": whole.labels + 1}, {"labels": whole.labels.int()}):
        with pytest.raises(InputError):
            whole.with_labels(change["labels"])
    with pytest.raises(InputError, match="to_8bit"):
        whole.with_images(stored(whole).float())


@given(st.lists(st.text(st.sampled_from("ab./2"), min_size=1), min_size=2, unique=True), st.integers(1, 3))
def test_repeated_names_are_unique(names: list[str], times: int) -> None:
    count = len(names)
    images = torch.randint(0, 256, (count, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    several = images.repeat(times, 1, 1, 1)
    repeated = Dataset(images, torch.arange(count) % 4, tuple("abcd"), tuple(names)).versions(several, times)
    assert repeated.names[:count] == tuple(names)
    assert len(set(repeated.names)) == len(repeated) == times * count
