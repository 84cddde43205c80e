"""The report of a run folder: report.html."""

from collections.abc import Callable
from pathlib import Path

from notbugs.report import render
from notbugs.report.findings.replication import replication_rows
from notbugs.report.pages import audit, files, study, theory
from notbugs.report.render import Charts, Context
from notbugs.report.results import StudyResults
from notbugs.review import answers
from notbugs.runs.folder import RunFolder, write_table
from notbugs.runs.tables import ReplicationRow

PAGES: dict[str, Callable[[RunFolder], tuple[Context, Charts]]] = {
    "audit": audit.page,
    "files": files.page,
    "theory": theory.page,
}


def write(folder: Path) -> Path:
    """Write report.html into the folder of a run, finished or not.

    For a study this also writes the tables that follow from others: review answers, and the comparison with the paper.

    Parameters
    ----------
    folder : Path
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
    run = RunFolder.read(folder)
    if run.kind in PAGES:
        return render.write_page(run.folder, f"{run.kind}.html.jinja", *PAGES[run.kind](run))
    answers.merge(run)
    results = StudyResults.read(run)
    if rows := replication_rows(results):
        write_table(rows, run.folder / "tables" / f"{ReplicationRow.table}.csv")
    return render.write_page(run.folder, "study.html.jinja", *study.page(results))
