"""The page of an audit, from its run folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from notbugs.report import data_check, render
from notbugs.report.format import interval, percent
from notbugs.report.render import Charts, Context
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import (
    AuditAccuracyRow,
    AuditFileRow,
    AuditPictureRow,
    CheckRow,
    ClassAccuracyRow,
    ConfusionRow,
    CurveRow,
)
from notbugs.runs.tables.row import cells

NORMS = {
    "l2": ("L2", "square root of the summed squares of all pixel differences; pixels lie in [0, 1]"),
    "linf": ("Linf", "largest difference of any one pixel value; pixels lie in [0, 1]"),
    "l1": ("L1", "sum of all pixel differences; pixels lie in [0, 1]"),
    "l0": ("L0", "number of pixels that differ"),
}


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix within one threat model: by label and prediction, the share of the label's images."""

    threat: str
    predictions: tuple[str, ...]
    shares: Mapping[str, Mapping[str, float]]


def page(run: RunFolder) -> tuple[Context, Charts]:
    """Context of audit.html.jinja, and the charts."""
    metadata = run.audit()
    accuracy, checks, curve = run.rows(AuditAccuracyRow), run.rows(CheckRow), run.rows(CurveRow)
    norms = [norm for norm in dict.fromkeys(row.norm for row in curve) if _has_curve(norm, curve)]
    files = run.rows(AuditFileRow)
    return {
        "title": f"{_last_part(metadata.model or 'a model')} on {_last_part(metadata.dataset or 'a data set')}",
        "metadata": metadata,
        "data_check": data_check.section(run),
        "stages": run.metadata["stages"],
        "accuracy": accuracy,
        "interval": interval,
        "failed": [row for row in checks if row.passed == "no"],
        "checks": checks,
        "norms": [(norm, *NORMS[norm], _median(files, norm), _restriction(curve, norm)) for norm in norms],
        "classes": _classes(run.rows(ClassAccuracyRow)),
        "confusion": _confusion(run.rows(ConfusionRow), accuracy),
        "pictures": _pictures(run),
    }, {f"curve-{norm}": _curve_chart(norm, curve, accuracy) for norm in norms}


def _last_part(name: str) -> str:
    return Path(name).name or name


def _has_curve(norm: str, curve: Sequence[CurveRow]) -> bool:
    """Whether there is a curve to draw: one pixel more or less makes none."""
    return norm != "l0" or max(row.epsilon for row in curve if row.norm == norm) > 1


def _restriction(curve: Sequence[CurveRow], norm: str) -> str:
    """What the perturbations of a curve keep to beyond the norm."""
    return next((row.restriction or "" for row in curve if row.norm == norm), "")


