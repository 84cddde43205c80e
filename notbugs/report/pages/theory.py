"""The page of the two-Gaussian model: its table, and the paper's figure 4 as a chart with a slider for epsilon."""

import math
from typing import TYPE_CHECKING

import numpy as np

from notbugs import theory
from notbugs.report import render
from notbugs.report.render import Charts, Context
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.row import cells
from notbugs.runs.tables.theory import TheoryRow

if TYPE_CHECKING:
    from altair import Chart

EXAMPLES = 600  # drawn in the chart
FRAMES = 31  # epsilons of the slider
CORNERS = 60  # of an ellipse
CURVES = {
    "min_cosine": "minimum cosine of mean and gradient, over all means",
    "cosine": "cosine for this mean",
    "accuracy": "robust parameters, clean accuracy",
    "robust_accuracy": "robust parameters, robust accuracy",
    "true_parameters_robust_accuracy": "true parameters, robust accuracy",
}
CURVE_MODELS = ("trained-on-robust", "adversarial", "standard", "trained-on-nonrobust", "trained-on-random-labels")

Values = list[dict[str, object]]


def page(run: RunFolder) -> tuple[Context, Charts]:
    """Context of theory.html.jinja, and the charts."""
    rows, metadata = run.rows(TheoryRow), run.theory()
    arguments = run.metadata["arguments"]
    classes = theory.Gaussians(np.array(arguments["mean"]), np.array(arguments["variances"]))
    largest, charts = max(row.epsilon for row in rows), Charts()
    if largest:
        charts["curves-chart"] = _curves_chart(classes, largest)
        if len(classes.mean) == 2:
            charts["metric-chart"] = _metric_chart(classes, largest, int(arguments["seed"]))
    return {
        "title": "Two Gaussians",
        "metadata": metadata,
        "rows": rows,
        "samples": rows[0].samples,
        "dimensions": len(classes.mean),
        "frames": [_title(epsilon) for epsilon in _epsilons(largest)],
    }, charts


def _epsilons(largest: float) -> list[float]:
    """From 0 to the largest, denser near 0."""
    return [largest * (frame / (FRAMES - 1)) ** 2 for frame in range(FRAMES)]


def _title(epsilon: float) -> str:
    """In the chart and beside its slider."""
    return f"ε = {epsilon:.2f}"


def _curves_chart(classes: theory.Gaussians, largest: float) -> dict[str, object]:
    """All columns of the table for every epsilon of the slider."""
    import altair as alt

    rows = [cells(row) for row in theory.table(classes, _epsilons(largest))]
    values = [
        {"epsilon": row["epsilon"], "ε": f"{row['epsilon']:.2f}", "curve": title, "at": row[name], "value": f"{row[name]:.3f}"}
        for row in rows
        for name, title in CURVES.items()
    ]
    scale = alt.Scale(domain=list(CURVES.values()), range=[*map(render.model_color, CURVE_MODELS)])
    base = alt.Chart({"values": values}).encode(
        x=alt.X("epsilon:Q", axis=alt.Axis(grid=False), title="ε"),
        y=alt.Y("at:Q", scale=alt.Scale(domain=[0, 1]), title=None),
        color=alt.Color("curve:N", scale=scale, legend=alt.Legend(orient="bottom", title=None, columns=1, labelLimit=400)),
        tooltip=[f"{field}:N" for field in ("curve", "ε", "value")],
    )
    lines = alt.layer(base.mark_line(strokeWidth=1.75), base.mark_point(size=25, filled=True, opacity=1))
    text = "Alignment and accuracy by the ε of robust training; the table holds figures."
    return render.chart_spec(lines.properties(width="container", height=260, description=text))


# ---- figure 4 --------------------------------------------------------------------------------------------------------------


