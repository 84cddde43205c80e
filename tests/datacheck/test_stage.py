"""The check as a stage: recorded once, not done again."""

from pathlib import Path

from notbugs import data
from notbugs.datacheck import check_stage
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.data_check import DataCheckFileRow, DataCheckRow, DataCheckSummaryRow


def test_the_check_is_recorded_and_not_done_again(tmp_path: Path, digits: data.Splits) -> None:
    with RunFolder.open(tmp_path, {"kind": "study"}) as record:
        found = check_stage(record, digits.test, digits.test)
        assert [row.problem for row in found] == ["duplicates in training and test part"]
        assert check_stage(record, digits.train, digits.test) == found  # read, not computed
    run = RunFolder.read(tmp_path)
    assert run.done("data-check") and run.rows(DataCheckRow) == found
    assert len(run.rows(DataCheckFileRow)) == len(digits.test) and run.rows(DataCheckSummaryRow)[0].test == len(digits.test)
