"""The explorer in a real browser: filters, one file, keys, links, export, missing pictures."""

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from cli.conftest import call_here
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from report import explorer_runs
from report.explorer_runs import (
    CATEGORIES,
    CLASSES,
    HOSTILE,
    SIDE,
    chartless_page,
    explorer_run,
    file_names,
    file_rows,
    original,
    perturbed,
)
from report.test_write import contrast

from notbugs import report
from notbugs.files.selection import read_list
from notbugs.report import explorer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

COUNT = 240
GRID, DIALOG, STATUS, FORM = "#explorer-grid", "#explorer-dialog", "#explorer-status", "#explorer-filters"
PIXELS = """canvas => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    return [...copy.getImageData(0, 0, canvas.width, canvas.height).data];
}"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with its pictures inside."""
    return report.write(explorer_run(tmp_path_factory.mktemp("explorer") / "run", COUNT))


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that loads its pictures from the folder beside it."""
    folder = explorer_run(tmp_path_factory.mktemp("beside") / "run", COUNT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explorer, "EMBEDDED_BYTES", 1000)
        return chartless_page(folder)


@pytest.fixture(scope="module")
def plain(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That page without its chart, which has no part in what the explorer does."""
    return chartless_page(Path(shutil.copytree(written.parent, tmp_path_factory.mktemp("plain") / "run")))


@pytest.fixture
def page(tab: Page, plain: Path) -> Iterator[Page]:
    yield from opened(tab, plain.as_uri())


