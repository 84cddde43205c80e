"""`notbugs report`: the page of a run, and the list of runs beside it."""

from pathlib import Path
from typing import Annotated

import typer

from notbugs.cli.console import print_list_of_runs
from notbugs.cli.say import say


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A folder of `notbugs run`, `files`, `attack --out` or `theory`.")
    ],
) -> None:
    """Write report.html of a run and the list of runs beside it."""
    from notbugs import report
    from notbugs.review import answers

    path = report.write(folder)
    answers.load_answers(folder)  # the page shows a warning if a file of answers is damaged; here it is an error
    say(path)
    print_list_of_runs(folder)
