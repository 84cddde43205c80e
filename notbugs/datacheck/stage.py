"""The data check as the first stage of a run."""

import time
from collections.abc import Sequence

from notbugs.data import Dataset
from notbugs.datacheck.check import check_data
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.data_check import DataCheckRow

STAGE = "data-check"


def check_stage(
    record: RunFolder,
    train: Dataset | None,
    test: Dataset,
    *,
    folds: int = 3,
    mirroring: bool = False,
    flips: bool = False,
    chosen: bool = False,
) -> Sequence[DataCheckRow]:
    """The findings of a run's data check, which is done and recorded if it is not yet.

    Parameters
    ----------
    record : RunFolder
        Open for writing.
    train, test, folds, mirroring, flips, chosen
        As for `check_data`.

    Returns
    -------
    list of DataCheckRow
    """
    if not record.done(STAGE):
        began = time.perf_counter()
        check = check_data(train, test, folds=folds, mirroring=mirroring, flips=flips, chosen=chosen)
        record.record_stage(STAGE, time.perf_counter() - began, [check.summary, *check.findings, *check.files])
    return record.rows(DataCheckRow)
