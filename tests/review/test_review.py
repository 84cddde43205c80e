"""The review page in a real browser, worked by keyboard as a reviewer would; what comes back, against known figures."""

import base64
import csv
import io
import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page
from scipy import stats

from notbugs import data, report
from notbugs.errors import InputError
from notbugs.report.findings import analyses
from notbugs.review import answers
from notbugs.runs.folder import RunFolder, as_csv
from notbugs.study import pipeline
from notbugs.study.config import StudyConfig

SETS = ("original", "robust", "nonrobust")
# Of each set's 20 images in the key's order, a reviewer gets so many right, cannot tell so many, and gets the others wrong.
SCRIPT = {"original": (19, 1), "robust": (16, 2), "nonrobust": (5, 6)}
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>document.title='taken'</script>",
    'with "quotes", commas',
    "naïve 猫 & <b>",
    "x" * 150,
    "3",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 300 digits that has three sets, and nothing of its further stages."""
    folder = tmp_path_factory.mktemp("made") / "run"
    plan = StudyConfig("digits", seeds=1, limit=300, epochs=2, invert_steps=3)
    pipeline.run(plan, folder, only=("set-robust", "set-nonrobust", "set-random-labels"), workers=1)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it, without its models, to write a review into."""
    return Path(shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns("models")))


@pytest.fixture(scope="module")
def digits_page(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that no test writes beside."""
    folder = Path(shutil.copytree(made, tmp_path_factory.mktemp("page") / "run"))
    return answers.write_page(folder, count=20)


def named(folder: Path, classes: list[str], *, size: int = 12, colour: bool = False) -> Path:
    """A study of four noisy images a class, of which nothing is done yet: its page shows the originals."""
    folder.mkdir()
    count, chance = 4 * len(classes), np.random.default_rng(0)
    images = chance.integers(0, 255, (count, size, size, 3) if colour else (count, size, size)).astype("uint8")
    labels = np.arange(count) % len(classes)
    np.savez(
        folder / "set.npz",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        classes=np.array(classes),
    )
    pipeline.run(StudyConfig(str(folder / "set.npz"), epsilon=0.1), folder / "run", only=(), workers=1)
    return folder / "run"


def key_of(run: Path) -> list[dict[str, str]]:
    with (run / "review/key.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def look(chromium: Browser, path: Path, *, width: int = 1280, scheme: Any = "light", before: str = "") -> Page:
    """Open the page off line; complaints and requests are kept in `complaints`. before: a script that runs first."""
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    if before:
        context.add_init_script(before)
    page = context.new_page()
    complaints[page] = []
    page.on("console", lambda message: complaints[page].append(message.text))
    page.on("pageerror", lambda error: complaints[page].append(str(error)))
    own = ("data:", "blob:", path.as_uri())
    page.on("request", lambda request: None if request.url.startswith(own) else complaints[page].append(request.url))
    page.goto(path.as_uri())
    ready(page)
    return page


complaints: dict[Page, list[str]] = {}


@pytest.fixture(autouse=True)
def _no_complaints() -> Iterator[None]:
    """No test's page wrote to the console, failed in a script or asked for anything."""
    complaints.clear()
    yield
    assert not any(complaints.values())
    for page in complaints:
        page.context.close()


def ready(page: Page) -> None:
    page.wait_for_selector("html[data-ready]", state="attached", timeout=15_000)


def start(page: Page, name: str) -> None:
    page.keyboard.type(name)  # the field has the focus
    page.keyboard.press("Enter")


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


def script(key: list[dict[str, str]], counts: dict[str, tuple[int, int]] = SCRIPT) -> dict[str, str]:
    """By id, what the scripted reviewer says."""
    said = {}
    for name, (right, unsure) in counts.items():
        own = [row for row in key if row["set"] == name]
        for place, row in enumerate(own):
            wrong = str((int(row["label"]) + 1) % 10)
            said[row["id"]] = row["label"] if place < right else "" if place < right + unsure else wrong
    return said


def write_export(path: Path, reviewer: str, said: dict[str, str], seconds: float = 1.5) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["reviewer", "id", "answer", "seconds"])
        table.writerows((reviewer, token, answer, seconds) for token, answer in said.items())


# ---- from the page to the figures ----------------------------------------------------------------------------------------


