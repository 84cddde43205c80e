"""Rows on repetitions of a study with other random seeds."""

from dataclasses import dataclass
from typing import ClassVar

from notbugs.runs.tables.row import Row


@dataclass(frozen=True, kw_only=True)
class RobustVersionRow(Row):
    """The classifier trained on D_R, on D_R itself, on the robust version of the test images, and on these."""

    table: ClassVar[str] = "robust_version_accuracy"
    model: str
    set: str
    seed: int
    norm: str
    epsilon: float
    attack: str
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, kw_only=True)
class ReplicationRow(Row):
    """One figure of the paper and the run's beside it; perturbation: clean, half or full epsilon."""

    table: ClassVar[str] = "replication"
    name: str
    paper_table: str
    perturbation: str
    paper: float | None
    here: float
    ci_low: float
    ci_high: float
    n: int
    seeds: int
