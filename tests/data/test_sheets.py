"""Sheets of pictures hold every pixel, image by image."""

from pathlib import Path

import numpy as np
import pytest
import torch

from notbugs import data
from notbugs.errors import InputError


@pytest.mark.parametrize(("channels", "count"), [(1, 1), (1, 7), (3, 9), (3, 10)])
def test_a_sheet_gives_every_image_back(channels: int, count: int, tmp_path: Path) -> None:
    images = torch.randint(0, 256, (count, channels, 5, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data.save_sheet(images, tmp_path / "new" / "sheet.webp", columns=3)
    found = data.load_sheet(tmp_path / "new" / "sheet.webp", count, columns=3, height=5, width=8)
    assert np.array_equal(found, images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy())


def test_thumbnails_keep_their_shape_and_their_mean() -> None:
    images = torch.randint(0, 256, (2, 3, 100, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    small = data.thumbnails(images, 64)
    assert small.shape == (2, 3, 32, 64) and small.dtype == torch.uint8
    assert small.float().mean().item() == pytest.approx(images.float().mean().item(), abs=1)


def test_what_cannot_be_written_or_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match="must be in a folder that can be written"):
        data.save_sheet(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), tmp_path / "file" / "sheet.webp", columns=1)
    with pytest.raises(InputError, match="must be a picture that the run wrote"):
        data.load_sheet(tmp_path / "file", 1, columns=1, height=2, width=2)
