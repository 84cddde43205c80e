"""The sections of the study's page for what it is asked further: explanations, corruptions, frequencies, kernel, people."""

import math
from itertools import pairwise
from typing import Any

from notbugs.report import render
from notbugs.report.findings import analyses
from notbugs.report.results import Estimate, Rows, in_order, number, percent
from notbugs.review import answers
from notbugs.runs.folder import Cell, RunFolder

SHADES = {name: f"var(--{name}, var(--other))" for name in analyses.MODEL_NAMES}


def content(run: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """What further.html.jinja names, everything empty where nothing further was asked, and its charts by id."""
    charts: dict[str, Any] = {}
    if corrupted := run.table("corruptions"):
        charts["corruptions-chart"] = _corruptions_chart(corrupted)
    waves = run.table("frequencies")
    told = in_order(analyses.MODEL_NAMES, (str(row["model"]) for row in waves))
    most = max((number(row["errors"]) for row in waves), default=1.0)
    across = (run.metadata.get("data", {}).get("shape") or [0, 0, 0])[2]
    charts |= {f"waves-{place}": _waves_chart(waves, model, most, across) for place, model in enumerate(told)}
    if kernel := run.table("kernel"):
        charts["kernel-chart"] = _kernel_chart(kernel)
    answered, problem = answers.answers_or_problem(run.folder)
    if answered:
        charts["people-chart"] = _people_chart(answered)
    return {
        "explained": analyses.saliency_table(run),
        "explained_pictures": _pictures(run),
        "corrupted": analyses.corruptions_table(run),
        "costs": _costs(run.table("corrupted")),
        "waves": told,
        "waves_table": analyses.fourier_table(run),
        "kernel": analyses.ntk_table(run),
        "people": analyses.review_table(run),
        "misread": answers.misclassified_images(run.folder, answered),
        "answers_left_out": problem,
        "reviewers": sorted({str(row["reviewer"]) for row in answered}),
    }, charts


def _pictures(run: RunFolder) -> dict[str, dict[str, Cell]]:
    """File -> its label and, by column, its picture as a data address."""
    files: dict[str, dict[str, Cell]] = {}
    for row in run.table("explanation_pictures"):
        cells = files.setdefault(str(row["file"]), {"label": row["label"]})
        cells[str(row["column"])] = render.inline(run.folder, str(row["picture"]))
    return files


def _costs(pairs: Rows) -> dict[str, dict[str, Estimate | None]]:
    """Corruption -> model -> its accuracy less the standard model's, mean over severities."""
    kinds = in_order(analyses.CORRUPTIONS, (str(row["corruption"]) for row in pairs))
    models = [name for name in analyses.MODEL_NAMES if name != "standard"]
    return {
        kind: {name: analyses.estimate(pairs, model=name, other="standard", corruption=kind) for name in models} for kind in kinds
    }


def _corruptions_chart(rows: Rows) -> dict[str, Any]:
    """One small panel a corruption: accuracy against severity, one line a model; severity 0 is unchanged."""
    import altair as alt

    values = []
    for kind in in_order(analyses.CORRUPTIONS[1:], (str(row["corruption"]) for row in rows if row["corruption"] != "unchanged")):
        for model in in_order(analyses.MODEL_NAMES, (str(row["model"]) for row in rows)):
            if model not in analyses.MODEL_NAMES:
                continue
            for severity in range(6):
                share = analyses.corruption_accuracy(rows, model, kind if severity else "unchanged", severity)
                if share is not None:
                    told = {"model": model, "severity": severity, "at": share, "read": percent(share)}
                    values.append({"corruption": kind, **told})
    names = [name for name in analyses.MODEL_NAMES if any(value["model"] == name for value in values)]
    scale = alt.Scale(domain=names, range=[SHADES[name] for name in names])
    base = alt.Chart().encode(
        x=alt.X("severity:Q", axis=alt.Axis(tickCount=6, format="d", grid=False), title="severity"),
        y=alt.Y("at:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", values=[0, 0.5, 1]), title=None),
        color=alt.Color("model:N", scale=scale, legend=alt.Legend(orient="top", title=None)),
        tooltip=[f"{field}:N" for field in ("corruption", "model", "severity", "read")],
    )
    panel = alt.layer(base.mark_line(strokeWidth=1.75), base.mark_point(size=45, filled=True, opacity=1), data={"values": values})
    panel = panel.properties(width=165, height=130)
    described = "Accuracy of each model under each corruption against its severity; the table above holds the means."
    header = alt.Header(title=None, labelColor="currentColor", labelFontSize=12)
    chart = panel.facet(facet=alt.Facet("corruption:N", header=header, sort=list(analyses.CORRUPTIONS)), columns=3)
    return render.chart_spec(chart.properties(description=described))


