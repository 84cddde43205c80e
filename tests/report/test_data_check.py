"""The data check as text, and on the page of each kind of run."""

from dataclasses import replace
from pathlib import Path

import pytest

from notbugs.cli.study_progress import finding_lines
from notbugs.datacheck.classes import MIRRORING
from notbugs.report import data_check, write
from notbugs.report.data_check import checked_text, finding_text, section
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.data_check import DataCheckFileRow, DataCheckRow, DataCheckSummaryRow
from notbugs.runs.tables.row import Row

SUMMARY = DataCheckSummaryRow(
    train=1000, test=200, classes=2, width=32, height=32, channels=3, compared=1200, most_common=0.5, imbalance=1.0,
    mirroring="safe", mirroring_n=900, accuracy=0.8, mirrored_accuracy=0.81, mirroring_drop=-0.01, mirroring_drop_ci_low=-0.03,
    mirroring_drop_ci_high=0.01,
)  # fmt: skip
LEAK = DataCheckRow(
    problem="duplicates in training and test part", serious=True, count=5, n=200, unit="images",
    examples="train/<b>.png = test/<b>.png", meaning="Accuracy comes out too high.", remedy="Remove them.",
)  # fmt: skip
GRAY = DataCheckRow(
    problem="gray images among color images", serious=False, count=9, n=1200, unit="images", examples="a.png, b.png, c.png, …",
    meaning="Color may be a cue.", remedy="Compare the classes.",
)  # fmt: skip
FILE = DataCheckFileRow(file="<b>.png", part="test", problem=LEAK.problem, other_file="<b>.png", value=1.0)
KINDS = ("study", "audit", "files")


def run_with(folder: Path, kind: str, rows: list[Row]) -> RunFolder:
    with RunFolder.open(folder, {"kind": kind}) as run:
        if rows:
            run.record_stage("data-check", 1.0, rows)
    return RunFolder.read(folder)


def test_text_of_findings_and_of_what_was_checked() -> None:
    assert finding_text(LEAK).startswith("duplicates in training and test part: 5 of 200 images (train/<b>.png = test/<b>.png).")
    text = checked_text(SUMMARY)
    assert text.startswith("Checked 1,200 images: duplicates, near duplicates, labels")
    assert "Mirroring: safe (accuracy 80.0 %, mirrored 81.0 %: a drop of −1.0 percentage points [−3.0, 1.0], n 900" in text
    unmeasured = DataCheckSummaryRow(
        train=0, test=9, classes=2, width=8, height=8, channels=1, compared=0, most_common=0.5, imbalance=1.0,
        mirroring="not measured",
    )  # fmt: skip
    assert "too small for near duplicates" in checked_text(unmeasured)
    assert checked_text(unmeasured).endswith("Mirroring was not measured: that takes training images.")
    assert checked_text(replace(unmeasured, train=9)).endswith("Mirroring was not measured.")


def test_serious_findings_are_warnings_on_the_terminal() -> None:
    lines = [*finding_lines([LEAK, GRAY])]
    assert lines[0] == f"WARNING: {finding_text(LEAK)}" and lines[1].startswith("Data check: 1 other finding that is not serious")
    assert not [*finding_lines([])]
    mirrored = replace(LEAK, problem=MIRRORING, serious=False, remedy="Training does not flip here, unless --flip is given.")
    lines = [*finding_lines([mirrored, GRAY])]
    assert lines[0] == f"Data check: {finding_text(mirrored)}" and len(lines) == 2
    assert lines[1].endswith(f"not serious ({GRAY.problem}), see tables/data_check.csv.")
    assert [*finding_lines([mirrored, GRAY], every=True)] == [lines[0], f"Data check: {finding_text(GRAY)}"]


def test_a_run_without_a_check_has_no_section(tmp_path: Path) -> None:
    assert section(run_with(tmp_path, "study", [])) is None


@pytest.mark.parametrize("kind", KINDS)
def test_findings_stand_first_on_the_page(kind: str, tmp_path: Path) -> None:
    run_with(tmp_path, kind, [SUMMARY, LEAK, GRAY, FILE])
    page = write(tmp_path).read_text()
    assert "The data check found serious problems:" in page and page.index('href="#data-check"') < page.index("<main>")
    body = page[page.index("<main>") :]
    assert body.index('id="data-check"') == body.index("<h2") + len("<h2 ")
    assert "Serious: duplicates in training and test part" in body and "&lt;b&gt;.png" in body and "<b>.png" not in body
    assert 'href="tables/data_check_files.csv"' in body and "No problems found" not in body


@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_set_is_one_line(kind: str, tmp_path: Path) -> None:
    run_with(tmp_path, kind, [SUMMARY])
    page = write(tmp_path).read_text()
    assert "No problems found. Checked 1,200 images" in page and "data_check_files.csv" not in page
    assert "The data check found" not in page


def test_it_reads_what_was_written(tmp_path: Path) -> None:
    found = data_check.section(run_with(tmp_path, "study", [SUMMARY, LEAK, GRAY, FILE]))
    assert found is not None and found.findings == [LEAK, GRAY] and found.lists_files
