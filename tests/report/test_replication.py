"""Figures of the paper, and those of a run for comparison."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from report.conftest import accuracy_row, made_study, open_page, student
from scipy import stats as scipy_stats

from notbugs import report, stats
from notbugs.report import tables
from notbugs.report.findings.replication import FIGURE_3, PAPER_FIGURES
from notbugs.report.results import StudyResults
from notbugs.report.transferability import TRAINED_ON_D_DET
from notbugs.runs.tables.replication import RobustVersionRow
from notbugs.runs.tables.row import Row, cells
from notbugs.runs.tables.transferability import TransferRow
from notbugs.stats import wilson_interval

EPSILONS = (0.0, 0.25, 0.5)


def figures(seed: int, rates: dict[str, float]) -> list[Row]:
    """Of every figure of the paper half, slightly different from seed to seed; figure 3 as it is, but for these rates."""
    rows: list[Row] = []
    for entry in PAPER_FIGURES:
        for epsilon, share in zip(EPSILONS, entry.paper, strict=True):
            correct = round(1000 * ((share or 20) / 200 + seed / 100))
            row = accuracy_row(entry.model, correct, 1000, wilson_interval(correct, 1000), seed, set=entry.set, epsilon=epsilon)
            row = replace(row, accuracy=(share or 20) / 200 + seed / 100)  # not rounded to images
            if entry.robust_version:
                columns = {name: cell for name, cell in cells(row).items() if name != "trained_on"}
                rows.append(RobustVersionRow(**columns))  # type: ignore[arg-type]  # the same columns
            else:
                rows.append(row)
    for point in FIGURE_3:
        if point.target != "reinit-1":
            correct = round(10 * point.accuracy)
            rows.append(accuracy_row(TRAINED_ON_D_DET[point.target], correct, 1000, (0.0, 1.0), seed))
        share = round(rates.get(point.target, point.transfer_rate) / 100, 4)
        counts = {"n": 900, "not_misclassified": 90, "same_mistake": 500, "other_mistake": 310}
        common = {"source": "standard", "target": point.target, "seed": seed, "norm": "l2", "epsilon": 0.5}
        interval = {"transfer_rate": share, "ci_low": share, "ci_high": share, "source_rate": 0.9, "clean_accuracy": 0.97}
        rows.append(TransferRow(**common, perturbation="untargeted", **counts, **interval))
    return rows


def replication(folder: Path, seeds: int = 3, replicate: bool = True, **rates: float) -> StudyResults:
    about = {"dataset": "made", "epsilon": 0.5, "epsilon_text": "0.5", "full": True, "replicate": replicate}
    data = {"classes": [*"0123456789"], "train": 8000, "test": 1000, "shape": [3, 32, 32], "notes": [], "left_out": {}}
    return made_study(folder, seeds, {"all": lambda seed: figures(seed, rates)}, n=1000, data=data, **about)


@pytest.mark.slow
def test_each_figure_is_next_to_the_papers(tmp_path: Path) -> None:
    results = replication(tmp_path / "run")
    report.write(results.folder)
    with (results.folder / "tables/replication.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(PAPER_FIGURES)
    for entry in PAPER_FIGURES:
        own = [row for row in rows if row["name"] == entry.name]
        assert [row["perturbation"] for row in own] == ["clean", "half", "full"]
        assert {row["paper_table"] for row in own} == {entry.paper_table}
        for row, share in zip(own, entry.paper, strict=True):
            assert row["paper"] == ("" if share is None else str(round(share / 100, 6)))
            values = [(share or 20) / 200 + seed / 100 for seed in range(3)]
            low, high = student(values)
            found = [float(row[name]) for name in ("here", "ci_low", "ci_high")]
            assert found == pytest.approx([sum(values) / 3, max(low, 0), min(high, 1)])
            assert (row["n"], row["seeds"]) == ("1000", "3")
    assert (results.folder / "tables/replication.parquet").is_file()


def test_the_tables_of_the_command_line(tmp_path: Path) -> None:
    results = replication(tmp_path / "run")
    columns, lines = tables.replication_table(results)
    line = next(line for line in lines if line[0] == "D_R, inverted from noise")
    assert columns[1:3] == ["clean: paper", "clean: here"] and len(columns) == len(line) == 7
    assert line[1::2] == ["84.1", "48.27", "29.4"] and line[2].startswith("43.1 [") and line[6].startswith("15.7 [")
    assert ["D_R, inverted from noise", "84.1/48.27/29.4", "43.1/25.1/15.7"] in tables.compact_replication_table(results)[1]


def test_figure_3_is_next_to_the_papers(tmp_path: Path) -> None:
    columns, lines = tables.figure_3_table(replication(tmp_path / "run", mixer=50.0))
    assert columns[1:] == ["accuracy: paper", "accuracy: here", "transfer rate: paper", "transfer rate: here"]
    assert lines[0] == ["VGG-16 (here: vgg)", "27.9", "27.9", "65.7", "65.7"] and lines[4][0] == "ResNet-50 (here: reinit-1)"
    assert [float(cell) for cell in lines[4][1:]] == [44.7, 22.9, 98.7, 98.7]


def test_the_papers_own_correlation_is_over_its_five_points() -> None:
    x, y = [point.accuracy for point in FIGURE_3], [point.transfer_rate for point in FIGURE_3]
    wanted = scipy_stats.pearsonr(x, y)[0]
    assert stats.correlation(x, y) == pytest.approx(wanted) and 0.97 < wanted < 0.99


@pytest.mark.slow
def test_a_run_that_does_not_replicate_the_paper_is_not_compared(tmp_path: Path) -> None:
    results = replication(tmp_path / "run", replicate=False)
    text = report.write(results.folder).read_text(encoding="utf-8")
    assert not (results.folder / "tables/replication.csv").exists()
    assert tables.replication_table(results)[1] == tables.figure_3_table(results)[1] == []
    assert "Comparison with the paper" not in text


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_compares_with_the_paper(chromium: Browser, tmp_path: Path) -> None:
    page = open_page(chromium, report.write(replication(tmp_path / "run").folder))
    section = page.locator("section:has(#replication)")
    assert "made, 8,000 training images. In percent" in section.inner_text()
    line = section.locator("tr", has=page.locator("th:text-is('adversarial training')")).inner_text()
    wanted = ["90.83", "46.4", "82.48", "42.2", "70.9", "36.5"]
    assert [word for word in line.split() if word in wanted] == wanted
    page.close()
