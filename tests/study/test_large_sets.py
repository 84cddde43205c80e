"""Sets larger than memory: images that stay on disk, and constructed sets in files, give the same as all in memory."""

import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from notbugs import data, precision
from notbugs.construct import inversion
from notbugs.data import batches, header_index, images, shard_files
from notbugs.data.exported import load_part
from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.row import cells
from notbugs.runs.tables.study import SetRow
from notbugs.study import pipeline
from notbugs.study.config import StudyConfig

SETS = {  # by form: all kinds once
    "folder": ("robust", "nonrobust", "robust-strong"),
    "npz": ("robust",),
    "parquet": ("random-labels", "random-labels-shuffled"),
    "webdataset": ("nonrobust", "robust-strong"),
}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Files of two classes, that are easy to tell apart."""
    folder, generator = tmp_path / "photographs", np.random.default_rng(0)
    for number in range(60):
        place = folder / ("train" if number < 44 else "test") / "xy"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(60 * (number % 2), 160 + 60 * (number % 2), (12, 12, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number:02d}.png")
    return folder


def split(photographs: Path, folder: Path, write: str, only: Sequence[str] = ()) -> RunFolder:
    config = StudyConfig(
        str(photographs), network="small", width=4, epochs=12, batch_size=8, epsilon=0.5, invert_steps=2, adversarial_steps=1,
        flip=False, versions=2, robust_strong="robust-strong" in SETS[write], write=write,
    )  # fmt: skip
    return pipeline.run(config, folder, only=only or [f"dataset-{name}" for name in SETS[write]], workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("write", SETS)
def test_a_split_of_images_on_disk_is_that_of_images_in_memory(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    inside = split(photographs, tmp_path / "inside", write)
    assert not (tmp_path / "inside" / header_index.NAME).exists()
    monkeypatch.setattr(batches, "LARGE", 0)
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    monkeypatch.setattr(batches, "BLOCK_BYTES", 3000)
    linked: list[Path] = []
    link = lambda made, place: (linked.append(place), shard_files.link(made, place))  # noqa: E731
    monkeypatch.setattr(importlib.import_module("notbugs.data.export"), "link", link)
    outside = split(photographs, tmp_path / "outside", write)
    # all shards are those that were made; of D_R of several models the images are, in folders
    assert bool(linked) == (write != "npz") and all(path.suffix in (".png", ".parquet", ".tar") for path in linked)
    assert (tmp_path / "outside" / header_index.NAME).exists()
    assert not (tmp_path / "outside" / ".unfinished").exists()
    rows = [[{**cells(row), "seconds": 0} for row in record.rows(SetRow)] for record in (inside, outside)]
    assert rows[0] == rows[1] and [row["written"] for row in rows[0]] == [True] * len(SETS[write])
    for name in SETS[write]:
        parts = [load_part(record.folder / "datasets" / name, write) for record in (inside, outside)]
        assert torch.equal(parts[0].images[:], parts[1].images[:]) and torch.equal(parts[0].labels, parts[1].labels)
        assert parts[0].names == parts[1].names
        assert any("~2" in file for file in parts[0].names) != name.startswith("random-labels")
    one = next((photographs / "train").rglob("*.png"))
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(one)
    with pytest.raises(InputError, match=r"must hold the same images as when this run began"):
        split(photographs, tmp_path / "outside", write)


@pytest.mark.slow
@pytest.mark.parametrize("write", ["npz", "folder"])
def test_a_construction_that_ends_goes_on_from_its_last_batch(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    """Also in one process: of a large set an attempt can take hours."""
    expected = split(photographs, tmp_path / "expected", write, only=["dataset-robust"])
    monkeypatch.setattr(batches, "LARGE", 0)
    monkeypatch.setattr(batches, "BLOCK_BYTES", 1)
    monkeypatch.setattr(precision, "default_batch_size", lambda device, shape: 8)
    calls = list[int]()

    def ends(images: Tensor) -> Tensor:
        calls.append(len(images))
        if len(calls) == 7:
            raise InputError("--out", "must be on a disk with room")
        return data.to_8bit(images)

    monkeypatch.setattr(inversion, "to_8bit", ends)
    with pytest.raises(InputError, match="room"):
        split(photographs, tmp_path / "run", write, only=["dataset-robust"])
    shards = [*(tmp_path / "run/.unfinished").rglob("*.png-files" if write == "npz" else "*.folder")]
    assert len(shards) == 6
    record = split(photographs, tmp_path / "run", write, only=["dataset-robust"])
    assert calls == [8] * 12  # 88 images in 11 batches, one of them twice
    assert not (tmp_path / "run" / ".unfinished").exists()
    found, other = (load_part(each.folder / "datasets/robust", write) for each in (record, expected))
    assert torch.equal(found.images[:], other.images[:])
