"""The data check as a command: what to know of a data set before anything is trained on it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from notbugs.cli.notes import list_files_in, new_data_lines
from notbugs.cli.options import NO_OPTIONS, DataOptions, DatasetArgument, Folds, with_data_options
from notbugs.cli.say import say
from notbugs.cli.table_file import check_table_file, write_table
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.datacheck import DataCheck

CheckOut = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.csv",
        help="List every file that has a problem, with the other file, or is left out. The notes on the data and the findings "
        "are written into FILE.json.",
    ),
]
FILE_COLUMNS = "file,part,problem,other_file,value\n"  # of a list without files
NoTrain = Annotated[
    bool, typer.Option("--no-train", help="Do not train the small classifier that measures if mirroring is safe.")
]


@with_data_options
def check(
    dataset: DatasetArgument,
    out: CheckOut = None,
    no_train: NoTrain = False,
    folds: Folds = 3,
    data_options: DataOptions = NO_OPTIONS,
) -> None:
    """Find problems of a data set before you train on it.

    Duplicates, leakage, classes, contrast, mirroring. Training takes most of the time: --no-train.

    Near duplicates are sought by a perceptual hash and verified on pixels. Whether mirroring is safe is measured: a small
    classifier is trained on training images without flips and tried on mirrored ones.
    """
    from notbugs import data
    from notbugs.datacheck import check_data
    from notbugs.runs.tables.data_check import DataCheckFileRow
    from notbugs.runs.tables.row import as_csv

    if folds < 2:
        raise InputError("--folds", "must be 2 or more", folds)
    check_table_file(out)
    splits = data.load_dataset(data.DataConfig(dataset, **data_options))
    with _status("checking" if no_train else "checking and training a small classifier"):
        found = check_data(splits.train, splits.test, folds=folds, mirroring=not no_train)
    list_files_in(str(out or ""))
    _print_check(dataset, found, new_data_lines())
    if out is not None:
        left = [DataCheckFileRow(file=file, part="", problem=reason, other_file="") for file, reason in splits.left_out]
        check = {"summary": asdict(found.summary), "findings": [asdict(finding) for finding in found.findings]}
        write_table(out, as_csv([*found.files, *left]) or FILE_COLUMNS, check=check)


def _status(words: str) -> AbstractContextManager[object]:
    """A line that moves while the block runs, on a terminal only: the result is one text."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.status(words) if console.is_terminal else nullcontext()


def _print_check(dataset: str, found: "DataCheck", notes: Sequence[str]) -> None:
    """The result first, then each finding, the most serious first, then what was checked."""
    from rich.console import Console

    from notbugs.cli.console import wrapped
    from notbugs.report.data_check import checked_text, finding_text

    width, row = Console().width, found.summary
    serious = sum(finding.serious for finding in found.findings)
    count = f"{len(found.findings)} finding{'s' if len(found.findings) > 1 else ''}"
    result = f"{count}, {serious} serious" if found.findings else "no problems found"
    colors = "gray" if row.channels == 1 else "RGB"
    images = f"{row.train:,} training and {row.test:,} test images, {row.width}x{row.height}, {colors}, {row.classes} classes"
    say(*wrapped(f"{dataset}: {result}. {images}.", width, indent=""))
    for line in notes:
        say(*wrapped(line, width))
    for finding in found.findings:
        say(*wrapped(finding_text(finding), width, first="! " if finding.serious else "- "))
    say(*wrapped(checked_text(row), width, indent=""))
