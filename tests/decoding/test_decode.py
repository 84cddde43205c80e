"""Decoding of every image format."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.conftest import encoded, image_folder, load_error, png, random_image, save, stored
from PIL import Image

from notbugs import data
from notbugs.decoding import decode as decoding
from notbugs.decoding import headers
from notbugs.decoding.decode import DecodeOptions, decode
from notbugs.decoding.memory import Memory


def pixels(image: bytes, **options: Any) -> np.ndarray:
    return decode(image, DecodeOptions(**options))[0]


def notes(root: Path, **options: Any) -> str:
    return " | ".join(data.load(root, **options).notes)


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
    turned, animated, transparent, *_ = loaded.notes
    assert turned == "4 of 60 images are rotated or mirrored, as the orientation that their camera wrote says"
    assert animated == "4 of 60 images have further frames or pages: only the first is used"
    assert transparent == "16 of 60 images have an alpha channel or a transparent color, which is laid on white"
    assert "4 of 60 images are CMYK, and become RGB without their color profile" in loaded.notes
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


@pytest.mark.parametrize("side", [4, 8])
def test_how_images_that_are_not_square_are_resized(side: int) -> None:
    """Square images are the same in each mode. Crop does what torchvision, timm and fastai do: resize, then cut."""
    square, wide, tall = (random_image(1, size=size) for size in ((8, 8), (20, 8), (8, 20)))
    bicubic = Image.Resampling.BICUBIC
    for mode in ("crop", "squash", "pad"):
        assert np.array_equal(pixels(encoded(square, "PNG"), resize=side, resize_mode=mode), square.resize((side, side), bicubic))
    for image in (wide, tall):
        file = encoded(image, "PNG")
        assert np.array_equal(pixels(file, resize=side, resize_mode="squash"), image.resize((side, side), bicubic))
        shorter = image.resize((image.width * side // 8, image.height * side // 8), bicubic)
        left, top = (shorter.width - side) // 2, (shorter.height - side) // 2
        assert np.array_equal(pixels(file, resize=side), shorter.crop((left, top, left + side, top + side)))
        padded = pixels(file, resize=side, resize_mode="pad")
        inner = round(8 * side / 20)
        inside = slice((side - inner) // 2, (side - inner) // 2 + inner)
        strip = padded[inside] if image is wide else padded[:, inside]
        assert np.array_equal(strip, image.resize(strip.shape[1::-1], bicubic)) and strip.sum() == padded.sum()


def test_notes_say_what_resizing_did(tmp_path: Path) -> None:
    image_folder(tmp_path)
    assert notes(tmp_path, resize=4) == "resized to 4x4, from 6x6" and notes(tmp_path, resize=6) == ""
    rotated = Image.Exif()
    rotated[0x0112] = 6
    for name in ("cat/a.jpg", "dog/b.jpg"):
        save(random_image(1, size=(10, 20)), tmp_path / "train" / name, exif=rotated)
    rotated_note = "2 of 14 images are rotated or mirrored, as the orientation that their camera wrote says"
    what = (
        f"{rotated_note} | resized to 4x4: the shorter side to 4, then the center: 2 of 14 images are not square, "
        "on average 50% of each is cut off"
    )
    assert notes(tmp_path, resize=4) == f"{what} (--resize-mode squash or pad keeps it)"
    assert notes(tmp_path, resize=4, resize_mode="squash").endswith("2 of 14 images are not square, their proportions change")
    assert "they have black borders, on average 50% of each" in notes(tmp_path, resize=4, resize_mode="pad")
    padded = stored(data.load(tmp_path, resize=4, resize_mode="pad").train)[3]
    assert padded[:, 0].sum() == padded[:, 3].sum() == 0 and padded[:, 1:3].min() > 0  # 20 wide once it is rotated
    for mode in ("pad", "squash"):
        assert "needs --resize" in load_error(tmp_path, resize_mode=mode)
    assert "must be one of crop, squash, pad" in load_error(tmp_path, resize=4, resize_mode="stretch")


def deep_images(root: Path, highest: int, lowest: int = 0, form: str = "png") -> Path:
    """16-bit gray images; the first training image has the highest value."""
    for split in ("train", "test"):
        for j, label in enumerate("xy"):
            for k in range(2):
                values = np.full((4, 4), lowest + (highest - lowest) // 2, np.uint16)
                values[0] = lowest, lowest, lowest, highest if (split, j, k) == ("train", 0, 0) else lowest
                save(Image.fromarray(values), root / split / label / f"{k}.{form}")
    return root


@pytest.mark.parametrize("form", ["png", "tiff", "pgm"])
def test_16_bit_images_that_are_nearly_black_are_said_and_white_repairs_them(tmp_path: Path, form: str) -> None:
    deep_images(tmp_path, 4095, form=form)
    dark = data.load(tmp_path)
    what = "16-bit images use only values up to 4,095 of 65,535 and are nearly black: pass --white 4095"
    assert dark.notes == (what,) and stored(dark.train).max() == 16
    assert data.load(tmp_path, white=4095).notes == () and stored(data.load(tmp_path, white=4095).train).max() == 255
    clipped = data.load(tmp_path, white=3000)
    assert clipped.notes == ("1 of 8 16-bit images have values above 3,000, which are white as well",)
    assert stored(clipped.train)[0, 0, 0].tolist() == [0, 0, 0, 255] and stored(clipped.train)[1, 0, 1, 0] == round(
        2047 / 3000 * 255
    )
    assert "up to 4,095 of 60,000" in notes(tmp_path, white=60000)


def test_16_bit_images_with_few_values(tmp_path: Path) -> None:
    assert "use only values from 30,000 to 30,100 of 65,535 and are nearly constant" in notes(
        deep_images(tmp_path / "a", 30100, 30000)
    )
    assert "16-bit images are black" in notes(deep_images(tmp_path / "b", 0))
    assert notes(deep_images(tmp_path / "c", 60000)) == ""


@pytest.mark.parametrize("highest", [1, 16])
@pytest.mark.parametrize("form", ["png", "npz", "color"])
def test_8_bit_images_that_are_nearly_black_are_said_and_white_repairs_them(tmp_path: Path, highest: int, form: str) -> None:
    images = np.arange(8 * 4 * 4, dtype=np.uint8).reshape(8, 4, 4) % (highest + 1)
    path = tmp_path / "a.npz" if form == "npz" else tmp_path
    if form == "npz":
        np.savez(path, images=images, labels=np.arange(8) % 2)
    for number, image in enumerate(images if form != "npz" else ()):
        image = np.stack([image] * 3, 2) if form == "color" else image
        save(Image.fromarray(image), tmp_path / "xy"[number % 2] / f"{number}.png")
    what = f"8-bit images use only values up to {highest} of 255 and are nearly black: pass --white {highest}"
    assert notes(path).endswith(what) and notes(path, resize=8).endswith(what)
    bright = data.load(path, white=highest)
    assert stored(bright.train).max() == 255 and stored(bright.train).min() == 0 and len(bright.notes) <= 2
    assert "8 of 8 8-bit images have values above 1, which are white as well" in notes(path, white=1) or highest == 1


def test_white_where_it_means_nothing(tmp_path: Path) -> None:
    image_folder(tmp_path)
    for dataset in (str(tmp_path), "digits"):
        assert data.load(dataset, white=4095).notes[-1] == "--white has no effect: no image has 16-bit gray values"
    assert len(data.load(tmp_path, white=4095).notes) == 1
    assert "at most 65535" in load_error(tmp_path, white=65536) and "at least 1" in load_error(tmp_path, white=0)


def test_color_of_16_bits_loses_8(tmp_path: Path) -> None:
    """Pillow keeps the upper 8 bits of PNG and TIFF files, and scales those of PPM files."""
    image_folder(tmp_path)
    color = struct.pack(">3H", 0x1234, 0x0FFF, 0xFFFF)
    (tmp_path / "train/cat/0.png").write_bytes(png(6, 6, 16, 2, (b"\0" + color * 6) * 6))
    (tmp_path / "train/cat/1.png").write_bytes(b"P6 6 6 65535\n" + color * 36)
    loaded = data.load(tmp_path, white=4095)
    assert stored(loaded.train)[0, :, 3, 3].tolist() == [0x12, 0x0F, 255]
    assert stored(loaded.train)[1, :, 3, 3].tolist() == [0x12, 0x10, 255]
    what = "2 images have color or transparency of 16 bits, of which 8 are read"
    assert loaded.notes[0] == f"{what}, --white does not change them" and data.load(tmp_path).notes == (what,)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_file_in_which_0_is_white(dtype: type) -> None:
    levels = np.array([[0, 64, 255]] * 2).astype(dtype) * (257 if dtype is np.uint16 else 1)
    content = encoded(Image.fromarray(levels), "TIFF")
    entry = struct.pack("<HHI", headers.PHOTOMETRIC, 3, 1)
    assert pixels(content.replace(entry + b"\x01", entry + b"\x00"))[0].tolist() == [255, 191, 0]
    assert pixels(content)[0].tolist() == [0, 64, 255]


def test_a_transparent_value_of_16_bit_gray_is_laid_on_white() -> None:
    values = np.array([[0, 4112, 8224, 4112]] * 4, np.uint16)
    array, facts = decode(encoded(Image.fromarray(values), "PNG", transparency=4112), DecodeOptions())
    assert array[0].tolist() == [0, 255, 32, 255]
    assert (facts.transparent, facts.values) == (True, (0, 8224))
    empty = decode(encoded(Image.fromarray(values[:, 1:2]), "PNG", transparency=4112), DecodeOptions())[1]
    assert empty.values is None


def test_a_pgm_file_says_itself_which_value_is_white(tmp_path: Path) -> None:
    image_folder(tmp_path)
    values = np.array([0, 1000, 2000, 4095] * 9, ">u2").tobytes()
    (tmp_path / "train/cat/0.png").write_bytes(b"P5 6 6 4095\n" + values)
    loaded = data.load(tmp_path)
    assert stored(loaded.train)[0, 0, 0, :4].tolist() == [0, 62, 125, 255]
    assert loaded.notes == ("1 of 12 images are gray, and become RGB like the others",)
    loaded = data.load(tmp_path, white=2000)
    assert (
        stored(loaded.train)[0, 0, 0, :4].tolist() == [0, 128, 255, 255] and "1 of 1 16-bit images have values" in loaded.notes[1]
    )


def test_the_camera_orientation_comes_before_resizing() -> None:
    rotated = Image.Exif()
    rotated[0x0112] = 6
    image = random_image(3, size=(30, 12))
    turned = image.transpose(Image.Transpose.ROTATE_270)
    for form in ("PNG", "WEBP"):
        lossless = {"lossless": True} if form == "WEBP" else {}
        for mode in ("crop", "squash", "pad"):
            found = pixels(encoded(image, form, exif=rotated, **lossless), resize=7, resize_mode=mode)
            assert np.array_equal(found, pixels(encoded(turned, "PNG"), resize=7, resize_mode=mode))


def test_worker_processes_leave_what_takes_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they take is not counted in this process."""
    file, options = encoded(random_image(0, size=(64, 32)), "JPEG"), DecodeOptions(resize=4)
    assert np.array_equal(decoding.decode_in_process(file, options)[0], decode(file, options)[0])
    monkeypatch.setattr(headers, "MAX_PIXELS", 32 * 16)
    assert decode(file, options)[1].reduced
    with pytest.raises(ValueError, match="too much memory"):
        decoding.decode_in_process(file, options)
    monkeypatch.undo()
    monkeypatch.setattr(decoding, "MOST_IN_PROCESS", 20 * 64 * 32 - 1)
    assert np.array_equal(decoding.decode_in_process(file, options)[0], decode(file, options)[0])
    with pytest.raises(ValueError, match="too much memory"):
        decoding.decode_in_process(encoded(random_image(0, size=(64, 32)), "PNG"), options)


