"""The list of the runs of a folder: only runs are in it, names are text, and nothing of others is overwritten."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cli.conftest import call_here
from playwright.sync_api import Page
from report.conftest import accessibility_problems, quick_study

from notbugs import report, theory
from notbugs.errors import NotbugsWarning
from notbugs.report.runs_beside import list_runs
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditAccuracyRow
from notbugs.runs.tables.files import CategoryRow

HOSTILE = "<img src=x onerror=alert(1)> 100% #1"


def theory_run(folder: Path) -> Path:
    rows = theory.table(theory.Gaussians(np.array([1.0, 1.0]), np.array([4.0, 1.0])), [0.0])
    with RunFolder.open(folder, {"kind": "theory", "mean": [1.0, 1.0], "variances": [4.0, 1.0], "seed": 0}) as run:
        if not run.done("theory"):
            run.record_stage("theory", 0.1, rows)
        run.update_metadata(command="notbugs theory", finished=True)
    return folder


def audit_run(folder: Path) -> Path:
    about = {
        "norm": "l2",
        "attack": "a",
        "n": 100,
        "ci_low": 0.1,
        "ci_high": 0.9,
        "correct_8bit": None,
        "correct_by_minimum_norm": None,
    }
    accuracies = {"clean": (0.0, 90), "l2 0.5": (0.5, 40), "l2 0.25": (0.25, 60)}
    with RunFolder.open(folder, {"kind": "audit"}) as run:
        run.update_metadata(dataset=HOSTILE, model="m")
        rows = [
            AuditAccuracyRow(**about, threat=threat, epsilon=epsilon, correct=correct, accuracy=correct / 100)
            for threat, (epsilon, correct) in accuracies.items()
        ]
        run.record_stage("all", 0.1, rows)
    return folder


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs of all kinds, and what is none."""
    parent = tmp_path_factory.mktemp("all") / "runs"
    quick_study(parent / "digits")
    theory_run(parent / HOSTILE)
    audit_run(parent / "audit")
    with RunFolder.open(parent / "files", {"kind": "files"}) as run:
        run.record_stage("summary", 0.1, [CategoryRow(category="robust", files=7, n=9)])
    (parent / "photos").mkdir()
    (parent / "other").mkdir()
    (parent / "other/run.json").write_text('{"name": "another program"}')
    (parent / "first").mkdir()
    (parent / "first/run.json").write_text('{"asked": {}, "stages": {}}')
    shutil.copytree(parent / "digits", parent / ".hidden")
    shutil.copytree(parent / "digits", parent / "damaged")
    (parent / "damaged/tables/accuracy.csv").write_text("model\nx\n")
    for name in ("digits", "audit", HOSTILE):
        report.write(parent / name)
    yield parent
    assert not [entry for entry in os.listdir(parent) if entry.startswith(".index")]


@pytest.mark.slow
def test_only_runs_are_listed_with_their_headline_figures(parent: Path) -> None:
    runs = {run.name: run for run in list_runs(parent)}
    assert [*runs] == sorted([HOSTILE, "audit", "damaged", "digits", "files"])
    assert runs["digits"].figures[0] == "standard: 97.4 % clean, 0.0 % at L2 ε = 1.5"
    assert runs["digits"].figures[1].startswith("adversarial: 95.4 % clean, 60.4 % at")
    assert runs["audit"].figures == ("90.0 % clean", "40.0 % at l2 0.5")
    assert runs["files"].figures == ("7 robust",)
    assert runs[HOSTILE].figures == ("κ from 4 to 4",)
    assert "damaged" in runs["damaged"].figures[0]
    assert {name for name, run in runs.items() if run.finished} == {HOSTILE, "damaged", "digits"}
    assert {name for name, run in runs.items() if not run.page} == {"damaged", "files"}


