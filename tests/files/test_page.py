"""The page of file scores shows what the tables hold, and hostile names do nothing on it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from files.conftest import Done
from playwright.sync_api import Browser, Page
from report.conftest import accessibility_problems

from notbugs import metrics, report
from notbugs.errors import NotbugsWarning
from notbugs.files.columns import COLUMNS
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.features import FeatureCategoryRow, FeaturePictureRow, FeatureRow, SpuriousCueRow
from notbugs.runs.tables.files import CategoryRow, ColumnRow, FilePictureRow, FileRow, LabelErrorsRow, ModelAccuracyRow


@pytest.fixture(scope="module")
def page(done: Done, chromium: Browser) -> Iterator[Page]:
    path = report.write(done.run)
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
def test_the_page_shows_files_and_features_as_the_tables_hold_them(page: Page, done: Done) -> None:
    run = RunFolder.read(done.run)
    text = page.inner_text("body")
    files, features = run.rows(FileRow), run.rows(FeatureCategoryRow)
    for accuracy in run.rows(ModelAccuracyRow):
        assert f"{100 * accuracy.accuracy:.1f}\t" in text or f"{100 * accuracy.accuracy:.1f}\n" in text
    within = sum(row.robust_correct_within_epsilon > 0.5 for row in files)
    assert f"and {within} of these still within" in text
    assert "below 0.5 by definition" in text and "--repeats 3" in text  # one repetition
    order = ["Out-of-fold accuracy", "Categories of files", "Rank and label errors", "Features of a standard classifier"]
    places = [text.index(title) for title in order]
    assert places == sorted(places)
    assert f"ρ = E[y f] of {metrics.RHO:g} or more" in text
    for category in ("robust", "non-robust", "useless"):
        cells = page.locator(f"#features ~ .scroll tr:has(th b:text-is('{category}')) strong").inner_text()
        assert int(cells) == sum(row.category == category for row in features)
    for row in run.rows(CategoryRow):
        assert row.category in text and f"{row.files}" in text
    pictures = run.rows(FilePictureRow)
    for picture in pictures:
        assert picture.file in text
    assert page.locator(".files img").count() == len(pictures)
    assert page.locator(".pictures img").count() == len(run.rows(FeaturePictureRow)) > 0
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.locator("#files-chart svg .mark-symbol.role-mark path").count() == len(files)
    asked_for = {"subset_regression", "subset_regression_equal_clean"}  # only by an option
    assert {row.column for row in run.rows(ColumnRow)} == {column.column for column in COLUMNS} - asked_for
    for column in run.rows(ColumnRow):
        assert column.column in text
    for width in (390, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert accessibility_problems(page) == []


@pytest.mark.slow
def test_spurious_cues_are_shown_and_hostile_names_do_nothing(done: Done, tmp_path: Path) -> None:
    evil, before = "<img src=x onerror=alert(1)>", RunFolder.read(done.run)
    with RunFolder.open(tmp_path / "run", {"kind": "files"}) as run:
        run.update_metadata(
            **{**before.metadata, "arguments": run.metadata["arguments"], "stages": {}, "dataset": evil, "finished": False}
        )
        cues = [replace(row, spurious=place == 0, class_name=evil) for place, row in enumerate(before.rows(SpuriousCueRow))]
        pictures = [replace(row, file=evil, label=evil, suggested_label=evil) for row in before.rows(FilePictureRow)]
        row_types = (CategoryRow, FileRow, ModelAccuracyRow, LabelErrorsRow, ColumnRow, FeatureCategoryRow, FeatureRow)
        kept = [before.rows(row_type) for row_type in row_types]
        kept.append(before.rows(FeaturePictureRow))
        run.record_stage("all", 1.0, [*cues, *pictures, *(row for rows in kept for row in rows)])
    with pytest.warns(NotbugsWarning, match=r"left out of the report: pictures/\S+\.png and \d+ more"):
        text = report.write(tmp_path / "run").read_text(encoding="utf-8")
    assert evil not in text
    assert cues[0].name in text
    assert "not finished" in text
    with RunFolder.open(tmp_path / "none", {"kind": "files"}):
        pass
    assert report.write(tmp_path / "none").is_file()
