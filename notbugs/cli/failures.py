"""What goes wrong around a command, in one line: a full disk, a closed pipe, too little memory, files of others."""

import errno
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from notbugs.atomic import NO_ROOM
from notbugs.errors import InputError, one_line

SMALLER = "pass --limit N or --resize N for a smaller data set, or --workers 1"
# What PyTorch, the loader of shared libraries and the system say where there is too little memory
NO_MEMORY = ("allocate memory", "failed to map segment", "out of memory", "OutOfMemory")


@contextmanager
def in_one_line() -> Iterator[None]:
    """Errors inside that are nobody's mistake in the code become InputError; what was printed is written before the end.

    Python itself writes the last of it after the exit code is decided: a full disk would then look like success.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of Latin-1 or ASCII gets \u732b for a letter that it does not have
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        except SystemExit:
            _flush()
            raise
        _flush()
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        found = as_input_error(error)
        if found is None:
            raise
        raise found from None


def as_input_error(error: Exception) -> InputError | None:
    """What a user can do about an error; None where it is one of the code.

    Examples
    --------
    >>> print(as_input_error(PermissionError(13, "Permission denied", "a.png")))
    a.png: cannot be used, got Permission denied; make it readable and writable, or name another
    """
    text = one_line(error)
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM or any(each in text for each in NO_MEMORY):
        return InputError("memory", "is not enough", text or None, SMALLER)
    if isinstance(error, RecursionError):
        return InputError("input", "is nested too deeply to be read", remedy="write it with fewer levels")
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        place = str(error.filename or "output")
        return InputError(place, "must be on a disk with room", error.strerror, "free some and repeat")
    if isinstance(error, OSError) and error.filename is not None:
        rule, remedy = "cannot be used", "make it readable and writable, or name another"
        return InputError(str(error.filename), rule, error.strerror or text, remedy)
    return None


def _flush() -> None:
    if sys.stdout is not None:  # closed
        try:
            sys.stdout.flush()
        except OSError:
            sys.stdout = None  # or Python would try once more, and fail with a traceback
            raise
