"""Sets larger than memory: images that stay on disk, and constructed sets in files, give the same as all in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from notbugs.data import columns, header_index, images
from notbugs.data.exported import load_part
from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.row import cells
from notbugs.runs.tables.study import SetRow
from notbugs.study import pipeline
from notbugs.study.config import StudyConfig

SETS = {"folder": ("robust", "nonrobust", "robust-strong"), "npz": ("robust",)}  # by form: all kinds once


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


def split(photographs: Path, folder: Path, write: str) -> RunFolder:
    config = StudyConfig(
        str(photographs), network="small", width=4, epochs=12, batch_size=8, epsilon=0.5, invert_steps=2, adversarial_steps=1,
        flip=False, versions=2, robust_strong="robust-strong" in SETS[write], write=write,
    )  # fmt: skip
    return pipeline.run(config, folder, only=[f"dataset-{name}" for name in SETS[write]], workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("write", SETS)
def test_a_split_of_images_on_disk_is_that_of_images_in_memory(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    inside = split(photographs, tmp_path / "inside", write)
    assert not (tmp_path / "inside" / header_index.NAME).exists()
    monkeypatch.setattr(columns, "IN_MEMORY", 0)
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    outside = split(photographs, tmp_path / "outside", write)
    assert (tmp_path / "outside" / header_index.NAME).exists()
    rows = [[{**cells(row), "seconds": 0} for row in record.rows(SetRow)] for record in (inside, outside)]
    assert rows[0] == rows[1] and [row["written"] for row in rows[0]] == [True] * len(SETS[write])
    for name in SETS[write]:
        parts = [load_part(record.folder / "datasets" / name, write) for record in (inside, outside)]
        assert torch.equal(parts[0].images[:], parts[1].images[:]) and torch.equal(parts[0].labels, parts[1].labels)
        assert parts[0].names == parts[1].names and any("~2" in file for file in parts[0].names)
    one = next((photographs / "train").rglob("*.png"))
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(one)
    with pytest.raises(InputError, match=r"must hold the same images as when this run began"):
        split(photographs, tmp_path / "outside", write)