def opened(page: Page, address: str, *, width: int = 1280, scheme: Any = "light") -> Iterator[Page]:
    """A page without a network, loaded anew, ready to use; fails if it logs something or is taken over."""
    page.goto("about:blank")
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    problems: list[str] = []
    listeners: dict[Any, Callable[[Any], None]] = {
        "console": lambda message: problems.append(message.text),
        "pageerror": lambda error: problems.append(str(error)),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(address, wait_until="commit")
    page.wait_for_selector(f"{GRID}[data-ready]", timeout=60_000)
    yield page
    assert problems == [] and page.title() == "The files of birds · notbugs"
    for event, listener in listeners.items():
        page.remove_listener(event, listener)


def shown(page: Page) -> list[str]:
    """The names of the files in the grid, in order; only those that are elements."""
    cells = page.locator(f"{GRID} [role=option]")
    order = cells.evaluate_all("all => all.map(one => [Number(one.dataset.position), one.title])")
    return [name for _, name in sorted(order)]


def pixels(page: Page, label: str) -> np.ndarray:
    """RGB of the picture with this accessible name, (H, W, 3)."""
    canvas = page.locator(f'{DIALOG} canvas[aria-label="{label}"]')
    expect(canvas).to_have_js_property("width", SIDE)
    values: np.ndarray = np.array(canvas.evaluate(PIXELS)).reshape(SIDE, SIDE, 4)[:, :, :3]
    return values


def open_file(page: Page, index: int) -> None:
    page.evaluate("name => { location.hash = '#file=' + encodeURIComponent(name); }", file_names(COUNT)[index])
    expect(page.locator(f"{DIALOG} h3")).to_have_text(file_names(COUNT)[index])


# ---- filters ---------------------------------------------------------------------------------------------------------------


def test_filters_and_sorting_leave_the_files_that_the_rows_say(page: Page) -> None:
    rows = file_rows(COUNT)
    assert page.inner_text(STATUS) == f"{COUNT} of {COUNT} files"
    page.select_option(f"{FORM} [name=label]", CLASSES[1])
    page.select_option(f"{FORM} [name=category]", CATEGORIES[1])
    wanted = [row for row in rows if (row.label, row.category) == (CLASSES[1], CATEGORIES[1])]
    assert page.inner_text(STATUS) == f"{len(wanted)} of {COUNT} files"
    page.select_option(f"{FORM} [name=score]", "robust_margin")
    page.fill(f"{FORM} [name=min]", "0.5")
    page.fill(f"{FORM} [name=max]", "2")
    page.select_option(f"{FORM} [name=sort]", "robust_margin")
    page.select_option(f"{FORM} [name=direction]", "down")
    wanted = sorted((row for row in wanted if 0.5 <= row.robust_margin <= 2), key=lambda row: -row.robust_margin)
    assert 3 < len(wanted) < 60 and shown(page) == [row.file for row in wanted]
    assert f"robust margin {wanted[0].robust_margin:.3g}" in page.locator("[role=option]").first.inner_text().replace("−", "-")
    page.fill(f"{FORM} [name=text]", wanted[1].file[-9:].upper())
    assert shown(page) == [wanted[1].file] and page.inner_text(STATUS) == f"1 of {COUNT} files"
    page.click(f"{FORM} button[type=reset]")
    expect(page.locator(STATUS)).to_have_text(f"{COUNT} of {COUNT} files")
    assert shown(page)[:9] == file_names(COUNT)[:9]
    page.fill(f"{FORM} [name=text]", "no such file")
    assert shown(page) == [] and page.locator("#explorer-export-shown").is_disabled()
    page.focus(GRID)
    page.keyboard.press("Enter")
    assert not page.locator(DIALOG).is_visible()


def test_only_what_is_visible_is_an_element(tab: Page, tmp_path: Path) -> None:
    path = chartless_page(explorer_run(tmp_path / "run", 3000, pictures=False))
    for page in opened(tab, path.as_uri()):
        assert page.locator("[role=option]").count() < 150
        page.locator(GRID).evaluate("grid => { grid.scrollTop = grid.scrollHeight; }")
        expect(page.locator(f"#explorer-file-{3000 - 1}")).to_be_visible()
        assert page.locator("[role=option]").count() < 150 and shown(page)[-1] == file_names(3000)[-1]
        assert page.locator(f"#explorer-file-{3000 - 1}").get_attribute("aria-posinset") == "3000"


# ---- one file --------------------------------------------------------------------------------------------------------------


def test_one_click_shows_everything_of_a_file(page: Page) -> None:
    name, row = file_names(COUNT)[7], file_rows(COUNT)[7]
    page.click("#explorer-file-7")
    text = page.inner_text(DIALOG)
    assert page.inner_text(f"{DIALOG} h3") == name and f"label {row.label} · category {row.category}" in text
    assert np.array_equal(pixels(page, f"{name}, original"), original(COUNT)[7].permute(1, 2, 0).numpy())
    assert np.array_equal(pixels(page, f"D_R of {name}"), 255 - original(COUNT)[7].permute(1, 2, 0).numpy())
    assert f"{CLASSES[1]} → {CLASSES[2]}, L2 norm 0.5" in text
    predictions = page.locator(".explorer-predictions tbody tr")
    assert predictions.nth(0).inner_text().split("\n")[0].split("\t") == ["Standard model", f"{CLASSES[2]}"]
    assert page.locator(".explorer-predictions .wrong").count() == page.locator(".explorer-predictions .right").count() == 1
    assert "a rank" in text and "high: <u>good</u>" in text and f"{row.robustness:.3g}" in text
    below = sum(other.robustness < row.robustness for other in file_rows(COUNT))
    assert f"above {round(100 * below / COUNT)} % of all files" in text
    neighbors = page.locator(".explorer-neighbors button")
    assert neighbors.evaluate_all("all => all.map(one => one.title)") == [file_names(COUNT)[i] for i in (8, 9, 10, 6, 5, 4)]
    neighbors.nth(1).click()
    assert page.inner_text(f"{DIALOG} h3") == file_names(COUNT)[9]
    page.go_back()
    expect(page.locator(f"{DIALOG} h3")).to_have_text(name)


def test_the_slider_blends_and_the_perturbation_is_exact(page: Page) -> None:
    open_file(page, 8)
    name = file_names(COUNT)[8]
    first, second = (images(COUNT)[8].permute(1, 2, 0).int().numpy() for images in (original, perturbed))
    difference = second - first
    factor = 1
    while 2 * factor * np.abs(difference).max() <= 127:
        factor *= 2
    assert factor in (8, 16)
    found = pixels(page, f"Perturbation of {name}, times {factor}")
    assert np.array_equal(found, 128 + factor * difference) and f"Perturbation × {factor}" in page.inner_text(DIALOG)
    blend, slider = f"{name}, from original to adversarial", page.locator(f"{DIALOG} input[type=range]")
    assert np.array_equal(pixels(page, blend), second)
    slider.fill("0")
    assert np.array_equal(pixels(page, blend), first)
    slider.fill("50")
    assert np.abs(pixels(page, blend) - (first + second) / 2).max() <= 1
    slider.focus()
    page.keyboard.press("ArrowRight")  # moves the slider, not to the next file
    assert slider.input_value() == "51" and page.inner_text(f"{DIALOG} h3") == name


def test_files_without_an_adversarial_example_say_why(page: Page) -> None:
    open_file(page, 2)
    assert f"The model predicts {CLASSES[2]} as it is: no perturbation is needed." in page.inner_text(DIALOG)
    open_file(page, 3)
    assert "None was found that is misclassified after rounding to 8 bits." in page.inner_text(DIALOG)
    open_file(page, 1)
    assert page.locator(".explorer-neighbors").first.inner_text() == "none"


# ---- keys and links --------------------------------------------------------------------------------------------------------


def test_keys_move_open_select_and_close(page: Page) -> None:
    columns = len({*page.locator("[role=option]").evaluate_all("all => all.map(one => one.style.left)")})
    page.focus(GRID)
    active = f"#{page.get_attribute(GRID, 'aria-activedescendant')}"
    assert page.locator(active).get_attribute("title") == HOSTILE[0]
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.get_attribute(GRID, "aria-activedescendant") == f"explorer-file-{columns + 1}"
    page.keyboard.press(" ")
    assert page.locator(f"#explorer-file-{columns + 1}").get_attribute("aria-selected") == "true"
    page.keyboard.press("Enter")
    assert page.locator(DIALOG).is_visible() and page.locator(f"{DIALOG} input[type=checkbox]").is_checked()
    assert page.evaluate("document.activeElement.id") == "explorer-title"
    page.keyboard.press("ArrowRight")
    assert page.inner_text(f"{DIALOG} h3") == file_names(COUNT)[columns + 2]
    page.locator(f"{DIALOG} [aria-label='Previous file']").click()
    page.keyboard.press("Enter")  # the focus is still on the button
    assert page.inner_text(f"{DIALOG} h3") == file_names(COUNT)[columns]
    page.keyboard.press("Escape")
    page.wait_for_function("location.hash === ''")  # a dialog's event `close` comes after the key
    assert not page.locator(DIALOG).is_visible()
    assert page.evaluate("document.activeElement.id") == "explorer-grid"
    assert page.get_attribute(GRID, "aria-activedescendant") == f"explorer-file-{columns}"
    page.keyboard.press("End")
    expect(page.locator(f"#explorer-file-{COUNT - 1}")).to_be_in_viewport()
    page.keyboard.press("Home")
    expect(page.locator("#explorer-file-0")).to_be_in_viewport()


@pytest.mark.parametrize("index", [0, 1, 3, 4, 20])
def test_a_link_opens_its_file_and_hostile_names_stay_text(tab: Page, plain: Path, index: int) -> None:
    name = file_names(COUNT)[index]
    for page in opened(tab, f"{plain.as_uri()}#file={quote(name, safe='')}"):
        assert page.text_content(f"{DIALOG} h3") == name
        assert page.locator(f"{DIALOG} img, {DIALOG} script, {DIALOG} b i, {GRID} img").count() == 0
        page.locator(f"{DIALOG} [aria-label='Close']").click()
        assert page.locator(f"#explorer-file-{index}").get_attribute("title") == name


def test_a_link_to_no_file_says_so(tab: Page, plain: Path) -> None:
    for page in opened(tab, f"{plain.as_uri()}#file=none%zz"):
        assert page.inner_text(STATUS) == "No file is called none%zz." and not page.locator(DIALOG).is_visible()


# ---- export ----------------------------------------------------------------------------------------------------------------


def test_the_exported_list_is_one_that_the_command_reads(page: Page, tmp_path: Path) -> None:
    with page.expect_download() as download:
        page.click("#explorer-export-shown")
    assert download.value.suggested_filename == "files.txt"
    download.value.save_as(tmp_path / "files.txt")
    assert read_list(tmp_path / "files.txt") == file_names(COUNT)
    page.click("#explorer-file-9", modifiers=["Control"])
    page.click("#explorer-file-1", modifiers=["Control"])
    assert not page.locator(DIALOG).is_visible()
    page.click("#explorer-file-3")
    page.check(f"{DIALOG} input[type=checkbox]")
    page.keyboard.press("Escape")
    page.fill(f"{FORM} [name=text]", "hidden by this filter")  # what was selected stays selected
    with page.expect_download() as download:
        page.get_by_role("button", name="Export selected (3)").click()
    download.value.save_as(tmp_path / "selected.txt")
    assert read_list(tmp_path / "selected.txt") == [file_names(COUNT)[index] for index in (1, 3, 9)]
    page.click("#explorer-clear")
    assert page.locator("#explorer-export-selected").is_disabled() and not page.locator("#explorer-clear").is_visible()


def test_a_selection_becomes_a_data_set(tab: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the page to `files.txt` to `notbugs split --files`, also with names that a line cannot hold as they are."""
    names = ['"cat"/0.png', '"cat"/ "quoted" .png', '"cat"/%41&#file=b.png', '"cat"/3.png', "猫/0.png", "猫/ .png", "猫/2.png"]
    for index, name in enumerate([*(f"train/{name}" for name in names), 'test/"cat"/0.png', "test/猫/0.png"]):
        path = tmp_path / "birds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * index).save(path)
    monkeypatch.setattr(explorer_runs, "file_names", lambda count: names)
    for page in opened(tab, chartless_page(explorer_run(tmp_path / "run", len(names))).as_uri()):
        for index in (1, 3, 4, 5):
            page.click(f"#explorer-file-{index}", modifiers=["Control"])
        with page.expect_download() as download:
            page.get_by_role("button", name="Export selected (4)").click()
        download.value.save_as(tmp_path / download.value.suggested_filename)
    done = call_here("split", tmp_path / "birds", "--files", tmp_path / "files.txt", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for folder, wanted in (("listed-files", (1, 3, 4, 5)), ("other-files", (0, 2, 6))):
        part = tmp_path / "out/datasets" / folder / "train"
        written = {path.relative_to(part).as_posix(): path.read_bytes() for path in part.rglob("*.png")}
        assert written == {names[index]: (tmp_path / "birds/train" / names[index]).read_bytes() for index in wanted}


# ---- pictures beside the page ----------------------------------------------------------------------------------------------


def test_pictures_beside_the_page_are_loaded_and_drawn(tab: Page, beside: Path) -> None:
    name = file_names(COUNT)[120]
    for page in opened(tab, f"{beside.as_uri()}#file={quote(name, safe='')}"):
        canvas = page.locator(f'{DIALOG} canvas[aria-label="{name}, original"]')
        expect(canvas).to_have_js_property("width", SIDE)
        picture = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB"))
        middle = picture[picture.shape[0] // 16 :: picture.shape[0] // 8][:8, picture.shape[1] // 16 :: picture.shape[1] // 8][
            :, :8
        ]
        wanted = original(COUNT)[120].permute(1, 2, 0).int().numpy()
        assert np.abs(middle[1:-1, 1:-1].astype(int) - wanted[1:-1, 1:-1]).max() <= 2  # the corners are round
        assert page.locator("#explorer-missing").is_hidden()


def test_a_page_without_its_folder_says_so_and_works(chromium: Browser, beside: Path, tmp_path: Path) -> None:
    alone = tmp_path / "report.html"
    shutil.copy(beside, alone)
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.goto(alone.as_uri(), wait_until="commit")
    page.wait_for_selector(f"{GRID}[data-ready]")
    expect(page.locator("#explorer-missing")).to_be_visible()
    assert "folder explorer/" in page.inner_text("#explorer-missing")
    page.click("#explorer-file-7")
    assert page.inner_text(f"{DIALOG} h3") == file_names(COUNT)[7] and "a rank" in page.inner_text(DIALOG)
    context.close()


# ---- looks -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_scrolls_sideways(tab: Page, written: Path, width: int) -> None:
    for page in opened(tab, written.as_uri(), width=width):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for index in (0, 2, 5, 9):
            open_file(page, index)
            sizes = page.locator(DIALOG).evaluate("one => [one.scrollWidth, one.clientWidth, one.getBoundingClientRect().right]")
            assert sizes[0] <= sizes[1] and sizes[2] <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_legible_and_every_control_has_a_name(tab: Page, written: Path, scheme: str) -> None:
    for page in opened(tab, written.as_uri(), scheme=scheme):
        open_file(page, 9)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        texts = page.evaluate("""() => [...new Set([...document.querySelectorAll('.explorer *')]
            .filter(one => !one.disabled && [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
            .filter(one => !one.closest('script, style')).map(one => getComputedStyle(one).color))]""")
        assert len(texts) >= 3 and all(contrast(color, background) >= 4.5 for color in texts)
        tree = page.locator(".explorer").aria_snapshot()
        unnamed = re.findall(
            r"- (?:button|textbox|searchbox|combobox|spinbutton|slider|checkbox|option|img|dialog|listbox)(?! \")", tree
        )
        assert unnamed == []
