"""The review page in a real browser, used by keyboard as a reviewer would; its answers, against known figures."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page
from report.conftest import accessibility_problems
from review.conftest import SCRIPT, SETS, OpenPage, noise_study, read_key, ready, scripted, write_export, write_review
from scipy import stats

from notbugs import report
from notbugs.review import answers
from notbugs.review.answers import load_answers

pytestmark = [pytest.mark.slow, pytest.mark.browser]

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>document.title='taken'</script>",
    'with "quotes", commas',
    "naïve 猫 & <b>",
    "x" * 150,
    "3",
]


def start(page: Page, name: str) -> None:
    page.keyboard.type(name)  # the field has the focus
    page.keyboard.press("Enter")


def go_on_in(tab: Page, path: Path) -> None:
    """Opens a review that has begun. Another process writes storage: a tab that comes too early for that is loaded again."""
    tab.goto(path.as_uri())
    for _ in range(20):
        ready(tab)
        if tab.locator("#progress").is_visible():
            return
        tab.wait_for_timeout(250)
        tab.reload()


def shown(page: Page) -> str:
    return page.locator("#image").get_attribute("data-id") or ""


def progress(page: Page) -> str:
    return page.locator("#progress").inner_text()


def chosen(page: Page) -> Locator:
    return page.locator("[aria-pressed=true]")


def export(page: Page, folder: Path, key: str = "Enter") -> Path:
    """Press the key, on the button that has the focus, and put the download into the folder."""
    with page.expect_download() as download:
        page.keyboard.press(key)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


# ---- from the page to the figures ----


@pytest.mark.slow
def test_a_review_by_keyboard_gives_exactly_the_known_figures(open_page: OpenPage, run: Path) -> None:
    path = write_review(run, count=20)
    key = read_key(run)
    given = scripted(key)
    page = open_page(path)
    assert accessibility_problems(page) == []
    start(page, "Anna, née O'Hara")
    assert accessibility_problems(page) == []
    seen: list[str] = []
    while page.locator("#question").is_visible():
        seen.append(shown(page))
        assert progress(page) == f"{len(seen)} of 60" and page.evaluate("document.activeElement.id") == "what"
        if len(seen) == 30:  # gone in the middle, and back: storage is written in another process, on a busy machine late
            page.wait_for_timeout(500)
            page.reload()
            ready(page)
            page.wait_for_selector("#progress:text-is('30 of 60')", timeout=15_000)
            assert shown(page) == seen[-1]
        if len(seen) == 40:  # a slip: back, changed, and on at the first image that has no answer
            page.keyboard.press("Backspace")
            assert progress(page) == "39 of 60" and shown(page) == seen[-2]
            was = given[seen[-2]]
            assert page.locator("#given-name").inner_text() == (was or "cannot tell")
            assert chosen(page).count() == 1 and chosen(page).get_attribute("value") == (was or None)
            page.keyboard.press("?" if was else "5")
            assert shown(page) == seen[-1]
            page.keyboard.press("Backspace")
            page.keyboard.press(was or "Space")
        page.keyboard.press(given[seen[-1]] or ("Space", "?")[len(seen) % 2])
    assert sorted(seen) == sorted(given) and [row["id"] for row in key] != seen
    assert "you named 51 of 60 images and could not tell 9." in page.locator("#summary").inner_text()
    page.keyboard.press("Tab")
    sent = export(page, run / "review")
    assert sent.name == "answers-Anna-née-O-Hara.csv" == page.locator("#file").inner_text()
    lines = sent.read_bytes().split(b"\r\n")
    assert lines[0] == b"reviewer,id,answer,seconds" and len(lines) == 62 and lines[-1] == b""
    assert lines[1].startswith('"Anna, née O\'Hara",'.encode() + seen[0].encode())

    rows = load_answers(run)
    assert {(row.set, row.file, row.label, row.answer) for row in rows} == {
        (row["set"], row["file"], row["label"], given[row["id"]]) for row in key
    }
    assert {row.reviewer for row in rows} == {"Anna, née O'Hara"} and 0 < sum(row.seconds for row in rows) < 120
    for row, name in zip(answers.summary(rows), SETS, strict=True):
        correct, unsure = SCRIPT[name]
        low, high = stats.binomtest(correct, 20).proportion_ci(method="wilson")
        assert row.seconds == np.median([one.seconds for one in rows if one.set == name])
        assert (row.set, row.reviewers, row.images, row.answers, row.correct) == (name, 1, 20, 20, correct)
        assert (row.accuracy, row.unsure, row.interval_over) == (correct / 20, unsure / 20, "images")
        assert row.other_class == pytest.approx((20 - correct - unsure) / 20)
        assert (row.ci_low, row.ci_high) == (pytest.approx(low), pytest.approx(high))
    for difference, name in zip(answers.differences(rows), SETS[1:], strict=True):
        p, q = SCRIPT[name][0] / 20, 19 / 20
        (low_p, high_p), (low_q, high_q) = (
            stats.binomtest(round(20 * share), 20).proportion_ci(method="wilson") for share in (p, q)
        )
        assert difference.difference == pytest.approx(p - q)
        assert (difference.reviewers, difference.interval_over) == (1, "images")
        assert difference.ci_low == pytest.approx(p - q - math.sqrt((p - low_p) ** 2 + (high_q - q) ** 2))
        assert difference.ci_high == pytest.approx(p - q + math.sqrt((high_p - p) ** 2 + (q - low_q) ** 2))
    assert_report_shows(open_page, run)


def assert_report_shows(open_page: OpenPage, run: Path) -> None:
    """The scripted reviewer's counts: in the section, in the chart, in the tables, and in the finding."""
    page = open_page(report.write(run))
    section = page.locator("section:has(#review)")
    assert "1 person classified images" in section.inner_text()
    lines = section.locator("tbody tr").all()
    for line, (name, (correct, unsure)) in zip(lines, SCRIPT.items(), strict=True):
        cells = [cell.inner_text().split() for cell in line.locator("th, td").all()]
        low, high = (100 * end for end in stats.binomtest(correct, 20).proportion_ci(method="wilson"))
        accuracy = [f"{5 * correct}.0", "%", f"[{low:.1f},", f"{high:.1f}]"]
        assert cells[:3] == [[name], ["20"], accuracy] and cells[4] == [f"{5 * unsure}.0", "%"]
        assert cells[3][0] == ("–" if name == "original" else f"−{5 * (19 - correct)}.0")
        mark = page.locator(f"#review-chart [aria-roledescription=point][aria-label*='set: {name};']")
        assert f"accuracy: {5 * correct}.0 %" in (mark.get_attribute("aria-label") or "")
    with (run / "tables/review_summary.csv").open(encoding="utf-8", newline="") as file:
        found = {row["set"]: (int(row["correct"]), round(20 * float(row["unsure"]))) for row in csv.DictReader(file)}
    assert found == SCRIPT
    assert (run / "tables/review_answers.csv").read_text().count("\n") == 61
    heading = "Most often misclassified by people"
    figures = {name: section.locator(f"h3:has(a:text-is('{heading}: {name}')) + div figure") for name in SCRIPT}
    assert [locator.count() for locator in figures.values()] == [1, 4, 6]
    key, given = {row["file"]: row for row in read_key(run)}, scripted(read_key(run))
    for name, locator in figures.items():
        for figure in locator.all():
            row = key[figure.locator("img").get_attribute("alt") or ""]
            answer = given[row["id"]] or "cannot tell"
            assert row["set"] == name and figure.inner_text() == f"{row['label']}; answered: {answer}\n1 of 1 answers"
            assert figure.locator("img").evaluate("image => image.complete && image.naturalWidth") == 8
    finding = page.locator(".answers > div", has_text="Do people recognize").inner_text().replace("\u00a0", " ")
    assert "D_R 80.0 %, originals 95.0 %: −15.0 percentage points" in finding
    assert "No, not measurably" in finding and "Measurably worse: D_NR" in finding


