"""Rows on what is wrong with a data set."""

from dataclasses import dataclass
from typing import ClassVar

from notbugs.runs.tables.row import Row


@dataclass(frozen=True, kw_only=True)
class DataCheckRow(Row):
    """One problem of a data set. count: of n images, or of n classes (unit); serious: it can change conclusions.

    examples: up to three files or classes; meaning: what it means for robustness figures; remedy: what to do.
    """

    table: ClassVar[str] = "data_check"
    problem: str
    serious: bool
    count: int
    n: int
    unit: str
    examples: str
    meaning: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class DataCheckFileRow(Row):
    """One file with a problem. value: similarity to other_file (1: same pixels), or the contrast in levels of 0 to 255."""

    table: ClassVar[str] = "data_check_files"
    file: str
    part: str
    problem: str
    other_file: str
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class DataCheckSummaryRow(Row):
    """What was checked. compared: images compared for near duplicates.

    most_common: accuracy of always predicting the most common class; imbalance: largest / smallest class. mirroring: safe, not
    safe, inconclusive or not measured; mirroring_drop: accuracy minus mirrored_accuracy, on mirroring_n held-out training images.
    """

    table: ClassVar[str] = "data_check_summary"
    train: int
    test: int
    classes: int
    width: int
    height: int
    channels: int
    compared: int
    most_common: float
    imbalance: float
    mirroring: str
    mirroring_n: int | None = None
    accuracy: float | None = None
    mirrored_accuracy: float | None = None
    mirroring_drop: float | None = None
    mirroring_drop_ci_low: float | None = None
    mirroring_drop_ci_high: float | None = None
