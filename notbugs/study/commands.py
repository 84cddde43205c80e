"""Commands as a user types them: those that do or continue a study, and others. Imports no torch."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from notbugs import shell
from notbugs.extensions.registry import command_prefix
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


def command_of(dataset: str, options: Mapping[str, object], out: Path | None = None) -> str:
    """A command that runs a study with these options, and with controls of your own; out: its folder.

    Examples
    --------
    >>> command_of("my images", {"epochs": 5, "flip": False, "full": True, "epsilon": 8 / 255}, Path("runs/x"))
    "notbugs run 'my images' --epochs 5 --no-flip --full --epsilon 8/255 --out runs/x"
    """
    return command_with("run", [dataset], options, out)


def command_with(command: str, positional: Sequence[str], options: Mapping[str, object], out: Path | None = None) -> str:
    """Any command with its arguments, and with extensions of your own; out: the run folder.

    Examples
    --------
    >>> command_with("attack", ["m.onnx", "digits"], {"epsilon": ("l2:0.5", "linf:0.1"), "images": None})
    'notbugs attack m.onnx digits --epsilon l2:0.5 --epsilon linf:0.1'
    """
    folder = [] if out is None else ["--out", str(out)]
    return command_prefix() + shell.join(["notbugs", command, *map(shell.argument, positional), *option_words(options), *folder])


def option_words(options: Mapping[str, object]) -> list[str]:
    """Options as words of a command; what is None, the data set and the device are left out."""
    words: list[str] = []
    for name, value in options.items():
        if name in (DATASET, "device") or value is None:
            continue
        if isinstance(value, list | tuple):
            words += [word for each in value for word in (option(name), str(each))]
        elif isinstance(value, bool):
            words.append(option(name) if value else option(f"no_{name}"))
        else:
            words += [option(name), shown(name, value)]
    return words


def option(name: str) -> str:
    """The option, or argument, of a field of `StudyConfig`."""
    return "DATASET" if name == DATASET else "--" + name.replace("_", "-")


def shown(name: str, value: object) -> str:
    """A value as it is typed: an epsilon of 8/255 as that."""
    return epsilon_text(value) if name.endswith("epsilon") and isinstance(value, float) else str(value)
