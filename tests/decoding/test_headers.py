"""What headers say: files that only pretend to be images, and images that claim too much, are refused before they are decoded."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.conftest import encoded, image_folder, load_error, png, random_image, save, stored
from PIL import Image

from notbugs import data
from notbugs.decoding import headers
from notbugs.decoding.decode import DecodeOptions, decode
from notbugs.decoding.headers import read_header


def test_a_header_is_read_without_pixels() -> None:
    """As `_load_lazily` reads those of a data set on disk: what follows them may be damaged."""
    for form, size in (("PNG", (9, 7)), ("JPEG", (90, 70)), ("BMP", (5, 4))):
        whole = encoded(random_image(0, size=size), form)
        begin = whole[: -len(whole) // 4]
        assert read_header(begin, None)[:3] == decode(whole, DecodeOptions())[1][:3] == (3, size[1], size[0])
        with pytest.raises(OSError, match=r"(?i)truncated"):
            decode(begin, DecodeOptions())


@pytest.mark.parametrize(("white", "said"), [(65535, False), (65534, True), (256, True)])
def test_only_a_white_below_the_highest_is_said_by_the_header(white: int, said: bool) -> None:
    values = np.array([[0, 100, 200, 256]], ">u2").tobytes()
    content = b"P5 4 1 %d\n" % white + values
    assert read_header(content, None).gray_16
    assert (decode(content, DecodeOptions())[1].values is None) == said


@pytest.fixture
def few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of more than 1,000 pixels are too large, and those of more than 3,000 are so for Pillow itself."""
    monkeypatch.setattr(headers, "MAX_PIXELS", 1000)
    monkeypatch.setattr(headers, "MAX_JPEG_PIXELS", 8000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)


@pytest.mark.usefixtures("few_pixels")
@pytest.mark.parametrize("size", [(40, 30), (100, 70)])
@pytest.mark.parametrize("progressive", [False, True])
def test_large_jpeg_files_are_decoded_at_reduced_size(tmp_path: Path, size: tuple[int, int], progressive: bool) -> None:
    image_folder(tmp_path)
    large = Image.linear_gradient("L").resize(size).convert("RGB")
    save(large, tmp_path / "train/cat/0.jpg", quality=95, progressive=progressive)
    loaded = data.load(tmp_path, resize=8)
    assert loaded.notes[0] == "1 of 13 images have more than 67,108,864 pixels: they are decoded at reduced size"
    left = (size[0] - size[1]) // 2
    reference = np.asarray(large.resize((8, 8), Image.Resampling.BICUBIC, (left, 0, left + size[1], size[1])))
    assert loaded.train.names[0] == "cat/0.jpg" and loaded.train.images[0].shape == (3, 8, 8)
    assert np.abs(stored(loaded.train)[0].permute(1, 2, 0).numpy().astype(int) - reference).max() <= 6
    for options in ({}, {"resize": 28 if size[0] == 100 else 16}):  # not asked for, or larger than what is decoded
        text = load_error(tmp_path, **options)
        assert f"{size[0]} x {size[1]} pixels, more than" in text or "more than the 1,000 pixels allowed" in text


@pytest.mark.usefixtures("few_pixels")
@pytest.mark.parametrize("size", [(40, 30), (100, 70)])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_other_large_files_are_refused(tmp_path: Path, size: tuple[int, int], form: str) -> None:
    image_folder(tmp_path)
    size = size if form != "JPEG" else (100, 81)
    Image.new("RGB", size).save(tmp_path / "train/cat/0.png", form)
    text = load_error(tmp_path, resize=8)
    assert text.startswith("train/cat/0.png") and "more than the 1,000 pixels allowed; make it smaller, or JPEG" in text


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_ppm_files_whose_line_ends_were_converted_are_refused(tmp_path: Path, mode: str) -> None:
    image_folder(tmp_path)
    original = encoded(random_image(1, "L", (10, 10)).convert(mode), "PPM")
    path = tmp_path / "train/cat/0.png"
    path.write_bytes(original)
    assert len(data.load(tmp_path, resize=6).train) == 6
    path.write_bytes(original.replace(b"\n", b"\r\n"))
    assert "line ends were converted" in load_error(tmp_path, resize=6)
    path.write_bytes(original[:-1])
    assert "bytes of pixels, but 10 x 10 pixels take" in load_error(tmp_path, resize=6)


def replaced(path: Path, make: Callable[[], None]) -> None:
    path.unlink()
    make()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def bomb(path: Path) -> None:
    path.write_bytes(png(9_000, 9_000, 8, 2, b"\0" * 1000))


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


def icon(side: int, offset: int = 22) -> bytes:
    """An .ico file whose list says 16 x 16, and whose PNG says another size and then ends."""
    header = struct.pack(">II5B", side, side, 8, 6, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), (b"IDAT", b""))
    )
    picture = b"\x89PNG\r\n\x1a\n" + chunks
    entry = struct.pack("<4BHHII", 16, 16, 0, 0, 1, 32, len(picture), offset)
    return struct.pack("<HHH", 0, 1, 1) + entry + bytes(offset - 22) + picture


@pytest.mark.parametrize("offset", [22, 2**16])
def test_an_icon_is_refused_by_the_size_in_its_picture_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    (tmp_path / "large.ico").write_bytes(icon(4097, offset))
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(ValueError, match="an icon of 16,785,409 pixels, more than the 16,777,216 allowed"):
        decode(tmp_path / "large.ico", DecodeOptions())
    with pytest.raises(ValueError, match="an icon of 300 pictures, more than 256"):
        decode(icon(16)[:4] + struct.pack("<H", 300) + icon(16)[6:], DecodeOptions())
