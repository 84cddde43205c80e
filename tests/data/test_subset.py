"""Subsets: how many images, how balanced, and which."""

from itertools import pairwise

import torch
from data.conftest import equal, random_dataset
from hypothesis import given
from hypothesis import strategies as st

from notbugs.data import balanced_subset, evenly_spaced, first_per_class, random_subset
from notbugs.data.subset import balanced


@given(st.integers(0, 60), st.integers(0, 50))
def test_evenly_spaced_positions_are_different_and_about_equally_far_apart(count: int, total: int) -> None:
    positions = evenly_spaced(count, total).tolist()
    assert len(positions) == len({*positions}) == min(count, total)
    assert all(0 <= position < total for position in positions) and positions[:1] in ([], [0])
    gaps = {after - before for before, after in pairwise([*positions, total])}
    assert not gaps or max(gaps) - min(gaps) <= 1


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 45))
def test_a_balanced_subset_is_as_balanced_as_the_labels_allow(labels: list[int], count: int) -> None:
    chosen = balanced(torch.tensor(labels), count)
    assert chosen.tolist() == sorted({*chosen.tolist()}) and len(chosen) == min(count, len(labels))
    taken = torch.tensor(labels)[chosen].bincount(minlength=5).tolist()
    for label in {*labels}:
        left = labels.count(label) - taken[label]
        assert left == 0 or taken[label] >= max(taken) - 1  # no class with images left has two fewer than another


def test_balanced_and_random_subsets() -> None:
    whole = random_dataset(41).with_labels((torch.arange(41) > 30).long())
    part = balanced_subset(whole, 20)
    assert part.labels.tolist() == [0] * 10 + [1] * 10 and equal(part, whole.select(balanced(whole.labels, 20)))
    drawn = random_subset(whole, 20)
    order = torch.randperm(41, generator=torch.Generator().manual_seed(0))
    assert equal(drawn, whole.select(sorted(order[:20].tolist()))) and not equal(drawn, random_subset(whole, 20, seed=1))
    assert balanced_subset(whole, 41) is whole and random_subset(whole, 50) is whole


def test_the_first_of_each_class() -> None:
    whole = random_dataset(6, classes=("a", "b", "c", "d")).with_labels(torch.tensor([3, 0, 3, 1, 0, 1]))
    assert first_per_class(whole, 8) == [1, 3, 0] and first_per_class(whole, most=2) == [1, 3]