def _metric_chart(classes: theory.Gaussians, largest: float, seed: int) -> dict[str, object]:
    """Examples, unit balls of the model's metric and of L2, the boundary and the gradient, for each epsilon of the slider."""
    import altair as alt

    epsilons = [round(epsilon, 4) for epsilon in _epsilons(largest)]
    x, y = theory.sample(classes, EXAMPLES, seed)
    points: Values = [
        {"x": float(a), "y": float(b), "class": "+1" if label > 0 else "−1"} for (a, b), label in zip(x, y, strict=True)
    ]
    side = 1.05 * float(np.abs(x).max())
    radius = 1.5 * float(np.sqrt(np.linalg.eigvalsh(classes.covariance)[-1]))  # so that the widest ball is visible
    models = [theory.robust_parameters(classes, epsilon) for epsilon in epsilons]
    balls = [value for frame, model in enumerate(models) for value in _balls(frame, model, radius)]
    lines = [value for frame, model in enumerate(models) for value in _lines(frame, model, radius, side)]
    titles = [{"frame": frame, "title": _title(epsilon)} for frame, epsilon in enumerate(epsilons)]
    slider = alt.binding_range(min=0, max=FRAMES - 1, step=1, name="ε, from 0 to the largest: ")
    layers = _metric_layers(side)
    chart = alt.layer(*layers).add_params(alt.param(name="frame", value=FRAMES // 2, bind=slider))
    chart = chart.resolve_scale(color="independent").properties(width=480, height=480)
    text = "Two Gaussian classes with both balls, the boundary and the gradient of the robust model at the slider's ε."
    return render.chart_spec(chart.properties(description=text), points=points, balls=balls, lines=lines, titles=titles)


def _metric_layers(side: float) -> list["Chart"]:
    """The layers of the chart: points, balls, lines, and the epsilon of the frame."""
    import altair as alt

    span = alt.Scale(domain=[-side, side], nice=False)
    where = {"x": alt.X("x:Q", scale=span, title=None), "y": alt.Y("y:Q", scale=span, title=None)}
    class_colors = alt.Scale(domain=["+1", "−1"], range=[*map(render.model_color, ("standard", "adversarial"))])
    line_colors = alt.Scale(
        domain=["boundary", "gradient", "difference of the means"],
        range=["var(--soft)", "var(--trained-on-robust)", "var(--trained-on-nonrobust)"],
    )
    in_frame = "datum.frame == frame"
    ball = alt.StrokeDash("ball:N", legend=alt.Legend(orient="top", title="ball"))
    line = alt.Color("line:N", scale=line_colors, legend=alt.Legend(orient="top", title=None, labelLimit=250))
    corner = {"x": alt.value(10), "y": alt.value(10)}
    return [
        alt.Chart(alt.NamedData("points"))
        .mark_point(size=8, filled=True, opacity=0.35)
        .encode(**where, color=alt.Color("class:N", scale=class_colors, legend=alt.Legend(orient="top", title="class"))),
        alt.Chart(alt.NamedData("balls"))
        .transform_filter(in_frame)
        .mark_line(strokeWidth=2, color="currentColor")
        .encode(**where, detail="which:N", order="corner:Q", strokeDash=ball),
        alt.Chart(alt.NamedData("lines"))
        .transform_filter(in_frame)
        .mark_rule(strokeWidth=2.5, clip=True)
        .encode(**where, x2="x2:Q", y2="y2:Q", color=line),
        alt.Chart(alt.NamedData("titles"))
        .transform_filter(in_frame)
        .mark_text(align="left", baseline="top", fontSize=16, color="currentColor")
        .encode(**corner, text="title:N"),
    ]


def _balls(frame: int, model: theory.Gaussians, radius: float) -> Values:
    """Corners of the unit ball of the model's metric, drawn as wide as that of L2, and of that of L2, around both means."""
    turn = np.linspace(0, 2 * math.pi, CORNERS + 1)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    scale = radius / math.sqrt(float(np.linalg.eigvalsh(model.covariance)[-1]))
    shapes = {"the model’s metric": np.linalg.cholesky(model.covariance) @ circle * scale, "L2": circle * radius}
    return [
        {"frame": frame, "ball": ball, "which": ball + name, "corner": k, "x": float(a), "y": float(b)}
        for sign, name in ((1, "+1"), (-1, "−1"))
        for ball, shape in shapes.items()
        for k, (a, b) in enumerate(((sign * model.mean)[:, None] + shape).T)
    ]


def _lines(frame: int, model: theory.Gaussians, radius: float, side: float) -> Values:
    """The boundary, and at both means the gradient and the difference of the means."""
    normal = model.weights / np.linalg.norm(model.weights)
    along = np.array([-normal[1], normal[0]]) * 3 * side
    lines = [_line(frame, "boundary", -along, along)]
    for sign in (1, -1):
        center = sign * model.mean
        lines.append(_line(frame, "gradient", center, center + sign * normal * radius))
        lines.append(_line(frame, "difference of the means", center, center + sign * _unit(model.mean) * radius))
    return lines


def _line(frame: int, name: str, start: np.ndarray, end: np.ndarray) -> dict[str, object]:
    return {"frame": frame, "line": name, "x": float(start[0]), "y": float(start[1]), "x2": float(end[0]), "y2": float(end[1])}


def _unit(vector: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    found: np.ndarray = vector / length if length else vector
    return found
