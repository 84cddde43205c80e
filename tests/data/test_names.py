"""Names of files and classes."""

from pathlib import Path

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
