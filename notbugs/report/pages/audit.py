"""What the page of an audit shows, from its run folder. Needs no torch."""

import math
from collections.abc import Mapping
from typing import Any

from notbugs.report import render
from notbugs.runs.folder import Cell, RunFolder

Rows = list[dict[str, Cell]]
FACTS: dict[str, Any] = {
    "source": "an audit", "model": "?", "within": [], "budget": "?", "command": "", "notbugs": "", "versions": {}, "device": "",
    "machine": "", "seconds": 0, "finished": False, "gradient": True,
    "data": {"classes": [], "n": "?", "shape": [], "note": "", "skipped": []},
}  # fmt: skip
NORMS = {
    "l2": ("L2", "square root of the summed squared pixel changes, black being 0 and white 1"),
    "linf": ("L-infinity", "largest change of any one value, black being 0 and white 1"),
    "l1": ("L1", "sum of all pixel changes, black being 0 and white 1"),
    "l0": ("L0", "number of pixels changed"),
}


def content(run: RunFolder) -> dict[str, Any]:
    """Everything that audit.html.jinja names."""
    facts = FACTS | run.metadata
    accuracy, checks, curve = run.table("accuracy"), run.table("checks"), run.table("curve")
    norms = [norm for norm in dict.fromkeys(str(row["norm"]) for row in curve) if _several(norm, curve)]
    charts = {f"curve-{norm}": _curve_chart(norm, curve, accuracy) for norm in norms}
    model = str(facts["model"])
    return {
        "title": f"{model.rsplit('/', 1)[-1]} on {str(facts['source']).rstrip('/').rsplit('/', 1)[-1]}",
        "facts": facts,
        "data": FACTS["data"] | facts["data"],
        "accuracy": accuracy,
        "failed": [row for row in checks if row["passed"] == "no"],
        "checks": checks,
        "norms": [(norm, *NORMS[norm], _middle(run.table("files"), norm)) for norm in norms],
        "classes": _classes(run.table("classes")),
        "confusion": _confusion(run.table("confusion"), accuracy),
        "pictures": _pictures(run),
        "charts": charts,
        "kept": {kind: render.listed(run.folder / kind) for kind in ("datasets", "tables")},
    }


def _several(norm: str, curve: Rows) -> bool:
    """Whether there is a curve to draw: one pixel more or less makes none."""
    return norm != "l0" or max(float(row["epsilon"]) for row in curve if row["norm"] == norm) > 1


