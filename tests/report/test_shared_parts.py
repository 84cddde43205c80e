"""What all pages share, in a real browser: contents, tables, charts, the section about the run, print, accessibility."""

import csv
import io
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from PIL import Image
from playwright.sync_api import Browser, Page
from report.color_study import color_study
from report.conftest import HOSTILE, MEASURED, Counted, accessibility_problems, full_study, open_page, quick_study

from notbugs import report
from notbugs.report import render
from notbugs.report.pages import analyses
from notbugs.report.results import StudyResults
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.analyses import CorruptionRow, FourierRow, NTKAccuracyRow, NTKFeatureRow
from notbugs.runs.tables.row import Row, original_cell, plain_cell
from notbugs.study.catalog.models import ANALYZED_MODELS

pytestmark = pytest.mark.browser
A4 = 680  # its width in pixels without the margins of 15 mm
RATES = (0.3, 0.35, 0.6, 0.55)  # error rates, from the lowest to the highest frequency


def corruption_rows(seed: int) -> list[Row]:
    counted = Counted(0.7, seed)
    return [
        CorruptionRow(
            model=model, seed=seed, corruption=kind, severity=severity, correct=counted.correct, n=counted.n,
            accuracy=counted.accuracy, ci_low=counted.interval[0], ci_high=counted.interval[1],
        )
        for model in ANALYZED_MODELS
        for kind, severities in (("clean", (0,)), ("noise", range(1, 6)), ("fog", range(1, 6)))
        for severity in severities
    ]  # fmt: skip


def fourier_rows(seed: int) -> list[Row]:
    places = [(0, 1), (1, 0), (1, 1), (2, 2)]
    return [
        FourierRow(model=model, seed=seed, cycles_down=down, cycles_across=across, amplitude=1.0, error_rate=rate, n=500)
        for model in ("standard", "adversarial")
        for (down, across), rate in zip(places, RATES, strict=True)
    ]


