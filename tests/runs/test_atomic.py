"""A file appears whole or not at all."""

import errno
from pathlib import Path
from typing import BinaryIO

import pytest

from notbugs.atomic import atomic_write, atomic_write_text
from notbugs.errors import InputError


def test_folders_are_created_and_files_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    for text in ("first\n", "naïve 猫\n"):
        atomic_write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [found.name for found in path.parent.iterdir()] == ["file.txt"]


def test_line_ends_stay_and_broken_unicode_becomes_a_question_mark(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "file", "a\r\nb\udcff\n")
    assert (tmp_path / "file").read_bytes() == b"a\r\nb?\n"


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(stream: BinaryIO) -> None:
        stream.write(b"new")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        atomic_write(path, fail)
    assert path.read_text() == "old" and [found.name for found in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "must be on a disk with room"),
        (errno.EDQUOT, "with room"),
        (errno.EACCES, "must be in a folder that can be"),
    ],
)
def test_a_disk_that_cannot_be_written_is_one_line(tmp_path: Path, number: int, says: str) -> None:
    def fail(stream: BinaryIO) -> None:
        raise OSError(number, "no")

    with pytest.raises(InputError, match=f"file: .*{says}") as caught:
        atomic_write(tmp_path / "file", fail)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_file_where_a_folder_must_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/below: must be in a folder that can be written, got (Not|File)"):
        atomic_write_text(tmp_path / "file" / "below", "x")
