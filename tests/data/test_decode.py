"""Decoding of every image format, and of files that only pretend to be images."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.conftest import image_folder, load_error, random_image, save, stored
from PIL import Image

from notbugs import data


def test_every_image_format(tmp_path: Path) -> None:
    """One color in every format: full transparency is white, 16 bits become 8, EXIF rotates, later frames are dropped."""
    red, size = (200, 40, 40), (6, 4)
    plain = Image.new("RGB", size, red)
    palette = plain.convert("P", palette=Image.Palette.ADAPTIVE)
    kinds: dict[str, tuple[Image.Image, dict[str, Any], tuple[int, ...]]] = {
        "a.png": (plain, {}, red),
        "b.bmp": (plain, {}, red),
        "c.ppm": (plain, {}, red),
        "d.tiff": (plain, {}, red),
        "e.gif": (palette, {"save_all": True, "append_images": [Image.new("P", size)]}, red),
        "f.webp": (plain, {"lossless": True}, red),
        "g.jpg": (plain, {"quality": 95}, red),
        "h.png": (Image.new("RGBA", size, (0, 0, 0, 0)), {}, (255,) * 3),
        "i.png": (Image.new("RGBA", size, (*red, 255)), {}, red),
        "j.png": (Image.new("LA", size, (7, 255)), {}, (7,) * 3),
        "k.png": (Image.fromarray(np.full((4, 6), 257 * 9, np.uint16)), {}, (9,) * 3),
        "l.png": (Image.new("1", size, 1), {}, (255,) * 3),
        "m.jpg": (Image.new("CMYK", size, (0, 0, 0, 0)), {}, (255,) * 3),
        "n.png": (Image.new("P", size), {"transparency": 0}, (255,) * 3),
    }
    for name, (image, options, _) in kinds.items():
        for label in ("x", "y"):
            save(image, tmp_path / "train" / label / name, **options)
            save(image, tmp_path / "test" / label / name, **options)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # lies on its side
    for split in ("train", "test"):
        for label in ("x", "y"):
            save(Image.new("RGB", (4, 6), red), tmp_path / split / label / "o.jpg", exif=rotated)
    loaded = data.load(str(tmp_path))
    assert loaded.train.shape == (3, 4, 6)
    for i, (name, (_, _, color)) in enumerate(kinds.items()):
        error = (stored(loaded.train)[i].int() - torch.tensor(color)[:, None, None]).abs().max()
        assert error <= (3 if name.endswith(("jpg", "gif")) else 0), name


def test_images_are_gray_until_one_has_color(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("x", "y"):
            for i in range(2):
                save(random_image(i, "L"), tmp_path / split / label / f"{i}.png")
    assert data.load(str(tmp_path)).train.shape == (1, 6, 6)
    save(random_image(1), tmp_path / "test/x/color.png")
    loaded = data.load(str(tmp_path))
    assert loaded.train.shape == (3, 6, 6)
    assert np.array_equal(stored(loaded.train)[1, 2].numpy(), np.asarray(random_image(1, "L")))


def test_resize(tmp_path: Path) -> None:
    image_folder(tmp_path)
    save(Image.new("RGB", (9, 30), (1, 2, 3)), tmp_path / "test/cat/odd.png")
    text = load_error(tmp_path)
    assert "9 x 30" in text and "odd.png" in text and "--resize" in text
    loaded = data.load(str(tmp_path), resize=5)
    assert loaded.train.shape == (3, 5, 5) and stored(loaded.test)[3, :, 2, 2].tolist() == [1, 2, 3]
    assert data.load("digits", resize=16).train.shape == (1, 16, 16)


def replaced(path: Path, make: Callable[[], None]) -> None:
    path.unlink()
    make()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def bomb(path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


UNREADABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("hello"), "no image format"),
    "truncated": (truncate, "cannot be read"),
    "corrupt": (lambda path: path.write_bytes(path.read_bytes()[:40] + b"\xff" * 60), "cannot be read"),
    "bomb": (bomb, "9000 x 9000 pixels"),
    "postscript": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\nshowpage"), "no image format"),
    "float": (lambda path: Image.new("F", (6, 6)).save(path, "TIFF"), "floating-point"),
    "link out": (lambda path: replaced(path, lambda: path.symlink_to("/etc/hostname")), "leaves the folder"),
    "linked folder": (lambda path: replaced(path, lambda: path.symlink_to("..")), "linked folder"),
    "pipe": (lambda path: replaced(path, lambda: os.mkfifo(path)), "is not a file"),
    "dangling": (lambda path: replaced(path, lambda: path.symlink_to("nowhere.png")), "does not exist"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_an_unreadable_file_is_named_or_skipped(tmp_path: Path, case: str) -> None:
    image_folder(tmp_path)
    spoil, reason = UNREADABLE[case]
    spoil(tmp_path / "train/dog/1.png")
    text = load_error(tmp_path)
    assert text.startswith("train/dog/1.png") and reason in text and "--skip-unreadable" in text
    loaded = data.load(str(tmp_path), skip_unreadable=True)
    assert len(loaded.train) == 5 and len(loaded.left_out) == 1 and loaded.left_out[0].location == "train/dog/1.png"
    assert loaded.train.names == ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/2.png") and len(loaded.test) == 6