@pytest.mark.browser
def test_the_list_links_to_each_report_and_names_are_text(show: Callable[..., Page], parent: Path) -> None:
    for scheme, width in (("light", 1400), ("dark", 390)):
        page = show(parent / "index.html", scheme=scheme, width=width)
        assert page.title() == "Runs in runs · notbugs"
        names = page.locator("tbody th").all_inner_texts()
        assert [name.split("\n")[0] for name in names] == sorted([HOSTILE, "audit", "damaged", "digits", "files"])
        assert "no report yet" in names[-1]
        assert page.locator("img, [onerror]").count() == 0 and HOSTILE in page.locator("tbody td").all_inner_texts()
        targets = page.locator("tbody a").evaluate_all("all => all.map(one => decodeURIComponent(new URL(one.href).pathname))")
        assert {*targets} == {str(parent / name / "report.html") for name in (HOSTILE, "audit", "digits")}
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert accessibility_problems(page) == []
        page.locator("thead button").nth(1).click()
        assert page.locator("tbody td:nth-child(2)").first.inner_text() == "audit"
        page.locator("tbody a", has_text="100%").click()
        assert page.locator("h1").inner_text() == "Two Gaussian classes in 2 dimensions"


def test_a_list_is_written_where_it_belongs_and_nothing_of_others_is_overwritten(tmp_path: Path) -> None:
    alone = theory_run(tmp_path / "home/one")
    report.write(alone)
    assert not (tmp_path / "home/index.html").exists() and report.index_beside(alone) is None  # one run, in any folder
    report.write(theory_run(tmp_path / "runs/one"))
    assert report.index_beside(tmp_path / "runs/one") == tmp_path / "runs/index.html"
    for content in ("<h1>mine</h1>", "x" * 2000 + '<meta name="generator" content="notbugs list of runs">'):
        (tmp_path / "home/index.html").write_text(content)
        report.write(theory_run(tmp_path / "home/two"))
        assert (tmp_path / "home/index.html").read_text() == content and report.index_beside(alone) is None
    (tmp_path / "home/index.html").unlink()
    report.write(alone)
    first = (tmp_path / "home/index.html").read_text()
    assert "two/report.html" in first and report.index_beside(alone) == tmp_path / "home/index.html"
    shutil.rmtree(tmp_path / "home/two")
    report.write(alone)
    assert "two/report.html" not in (tmp_path / "home/index.html").read_text() and sorted(os.listdir(tmp_path / "home")) == [
        "index.html",
        "one",
    ]


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the list is written."""

    def replace(self: Path, target: Path) -> Path:
        if target.name == "index.html":
            raise OSError(errno.ENOSPC, "No space left on device")
        return Path(os.rename(self, target) or target)

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.usefixtures("no_room")
def test_a_list_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    first, _ = theory_run(tmp_path / "a"), theory_run(tmp_path / "b")
    with pytest.warns(NotbugsWarning, match="the list of runs was not written") as warned:
        assert report.write(first).is_file() and report.index_beside(first) is None
    assert [Path(one.filename).name for one in warned] == [Path(__file__).name]
    (tmp_path / "index.html").mkdir()
    assert report.write(first).is_file() and report.index_beside(first) is None


def test_a_run_says_when_it_was_started(tmp_path: Path) -> None:
    folder = theory_run(tmp_path / "one")
    started = json.loads((folder / "run.json").read_text())["started"]
    assert started[:2] == "20" and started.endswith("+00:00")
    theory_run(folder)  # resumed
    assert RunFolder.read(folder).theory().started == started


@pytest.mark.usefixtures("no_room")
@pytest.mark.filterwarnings("default")
def test_a_list_that_cannot_be_written_is_said_and_the_report_is_written(tmp_path: Path) -> None:
    theory_run(tmp_path / "runs" / "one")
    done = call_here("report", tmp_path / "runs" / "one")
    assert done.returncode == 0 and (tmp_path / "runs/one/report.html").is_file()
    said = done.stderr.splitlines()
    assert len(said) == 1 and said[0].startswith("notbugs: the list of runs was not written: ") and "complete" in said[0]
    assert "All runs in that folder" not in done.stdout and not (tmp_path / "runs/index.html").exists()
