"""`--dry-run` of studies: what would be done, and how long it would take."""

import shutil
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from notbugs.cli.console import How
from notbugs.cli.earlier import earlier_study
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
    """Read and check the data, time a few batches, and print the plan of a study, or of what is left of the one in `out`.

    Nothing is written into `out`.

    Raises
    ------
    InputError
        If the input cannot be used, or `out` holds another run.
    """
    from notbugs.study import pipeline

    earlier = earlier_study(out)
    if earlier is None and (out / "run.json").exists():
        raise InputError("--out", "must be new or hold a study with --dry-run", out, "name another folder")
    say("Dry run: nothing is trained or written.")
    with TemporaryDirectory() as temporary, how.engine() as engine, study_progress() as display:

        def on_plan(plan: "Plan") -> None:
            display.on_plan(plan)
            raise _PlannedError

        folder = Path(temporary) / "run"
        if earlier:
            _mirror(out.resolve(), folder)
        try:
            pipeline.run(config, folder, only=only, workers=how.workers, engine=engine, on_plan=on_plan)
        except _PlannedError:
            return


def _mirror(run: Path, folder: Path) -> None:
    """A run folder that can be written while another one stays as it is: tables and records are copied, the rest are links."""
    from notbugs.runs.folder import ATTEMPTS, LOCK, UNFINISHED

    folder.mkdir()
    for entry in run.iterdir():
        if entry.name in (ATTEMPTS, LOCK, "report.html") or entry.suffix == ".part":
            continue
        if entry.name == "tables":
            shutil.copytree(entry, folder / entry.name, ignore=shutil.ignore_patterns("*.part"))
        elif entry.is_dir():  # its entries, not itself: a run removes what was left half written in its folders
            (folder / entry.name).mkdir()
            for each in entry.iterdir():
                if entry.name == UNFINISHED:  # that a stage was begun is enough
                    (folder / entry.name / each.name).mkdir()
                elif each.suffix != ".part":
                    (folder / entry.name / each.name).symlink_to(each)
        else:
            shutil.copy2(entry, folder / entry.name)
