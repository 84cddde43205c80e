"""Stage: a metric of the user's own on the classifiers of a study."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from notbugs.errors import InputError
from notbugs.extensions import Metric
from notbugs.extensions.registry import function_of
from notbugs.models import frozen
from notbugs.runs.engine import Progress
from notbugs.runs.tables.study import MetricRow
from notbugs.stats import mean_interval, wilson_interval
from notbugs.study.config import ResolvedConfig, load
from notbugs.study.store import has_model, load_model


def own_metric(
    config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress, *, metric: Metric, models: Sequence[str]
) -> list[MetricRow]:
    """The metric of each model on the test images.

    Raises
    ------
    InputError
        If the function cannot be imported, or returns neither one finite number nor one per image.
    """
    measure, test, rows = function_of(metric.measure), load(config, seed).test, list[MetricRow]()
    for number, name in enumerate(models):
        if has_model(config, folder, seed, name):
            model = load_model(config, folder, seed, name).to(config.device).eval()
            given = {"threat_model": config.threat_model, "seed": seed, "device": config.device}
            with frozen(model):
                found = measure(model=model, dataset=test, **given)
            value, low, high, share = summarize(found, len(test), metric.measure)
            rows.append(
                MetricRow(
                    metric=metric.name,
                    title=metric.title,
                    model=name,
                    seed=seed,
                    value=value,
                    ci_low=low,
                    ci_high=high,
                    is_share=share,
                    n=len(test),
                )
            )
        report_progress("", (number + 1) / len(models), name)
    return rows


def summarize(found: object, n: int, function: str) -> tuple[float, float | None, float | None, bool]:
    """Value, the ends of its 95 % CI, and whether it is a share, of what a metric returned for n images."""
    try:
        values = np.asarray(found.cpu() if hasattr(found, "cpu") else found)
        share = values.dtype == bool
        numbers = values.astype(float)
    except (TypeError, ValueError, RuntimeError):
        numbers = np.array([np.nan])
        share = False
    if numbers.shape not in ((), (n,)) or not np.isfinite(numbers).all():
        got = f"{type(found).__name__} of shape {numbers.shape}, {int((~np.isfinite(numbers)).sum())} not finite"
        raise InputError(function, f"must return one finite number, or one for each of {n} images", got)
    if numbers.shape == ():
        return float(numbers), None, None, False
    if share:
        return float(numbers.mean()), *wilson_interval(float(numbers.sum()), n), True
    mean = mean_interval(numbers)
    return mean.value, mean.ci_low, mean.ci_high, False
