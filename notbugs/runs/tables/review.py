"""Rows on the answers of people."""

from dataclasses import dataclass
from typing import ClassVar

from notbugs.runs.tables.row import Row


@dataclass(frozen=True, kw_only=True)
class ReviewAnswerRow(Row):
    """One answer of a reviewer; an empty answer is "cannot tell"."""

    table: ClassVar[str] = "review_answers"
    reviewer: str
    set: str
    file: str
    label: str
    answer: str
    correct: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ReviewSummaryRow(Row):
    """Accuracy of people on one set, and what its 95 % CI is over."""

    table: ClassVar[str] = "review_summary"
    set: str
    reviewers: int
    images: int
    answers: int
    correct: int
    accuracy: float
    ci_low: float
    ci_high: float
    unsure: float
    other_class: float
    seconds: float
    interval_over: str


@dataclass(frozen=True, kw_only=True)
class ReviewDifferenceRow(Row):
    """Accuracy of people on one set minus that on another, of those who saw both."""

    table: ClassVar[str] = "review_differences"
    set: str
    against: str
    reviewers: int
    accuracy: float
    accuracy_against: float
    difference: float
    ci_low: float
    ci_high: float
    interval_over: str