def _waves_chart(rows: Rows, model: str, most: float, width: int) -> dict[str, Any]:
    """Errors with one wave added, by its frequency; the left half of the plane is the same waves again."""
    import altair as alt

    shares: dict[tuple[float, float], list[float]] = {}
    for row in rows:
        if row["model"] == model:
            shares.setdefault((number(row["down"]), number(row["across"])), []).append(number(row["errors"]))
    means = {place: sum(errors) / len(errors) for place, errors in shares.items()}
    last, first = max(down for down, _ in means), min(down for down, _ in means)
    fastest = last if last > -first else math.nan  # of an even number: it is its own mirror
    own = {(-down, across): share for (down, across), share in means.items() if 2 * across in (0, width) and down != fastest}
    means |= {place: share for place, share in own.items() if place not in means}  # a wave and its mirror, listed once
    means |= {(down if down == fastest else -down, -across): share for (down, across), share in means.items() if across}
    half_down, half_across = (_step({place[axis] for place in means}) / 2 for axis in (0, 1))
    values = [
        {
            "errors": share,
            "misread": percent(share),
            "cycles down": down,
            "cycles across": across,
            "top": down - half_down,
            "bottom": down + half_down,
            "left": across - half_across,
            "right": across + half_across,
        }
        for (down, across), share in means.items()
    ]
    chart = alt.Chart({"values": values}).mark_rect()
    chart = chart.encode(
        x=alt.X("left:Q", axis=alt.Axis(grid=False, tickCount=5, format="d"), title="cycles across", scale=alt.Scale(nice=False)),
        x2="right:Q",
        y=alt.Y("top:Q", axis=alt.Axis(grid=False, tickCount=5, format="d"), title="cycles down", scale=alt.Scale(nice=False)),
        y2="bottom:Q",
        color=alt.Color(
            "errors:Q",
            scale=alt.Scale(domain=[0, max(most, 0.01)], scheme="viridis"),
            legend=alt.Legend(format="%", title=None, gradientLength=150),
        ),
        tooltip=[f"{field}:N" for field in ("cycles across", "cycles down", "misread")],
    )
    described = f"Errors of {model} on images with one wave added, by the wave's frequency."
    return render.chart_spec(chart.properties(width="container", height=200, description=described))


def _step(places: set[float]) -> float:
    ordered = sorted(places)
    return min((after - before for before, after in pairwise(ordered)), default=1.0)


def _kernel_chart(rows: Rows) -> dict[str, Any]:
    """Usefulness and what a change leaves of it, eigenvector by eigenvector, of the first seed."""
    import altair as alt

    values = []
    for row in (row for row in rows if row["seed"] == rows[0]["seed"]):
        for what, column in (("usefulness", "usefulness"), ("what a change leaves", "robust_usefulness")):
            told = {"eigenvector": int(number(row["eigenvector"])) + 1, "class": row["class"], "word": row["kind"]}
            values.append({**told, "what": what, "at": number(row[column]), "figure": f"{number(row[column]):.2f}"})
    names, place = ["usefulness", "what a change leaves"], "eigenvector, the largest first"
    chart = alt.Chart({"values": values}).mark_point(size=45, filled=True, opacity=0.9)
    chart = chart.encode(
        x=alt.X("eigenvector:Q", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(format="d", grid=False), title=place),
        y=alt.Y("at:Q", title="of 1; below 0 it points to the wrong side"),
        color=alt.Color(
            "what:N",
            scale=alt.Scale(domain=names, range=["var(--standard)", "var(--adversarial)"]),
            legend=alt.Legend(orient="top", title=None, labelLimit=300),
        ),
        tooltip=[f"{field}:N" for field in ("eigenvector", "class", "word", "what", "figure")],
    )
    described = "Usefulness and robust usefulness of the kernel's eigenvectors, in the order of their eigenvalues."
    return render.chart_spec(chart.properties(width="container", height=260, description=described))


def _people_chart(rows: Rows) -> dict[str, Any]:
    """What people read of each set as labelled, with its interval; small: each of several reviewers."""
    import altair as alt

    told = answers.summary(rows)
    values = [
        {
            "set": row["set"],
            "at": row["accuracy"],
            "low": row["low"],
            "high": row["high"],
            "read": percent(number(row["accuracy"])),
            "interval": f"{100 * number(row['low']):.1f} to {100 * number(row['high']):.1f} %",
            "answers": row["answers"],
        }
        for row in told
    ]
    single = []
    for row in told:
        shares = answers.by_reviewer([one for one in rows if one["set"] == row["set"]])
        for name, share in shares.items() if len(shares) > 1 else ():
            single.append({"set": row["set"], "at": share, "reviewer": name, "read": percent(share)})
    place = alt.X(
        "at:Q",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1]),
        title="images that people read as labelled",
    )
    names = [str(row["set"]) for row in told]
    sets = alt.Y("set:N", sort=names, title=None, axis=alt.Axis(labelLimit=200))
    base = alt.Chart({"values": values}).encode(y=sets, tooltip=[f"{name}:N" for name in ("set", "read", "interval", "answers")])
    layers = [
        base.mark_rule(strokeWidth=2, opacity=0.7, color="var(--accent)").encode(x=alt.X("low:Q"), x2="high:Q"),
        base.mark_point(size=80, filled=True, opacity=1, color="var(--accent)").encode(x=place),
    ]
    if single:
        each = alt.Chart({"values": single}).encode(
            y=sets, x=place, tooltip=[f"{name}:N" for name in ("reviewer", "set", "read")]
        )
        layers.insert(0, each.mark_point(size=30, opacity=0.6, color="currentColor"))
    described = "Share of each set that people read as labelled; the table above holds the same figures."
    return render.chart_spec(alt.layer(*layers).properties(width="container", height=44 * len(names), description=described))
