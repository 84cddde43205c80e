"""Reading, writing and sweeping labelled images: on real files, good ones and every kind of bad one."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from notbugs import data
from notbugs.data import load
from notbugs.data.names import deduplicate
from notbugs.errors import InputError

torch.set_num_threads(1)
FORMS = ("folder", "npz", "npz-channels-first", "parquet", "saved")


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (6, 6)) -> Image.Image:
    shape = (size[1], size[0]) + ((3,) if mode == "RGB" else ())
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def save(image: Image.Image, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def folder(
    root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 3, parts: tuple[str, ...] = ("train", "test")
) -> Path:
    for i, part in enumerate(parts):
        for j, name in enumerate(classes):
            for k in range(each):
                save(picture(100 * i + 10 * j + k), root / part / name / f"{k}.png")
    return root


def made(n: int = 6, channels: int = 3, classes: tuple[str, ...] = ("a", "b")) -> data.Dataset:
    images = torch.randint(0, 256, (n, channels, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    labels = torch.arange(n) % len(classes)
    return data.Dataset(images, labels, classes, tuple(f"{classes[i % len(classes)]}/{i}.png" for i in range(n)))


def bits(dataset: data.Dataset) -> torch.Tensor:
    return dataset.images[:]


def same(one: data.Dataset, other: data.Dataset) -> bool:
    pixels = torch.equal(bits(one), bits(other))
    return pixels and torch.equal(one.labels, other.labels) and one.classes == other.classes and one.names == other.names


def line(source: object, **options: Any) -> str:
    """The one line that a bad source is answered with."""
    with pytest.raises(InputError) as caught:
        data.load(str(source), **options)
    text = str(caught.value)
    assert "\n" not in text and "Traceback" not in text and len(text) < 500
    return text


# the type


def test_digits_are_split_once_for_all() -> None:
    one, other = data.load("digits"), data.load("digits", seed=5)
    assert one.train.shape == (1, 8, 8) and len(one.train) + len(one.test) == 1797 and one.form == "folder"
    assert same(one.train, other.train) and not set(one.train.names) & set(one.test.names)
    assert bits(one.train).max() == 255 and one.train.names[0] == "00000.png"
    shares = one.test.labels.bincount() / (one.test.labels.bincount() + one.train.labels.bincount())
    assert (shares - 0.25).abs().max() < 0.01


def test_8_bits_come_back_exactly() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(data.to_8bit(data.from_8bit(levels)), levels)
    assert data.to_8bit(torch.tensor([-0.1, 1.2])).tolist() == [0, 255]


def test_take_keeps_images_labels_and_names_together() -> None:
    whole = made()
    for index in ([4, 1], torch.tensor([4, 1]), slice(1, 5, 3)):
        part = whole.select(index)
        kept = torch.arange(6)[index]
        assert torch.equal(bits(part), bits(whole)[kept]) and torch.equal(part.labels, whole.labels[kept])
        assert part.names == tuple(whole.names[i] for i in kept)
        assert torch.equal(whole.pixels(index), bits(part).float() / 255)


def test_a_dataset_that_does_not_fit_together_is_refused() -> None:
    whole = made()
    for change in ({"labels": whole.labels[:5]}, {"labels": whole.labels + 1}, {"labels": whole.labels.int()}):
        with pytest.raises(InputError):
            whole.with_labels(change["labels"])
    with pytest.raises(InputError, match="to_8bit"):
        whole.with_images(bits(whole).float())


def test_sweep_is_the_function_of_everything_at_once() -> None:
    whole = made(7)
    pixels, index = data.map_batches(lambda images, index: (images.mean((1, 2, 3)), index), whole, batch_size=3)
    assert torch.allclose(pixels, whole.pixels(slice(None)).mean((1, 2, 3))) and index.tolist() == list(range(7))
    values = torch.randn(5, 2, requires_grad=True)
    twice = data.map_batches(lambda images, index: images * 2, values, batch_size=2)
    assert torch.equal(twice, values.detach() * 2) and not twice.requires_grad
    assert data.map_batches(lambda images, index: images.flatten(1), whole.select([])).shape == (0, 60)


# what is read


def test_a_folder_with_both_parts(tmp_path: Path) -> None:
    found = data.load(str(folder(tmp_path)))
    assert found.train.classes == ("cat", "dog") and found.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.train.names[4] == "dog/1.png" and found.note == "" and found.form == "folder" and found.skipped == ()
    assert np.array_equal(bits(found.test)[3].permute(1, 2, 0).numpy(), np.asarray(picture(110)))


@pytest.mark.parametrize("part", ["val", "validation"])
def test_validation_stands_in_for_a_missing_test_part(tmp_path: Path, part: str) -> None:
    assert len(data.load(str(folder(tmp_path, each=4, parts=("train", part)))).test) == 8


@pytest.mark.parametrize("parts", [("",), ("train",)])
def test_without_a_test_part_a_split_is_made_and_said(tmp_path: Path, parts: tuple[str, ...]) -> None:
    folder(tmp_path, each=10, parts=parts)
    one, other = data.load(str(tmp_path)), data.load(str(tmp_path), seed=1)
    assert one.test.labels.tolist() == [0, 0, 1, 1] and len(one.train) == 16 and "20% of each class" in one.note
    assert set(one.test.names) != set(other.test.names) and not set(one.train.names) & set(one.test.names)
    assert same(one.train, data.load(str(tmp_path)).train)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert data.load(str(folder(tmp_path, ("bus", "train"), parts=("",)))).train.classes == ("bus", "train")


def test_clutter_is_passed_over(tmp_path: Path) -> None:
    folder(tmp_path)
    for name in (
        "README.md",
        "labels.csv",
        "train/Thumbs.db",
        "train/cat/.DS_Store",
        "train/cat/Thumbs.db",
        ".git/x",
        "train/notes.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert len(data.load(str(tmp_path)).train) == 6


def test_limit_takes_the_first_of_each_class_and_decodes_no_others(tmp_path: Path) -> None:
    folder(tmp_path, each=5)
    (tmp_path / "train/cat/4.png").write_bytes(b"broken")
    found = data.load(str(tmp_path), limit=5)
    assert found.train.names == ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")
    assert found.test.names == ("cat/0.png", "dog/0.png")
    assert "--limit" in line(tmp_path, limit=1) and "--limit" in line(tmp_path, limit=0)


def test_every_kind_of_image_file(tmp_path: Path) -> None:
    """One colour, in every format; black under full transparency is white, 16 bits become 8, EXIF turns, frames are dropped."""
    red, size = (200, 40, 40), (6, 4)
    plain = Image.new("RGB", size, red)
    kinds: dict[str, tuple[Image.Image, dict[str, Any], tuple[int, ...]]] = {
        "a.png": (plain, {}, red),
        "b.bmp": (plain, {}, red),
        "c.ppm": (plain, {}, red),
        "d.tiff": (plain, {}, red),
        "e.gif": (
            plain.convert("P", palette=Image.Palette.ADAPTIVE),
            {"save_all": True, "append_images": [Image.new("P", size)]},
            red,
        ),
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
    turned = Image.Exif()
    turned[0x0112] = 6  # lies on its side
    for part in ("train", "test"):
        for label in ("x", "y"):
            save(Image.new("RGB", (4, 6), red), tmp_path / part / label / "o.jpg", exif=turned)
    found = data.load(str(tmp_path))
    assert found.train.shape == (3, 4, 6)
    for i, (name, (_, _, wanted)) in enumerate(kinds.items()):
        seen = bits(found.train)[i].int()
        off = (seen - torch.tensor(wanted)[:, None, None]).abs().max()
        assert off <= (3 if name.endswith(("jpg", "gif")) else 0), name


def test_grey_stays_grey_until_one_image_has_colour(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in ("x", "y"):
            for i in range(2):
                save(picture(i, "L"), tmp_path / part / label / f"{i}.png")
    assert data.load(str(tmp_path)).train.shape == (1, 6, 6)
    save(picture(1), tmp_path / "test/x/colour.png")
    found = data.load(str(tmp_path))
    assert found.train.shape == (3, 6, 6)
    assert np.array_equal(bits(found.train)[1, 2].numpy(), np.asarray(picture(1, "L")))


def test_resize(tmp_path: Path) -> None:
    folder(tmp_path)
    save(Image.new("RGB", (9, 30), (1, 2, 3)), tmp_path / "test/cat/odd.png")
    assert "9 x 30" in line(tmp_path) and "odd.png" in line(tmp_path) and "--resize" in line(tmp_path)
    found = data.load(str(tmp_path), resize=5)
    assert found.train.shape == (3, 5, 5) and bits(found.test)[3, :, 2, 2].tolist() == [1, 2, 3]
    assert data.load("digits", resize=16).train.shape == (1, 16, 16)


def test_big_sets_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    whole = data.load(str(tmp_path))
    monkeypatch.setattr(load, "IN_MEMORY", 100)
    lazy = data.load(str(tmp_path))
    assert isinstance(lazy.train.images, data.LazyImages) and same(lazy.train, whole.train) and same(lazy.test, whole.test)
    assert same(lazy.train.select([3, 1]), whole.train.select([3, 1])) and lazy.train.shape == whole.train.shape
    assert torch.equal(data.map_batches(lambda x, i: x, lazy.test, batch_size=4), data.map_batches(lambda x, i: x, whole.test))
    data.export(lazy.train, tmp_path / "again", "folder", card="")
    assert same(data.load_part(tmp_path / "again", "folder"), whole.train)
    (tmp_path / "train/dog/1.png").write_bytes((tmp_path / "train/dog/1.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"train/dog/1.png"):
        lazy.train.images[[0, 4]]


def npz(path: Path, **changes: Any) -> Path:
    chance = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "train_images": chance.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
        "train_labels": np.array([[0], [1]] * 3),
        "test_images": chance.integers(0, 256, (2, 5, 4, 3), dtype=np.uint8),
        "test_labels": np.array([0, 1]),
    } | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_npz_layouts(tmp_path: Path) -> None:
    last = data.load(str(npz(tmp_path / "last.npz", classes=np.array(["no", "yes"]))))
    assert last.train.shape == (3, 5, 4) and last.train.classes == ("no", "yes") and last.form == "npz"
    pixels = np.load(tmp_path / "last.npz")
    first = {f"{part}_images": pixels[f"{part}_images"].transpose(0, 3, 1, 2) for part in ("train", "test")}
    found = data.load(str(npz(tmp_path / "first.npz", **first)))
    assert torch.equal(bits(found.train), bits(last.train)) and found.form == "npz-channels-first"
    floats = {key: (value / 255).astype(np.float32) for key, value in first.items()}
    assert torch.equal(bits(data.load(str(npz(tmp_path / "float.npz", **floats))).test), bits(last.test))
    grey = {key: value[:, 0] for key, value in first.items()}
    assert data.load(str(npz(tmp_path / "grey.npz", **grey))).train.shape == (1, 5, 4)
    val = {"test_images": None, "test_labels": None, "val_images": pixels["test_images"], "val_labels": np.array([1, 0])}
    assert data.load(str(npz(tmp_path / "val.npz", **val))).test.labels.tolist() == [1, 0]


BAD_NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "counts": ({"train_labels": np.array([0, 1])}, "6 and 2"),
    "no labels": ({"train_labels": None}, "train_labels"),
    "test images alone": ({"test_labels": None}, "test_labels"),
    "negative label": ({"train_labels": np.array([0, 1, 0, 1, 0, -1])}, r"train_images\[5\].*from 0 to 1"),
    "new label": ({"test_labels": np.array([0, 2])}, r"test_images\[1\].*from 0 to 1, got 2"),
    "fractions": ({"train_labels": np.array([0.5] * 6)}, "whole number"),
    "one class": ({"train_labels": np.zeros(6, int), "test_labels": np.zeros(2, int)}, "two classes"),
    "one image": ({"train_labels": np.array([0, 0, 0, 0, 0, 1])}, "two training images"),
    "gap": ({"train_labels": np.array([0, 0, 2, 2, 2, 2])}, "class 1 has no"),
    "nan": ({"train_images": np.full((6, 5, 4, 3), np.nan)}, "NaN.*uint8"),
    "floats": ({"train_images": np.full((6, 5, 4, 3), 0.3333)}, "multiples of 1/255.*uint8"),
    "range": ({"train_images": np.full((6, 5, 4, 3), 200.0)}, "floats from 200 to 200.*uint8"),
    "ints": ({"train_images": np.zeros((6, 5, 4, 3), int)}, "int64.*uint8"),
    "flat": ({"train_images": np.zeros((6, 60), np.uint8)}, "N x H x W"),
    "sizes": ({"test_images": np.zeros((2, 9, 4, 3), np.uint8)}, "one size"),
    "pickle": ({"train_labels": np.array([0, "x", None, 1, 0, 1], dtype=object)}, "Python objects"),
    "same names": ({"classes": np.array(["a", "a"])}, "must differ"),
    "control": ({"classes": np.array(["a", "b\x1b[2J"])}, r"without control characters"),
    "nothing": (
        {"train_images": np.zeros((0, 5, 4, 3), np.uint8), "train_labels": np.zeros(0, int)},
        "labels must be|no labelled",
    ),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz(tmp_path: Path, case: str) -> None:
    changes, pattern = BAD_NPZ[case]
    import re

    text = line(npz(tmp_path / "set.npz", **changes))
    assert re.search(pattern, text) and ("set.npz" in text or "class" in text), text


def test_files_that_are_no_sets(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no archive")
    (tmp_path / "x.parquet").write_bytes(b"no table")
    (tmp_path / "x.zip").write_bytes(b"")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/state.json").write_text("{}")
    for name in ("x.npz", "x.parquet", "x.zip", "saved", "missing", "missing.npz"):
        assert name in line(tmp_path / name)
    assert "does not exist" in line(tmp_path / "missing")
    assert "does not exist" in line("nobody-at-all/no-such-set")


# bad folders


def replaced(path: Path, make: Callable[[], None]) -> None:
    path.unlink()
    make()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def bomb(path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("hello"), "no image format"),
    "truncated": (cut, "cannot be read"),
    "corrupt": (lambda path: path.write_bytes(path.read_bytes()[:40] + b"\xff" * 60), "cannot be read"),
    "bomb": (bomb, "9000 x 9000 pixels"),
    "postscript": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\nshowpage"), "no image format"),
    "float": (lambda path: Image.new("F", (6, 6)).save(path, "TIFF"), "floating-point"),
    "link out": (lambda path: replaced(path, lambda: path.symlink_to("/etc/hostname")), "leaves the folder"),
    "linked folder": (lambda path: replaced(path, lambda: path.symlink_to("..")), "linked folder"),
    "pipe": (lambda path: replaced(path, lambda: os.mkfifo(path)), "is not a file"),
    "dangling": (lambda path: replaced(path, lambda: path.symlink_to("nowhere.png")), "is not a file"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_or_skipped(tmp_path: Path, case: str) -> None:
    folder(tmp_path)
    spoil, reason = BAD_FILES[case]
    spoil(tmp_path / "train/dog/1.png")
    text = line(tmp_path)
    assert text.startswith("train/dog/1.png") and reason in text and "--skip-bad" in text
    found = data.load(str(tmp_path), skip_bad=True)
    assert len(found.train) == 5 and len(found.skipped) == 1 and found.skipped[0].startswith("train/dog/1.png: ")
    assert found.train.names == ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/2.png") and len(found.test) == 6


def test_a_link_inside_the_folder_is_a_file(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "train/dog/more.png").symlink_to(tmp_path / "train/dog/1.png")
    assert len(data.load(str(tmp_path)).train) == 7


def test_bad_folders(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert "no class folders" in line(tmp_path / "nothing")
    save(picture(0), tmp_path / "flat/0.png")
    assert "0.png" in line(tmp_path / "flat") or "no class folders" in line(tmp_path / "flat")
    assert "two classes" in line(folder(tmp_path / "one", ("cat",)))
    (folder(tmp_path / "hole") / "train/ant").mkdir()
    assert "class ant has no training images" in line(tmp_path / "hole")
    save(picture(0), folder(tmp_path / "few") / "train/ant/0.png")
    assert "two training images" in line(tmp_path / "few") and "ant" in line(tmp_path / "few")
    save(picture(0), folder(tmp_path / "new") / "test/ant/0.png")
    assert "test/ant" in line(tmp_path / "new")
    save(picture(0), folder(tmp_path / "unsorted", parts=("train",)) / "test/0.png")
    assert "test" in line(tmp_path / "unsorted")
    save(picture(0), folder(tmp_path / "stray") / "train/0.png")
    assert "train/0.png" in line(tmp_path / "stray")
    (folder(tmp_path / "linked") / "train/fox").symlink_to(tmp_path / "new/train/cat")
    assert "fox" in line(tmp_path / "linked")
    spoiled = folder(tmp_path / "spoiled")
    for i in range(3):
        (spoiled / f"train/cat/{i}.png").write_bytes(b"")
    assert "3 such files" in line(spoiled) and "class cat has no" in line(spoiled, skip_bad=True)


def test_names_that_break_lines_are_shown_escaped(tmp_path: Path) -> None:
    folder(tmp_path)
    save(picture(0), tmp_path / "train/cat/a\n\x1b[2Jb.png")
    text = line(tmp_path)
    assert "\\n\\x1b[2Jb.png" in text and len(data.load(str(tmp_path), skip_bad=True).skipped) == 1
    (tmp_path / "train/dog\t").mkdir()
    assert "rename the class" in line(tmp_path)


# Hugging Face sets


def test_columns_are_found_by_their_type_or_their_name(tmp_path: Path) -> None:
    import datasets

    def png(seed: int) -> bytes:
        buffer = io.BytesIO()
        picture(seed).save(buffer, "PNG")
        return buffer.getvalue()

    cells = [{"bytes": png(i), "path": None} for i in range(10)]
    coarse, fine = datasets.ClassLabel(names=["x"]), datasets.ClassLabel(names=["p", "q"])
    kind = datasets.Features({"img": datasets.Image(), "coarse_label": coarse, "fine_label": fine})
    columns = {"img": cells, "coarse_label": [0] * 10, "fine_label": [0, 1] * 5}
    datasets.Dataset.from_dict(columns, features=kind).to_parquet(tmp_path / "cifar/train-00000-of-00001.parquet")
    found = data.load(str(tmp_path / "cifar"))
    assert found.train.classes == ("p", "q") and found.form == "parquet" and len(found.train) == 8
    words = {"image": [cell["bytes"] for cell in cells], "label": ["no", "yes"] * 5}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(words), "test": datasets.Dataset.from_dict(words)}).save_to_disk(
        tmp_path / "words"
    )
    found = data.load(str(tmp_path / "words"))
    assert found.train.classes == ("no", "yes") and found.form == "saved" and len(found.test) == 10
    assert np.array_equal(bits(found.train)[3].permute(1, 2, 0).numpy(), np.asarray(picture(3)))

    two = datasets.Features({"left": datasets.Image(), "right": datasets.Image(), "label": fine})
    datasets.Dataset.from_dict({"left": cells, "right": cells, "label": [0, 1] * 5}, features=two).to_parquet(
        tmp_path / "two.parquet"
    )
    assert "left, right" in line(tmp_path / "two.parquet")
    hidden = {"image": [{"bytes": None, "path": "/etc/hostname"}] * 10, "label": [0, 1] * 5}
    one = datasets.Features({"image": datasets.Image(), "label": fine})
    datasets.Dataset.from_dict(hidden, features=one).to_parquet(tmp_path / "paths.parquet")
    assert "lacks the bytes" in line(tmp_path / "paths.parquet")
    damaged = {"image": [*cells[:9], {"bytes": b"x", "path": None}], "label": [0, 1] * 5}
    datasets.Dataset.from_dict(damaged, features=one).to_parquet(tmp_path / "damaged.parquet")
    assert "train row 9" in line(tmp_path / "damaged.parquet")


# what is written


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_was_written_is_read_back(tmp_path: Path, form: str, channels: int) -> None:
    whole = made(40, channels)
    data.export(whole, tmp_path / "set", form, card="# Mine\n\n---\n")
    assert same(data.load_part(tmp_path / "set", form), whole)
    again = data.load(str(tmp_path / "set"))
    assert again.form == form
    pairs = {(image.numpy().tobytes(), int(label)) for image, label in zip(bits(whole), whole.labels, strict=True)}
    for part in again[:2]:
        assert {(image.numpy().tobytes(), int(label)) for image, label in zip(bits(part), part.labels, strict=True)} <= pairs
    assert len(again.train) + len(again.test) == 40
    card = (tmp_path / "set/README.md").read_text()
    assert card.startswith("---\ntask_categories:\n- image-classification\n") and "# Mine" in card
    assert os.listdir(tmp_path) == ["set"]


nasty = st.one_of(
    st.sampled_from(
        [
            "..",
            ".",
            "../../x",
            "-rf",
            "<b>&amp;",
            "a b ",
            "/",
            "\\",
            "__x",
            "é",
            "e\u0301",
            "~",
            "a~2",
            "null",
            "1",
            "'",
            '"',
            "---",
        ]
    ),
    st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=90),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("form", FORMS)
@given(data_=st.dataset())
def test_any_names_and_pixels_come_back(tmp_path: Path, form: str, data_: st.DataObject) -> None:
    classes = tuple(data_.draw(st.lists(nasty, min_size=1, max_size=4, unique=True)))
    n = data_.draw(st.integers(1, 6))
    names = tuple(data_.draw(st.lists(nasty, min_size=n, max_size=n, unique=True)))
    shape = (n, data_.draw(st.sampled_from([1, 3])), data_.draw(st.integers(1, 5)), data_.draw(st.integers(4, 6)))
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    draw_labels = st.lists(st.integers(0, len(classes) - 1), min_size=n, max_size=n)
    original = data.Dataset(images, torch.tensor(data_.draw(draw_labels)), classes, names)
    whole = original.with_labels(torch.tensor(data_.draw(draw_labels)))
    home = tmp_path / f"{len(os.listdir(tmp_path))}" / "inner"
    data.export(whole, home / "set", form, card="x", original=original)
    assert same(data.load_part(home / "set", form), whole)
    assert os.listdir(home) == ["set"] and os.listdir(home.parent) == ["inner"]


def test_a_folder_of_the_worst_names(tmp_path: Path) -> None:
    """Nothing leaves the folder, is hidden from a reader, is too long for a path, or takes the name of something else."""
    names = (
        "..",
        "../../x.png",
        "/etc/x.png",
        ".hidden.png",
        "__x.png",
        "x.png",
        "x.png/",
        "-rf.png",
        "é" * 300,
        "é" * 301,
        "\\",
    )
    classes = ("..", ".", "/", "__a", "_a", "a" * 300, "<b>", "x~2", "x", "_", "y/")
    for shift in (0, 1):
        labels = torch.arange(len(names)) // (1 + shift)
        whole = data.Dataset(made(len(names)).images, labels, classes, names)
        data.export(whole, tmp_path / f"{shift}" / "set", "folder", card="")
        assert same(data.load_part(tmp_path / f"{shift}" / "set", "folder"), whole)
        files = [path.relative_to(tmp_path / f"{shift}/set/train") for path in (tmp_path / f"{shift}").rglob("*.png")]
        assert len(files) == len(names)
        assert all(len(file.parts) == 2 and not part.startswith((".", "__")) for file in files for part in file.parts)
        assert len(os.listdir(tmp_path / f"{shift}/set/train")) == len(classes)
    assert sorted(os.listdir(tmp_path)) == ["0", "1"]


def test_a_number_given_to_one_name_is_not_another_s() -> None:
    assert deduplicate([("", "x"), ("", "x"), ("", "x~2")]) == ["x", "x~3", "x~2"]


def test_the_folder_as_others_read_it(tmp_path: Path) -> None:
    """A plain loop and Hugging Face's reader see the same pixels under the same class names."""
    import datasets

    chosen = ("<i>", "a b", "dog", "é..")
    whole = made(12, classes=chosen)
    data.export(whole, tmp_path / "set", "folder", card="x")
    wanted = {
        (chosen[int(label)], image.permute(1, 2, 0).numpy().tobytes())
        for image, label in zip(bits(whole), whole.labels, strict=True)
    }
    files = sorted((tmp_path / "set/train").rglob("*.png"))
    assert {(path.parent.name, np.asarray(Image.open(path)).tobytes()) for path in files} == wanted
    assert {path.relative_to(tmp_path / "set/train").as_posix() for path in files} == set(whole.names)
    read = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))["train"]
    named = read.features["label"].names
    assert tuple(named) == chosen
    assert {(named[row["label"]], np.asarray(row["image"]).tobytes()) for row in read} == wanted


