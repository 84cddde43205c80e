"""The one runner: does the stages of a study, an audit or file scores that are not done yet, and records each."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from notbugs import __version__
from notbugs.errors import InputError
from notbugs.runs.attempts import (
    Attempt,
    Finished,
    clear_attempts,
    clear_unfinished,
    make_attempt,
    make_room,
    publish,
    share,
)
from notbugs.runs.engine import Engine, Progress
from notbugs.runs.folder import RunFolder
from notbugs.runs.scheduler import Job, default_workers, describe_machine, ignore_progress, run_graph
from notbugs.runs.tables.row import Row

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class HasDevice(Protocol):
    """A configuration, which is a frozen dataclass."""

    @property
    def device(self) -> str:
        """As torch has it."""


Config = TypeVar("Config", bound="DataclassInstance")
Result = TypeVar("Result")


def no_description() -> dict[str, object]:
    """Of a stage whose entry in run.json says nothing besides."""
    return {}


def on_device(work: Callable[..., Result], config: Config, engine: Engine | None, *arguments: object) -> Callable[..., Result]:
    """Work that is given a configuration first, with the device that is chosen where it is done."""
    return partial(_on_device, work, config, engine.device if engine else None, *arguments)


def _on_device(
    work: Callable[..., Result], config: Config, device: Callable[[], str] | None, *arguments: object, **more: object
) -> Result:
    return work(config if device is None else replace(config, device=device()), *arguments, **more)


def describe_device(config: HasDevice) -> dict[str, object]:
    """What the entry of a stage says of where it was done: a run may be resumed on another device, or with another version."""
    import torch

    ran_on = {"device": config.device, "machine": describe_machine(config.device)}
    return {"notbugs": __version__, "torch": torch.__version__, **ran_on}


@dataclass(frozen=True)
class Stage:
    """One stage. All must pickle.

    Attributes
    ----------
    needs : tuple of str
        Names of stages.
    work : callable
        Given an attempt, which says where to write: rows of any tables.
    describe : callable
        Called where the stage was done: what its entry in run.json says besides.
    together : bool
        Whether several processes can share it: it trains a network, or maps over batches. Others are done side by side.
    """

    needs: tuple[str, ...]
    work: Callable[[Attempt], Sequence[Row]]
    describe: Callable[[], dict[str, object]] = no_description
    together: bool = False


def check_same(folder: RunFolder, name: str, value: object, parameter: str, rule: str) -> None:
    """Raises InputError where a resumed run would go on with other data or models than it was started with."""
    if folder.metadata.get(name, value) != value:
        raise InputError(parameter, rule, folder.folder, "give another --out")


def check_same_data(folder: RunFolder, fingerprint: str, parameter: str, rule: str) -> None:
    """Raises InputError where a resumed run would go on with other data than it was started with."""
    if not same_fingerprint(folder.metadata.get("fingerprint", fingerprint), fingerprint):
        raise InputError(
            parameter, rule, f"others than {folder.folder} has", "restore them, or begin a new run: give another --out"
        )


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
    engine: Engine | None = None,
    report_progress: Progress | None = None,
    on_stage: Callable[[str, Sequence[Row], float], None] | None = None,
    count_seconds: bool = True,
) -> None:
    """Do the stages that are not done, and record each as it finishes.

    A stage reads the run folder and writes into a folder of its own. Only this process changes the run folder: it renames what
    the stage wrote into place, then writes its rows, then its entry in run.json.

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
    engine : Engine, optional
        Does the stages in place of worker processes.
    report_progress : callable, optional
    on_stage : callable, optional
        Called with name, rows and seconds of each stage once it is recorded.
    count_seconds : bool
        Whether the time is added to the run's `seconds`.
    """
    began, before = time.perf_counter(), float(folder.metadata.get("seconds", 0.0))
    todo = {name: stage for name, stage in stages.items() if not folder.done(name)}
    if not todo:
        return
    attempts = make_room(folder.folder)
    clear_unfinished(folder.folder, [name for name in folder.metadata["stages"] if folder.done(name)])
    jobs = _Jobs(folder.folder, todo, remote=engine is not None and engine.remote)
    workers = default_workers(device) if workers is None else workers
    report = report_progress or ignore_progress
    try:  # `closing` ends workers if a row cannot be kept
        with closing(run_graph(jobs.by_name, workers, report, engine=engine, progress_in=attempts)) as results:
            for name, finished in results:
                publish(finished, folder.folder)
                folder.record_stage(name, finished.seconds, finished.rows, **finished.ran_on)
                clear_unfinished(folder.folder, [name])
                jobs.published(name, finished)
                if on_stage:
                    on_stage(name, finished.rows, finished.seconds)
                if count_seconds:
                    folder.update_metadata(seconds=round(before + time.perf_counter() - began, 1))
    finally:
        clear_attempts(folder.folder)


class _Jobs:
    """The jobs of stages, by name. Those for workers elsewhere name what was published meanwhile, for which they wait."""

    def __init__(self, run: Path, stages: Mapping[str, Stage], *, remote: bool) -> None:
        self.run, self.stages = run, stages
        self.shared = share(run) if remote else None
        self.files: dict[str, tuple[str, ...]] = {}
        self.by_name = {name: self._job(name) for name in stages}

    def published(self, name: str, finished: Finished) -> None:
        """Those that need this stage have not been given to a worker yet: they did wait for it."""
        if self.shared:
            self.files[name] = finished.files
            self.by_name |= {other: self._job(other) for other, stage in self.stages.items() if name in stage.needs}

    def _job(self, name: str) -> Job[Finished]:
        stage, shared = self.stages[name], self.shared
        if shared:
            done = [need for need in stage.needs if need in self.files]
            shared = replace(shared, stages=tuple(done), files=tuple(file for need in done for file in self.files[need]))
        needs = tuple(need for need in stage.needs if need in self.stages)
        return Job(needs, partial(make_attempt, self.run, name, stage.work, stage.describe, shared), stage.together)