@pytest.mark.slow
def test_the_report_shows_hostile_words_as_text(open_page: OpenPage, run: Path) -> None:
    write_review(run, count=20)
    said = scripted(read_key(run))
    for name in ("<img src=x onerror=document.title='taken'>", "</script>{{ 7 * 7 }}"):
        write_export(run / f"review/{len(name)}.csv", name, said if "img" in name else dict.fromkeys(said, "3"))
    text = (run / "review/review.html").read_text(encoding="utf-8")
    (run / "review/review.html").write_text(text.replace("data:image/png", "https://example.com/png"), encoding="utf-8")
    page = open_page(report.write(run))
    assert page.title() != "taken" and page.locator("#review-chart [onerror], .files [onerror]").count() == 0
    page.locator("summary", has_text="Reviewers").click()
    assert page.locator("details p", has_text="</script>{{ 7 * 7 }}, <img src=x onerror").is_visible()
    people = page.locator("section:has(#review)")
    assert people.locator("img").count() == 0 and people.locator(".gone").count() == 18


# ---- the page ----


def test_each_reviewer_has_an_order_of_their_own(open_page: OpenPage, digits_page: Path) -> None:
    orders = []
    for _ in range(2):
        page = open_page(digits_page)
        start(page, "A")
        order = []
        for _ in range(12):
            order.append(shown(page))
            page.keyboard.press("1")
        orders.append(order)
    assert orders[0] != orders[1]


