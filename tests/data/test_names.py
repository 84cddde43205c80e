"""Names of files and classes."""

import unicodedata
from pathlib import Path

import torch
from data.conftest import image_folder, load_error, random_image, save

from notbugs import data
from notbugs.data.names import deduplicate, png_names


def test_a_number_never_produces_the_name_of_another_file() -> None:
    assert deduplicate([("", "x"), ("", "x"), ("", "x~2")]) == ["x", "x~3", "x~2"]


def test_messages_escape_names_that_break_lines(tmp_path: Path) -> None:
    image_folder(tmp_path)
    save(random_image(0), tmp_path / "train/cat/a\n\x1b[2Jb.png")
    text = load_error(tmp_path)
    assert "\\n\\x1b[2Jb.png" in text and len(data.load(str(tmp_path), skip_unreadable=True).left_out) == 1
    (tmp_path / "train/dog\t").mkdir()
    assert "rename the class" in load_error(tmp_path)


def test_a_png_file_keeps_its_name_and_others_of_its_stem_their_suffix() -> None:
    names = ["a/0.jpg", "a/0.png", "a/1.jpg", "a/1.jpeg", "a/2.JPG", "a/3", "a/4.PNG", "a/4.bmp", "b/0.jpg", "a/s/0.jpg"]
    expected = ["0.jpg.png", "0.png", "1.jpg.png", "1.jpeg.png", "2.png", "3.png", "4.PNG", "4.bmp.png", "0.png", "s--0.png"]
    assert png_names([(name[0], name) for name in names]) == expected


def test_names_that_are_one_to_other_systems_are_written_apart(tmp_path: Path) -> None:
    """Classes and files that differ in case or in how a letter is composed; loaded again, each has its own name."""
    images = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1).expand(6, 1, 2, 2).contiguous()
    classes = ("Cat", "cat", "\u00e9", "e\u0301")
    names = ("Cat/a.png", "Cat/A.PNG", "cat/a.png", "cat/b.png", "\u00e9/a.png", "e\u0301/a.png")
    data.export(
        data.Dataset(images, torch.tensor([0, 0, 1, 1, 2, 3]), classes, names), tmp_path / "set", "folder", card="# Mine\n"
    )
    written = [path.relative_to(tmp_path).as_posix() for path in (tmp_path / "set").rglob("*")]
    assert len({unicodedata.normalize("NFC", path).casefold() for path in written}) == len(written)
    again = data.load_part(tmp_path / "set", "folder")
    assert set(again.classes) == set(classes)
    pairs = {(again.classes[int(label)], int(image.max())) for label, image in zip(again.labels, again.images[:], strict=True)}
    assert pairs == {("Cat", 0), ("Cat", 1), ("cat", 2), ("cat", 3), ("\u00e9", 4), ("e\u0301", 5)}
