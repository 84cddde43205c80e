"""Near duplicates: versions of a photograph are found, different digits are not; memory stays bounded."""

import numpy as np
import pytest
from datacheck.conftest import VERSIONS, joined, version
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from notbugs import data
from notbugs.data import Dataset
from notbugs.datacheck import duplicates
from notbugs.datacheck.duplicates import count_bits, count_bits_before_numpy_2, exact_groups, near_pairs
from notbugs.datacheck.fingerprints import fingerprints


def near(dataset: Dataset) -> duplicates.Pairs:
    return near_pairs(fingerprints(dataset), np.ones(len(dataset), bool))


@pytest.mark.parametrize("name", VERSIONS)
def test_a_version_of_a_photograph_is_found_and_nothing_else(name: str, photographs: Dataset) -> None:
    both = joined(photographs, photographs.with_images(version(photographs.images[:], name)))
    pairs, n = near(both), len(photographs)
    wanted = {(number, number + n) for number in range(n)}
    assert {*zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)} == wanted
    assert pairs.similarity.min() > 0.98


def test_different_photographs_are_no_near_duplicates(photographs: Dataset) -> None:
    assert not len(near(photographs).first)


def test_different_digits_of_one_class_are_no_near_duplicates() -> None:
    ones = data.load("mnist5k").train
    ones = ones.select((ones.labels == 1).nonzero().squeeze(1))
    assert len(ones) == 375 and not len(near(ones).first)


def test_images_of_almost_no_contrast_are_not_compared(photographs: Dataset) -> None:
    flat = photographs.with_images((photographs.images[:].float() / 50).byte())
    assert not len(near(joined(flat, flat)).first)


def test_each_image_keeps_its_most_similar_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.zeros((200, 64), bool)
    hashes[np.arange(200), np.arange(200) % 3] = np.arange(200) % 3 > 0
    monkeypatch.setattr(duplicates, "COLUMNS", 50)
    first, second, bounded = duplicates._candidates(hashes)
    assert (first < second).all() and np.bincount(first).max() == duplicates.CANDIDATES
    assert bounded == 200 - 1 - duplicates.CANDIDATES
    assert (hashes[second[first == 0]] == hashes[0]).all()


@given(arrays(bool, st.tuples(st.integers(0, 40), st.just(64))))
def test_candidates_are_all_pairs_within_the_limit(hashes: np.ndarray) -> None:
    first, second, _ = duplicates._candidates(hashes)
    bits = (hashes[:, None] != hashes).sum(2)
    wanted = [tuple(pair) for pair in np.argwhere(np.triu(bits <= duplicates.MAX_BITS, 1))]
    found = {*zip(first.tolist(), second.tolist(), strict=True)}
    assert found <= {*wanted} and (found == {*wanted} or len(hashes) > duplicates.CANDIDATES)


def test_frames_that_are_all_alike_do_not_become_all_pairs() -> None:
    """Of each tile at most the candidates are kept: sorting all pairs of 10,000 frames took 3 s."""
    alike = np.zeros(1000, np.uint64)
    rows, columns, bits, counts = duplicates._close(alike[: duplicates.ROWS], alike, 0)
    assert len(rows) == duplicates.ROWS * duplicates.CANDIDATES and not bits.any() and counts.tolist() == [*range(999, 935, -1)]
    assert columns[rows == 5].tolist() == [*range(6, 38)], "of equal ones the first"


@given(arrays(np.uint64, st.tuples(st.integers(1, 3), st.integers(0, 5))))
def test_bits_are_counted_with_any_numpy(numbers: np.ndarray) -> None:
    wanted = [[number.bit_count() for number in row] for row in numbers.tolist()]
    assert count_bits(numbers).tolist() == count_bits_before_numpy_2(numbers).tolist() == wanted


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1))
def test_the_first_of_each_exact_group(digests: list[bytes]) -> None:
    assert exact_groups(np.array(digests)).tolist() == [digests.index(digest) for digest in digests]