def test_start_again_asks_first(open_page: OpenPage, digits_page: Path) -> None:
    page = open_page(digits_page)
    start(page, "A")
    for _ in range(3):
        page.keyboard.press("7")
    for answer in ("Escape", "Enter"):  # the dialog's first button keeps them
        page.locator("#restart").press("Enter")
        assert "deletes the answers of A, 3 of 60" in page.locator("dialog").inner_text()
        page.keyboard.press("5")  # is no answer here
        page.keyboard.press(answer)
        assert progress(page) == "4 of 60"
    page.locator("#restart").press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#start").wait_for()
    assert page.evaluate("localStorage.length") == 0
    start(page, "B")
    assert progress(page) == "1 of 60"


@pytest.mark.slow
def test_answers_are_exported_at_any_time_and_only_a_sound_name_starts(open_page: OpenPage, run: Path) -> None:
    page = open_page(write_review(run, count=3))
    for name in ("", "=1+1", "-A", "@A", " "):
        page.locator("#name").fill(name)
        page.keyboard.press("Enter")
        assert page.locator("#start").is_visible()
    page.locator("#name").fill("猫 ")
    page.keyboard.press("Enter")
    page.keyboard.press("4")
    page.locator("#export").focus()
    assert export(page, run / "review", "Space").name == "answers-猫.csv"  # Space on a button presses the button
    (row,) = load_answers(run)
    assert (row.reviewer, row.answer) == ("猫", "4") and progress(page) == "2 of 9"
    page.keyboard.press("Backspace")
    page.locator("#on").press("Enter")  # keeps the answer
    assert progress(page) == "2 of 9"
    page.keyboard.down("4")
    page.keyboard.down("4")  # a key held down answers once
    assert progress(page) == "3 of 9"


def test_two_tabs_of_one_reviewer_lose_nothing(open_page: OpenPage, digits_page: Path) -> None:
    page = open_page(digits_page)
    start(page, "A")
    page.wait_for_selector("#progress:text-is('1 of 60')")
    other = page.context.new_page()
    go_on_in(other, digits_page)
    assert progress(other) == "1 of 60"
    other.keyboard.press("1")
    page.wait_for_selector("#progress:text-is('2 of 60')")
    page.keyboard.press("2")
    other.wait_for_selector("#progress:text-is('3 of 60')")


