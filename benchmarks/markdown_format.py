"""Markdown tables and figures for markdown_tables.py."""

from collections.abc import Iterable, Sequence

import numpy as np

from notbugs.stats import student_quantile


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(
        [
            "| " + " | ".join(columns) + " |",
            "|---" * len(columns) + "|",
            *("| " + " | ".join(cells) + " |" for cells in lines),
        ]
    )


def figure(value: object) -> str:
    """A measured number with three digits, a count with all of them, both with commas from 1,000; nothing for nothing."""
    if isinstance(value, float):
        digits = f"{value:.3g}"
        return f"{float(digits):,.0f}" if abs(float(digits)) >= 1000 else digits
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def interval(mean: float, low: float, high: float) -> str:
    """Mean and 95 % CI, in percent."""
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def spread(values: Sequence[float]) -> str:
    """Mean over trainings or seeds and Student's 95 % CI, in percent; of a single one its value."""
    if len(values) < 2:
        return f"{100 * values[0]:.1f}"
    mean = float(np.mean(values))
    half_width = student_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return interval(mean, mean - half_width, mean + half_width)