def test_a_review_by_keyboard_gives_exactly_the_known_figures(chromium: Browser, run: Path) -> None:
    path = answers.write_page(run, count=20)
    key = key_of(run)
    said = script(key)
    page = look(chromium, path)
    start(page, "Anna, née O'Hara")
    seen: list[str] = []
    while page.locator("#question").is_visible():
        seen.append(shown(page))
        assert progress(page) == f"{len(seen)} of 60" and page.evaluate("document.activeElement.id") == "what"
        if len(seen) == 30:  # gone in the middle, and back
            page.reload()
            ready(page)
            assert progress(page) == "30 of 60" and shown(page) == seen[-1]
        if len(seen) == 40:  # a slip: back, changed, and on at the first image that has no answer
            page.keyboard.press("Backspace")
            assert progress(page) == "39 of 60" and shown(page) == seen[-2]
            was = said[seen[-2]]
            assert page.locator("#given-name").inner_text() == (was or "cannot tell")
            assert chosen(page).count() == 1 and chosen(page).get_attribute("value") == (was or None)
            page.keyboard.press("?" if was else "5")
            assert shown(page) == seen[-1]
            page.keyboard.press("Backspace")
            page.keyboard.press(was or "Space")
        page.keyboard.press(said[seen[-1]] or ("Space", "?")[len(seen) % 2])
    assert sorted(seen) == sorted(said) and [row["id"] for row in key] != seen
    assert "you named 51 of 60 images and could not tell 9." in page.locator("#told").inner_text()
    page.keyboard.press("Tab")
    sent = export(page, run / "review")
    assert sent.name == "answers-Anna-née-O-Hara.csv" == page.locator("#file").inner_text()
    lines = sent.read_bytes().split(b"\r\n")
    assert lines[0] == b"reviewer,id,answer,seconds" and len(lines) == 62 and lines[-1] == b""
    assert lines[1].startswith('"Anna, née O\'Hara",'.encode() + seen[0].encode())

    rows = answers.load_answers(run)
    assert {(row["set"], row["file"], row["label"], row["answer"]) for row in rows} == {
        (row["set"], row["file"], row["label"], said[row["id"]]) for row in key
    }
    assert {row["reviewer"] for row in rows} == {"Anna, née O'Hara"} and 0 < sum(float(row["seconds"]) for row in rows) < 120
    for row, name in zip(answers.summary(rows), SETS, strict=True):
        right, unsure = SCRIPT[name]
        low, high = stats.binomtest(right, 20).proportion_ci(method="wilson")
        assert row["seconds"] == np.median([float(one["seconds"]) for one in rows if one["set"] == name])
        del row["seconds"]
        counts = {"reviewers": 1, "images": 20, "answers": 20, "right": right, "accuracy": right / 20, "unsure": unsure / 20}
        counts["other"] = pytest.approx((20 - right - unsure) / 20)
        assert row == {"set": name, **counts, "low": pytest.approx(low), "high": pytest.approx(high), "over": "images"}
    for row, name in zip(answers.differences(rows), SETS[1:], strict=True):
        p, q = SCRIPT[name][0] / 20, 19 / 20
        (low_p, high_p), (low_q, high_q) = (
            stats.binomtest(round(20 * share), 20).proportion_ci(method="wilson") for share in (p, q)
        )
        assert row["difference"] == pytest.approx(p - q) and (row["reviewers"], row["over"]) == (1, "images")
        assert row["low"] == pytest.approx(p - q - math.sqrt((p - low_p) ** 2 + (high_q - q) ** 2))
        assert row["high"] == pytest.approx(p - q + math.sqrt((high_p - p) ** 2 + (q - low_q) ** 2))
    the_report_shows(chromium, run)


def the_report_shows(chromium: Browser, run: Path) -> None:
    """The scripted reviewer's own counts, in the section, in the chart, in the tables, and in the answer."""
    page = look(chromium, report.write(run))
    section = page.locator("section:has(#people)")
    assert "1 person was shown images" in section.inner_text()
    lines = section.locator("tbody tr").all()
    for line, (name, (right, unsure)) in zip(lines, SCRIPT.items(), strict=True):
        cells = [cell.inner_text().split() for cell in line.locator("th, td").all()]
        low, high = (100 * end for end in stats.binomtest(right, 20).proportion_ci(method="wilson"))
        read = [f"{5 * right}.0", "%", f"{low:.1f}", "to", f"{high:.1f}"]
        assert cells[:3] == [[name], ["20"], read] and cells[4] == [f"{5 * unsure}.0", "%"]
        assert cells[3][0] == ("–" if name == "original" else f"−{5 * (19 - right)}.0")
        mark = page.locator(f"#people-chart [aria-roledescription=point][aria-label*='set: {name};']")
        assert f"read: {5 * right}.0 %" in (mark.get_attribute("aria-label") or "")
    with (run / "tables/people.csv").open(encoding="utf-8", newline="") as file:
        told = {row["set"]: (int(row["right"]), round(20 * float(row["unsure"]))) for row in csv.DictReader(file)}
    assert told == SCRIPT
    assert (run / "tables/people_answers.csv").read_text().count("\n") == 61
    figures = {name: section.locator(f"h3:text-is('Most often not read as labelled: {name}') + div figure") for name in SCRIPT}
    assert [one.count() for one in figures.values()] == [1, 4, 6]
    key = {row["file"]: row for row in key_of(run)}
    for name, some in figures.items():
        for one in some.all():
            row = key[one.locator("img").get_attribute("alt") or ""]
            said = script(key_of(run))[row["id"]] or "cannot tell"
            assert row["set"] == name and one.inner_text() == f"{row['label']}; said: {said}\n1 of 1 answers"
            assert one.locator("img").evaluate("image => image.complete && image.naturalWidth") == 8
    answer = page.locator(".answers > div", has_text="look fair to people").inner_text()
    assert "of D_R 80.0 %, of the originals 95.0 %: −15.0 points" in answer.replace("\u00a0", " ")
    assert "not shown" in answer and "People read D_NR measurably less well" in answer


# ---- what the answers say -------------------------------------------------------------------------------------------------


