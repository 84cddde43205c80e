"""A file appears whole or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from notbugs.atomic import atomic_write, atomic_write_text, only_writer
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


HOLD = """
import sys
from pathlib import Path
from notbugs.atomic import only_writer
with only_writer(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such lock there")
@pytest.mark.parametrize("name", ["m.safetensors", "n" * 255])
def test_two_processes_never_write_one_file(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / name)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout and other.stdout.readline() == "in\n"
    with pytest.raises(InputError, match=rf"^--json: must not be in use, got .*{name}, which another command is writing; wait"):
        only_writer(tmp_path / name, "--json").__enter__()
    with only_writer(tmp_path / "another"):
        other.communicate("")
    with only_writer(tmp_path / name):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no accounts as those of Unix")
def test_the_run_of_another_account_is_refused_in_one_line(tmp_path: Path) -> None:
    """Its lock cannot be opened: whether it is in use is unknown."""
    code = f"from notbugs.runs.folder import RunFolder; import os; os.chdir({str(tmp_path)!r}); DROP; RunFolder.open('.', {{}})"
    (lock := tmp_path / "run.lock").touch()
    lock.chmod(0o444)
    drop = "os.setgroups([]); os.setgid(65534); os.setuid(65534)" if os.geteuid() == 0 else "pass"
    tmp_path.chmod(0o777)
    code = "import notbugs.runs.metadata, filelock; from notbugs import atomic; " + code.replace("DROP", drop)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "InputError: --out: must be a place that you can write, got run.lock: Permission denied; name another" in done.stderr
    assert list(tmp_path.iterdir()) == [lock]
