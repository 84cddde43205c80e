"""The report of a run folder, report.html, and the list of the runs beside it, index.html."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from notbugs.atomic import StrPath, atomic_write_text
from notbugs.errors import InputError, NotbugsWarning
from notbugs.extensions.registry import check_present, registered
from notbugs.report import render
from notbugs.report.about import about
from notbugs.report.findings.replication import replication_rows
from notbugs.report.pages import audit, files, study, theory
from notbugs.report.render import Charts, Context
from notbugs.report.results import StudyResults
from notbugs.report.runs_beside import GENERATOR, index_of, list_runs, name_of, parent_of
from notbugs.report.use import use
from notbugs.review import answers
from notbugs.runs.folder import RunFolder, write_table
from notbugs.runs.tables.replication import ReplicationRow

PAGES: dict[str, Callable[[RunFolder], tuple[Context, Charts]]] = {
    "audit": audit.page,
    "files": files.page,
    "theory": theory.page,
}


def write(folder: StrPath) -> Path:
    """Write report.html into the folder of a run, finished or not, and list it in index.html of the parent folder.

    For a study this also writes the tables that follow from others: review answers, and the comparison with the paper.

    Parameters
    ----------
    folder : str or path
        Of a study, an audit, file scores or the two-Gaussian model.

    Returns
    -------
    Path
        Of report.html.

    Raises
    ------
    InputError
        If there is no run, or a table is damaged.
    """
    run = RunFolder.read(Path(folder))
    with _in_one_line(run.folder):
        path = _write_page(run)
        _write_index(parent_of(run.folder))
    return path


@contextmanager
def _in_one_line(folder: Path) -> Iterator[None]:
    """InputError where figures that can be read do not fit together: what was changed since may say anything.

    The cause stays attached: for figures that nobody changed it is a bug.
    """
    import jinja2

    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, jinja2.TemplateError) as error:
        remedy = "restore its run.json and tables, or run again; if nobody changed them, please report this"
        got = f"{type(error).__name__}: {error}"
        raise InputError(str(folder), "must hold figures that fit together", got, remedy) from error


def _write_page(run: RunFolder) -> Path:
    check_present([str(name) for name in run.metadata.get("extensions", ())], registered().names)
    if run.kind in PAGES:
        with render.saying_left_out(run.folder):
            context, charts = PAGES[run.kind](run)
    else:
        answers.merge(run)
        results = StudyResults.read(run)
        if rows := replication_rows(results):
            write_table(rows, run.folder / "tables" / f"{ReplicationRow.table}.csv")
        with render.saying_left_out(run.folder):
            context, charts = study.page(results)
    template = f"{run.kind if run.kind in PAGES else 'study'}.html.jinja"
    return render.write_page(run.folder, template, {**context, "about": about(run), "use": use(run)}, charts)


def _write_index(parent: Path) -> None:
    """List the runs of a folder in its index.html, if it is to have one."""
    path = index_of(parent)
    if path is None:
        return
    context = {"title": f"Runs in {name_of(parent)}", "generator": GENERATOR, "runs": list_runs(parent), "charts": {}}
    try:
        atomic_write_text(path, render.fill("index.html.jinja", context))
    except (InputError, OSError) as error:  # the list is not what was asked for: no error
        reason = error.args[2] if isinstance(error, InputError) else error
        warnings.warn(f"the list of runs was not written: {reason}. The report itself is complete.", NotbugsWarning, stacklevel=3)
