"""The page of an audit shows what its tables hold, and other people's names do nothing on it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from audit.conftest import IMAGES, accuracy
from playwright.sync_api import Browser, Page
from report.conftest import accessibility_problems

from notbugs import report
from notbugs.errors import NotbugsWarning
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditAccuracyRow, AuditFileRow, AuditPictureRow, CheckRow, CurveRow


@pytest.fixture(scope="module")
def page(done: RunFolder, chromium: Browser) -> Iterator[Page]:
    path = report.write(done.folder)
    tab = chromium.new_page(viewport={"width": 1200, "height": 900})
    problems: list[str] = []
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-ready=yes]")
    yield tab
    assert problems == []
    tab.close()


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_shows_what_the_tables_hold(page: Page, done: RunFolder) -> None:
    text = page.inner_text("body")
    for row in accuracy(done).values():
        assert f"{100 * row.accuracy:.1f} %" in text
        assert f"{row.correct} of {IMAGES}" in text
    assert page.locator(".chart svg").count() == 2  # L2 and L-inf; one pixel makes no curve
    assert page.locator("img").count() == 12 * (1 + 2 * 4)
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert "Warning: robust accuracy" not in text
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.set_viewport_size({"width": 1200, "height": 900})
    assert page.locator("#contents, .contents a").count() == page.locator("main h2").count()
    assert accessibility_problems(page) == []


@pytest.mark.slow
def test_failed_checks_come_first_and_hostile_names_do_nothing(done: RunFolder, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    with RunFolder.open(tmp_path / "run", {"kind": "audit"}) as run:
        run.update_metadata(
            **{**done.metadata, "arguments": run.metadata["arguments"], "stages": {}},
        )
        run.update_metadata(model=evil, dataset=evil, finished=False)
        first, *others = done.rows(CheckRow)
        failed = replace(first, check=evil, passed="no", observed=evil, fix=evil)
        pictures = [replace(row, file=evil, label=evil, predicted=evil) for row in done.rows(AuditPictureRow)]
        rows = [*done.rows(AuditAccuracyRow), failed, *others, *done.rows(AuditFileRow), *done.rows(CurveRow), *pictures]
        run.record_stage("all", 1.0, rows)
    with pytest.warns(NotbugsWarning, match=r"left out of the report: pictures/0000\.png and \d+ more"):
        text = report.write(tmp_path / "run").read_text(encoding="utf-8")
    assert evil not in text
    assert text.index("Warning: robust accuracy may be overestimated") < text.index("<h2")
    assert "not finished" in text
    with RunFolder.open(tmp_path / "none", {"kind": "audit"}):
        pass
    assert report.write(tmp_path / "none").is_file()
