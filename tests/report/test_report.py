"""The report in a real browser without a network, and its sentences against figures made for the purpose."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from notbugs import report
from notbugs.errors import InputError
from notbugs.report import results
from notbugs.report.findings import main
from notbugs.runs.folder import RunFolder

Shares = dict[str, tuple[float, float, float]]  # model: accuracy on unchanged images, at epsilon / 2, at epsilon
HOSTILE = ["<script>document.title='taken'</script>", "naïve 猫 & <b>", "x" * 150, '" onload="document.title=1']
FOUND: Shares = {
    "standard": (0.97, 0.15, 0.0),
    "adversarial": (0.95, 0.8, 0.6),
    "on-robust": (0.94, 0.5, 0.2),
    "on-nonrobust": (0.93, 0.2, 0.0),
    "on-random-labels": (0.88, 0.02, 0.0),
    "on-random-labels-noise": (0.01, 0.0, 0.0),
    "on-next-labels": (0.7, 0.0, 0.0),
}


def wilson(correct: int, n: int) -> tuple[float, float]:
    share, z = correct / n, 1.96
    middle, reach = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - reach) / (1 + z * z / n), (middle + reach) / (1 + z * z / n)


def make(folder: Path, shares: Shares = FOUND, *, seeds: int = 3, source: str = "digits", full: bool = True) -> Path:
    """A run as the study writes it: 500 test images; a little different from seed to seed."""
    classes = HOSTILE if full else list("0123")
    with RunFolder.open(folder, {"source": source}) as run:
        data = {"classes": classes, "train": 90, "test": 500, "shape": [1, 8, 8], "note": "", "skipped": [], "mean_l2": 4.9}
        about = {
            "source": source,
            "command": f"notbugs run {source}",
            "notbugs": "0.1.0",
            "device": "cpu",
            "recipe": {"epochs": 3},
        }
        run.update_metadata(**about, data=data, seeds=list(range(seeds)), norm="l2", epsilon=1.5, epsilon_text="1.5")
        for seed in range(seeds):
            rows: list[dict[str, object]] = []
            learnt: list[dict[str, object]] = []
            for model, shares_at in shares.items():
                measured = [("test", epsilon, share) for epsilon, share in zip((0, 0.75, 1.5), shares_at, strict=True)]
                measured += [(on, 0, 0.5 + seed / 10) for on in ("original", "robust", "nonrobust")]
                for on, epsilon, share in measured:
                    correct = min(500, round(500 * share) + (2 * seed if 0 < share < 1 else 0))
                    low, high = wilson(correct, 500)
                    figures = {"correct": correct, "n": 500, "accuracy": correct / 500, "low": low, "high": high, "seed": seed}
                    attack = {"norm": "l2", "epsilon": epsilon, "attack": "pgd" if epsilon else "none"}
                    rows.append({"model": model, "trained_on": "original", "set": on} | attack | figures)
                for epoch in range(4):
                    learnt.append({"model": model, "seed": seed, "epoch": epoch, "loss": 1 / (1 + epoch), "accuracy": epoch / 4})
            run.record_stage(f"seed{seed}/models", 1.5, {"accuracy": rows, "training": learnt})
        if full:
            made = {"set": "robust", "seed": 0, "n": 90, "made_from": "adversarial", "epsilon": "", "steps": 40, "reached": 0.9}
            run.record_stage("seed0/sets", 1.0, {"sets": [made | {"max_l2": 3.25}]})
            run.record_stage("pictures", 0.1, {"pictures": draw(folder)})
            run.update_metadata(seconds=12.0, finished=True)
    return folder


def draw(folder: Path) -> list[dict[str, object]]:
    """Pictures of hostile files; the last is no picture of the run at all."""
    (folder / "pictures").mkdir()
    Image.new("L", (8, 8), 90).save(folder / "pictures" / "a.png")
    Image.new("L", (8, 8), 200).save(folder.parent / "outside.png")
    (folder / "secret.txt").write_text("secret")
    rows: list[dict[str, object]] = []
    for place, label in enumerate(HOSTILE):
        for column in ("original", "adversarial", "change"):
            reads = {"label": label, "standard": label if column == "original" else HOSTILE[place - 1], "adversarial": label}
            reads = dict.fromkeys(reads, "") if column == "change" else reads
            rows.append({"file": f"{label}/{place}.png", "column": column, "picture": "pictures/a.png", **reads})
    rows[-1]["picture"] = "secret.txt"
    rows[-2]["picture"] = "../outside.png"
    return rows


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(make(tmp_path_factory.mktemp("run"), source='<img src="x" onerror="document.title=1">'))


def look(chromium: Browser, path: Path, *, width: int = 1280, scheme: Any = "light") -> Page:
    """Open the file with every request but its own blocked; complaints and requests are kept on the page's window."""
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: complaints.append(request.url) if not request.url.startswith(("data:", path.as_uri())) else None,
    )
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached", timeout=15_000)
    assert complaints == []
    return page


