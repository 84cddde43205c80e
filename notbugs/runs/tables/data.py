"""Rows on the files of a data set."""

from dataclasses import dataclass
from typing import ClassVar

from notbugs.runs.tables.row import Row


@dataclass(frozen=True, kw_only=True)
class DataFileRow(Row):
    """One file of the data set. part: train, test or left out, then with the reason; group: see `data.DataConfig.group`."""

    table: ClassVar[str] = "data_files"
    file: str
    part: str
    label: str
    group: str
    reason: str