@pytest.mark.parametrize("form", ["folder", "parquet", "saved"])
def test_hugging_face_reads_the_whole_folder_with_its_card(tmp_path: Path, form: str) -> None:
    import datasets

    whole = made(12, 1)
    data.export(whole, tmp_path / "set", form, card="x")
    if form == "saved":
        read = datasets.load_from_disk(str(tmp_path / "set"))["train"]
    else:
        read = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))["train"]
    assert tuple(read.features["label"].names) == whole.classes
    seen = {(row["label"], np.asarray(row["image"]).tobytes()) for row in read}
    assert seen == {(int(label), image.numpy().tobytes()) for image, label in zip(bits(whole), whole.labels, strict=True)}


def test_relabelled_files_that_would_meet_get_their_old_class_as_prefix(tmp_path: Path) -> None:
    original = made(4).select([0, 1, 2, 3])
    original = data.Dataset(original.images, original.labels, ("a", "b"), ("a/0.png", "b/0.png", "a/1.jpg", "b/2.png"))
    data.export(original.with_labels(torch.tensor([1, 1, 1, 0])), tmp_path / "meet", "folder", card="", original=original)
    files = sorted(path.relative_to(tmp_path / "meet/train").as_posix() for path in (tmp_path / "meet").rglob("*.png"))
    assert files == ["a/b--2.png", "b/a--0.png", "b/a--1.png", "b/b--0.png"]
    swapped = original.with_labels(1 - original.labels)
    data.export(swapped, tmp_path / "apart", "folder", card="", original=original)
    files = sorted(path.relative_to(tmp_path / "apart/train").as_posix() for path in (tmp_path / "apart").rglob("*.png"))
    assert files == ["a/0.png", "a/2.png", "b/0.png", "b/1.png"] and same(data.load_part(tmp_path / "apart", "folder"), swapped)
    rows = (tmp_path / "apart/manifest.csv").read_text().splitlines()
    assert rows[0] == "file,label,original_label,original_name" and rows[3] == "train/b/1.png,b,a,a/1.jpg"