def test_opens_without_a_network_or_a_complaint_and_hostile_names_stay_names(chromium: Browser, written: Path) -> None:
    page = look(chromium, written)
    assert page.title() == '<img src="x" onerror="document.title=1"> · notbugs'
    assert page.locator("h1").inner_text() == '<img src="x" onerror="document.title=1">'
    labels = page.locator(".pictures .label").all_inner_texts()
    assert labels[0] == HOSTILE[0] and HOSTILE[1] in labels and HOSTILE[3] in labels
    assert page.locator("[onload], [onerror], main script").count() == 0
    assert written.stat().st_size < 1_300_000


def test_pictures_show_mismatches_in_words_or_signs_and_nothing_from_outside(chromium: Browser, written: Path) -> None:
    page = look(chromium, written)
    pictures = page.locator(".pictures img")
    assert pictures.count() == 10 and page.locator(".pictures .gone").count() == 2  # of 12, two point elsewhere
    assert pictures.evaluate_all("all => all.every(one => one.naturalWidth === 8 && one.alt.length > 3)")
    assert page.locator(".pictures .wrong").count() == 4 and page.locator(".pictures .right").count() == 12
    assert page.locator(".pictures .wrong").first.evaluate("one => getComputedStyle(one, '::before').content") == '"✗ "'
    assert "c2VjcmV0" not in written.read_text(encoding="utf-8")  # "secret" in base64


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(chromium: Browser, written: Path, width: int) -> None:
    page = look(chromium, written, width=width)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_charts_hold_a_mark_a_figure_and_answer_the_pointer(chromium: Browser, written: Path) -> None:
    page = look(chromium, written)
    marks = page.locator("#accuracy-chart svg .mark-symbol.role-mark path")
    assert marks.count() == 3 * len(FOUND)
    assert page.locator(".small-charts svg").count() == len(FOUND)
    assert page.locator("#training-0 .mark-line path").count() == 3  # one a seed
    marks.nth(4).scroll_into_view_if_needed()
    marks.nth(4).hover()
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert "adversarial" in tooltip.inner_text() and "80.4 %" in tooltip.inner_text()
    page.locator("#training-0").scroll_into_view_if_needed()
    page.locator("#training-0 .mark-symbol.role-mark path").nth(1).hover(force=True)
    page.wait_for_function("document.querySelector('#vg-tooltip-element').innerText.includes('epoch')")
    assert "25.0 %" in tooltip.inner_text()


