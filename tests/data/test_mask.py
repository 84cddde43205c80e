"""Masks from files: what is read, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from notbugs.data import read_mask
from notbugs.errors import InputError

SHAPE = (3, 4, 6)
LEFT = np.zeros((4, 6), np.uint8)
LEFT[:, :3] = 255


def saved(path: Path, levels: np.ndarray, mode: str | None = None) -> Path:
    Image.fromarray(levels).convert(mode).save(path) if mode else Image.fromarray(levels).save(path)
    return path


def test_white_pixels_and_ones_may_change(tmp_path: Path) -> None:
    mask = read_mask(saved(tmp_path / "gray.png", LEFT), SHAPE)
    assert mask.free.shape == (1, 4, 6) and mask.free[0, :, :3].all() and not mask.free[0, :, 3:].any()
    for number, mode in enumerate(("1", "RGB")):
        assert read_mask(saved(tmp_path / f"{number}.png", LEFT, mode), SHAPE) == mask
    for number, values in enumerate((LEFT > 0, LEFT / 255, np.repeat((LEFT > 0)[None], 3, 0), (LEFT > 0)[:, :, None])):
        np.save(tmp_path / f"{number}.npy", values)
        assert read_mask(tmp_path / f"{number}.npy", SHAPE) == mask


def test_a_mask_in_color_is_one_for_each_channel(tmp_path: Path) -> None:
    red = np.zeros((4, 6, 3), np.uint8)
    red[:, :3, 0] = 255
    mask = read_mask(saved(tmp_path / "red.png", red), SHAPE)
    assert mask.free.shape == (3, 4, 6) and mask.free[0, :, :3].all() and not mask.free[1:].any()
    with pytest.raises(InputError, match=r"6x4 pixels, and 1 channel, got .*3 channels"):
        read_mask(tmp_path / "red.png", (1, 4, 6))


def test_other_values_sizes_and_files_are_refused(tmp_path: Path) -> None:
    gray, transparent = LEFT.copy(), np.full((4, 6, 4), 255, np.uint8)
    gray[0, 0], transparent[0, 0, 3] = 128, 0
    np.save(tmp_path / "two.npy", np.full((4, 6), 2))
    np.save(tmp_path / "words.npy", np.full((4, 6), "a"))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.png").write_text("text")
    for path, says in (
        (
            saved(tmp_path / "gray.png", gray),
            "with values like 128 of 255; make what may change white, 255 of 255, in a file",
        ),
        (saved(tmp_path / "transparent.png", transparent), "without transparency"),
        (saved(tmp_path / "large.png", np.repeat(LEFT, 2, 0)), "must have the size of the images, 6x4 pixels"),
        (saved(tmp_path / "black.png", 0 * LEFT), "at least one pixel"),
        (tmp_path / "two.npy", "with values like 2"),
        (tmp_path / "words.npy", "must be an image"),
        (tmp_path / "objects.npy", "must be an image"),
        (tmp_path / "text.png", "text.png"),
        (tmp_path / "none.png", "none.png"),
    ):
        with pytest.raises(InputError, match=r"^--mask: .*" + says):
            read_mask(path, SHAPE)


def test_nothing_is_guessed_where_channels_may_be_first_or_last(tmp_path: Path) -> None:
    values = np.zeros((3, 3, 3), bool)
    values[0, 1] = True
    np.save(tmp_path / "mask.npy", values)
    with pytest.raises(InputError, match="channels first or last"):
        read_mask(tmp_path / "mask.npy", (3, 3, 3))
