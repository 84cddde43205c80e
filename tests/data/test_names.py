"""Names of files and classes."""

from pathlib import Path

from data.conftest import image_folder, load_error, random_image, save

from notbugs import data
from notbugs.data.names import deduplicate


def test_a_number_never_produces_the_name_of_another_file() -> None:
    assert deduplicate([("", "x"), ("", "x"), ("", "x~2")]) == ["x", "x~3", "x~2"]


def test_messages_escape_names_that_break_lines(tmp_path: Path) -> None:
    image_folder(tmp_path)
    save(random_image(0), tmp_path / "train/cat/a\n\x1b[2Jb.png")
    text = load_error(tmp_path)
    assert "\\n\\x1b[2Jb.png" in text and len(data.load(str(tmp_path), skip_unreadable=True).left_out) == 1
    (tmp_path / "train/dog\t").mkdir()
    assert "rename the class" in load_error(tmp_path)
