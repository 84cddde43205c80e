"""`--dry-run` of studies: what would be done, and how long it would take."""

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from notbugs.cli.console import How
from notbugs.cli.say import say
from notbugs.cli.study_progress import study_progress
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.study.config import StudyConfig
    from notbugs.study.plan import Plan

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done and how long it would take.")]


class _PlannedError(Exception):
    """The plan is printed."""


def print_plan(config: "StudyConfig", out: Path, how: How, only: Collection[str] | None = None) -> None:
    """Read and check the data, time a few batches, and print the plan of a new study. Nothing is written into `out`.

    Raises
    ------
    InputError
        If the input cannot be used, or `out` holds a run.
    """
    from notbugs.study import pipeline

    if (out / "run.json").exists():
        remedy = "without --dry-run the command says what is left, and how long that takes, before it goes on"
        raise InputError("--out", "must be new with --dry-run", out, remedy)
    say("Dry run: nothing is trained or written.")
    with TemporaryDirectory() as temporary, how.engine() as engine, study_progress() as display:

        def on_plan(plan: "Plan") -> None:
            display.on_plan(plan)
            raise _PlannedError

        try:
            pipeline.run(config, Path(temporary) / "run", only=only, workers=how.workers, engine=engine, on_plan=on_plan)
        except _PlannedError:
            return