def _middle(files: Rows, norm: str) -> str:
    """In words, the median of the smallest changes that fool, over the files that are read correctly."""
    sizes = sorted(float(row[f"smallest_{norm}"]) for row in files if row["read"] == row["label"])
    if not sizes:
        return ""
    middle = sizes[len(sizes) // 2]
    if not math.isfinite(middle):
        return "No change that was tried fools half of the images that are read correctly."
    return f"Half of the images that are read correctly are fooled by a change of {middle:.3g} or less."


def _classes(rows: Rows) -> tuple[list[str], dict[str, dict[str, dict[str, Cell]]]]:
    """Sets, and for each class its row by set; the classes that lose most under the last set first."""
    sets = list(dict.fromkeys(str(row["within"]) for row in rows))
    table: dict[str, dict[str, dict[str, Cell]]] = {}
    for row in rows:
        table.setdefault(str(row["label"]), {})[str(row["within"])] = row
    return sets, dict(sorted(table.items(), key=lambda item: float(item[1][sets[-1]]["accuracy"])) if sets else {})


def _confusion(rows: Rows, accuracy: Rows) -> dict[str, Any]:
    """At the set that leaves some images and fools most: what each class is taken for, as shares of its images."""
    sets = [row for row in accuracy if row["within"] != "unchanged"]
    if not sets:
        return {}
    within = str(min(sets, key=lambda row: float(row["accuracy"]))["within"])
    found = [row for row in rows if row["within"] == within]
    labels = list(dict.fromkeys(str(row["label"]) for row in found))
    reads = [label for label in labels if any(row["read"] == label for row in found)]
    reads += [str(row["read"]) for row in found if row["read"] not in reads]
    counts = {(str(row["label"]), str(row["read"])): int(row["count"]) for row in found}
    totals = {label: sum(count for (own, _), count in counts.items() if own == label) for label in labels}
    reads = list(dict.fromkeys(reads))
    shares = {label: {read: counts.get((label, read), 0) / totals[label] for read in reads} for label in labels}
    return {"within": within, "reads": reads, "shares": shares, "counts": counts}


def _pictures(run: RunFolder) -> tuple[list[str], dict[str, list[Mapping[str, Any]]]]:
    """Column names, and by kind (most and least fragile) one entry a file: its cells by column, with their sources."""
    columns: dict[str, None] = {}
    kinds: dict[str, dict[Cell, dict[str, Any]]] = {}
    for row in run.table("pictures"):
        columns[str(row["column"])] = None
        entry = kinds.setdefault(str(row["kind"]), {}).setdefault(
            row["number"], {"file": row["file"], "size": row["size"], "cells": {}}
        )
        entry["cells"][str(row["column"])] = {**row, "source": render.inline(run.folder, str(row["picture"]))}
    return list(columns), {kind: list(entries.values()) for kind, entries in kinds.items()}


def _curve_chart(norm: str, curve: Rows, accuracy: Rows) -> dict[str, Any]:
    """Accuracy against radius from the smallest changes, its interval as a band, and the verdicts as points."""
    import altair as alt

    line = [
        {
            "radius": row["epsilon"], "at": row["accuracy"], "low": row["low"], "high": row["high"],
            "accuracy": render.percent(float(row["accuracy"])), "interval": _interval(row), "images": row["n"],
        }
        for row in curve if row["norm"] == norm
    ]  # fmt: skip
    points = [
        {
            "radius": row["epsilon"], "at": row["accuracy"], "low": row["low"], "high": row["high"], "within": row["within"],
            "accuracy": render.percent(float(row["accuracy"])), "interval": _interval(row), "images": row["n"],
        }
        for row in accuracy if row["norm"] == norm
    ]  # fmt: skip
    name, shade, told = NORMS[norm][0], "var(--accent)", ["accuracy:N", "interval:N", "images:N"]
    shape: Any = "step-after" if norm == "l0" else "linear"
    x = alt.X(
        "radius:Q", title=f"change allowed, {name}", axis=alt.Axis(grid=False, tickCount=8, tickMinStep=1 if norm == "l0" else 0)
    )
    ticks = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    y = alt.Y("at:Q", scale=alt.Scale(domain=[0, 1]), title="read correctly", axis=ticks)
    base = alt.Chart({"values": line}).encode(x=x)
    band = base.mark_area(opacity=0.18, color=shade, interpolate=shape).encode(
        y=alt.Y("low:Q", title="read correctly"), y2="high:Q"
    )
    path = base.mark_line(color=shade, strokeWidth=2, interpolate=shape).encode(y=y)
    near = alt.selection_point(on="pointerover", empty=False, clear="pointerout", nearest=True)
    seen = alt.when(near).then(alt.value(1)).otherwise(alt.value(0))
    hover = base.mark_point(size=70, filled=True, color=shade).add_params(near)
    hover = hover.encode(y=y, opacity=seen, tooltip=[alt.Tooltip("radius:Q", format=".3g"), *told])
    verdicts = alt.Chart({"values": points}).encode(x=x)
    rules = verdicts.mark_rule(strokeWidth=2, color="var(--alarm)").encode(y="low:Q", y2="high:Q")
    dots = verdicts.mark_point(size=90, filled=True, color="var(--alarm)", opacity=1)
    dots = dots.encode(y=y, tooltip=["within:N", *told])
    described = f"Accuracy against the {name} change allowed; tables/curve.csv holds the same figures."
    return render.chart_spec(
        alt.layer(band, path, hover, rules, dots).properties(width="container", height=260, description=described)
    )


def _interval(row: Mapping[str, Cell]) -> str:
    return f"{100 * float(row['low']):.1f}–{100 * float(row['high']):.1f} %"
