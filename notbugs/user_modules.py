"""Modules of the user, which options and NOTBUGS_EXTENSIONS name: how they are imported, and how their errors are told."""

import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from notbugs.errors import one_line


@contextmanager
def working_directory_first() -> Iterator[None]:
    """A file beside the user's data can be imported, as with `python -m`; and no module sees the arguments of notbugs."""
    arguments = sys.argv
    sys.path.insert(0, os.getcwd())
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.path.pop(0)
        sys.argv = arguments


def import_module(name: str) -> ModuleType:
    """A module, searched in the working directory first. Raises whatever its code raises."""
    with working_directory_first():
        return importlib.import_module(name)


def import_error(error: Exception) -> str:
    """The kind and the text of an error that importing a module raised, and the line of the module, if one was executed."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if "importlib" not in each.filename]
    last = frames[-1]  # in this file, where no line of the module was executed
    place = "" if last.filename == __file__ else f" in {os.path.basename(last.filename)}, line {last.lineno}"
    return f"{type(error).__name__}{place}: {one_line(error)}"
