"""`notbugs compare`: audits on the same images, by paired tests."""

from pathlib import Path
from typing import Annotated

import typer

from notbugs.cli.console import print_table
from notbugs.cli.say import say
from notbugs.errors import InputError

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN RUN…", help="Folders of `notbugs attack --out`. Each is compared with the first one."),
]
Page = Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write the comparison as one page.")]


def compare(runs: Runs, out: Page = None) -> None:
    """Compare audits on the same images, by paired tests.

    Two models on the same images, or one model on two versions of the data whose files have the same names. The difference has a
    95 % CI, and p is of McNemar's exact test over the images that only one of the two classifies correctly.
    """
    from notbugs.gate.compare import compare as compare_runs
    from notbugs.gate.compare import conclusions, different_attacks, failed_checks, left_out
    from notbugs.report.compare import cells, write_page
    from notbugs.runs.folder import RunFolder

    if len(runs) < 2:
        raise InputError("RUN", "must be two or more", len(runs), "notbugs compare runs/a runs/b")
    if out is not None and out.suffix != ".html":
        raise InputError("--out", "must end in .html", str(out))
    records = [RunFolder.read(folder) for folder in runs]
    found = [(record, compare_runs(records[0], record)) for record in records[1:]]
    for record, comparisons in found:
        first, second = (f"{each.folder} ({each.audit().model})" for each in (records[0], record))
        columns, rows = cells(comparisons)
        said = "Difference: second minus first, in percentage points. Only first, only second: images that one alone has correct."
        say(f"First: {first}. Second: {second}.")
        for which, each in (("First", records[0]), ("Second", record)):
            if words := left_out(each):
                say(f"WARNING: {which}: {words}: {each.folder}")
            if failed := failed_checks(each):
                say(f"WARNING: {which}: sanity checks failed: {', '.join(failed)}. Its accuracies may be wrong: {each.folder}")
        if words := different_attacks(records[0], record):
            say(f"WARNING: {words}")
        print_table(said, [column.replace("only ", "only\n") for column in columns], rows)  # 80 letters are enough
        say(*conclusions(comparisons))
    if out is not None:
        write_page(out, records[0], found)
        say(out)