def test_a_tab_that_sees_the_answers_late_deletes_none(open_page: OpenPage, digits_page: Path) -> None:
    """Another process writes storage: its answers can come into view after a tab has read it."""
    page = open_page(digits_page)
    start(page, "A")
    page.keyboard.press("1")
    other = page.context.new_page()
    other.add_init_script(
        "const real = Storage.prototype.getItem; let late = 1;"
        "Storage.prototype.getItem = function (key) { return late-- > 0 ? null : real.call(this, key); }"
    )
    other.goto(digits_page.as_uri())
    ready(other)
    assert other.locator("#start").is_visible()  # it has read nothing
    other.wait_for_function("JSON.stringify({ ...localStorage }).includes('when')")  # sooner than a person has typed a name
    start(other, "B")  # and answers all the same
    other.wait_for_selector("#progress:text-is('2 of 60')")
    page.keyboard.press("2")
    other.wait_for_selector("#progress:text-is('3 of 60')")
    third = page.context.new_page()
    go_on_in(third, digits_page)
    third.wait_for_selector("#progress:text-is('3 of 60')")


def test_answers_given_in_two_tabs_at_once_are_all_kept(open_page: OpenPage, digits_page: Path) -> None:
    page = open_page(digits_page)
    start(page, "A")
    other = page.context.new_page()
    other.add_init_script("window.addEventListener('storage', event => event.stopImmediatePropagation())")  # hears of nothing
    go_on_in(other, digits_page)
    other.wait_for_selector("#progress:text-is('1 of 60')")
    page.keyboard.press("1")
    page.keyboard.press("2")
    other.wait_for_function("JSON.stringify({ ...localStorage }).split('when').length === 3")
    other.keyboard.press("3")  # the first image, answered again
    other.wait_for_selector("#progress:text-is('3 of 60')")
    page.wait_for_function("JSON.stringify({ ...localStorage }).includes('\\\\\"3\\\\\"')")
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")
    assert progress(page) == "1 of 60" and page.locator("#given-name").inner_text() == "3"


def test_closed_and_opened_again_it_goes_on(open_page: OpenPage, digits_page: Path) -> None:
    page = open_page(digits_page)
    start(page, "A")
    page.keyboard.press("1")
    again = page.context.new_page()
    page.close()
    go_on_in(again, digits_page)
    again.wait_for_selector("#progress:text-is('2 of 60')")
    again.evaluate('for (const key of Object.keys(localStorage)) localStorage.setItem(key, \'{"name": 1, "order": [1]}\')')
    again.reload()
    ready(again)
    assert again.locator("#start").is_visible()  # what is kept there is not the page's


@pytest.mark.slow
@pytest.mark.parametrize("how", ["get() { throw new DOMException('no', 'SecurityError') }", "value: undefined"])
def test_without_storage_it_works_and_says_so(open_page: OpenPage, run: Path, how: str) -> None:
    path = write_review(run, count=1)
    page = open_page(path, before=f"Object.defineProperty(window, 'localStorage', {{ {how} }})")
    assert "keeps no answers" in page.locator("#not-kept").inner_text()
    start(page, "A")
    for key in "123":
        page.keyboard.press(key)
    page.keyboard.press("Tab")
    export(page, path.parent)
    assert sorted(row.answer for row in load_answers(run)) == ["1", "2", "3"]


