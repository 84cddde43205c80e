"""The sections of the study's page that only a full study has: controls, transfer, agreement. Needs no torch."""

from typing import Any

from notbugs.report import render
from notbugs.report.results import SETS, AccuracyResults, Rows, in_order, number
from notbugs.report.weighed import CONTROLS, FAMILIES, LEARNERS, SOURCES, TARGETS, ControlResults, control_results, seed_mean
from notbugs.runs.folder import Cell, RunFolder

NEXT = {
    "on-next-labels": "made with the standard model",
    "on-next-labels-unread": "without images that a weak model took for their new label",
    "on-next-labels-robust": "made with the robust model",
    "on-next-labels-bugs": "moved so that other models still read the old label",
    "on-next-labels-patterns": "one random pattern a label",
    "on-next-labels-noise": "random changes",
    "on-next-labels-same-start": "learnt from the source's initial weights",
    **{f"{name}-on-next-labels": f"learnt by {text}" for name, text in FAMILIES.items()},
}
AGREEING = (
    "standard",
    "same-start",
    "fresh-1",
    *FAMILIES,
    "adversarial",
    "on-robust",
    "on-nonrobust",
    "on-random-labels",
    "on-next-labels",
)


def content(run: RunFolder, measured: AccuracyResults) -> tuple[dict[str, Any], dict[str, Any]]:
    """What evidence.html.jinja names, everything empty in a quick study, and its charts by id."""
    weighed = control_results(run)
    found, sweep = weighed.follows(measured), _sweep(weighed)
    charts = {"follows-chart": _follows_chart(found.points)} if found else {}
    charts |= {"sweep-chart": _sweep_chart(sweep)} if sweep else {}
    return {
        "excesses": weighed.excesses(),
        "controls": CONTROLS,
        "next": _next(measured),
        "audited": _audited(weighed, run.table("sets")),
        "hit": _hit(weighed),
        "matrix": _matrix(weighed),
        "sources": SOURCES,
        "follows": found,
        "sweep": sweep,
        "alike": _alike(weighed),
        "attacked": [name for name in measured.crossed() if any(measured.accuracy(name, on, 1) for on in SETS if on != "test")],
    }, charts


def _next(measured: AccuracyResults) -> list[dict[str, Any]]:
    """Models trained on next labels: what they read of the real test images by the true label, and by the next."""
    lines = []
    for model, words in NEXT.items():
        true, after = measured.accuracy(model), measured.accuracy(model, "test-next")
        if true and after:
            lines.append({"model": model, "about": words, "true": true, "next": after})
    return lines


def _audited(weighed: ControlResults, made: Rows) -> list[dict[str, Any]]:
    """The audit of each relabelled set: what gives its labels away, and whom else its images mislead."""
    poison, leaks, training = weighed.poison, weighed.leakage, weighed.training
    lines = []
    for name in in_order(SETS, (str(row["set"]) for row in poison)):
        rows = [row for row in poison if row["set"] == name]
        line: dict[str, Any] = {
            "set": name,
            "guess": seed_mean(rows, "guess"),
            "separable": seed_mean(rows, "accuracy", "low", "high", share=True),
        }
        line |= {column: seed_mean(rows, column, share=True) for column in ("others_read_it", "others_keep")}
        line["reached"] = seed_mean([row for row in made if row["set"] == name], "reached", share=True)
        for probe in ("robust-linear", "adversarial"):
            told = [row for row in leaks if (row["set"], row["model"]) == (name, probe)]
            line[probe] = seed_mean(told, "accuracy", "low", "high", share=True)
            line[f"{probe} features"] = seed_mean(told, "features")
        line |= _peak([row for row in training if row["model"] == f"on-{name}"])
        lines.append(line)
    return lines


def _peak(rows: Rows) -> dict[str, Any]:
    """The highest and the last accuracy on the test images watched in training, means over seeds."""
    seeds: dict[Cell, list[float]] = {}
    for row in rows:
        if row.get("test_accuracy", "") != "":
            seeds.setdefault(row["seed"], []).append(number(row["test_accuracy"]))
    if not seeds:
        return {"peak": None, "last": None}
    return {
        "peak": sum(max(curve) for curve in seeds.values()) / len(seeds),
        "last": sum(curve[-1] for curve in seeds.values()) / len(seeds),
    }


