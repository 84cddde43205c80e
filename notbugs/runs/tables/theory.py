"""Rows on the two-Gaussian model."""

from dataclasses import dataclass
from typing import ClassVar

from notbugs.runs.tables.row import Row


@dataclass(frozen=True, kw_only=True)
class TheoryRow(Row):
    """The two-Gaussian model at one epsilon."""

    table: ClassVar[str] = "theory"
    epsilon: float
    condition_number: float
    min_cosine: float
    cosine: float
    accuracy: float
    robust_accuracy: float
    true_parameters_robust_accuracy: float
    ball_condition_number: float | None = None
    ball_min_cosine: float | None = None
    budget_condition_number: float | None = None
    budget_min_cosine: float | None = None
    samples: int | None = None
