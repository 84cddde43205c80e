"""What is kept of each image, from memory and from disk."""

from pathlib import Path

import numpy as np
import pytest
import torch

from notbugs import data
from notbugs.data import Dataset, LazyImages
from notbugs.data import images as images_module
from notbugs.datacheck import fingerprints as module
from notbugs.datacheck.duplicates import near_pairs
from notbugs.datacheck.fingerprints import fingerprints


def test_equal_pixels_have_equal_digests_and_others_differ(photographs: Dataset) -> None:
    changed = photographs.images[:].clone()
    changed[3, 0, 5, 5] ^= 1
    first, second = fingerprints(photographs), fingerprints(photographs.with_images(changed))
    assert (np.flatnonzero(first.digests != second.digests) == [3]).all()
    assert len({*first.digests.tolist()}) == len(photographs)


def test_constant_gray_and_contrast() -> None:
    images = torch.full((4, 3, 20, 24), 90, dtype=torch.uint8)
    images[1, 0] = 200  # one color, not gray
    images[2, :, :, :12] = 100  # gray
    images[3, 0, 0, 0] = 91  # almost constant
    found = fingerprints(Dataset(images, torch.zeros(4, dtype=torch.int64), ("a", "b"), tuple("wxyz")))
    assert found.constant.tolist() == [True, True, False, False]
    assert found.gray.tolist() == [True, False, True, False]
    assert found.contrast[2] == pytest.approx(5) and found.contrast[3] < 0.1


def test_batches_and_parts_change_nothing(photographs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fingerprints(photographs)
    monkeypatch.setattr(module, "BATCH_NUMBERS", 5 * 3 * 100 * 100)
    parts = fingerprints(photographs.select(slice(0, 7)), photographs.select(slice(7, None)))
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one, other)


def test_of_many_images_some_are_compared(photographs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fingerprints(photographs)
    monkeypatch.setattr(module, "COMPARED", 5)
    found = fingerprints(photographs)
    assert len(photographs) == 11 and found.compared.tolist() == [0, 2, 4, 6, 8]
    assert np.array_equal(found.hashes, whole.hashes[found.compared])
    assert np.array_equal(found.thumbnails, whole.thumbnails[found.compared])
    assert np.array_equal(found.digests, whole.digests)


def test_near_duplicates_among_those_that_are_compared(photographs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    images = photographs.images[:]
    both = torch.cat([images, images - (images > 0).to(torch.uint8)])
    monkeypatch.setattr(module, "COMPARED", 15)
    found = fingerprints(Dataset(both, torch.zeros(22, dtype=torch.int64), ("a", "b"), tuple(map(str, range(22)))))
    pairs = near_pairs(found, np.ones(22, bool))
    compared = set(found.compared.tolist())
    wanted = [(i, i + 11) for i in range(11) if {i, i + 11} <= compared]
    assert len(compared) == 15 and len(wanted) == 4
    assert sorted(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == wanted


def test_images_on_disk_are_decoded_in_batches(photographs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(photographs.names):
        data.save_image(photographs.pixels([number])[0], tmp_path / name)
    monkeypatch.setattr(images_module, "IN_MEMORY", 0)
    splits = data.load(str(tmp_path))
    assert isinstance(splits.train.images, LazyImages)
    lazy = fingerprints(splits.train)
    names = dict(zip(photographs.names, fingerprints(photographs).digests, strict=True))
    assert lazy.digests.tolist() == [names[name] for name in splits.train.names]
