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
    """A number with three digits; nothing for nothing."""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


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
