"""The runs of one folder: for links from page to page, and for the list of all of them."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from notbugs.atomic import StrPath
from notbugs.errors import InputError
from notbugs.report.format import percent
from notbugs.report.results import FULL, StudyResults
from notbugs.runs.folder import KINDS, RunFolder
from notbugs.runs.metadata import RunMetadata, parse
from notbugs.runs.tables.audit import AuditAccuracyRow
from notbugs.runs.tables.files import CategoryRow
from notbugs.runs.tables.theory import TheoryRow

PAGE = "report.html"
INDEX = "index.html"
DEFAULT_PARENT = "runs"  # of the folders that commands write without --out
GENERATOR = "notbugs list of runs"  # named in the head of an index.html that is ours
KIND_TITLES = {"study": "study", "audit": "audit", "files": "file scores", "theory": "two-Gaussian model"}
COMPARED = ("standard", "adversarial", "trained-on-robust")  # models of a study


@dataclass(frozen=True)
class Neighbor:
    """Another run of the same folder, with a report. page: its path from this run's page."""

    title: str
    kind: str
    page: str


@dataclass(frozen=True)
class ListedRun:
    """A run in the list. page: its path, "" if it has none yet; figures: one line each."""

    name: str
    kind: str
    dataset: str
    started: str
    finished: bool
    stages: int
    figures: tuple[str, ...]
    page: str


def parent_of(folder: Path) -> Path:
    """The parent of a folder, also of `.` and `..`.

    Examples
    --------
    >>> str(parent_of(Path("runs/digits"))), str(parent_of(Path("..")))
    ('runs', '../..')
    """
    return Path(os.path.normpath(folder / ".."))


def name_of(folder: Path) -> str:
    """The name of a folder, also of `.` and `..`."""
    return os.path.basename(os.path.abspath(folder))


def runs_in(parent: Path) -> list[RunFolder]:
    """The runs in a folder, by name. What is no run, or is hidden, or cannot be read, is left out."""
    found, folders = [], list[Path]()
    with suppress(OSError):  # a folder that may be entered, but not listed
        folders = sorted(parent.iterdir())
    for folder in folders:
        if (folder / "run.json").is_file() and not folder.name.startswith("."):
            with suppress(InputError):  # a run.json of something else, or of the first version
                run = RunFolder.read(folder)
                if run.kind in KINDS:
                    found.append(run)
    return found


def neighbors(folder: Path) -> list[Neighbor]:
    """The other runs of the same folder that have a report."""
    here = name_of(folder)
    others = [run for run in runs_in(parent_of(folder)) if run.folder.name != here and (run.folder / PAGE).is_file()]
    return [Neighbor(run.folder.name, KIND_TITLES[run.kind], f"../{run.folder.name}/{PAGE}") for run in others]


def index_of(parent: Path) -> Path | None:
    """Where the list of a folder's runs belongs: in the folder `runs`, in one that has several, in one that has a list.

    None for others, and where there is an index.html that is not ours.
    """
    path = parent / INDEX
    if path.exists():
        return path if _is_ours(path) else None
    return path if name_of(parent) == DEFAULT_PARENT or len(runs_in(parent)) > 1 else None


def index_beside(folder: StrPath) -> Path | None:
    """The list of the runs beside a run, if it was written."""
    folder = Path(folder)
    path = index_of(parent_of(folder))
    return path if path and path.is_file() else None


def _is_ours(path: Path) -> bool:
    with suppress(OSError):
        return f'<meta name="generator" content="{GENERATOR}">'.encode() in path.read_bytes()[:1000]
    return False


def list_runs(parent: Path) -> list[ListedRun]:
    """What the list of a folder's runs says of each."""
    return [_listed(run) for run in runs_in(parent)]


def _listed(run: RunFolder) -> ListedRun:
    metadata = parse(RunMetadata, run.metadata)
    try:
        figures = tuple(FIGURES[run.kind](run))
    except InputError as error:  # it is another run's problem, and its own report says so
        figures = (f"a table is damaged: {error.args[0]}",)
    return ListedRun(
        name=run.folder.name,
        kind=KIND_TITLES[run.kind],
        dataset=metadata.dataset,
        started=metadata.started,
        finished=metadata.finished,
        stages=len(run.metadata["stages"]),
        figures=figures,
        page=f"{run.folder.name}/{PAGE}" if (run.folder / PAGE).is_file() else "",
    )


# ---- headline figures, by kind -----------------------------------------------------------------------------------------------


def _of_study(run: RunFolder) -> Iterator[str]:
    results = StudyResults.read(run)
    for model in COMPARED:
        clean, robust = results.accuracy(model), results.accuracy(model, radius=FULL)
        if clean and robust:
            yield f"{model}: {clean.percent} clean, {robust.percent} at {results.threat_model()}"


def _of_audit(run: RunFolder) -> Iterator[str]:
    rows = {row.threat: row for row in run.rows(AuditAccuracyRow)}
    if clean := rows.pop("clean", None):
        yield f"{percent(clean.accuracy)} clean"
    if rows:
        lowest = min(rows.values(), key=lambda row: row.accuracy)
        yield f"{percent(lowest.accuracy)} at {lowest.threat}"


def _of_files(run: RunFolder) -> Iterator[str]:
    counts = [f"{row.files} {row.category}" for row in run.rows(CategoryRow)]
    if counts:
        yield ", ".join(counts)


def _of_theory(run: RunFolder) -> Iterator[str]:
    if rows := run.rows(TheoryRow):
        yield f"κ from {rows[0].condition_number:.3g} to {rows[-1].condition_number:.3g}"


FIGURES: dict[str, Callable[[RunFolder], Iterator[str]]] = {
    "study": _of_study,
    "audit": _of_audit,
    "files": _of_files,
    "theory": _of_theory,
}
