"""The one runner: does the stages of a study, an audit or file scores that are not done yet, and records each."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.runs.scheduler import Job, Progress, default_workers, ignore_progress, run_graph
from notbugs.runs.tables.row import Row


@dataclass(frozen=True)
class Stage:
    """needs: names of stages; work: report_progress -> rows of any tables. Must pickle."""

    needs: tuple[str, ...]
    work: Callable[[Progress], Sequence[Row]]


def check_same(folder: RunFolder, name: str, value: object, parameter: str, rule: str) -> None:
    """Raises InputError where a resumed run would go on with other data or models than it was started with."""
    if folder.metadata.get(name, value) != value:
        raise InputError(parameter, rule, folder.folder, "give another --out")


def check_same_data(folder: RunFolder, fingerprint: str, parameter: str, rule: str) -> None:
    """Raises InputError where a resumed run would go on with other data than it was started with."""
    if not same_fingerprint(folder.metadata.get("fingerprint", fingerprint), fingerprint):
        raise InputError(parameter, rule, folder.folder, "give another --out")


def same_fingerprint(recorded: object, fingerprint: str) -> bool:
    """Whether data are those of which a run recorded the fingerprint.

    Runs before the second hash, of files on disk, recorded the first one alone: they go on.

    Examples
    --------
    >>> same_fingerprint("0123-4567", "0123-4567"), same_fingerprint("0123", "0123-4567"), same_fingerprint("0123-9", "0123-4567")
    (True, True, False)
    """
    return recorded in (fingerprint, fingerprint.partition("-")[0])


def run_stages(
    folder: RunFolder,
    stages: Mapping[str, Stage],
    *,
    device: str,
    workers: int | None = None,
    report_progress: Progress | None = None,
    on_stage: Callable[[str, Sequence[Row], float], None] | None = None,
    stage_metadata: Mapping[str, object] | None = None,
    count_seconds: bool = True,
) -> None:
    """Do the stages that are not done, and record each as it finishes.

    Parameters
    ----------
    folder : RunFolder
        Open for writing.
    stages : mapping
        Stages by name; needs that are not among them must be done already.
    device : str
        Decides the default of `workers`.
    workers : int, optional
        Stages at once, each in a process of its own.
    report_progress : callable, optional
    on_stage : callable, optional
        Called with name, rows and seconds of each stage once it is recorded.
    stage_metadata : mapping, optional
        What each stage's entry in run.json says besides.
    count_seconds : bool
        Whether the time is added to the run's `seconds`.
    """
    began, before = time.perf_counter(), float(folder.metadata.get("seconds", 0.0))
    todo = {name: stage for name, stage in stages.items() if not folder.done(name)}
    jobs = {
        name: Job(tuple(need for need in stage.needs if need in todo), partial(_timed, name, stage.work))
        for name, stage in todo.items()
    }
    workers = default_workers(device) if workers is None else workers
    with closing(run_graph(jobs, workers, report_progress or ignore_progress)) as results:  # ends workers if a row cannot be kept
        for name, (rows, seconds) in results:
            folder.record_stage(name, seconds, rows, **(stage_metadata or {}))
            if on_stage:
                on_stage(name, rows, seconds)
            if count_seconds:
                folder.update_metadata(seconds=round(before + time.perf_counter() - began, 1))


def _timed(name: str, work: Callable[[Progress], Sequence[Row]], report_progress: Progress) -> tuple[Sequence[Row], float]:
    """The stage's rows and its seconds; its own progress is reported under its name."""
    began = time.perf_counter()
    rows = work(lambda _, share, words: report_progress(name, share, words))
    return rows, time.perf_counter() - began
