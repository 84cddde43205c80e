"""The arguments of a run as `notbugs COMMAND --config` takes them: config.toml in its folder. Imports no torch."""

import json
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from notbugs.atomic import atomic_write_text, read_at_most
from notbugs.extensions.registry import command_prefix

NAME = "config.toml"  # in a run folder
MOST = 2**20  # bytes
_on_open: ContextVar[Callable[[Path], None] | None] = ContextVar("_on_open", default=None)


@contextmanager
def kept_on_open(keep: Callable[[Path], None]) -> Iterator[None]:
    """As soon as a run folder is opened to be written, what it was made with is kept there: also if the run is stopped."""
    token = _on_open.set(keep)
    try:
        yield
    finally:
        _on_open.reset(token)


def opened(folder: Path) -> None:
    """A run folder was opened to be written."""
    if keep := _on_open.get():
        keep(folder)


def keep_arguments(folder: Path, command: str, given: Mapping[str, object], *, known: Collection[str] | None = None) -> None:
    """Write the arguments of a command into the run folder that it made, beside those of an earlier command.

    Parameters
    ----------
    folder : Path
    command : str
    given : mapping
        By option without dashes, or name of a positional argument; what is None is left out.
    known : collection of str, optional
        Earlier arguments of other names are dropped. Default: none is.
    """
    path = folder / NAME
    earlier = {key: value for key, value in read_table(path, command).items() if known is None or key in known}
    atomic_write_text(path, as_toml(command, {**earlier, **{key: value for key, value in given.items() if value is not None}}))


def read_table(path: Path, command: str) -> Mapping[str, object]:
    """What a file of an earlier command says; {} if there is none, or none of this command."""
    try:
        table = tomllib.loads(read_at_most(path, MOST).decode("utf-8")).get(command, {})
    except (ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def as_toml(command: str, arguments: Mapping[str, object]) -> str:
    """Arguments as the file has them.

    Examples
    --------
    >>> print(as_toml("attack", {"model": "m.onnx", "epsilon": ["l2:0.5"], "images": 100, "all-classes": True}), end="")
    # The arguments of this run: notbugs attack --config config.toml --out ANOTHER_FOLDER
    [attack]
    model = "m.onnx"
    epsilon = ["l2:0.5"]
    images = 100
    all-classes = true
    """
    lines = [f"{key} = {_toml(value)}" for key, value in arguments.items()]
    about = f"# The arguments of this run: {command_prefix()}notbugs {command} --config {NAME} --out ANOTHER_FOLDER"
    return "\n".join([about, f"[{command}]", *lines]) + "\n"


def _toml(value: object) -> str:
    """A value of TOML. Strings are those of JSON, but for the control character that TOML must escape, too."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value).encode("utf-8", errors="replace").decode("utf-8")
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