@pytest.mark.parametrize(
    ("form", "options", "per_pixel"),
    [("JPEG", {}, 8), ("JPEG", {"progressive": True}, 10), ("PNG", {}, 20), ("WEBP", {}, 20)],
)
def test_memory_is_taken_by_the_size_that_an_image_claims(
    monkeypatch: pytest.MonkeyPatch, form: str, options: dict[str, Any], per_pixel: int
) -> None:
    taken: list[int] = []

    class Recorded(Memory):
        @contextmanager
        def taken(self, needed: int) -> Iterator[None]:
            taken.append(needed)
            yield

    monkeypatch.setattr(decoding, "MEMORY", Recorded(0))
    image = encoded(random_image(0, size=(64, 32)), form, **options)
    decode(image, DecodeOptions(resize=4))
    assert not taken  # small ones do not wait for each other
    monkeypatch.setattr(decoding, "LIGHT", 0)
    decode(image, DecodeOptions(resize=4))
    decode(image, DecodeOptions())
    assert taken == [64 * 32 * per_pixel, 64 * 32 * max(per_pixel, 10)]


@pytest.mark.parametrize("bitmap_format", ["png", "bmp"])
def test_icons_are_decoded(bitmap_format: str) -> None:
    image = random_image(0, size=(32, 32)).convert("RGBA")
    assert np.array_equal(pixels(encoded(image, "ICO", bitmap_format=bitmap_format)), np.asarray(image.convert("RGB")))