def test_hostile_class_names_stay_text_and_come_back_as_they_were(open_page: OpenPage, tmp_path: Path) -> None:
    run = noise_study(tmp_path / "hostile", HOSTILE, color=True)
    page = open_page(write_review(run, sets=("original",), count=12), width=360)
    start(page, "A")
    assert page.locator("#choices button").evaluate_all("all => all.map(one => one.value)") == HOSTILE
    keys = page.locator("#choices kbd").all_inner_texts()
    assert keys == ["1", "2", "4", "5", "6", "3"]  # a class that is a digit has its own key
    assert page.locator("#choices button").nth(0).inner_text().split("\n")[-1] == HOSTILE[0]
    labels = {row["id"]: row["label"] for row in read_key(run)}
    for _ in range(12):
        page.keyboard.press(keys[HOSTILE.index(labels[shown(page)])])
    assert page.title() == "What is this? · notbugs" and page.locator("[onerror], main script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.keyboard.press("Tab")
    export(page, run / "review")
    rows = load_answers(run)
    assert len(rows) == 12 and all(row.correct and row.answer == row.label for row in rows)
    assert {row.label for row in rows} == {*HOSTILE}


def test_more_than_ten_classes_are_found_by_typing(open_page: OpenPage, tmp_path: Path) -> None:
    classes = [f"{kind} {animal}" for kind in ("great", "Little", "white") for animal in ("dane", "shark", "owl", "wolf")]
    run = noise_study(tmp_path / "many", [*classes, "owl", HOSTILE[0]])
    page = open_page(write_review(run, sets=("original",), count=8))
    start(page, "A")
    options = page.locator("[role=option]")
    assert options.count() == 14 and page.evaluate("document.activeElement.id") == "filter"
    ids: list[str] = []

    def press(*keys: str) -> str:
        """The answer that the keys give."""
        ids.append(shown(page))
        for key in keys:
            page.keyboard.press(key)
        return str(page.evaluate("JSON.parse(Object.values(localStorage)[0])").get("answers", {})[ids[-1]]["answer"])

    assert press(*"owl", "Enter") == "owl"  # the one that is the word, before those that hold it
    assert press(*"little", "Space", *"w", "Enter") == "Little wolf"
    assert press(*"wh", "ArrowDown", "ArrowDown", "ArrowUp", "Enter") == "white shark"
    assert press("ArrowDown", "Enter") == "great dane"
    assert press(*"<img", "Enter") == HOSTILE[0]
    assert press("Space") == "" and press("?") == ""
    page.keyboard.press("Enter")  # nothing is marked
    page.keyboard.type("nothing")
    page.keyboard.press("Enter")  # nothing is found
    assert options.count() == 0 and progress(page) == "8 of 8"
    for _ in "nothing":
        page.keyboard.press("Backspace")  # is the field's, until that is empty
    assert progress(page) == "8 of 8" and options.count() == 14
    page.keyboard.press("Backspace")
    assert progress(page) == "7 of 8" and page.locator("#given").inner_text() == "Your answer: cannot tell"
    assert press(*"great o") == "" and page.locator("[aria-selected=true]").inner_text() == "great owl"
    marked = page.locator("#filter").get_attribute("aria-activedescendant")
    assert page.locator(f"#{marked}").inner_text() == "great owl"
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    export(page, run / "review")
    assert len(load_answers(run)) == 8 and "great owl" in {row.answer for row in load_answers(run)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_never_scrolls_sideways_shows_the_focus_and_is_legible(open_page: OpenPage, digits_page: Path, scheme: str) -> None:
    page = open_page(digits_page, width=360, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    start(page, "A")
    image = page.locator("#image")
    assert image.evaluate("one => getComputedStyle(one).imageRendering") == "pixelated"
    box = image.bounding_box()
    assert box and box["width"] == box["height"] == 192
    assert image.evaluate("one => getComputedStyle(one.parentElement).backgroundColor") == "rgb(128, 128, 128)"
    assert page.locator("#progress").get_attribute("aria-live") == "polite"
    page.keyboard.press("1")
    page.keyboard.press("Backspace")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.value"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached == [*"0123456789", "unsure", "on"]  # all that can be done here
    assert_legible(page)
    for _ in range(60):
        page.keyboard.press("Space") if page.evaluate("document.activeElement.id") == "what" else page.keyboard.press("?")
    assert page.locator("#end").is_visible() and page.evaluate("document.documentElement.scrollWidth") <= 360
    assert_legible(page)


def assert_legible(page: Page) -> None:
    """Contrast of every text with what is behind it: at least 4.5, as WCAG AA asks."""
    pairs = page.evaluate("""() => {
        const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        const paint = colors => {
            for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
        };
        return [...document.querySelectorAll('body *')]
            .filter(one => one.checkVisibility() && [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
            .map(one => {
                const behind = [];
                for (let under = one; under; under = under.parentElement) behind.unshift(getComputedStyle(under).backgroundColor);
                return [one.textContent, paint([...behind, getComputedStyle(one).color]), paint(behind)];
            });
    }""")
    assert len(pairs) >= 5

    def luminance(color: list[int]) -> float:
        red, green, blue = (
            part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in (one / 255 for one in color)
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for text, one, other in pairs:
        dim, bright = sorted((luminance(one), luminance(other)))
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, text
