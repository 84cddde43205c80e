"""The commands: parse, call one function, print. `notbugs --help` loads none of the heavy parts."""

import signal
import sys
from typing import Annotated

import typer

from notbugs import __version__
from notbugs.cli.analyses import corruptions, explain, ntk, review, theory
from notbugs.cli.classifier import attack, features, transfer
from notbugs.cli.study import demo, files, report, run, split, train
from notbugs.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Why image classifiers get fooled: measure it, prevent it, and split the data into robust and non-robust versions.

    Start with `notbugs demo` (about a minute), then `notbugs run YOUR_FOLDER --out runs/mine`.
    """
    if version:
        print(f"notbugs {__version__}")
        raise typer.Exit


for command in (demo, run, split, files, train, attack, features, transfer, explain, corruptions, ntk, review, theory, report):
    app.command()(command)


def main() -> None:
    """Entry point. Exit codes: 0 done, 2 bad input (one line), 130 interrupted (what is finished is kept)."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(130)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        app()
    except InputError as error:
        print(f"notbugs: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:
            audit = "attack" in sys.argv and any(word.startswith("--out") for word in sys.argv)
            goes_on = audit or {"run", "demo", "split", "files"} & {*sys.argv}
            kept = " What is finished is kept; the same command goes on from there." if goes_on else ""
            print(f"notbugs: stopped.{kept}", file=sys.stderr)
        raise
