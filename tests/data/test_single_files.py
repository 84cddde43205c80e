"""Files of arrays."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from notbugs import data
from notbugs.errors import InputError


def test_arrays_are_loaded_as_saved_and_damage_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "new" / "arrays.npz"
    data.save_arrays({"labels": np.arange(3), "images": np.ones((2, 2))}, path)
    loaded = data.load_arrays(path)
    assert list(loaded) == ["labels", "images"] and loaded["labels"].tolist() == [0, 1, 2] and loaded["images"].sum() == 4
    assert os.listdir(path.parent) == ["arrays.npz"]
    path.write_bytes(path.read_bytes()[:50])
    for damaged in (path, tmp_path / "missing.npz"):
        with pytest.raises(InputError, match=r"\.npz: cannot be read as what the run wrote, got "):
            data.load_arrays(damaged)


@pytest.mark.parametrize(
    ("at", "value"), [(6, 1), (8, 99), (8, 8)], ids=["encrypted", "unknown compression", "not compressed after all"]
)
def test_an_archive_whose_headers_somebody_changed_is_one_error(at: int, value: int, tmp_path: Path) -> None:
    data.save_arrays({"labels": np.arange(3)}, tmp_path / "arrays.npz")
    content = bytearray((tmp_path / "arrays.npz").read_bytes())
    for header, shift in ((content.index(b"PK\x03\x04"), 0), (content.index(b"PK\x01\x02"), 2)):
        content[header + shift + at] = value
    (tmp_path / "arrays.npz").write_bytes(content)
    with pytest.raises(
        InputError, match=r"^[^\n]*arrays\.npz: (cannot be read as what the run wrote|must be packed by deflate), got [^\n]+$"
    ):
        data.load_arrays(tmp_path / "arrays.npz")


def test_pictures_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop in the middle, or a power cut, would leave half a picture under its name."""
    before = []
    monkeypatch.setattr(os, "fsync", lambda number: before.append(os.listdir(tmp_path)))
    data.save_image(torch.zeros(1, 4, 4), tmp_path / "a.png")
    data.save_sheet(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), tmp_path / "b.webp", columns=1)
    first, second = before
    assert "a.png" not in first and "b.webp" not in second and "a.png" in second
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.webp"]