def test_lossy_names_and_folders_below_a_class_are_kept_apart(tmp_path: Path) -> None:
    whole = made(4).select([0, 1, 2, 3])
    whole = data.Dataset(bits(whole), torch.tensor([0, 0, 0, 1]), ("a", "b"), ("a/x.jpg", "a/x.png", "a/s/x.png", "b/X.PNG"))
    data.export(whole, tmp_path / "set", "folder", card="")
    files = [path.relative_to(tmp_path / "set/train").as_posix() for path in sorted((tmp_path / "set").rglob("*.[pP]*"))]
    assert files == ["a/s--x.png", "a/x.png", "a/x~2.png", "b/X.PNG"] and same(data.load_part(tmp_path / "set", "folder"), whole)


@pytest.mark.parametrize("form", FORMS)
def test_a_class_that_lost_all_its_images_keeps_its_number(tmp_path: Path, form: str) -> None:
    whole = made(6, classes=("a", "b", "c")).with_labels(torch.tensor([0, 2, 2, 0, 2, 2]))
    data.export(whole, tmp_path / "set", form, card="")
    assert same(data.load_part(tmp_path / "set", form), whole)
    if form == "folder":
        assert sorted(os.listdir(tmp_path / "set/train")) == ["a", "b", "c"]


def test_nothing_is_written_over_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        data.export(made(), tmp_path / "full", "folder", card="")
    with pytest.raises(InputError, match="cannot be written"):
        data.export(made(), tmp_path / "full/mine.txt/set", "npz", card="")
    with pytest.raises(InputError, match="form"):
        data.export(made(), tmp_path / "new", "zip", card="")
    assert os.listdir(tmp_path) == ["full"] and os.listdir(tmp_path / "full") == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    data.export(made(), tmp_path / "empty", "npz", card="")
    assert same(data.load_part(tmp_path / "empty", "npz"), made())


@pytest.mark.parametrize("form", FORMS)
def test_a_disk_without_room(tmp_path: Path, form: str) -> None:
    """A limit on the size of a file fails a write half-way, as a full disk does."""
    import resource
    import signal

    big = data.Dataset(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"), ("0", "1"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(InputError, match="set: cannot be written"):
            data.export(big, tmp_path / "set", form, card="")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


def test_a_manifest_may_not_lead_elsewhere(tmp_path: Path) -> None:
    data.export(made(), tmp_path / "set", "folder", card="")
    path = tmp_path / "set/manifest.csv"
    path.write_text(path.read_text().replace("train/a/0.png", "train/../../x.png"))
    with pytest.raises(InputError, match="below train/"):
        data.load_part(tmp_path / "set", "folder")
    path.unlink()
    with pytest.raises(InputError, match=r"manifest.csv"):
        data.load_part(tmp_path / "set", "folder")
