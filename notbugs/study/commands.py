"""Commands that do or continue a study, as a user types them. Imports no torch."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from notbugs import shell
from notbugs.extensions import command_prefix
from notbugs.runs.metadata import epsilon_text

DATASET = "dataset"


def beside(out: Path, what: str) -> Path:
    """A folder beside the study's own, for a further command; also of `.` and `..`.

    Examples
    --------
    >>> str(beside(Path("runs/digits"), "audit")), str(beside(Path("mine"), "2"))
    ('runs/digits-audit', 'mine-2')
    """
    return Path(os.path.normpath(out / "..")) / f"{os.path.basename(os.path.abspath(out))}-{what}"


def command_of(dataset: str, options: Mapping[str, Any], out: Path | None = None) -> str:
    """A command that runs a study with these options, and with controls of your own; out: its folder.

    Examples
    --------
    >>> command_of("my images", {"epochs": 5, "flip": False, "full": True, "epsilon": 8 / 255}, Path("runs/x"))
    "notbugs run 'my images' --epochs 5 --no-flip --full --epsilon 8/255 --out runs/x"
    """
    folder = [] if out is None else ["--out", str(out)]
    return command_prefix() + shell.join(["notbugs", "run", shell.argument(dataset), *option_words(options), *folder])


def option_words(options: Mapping[str, Any]) -> list[str]:
    """The options of a study as words of a command; what is None, the data set and the device are left out."""
    words: list[str] = []
    for name, value in options.items():
        if name in (DATASET, "device") or value is None:
            continue
        if isinstance(value, bool):
            words.append(option(name) if value else option(f"no_{name}"))
        else:
            words += [option(name), shown(name, value)]
    return words


def option(name: str) -> str:
    """The option, or argument, of a field of `StudyConfig`."""
    return "DATASET" if name == DATASET else "--" + name.replace("_", "-")


def shown(name: str, value: Any) -> str:
    """A value as it is typed: an epsilon of 8/255 as that."""
    return epsilon_text(value) if name.endswith("epsilon") and isinstance(value, float) else str(value)
