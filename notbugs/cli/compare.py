"""`notbugs compare`: audits on the same images, by paired tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from notbugs.cli.console import print_table
from notbugs.cli.say import say
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.gate.compare import PairedComparison
    from notbugs.runs.folder import RunFolder

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN RUN…", help="Folders of `notbugs attack --out`. Each is compared with the first one."),
]
Page = Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write the comparison as one page.")]
Pairs = Annotated[
    bool,
    typer.Option(
        "--pairs",
        help="RUNs are pairs, first and second in turn, such as one for each training seed: compare each pair, and average.",
    ),
]


def compare(runs: Runs, pairs: Pairs = False, out: Page = None) -> None:
    """Compare audits on the same images, by paired tests.

    Two models on the same images, or one model on two versions of the data whose files have the same names. The difference has a
    95 % CI, and p is of McNemar's exact test over the images that only one of the two classifies correctly. With --pairs the
    mean difference has one over other test images and other trainings.
    """
    from notbugs.gate.compare import compare as compare_runs
    from notbugs.gate.pairs import compare_pairs
    from notbugs.report.compare import mean_cells, write_page
    from notbugs.runs.folder import RunFolder

    if len(runs) < 2:
        raise InputError("RUN", "must be two or more", len(runs), "notbugs compare runs/a runs/b")
    if pairs and (len(runs) < 4 or len(runs) % 2):
        rule, remedy = "must be two pairs or more with --pairs", "notbugs compare --pairs runs/a-0 runs/b-0 runs/a-1 runs/b-1"
        raise InputError("RUN", rule, f"{len(runs)} runs", remedy)
    if out is not None and out.suffix != ".html":
        raise InputError("--out", "must end in .html", str(out))
    records = [RunFolder.read(folder) for folder in runs]
    firsts = records[0::2] if pairs else [records[0]] * (len(records) - 1)
    both = [*zip(firsts, records[1::2] if pairs else records[1:], strict=True)]
    means = compare_pairs(both) if pairs else []
    found = [(first, second, compare_runs(first, second)) for first, second in both]
    for each in found:
        _print_pair(*each, alone=not pairs)
    if means:
        said = f"Mean of {len(both)} pairs. 95 % CI: over other test images and other trainings."
        print_table(said, *mean_cells(means))
        say(*(each.conclusion for each in means))
        if len(both) == 2:
            say("Two pairs say little of other trainings: take three or more.")
    if out is not None:
        write_page(out, found, means)
        say(out)


def _print_pair(first: "RunFolder", second: "RunFolder", comparisons: "Sequence[PairedComparison]", *, alone: bool) -> None:
    """The two audits, what speaks against comparing them, the table, and what follows."""
    from notbugs.gate.compare import conclusions, different_attacks, failed_checks, left_out
    from notbugs.report.compare import cells

    columns, rows = cells(comparisons)
    named = [f"{each.folder} ({each.audit().model})" for each in (first, second)]
    say(f"First: {named[0]}. Second: {named[1]}.")
    for which, each in (("First", first), ("Second", second)):
        if words := left_out(each):
            say(f"WARNING: {which}: {words}: {each.folder}")
        if failed := failed_checks(each):
            say(f"WARNING: {which}: sanity checks failed: {', '.join(failed)}. Its accuracies may be wrong: {each.folder}")
    if words := different_attacks(first, second):
        say(f"WARNING: {words}")
    said = "Difference: second minus first, in percentage points. Only first, only second: images that one alone has correct."
    print_table(said, [column.replace("only ", "only\n") for column in columns], rows)  # 80 letters are enough
    say(*conclusions(comparisons, alone=alone))