def test_light_and_dark_are_both_legible(chromium: Browser, written: Path) -> None:
    """Contrast of every text, chart texts included, against the page: at least 4.5, as WCAG AA asks."""
    pages = {}
    for scheme in ("light", "dark"):
        page = look(chromium, written, scheme=scheme)
        pages[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        colours = page.evaluate("""() => [...new Set([...document.querySelectorAll('main *, header *, footer *')]
            .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
            .map(one => getComputedStyle(one)[one.closest('svg') ? 'fill' : 'color']))]""")
        assert len(colours) >= 4
        for colour in colours:
            assert contrast(colour, pages[scheme]) >= 4.5, (scheme, colour)
        shapes = page.locator("#accuracy-chart .mark-symbol.role-mark path")
        for colour in set(shapes.evaluate_all("all => all.map(one => getComputedStyle(one).fill)")):
            assert contrast(colour, pages[scheme]) >= 3, (scheme, colour)
    assert pages["light"] != pages["dark"]


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dim = sorted([luminance(one), luminance(other)], reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_every_part_can_be_read_aloud_and_reached_by_keyboard(chromium: Browser, written: Path) -> None:
    page = look(chromium, written)
    assert page.locator("table").count() == page.locator("table:has(thead th[scope=col])").count() >= 5
    assert page.locator("tbody tr:not(:has(th[scope=row]))").count() == 0
    assert page.evaluate(
        "[...document.querySelectorAll('[id]')].length === new Set([...document.querySelectorAll('[id]')].map(x => x.id)).size"
    )
    named = "one => (document.getElementById(one.getAttribute('aria-labelledby')) || {textContent: ''}).textContent.length > 10"
    assert page.locator(".scroll[tabindex='0']").evaluate_all(f"all => all.length > 3 && all.every({named})")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the answer"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_figures_are_those_of_the_table(chromium: Browser, written: Path) -> None:
    with (written.parent / "tables/accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    page = look(chromium, written)
    cells = page.locator("td[data-model]").all()
    assert len(cells) == 3 * len(FOUND)
    for cell in cells:
        model, radius = cell.get_attribute("data-model"), (0, 0.75, 1.5)[int(cell.get_attribute("data-radius") or 9)]
        shares = [
            float(row["accuracy"]) for row in rows if (row["model"], row["set"], float(row["epsilon"])) == (model, "test", radius)
        ]
        assert len(shares) == 3 and cell.locator("strong").inner_text() == f"{100 * sum(shares) / 3:.1f} %"
    columns, table = results.accuracy_table(RunFolder.read(written.parent))
    assert columns == ["model", "unchanged", "ε/2 = 0.75", "ε = 1.5", "trained on"]
    assert [line[0] for line in table] == [*list(results.MODELS)[:5], "on-next-labels", "on-random-labels-noise"]
    assert table[1][2] == "80.4 % [79.4–81.4]"  # 80.0, 80.4, 80.8: mean ± 4.303 · 0.4 / √3
    shown = " ".join(page.locator(".answers").inner_text().replace("\u00a0", " ").split())
    for sentence in main.headline(RunFolder.read(written.parent)):
        assert sentence in shown


def verdicts(folder: Path, shares: Shares, seeds: int = 3) -> list[results.Finding]:
    return main.findings(RunFolder.read(make(folder, shares, seeds=seeds, full=False)))


def test_what_is_shown_is_said_with_its_figures(tmp_path: Path) -> None:
    fooled, resists, split, features, following = verdicts(tmp_path, FOUND)
    assert {one.verdict for one in (fooled, resists, split, features, following)} == {"shown"}
    assert "reads 97.4 % of the 500 test images" in fooled.text and "it reads 0.0 %." in fooled.text
    assert "a typical image measures 4.9" in fooled.text
    assert "keeps 60.4 %" in resists.text and "60.4 points more" in resists.text
    assert "50.4 % and 20.4 %: a difference of 30.0 points" in split.text
    assert "keeps 15.4 %" in split.text  # the standard classifier, for comparison
    assert "reads 88.4 % of the real test images; guessing reads 25.0 %" in features.text and "reads 1.4 %" in features.text
    assert "reads 70.4 %" in following.text


def test_sets_moved_further_than_epsilon_are_described_so(tmp_path: Path) -> None:
    make(tmp_path, full=False)
    with RunFolder.open(tmp_path, {"source": "digits"}) as run:
        run.record_stage("more", 0.0, {"sets": [{"set": "random-labels", "epsilon": 3.0}, {"set": "robust", "epsilon": ""}]})
    texts = main.headline(RunFolder.read(tmp_path))
    assert "moved by at most 3 towards a random" in texts[3] and "moved by at most 1.5 towards the class after" in texts[4]


def test_one_seed_speaks_of_test_images_not_of_seeds(tmp_path: Path) -> None:
    found = verdicts(tmp_path, FOUND, seeds=1)
    assert "over the test images" in found[1].text and "seeds" not in " ".join(one.text for one in found)
    assert results.accuracy_table(RunFolder.read(tmp_path))[1][0][1] == "97.0 % [95.1–98.2]"  # Wilson, 485 of 500


NULLS: list[tuple[int, Shares, str, str]] = [
    (0, {"standard": (0.97, 0.97, 0.97)}, "not shown", "no measurable loss"),
    (0, {"standard": (0.97, 0.9, 0.8)}, "in part", "fewer than half"),
    (1, {"adversarial": (0.95, 0.1, 0.0)}, "not shown", "not measurably more than the standard classifier"),
    (1, {"adversarial": (0.95, 0.3, 0.2)}, "in part", "20.4 points more"),
    (2, {"on-robust": (0.94, 0.204, 0.2), "on-nonrobust": (0.94, 0.204, 0.0)}, "not shown", "The interval includes 0"),
    (2, {"on-robust": (0.94, 0.2, 0.2), "on-nonrobust": (0.94, 0.5, 0.0)}, "not shown", "opposite of what the split is for"),
    (2, {"standard": (0.97, 0.6, 0.0)}, "in part", "no measurably harder-to-fool"),
    (3, {"on-random-labels": (0.2, 0.0, 0.0)}, "not shown", "not measurably better than guessing"),
    (3, {"on-random-labels-noise": (0.88, 0.0, 0.0)}, "not shown", "The control does as well"),
    (4, {"on-next-labels": (0.01, 0.0, 0.0)}, "not shown", "not measurably better than guessing"),
]


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("place", "changed", "verdict", "words"), NULLS, ids=[f"{n}-{words}" for n, _, _, words in NULLS])
def test_a_null_is_reported_as_a_null(tmp_path: Path, place: int, changed: Shares, verdict: str, words: str, seeds: int) -> None:
    found = verdicts(tmp_path, FOUND | changed, seeds=seeds)[place]
    assert found.verdict == verdict and (words in found.text or (seeds == 1 and verdict == "in part"))


def test_without_its_control_the_question_stays_open(tmp_path: Path) -> None:
    found = verdicts(tmp_path, {model: share for model, share in FOUND.items() if "noise" not in model})
    assert found[3].verdict == "open" and "not yet evidence" in found[3].text


def test_guessing_is_the_commonest_class_where_classes_differ_in_size(tmp_path: Path) -> None:
    """Next labels at 45 %: above one in four, but no more than a constant answer reads of such a test set."""
    folder = make(tmp_path, {**FOUND, "on-next-labels": (0.45, 0.1, 0.0)}, full=False)
    assert main.findings(RunFolder.read(folder))[-1].verdict == "shown"
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"classes"', '"commonest": 0.46, "classes"', 1))
    last = main.findings(RunFolder.read(folder))[-1]
    assert last.verdict == "not shown" and "guessing reads 46.0 %" in last.text


def test_intervals_over_seeds_are_students(tmp_path: Path) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    found = results.accuracy_results(RunFolder.read(make(tmp_path, FOUND, full=False)))
    figure = found.accuracy("adversarial", radius=1)
    low, high = scipy_stats.t.interval(0.95, 2, loc=0.804, scale=scipy_stats.sem([0.8, 0.804, 0.808]))
    assert figure and (figure.low, figure.high) == pytest.approx((low, high))
    gap = found.difference(("on-robust", 1), ("on-nonrobust", 1))  # 0.3 in each seed: nor is this
    assert gap and gap.mean == pytest.approx(0.3) and gap.high - gap.low > 0.05
    nothing = found.accuracy("standard", radius=2)  # 0 of 500 in each seed: not an interval of length 0
    assert nothing and nothing.low == pytest.approx(0) and nothing.high == pytest.approx(wilson(0, 500)[1])


def test_an_unfinished_run_says_so_and_shows_what_is_there(chromium: Browser, tmp_path: Path) -> None:
    path = report.write(make(tmp_path / "part", {"standard": FOUND["standard"]}, seeds=1, full=False))
    page = look(chromium, path)
    assert "This run is not finished. 1 stage is done" in " ".join(page.locator(".banner").inner_text().split())
    assert page.locator(".answers > div").count() == 1 and page.locator("#pictures").count() == 0
    RunFolder.open(tmp_path / "empty", {}).close()
    empty = report.write(tmp_path / "empty").read_text(encoding="utf-8")
    assert "Nothing that answers a question has been measured yet" in empty and "<script" not in empty


def test_a_finished_run_shows_no_banner_and_how_to_do_it_again(chromium: Browser, written: Path) -> None:
    page = look(chromium, written)
    assert page.locator(".banner").count() == 0
    assert page.locator("pre").inner_text() == 'notbugs run <img src="x" onerror="document.title=1">'
    assert json.loads((written.parent / "run.json").read_text())["finished"]


def test_no_run_is_bad_input_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold a run\.json"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())
