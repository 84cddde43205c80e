"""The page of the two-Gaussian theory: its table, and the paper's figure 4 as a picture that answers a slider. Needs no torch."""

import math
from typing import Any

import numpy as np

from notbugs import theory
from notbugs.report import render
from notbugs.report.results import number
from notbugs.runs.folder import RunFolder

POINTS = 300  # examples drawn of each class
FRAMES = 31  # radii that the slider has
CORNERS = 60  # of an ellipse


def content(run: RunFolder) -> dict[str, Any]:
    """Everything theory.html.jinja names."""
    rows, facts = run.table("theory"), run.metadata
    world = theory.Gaussians(np.array(facts["asked"]["mean"]), np.array(facts["asked"]["variances"]))
    largest = max(number(row["epsilon"]) for row in rows)
    charts = {}
    if largest:
        charts["curves-chart"] = _curves(world, largest)
        if len(world.mean) == 2:
            charts["world-chart"] = _figure(world, largest, int(facts["asked"]["seed"]))
    return {
        "title": "Two Gaussians",
        "facts": facts,
        "rows": rows,
        "samples": rows[0].get("samples", ""),
        "charts": charts,
        "dimensions": len(world.mean),
    }


def _radii(largest: float) -> list[float]:
    """From 0 to the largest, denser near 0."""
    return [largest * (place / (FRAMES - 1)) ** 2 for place in range(FRAMES)]


def _curves(world: theory.Gaussians, largest: float) -> dict[str, Any]:
    import altair as alt

    names = {
        "least_cosine": "least cosine of mean and gradient, over all means",
        "cosine": "cosine for this mean",
        "accuracy": "robust parameters, accuracy",
        "attacked": "robust parameters, under attack",
        "plain_attacked": "true parameters, under attack",
    }
    values = [
        {"epsilon": row["epsilon"], "radius": f"{row['epsilon']:.2f}", "what": text, "at": row[name], "told": f"{row[name]:.3f}"}
        for row in theory.table(world, _radii(largest))
        for name, text in names.items()
    ]
    colours = [f"var(--{name})" for name in ("on-robust", "adversarial", "standard", "on-nonrobust", "on-random-labels")]
    base = alt.Chart({"values": values}).encode(
        x=alt.X("epsilon:Q", axis=alt.Axis(grid=False), title="ε"),
        y=alt.Y("at:Q", scale=alt.Scale(domain=[0, 1]), title=None),
        color=alt.Color(
            "what:N",
            scale=alt.Scale(domain=list(names.values()), range=colours),
            legend=alt.Legend(orient="bottom", title=None, columns=1, labelLimit=400),
        ),
        tooltip=[f"{field}:N" for field in ("what", "radius", "told")],
    )
    lines = alt.layer(base.mark_line(strokeWidth=1.75), base.mark_point(size=25, filled=True, opacity=1))
    described = "Alignment and accuracy against the radius of robust training; the table holds figures."
    return render.chart_spec(lines.properties(width="container", height=260, description=described))


def _figure(world: theory.Gaussians, largest: float, seed: int) -> dict[str, Any]:
    """Examples, unit balls of the model's metric and of L2, the boundary and the gradient, for each radius of the slider."""
    import altair as alt

    radii = [round(radius, 4) for radius in _radii(largest)]
    x, y = theory.draw(world, 2 * POINTS, seed)
    dots = [{"x": float(a), "y": float(b), "class": "+1" if label > 0 else "−1"} for (a, b), label in zip(x, y, strict=True)]
    reach = 1.05 * float(np.abs(x).max())
    turn = np.linspace(0, 2 * math.pi, CORNERS + 1)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    size = 1.5 * float(np.sqrt(np.linalg.eigvalsh(world.covariance)[-1]))  # drawn so large that the widest ball is seen
    balls, lines = [], []
    for frame, radius in enumerate(radii):
        model = theory.robust(world, radius)
        root = np.linalg.cholesky(model.covariance)
        scale = size / math.sqrt(float(np.linalg.eigvalsh(model.covariance)[-1]))
        normal = model.weights / np.linalg.norm(model.weights)
        along = np.array([-normal[1], normal[0]]) * 3 * reach
        lines.append(_line(frame, "boundary", -along, along))
        for sign, name in ((1, "+1"), (-1, "−1")):
            center = sign * model.mean
            for kind, shape in (("the model’s metric", root @ circle * scale), ("L2", circle * size)):
                corners = (center[:, None] + shape).T
                balls += [
                    {"frame": frame, "ball": kind, "which": kind + name, "corner": k, "x": float(a), "y": float(b)}
                    for k, (a, b) in enumerate(corners)
                ]
            lines.append(_line(frame, "gradient", center, center + sign * normal * size))
            lines.append(_line(frame, "difference of the means", center, center + sign * _unit(model.mean) * size))
    slider = alt.binding_range(min=0, max=FRAMES - 1, step=1, name="ε, from 0 to the largest: ")
    chosen = alt.param(name="frame", value=FRAMES // 2, bind=slider)
    span = alt.Scale(domain=[-reach, reach], nice=False)
    where = {"x": alt.X("x:Q", scale=span, title=None), "y": alt.Y("y:Q", scale=span, title=None)}
    classes = alt.Scale(domain=["+1", "−1"], range=["var(--standard)", "var(--adversarial)"])
    shown = "datum.frame == frame"
    layers = [
        alt.Chart({"values": dots}).mark_point(size=8, filled=True, opacity=0.35)
        .encode(**where, color=alt.Color("class:N", scale=classes, legend=alt.Legend(orient="top", title="class"))),
        alt.Chart({"values": balls}).transform_filter(shown).mark_line(strokeWidth=2, color="currentColor")
        .encode(
            **where, detail="which:N", order="corner:Q",
            strokeDash=alt.StrokeDash("ball:N", legend=alt.Legend(orient="top", title="ball")),
        ),
        alt.Chart({"values": lines}).transform_filter(shown).mark_rule(strokeWidth=2.5, clip=True)
        .encode(
            **where, x2="x2:Q", y2="y2:Q",
            color=alt.Color(
                "line:N",
                scale=alt.Scale(
                    domain=["boundary", "gradient", "difference of the means"],
                    range=["var(--soft)", "var(--on-robust)", "var(--on-nonrobust)"],
                ),
                legend=alt.Legend(orient="top", title=None, labelLimit=250),
            ),
        ),
        alt.Chart({"values": [{"frame": k, "told": f"ε = {radius:.2f}"} for k, radius in enumerate(radii)]})
        .transform_filter(shown).mark_text(align="left", baseline="top", fontSize=16, color="currentColor")
        .encode(x=alt.value(10), y=alt.value(10), text="told:N"),
    ]  # fmt: skip
    chart = alt.layer(*layers).add_params(chosen).resolve_scale(color="independent").properties(width=480, height=480)
    described = "Two Gaussian classes with both balls, the boundary and the gradient of the robust model at the slider's radius."
    return render.chart_spec(chart.properties(description=described))


def _line(frame: int, name: str, start: np.ndarray, end: np.ndarray) -> dict[str, Any]:
    return {"frame": frame, "line": name, "x": float(start[0]), "y": float(start[1]), "x2": float(end[0]), "y2": float(end[1])}


def _unit(vector: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    found: np.ndarray = vector / length if length else vector
    return found