def _hit(weighed: ControlResults) -> list[dict[str, Any]]:
    """What the standard model's examples do to each target: rates, and the kinds of mistake."""
    lines = []
    for target in in_order(TARGETS, (str(row["target"]) for row in weighed.transfer if row["source"] == "standard")):
        rows = [row for row in weighed.transfer if (row["source"], row["target"]) == ("standard", target)]
        lines.append(
            {
                "target": target,
                "about": TARGETS.get(target, ""),
                "clean": seed_mean(rows, "clean", share=True),
                "random": weighed.hits("standard", target, "random"),
                "untargeted": weighed.hits("standard", target),
                "same": weighed.hits("standard", target, column="same"),
                "other": weighed.hits("standard", target, column="other"),
                "targeted": weighed.hits("standard", target, "targeted"),
            }
        )
    return lines


def _matrix(weighed: ControlResults) -> dict[str, dict[str, Any]]:
    """Untargeted transfer: by source, by network."""
    names = [name for name in TARGETS if name not in LEARNERS]
    found = {source: {target: weighed.hits(source, target) for target in names} for source in SOURCES}
    return {source: row for source, row in found.items() if any(row.values())}


def _sweep(weighed: ControlResults) -> list[dict[str, Any]]:
    """By source: the mean rate on fresh-1 and the five families, untargeted and targeted."""
    values = []
    for source, text in SOURCES.items():
        for change in ("untargeted", "targeted"):
            rates = [weighed.hits(source, target, change) for target in ("fresh-1", *FAMILIES)]
            known = [rate.mean for rate in rates if rate]
            if known:
                values.append({"source": text, "change": change, "rate": sum(known) / len(known), "networks": len(known)})
    return values


def _alike(weighed: ControlResults) -> dict[str, dict[str, Any]]:
    """Consistency of mistakes, model by model."""
    known = {str(row[side]) for row in weighed.agreement for side in ("model", "other")}
    names = [name for name in AGREEING if name in known]
    return {one: {other: weighed.alike(one, other) for other in names if other != one} for one in names}


def _follows_chart(points: list[tuple[str, float, float]]) -> dict[str, Any]:
    import altair as alt

    values = [
        {
            "network": FAMILIES.get(name, "same network"),
            "learnt": x,
            "fooled": y,
            "accuracy": render.percent(x),
            "rate": render.percent(y),
        }
        for name, x, y in points
    ]
    axis = alt.Axis(format="%", tickCount=6)
    base = alt.Chart({"values": values}).encode(
        x=alt.X(
            "learnt:Q", axis=axis, title="test images read after training on next-labels", scale=alt.Scale(zero=False, nice=True)
        ),
        y=alt.Y("fooled:Q", axis=axis, title="misread examples of the standard model", scale=alt.Scale(zero=False, nice=True)),
        tooltip=[f"{field}:N" for field in ("network", "accuracy", "rate")],
    )
    marks = base.mark_point(size=90, filled=True, opacity=1, color="var(--standard)")
    words = base.mark_text(dx=10, align="left", color="currentColor").encode(text="network:N")
    described = "Accuracy after next-labels against rate of transfer, one point a network; the sentence above holds the figures."
    return render.chart_spec(alt.layer(marks, words).properties(width="container", height=280, description=described))


def _sweep_chart(sweep: list[dict[str, Any]]) -> dict[str, Any]:
    import altair as alt

    values = [{**value, "told": render.percent(value["rate"])} for value in sweep]
    base = alt.Chart({"values": values}).encode(
        x=alt.X(
            "source:O", sort=list(SOURCES.values()), title="what the source was trained against", axis=alt.Axis(labelAngle=0)
        ),
        y=alt.Y("rate:Q", axis=alt.Axis(format="%", tickCount=5), title="examples that hit other networks"),
        color=alt.Color(
            "change:N",
            scale=alt.Scale(domain=["untargeted", "targeted"], range=["var(--standard)", "var(--adversarial)"]),
            legend=alt.Legend(orient="top", title=None),
        ),
        tooltip=[f"{field}:N" for field in ("source", "change", "told", "networks")],
    )
    layers = alt.layer(base.mark_line(strokeWidth=1.75), base.mark_point(size=80, filled=True, opacity=1))
    described = "Rate of transfer against how robust the source is, mean over the other networks."
    return render.chart_spec(layers.properties(width="container", height=220, description=described))
