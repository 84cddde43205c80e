"""A small study, its review page in a real browser, and scripted reviewers: `from review.conftest import ...`."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import shared_folder
from playwright.sync_api import Browser, Page

from notbugs.report.pages.review import write_page
from notbugs.report.results import StudyResults
from notbugs.review import sample
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.row import records_as_csv
from notbugs.study import pipeline
from notbugs.study.config import StudyConfig

SETS = ("original", "robust", "nonrobust")
# Of each set's 20 images, in the key's order, a reviewer answers so many correctly and cannot tell so many; the rest is wrong.
SCRIPT = {"original": (19, 1), "robust": (16, 2), "nonrobust": (5, 6)}
OpenPage = Callable[..., Page]


# ---- studies -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 300 digits with three constructed sets, and nothing else."""
    config = StudyConfig("digits", seeds=1, limit=300, epochs=1, width=4, invert_steps=3, relabel_steps=5)
    only = ("dataset-robust", "dataset-nonrobust", "dataset-random-labels")
    made = shared_folder(tmp_path_factory, "reviewed", lambda made: pipeline.run(config, made / "run", only=only, workers=1))
    return made / "run"


@pytest.fixture
def run(study: Path, tmp_path: Path) -> Path:
    """A copy of it, without its models, to write a review into."""
    return Path(shutil.copytree(study, tmp_path / "run", ignore=shutil.ignore_patterns("models")))


@pytest.fixture(scope="session")
def digits_page(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that no test writes beside."""
    folder = Path(shutil.copytree(study, tmp_path_factory.mktemp("page") / "run"))
    return write_review(folder, count=20)


def write_review(run: Path, *, sets: Sequence[str] = SETS, count: int, seed: int = 0) -> Path:
    """The key and the page, as `notbugs review` writes them."""
    drawn = sample.draw_sample(run, sets=sets, count=count, seed=seed)
    sample.save_key(run, drawn)
    return write_page(run, drawn)


def noise_study(folder: Path, classes: list[str], *, size: int = 12, color: bool = False) -> Path:
    """A study of four noise images per class, of which nothing is done yet: its page shows the originals."""
    folder.mkdir()
    count, generator = 4 * len(classes), np.random.default_rng(0)
    images = generator.integers(0, 255, (count, size, size, 3) if color else (count, size, size)).astype("uint8")
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


# ---- files -------------------------------------------------------------------------------------------------------------------


def read_key(run: Path) -> list[dict[str, str]]:
    """The rows of key.csv."""
    with (run / "review/key.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def page_content(path: Path) -> dict[str, Any]:
    """What review.html knows."""
    text = path.read_text(encoding="utf-8").split('<script type="application/json" id="review">')[1]
    return dict(json.loads(text.split("</script>")[0]))


def scripted(key: list[dict[str, str]], counts: dict[str, tuple[int, int]] = SCRIPT) -> dict[str, str]:
    """By id, the answers of the scripted reviewer."""
    answers = {}
    for name, (correct, unsure) in counts.items():
        rows = [row for row in key if row["set"] == name]
        for place, row in enumerate(rows):
            wrong = str((int(row["label"]) + 1) % 10)
            answers[row["id"]] = row["label"] if place < correct else "" if place < correct + unsure else wrong
    return answers


def write_export(path: Path, reviewer: str, answers: dict[str, str], seconds: float = 1.5) -> None:
    """A file of answers, as the page exports it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["reviewer", "id", "answer", "seconds"])
        table.writerows((reviewer, image_id, answer, seconds) for image_id, answer in answers.items())


def answered(folder: Path, counts: dict[str, list[int]], of: int = 200, classes: int = 10, named: bool = False) -> StudyResults:
    """A review of so many images per set. counts: per set, each reviewer's correct answers; named: the others name a class."""
    with RunFolder.open(folder, {"dataset": "made"}) as run:
        run.update_metadata(data={"classes": [*map(str, range(classes))]}, norm="l2", epsilon=0.5, full=False)
    key = [
        {"id": f"{name}-{i}", "set": name, "file": f"{name}/{i}", "label": str(i % classes)} for name in counts for i in range(of)
    ]
    (folder / "review").mkdir()
    (folder / "review/key.csv").write_text(records_as_csv(key), newline="")
    for reviewer in range(len(next(iter(counts.values())))):
        correct = {row["id"] for name in counts for row in [row for row in key if row["set"] == name][: counts[name][reviewer]]}
        other = {row["id"]: str((int(row["label"]) + 1) % classes) if named else "" for row in key}
        answers = {row["id"]: row["label"] if row["id"] in correct else other[row["id"]] for row in key}
        write_export(folder / f"review/{reviewer}.csv", f"R{reviewer}", answers)
    return StudyResults.read(folder)


# ---- the browser -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Opens pages offline. None may write to the console, fail in a script or request anything: that is checked at the end."""
    problems: list[str] = []
    pages: list[Page] = []

    def open_page(path: Path, *, width: int = 1280, scheme: Any = "light", before: str = "") -> Page:
        context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
        if before:  # a script that runs first
            context.add_init_script(before)
        page = context.new_page()
        pages.append(page)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        prefixes = ("data:", "blob:", path.as_uri())
        page.on("request", lambda request: None if request.url.startswith(prefixes) else problems.append(request.url))
        page.goto(path.as_uri())
        ready(page)
        return page

    yield open_page
    assert problems == []
    for page in pages:
        page.context.close()


def ready(page: Page) -> None:
    """Waits until the page's script has run."""
    page.wait_for_selector("html[data-ready]", state="attached", timeout=15_000)
