from pathlib import Path

from notbugs.report import render
from notbugs.report.findings import replication
from notbugs.report.pages import audit, files, theory
from notbugs.report.pages.study import _content
from notbugs.review import answers
from notbugs.runs.folder import RunFolder


def write(folder: Path) -> Path:
    """Write report.html into the folder of a study, an audit or a sorting of files, finished or not; returns its path.

    Of a study that people have reviewed also the tables of their answers.
    """
    run = RunFolder.read(folder)
    answers.merge(run)
    replication.write_table(run)
    pages = {
        "audit": ("audit.html.jinja", audit.content),
        "files": ("files.html.jinja", files.content),
        "theory": ("theory.html.jinja", theory.content),
    }
    template, content = pages.get(run.metadata.get("kind", ""), ("study.html.jinja", _content))
    return render.write_page(run.folder, template, content(run))
