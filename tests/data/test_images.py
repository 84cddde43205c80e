"""8-bit images in memory and on disk."""

from pathlib import Path

import pytest
import torch
from data.conftest import equal, image_folder

from notbugs import data
from notbugs.data import images
from notbugs.errors import InputError


def test_8_bit_values_are_restored_exactly() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(data.to_8bit(data.from_8bit(levels)), levels)
    assert data.to_8bit(torch.tensor([-0.1, 1.2])).tolist() == [0, 255]


def test_large_data_sets_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path)
    whole = data.load(str(tmp_path))
    monkeypatch.setattr(images, "IN_MEMORY", 100)
    lazy = data.load(str(tmp_path))
    assert isinstance(lazy.train.images, data.LazyImages) and equal(lazy.train, whole.train) and equal(lazy.test, whole.test)
    assert equal(lazy.train.select([3, 1]), whole.train.select([3, 1])) and lazy.train.shape == whole.train.shape
    assert torch.equal(data.map_batches(lambda x, i: x, lazy.test, batch_size=4), data.map_batches(lambda x, i: x, whole.test))
    data.export(lazy.train, tmp_path / "again", "folder", card="")
    assert equal(data.load_part(tmp_path / "again", "folder"), whole.train)
    (tmp_path / "train/dog/1.png").write_bytes((tmp_path / "train/dog/1.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"train/dog/1.png"):
        lazy.train.images[[0, 4]]


def test_unreadable_files_of_a_large_data_set_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path)
    (tmp_path / "train/dog/1.png").write_bytes(b"")
    monkeypatch.setattr(images, "IN_MEMORY", 100)
    with pytest.raises(InputError, match=r"train/dog/1.png.*--skip-unreadable"):
        data.load(str(tmp_path))
    lazy = data.load(str(tmp_path), skip_unreadable=True)
    assert isinstance(lazy.train.images, data.LazyImages) and len(lazy.train) == 5 and len(lazy.left_out) == 1
    assert lazy.train.names == ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/2.png")
