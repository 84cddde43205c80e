"""Figures as text: estimates with their confidence intervals, percentages, durations."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Estimate(NamedTuple):
    """A mean with its 95 % confidence interval.

    Attributes
    ----------
    mean, ci_low, ci_high : float
        In [0, 1] for a share, in [-1, 1] for a difference.
    n : int
        Images per seed.
    seeds : int
    over_seeds : bool
        Whether the interval is over seeds. If not, it is over images.
    """

    mean: float
    ci_low: float
    ci_high: float
    n: int
    seeds: int
    over_seeds: bool

    @property
    def percent(self) -> str:
        """The mean, as a percentage."""
        return percent(self.mean)

    @property
    def points(self) -> str:
        """The mean, in percentage points."""
        return minus(f"{100 * self.mean:.1f} percentage points")

    @property
    def signed_points(self) -> str:
        """The mean with its sign, in percentage points, without the unit: for tables."""
        return minus(f"{100 * self.mean:+z.1f}")

    @property
    def interval(self) -> str:
        """The interval in percent, without the unit."""
        return interval(100 * self.ci_low, 100 * self.ci_high)

    @property
    def cell(self) -> str:
        """Percentage and interval, as tables have them."""
        return self.percent if math.isnan(self.ci_low) else f"{self.percent} {self.interval}"

    @property
    def points_cell(self) -> str:
        """Percentage points with sign and interval, as tables have them."""
        return f"{self.signed_points} {self.interval}"

    @property
    def ci(self) -> str:
        """The interval, and what it is over."""
        over = f"{self.seeds} seeds" if self.over_seeds else "the test images"
        return f"95 % CI {self.interval} over {over}"


def percent(share: float) -> str:
    """A share as a percentage.

    Examples
    --------
    >>> percent(0.9731)
    '97.3 %'
    """
    return f"{100 * share:.1f} %"


def interval(low: float, high: float, digits: int = 1) -> str:
    """Both ends of an interval in brackets.

    Examples
    --------
    >>> interval(42.13, 48.3)
    '[42.1, 48.3]'
    """
    return minus(f"[{low:z.{digits}f}, {high:z.{digits}f}]")


def signed(estimate: Estimate) -> str:
    """A difference that is no percentage, with its interval.

    Examples
    --------
    >>> signed(Estimate(0.104, 0.05, 0.158, 100, 3, True))
    '+0.10 [0.05, 0.16]'
    """
    return minus(f"{estimate.mean:+z.2f} {interval(estimate.ci_low, estimate.ci_high, 2)}")


def decimal(value: float) -> str:
    """A cosine or a correlation: two decimals."""
    return minus(f"{value:z.2f}")


def minus(text: str) -> str:
    """Hyphens as minus signs."""
    return text.replace("-", "−")


def join_names(names: Sequence[str]) -> str:
    """Names with commas; "none" without names."""
    return ", ".join(names) if names else "none"


def plain(value: object) -> str:
    """A number with three digits, an empty cell as a dash, a list with commas.

    Examples
    --------
    >>> [plain(value) for value in (0.12345, 12345, None, True, (1, 2))]
    ['0.123', '12,345', '–', 'yes', '1, 2']
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return "–" if value in ("", None) else str(value)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours.

    Examples
    --------
    >>> [duration(seconds) for seconds in (5, 300, 9000)]
    ['5.0 s', '5.0 min', '2.5 h']
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