def answered(folder: Path, counts: dict[str, list[int]], of: int = 200, classes: int = 10, named: bool = False) -> RunFolder:
    """A review of so many images a set; counts: of each set, how many each reviewer read as labelled; named: the others, too."""
    with RunFolder.open(folder, {"source": "made"}) as run:
        run.update_metadata(data={"classes": [*map(str, range(classes))]}, norm="l2", epsilon=0.5, full=False)
    key = [
        {"id": f"{name}-{i}", "set": name, "file": f"{name}/{i}", "label": str(i % classes)} for name in counts for i in range(of)
    ]
    (folder / "review").mkdir()
    (folder / "review/key.csv").write_text(as_csv(key), newline="")
    for reviewer in range(len(next(iter(counts.values())))):
        right = {row["id"] for name in counts for row in [row for row in key if row["set"] == name][: counts[name][reviewer]]}
        other = {row["id"]: str((int(row["label"]) + 1) % classes) if named else "" for row in key}
        said = {row["id"]: row["label"] if row["id"] in right else other[row["id"]] for row in key}
        write_export(folder / f"review/{reviewer}.csv", f"R{reviewer}", said)
    return RunFolder.read(folder)


@pytest.mark.parametrize(
    ("counts", "verdict", "words"),
    [
        ({"original": [190], "robust": [190], "nonrobust": [190]}, "shown", "Fair is: the whole interval is above −10 points"),
        ({"original": [190], "robust": [170], "nonrobust": [190]}, "in part", "People read D_R measurably less well"),
        ({"original": [190], "robust": [100], "nonrobust": [120]}, "not shown", "People read D_R and D_NR measurably less well"),
        ({"original": [180], "robust": [172], "nonrobust": [180]}, "open", "too few answers to tell"),
        ({"original": [24], "robust": [24], "nonrobust": [24]}, "open", "Whether they read the originals at all is not shown"),
        ({"original": [190, 188, 192], "robust": [188, 187, 191], "nonrobust": [189, 190, 188]}, "shown", "3 people"),
        ({"original": [190, 188], "robust": [188, 170], "nonrobust": [189, 120]}, "open", "too few"),  # two of them differ
    ],
)
def test_fair_is_what_loses_less_than_ten_points(tmp_path: Path, counts: dict[str, list[int]], verdict: str, words: str) -> None:
    (finding,) = analyses.review_findings(answered(tmp_path / "run", counts))
    assert finding.verdict == verdict and words in finding.text
    assert finding.question == "Do both D_R and D_NR look fair to people?"
    (finding,) = analyses.review_findings(answered(tmp_path / "one", {name: counts[name] for name in ("original", "nonrobust")}))
    assert finding.question == "Does D_NR look fair?"


@pytest.mark.parametrize(
    ("read", "named", "verdict"),
    [([3], True, "shown"), ([190], True, "not shown"), ([100], True, "open"), ([0, 0], False, "not shown")],
)
def test_whether_relabelled_images_look_wrong(tmp_path: Path, read: list[int], named: bool, verdict: str) -> None:
    """Who cannot tell does not say that a label is wrong."""
    run = answered(tmp_path / "run", {"original": [190] * len(read), "random-labels": read}, named=named)
    (finding,) = analyses.review_findings(run)
    assert finding.verdict == verdict and finding.question == "Do most relabelled images look wrongly labelled to people?"
    assert f"{(200 - read[0]) / 2 if named else 0:.1f} % of random-labels" in finding.text
    blind = answered(tmp_path / "blind", {"original": [0] * len(read), "random-labels": read}, named=named)
    assert analyses.review_findings(blind)[0].verdict == "open"


def test_nobody_asked_says_nothing(run: Path) -> None:
    assert analyses.review_findings(RunFolder.read(run)) == [] and analyses.review_table(RunFolder.read(run))[1] == []
    answers.write_page(run, count=20)
    assert analyses.review_findings(RunFolder.read(run)) == [] and "What people see" not in report.write(run).read_text(
        encoding="utf-8"
    )
    assert not (run / "tables/people.csv").exists()


def test_the_report_shows_strangers_words_as_words(chromium: Browser, run: Path) -> None:
    answers.write_page(run, count=20)
    said = script(key_of(run))
    for name in ("<img src=x onerror=document.title='taken'>", "</script>{{ 7 * 7 }}"):
        write_export(run / f"review/{len(name)}.csv", name, said if "img" in name else dict.fromkeys(said, "3"))
    text = (run / "review/review.html").read_text(encoding="utf-8")
    (run / "review/review.html").write_text(text.replace("data:image/png", "https://example.com/png"), encoding="utf-8")
    page = look(chromium, report.write(run))
    assert page.title() != "taken" and page.locator("#people-chart [onerror], .files [onerror]").count() == 0
    page.locator("summary", has_text="Who answered").click()
    assert page.locator("details p", has_text="</script>{{ 7 * 7 }}, <img src=x onerror").is_visible()
    people = page.locator("section:has(#people)")
    assert people.locator("img").count() == 0 and people.locator(".gone").count() == 18


def test_a_file_that_is_no_answers_is_told_and_costs_the_report_nothing_else(chromium: Browser, run: Path) -> None:
    answers.write_page(run, count=20)
    write_export(run / "review/A.csv", "A", script(key_of(run)))
    report.write(run)
    assert (run / "tables/people.csv").exists()
    (run / "review/._A.csv").write_bytes(b"\0\1")  # what a Mac leaves beside a file is none of ours
    assert len(answers.load_answers(run)) == 60
    (run / "review/notes.csv").write_text("dear all,\n")
    page = look(chromium, report.write(run))
    alarm = page.locator("[role=alert]").inner_text()
    assert "Reviewers’ answers are left out" in alarm and "notes.csv: must have the columns" in alarm
    assert page.locator("#people").count() == 0 and not (run / "tables/people.csv").exists()
    with pytest.raises(InputError, match=r"notes\.csv: must have the columns"):
        answers.load_answers(run)


