"""What the terminal shows of a finished study: the answers, the tables behind them, and what to do now."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from notbugs.cli.console import print_findings, print_table, wrapped
from notbugs.cli.earlier import beside, command_of

if TYPE_CHECKING:
    from notbugs.report.results import StudyResults
    from notbugs.study.config import StudyConfig

CONTROL = "Control: the same labels, with shuffled perturbations; for random-labels-incl-true with class patterns."


def print_summary(config: "StudyConfig", out: Path, page: Path) -> None:
    """Print a study.

    Parameters
    ----------
    config : StudyConfig
    out : Path
        Its folder.
    page : Path
        Its report.
    """
    from rich.console import Console

    from notbugs.report.findings import findings
    from notbugs.report.findings.models import given_model_warning
    from notbugs.report.results import StudyResults

    results, width = StudyResults.read(out), Console().width
    if warning := given_model_warning(results):
        print(f"WARNING: {warning}")
    print_findings(findings(results))
    print()
    _print_tables(results, width)
    print("What to do now:")
    for words, command in next_steps(config, out, results):
        print(wrapped(words, width, first="- "))
        if command:
            print(f"    {command}")
    print(f"{results.metadata.seconds:.0f} s. The report: {page}")


def _print_tables(results: "StudyResults", width: int) -> None:
    """Accuracies, D_R against the others, the relabeled sets, their controls, the paper's figures: those that were measured."""
    from notbugs.report import tables

    images = f"{results.metadata.data.test} test images"
    shown = [
        (f"Accuracy on {images}, in percent [95 % CI]", tables.compact_accuracy_table, ""),
        ("D_R minus others: robust accuracy in percentage points [95 % CI for both ε]", tables.split_table, ""),
        ("Trained on wrong labels: test images predicted as …, in percent [95 % CI]", tables.relabeled_table, CONTROL),
        ("All controls: test accuracy in percent, excess in percentage points [95 % CI]", tables.controls_table, ""),
        ("The paper's CIFAR-10 figures (L2 ε = 0.25 and 0.5) and this run's, in percent", tables.compact_replication_table, ""),
    ]
    for title, table, note in shown:
        columns, rows = table(results)
        if rows:
            print_table(title, columns, rows)
            print(wrapped(note, width, indent="") + "\n" if note else "")


def next_steps(config: "StudyConfig", out: Path, results: "StudyResults") -> Iterator[tuple[str, str]]:
    """What a user may do with a finished study: words, and a path or a command with its own paths, if there is one."""
    from notbugs.report.findings.construction import split_problems
    from notbugs.study.store import dataset_path

    metadata, options = results.metadata, results.metadata.options
    data = command_of(config.dataset, {"resize": config.resize, "limit": config.limit}).removeprefix("notbugs run ")
    same, threat = shlex.quote(str(out)), f"{config.norm}:{metadata.epsilon_text}"
    problem = split_problems(results)
    if problem:
        yield f"Improve D_R first: {problem}", ""
    yield "Train your own network on D_R:", str(dataset_path(config, out, config.seed, "robust"))
    if not problem and config.versions == 1:
        yield (
            "Try a D_R with four versions of each image:",
            command_of(config.dataset, {**options, "versions": 4}, beside(out, "versions")),
        )
    if len(metadata.seeds) == 1:
        yield "Train with two more seeds: the CIs of one do not cover another training:", f"notbugs run --seeds 3 --out {same}"
    if not metadata.full:
        yield "Rule out other explanations, with all controls:", f"notbugs run --full --out {same}"
    if config.model is None:
        yield (
            "Study a classifier of yours as the standard model:",
            command_of(config.dataset, {**options, "model": "MODEL"}, beside(out, "mine")),
        )
    yield (
        "Attack the given model in other threat models:" if config.model else "Attack a classifier of yours:",
        f"notbugs attack {shlex.quote(config.model or 'MODEL')} {data} --epsilon {threat} --out {_beside(out, 'audit')}",
    )
    yield "See which files are robust, non-robust or mislabeled:", f"notbugs files {data} --out {_beside(out, 'files')}"


def _beside(out: Path, what: str) -> str:
    return shlex.quote(str(beside(out, what)))
