"""What the terminal shows of a finished study: the answers, the tables behind them, and what to do now."""

from pathlib import Path
from typing import TYPE_CHECKING

from notbugs.cli.console import print_findings, print_table, wrapped
from notbugs.cli.say import say

if TYPE_CHECKING:
    from notbugs.report.results import StudyResults

CONTROL = "Control: the same labels, with shuffled perturbations; for random-labels-incl-true with class patterns."


def print_summary(out: Path, page: Path) -> None:
    """Print a study.

    Parameters
    ----------
    out : Path
        Its folder.
    page : Path
        Its report.
    """
    from rich.console import Console

    from notbugs.report.findings import findings
    from notbugs.report.findings.models import given_model_warning
    from notbugs.report.next_steps import next_steps
    from notbugs.report.results import StudyResults

    results, width = StudyResults.read(out), Console().width
    if warning := given_model_warning(results):
        say(f"WARNING: {warning}")
    print_findings(findings(results))
    say()
    _print_tables(results, width)
    say("What to do now:")
    for step in next_steps(results):
        say(*wrapped(step.words, width, first="- "))
        if step.code:
            say(f"    {step.code}")
    say(f"{results.metadata.seconds:.0f} s. The report: {page}")


def _print_tables(results: "StudyResults", width: int) -> None:
    """Accuracies, D_R against the others, the relabeled sets, their controls, the paper's figures: those that were measured."""
    from notbugs.report import tables

    images = f"{results.metadata.data.test} test images"
    shown = [
        (f"Accuracy on {images}, in percent [95 % CI]", tables.compact_accuracy_table, ""),
        ("D_R minus others: robust accuracy in percentage points [95 % CI for both ε]", tables.split_table, ""),
        ("Trained on wrong labels: test images predicted as …, in percent [95 % CI]", tables.relabeled_table, CONTROL),
        ("Controls: test accuracy in percent, excess in percentage points [95 % CI]", tables.controls_table, ""),
        ("Metrics of your own, on the test images [95 % CI]", tables.own_metrics_table, ""),
        ("The paper's CIFAR-10 figures (L2 ε = 0.25 and 0.5) and this run's, in percent", tables.compact_replication_table, ""),
    ]
    for title, table, note in shown:
        columns, rows = table(results)
        if rows:
            print_table(title, columns, rows)
            say(*wrapped(note, width, indent=""), "")