@pytest.mark.parametrize("content", ["[" * 200_000, "{}", '{"images": 1}', '{"images": [{"id": [], "source": 3}]}'], ids=range(4))
def test_a_page_that_is_not_ours_shows_no_picture(run: Path, content: str) -> None:
    path = answers.write_page(run, count=20)
    write_export(run / "review/A.csv", "A", script(key_of(run)))
    path.write_text(f'<script type="application/json" id="review">{content}</script>')
    found = answers.misclassified_images(run, answers.load_answers(run))
    assert found["nonrobust"] and {row["picture"] for rows in found.values() for row in rows} == {""}
    path.unlink()
    os.mkfifo(path)
    assert answers.misclassified_images(run, answers.load_answers(run)) == found


def test_a_difference_has_newcombes_interval() -> None:
    """His example (1998, table II, method 10): 56 of 70 against 48 of 80, 0.2 (0.0524 to 0.3339)."""
    rows: list[dict[str, str | int | float]] = [
        {"reviewer": "A", "set": name, "file": str(place), "label": "1", "answer": "1", "right": int(place < right), "seconds": 1}
        for name, right, n in (("original", 48, 80), ("robust", 56, 70))
        for place in range(n)
    ]
    (row,) = answers.differences(rows)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def clustered(parts: list[np.ndarray]) -> tuple[float, float]:
    """Answers (reviewers, images) of a set, or of two whose difference is meant: 95 % interval from variances by both."""
    value = parts[0].mean() - sum(part.mean() for part in parts[1:])
    pulls = [sign * (part - part.mean()) / part.size for sign, part in zip((1, -1), parts, strict=False)]
    of_images = sum((pull.sum(0) ** 2).sum() * pull.shape[1] / (pull.shape[1] - 1) for pull in pulls)
    reviewers = len(parts[0])
    among = (sum(pull.sum(1) for pull in pulls) ** 2).sum() * reviewers / (reviewers - 1)
    variance = max(of_images + among - sum((pull**2).sum() for pull in pulls), of_images, among)
    freedom = variance**2 / (of_images**2 / sum(pull.shape[1] - 1 for pull in pulls) + among**2 / (reviewers - 1))
    low, high = stats.t.interval(0.95, max(freedom, 1), loc=value, scale=variance**0.5)
    return low, high


def over_images(shares: list[float], n: int) -> tuple[float, float]:
    """Wilson's interval, or Newcombe's."""
    ends = [stats.binomtest(round(share * n), n).proportion_ci(method="wilson") for share in shares]
    if len(shares) == 1:
        return ends[0].low, ends[0].high
    (p, q), gap = shares, shares[0] - shares[1]
    return gap - math.hypot(p - ends[0].low, ends[1].high - q), gap + math.hypot(ends[0].high - p, q - ends[1].low)


def test_several_reviewers_and_images_are_both_samples(run: Path) -> None:
    answers.write_page(run, count=20)
    key = key_of(run)
    shares = {"A": (20, 18, 1), "B": (19, 16, 0), "C": (18, 9, 5)}  # both ends of an interval leave [0, 1]
    right = {}
    for name, counts in shares.items():
        said = script(key, {of: (count, 0) for of, count in zip(SETS, counts, strict=True)})
        write_export(run / f"review/{name}.csv", name, said)
        right[name] = [[said[row["id"]] == row["label"] for row in key if row["set"] == of] for of in SETS]
    matrices = [np.array([own[place] for own in right.values()], float) for place in range(3)]
    rows = answers.load_answers(run)
    assert len(rows) == 180
    for row, matrix in zip(answers.summary(rows), matrices, strict=True):
        ends = np.array([clustered([matrix]), over_images([matrix.mean()], 20)])
        assert (row["low"], row["high"]) == pytest.approx((max(ends[:, 0].min(), 0), min(ends[:, 1].max(), 1)))
        assert (row["reviewers"], row["images"], row["answers"], row["over"]) == (3, 20, 60, "images and reviewers")
        assert row["accuracy"] == pytest.approx(matrix.mean()) and row["seconds"] == 1.5
    for row, matrix in zip(answers.differences(rows), matrices[1:], strict=True):
        ends = np.array([clustered([matrix, matrices[0]]), over_images([matrix.mean(), matrices[0].mean()], 20)])
        assert row["difference"] == pytest.approx(matrix.mean() - matrices[0].mean())
        assert (row["low"], row["high"]) == pytest.approx((max(ends[:, 0].min(), -1), min(ends[:, 1].max(), 1)))
        assert (row["against"], row["over"], row["reviewers"]) == ("original", "images and reviewers", 3)
        assert (row["accuracy"], row["accuracy_against"]) == pytest.approx((matrix.mean(), matrices[0].mean()))


def test_agreement_is_not_taken_for_certainty(run: Path) -> None:
    """Reviewers who all say the same of the same images tell no more of other images than one does; one slip changes little."""
    answers.write_page(run, count=20)
    said = script(key_of(run), {"original": (20, 0), "robust": (16, 0)})
    for name in "ABCD":
        write_export(run / f"review/{name}.csv", name, said)
    (same,) = answers.differences(answers.load_answers(run))
    assert (same["low"], same["high"]) == pytest.approx(over_images([0.8, 1.0], 20)) and same["reviewers"] == 4
    first = next(token for token, answer in said.items() if answer)
    write_export(run / "review/D.csv", "D", said | {first: ""})
    (slip,) = answers.differences(answers.load_answers(run))
    assert slip["low"] == pytest.approx(same["low"], abs=0.03) and slip["high"] == pytest.approx(same["high"], abs=0.03)


