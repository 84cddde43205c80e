"""The report of a real full study: every section is there, and its tables have the study's rows."""

import math
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from report.conftest import accessibility_problems, open_page

from notbugs import report
from notbugs.report import tables, transferability
from notbugs.report.results import StudyResults
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import SetRow
from notbugs.study.catalog.models import MAIN_MODELS

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.mark.slow
def test_the_page_has_every_section_and_fits(chromium: Browser, full_run: RunFolder) -> None:
    page = open_page(chromium, report.write(full_run.folder))
    for section in ("controls", "transferability", "error-consistency", "robust-accuracy-on-all-datasets"):
        assert page.locator(f"h2#{section}").count() == 1
    assert page.locator("tbody tr:not(:has(th[scope=row]))").count() == 0
    lines = page.locator("table[aria-labelledby=controls-caption] >> nth=0 >> tbody tr")
    excesses = transferability.excesses(StudyResults(full_run))
    assert lines.count() == len(excesses)
    assert excesses[0].excess.points_cell in " ".join(lines.first.inner_text().split())
    for chart in ("sweep-chart", "correlation-chart"):
        assert page.locator(f"#{chart} svg").count() == 1
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert accessibility_problems(page) == []
    assert (full_run.folder / "report.html").stat().st_size < 700_000
    page.close()


def test_the_code_on_the_page_loads_the_data_set(
    chromium: Browser, full_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    page = open_page(chromium, report.write(full_run.folder))
    code = dict(zip(page.locator(".snippets h3").all_inner_texts(), page.locator(".snippets pre").all_inner_texts(), strict=True))
    assert list(code) == ["torchvision", "Hugging Face datasets", "Keras", "fastai", "FiftyOne"]
    names: dict[str, Any] = {}
    exec(code["Hugging Face datasets"], names)
    rows = [row for row in full_run.rows(SetRow) if row.set == "robust"]
    assert len(names["data"]) == rows[0].n and names["data"][0]["image"].size == (8, 8)
    for text in code.values():
        assert str(full_run.folder / "datasets/robust") in text
    page.close()


def test_the_main_table_has_the_models_of_a_quick_study(full_run: RunFolder) -> None:
    results = StudyResults(full_run)
    columns, rows = tables.accuracy_table(results)
    assert [row[0] for row in rows] == [*MAIN_MODELS]
    assert columns[0] == "model"
    found = transferability.accuracy_transfer_correlation(results)
    assert found is not None
    assert len(found.points) == 6
    assert -1 <= found.correlation.ci_low <= found.correlation.mean <= found.correlation.ci_high <= 1
    assert not math.isnan(found.correlation.mean)
