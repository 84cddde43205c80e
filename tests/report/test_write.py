"""The report of a study in a real browser, without a network."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page
from report.conftest import HOSTILE, MEASURED, accuracy_row, full_study, open_page, quick_study, wilson

from notbugs import report
from notbugs.errors import InputError, NotbugsWarning
from notbugs.report import tables
from notbugs.report.findings import findings
from notbugs.report.next_steps import next_steps
from notbugs.report.pages.study import PICTURE_TITLES
from notbugs.report.results import StudyResults
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import PictureRow


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(quick_study(tmp_path_factory.mktemp("run"), dataset='<img src="x" onerror="document.title=1">'))


@pytest.fixture(scope="module")
def opened(chromium: Browser, written: Path) -> Page:
    """One page for all tests that only look at it."""
    return open_page(chromium, written)


@pytest.mark.browser
def test_opens_without_a_network_and_hostile_names_stay_text(opened: Page, written: Path) -> None:
    page = opened
    assert page.title() == '<img src="x" onerror="document.title=1"> · notbugs'
    assert page.locator("h1").inner_text() == '<img src="x" onerror="document.title=1">'
    labels = page.locator(".pictures .label").all_inner_texts()
    assert labels[0] == HOSTILE[0] and HOSTILE[1] in labels and HOSTILE[3] in labels
    assert page.locator("[onerror], [onload], main script").count() == 0
    assert written.stat().st_size < 450_000


@pytest.mark.browser
def test_pictures_mark_misclassified_images_and_show_nothing_from_outside(opened: Page, written: Path) -> None:
    page = opened
    pictures = page.locator(".pictures img")
    assert pictures.count() == 10 and page.locator(".pictures .gone").count() == 2  # of 12, two name other files
    assert pictures.evaluate_all("all => all.every(one => one.naturalWidth === 8 && one.alt.length > 3)")
    assert page.locator(".pictures .wrong").count() == 4 and page.locator(".pictures .right").count() == 12
    assert page.locator(".pictures .wrong").first.evaluate("one => getComputedStyle(one, '::before').content") == '"✗\xa0"'
    assert "c2VjcmV0" not in written.read_text(encoding="utf-8")  # "secret" in base64


FITS = "one => one.scrollWidth <= one.clientWidth"


@pytest.mark.browser
def test_the_pictures_of_a_study_fit_a_wide_window_and_names_of_models_a_narrow_one(
    show: Callable[..., Page], written: Path
) -> None:
    page = show(written, width=1400)
    widened = "row => { while (row.cells.length < 9) row.append(row.cells[2].cloneNode(true)); return row.cells.length; }"
    columns = page.locator(".pictures tr").evaluate_all(f"rows => rows.map({widened})")
    accuracy = page.locator(".scroll:has(> [aria-labelledby=accuracy-caption])")
    assert {*columns} == {9} and page.locator(".scroll:has(> .pictures)").evaluate(FITS)
    assert accuracy.evaluate(FITS) and accuracy.locator("th:last-child").first.is_visible()
    page.set_viewport_size({"width": 390, "height": 800})
    assert accuracy.evaluate(FITS) and not accuracy.locator("th:last-child").first.is_visible()
    widths = accuracy.locator("tbody th").evaluate_all("all => all.map(one => one.clientWidth)")
    assert min(widths) >= 120


@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 1000, 390])
def test_whether_a_prediction_is_right_stands_on_the_line_of_its_class(
    show: Callable[..., Page], tmp_path: Path, width: int
) -> None:
    folder = quick_study(tmp_path / "run", seeds=1, complete=False)
    (folder / "pictures").mkdir()
    Image.new("L", (28, 28), 90).save(folder / "pictures" / "a.png")
    rows = [
        PictureRow(file="0/0.png", column=column, picture="pictures/a.png", label="7", standard="frog", adversarial="7")
        for column in PICTURE_TITLES
        if column != "perturbation"
    ]
    with RunFolder.open(folder, {"kind": "study", "dataset": "digits"}) as run:
        run.record_stage("pictures", 0.1, rows)
    page = show(report.write(folder), width=width)
    heights = page.locator(".predictions > *").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert len(heights) == 6 * len(rows) and max(heights) == min(heights)
    assert width < 1400 or page.locator(".scroll:has(> .pictures)").evaluate(FITS)


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(show: Callable[..., Page], written: Path, width: int) -> None:
    page = show(written, width=width)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_charts_have_a_mark_per_figure_and_tooltips(show: Callable[..., Page], written: Path) -> None:
    page = show(written)
    marks = page.locator("#accuracy-chart svg .mark-symbol.role-mark path")
    assert marks.count() == 3 * len(MEASURED)
    assert page.locator(".small-charts svg").count() == len(MEASURED)
    assert page.locator("#training-0 .mark-line path").count() == 3  # one per seed
    marks.nth(4).scroll_into_view_if_needed()
    marks.nth(4).hover()
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert "adversarial" in tooltip.inner_text() and "80.4 %" in tooltip.inner_text()
    page.locator("#training-0").scroll_into_view_if_needed()
    page.locator("#training-0 .mark-symbol.role-mark path").nth(1).hover(force=True)
    page.wait_for_selector("#vg-tooltip-element:has-text('epoch')")
    assert "25.0 %" in tooltip.inner_text()


@pytest.mark.browser
def test_the_first_screen_has_the_headline_the_figures_and_examples(opened: Page, written: Path) -> None:
    page = opened
    assert page.locator(".headline").inner_text().startswith("Standard training gives a classifier that is easily fooled")
    assert page.locator(".tiles dd b").all_inner_texts() == ["97.4 %", "0.0 %", "60.4 %", "20.4 %", "88.4 %"]
    meant = page.locator(".tiles dd span").all_inner_texts()
    below = "below chance (25.0 %)"
    assert meant[0] == f"! 97.4 percentage points below clean accuracy, {below}"
    assert meant[1:3] == ["✓ above standard training", "• above standard training"]
    assert meant[3] == "• above chance (25.0 %)"
    captions = page.locator(".examples figcaption").all_inner_texts()
    assert captions[0] == f"✓ {HOSTILE[0]} (97 %) → ✗ {HOSTILE[1]} (52 %)\nL2 0.75, that is 0.5 ε; perturbation × 3"
    assert captions[1] == f"✗ {HOSTILE[1]} without a perturbation; label {HOSTILE[0]}"
    assert page.locator(".examples img").count() == 4 and page.locator(".examples .gone").count() == 2  # outside of the run


PARTS = (".headline", ".tiles", "#accuracy-chart svg", ".examples img", ".todo ol", "#summary > ul", "#findings")


@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 1000, 390])
def test_what_was_found_the_curves_and_the_pictures_come_before_what_to_do(
    show: Callable[..., Page], written: Path, width: int
) -> None:
    page = show(written, width=width)
    boxes = {part: page.locator(part).first.evaluate("one => one.getBoundingClientRect().toJSON()") for part in PARTS}
    tops = [boxes[part]["top"] for part in PARTS]
    if width > 390:  # pictures beside the curves; all in the first screen of 1400 x 900 pixels
        assert width < 1400 or max(boxes[part]["bottom"] for part in PARTS[:4]) < 900
        assert boxes[PARTS[3]]["left"] > boxes[PARTS[2]]["right"]
        del tops[3]
    assert tops == sorted(tops)
    assert page.locator(".robust-data").inner_text().startswith("Standard training on D_R")
    assert page.locator("#examples").count() == 1 == page.locator(".contents a[href='#examples']").count()


@pytest.mark.browser
def test_points_of_a_weaker_attack_are_hollow_and_the_page_says_what_to_do(show: Callable[..., Page], tmp_path: Path) -> None:
    folder = quick_study(tmp_path / "run", seeds=1, complete=False)
    with RunFolder.open(folder, {"kind": "study", "dataset": "digits"}) as run:
        weaker = [
            accuracy_row("standard", correct, 500, wilson(correct, 500), 0, epsilon=epsilon, attack="ensemble-quick v6")
            for epsilon, correct in ((0.375, 300), (2.25, 0))
        ]
        run.record_stage("curve", 0.0, weaker)
        run.update_metadata(options={"limit": 90})
        others = accuracy_row("undertrained", 100, 500, wilson(100, 500), 0, epsilon=1.5, attack="ensemble-quick v6")
        run.record_stage("transfer", 0.0, [others])
        run.update_metadata(full=True)  # so that it is in no table here
    page = show(report.write(folder))
    points = page.locator("#accuracy-chart .mark-symbol.role-mark path")
    fills = points.evaluate_all("all => all.map(one => getComputedStyle(one).fill)")
    hollow = [fill for fill in fills if fill in ("none", "rgba(0, 0, 0, 0)")]
    assert len(hollow) == len(weaker) and len(fills) == 3 * len(MEASURED) + len(weaker)
    assert "Hollow points: ensemble-quick v6, a weaker attack" in page.locator("#summary figcaption").inner_text()
    assert "chance level: 25.0 %" in page.locator("#accuracy-chart svg").text_content()  # type: ignore[operator]
    assert "One training run (seed)" in page.locator("#summary .note").inner_text()
    assert "90 training images (--limit)" in page.locator(".meta").inner_text()
    steps = page.locator("section:has(#next) li")
    assert steps.count() == len([*next_steps(StudyResults.read(folder))]) >= 5
    assert f"notbugs run --seeds 3 --out {folder}" in steps.locator("pre").all_inner_texts()
    page.get_by_role("link", name="all steps").click()
    assert page.evaluate("location.hash") == "#next"


@pytest.mark.browser
def test_light_and_dark_are_both_legible(show: Callable[..., Page], written: Path) -> None:
    """Contrast of every text, chart texts included, against the page: at least 4.5, as WCAG AA requires."""
    backgrounds = {}
    for scheme in ("light", "dark"):
        page = show(written, scheme=scheme)
        backgrounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        colors = page.evaluate("""() => [...new Set([...document.querySelectorAll('main *, header *, footer *')]
            .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
            .map(one => getComputedStyle(one)[one.closest('svg') ? 'fill' : 'color']))]""")
        assert len(colors) >= 4
        for color in colors:
            assert contrast(color, backgrounds[scheme]) >= 4.5, (scheme, color)
        shapes = page.locator("#accuracy-chart .mark-symbol.role-mark path")
        found = set(shapes.evaluate_all("all => all.map(one => getComputedStyle(one).fill)"))
        assert len(found) == len(MEASURED)  # each model has its color
        for color in found:
            assert contrast(color, backgrounds[scheme]) >= 3, (scheme, color)
    assert backgrounds["light"] != backgrounds["dark"]


def contrast(one: str, other: str) -> float:
    def luminance(color: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dim = sorted([luminance(one), luminance(other)], reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.browser
def test_every_part_is_accessible_to_screen_reader_and_keyboard(show: Callable[..., Page], written: Path) -> None:
    page = show(written)
    assert page.locator("table").count() == page.locator("table:has(thead th[scope=col])").count() >= 5
    assert page.locator("tbody tr:not(:has(th[scope=row]))").count() == 0
    assert page.evaluate(
        "[...document.querySelectorAll('[id]')].length === new Set([...document.querySelectorAll('[id]')].map(x => x.id)).size"
    )
    named = "one => (document.getElementById(one.getAttribute('aria-labelledby')) || {textContent: ''}).textContent.length > 10"
    assert page.locator(".scroll[tabindex='0']").evaluate_all(f"all => all.length > 3 && all.every({named})")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the findings"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.browser
def test_the_figures_are_those_of_the_table(opened: Page, written: Path) -> None:
    with (written.parent / "tables/accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    page = opened
    cells = page.locator("td[data-model]").all()
    assert len(cells) == 3 * len(MEASURED)
    for cell in cells:
        model, epsilon = cell.get_attribute("data-model"), (0, 0.75, 1.5)[int(cell.get_attribute("data-radius") or 9)]
        shares = [
            float(row["accuracy"])
            for row in rows
            if (row["model"], row["set"], float(row["epsilon"])) == (model, "test", epsilon)
        ]
        assert len(shares) == 3 and cell.locator("strong").inner_text() == f"{100 * sum(shares) / 3:.1f} %"
    results = StudyResults.read(written.parent)
    heads = page.locator("table[aria-labelledby=accuracy-caption] thead th").all_inner_texts()
    assert heads == [*tables.accuracy_table(results)[0][:-1], "seeds"]
    shown = " ".join(page.locator(".answers").inner_text().replace("\u00a0", " ").split())
    for finding in findings(results):
        assert f"{finding.question} " in shown and finding.text in shown


@pytest.mark.slow
@pytest.mark.browser
def test_an_unfinished_run_says_so_and_shows_what_is_there(show: Callable[..., Page], tmp_path: Path) -> None:
    path = report.write(quick_study(tmp_path / "part", {"standard": MEASURED["standard"]}, seeds=1, complete=False))
    page = show(path)
    assert "This run is not finished. 1 stage is done" in " ".join(page.locator(".banner").inner_text().split())
    assert page.locator(".answers > div").count() == 1 and page.locator("#pictures").count() == 0
    RunFolder.open(tmp_path / "empty", {}).close()
    empty = report.write(tmp_path / "empty").read_text(encoding="utf-8")
    assert "Nothing that answers a question has been measured yet" in empty and "packed-vega" not in empty


@pytest.mark.browser
def test_a_finished_run_has_no_banner_and_the_command_that_reproduces_it(opened: Page, written: Path) -> None:
    page = opened
    assert page.locator(".banner").count() == 0
    assert page.locator("section:has(#about) pre").first.inner_text() == 'notbugs run <img src="x" onerror="document.title=1">'
    assert json.loads((written.parent / "run.json").read_text())["finished"]
    assert page.locator("#glossary + dl dt").count() >= 10
    assert "ensemble-standard v6: gradient attacks on several losses" in page.locator("section:has(#method)").inner_text()


def test_a_folder_without_a_run_raises_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold a run\.json"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_of_a_full_study_has_all_findings_and_sections(show: Callable[..., Page], tmp_path: Path) -> None:
    results = full_study(tmp_path, 2)
    page = show(report.write(tmp_path), width=390)
    text = page.locator(".answers").inner_text()
    for finding in findings(results):
        assert finding.question in text
    for section in ("accuracy", "controls", "transferability", "error-consistency", "glossary", "method"):
        assert page.locator(f"h2#{section}").count() == 1
    for chart in ("sweep-chart", "correlation-chart"):
        assert page.locator(f"#{chart} svg").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.slow
def test_a_report_is_written_without_torch(tmp_path: Path) -> None:
    folder = full_study(tmp_path / "run", 1).folder
    bundle = "render._packed_vega = str"  # of Vega, not of the package: two seconds
    code = f"import sys; from notbugs.report import render, write; {bundle}; write(sys.argv[1]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_pictures_that_are_missing_or_damaged_are_said_and_left_out(tmp_path: Path) -> None:
    folder = quick_study(tmp_path / "run")
    whole = report.write(folder).read_text(encoding="utf-8")
    picture = folder / "pictures/a.png"
    picture.write_bytes(picture.read_bytes()[:-10])
    with pytest.warns(NotbugsWarning, match=r"left out of the report: pictures/a\.png; put back what was in pictures/"):
        damaged = report.write(folder).read_text(encoding="utf-8")
    assert "data:image/png" in whole and "data:image/png" not in damaged