def test_who_saw_one_set_only_is_left_out_of_the_difference(run: Path) -> None:
    answers.write_page(run, count=20)
    said = script(key_of(run), {"original": (20, 0), "robust": (16, 0)})
    write_export(run / "review/A.csv", "A", said)
    write_export(run / "review/C.csv", "C", dict.fromkeys(list(said)[:20], ""))  # of the first set only
    original, _ = answers.summary(answers.load_answers(run))
    assert (original["reviewers"], original["accuracy"], original["unsure"]) == (2, 0.5, 0.5)
    (robust,) = answers.differences(answers.load_answers(run))
    assert (robust["reviewers"], robust["over"], robust["accuracy_against"]) == (1, "images", 1)
    alone = [row for row in answers.load_answers(run) if row["set"] == "robust"]
    assert answers.differences(alone) == [] == answers.differences([]) == answers.summary([])


@pytest.mark.parametrize("reviewers", [1, 3, 10])
def test_intervals_hold_the_truth_where_images_and_people_differ(reviewers: int) -> None:
    """No difference between the sets; hard and easy images, better and worse readers: the interval misses 0 in 5 % at most."""
    chance, missed, studies = np.random.default_rng(0), 0, 60
    for _ in range(studies):
        skill, rows = chance.normal(0, 0.5, reviewers), []
        for name in ("original", "robust"):
            reads = 1 / (1 + np.exp(-(2 + skill[:, None] + chance.normal(0, 1.5, 20))))
            for who, right in enumerate(chance.random(reads.shape) < reads):
                rows += [
                    {"reviewer": str(who), "set": name, "file": f"{name}{i}", "label": "1", "answer": "1" if one else "2"}
                    | {"right": int(one), "seconds": 1}
                    for i, one in enumerate(right)
                ]
        (row,) = answers.differences(rows)
        missed += not row["low"] <= 0 <= row["high"]
    assert missed <= 0.05 * studies + 3


# ---- nothing is given away -----------------------------------------------------------------------------------------------


def test_the_page_gives_nothing_away(digits_page: Path) -> None:
    text, key = digits_page.read_text(encoding="utf-8"), key_of(digits_page.parent.parent)
    assert not [word for word in ("robust", "original", "random-label", "digits") if word in text.lower()]
    assert not [row["file"] for row in key if row["file"] in text] and ".png" not in text
    assert sum(row["id"] in text for row in key) == 60 and all(len(row["id"]) == 10 for row in key)
    content = review_of(digits_page)
    assert set(content) == {"id", "classes", "images"} and all(set(image) == {"id", "source"} for image in content["images"])
    encoded = [base64.b64decode(image["source"].removeprefix("data:image/png;base64,")) for image in content["images"]]
    pictures = [Image.open(io.BytesIO(one)) for one in encoded]
    assert {(one.size, one.mode, repr(one.info)) for one in pictures} == {((8, 8), "L", "{}")}
    assert len({len(one) for one in encoded}) == 1  # nor does a picture's length in bytes
    assert [image["id"] for image in content["images"]] == [row["id"] for row in key]
    sets = [row["set"] for row in key]
    runs = 1 + sum(one != other for one, other in pairwise(sets))
    assert runs > 25  # by chance 41; three groups would be 3


