"""From a run folder to one self-contained report.html, finished or not."""

import math
from collections.abc import Collection
from typing import Any

from notbugs.report import render
from notbugs.report.findings import replication
from notbugs.report.findings.main import cross_dataset, findings
from notbugs.report.pages import analyses, controls
from notbugs.report.results import FACTS, MODELS, SETS, AccuracyResults, Rows, about, accuracy_results, in_order, number, percent
from notbugs.runs.folder import Cell, RunFolder

COLUMNS = {
    "original": "as it is",
    "adversarial": "changed by at most ε so that the standard model errs",
    "change": "that change, amplified; grey is none",
    "robust": "D_R",
    "nonrobust": "D_NR",
    "random-labels": "moved towards a random other class",
    "random-labels-any": "moved towards a random class",
    "next-labels": "moved towards the next class",
    "random-labels-noise": "control: a random change",
}


# What the page shows ------------------------------------------------------------------------------------------------------------


def _content(run: RunFolder) -> dict[str, Any]:
    """Everything the template names."""
    measured, facts = accuracy_results(run), FACTS | run.metadata
    data = FACTS["data"] | facts["data"]
    charts = {"accuracy-chart": _accuracy_chart(measured)} if measured.rows else {}
    training = _training_charts(run.table("training"), measured.further)
    charts |= {f"training-{place}": chart for place, (_, chart) in enumerate(training)}
    attacks = dict.fromkeys(str(row["attack"]) for row in measured.rows if row["epsilon"])
    further, more_charts = controls.content(run, measured)
    charts |= more_charts
    asked, more_charts = analyses.content(run)
    charts |= more_charts
    return {
        "facts": facts,
        "data": data,
        "findings": findings(run),
        "measured": measured,
        "norm_name": measured.norm[0],
        "models": [(model, about(MODELS, model)) for model in measured.models()],
        "sets": [(name, about(SETS, name)) for name in measured.sets()],
        "made": _made(run.table("sets")),
        "pictures": _pictures(run),
        "columns": COLUMNS,
        "training": [model for model, _ in training],
        "attacks": ", ".join(attacks),
        "seeds": len({row["seed"] for row in measured.rows}),
        "kept": {kind: render.listed(run.folder / kind) for kind in ("datasets", "models", "tables")},
        "known": set(MODELS),
        "crossing": cross_dataset(measured),
        "crossed": [(model, about(MODELS, model)) for model in measured.crossed()],
        "evidence": further,
        "further": asked,
        "paper": replication.replication_table(run),
        "figure_3": replication.figure_3(run),
        "long_names": any(len(name) > 4 for name in data["classes"]),
        "charts": charts,
        "title": facts["source"],
    }


def _pictures(run: RunFolder) -> tuple[list[str], dict[str, dict[str, dict[str, Cell]]]]:
    """Column names, and for each file its cells by column. A cell's `source` is a data address, "" where the picture is gone."""
    columns: dict[str, None] = {}
    files: dict[str, dict[str, dict[str, Cell]]] = {}
    for row in run.table("pictures"):
        columns[str(row["column"])] = None
        cell = {**row, "source": render.inline(run.folder, str(row["picture"]))}
        files.setdefault(str(row["file"]), {})[str(row["column"])] = cell
    return list(columns), files


def _made(rows: Rows) -> list[dict[str, Any]]:
    """tables/sets.csv with one row a set: numbers as means over seeds, the largest where the name says so."""
    made = []
    for name in in_order(SETS, (str(row["set"]) for row in rows)):
        same = [row for row in rows if row["set"] == name]
        line: dict[str, Any] = {"set": name, "about": about(SETS, name), "made_from": same[0].get("made_from", "")}
        for column in same[0]:
            numbers = [row[column] for row in same if isinstance(row[column], int | float)]
            if numbers:
                line[column] = max(map(float, numbers)) if column.startswith("max_") else sum(map(float, numbers)) / len(numbers)
        made.append(line)
    return made


