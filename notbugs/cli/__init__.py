"""The command line: parse options, call one function, print. `notbugs --help` imports no torch."""

import os
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from typing import Annotated, TextIO

import typer

from notbugs import __version__
from notbugs.allocator import keep_freed_memory
from notbugs.atomic import remove_locks
from notbugs.cli.analyses import corruptions, explain, ntk, review, theory
from notbugs.cli.attack import attack
from notbugs.cli.check import check
from notbugs.cli.classifier import features, transfer
from notbugs.cli.compare import compare
from notbugs.cli.config_file import running, with_config
from notbugs.cli.failures import in_one_line
from notbugs.cli.files import files
from notbugs.cli.notes import says_notes
from notbugs.cli.report import report
from notbugs.cli.say import say
from notbugs.cli.split import split
from notbugs.cli.study import demo, run
from notbugs.cli.train import train
from notbugs.errors import InputError, NotbugsWarning
from notbugs.exit_codes import CLOSED, CRASHED, INTERRUPTED, UNUSABLE
from notbugs.parent import end_with_parent
from notbugs.runs import ranks

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
        say(f"notbugs {__version__}")
        raise typer.Exit


for command in (demo, check, run, split, files, train, attack, features, transfer, explain, corruptions, ntk, review):
    app.command()(with_config(says_notes(command)))
for command in (theory, report, compare):  # these load no data set, and `report` no torch
    app.command()(with_config(command))


def main() -> None:
    """Entry point. Exit codes: `notbugs.exit_codes`."""
    warnings.showwarning = _show_warning
    keep_freed_memory()
    if ranks.started_by_torchrun():
        end_with_parent(os.getppid())
        ranks.see_one_gpu()
        if not ranks.is_first():
            _follow()
            return
    _stop_at_signals()
    try:
        with in_one_line():
            _check_arguments()
            app()
    except InputError as error:
        say(f"notbugs: {error}", file=sys.stderr)
        _exit(UNUSABLE)
    except BrokenPipeError:
        _exit(CLOSED)
    except SystemExit as end:
        _exit(end.code)
    except Exception:
        traceback.print_exc()
        _exit(CRASHED)


def _check_arguments() -> None:
    """Raises InputError for a name that is not UTF-8: run.json and other libraries could not hold it."""
    for word in sys.argv[1:]:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            raise InputError("arguments", "must be names in UTF-8", word, "rename it, or make a link to it")


def _exit(code: str | int | None) -> None:
    """End this process; where torchrun started it, the others, too."""
    if not ranks.started_by_torchrun():
        sys.exit(code)
    if not code:
        from notbugs.runs import torchrun

        torchrun.end(torchrun.connect())
        return
    sys.stdout.flush()
    os._exit(UNUSABLE if isinstance(code, str) else code)  # a thread may wait for another rank; torchrun ends that


def _follow() -> None:
    """What a rank does but for the first one: the jobs that it is given. It prints nothing, and ends with torchrun."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it holds nothing that it would have to put away
    from notbugs.data import keeping_loads
    from notbugs.runs import torchrun

    try:
        torchrun.follow(torchrun.connect(), keeping_loads)
    except RuntimeError:  # the store is gone, with rank 0 or torchrun
        os._exit(UNUSABLE)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line for our own warnings, the usual two for others. Of ranks that do the same the first one warns."""
    if ranks.is_follower():
        return
    own = issubclass(category, NotbugsWarning)
    text = f"notbugs: {message}" if own else warnings.formatwarning(message, category, filename, lineno, line)
    say(*text.splitlines(), file=file or sys.stderr)


def _stop_at_signals() -> None:
    """Stop at Ctrl-C, a polite kill and, unless it is ignored (nohup), the end of the terminal."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last is not there on Windows
        number = getattr(signal, name, None)
        if number and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            signal.signal(number, _interrupt)


def _resumes() -> bool:
    """Whether the command that is stopped resumes when it is called again."""
    if (context := running()) is None:
        return False
    return context.command.name in RESUMABLE or (context.command.name == "attack" and bool(context.params.get("out")))


def _interrupt(number: int, frame: object) -> None:
    """Say so and end at once. Worker processes end with this one, and what is half written is never read.

    An exception would unwind the stack, for seconds. Libraries swallow some, and where C++ calls Python one may abort all.
    """
    kept = " What is finished is kept; the same command resumes." if _resumes() else ""
    with suppress(Exception):  # the interrupted code may be writing
        sys.stdout.flush()
        remove_locks()
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides it
    os.write(2, f"{show_cursor}notbugs: stopped.{kept}\n".encode())
    os._exit(INTERRUPTED)