def _median(files: Sequence[AuditFileRow], norm: str) -> str:
    """A sentence on the median minimum norm of the correctly classified files."""
    values = [cells(row)[f"minimum_{norm}"] for row in files if row.predicted == row.label]
    distances = sorted(value for value in values if isinstance(value, float))
    if not distances:
        return ""
    median = distances[len(distances) // 2]
    if not math.isfinite(median):
        return "No perturbation was found for half of the correctly classified images."
    outcome = "reach their target" if any(row.target for row in files) else "are misclassified"
    return f"Half of the correctly classified images {outcome} at ε = {median:.3g} or less."


def _classes(rows: Sequence[ClassAccuracyRow]) -> tuple[list[str], dict[str, dict[str, ClassAccuracyRow]]]:
    """Threat models, and for each class its row by threat model; the lowest accuracy within the last one comes first."""
    threats = list(dict.fromkeys(row.threat for row in rows))
    table: dict[str, dict[str, ClassAccuracyRow]] = {}
    for row in rows:
        table.setdefault(row.label, {})[row.threat] = row
    return threats, dict(sorted(table.items(), key=lambda item: item[1][threats[-1]].accuracy) if threats else {})


def _confusion(rows: Sequence[ConfusionRow], accuracy: Sequence[AuditAccuracyRow]) -> Confusion | None:
    """The confusion matrix within the threat model with the lowest robust accuracy."""
    threats = [row for row in accuracy if row.threat != "clean"]
    if not threats:
        return None
    threat = min(threats, key=lambda row: row.accuracy).threat
    found = [row for row in rows if row.threat == threat]
    labels = list(dict.fromkeys(row.label for row in found))
    predicted = {row.predicted for row in found}
    predictions = dict.fromkeys([label for label in labels if label in predicted] + [row.predicted for row in found])
    counts = {(row.label, row.predicted): row.count for row in found}
    totals = {label: sum(row.count for row in found if row.label == label) for label in labels}
    shares = {label: {name: counts.get((label, name), 0) / totals[label] for name in predictions} for label in labels}
    return Confusion(threat, tuple(predictions), shares)


@dataclass
class PicturedFile:
    """One file with its pictures: cells by column, `source` is a data URL."""

    file: str
    minimum_norm: float | None
    cells: dict[str, Mapping[str, object]]


def _pictures(run: RunFolder) -> tuple[list[str], dict[str, list[PicturedFile]]]:
    """Column names, and by group (most and least fragile) its files."""
    columns: dict[str, None] = {}
    groups: dict[str, dict[int, PicturedFile]] = {}
    for row in run.rows(AuditPictureRow):
        columns[row.column] = None
        entry = groups.setdefault(row.group, {}).setdefault(row.index, PicturedFile(row.file, row.minimum_norm, {}))
        entry.cells[row.column] = {**cells(row), "source": render.inline(run.folder, row.picture)}
    return list(columns), {group: list(files.values()) for group, files in groups.items()}


def _curve_chart(norm: str, curve: Sequence[CurveRow], accuracy: Sequence[AuditAccuracyRow]) -> dict[str, object]:
    """Robust accuracy by epsilon from the smallest perturbations, its CI as a band, and the ensemble as points."""
    import altair as alt

    line = [_value(row) for row in curve if row.norm == norm]
    points = [{**_value(row), "threat": row.threat} for row in accuracy if row.norm == norm]
    tooltip, color = ["accuracy:N", "95 % CI:N", "images:N"], "var(--accent)"
    shape: Literal["step-after", "linear"] = "step-after" if norm == "l0" else "linear"
    axis = alt.Axis(grid=False, tickCount=8, tickMinStep=1 if norm == "l0" else 0)
    x = alt.X("epsilon:Q", title=f"ε, {NORMS[norm][0]}", axis=axis)
    ticks = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    y = alt.Y("share:Q", scale=alt.Scale(domain=[0, 1]), title="robust accuracy", axis=ticks)
    base = alt.Chart({"values": line}).encode(x=x)
    band = base.mark_area(opacity=0.18, color=color, interpolate=shape)
    band = band.encode(y=alt.Y("ci_low:Q", title="robust accuracy"), y2="ci_high:Q")
    path = base.mark_line(color=color, strokeWidth=2, interpolate=shape).encode(y=y)
    near = alt.selection_point(on="pointerover", empty=False, clear="pointerout", nearest=True)
    opacity = alt.when(near).then(alt.value(1)).otherwise(alt.value(0))
    hover = base.mark_point(size=70, filled=True, color=color).add_params(near)
    hover = hover.encode(y=y, opacity=opacity, tooltip=[alt.Tooltip("epsilon:Q", format=".3g"), *tooltip])
    ensemble = alt.Chart({"values": points}).encode(x=x)
    rules = ensemble.mark_rule(strokeWidth=2, color="var(--alarm)").encode(y="ci_low:Q", y2="ci_high:Q")
    dots = ensemble.mark_point(size=90, filled=True, color="var(--alarm)", opacity=1).encode(y=y, tooltip=["threat:N", *tooltip])
    text = f"Robust accuracy by the {NORMS[norm][0]} ε; tables/curve.csv holds the same figures."
    layers = alt.layer(band, path, hover, rules, dots)
    return render.chart_spec(layers.properties(width="container", height=260, description=text))


def _value(row: CurveRow | AuditAccuracyRow) -> dict[str, object]:
    ends = {"epsilon": row.epsilon, "share": row.accuracy, "ci_low": row.ci_low, "ci_high": row.ci_high}
    texts = {"accuracy": percent(row.accuracy), "95 % CI": interval(100 * row.ci_low, 100 * row.ci_high), "images": row.n}
    return {**ends, **texts}
