"""The command line: parse options, call one function, print. `notbugs --help` imports no torch."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Annotated, TextIO

import typer

from notbugs import __version__
from notbugs.allocator import keep_freed_memory
from notbugs.cli.analyses import corruptions, explain, ntk, review, theory
from notbugs.cli.check import check
from notbugs.cli.classifier import attack, features, transfer
from notbugs.cli.files import files
from notbugs.cli.notes import says_notes
from notbugs.cli.study import demo, report, run, split, train
from notbugs.errors import InputError, NotbugsWarning

INTERRUPTED = 130  # exit code
RESUMABLE = {"run", "demo", "split", "files"}  # and attack with --out

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Adversarial robustness of image classifiers: attacks, training, robust and non-robust features.

    Start with `notbugs demo` (a few minutes), then `notbugs run YOUR_FOLDER --out runs/mine`.
    """
    if version:
        print(f"notbugs {__version__}")
        raise typer.Exit


for command in (demo, check, run, split, files, train, attack, features, transfer, explain, corruptions, ntk, review):
    app.command()(says_notes(command))
for command in (theory, report):  # these load no data set, and `report` no torch
    app.command()(command)


def main() -> None:
    """Entry point. Exit codes: 0 done, 2 unusable input (one line), 130 interrupted (finished stages are kept)."""
    warnings.showwarning = _show_warning
    sys.unraisablehook = _end_if_interrupted
    keep_freed_memory()
    _on_stop_signals(_interrupt)
    try:
        app()
    except InputError as error:
        print(f"notbugs: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print(_stopped_line(), end="", file=sys.stderr)
            _on_stop_signals(signal.SIG_DFL)  # all is said: a further one may end the rest without a word
        raise


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line for our own warnings, the usual two for others."""
    own = issubclass(category, NotbugsWarning)
    text = f"notbugs: {message}\n" if own else warnings.formatwarning(message, category, filename, lineno, line)
    print(text, file=file or sys.stderr, end="")


def _on_stop_signals(action: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Set what happens at Ctrl-C, a polite kill and, unless they are ignored (nohup), at the end of the terminal."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last is not there on Windows
        number = getattr(signal, name, None)
        if number and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            signal.signal(number, action)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop, and leave nothing half done. At a second signal that takes too long."""
    _on_stop_signals(_end_at_once)
    raise SystemExit(INTERRUPTED)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """End with nothing but the line that `main` would have printed. Worker processes end with this one."""
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides it
    os.write(2, f"{show_cursor}{_stopped_line()}".encode())  # `print` may be at work
    os._exit(INTERRUPTED)


def _end_if_interrupted(found: "sys.UnraisableHookArgs") -> None:
    """An interrupt that came where Python can raise nothing, as in `__del__`, ends the process all the same."""
    if isinstance(found.exc_value, SystemExit) and found.exc_value.code == INTERRUPTED:
        _end_at_once(signal.SIGINT, None)
    sys.__unraisablehook__(found)


def _stopped_line() -> str:
    audit = "attack" in sys.argv and any(word.startswith("--out") for word in sys.argv)
    kept = " Finished stages are kept; the same command resumes." if audit or RESUMABLE & {*sys.argv} else ""
    return f"notbugs: stopped.{kept}\n"
