"""Errors around a command become one line, and what cannot be printed is escaped."""

import errno
import io
import os
import sys

import pytest
from cli.conftest import call_here, error_line

from notbugs import cli
from notbugs.cli.failures import in_one_line
from notbugs.errors import InputError

NO_MEMORY = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a.png"), "a.png: cannot be used, got Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "run"), "run: cannot be used, got Read-only"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npz"), "a.npz: must be on a disk with room"),
        (OSError(errno.ENOSPC, "No space left on device"), "output: must be on a disk with room"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory: is not enough"),
        (MemoryError(), "memory: is not enough; pass --limit"),
        (RuntimeError(NO_MEMORY), "memory: is not enough, got [enforce fail"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory: is not enough"),
        (RecursionError("maximum recursion depth exceeded"), "input: is nested too deeply"),
        (InputError("--seed", "must be 0 or more", -1), "--seed: must be 0 or more, got -1"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error: Exception, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    assert error_line(call_here("check", "digits")).startswith(f"notbugs: {says}")


@pytest.mark.parametrize(
    "error", [KeyError("x"), RuntimeError("a bug"), ImportError("a bug"), ConnectionError("x"), TypeError("x")]
)
def test_an_error_of_the_code_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), in_one_line():
        raise error


class Full(io.RawIOBase):
    """A disk without room."""

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("end", [None, SystemExit(0)])
def test_a_full_disk_behind_the_output_is_found_before_the_end(monkeypatch: pytest.MonkeyPatch, end: SystemExit | None) -> None:
    stream = io.TextIOWrapper(io.BufferedWriter(Full()), "utf-8")
    monkeypatch.setattr(sys, "stdout", stream)

    @in_one_line()
    def command() -> None:
        print("much")
        if end:
            raise end

    with pytest.raises(InputError, match="output: must be on a disk with room, got No space"):
        command()
    assert sys.stdout is None, "nothing is left that Python would write at its end"
    with pytest.raises(OSError, match="No space"):
        stream.close()


@pytest.mark.parametrize(("encoding", "written"), [("ascii", r"\xf6\u732b"), ("latin-1", "ö\\u732b"), ("utf-8", "ö猫")])
def test_letters_that_a_terminal_does_not_have_are_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str, written: str) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding))
    with in_one_line():
        print("ö猫", end="")
    assert content.getvalue() == written.encode(encoding)