def _accuracy_chart(measured: AccuracyResults) -> dict[str, Any]:
    """Each model's accuracy at the three radii, with its interval."""
    import altair as alt

    names = ["unchanged", measured.radius_text(1), measured.radius_text(2)]
    values = []
    for model in measured.models():
        for radius, name in enumerate(names):
            figure = measured.accuracy(model, radius=radius)
            if figure:
                texts = {"accuracy": figure.percent, "interval": f"{figure.interval} %"}
                counts = {"images": figure.n, "seeds": figure.seeds}
                values.append(
                    {"model": model, "change": name, "at": figure.mean, "low": figure.low, "high": figure.high, **texts, **counts}
                )
    models = measured.models()
    shades = alt.Scale(domain=models, range=[_shade(model) for model in models])
    base = alt.Chart({"values": values}).encode(
        y=alt.Y("model:N", sort=models, title=None, axis=alt.Axis(labelLimit=150, grid=True, bandPosition=0, tickBand="extent")),
        yOffset=alt.YOffset("change:N", sort=names),
        color=alt.Color("model:N", scale=shades, legend=None),
        tooltip=[f"{field}:N" for field in ("model", "change", "accuracy", "interval", "images", "seeds")],
    )
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    points = base.mark_point(size=70, filled=True, opacity=1).encode(
        x=alt.X("at:Q", scale=alt.Scale(domain=[0, 1]), axis=axis, title="test images read correctly"),
        shape=alt.Shape(
            "change:N",
            scale=alt.Scale(domain=names, range=["circle", "square", "triangle-up"]),
            legend=alt.Legend(orient="top", title="each image may change by", symbolFillColor="currentColor", columns=3),
        ),
    )
    bars = base.mark_rule(strokeWidth=2, opacity=0.7).encode(x="low:Q", x2="high:Q")
    layers = [bars, points]
    if not math.isnan(measured.chance):
        line = alt.Chart({"values": [{"chance": measured.chance, "is": f"guessing: {percent(measured.chance)}"}]})
        layers.insert(
            0, line.mark_rule(strokeDash=[3, 3], color="currentColor", opacity=0.6).encode(x="chance:Q", tooltip="is:N")
        )
    described = "Accuracy of each model on the test images, unchanged and under attack; the table above holds the same figures."
    return render.chart_spec(alt.layer(*layers).properties(width="container", height=42 * len(models), description=described))


def _training_charts(rows: Rows, further: Collection[str] = ()) -> list[tuple[str, dict[str, Any]]]:
    """A small chart a model: accuracy on its own training labels against the epoch, one line a seed."""
    import altair as alt

    charts = []
    for model in in_order(MODELS, (str(row["model"]) for row in rows)):
        if model in further:
            continue
        same = [row for row in rows if row["model"] == model]
        values = [
            {
                "epoch": row["epoch"],
                "at": row["accuracy"],
                "seed": row["seed"],
                "accuracy": percent(number(row["accuracy"])),
                "loss": render.plain(row.get("loss", "")),
                "learning rate": render.plain(row.get("learning_rate", "")),
            }
            for row in same
        ]
        base = alt.Chart({"values": values}).encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, tickCount=5, format="d", grid=False), title="epoch"),
            y=alt.Y("at:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", values=[0, 0.5, 1]), title=None),
            detail="seed:N",
        )
        line = base.mark_line(strokeWidth=1.75, color=_shade(model), clip=True)
        told = [f"{field}:N" for field in ("seed", "epoch", "accuracy", "loss", "learning rate")]
        near = alt.selection_point(on="pointerover", empty=False, clear="pointerout")
        point = base.mark_point(size=90, filled=True, color=_shade(model)).add_params(near)
        point = point.encode(opacity=alt.when(near).then(alt.value(1)).otherwise(alt.value(0)), tooltip=told)
        chart = alt.layer(line, point)
        about = f"Training of {model}: accuracy on its own training labels against the epoch, one line a seed."
        charts.append((model, render.chart_spec(chart.properties(width="container", height=110, description=about))))
    return charts


def _shade(model: str) -> str:
    return f"var(--{model}, var(--other))" if model in MODELS else "var(--other)"