def ntk_rows(seed: int) -> list[Row]:
    rows: list[Row] = [
        NTKFeatureRow(
            eigenvector=place, eigenvalue_share=0.1, seed=seed, class_name="1", sign=1, usefulness=0.5, usefulness_ci_low=0.4,
            usefulness_ci_high=0.6, robust_usefulness=-0.1 * place, robust_usefulness_ci_low=-1.0, robust_usefulness_ci_high=1.0,
            category="robust", significant=True, n=400, n_attacked=400, steps=20,
        )
        for place in range(6)
    ]  # fmt: skip
    accuracy = Counted(0.5, seed)
    ends = {"accuracy": accuracy.accuracy, "ci_low": accuracy.interval[0], "ci_high": accuracy.interval[1], "n": accuracy.n}
    about = {"norm": "l2", "attack": "PGD-40", "correct": accuracy.correct, "seed": seed, "eigenvectors": 10}
    return [*rows, *(NTKAccuracyRow(**about, **ends, epsilon=epsilon) for epsilon in (0.0, 1.5))]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a quick study with hostile names of classes and files."""
    return report.write(quick_study(tmp_path_factory.mktemp("quick") / "run"))


@pytest.fixture(scope="module")
def color(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a full study in color, of the size of a real one."""
    return report.write(color_study(tmp_path_factory.mktemp("color") / "run").folder)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a full study with analyses."""
    folder = tmp_path_factory.mktemp("full") / "run"
    return report.write(full_study(folder, 2, corruptions=corruption_rows, fourier=fourier_rows, ntk=ntk_rows).folder)


@pytest.fixture
def page(show: Callable[..., Page], written: Path) -> Page:
    """The page of a quick study, loaded anew, with the pointer in its corner."""
    return show(written)


@pytest.fixture(scope="module")
def chartless(chromium: Browser) -> Page:
    """A page that draws no charts, which take most of the time."""
    context = chromium.new_context(offline=True)
    context.add_init_script("delete window.DecompressionStream")
    return context.new_page()


@pytest.fixture
def tables(chartless: Page, written: Path) -> Page:
    """The page of a quick study with its tables, loaded anew."""
    chartless.goto("about:blank")
    chartless.goto(written.as_uri())
    chartless.wait_for_selector("html[data-ready]", state="attached")
    return chartless


# ---- contents and headings ---------------------------------------------------------------------------------------------------


def test_the_contents_list_every_section_beside_the_page_or_folded_above_it(show: Callable[..., Page], full: Path) -> None:
    wide = show(full, width=1400)
    titles = wide.locator("main h2").all_inner_texts()
    assert wide.locator(".contents a").all_inner_texts() == titles and len(titles) > 8
    for link in wide.locator(".contents a").all():
        assert wide.locator(f"h2{link.get_attribute('href')}").count() == 1
    aside, main = wide.locator(".contents").bounding_box(), wide.locator("main").bounding_box()
    assert aside and main and aside["x"] + aside["width"] <= main["x"] + 1
    wide.locator("#glossary").scroll_into_view_if_needed()
    wide.evaluate("document.getElementById('glossary').scrollIntoView()")
    wide.wait_for_function("document.querySelector('.contents [aria-current]')?.hash === '#glossary'")
    narrow = show(full, width=390)
    assert narrow.locator(".contents a").first.is_hidden()
    narrow.locator(".contents summary").click()
    narrow.get_by_role("link", name="Glossary").first.click()
    narrow.wait_for_function("Math.abs(document.getElementById('glossary').getBoundingClientRect().top) < 100")


def test_each_heading_is_a_link_to_itself_that_shows_when_it_has_the_focus(page: Page) -> None:
    heads = page.locator("main h2, main h3")
    assert heads.count() == page.locator("main :is(h2, h3) > a.anchor").count() > 5
    for head in heads.all():
        assert head.locator("a").get_attribute("href") == f"#{head.get_attribute('id')}"
    link = page.locator("#glossary a")
    sign = "one => getComputedStyle(one, '::after').content"
    assert "§" not in link.evaluate(sign)
    page.locator("#glossary").scroll_into_view_if_needed()
    page.locator("main a.anchor").first.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('a, button, .scroll, .chart')")
    link.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert "§" in link.evaluate(sign)
    assert page.locator("#glossary").inner_text() == "Glossary"


# ---- tables ------------------------------------------------------------------------------------------------------------------


def column(page: Page, number: int) -> list[str]:
    cells = page.locator(f"table[aria-labelledby=accuracy-caption] tbody tr > :nth-child({number})").all_inner_texts()
    return [cell.split("\n")[0].removesuffix(" %") for cell in cells]


def test_a_click_or_a_key_on_a_title_sorts_by_numbers_and_a_third_restores_the_order(tables: Page) -> None:
    before = column(tables, 2)
    title = tables.locator("table[aria-labelledby=accuracy-caption] thead th").nth(1)
    title.locator("button").click()
    assert title.get_attribute("aria-sort") == "ascending"
    assert column(tables, 2) == sorted(before, key=float) != before
    tables.keyboard.press("Enter")  # the button has the focus
    assert title.get_attribute("aria-sort") == "descending" and column(tables, 2) == sorted(before, key=float, reverse=True)
    tables.keyboard.press("Enter")
    assert title.get_attribute("aria-sort") is None and column(tables, 2) == before
    name = tables.locator("table[aria-labelledby=accuracy-caption] thead th").first
    name.locator("button").click()
    assert column(tables, 1) == sorted(column(tables, 1)) and tables.locator("[aria-sort]").count() == 1


@pytest.mark.parametrize(
    ("cells", "ascending"),
    [
        (["−3.0 [−4.0, 1.0]", "+12.5 [1.0, 2.0]", "–", "0.5"], ["−3.0", "0.5", "+12.5", "–"]),
        (["1,347", "90", "12,000", ""], ["90", "1,347", "12,000", ""]),
        (["2.5 h", "5.0 s", "3.0 min"], ["5.0 s", "3.0 min", "2.5 h"]),
        (["8/255", "0.02", "4/255"], ["4/255", "0.02", "8/255"]),
        (["set 10", "set 9", "–"], ["set 9", "set 10", "–"]),
        (["1e-24", "5e−06", "0.1"], ["1e-24", "5e−06", "0.1"]),
    ],
)
def test_what_cells_begin_with_is_compared(tables: Page, cells: list[str], ascending: list[str]) -> None:
    table = "table[aria-labelledby=accuracy-caption]"
    tables.evaluate(
        "([table, cells]) => [...document.querySelectorAll(`${table} tbody tr`)].forEach((row, place) => "
        "place < cells.length ? row.cells[1].textContent = cells[place] : row.remove())",
        [table, cells],
    )
    tables.locator(f"{table} thead button").nth(1).click()
    assert [cell.split(" [")[0] for cell in column(tables, 2)] == ascending


def test_a_table_is_copied_as_csv_markdown_and_latex(chromium: Browser, written: Path) -> None:
    page = open_page(chromium, written)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    bar = page.locator(".scroll:has(> table[aria-labelledby=accuracy-caption]) + .tools")

    def copied(name: str) -> str:
        bar.get_by_role("button", name=f"Copy the table as {name}").click()
        bar.locator("[role=status]", has_text="copied").wait_for()
        return str(page.evaluate("navigator.clipboard.readText()"))

    rows = list(csv.reader(io.StringIO(copied("CSV"))))
    assert rows[0][:5] == ["model", "clean (%)", "clean ci_low", "clean ci_high", "ε/2 = 0.75 (%)"]
    shown = StudyResults.read(written.parent).accuracy("adversarial")
    assert shown is not None
    line = next(row for row in rows if row[0].startswith("adversarial"))
    assert line[1:4] == [f"{100 * value:.1f}" for value in (shown.mean, shown.ci_low, shown.ci_high)]
    assert len(rows) == 1 + len(MEASURED) and {len(row) for row in rows} == {11}
    markdown = copied("Markdown").splitlines()
    assert markdown[0] == "| model | clean | ε/2 = 0.75 | ε = 1.5 | seeds |" and markdown[1] == "| :-- | --: | --: | --: | --: |"
    assert len(markdown) == 2 + len(MEASURED) and f"| {shown.cell} |" in "\n".join(markdown)
    latex = copied("LaTeX")
    assert latex.startswith("\\begin{tabular}{lrrrr}\n\\toprule\nmodel & clean & $\\varepsilon$/2 = 0.75 &")
    assert latex.count("\\\\\n") == 1 + len(MEASURED) and f"{shown.percent[:-1]}\\%" in latex
    page.context.close()


def test_pages_write_cells_as_tables_do(chromium: Browser) -> None:
    """Both pages that write CSV quote the same text as Python, which reads the answers."""
    templates = Path(render.__file__).parent / "templates"
    signs = [
        *("=1+1", "+1", "-1", "-1.5", "-1e5", "-1_0", "+٣", "@A", "\t", "\t5", "\r", "\n", " =1", "\ufeff=1", "\x85@x", "\x1c=1"),
        *("\u3000-x", "−1", "-Infinity", "＝1", "'=1", "''-1", "'tis", "", " ", "cat", "a=1", "-", "-1.png", "\u2028=1", "+0x10"),
    ]
    with closing(chromium.new_page()) as page:
        for name in ("tables.js.jinja", "review.html.jinja"):
            (plain,) = re.findall(r"const plain = (text => /\^'.*);", (templates / name).read_text(encoding="utf-8"))
            assert page.evaluate(f"texts => texts.map({plain})", signs) == [plain_cell(text) for text in signs]
            assert [original_cell(plain_cell(text)) for text in signs] == signs


def test_without_a_clipboard_the_text_is_there_and_marked(tables: Page) -> None:
    tables.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    tables.locator("main").get_by_role("button", name="Copy the table as CSV").first.click()
    area = tables.locator(".tools textarea")
    area.wait_for()
    assert area.evaluate("one => one === document.activeElement && one.value.slice(one.selectionStart, one.selectionEnd)") == (
        area.input_value()
    )
    assert area.input_value().startswith("model,")


def test_what_is_special_in_a_format_stays_text(tables: Page) -> None:
    tables.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    tables.evaluate(
        "document.querySelector('table[aria-labelledby=accuracy-caption] tbody th').textContent = 'a|b, \"c\" 5 % {x}_y\\\\z'"
    )
    texts = {}
    for name in ("CSV", "Markdown", "LaTeX"):
        tables.locator("main").get_by_role("button", name=f"Copy the table as {name}").first.click()
        texts[name] = tables.locator(".tools textarea").input_value()
    assert next(csv.reader(texts["CSV"].splitlines()[1:]))[0] == 'a|b, "c" 5 % {x}_y\\z'
    assert '| a\\|b, "c" 5 % {x}_y\\\\z |' in texts["Markdown"]
    for name in ("=1+1", "@SUM(1)", "+1+1 %", "x [=1, @2]"):
        tables.evaluate(
            "name => { document.querySelector('table[aria-labelledby=accuracy-caption] tbody th').textContent = name }", name
        )
        tables.locator("main").get_by_role("button", name="Copy the table as CSV").first.click()
        row = next(csv.reader(tables.locator(".tools textarea").input_value().splitlines()[1:]))
        assert not any(cell.startswith(("=", "+", "@", "-")) for cell in row), row
    assert 'a|b, "c" 5 \\% \\{x\\}\\_y\\textbackslash{}z &' in texts["LaTeX"]


# ---- charts ------------------------------------------------------------------------------------------------------------------


def test_the_keyboard_goes_from_mark_to_mark_and_the_figures_are_read_aloud(page: Page) -> None:
    chart, tooltip = page.locator("#accuracy-chart"), page.locator("#vg-tooltip-element")
    chart.focus()
    page.keyboard.press("End")
    last = tooltip.inner_text()
    page.keyboard.press("Home")
    texts = [tooltip.inner_text()]
    for _ in range(30):
        page.keyboard.press("ArrowRight")
        if tooltip.inner_text() == texts[-1]:
            break
        texts.append(tooltip.inner_text())
    assert len(texts) == 3 * len(MEASURED) + 1 and texts[-1] == last  # and the chance level
    assert "standard" in texts[1] and "97.4 %" in texts[1]
    status = page.locator("#accuracy-chart + [role=status]")
    assert status.inner_text().count(":") >= 3 and "accuracy:" in status.inner_text()
    assert page.locator("#accuracy-chart .pointed").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".vg-tooltip.visible").count() == 0 == page.locator(".pointed").count()


def test_each_chart_has_a_table_of_the_same_figures(show: Callable[..., Page], full: Path) -> None:
    page = show(full)
    charts = page.locator(".chart")
    assert charts.count() > 6
    for chart in charts.all():
        figure = page.locator(f"figure:has(#{chart.get_attribute('id')})")
        toggle = figure.locator("button[aria-expanded]")
        toggle.click()
        assert figure.locator(".chart-table tbody tr").count() >= 2, chart.get_attribute("id")
        toggle.click()
        assert figure.locator(".chart-table").count() == 0 and figure.locator(".tools").count() == 1
    figure = page.locator("figure:has(#fourier-0)")
    figure.locator("button[aria-expanded]").click()
    assert set(figure.locator(".chart-table tr td:last-child").all_inner_texts()) == {f"{100 * rate:.1f} %" for rate in RATES}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_chart_is_saved_as_svg_and_png_with_the_colors_of_the_light_page(
    show: Callable[..., Page], written: Path, tmp_path: Path, scheme: str
) -> None:
    page = show(written, scheme=scheme)
    saved = {}
    for kind in ("SVG", "PNG"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save the chart accuracy as {kind}").click()
        saved[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(saved[kind])
    text = saved["SVG"].read_text(encoding="utf-8")
    assert saved["SVG"].name == "accuracy.svg" and "var(--" not in text
    assert "#0072b2" in text.lower() and 'fill="#fff"' in text and text.startswith("<svg")
    image = Image.open(saved["PNG"]).convert("RGB")
    colors = {color for _, color in image.getcolors(1_000_000) or []}
    assert image.width > 2000 and image.getpixel((2, 2)) == (255, 255, 255) and (0x00, 0x72, 0xB2) in colors
    assert (0xD5, 0x5E, 0x00) in colors and len(colors) > 20


def test_without_decompression_the_page_says_so_and_has_its_tables(tables: Page) -> None:
    assert "charts could not be drawn" in tables.locator("main > .banner").inner_text()
    assert tables.locator("th button").count() > 5


def test_without_javascript_there_are_contents_tables_and_a_word_on_the_charts(chromium: Browser, written: Path) -> None:
    context = chromium.new_context(offline=True, java_script_enabled=False, viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(written.as_uri())
    assert page.locator(".contents a").first.is_visible() and page.locator("td[data-model]").count() == 3 * len(MEASURED)
    assert "The charts need JavaScript" in page.locator("body").inner_text()
    context.close()


def test_another_release_of_the_chart_library_draws_the_same(
    show: Callable[..., Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "VEGA_ALONE", ("none",))
    page = show(report.write(quick_study(tmp_path / "run", {"standard": MEASURED["standard"]}, seeds=1)))
    assert page.locator("#accuracy-chart svg .mark-symbol.role-mark path").count() == 3


def test_maps_of_frequencies_have_limits_that_fit_and_are_the_same_for_all_models(full: Path) -> None:
    charts = analyses.sections(StudyResults.read(full.parent))[1]
    for place in range(2):
        encoding: dict[str, dict[str, dict[str, object]]] = charts[f"fourier-{place}"]["encoding"]  # type: ignore[assignment]
        assert encoding["color"]["scale"]["domain"] == pytest.approx([min(RATES), max(RATES)])


# ---- the run -----------------------------------------------------------------------------------------------------------------


def test_the_page_says_what_the_run_was_made_with_and_links_to_its_files(show: Callable[..., Page], tmp_path: Path) -> None:
    folder = quick_study(tmp_path / "study")
    with RunFolder.open(folder, {"kind": "study", "dataset": "digits"}) as run:
        run.update_metadata(
            fingerprint="0123abcd", versions={"python": "3.11.7", "torch": "2.13.0"}, started="2026-11-26T10:12:05+00:00"
        )
    (folder / "models").mkdir()
    (folder / "models/a 100%.safetensors").touch()
    (folder / "datasets/robust-seed1").mkdir(parents=True)
    (folder / "datasets/<b>").mkdir()
    report.write(quick_study(tmp_path / "<i> other #1"))
    page = show(report.write(folder))
    about = page.locator("section:has(#about)")
    text = about.inner_text()
    for part in (
        "notbugs run digits",
        "2026-11-26 10:12:05 UTC",
        "0123abcd",
        "notbugs 0.2.0, python 3.11.7, torch 2.13.0",
        "0, 1, 2",
    ):
        assert part in text
    links = about.locator("dd a")
    for link in links.all():
        assert link.evaluate("one => one.protocol") == "file:"
    targets = links.evaluate_all("all => all.map(one => decodeURIComponent(new URL(one.href).pathname))")
    assert all(Path(target).exists() for target in targets)
    for name in ("tables/accuracy.csv", "tables/accuracy.parquet", "models/a 100%.safetensors", "datasets/<b>"):
        assert str(folder / name) in targets
    assert str(tmp_path / "<i> other #1/report.html") in targets and str(tmp_path / "index.html") in targets
    assert not any("-seed1" in target for target in targets)
    about.locator("summary", has_text="How to cite").click()
    citation = about.locator("pre").last.inner_text()
    cited = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8"))
    paper = cited["references"][0]
    for part in (cited["title"], cited["authors"][0]["name"], "0.2.0", paper["title"], str(paper["year"]), paper["url"]):
        assert part in citation
    assert all(f"{author['family-names']}, {author['given-names']}" in citation for author in paper["authors"])
    assert len(re.findall(r"^@(software|inproceedings)\{\w+,$", citation, re.MULTILINE)) == 2


def test_a_full_study_in_color_is_small_enough_to_be_sent_and_its_pictures_good(color: Path) -> None:
    page = color.read_text(encoding="utf-8")
    assert len(re.findall("data:image/webp;base64", page)) == 120 and "WebP of quality 90; the files" in page
    assert color.stat().st_size < 690_000
    charts = re.search(r'id="packed-charts">([^<]*)', page)
    assert charts and len(charts[1]) < 30_000  # 90 KB with eight fields for each frequency of the seven maps


# ---- paper, small screens, assistive technology ------------------------------------------------------------------------------


def test_on_paper_nothing_is_cut_off(show: Callable[..., Page], full: Path, written: Path, color: Path) -> None:
    for path in (full, written, color):
        page = show(path, scheme="dark")
        assert re.search(rb"/MediaBox \[0 0 59[45]\S* 84[12]", page.pdf(prefer_css_page_size=True))
        page.emulate_media(media="print")
        page.set_viewport_size({"width": A4, "height": 900})
        page.wait_for_timeout(200)
        beyond = page.evaluate("""() => [...document.querySelectorAll('header *, main *, footer *')]
            .filter(one => one.getClientRects().length && !one.closest('.unseen'))
            .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
            .map(one => one.outerHTML.slice(0, 80))""")
        assert beyond == []
        assert page.evaluate("document.documentElement.scrollWidth") == A4  # or Chromium prints the whole page smaller
        assert page.locator(".tools, .contents").first.is_hidden()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 252)"  # light, in dark mode too


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 390)])
def test_axe_finds_nothing(show: Callable[..., Page], full: Path, written: Path, scheme: str, width: int) -> None:
    for path in (full, written):
        page = show(path, scheme=scheme, width=width)
        page.locator("button[aria-expanded]").first.click()
        assert accessibility_problems(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_finds_what_is_there(page: Page) -> None:
    page.evaluate("document.querySelector('main img, main table').outerHTML = '<img src=\"data:,\">'")
    assert accessibility_problems(page)[0].startswith("image-alt")


def test_class_names_do_nothing_in_tables_of_charts(page: Page) -> None:
    for toggle in page.locator("button[aria-expanded]").all():
        toggle.click()
    assert page.locator("main script, main [onload], main b:has(b)").count() == 0 and page.title() != "taken"
    assert HOSTILE[0] in page.locator("main").inner_text()
