import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def bonferroni_interval(values: list[float], tries: int) -> tuple[float, float, float]:
    """Mean and Student's interval, widened for so many tries (Bonferroni)."""
    from scipy.stats import sem, t

    mean = sum(values) / len(values)
    reach = float(t.ppf(1 - 0.025 / tries, len(values) - 1) * sem(values))
    return mean, mean - reach, mean + reach


def excess(result: Any, control: Any, guess: float) -> dict[str, Any]:
    """accuracy, control_accuracy, excess of one over the other with Newcombe's 95 % interval, excess over guessing, n."""
    (p, low_p, high_p), (q, low_q, high_q) = (
        [float(row[name]) for name in ("accuracy", "low", "high")] for row in (result, control)
    )
    return {
        "accuracy": p,
        "control_accuracy": q,
        "excess": p - q,
        "excess_low": p - q - math.hypot(p - low_p, high_q - q),
        "excess_high": p - q + math.hypot(high_p - p, q - low_q),
        "over_guessing": p - guess,
        "over_guessing_low": low_p - guess,
        "over_guessing_high": high_p - guess,
        "n": result["n"],
    }


def mean_interval_row(values: np.ndarray) -> dict[str, Any]:
    """value, low, high, n: a mean over images with Student's 95 % interval."""
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.inf
    mean = float(values.mean())
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def student_interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval over two or more seeds."""
    from scipy import stats

    mean = math.fsum(values) / len(values)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return mean, mean - reach, mean + reach


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a share."""
    from scipy.stats import binomtest

    found = binomtest(correct, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Pearson's; 0 where one of them never changes."""
    from scipy.stats import pearsonr

    if len(set(one)) == 1 or len(set(other)) == 1:
        return 0.0
    return float(pearsonr(one, other)[0])


def correlation_interval(correlation: float, n: int) -> tuple[float, float]:
    """95 % interval of a correlation over n points."""
    middle = math.atanh(max(min(correlation, 1 - 1e-12), 1e-12 - 1))
    reach = 1.959964 / math.sqrt(n - 3)
    return math.tanh(middle - reach), math.tanh(middle + reach)
