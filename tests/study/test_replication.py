"""The paper's recipe: its stage, on the small full study's own terms; its figures, and a run's beside them."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser
from scipy import stats as scipy_stats

from notbugs import construct, data, metrics, report, stats
from notbugs.data import sources
from notbugs.errors import InputError
from notbugs.report.findings import replication
from notbugs.runs.folder import RunFolder
from notbugs.search import NormBall
from notbugs.study import config, datasets, pipeline, tasks
from notbugs.study import replication as study_replication
from notbugs.study.config import StudyConfig

SMALL = StudyConfig("digits", limit=240, epochs=3, seeds=1, width=8, invert_steps=4)
SOURCES = ("adversarial", "set-robust", "on-robust")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyConfig, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    pipeline.run(SMALL, folder, only=("on-robust",), workers=1)
    whole = config.resolve(SMALL, config.load(SMALL))
    return folder, whole, study_replication.robust_version_accuracy(whole, folder, 0, lambda *_: None)["versions"]


def test_the_robust_versions_model_is_read_on_that_version(told: tuple[Path, StudyConfig, list[dict[str, Any]]]) -> None:
    folder, whole, rows = told
    assert [(row["set"], row["epsilon"]) for row in rows] == [
        (on, epsilon) for on in ("robust", "robust-test", "test") for epsilon in (0.0, 0.375, 0.75)
    ]
    model = tasks.load_model(whole, folder, 0, "on-robust")
    learnt = tasks.load_dataset(whole, folder, 0, "robust")
    with torch.no_grad():
        right = int((model(learnt.pixels(slice(None))).argmax(1) == learnt.labels).sum())
    assert (rows[0]["correct"], rows[0]["n"]) == (right, len(learnt) == 240 and 240)
    for first, half, full in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        assert first["correct"] >= half["correct"] >= full["correct"] and first["n"] == half["n"] == full["n"]
    again = [row for row in RunFolder.read(folder).table("accuracy") if (row["model"], row["set"]) == ("on-robust", "test")]
    assert [row["correct"] for row in rows[6:]] == [row["correct"] for row in again]


def test_the_test_images_have_a_robust_version_of_their_own(told: tuple[Path, StudyConfig, list[dict[str, Any]]]) -> None:
    folder, whole, rows = told
    splits = config.load(whole)
    source = tasks.load_model(whole, folder, 0, "adversarial")
    made = construct.invert_features(source, splits.test, steps=4, seed=tasks.derive_seed(0, "robust-test")).dataset
    model = tasks.load_model(whole, folder, 0, "on-robust")
    wanted = metrics.robust_accuracy(model, made, [NormBall("l2", 0.375), NormBall("l2", 0.75)])
    assert [row["correct"] for row in rows[3:6]] == [row["correct"] for row in wanted] and rows[3]["n"] == len(splits.test)


# ---- beside the paper ----------------------------------------------------------------------------------------------------


def accuracy(model: str, on: str, epsilon: float, share: float, seed: int) -> dict[str, Any]:
    right = round(share * 1000)
    low, high = scipy_stats.binomtest(right, 1000).proportion_ci(method="wilson")
    counts = {"correct": right, "n": 1000, "accuracy": share, "low": low, "high": high, "seed": seed}
    return {"model": model, "trained_on": "x", "set": on, "norm": "l2", "epsilon": epsilon, "attack": "a", **counts}


def made(folder: Path, seeds: int = 3, of_paper: bool = True, **changed: float) -> RunFolder:
    """A run that found, of every entry, half of what the paper did, and a little else from seed to seed."""
    with RunFolder.open(folder, {"source": "made"}) as run:
        known = {"classes": [*"0123456789"], "train": 8000, "test": 1000, "shape": [3, 32, 32], "note": "", "skipped": []}
        run.update_metadata(source="made", norm="l2", epsilon=0.5, epsilon_text="0.5", data=known, seeds=[*range(seeds)])
        run.update_metadata(full=True, paper=of_paper)
        for seed in range(seeds):
            tables: dict[str, list[dict[str, Any]]] = {"accuracy": [], "versions": [], "transfer": []}
            for entry in replication.ENTRIES:
                for place, share in enumerate(entry.paper):
                    row = accuracy(entry.model, entry.on, (0, 0.25, 0.5)[place], (share or 20) / 200 + seed / 100, seed)
                    if entry.on.startswith("versions"):
                        tables["versions"].append(row | {"set": entry.on.split()[1]})
                    else:
                        tables["accuracy"].append(row)
            for kind, (learnt, fooled) in replication.FIGURE.items():
                name = replication.OUR_NETWORKS[kind]
                if name != "fresh-1":
                    tables["accuracy"].append(accuracy(f"{name}-on-next-labels", "test", 0, learnt / 100, seed))
                share = round(changed.get(name.replace("-", "_"), fooled) / 100, 4)
                counts = {
                    "rate": share,
                    "low": share,
                    "high": share,
                    "source_rate": 0.9,
                    "n": 900,
                    "unfooled": 90,
                    "same": 500,
                    "other": 310,
                }
                common = {"source": "standard", "target": name, "seed": seed, "norm": "l2", "epsilon": 0.5}
                tables["transfer"].append({**common, "change": "untargeted", **counts})
            run.record_stage(f"seed{seed}/all", 1.0, tables)
    return RunFolder.read(folder)


def test_each_figure_stands_beside_the_papers(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    replication.write_table(run)
    with (run.folder / "tables/paper.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(replication.ENTRIES)
    for entry in replication.ENTRIES:
        own = [row for row in rows if row["name"] == entry.name]
        assert [row["change"] for row in own] == ["unchanged", "half", "full"] and {row["table"] for row in own} == {entry.where}
        for row, share in zip(own, entry.paper, strict=True):
            assert row["paper"] == ("" if share is None else str(round(share / 100, 6)))
            values = [(share or 20) / 200 + seed / 100 for seed in range(3)]
            low, high = scipy_stats.t.interval(0.95, 2, loc=np.mean(values), scale=scipy_stats.sem(values))
            found = [float(row[name]) for name in ("here", "low", "high")]
            assert found == pytest.approx([np.mean(values), max(low, 0), min(high, 1)])
            assert (row["n"], row["seeds"]) == ("1000", "3")
    columns, lines = replication.replication_table(run)
    line = next(line for line in lines if line[0] == "D_R, grown from noise")
    assert columns[1:3] == ["unchanged: paper", "unchanged, here"] and len(columns) == len(line) == 7
    assert line[1::2] == ["84.1", "48.27", "29.4"] and line[2].startswith("43.1 [") and line[6].startswith("15.7 [")
    assert ["D_R, grown from noise", "84.1/48.27/29.4", "43.1/25.1/15.7"] in replication.compact_table(run)[1]


def test_figure_3_is_beside_the_papers(tmp_path: Path) -> None:
    columns, lines = replication.figure_3(made(tmp_path / "run", mixer=50.0))
    assert columns[1:] == ["read after D_det: paper", "read, here", "fooled: paper", "fooled, here"]
    assert lines[0] == ["VGG-16; here vgg", "27.9", "27.9", "65.7", "65.7"] and lines[4][0] == "ResNet-50; here fresh-1"
    assert [float(cell) for cell in lines[4][1:]] == [44.7, 22.9, 98.7, 98.7]


def test_the_papers_own_correlation_is_of_its_five_points(tmp_path: Path) -> None:
    wanted = scipy_stats.pearsonr(*zip(*replication.FIGURE.values(), strict=True))[0]
    assert stats.correlation(*zip(*replication.FIGURE.values(), strict=True)) == pytest.approx(wanted) and 0.97 < wanted < 0.99


def test_a_run_without_the_recipe_is_not_compared(tmp_path: Path) -> None:
    run = made(tmp_path / "run", of_paper=False)
    replication.write_table(run)
    assert not (run.folder / "tables/paper.csv").exists()
    assert replication.replication_table(run)[1] == replication.figure_3(run)[1] == []
    assert "Beside the paper" not in report.write(run.folder).read_text(encoding="utf-8")


def test_the_report_shows_them(chromium: Browser, tmp_path: Path) -> None:
    page = chromium.new_page(viewport={"width": 1200, "height": 800})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report.write(made(tmp_path / "run").folder).as_uri())
    page.wait_for_selector("html[data-ready]", state="attached", timeout=15_000)
    section = page.locator("section:has(#paper)")
    assert "made, 8,000 training images. In" in section.inner_text() and not complaints
    line = section.locator("tr", has=page.locator("th:text-is('adversarial training')")).inner_text()
    assert [word for word in line.split() if word in ("90.83", "82.48", "70.9", "46.4", "42.2", "36.5")] == [
        "90.83",
        "46.4",
        "82.48",
        "42.2",
        "70.9",
        "36.5",
    ]
    page.close()


# ---- what is asked -------------------------------------------------------------------------------------------------------


def test_the_recipe_is_a_full_study_and_more() -> None:
    known = {name: set(pipeline.study_graph(plan)) for name, plan in {
        "full": StudyConfig("digits", seeds=2, full=True), "paper": config.resolve(StudyConfig("digits", seeds=2, recipe="paper"), data_of())
    }.items()}  # fmt: skip
    more = {"versions", *(f"{kind}-{name}" for kind in ("set", "on") for name in datasets.PAPER)}
    assert known["paper"] - known["full"] == {f"seed{seed}/{name}" for seed in (0, 1) for name in more}
    assert known["full"] < known["paper"]
    with pytest.raises(InputError, match="--recipe: must be paper, or left out, got 'ilyas'"):
        config.check(StudyConfig("digits", recipe="ilyas"))


def data_of() -> data.Splits:
    return config.load(StudyConfig("digits"))


def test_cifar10_is_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sources, "locate_hub", asked.append)
    monkeypatch.chdir(tmp_path)
    sources.locate("CIFAR10")
    (tmp_path / "CIFAR10/train/cat").mkdir(parents=True)
    assert asked == ["uoft-cs/cifar10"]
    assert sources.locate("CIFAR10").form == "folder" and len(asked) == 1  # a folder of that name comes first
