"""The page of the two-Gaussian model."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser
from report.conftest import accessibility_problems, open_page

from notbugs import report, theory
from notbugs.runs.folder import RunFolder


@pytest.mark.browser
def test_the_page_has_the_table_and_a_chart_with_a_slider(chromium: Browser, tmp_path: Path) -> None:
    mean, variances = [-10.0, 1.0], [25.0, 0.5]
    rows = theory.table(theory.Gaussians(np.array(mean), np.array(variances)), [0.0, 1.0, 5.0])
    with RunFolder.open(tmp_path, {"kind": "theory", "mean": mean, "variances": variances, "seed": 0}) as run:
        run.record_stage("theory", 0.1, rows)
        run.update_metadata(command="notbugs theory", finished=True)
    page = open_page(chromium, report.write(tmp_path), width=560)
    for row in rows:
        assert page.locator(f"td[data-epsilon='{row.epsilon}']").inner_text() == f"{row.condition_number:.3g}"
        assert f"{100 * row.robust_accuracy:.1f} %" in page.locator("table[aria-labelledby=table-caption]").inner_text()
    assert page.locator("#curves-chart svg").count() == 1 and page.locator("#metric-chart input[type=range]").count() == 1
    assert accessibility_problems(page) == []
    before = page.locator("#metric-chart svg").inner_html()
    slider, shown = page.locator("#metric-chart input"), page.locator("#metric-chart .frame")
    assert slider.get_attribute("aria-valuetext") == shown.inner_text() == "ε = 1.25"
    slider.fill("30")
    page.wait_for_selector("#metric-chart svg:has-text('ε = 5.00')")
    assert page.locator("#metric-chart svg").inner_html() != before
    assert slider.get_attribute("aria-valuetext") == shown.inner_text() == "ε = 5.00"
    page.set_viewport_size({"width": 390, "height": 800})
    box = shown.bounding_box()
    assert box and box["x"] + box["width"] <= 390 and page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