def review_of(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8").split('<script type="application/json" id="review">')[1]
    return dict(json.loads(text.split("</script>")[0]))


def test_what_is_shown_is_the_file_of_the_key(digits_page: Path) -> None:
    run = digits_page.parent.parent
    parts = {name: data.load_part(run / "datasets" / name, "folder") for name in ("robust", "nonrobust")}
    parts["original"] = data.load("digits", limit=300).train
    for row, image in zip(key_of(run), review_of(digits_page)["images"], strict=True):
        part = parts[row["set"]]
        place = part.names.index(row["file"])
        picture = Image.open(io.BytesIO(base64.b64decode(image["source"].split(",")[1])))
        assert np.array_equal(np.asarray(picture), part.images[[place]][0, 0].numpy())
        assert row["label"] == part.classes[int(part.labels[place])]


def test_no_file_is_in_two_sets_and_classes_are_even(digits_page: Path) -> None:
    key = key_of(digits_page.parent.parent)
    assert len({row["file"] for row in key}) == 60
    assert set(Counter((row["set"], row["label"]) for row in key).values()) == {2} and len({row["label"] for row in key}) == 10


def test_a_relabelled_set_has_its_own_labels_as_the_right_ones(run: Path) -> None:
    answers.write_page(run, sets=("random-labels", "original"), count=30)
    key, digits = key_of(run), data.load("digits", limit=300).train
    true = {name: digits.classes[int(label)] for name, label in zip(digits.names, digits.labels, strict=True)}
    assert {row["set"]: row["label"] == true[row["file"]] for row in key} == {"random-labels": False, "original": True}
    write_export(run / "review/A.csv", "A", {row["id"]: true[row["file"]] for row in key})  # a person who sees well
    original, relabelled = answers.summary(answers.load_answers(run))
    assert (original["accuracy"], relabelled["set"], relabelled["accuracy"]) == (1, "random-labels", 0)
    assert set(Counter(row["label"] for row in key if row["set"] == "random-labels").values()) == {3}


def test_uneven_counts_are_uneven_alike(run: Path) -> None:
    """Of seven images a set shows seven classes, the same ones in each set."""
    answers.write_page(run, count=7, seed=3)
    key = key_of(run)
    by_set = {name: Counter(row["label"] for row in key if row["set"] == name) for name in SETS}
    assert by_set["original"] == by_set["robust"] == by_set["nonrobust"] and set(by_set["robust"].values()) == {1}
    assert sorted(by_set["robust"]) != list("0123456")  # nor the first ones


def test_the_same_seed_writes_the_same_bytes_and_another_none(run: Path, digits_page: Path) -> None:
    path = answers.write_page(run, count=20)
    was = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    assert was == {one.name: one.read_bytes() for one in digits_page.parent.iterdir()} and {*was} == {"review.html", "key.csv"}
    path.unlink()
    (path.parent / "anna.csv").write_text("reviewer,id,answer,seconds\n")
    assert answers.write_page(run, count=20).read_bytes() == was["review.html"]
    for other in ({"seed": 1}, {"count": 19}, {"sets": ("original", "robust")}, {"sets": ("robust", "original", "nonrobust")}):
        with pytest.raises(InputError, match="other sets, count or seed"):
            answers.write_page(run, **({"count": 20} | other))  # type: ignore[arg-type]
    assert {one.name: one.read_bytes() for one in path.parent.iterdir() if one.name != "anna.csv"} == was
    path.parent.rename(run / "earlier")
    answers.write_page(run, count=19)  # other images, other ids: answers to one page are no answers to another
    assert not {row["id"] for row in key_of(run)} & {row["id"] for row in key_of(digits_page.parent.parent)}


# ---- the page ------------------------------------------------------------------------------------------------------------


def test_each_reviewer_has_an_order_of_their_own(chromium: Browser, digits_page: Path) -> None:
    orders = []
    for _ in range(2):
        page = look(chromium, digits_page)
        start(page, "A")
        order = []
        for _ in range(12):
            order.append(shown(page))
            page.keyboard.press("1")
        orders.append(order)
    assert orders[0] != orders[1]


def test_start_again_asks_first(chromium: Browser, digits_page: Path) -> None:
    page = look(chromium, digits_page)
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


def test_answers_are_exported_at_any_time_and_only_a_sound_name_starts(chromium: Browser, run: Path) -> None:
    page = look(chromium, answers.write_page(run, count=3))
    for name in ("", "=1+1", "-A", "@A", " "):
        page.locator("#name").fill(name)
        page.keyboard.press("Enter")
        assert page.locator("#start").is_visible()
    page.locator("#name").fill("猫 ")
    page.keyboard.press("Enter")
    page.keyboard.press("4")
    page.locator("#export").focus()
    assert export(page, run / "review", "Space").name == "answers-猫.csv"  # Space on a button presses the button
    (row,) = answers.load_answers(run)
    assert (row["reviewer"], row["answer"]) == ("猫", "4") and progress(page) == "2 of 9"
    page.keyboard.press("Backspace")
    page.locator("#on").press("Enter")  # keeps the answer
    assert progress(page) == "2 of 9"
    page.keyboard.down("4")
    page.keyboard.down("4")  # a key held down answers once
    assert progress(page) == "3 of 9"


def test_two_tabs_of_one_reviewer_lose_nothing(chromium: Browser, digits_page: Path) -> None:
    page = look(chromium, digits_page)
    start(page, "A")
    other = page.context.new_page()
    other.goto(digits_page.as_uri())
    ready(other)
    other.keyboard.press("1")
    page.wait_for_function("document.getElementById('progress').textContent === '2 of 60'")
    page.keyboard.press("2")
    other.wait_for_function("document.getElementById('progress').textContent === '3 of 60'")


def test_closed_and_opened_again_it_goes_on(chromium: Browser, digits_page: Path) -> None:
    page = look(chromium, digits_page)
    start(page, "A")
    page.keyboard.press("1")
    again = page.context.new_page()
    page.close()
    again.goto(digits_page.as_uri())
    ready(again)
    assert progress(again) == "2 of 60"
    again.evaluate('for (const key of Object.keys(localStorage)) localStorage.setItem(key, \'{"name": 1, "order": [1]}\')')
    again.reload()
    ready(again)
    assert again.locator("#start").is_visible()  # what is kept there is not the page's


@pytest.mark.parametrize("how", ["get() { throw new DOMException('no', 'SecurityError') }", "value: undefined"])
def test_without_storage_it_works_and_says_so(chromium: Browser, run: Path, how: str) -> None:
    path = answers.write_page(run, count=1)
    page = look(chromium, path, before=f"Object.defineProperty(window, 'localStorage', {{ {how} }})")
    assert "keeps no answers" in page.locator("#not-kept").inner_text()
    start(page, "A")
    for key in "123":
        page.keyboard.press(key)
    page.keyboard.press("Tab")
    export(page, path.parent)
    assert sorted(str(row["answer"]) for row in answers.load_answers(run)) == ["1", "2", "3"]


def test_hostile_class_names_stay_text_and_come_back_as_they_were(chromium: Browser, tmp_path: Path) -> None:
    run = named(tmp_path / "hostile", HOSTILE, colour=True)
    page = look(chromium, answers.write_page(run, sets=("original",), count=12), width=360)
    start(page, "A")
    assert page.locator("#choices button").evaluate_all("all => all.map(one => one.value)") == HOSTILE
    keys = page.locator("#choices kbd").all_inner_texts()
    assert keys == ["1", "2", "4", "5", "6", "3"]  # a class that is a digit has its own key
    assert page.locator("#choices button").nth(0).inner_text().split("\n")[-1] == HOSTILE[0]
    labels = {row["id"]: row["label"] for row in key_of(run)}
    for _ in range(12):
        page.keyboard.press(keys[HOSTILE.index(labels[shown(page)])])
    assert page.title() == "What is this? · notbugs" and page.locator("[onerror], main script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.keyboard.press("Tab")
    export(page, run / "review")
    rows = answers.load_answers(run)
    assert len(rows) == 12 and all(row["right"] == 1 and row["answer"] == row["label"] for row in rows)
    assert {row["label"] for row in rows} == {*HOSTILE}


def test_more_than_ten_classes_are_found_by_typing(chromium: Browser, tmp_path: Path) -> None:
    classes = [f"{kind} {animal}" for kind in ("great", "Little", "white") for animal in ("dane", "shark", "owl", "wolf")]
    run = named(tmp_path / "many", [*classes, "owl", HOSTILE[0]])
    page = look(chromium, answers.write_page(run, sets=("original",), count=8))
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
    assert len(answers.load_answers(run)) == 8 and "great owl" in {row["answer"] for row in answers.load_answers(run)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_never_scrolls_sideways_shows_the_focus_and_is_legible(chromium: Browser, digits_page: Path, scheme: str) -> None:
    page = look(chromium, digits_page, width=360, scheme=scheme)
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
        const paint = colours => {
            for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
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

    def luminance(colour: list[int]) -> float:
        red, green, blue = (
            part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in (one / 255 for one in colour)
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for text, one, other in pairs:
        dim, bright = sorted((luminance(one), luminance(other)))
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, text


# ---- bad input -----------------------------------------------------------------------------------------------------------


def test_files_that_are_no_answers_are_named(run: Path, tmp_path: Path) -> None:
    answers.write_page(run, count=2)
    place = run / "review"
    token = key_of(run)[0]["id"]
    head, outside = "reviewer,id,answer,seconds\r\n", tmp_path / "outside.csv"
    outside.write_text(f"{head}A,{token},1,1\r\n")
    files: list[tuple[bytes | None, str]] = [
        (b"", "must have the columns"),
        (b"id,reviewer,answer,seconds\r\n", "must have the columns"),
        (b"reviewer;id;answer;seconds\r\n", "must have the columns"),
        ("reviewer,id,answer,seconds\r\nMüller,x,1,1\r\n".encode("latin-1"), "UTF-8"),
        (head.encode("utf-16"), "UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "UTF-8"),
        (f'{head}"A,{token},1,1'.encode(), "must be a CSV file"),
        (f'{head}A,{token},"{"1" * 140_000}",1'.encode(), "must be a CSV file"),
        (head.encode() + b"\r\n" * 5_000_000, "at most 10,000,000 bytes"),
        (None, "must be a file, and no link"),
    ]
    for content, words in files:
        path = place / "bad.csv"
        path.mkdir() if content is None else path.write_bytes(content)
        with pytest.raises(InputError, match=words) as error:
            answers.load_answers(run)
        assert str(error.value).startswith(str(path)) and "\n" not in str(error.value) and len(str(error.value)) < 400
        path.rmdir() if content is None else path.unlink()
    for link in (outside, Path("/dev/zero"), place / "key.csv", tmp_path / "nowhere"):
        (place / "link.csv").symlink_to(link)
        with pytest.raises(InputError, match=r"link\.csv: must be a file, and no link"):
            answers.load_answers(run)
        (place / "link.csv").unlink()
    os.mkfifo(place / "pipe.csv")
    with pytest.raises(InputError, match=r"pipe\.csv: must be a file"):
        answers.load_answers(run)
    (place / "pipe.csv").unlink()
    (place / "no\n\x1b[31m\udcff.CSV").write_text("x")
    with pytest.raises(InputError, match="must have the columns") as error:
        answers.load_answers(run)
    assert str(error.value).isprintable()


def test_rows_that_do_not_belong_are_named_with_their_line(run: Path) -> None:
    answers.write_page(run, count=2)
    token = key_of(run)[0]["id"]
    rows = [
        (f"A,{token}x,1,1", "an id of this review, got '"),
        ("A,=HYPERLINK(1),1,1", "an id of this review"),
        (f"A,{token},11,1", "must have a class of the data as its answer, or nothing, got '11'"),
        (f"A,{token},=1+1,1", "must have a class"),
        (f'A,{token},"<b>\x1b[1m",1', r"got '<b>\\x1b"),
        (f"A,{token}, 1,1", "must have a class"),
        (f"=cmd()!A1,{token},1,1", "must name its reviewer"),
        (f"@A,{token},1,1", "must name its reviewer"),
        (f",{token},1,1", "must name its reviewer"),
        (f"{'A' * 101},{token},1,1", "must name its reviewer"),
        (f'"A\nB",{token},1,1', "must name its reviewer"),
        *(
            (f"A,{token},1,{seconds}", "must have its seconds")
            for seconds in ("", "-1", "nan", "inf", "1e3", "=1", "٣", "9" * 400)
        ),
        (f"A,{token},1", "must have 4 cells"),
        (f"A,{token},1,1,1", "must have 4 cells"),
    ]
    for row, words in rows:
        (run / "review/bad.csv").write_text(f"reviewer,id,answer,seconds\n\nA,{token},1,2\n{row}\n", encoding="utf-8")
        with pytest.raises(InputError, match=rf"bad\.csv, line {5 if 'B' in row and chr(10) in row else 4}: .*{words}") as error:
            answers.load_answers(run)
        assert str(error.value).isprintable()


def test_the_last_answer_counts_and_names_are_told_apart(run: Path) -> None:
    answers.write_page(run, count=2)
    place, (first, second, *_) = run / "review", key_of(run)
    assert answers.load_answers(run) == []
    write_export(place / "answers-A.csv", "A", {first["id"]: "1", second["id"]: "2"})
    write_export(place / "answers-A (2).csv", " A ", {first["id"]: "3"}, 2)
    write_export(place / "answers-A (10).csv", "A", {first["id"]: first["label"]}, 2.25)  # the third download of the same name
    write_export(place / "answers-B.CSV", "B", {first["id"]: ""})
    (place / "excel.csv").write_text("\ufeffreviewer,id,answer,seconds\n" + f"C,{second['id']},{second['label']},3\n")
    (place / "notes.txt").write_text("not read")
    rows = answers.load_answers(run)
    assert [(row["reviewer"], row["answer"], row["right"], row["seconds"]) for row in rows] == [
        ("A", first["label"], 1, 2.25),
        ("A", "2", int(second["label"] == "2"), 1.5),
        ("B", "", 0, 1.5),
        ("C", second["label"], 1, 3.0),
    ]
    assert {column: rows[0][column] for column in ("set", "file", "label")} == {
        column: first[column] for column in ("set", "file", "label")
    }


def test_a_key_that_is_damaged_or_missing_is_named(run: Path) -> None:
    assert answers.load_answers(run) == []
    (run / "review").mkdir()
    assert answers.load_answers(run) == []
    (run / "review/anna.csv").write_text("reviewer,id,answer,seconds\n")
    with pytest.raises(InputError, match=r"review: must hold key\.csv, .*put it back"):
        answers.load_answers(run)
    answers.write_page(run, count=2)
    key = run / "review/key.csv"
    key.write_text("id,set\n")
    with pytest.raises(InputError, match=r"key\.csv: must have the columns id,set,file,label"):
        answers.load_answers(run)
    key.unlink()
    key.symlink_to("/etc/passwd")
    for function in (answers.load_answers, partial(answers.write_page, count=2)):
        with pytest.raises(InputError, match=r"key\.csv: must be a file, and no link"):
            function(run)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"sets": ("original", "next-labels")}, "--sets: must be finished sets, got next-labels"),
    ({"sets": ("robust", "test")}, "--sets: must be of original, robust, nonrobust, .* got 'test'"),
    ({"sets": ("robust", "robust")}, "--sets: must be one set or several different ones, got robust, robust"),
    ({"sets": ()}, "--sets: must be one set or several different ones, got none"),
    ({"count": 0}, "--count: must be 1 or more, got 0"),
    ({"seed": -1}, "--seed: must be 0 or more, got -1"),
    ({"count": 101}, "--count: must be at most 100 for these sets, no file being shown in two, got 101"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[words[:30] for _, words in BAD])
def test_bad_arguments_write_nothing(run: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        answers.write_page(run, **({"count": 20} | arguments))
    assert not (run / "review").exists()


def test_only_a_study_whose_data_is_there_can_be_reviewed(run: Path, tmp_path: Path) -> None:
    text = (run / "run.json").read_text()
    damaged = [
        (text.replace('"asked"', '"kind": "audit", "asked"'), "must be a study's folder"),
        (text.replace('"invert_steps": 3', '"invert_steps": "3"', 1), "must be a study's folder"),
        (text.replace('"norm": "l2"', '"norm": 2', 1), "must be a study's folder"),
        (text.replace('"resize"', '"rezise"', 1), "must be a study's folder"),
        (text.replace('"limit": 300', '"limit": 290', 1), "must hold the same images as when the run began"),
    ]
    for changed, words in damaged:
        assert changed != text
        (run / "run.json").write_text(changed)
        with pytest.raises(InputError, match=words):
            answers.write_page(run, count=20)
    (run / "run.json").write_text(text)
    shutil.rmtree(run / "datasets/robust")
    with pytest.raises(InputError, match="must be sets that could be made, got robust"):
        answers.write_page(run, count=20)
    with pytest.raises(InputError, match=r"must hold a run\.json"):
        answers.write_page(tmp_path / "nowhere", count=20)
    assert not (run / "review").exists()


def test_merging_answers_needs_no_torch(run: Path) -> None:
    answers.write_page(run, count=2)
    write_export(run / "review/A.csv", "A", {row["id"]: row["label"] for row in key_of(run)})
    code = (
        "import sys; from notbugs import review; rows = review.answers(sys.argv[1])\n"
        "review.summary(rows), review.differences(rows)\n"
        "print(len(rows), sorted({'torch', 'datasets', 'altair', 'sklearn', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "6 []"
