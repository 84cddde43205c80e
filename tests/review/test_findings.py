"""What the report concludes from the answers."""

from pathlib import Path

import pytest
from review.conftest import OpenPage, answered, read_key, scripted, write_export, write_review

from notbugs import report
from notbugs.errors import InputError
from notbugs.report import tables
from notbugs.report.findings import review
from notbugs.report.results import StudyResults
from notbugs.review.answers import load_answers


@pytest.mark.parametrize(
    ("counts", "status", "words"),
    [
        ({"original": [190], "robust": [190], "nonrobust": [190]}, "supported", "the whole CI is above −10 percentage points"),
        ({"original": [190], "robust": [170], "nonrobust": [190]}, "partly supported", "Measurably worse: D_R."),
        ({"original": [190], "robust": [100], "nonrobust": [120]}, "not supported", "Measurably worse: D_R and D_NR."),
        ({"original": [180], "robust": [172], "nonrobust": [180]}, "inconclusive", "too few answers"),
        ({"original": [24], "robust": [24], "nonrobust": [24]}, "inconclusive", "originals is not measurably above chance"),
        ({"original": [190, 188, 192], "robust": [188, 187, 191], "nonrobust": [189, 190, 188]}, "supported", "3 reviewers"),
        ({"original": [190, 188], "robust": [188, 170], "nonrobust": [189, 120]}, "inconclusive", "too few"),  # two who differ
    ],
)
def test_non_inferior_is_what_loses_less_than_ten_percentage_points(
    tmp_path: Path, counts: dict[str, list[int]], status: str, words: str
) -> None:
    (finding,) = review.findings(answered(tmp_path / "run", counts))
    assert finding.status == status and words in finding.text
    assert "both D_R and D_NR" in finding.question
    (finding,) = review.findings(answered(tmp_path / "one", {name: counts[name] for name in ("original", "nonrobust")}))
    assert "D_NR" in finding.question and "D_R" not in finding.question


@pytest.mark.parametrize(
    ("correct", "named", "status"),
    [([3], True, "supported"), ([190], True, "not supported"), ([100], True, "inconclusive"), ([0, 0], False, "not supported")],
)
def test_whether_relabeled_images_look_wrong(tmp_path: Path, correct: list[int], named: bool, status: str) -> None:
    """Who cannot tell does not say that a label is wrong."""
    counts = {"original": [190] * len(correct), "random-labels": correct}
    (finding,) = review.findings(answered(tmp_path / "run", counts, named=named))
    assert finding.status == status and finding.question == "Do most relabeled images look wrongly labeled to people?"
    assert f"{(200 - correct[0]) / 2 if named else 0:.1f} % of random-labels" in finding.text
    chance = {"original": [0] * len(correct), "random-labels": correct}
    assert review.findings(answered(tmp_path / "chance", chance, named=named))[0].status == "inconclusive"


@pytest.mark.slow
def test_without_answers_there_is_no_finding(run: Path) -> None:
    results = StudyResults.read(run)
    assert review.findings(results) == [] and tables.review_table(results)[1] == []
    write_review(run, count=20)
    assert review.findings(StudyResults.read(run)) == []
    assert "Human review" not in report.write(run).read_text(encoding="utf-8")
    assert not (run / "tables/review_summary.csv").exists()


@pytest.mark.slow
@pytest.mark.browser
def test_a_file_that_is_no_table_of_answers_is_named_and_costs_the_report_nothing_else(open_page: OpenPage, run: Path) -> None:
    write_review(run, count=20)
    write_export(run / "review/A.csv", "A", scripted(read_key(run)))
    report.write(run)
    assert (run / "tables/review_summary.csv").exists()
    (run / "review/._A.csv").write_bytes(b"\0\1")  # what a Mac leaves beside a file is none of ours
    assert len(load_answers(run)) == 60
    (run / "review/notes.csv").write_text("dear all,\n")
    page = open_page(report.write(run))
    alarm = page.locator("[role=alert]").inner_text()
    assert "The answers of reviewers are left out" in alarm and "notes.csv: must have the columns" in alarm
    assert page.locator("#review").count() == 0 and not (run / "tables/review_summary.csv").exists()
    with pytest.raises(InputError, match=r"notes\.csv: must have the columns"):
        load_answers(run)
