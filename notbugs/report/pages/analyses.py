"""Sections of the study's page for analyses: saliency, corruptions, Fourier sensitivity, neural tangent kernel, human review."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from notbugs.report import render, tables
from notbugs.report.analyses import CORRUPTIONS, corruption_accuracy, corruption_difference, fourier_models
from notbugs.report.format import Estimate, interval, percent
from notbugs.report.render import Charts, Context
from notbugs.report.results import StudyResults
from notbugs.review import answers
from notbugs.runs.tables.analyses import CorruptionDifferenceRow, CorruptionRow, FourierRow, NTKFeatureRow, SaliencyPictureRow
from notbugs.runs.tables.review import ReviewAnswerRow
from notbugs.study.catalog import in_order
from notbugs.study.catalog.models import ANALYZED_MODELS, trained_on

SHOWN_MODELS = (*ANALYZED_MODELS, trained_on("robust-strong"))  # in charts: one color is left
SEVERITIES = range(6)  # 0: clean

Limits = list[float]  # lowest, highest


def sections(results: StudyResults) -> tuple[Context, Charts]:
    """Context of analyses.html.jinja, everything empty where no analysis was run, and the charts."""
    rows, fourier = results.review_answers, results.rows(FourierRow)
    charts: Charts = {"corruptions-chart": _corruptions_chart(results)} if results.rows(CorruptionRow) else {}
    shape = results.metadata.data.shape
    width = shape[2] if len(shape) == 3 else 0
    for place, model in enumerate(fourier_models(results)):
        charts[f"fourier-{place}"] = _fourier_chart(
            [row for row in fourier if row.model == model], model, _limits(fourier), width
        )
    if features := results.rows(NTKFeatureRow):
        charts["ntk-chart"] = _ntk_chart(features)
    if rows:
        charts["review-chart"] = _review_chart(rows)
    return {
        "saliency": tables.saliency_table(results),
        "saliency_pictures": _saliency_pictures(results),
        "corruptions": tables.corruptions_table(results),
        "corruption_differences": _corruption_differences(results),
        "fourier_models": fourier_models(results),
        "fourier": tables.fourier_table(results),
        "ntk": tables.ntk_table(results),
        "review": tables.review_table(results),
        "misclassified": answers.misclassified_images(results.folder, rows),
        "review_problem": results.review_problem,
        "reviewers": sorted({row.reviewer for row in rows}),
    }, charts


def _saliency_pictures(results: StudyResults) -> dict[str, tuple[str, dict[str, str]]]:
    """File -> its label and, by column, its picture as a data URL."""
    files: dict[str, tuple[str, dict[str, str]]] = {}
    for row in results.rows(SaliencyPictureRow):
        _, columns = files.setdefault(row.file, (row.label, {}))
        columns[row.column] = render.inline(results.folder, row.picture)
    return files


def _corruption_differences(results: StudyResults) -> dict[str, dict[str, Estimate | None]]:
    """Corruption -> model -> its accuracy minus that of the standard model, mean over severities."""
    rows = results.rows(CorruptionDifferenceRow)
    kinds = in_order(CORRUPTIONS, (row.corruption for row in rows))
    models = [name for name in SHOWN_MODELS if name != "standard" and any(row.model == name for row in rows)]
    return {kind: {name: corruption_difference(results, name, kind) for name in models} for kind in kinds}


# ---- corruptions -----------------------------------------------------------------------------------------------------------


def _corruptions_chart(results: StudyResults) -> dict[str, object]:
    """One small panel per corruption: accuracy by severity, one line per model."""
    import altair as alt

    values = _corruption_values(results)
    names = [name for name in SHOWN_MODELS if any(value["model"] == name for value in values)]
    scale = alt.Scale(domain=names, range=[*map(render.model_color, names)])
    base = alt.Chart().encode(
        x=alt.X("severity:Q", axis=alt.Axis(tickCount=6, format="d", grid=False), title="severity"),
        y=alt.Y("share:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", values=[0, 0.5, 1]), title=None),
        color=alt.Color("model:N", scale=scale, legend=alt.Legend(orient="top", title=None, columns=2, labelLimit=200)),
        tooltip=[f"{field}:N" for field in ("corruption", "model", "severity", "accuracy")],
    )
    marks = base.mark_line(strokeWidth=1.75), base.mark_point(size=45, filled=True, opacity=1)
    panel = alt.layer(*marks, data={"values": values}).properties(width=165, height=130)
    header = alt.Header(title=None, labelColor="currentColor", labelFontSize=12)
    chart = panel.facet(facet=alt.Facet("corruption:N", header=header, sort=list(CORRUPTIONS)), columns=3)
    text = "Accuracy of each model under each corruption by severity; the table above holds the means."
    return render.chart_spec(chart.properties(description=text))


def _corruption_values(results: StudyResults) -> list[dict[str, object]]:
    rows = results.rows(CorruptionRow)
    values: list[dict[str, object]] = []
    for kind in in_order(CORRUPTIONS[1:], (row.corruption for row in rows if row.corruption != "clean")):
        for model in (name for name in SHOWN_MODELS if any(row.model == name for row in rows)):
            for severity in SEVERITIES:
                share = corruption_accuracy(results, model, kind if severity else "clean", severity)
                if share is not None:
                    value = {"model": model, "severity": severity, "share": share, "accuracy": percent(share)}
                    values.append({"corruption": kind, **value})
    return values


# ---- Fourier sensitivity ---------------------------------------------------------------------------------------------------


def _fourier_chart(rows: Sequence[FourierRow], model: str, limits: Limits, width: int) -> dict[str, object]:
    """Error rate with one Fourier basis vector added, by its frequency."""
    import altair as alt

    rates = _both_halves(_mean_rates(rows), width)
    half_down, half_across = (_spacing({place[axis] for place in rates}) / 2 for axis in (0, 1))
    # In columns, and the rest computed in the page: with one row of eight fields for each frequency, seven models took 90 KB
    columns = {
        "cycles down": [down for down, _ in rates],
        "cycles across": [across for _, across in rates],
        "share": [round(rate, 5) for rate in rates.values()],
    }
    axis, scale = alt.Axis(grid=False, tickCount=5, format="d"), alt.Scale(nice=False)
    legend = alt.Legend(format="%", title=None, gradientLength=150)
    chart = alt.Chart({"values": [columns]}).transform_flatten([*columns])
    chart = chart.transform_calculate(
        **{"error rate": "format(100 * datum.share, '.1f') + ' %'"},
        left=f"datum['cycles across'] - {half_across}",
        right=f"datum['cycles across'] + {half_across}",
        top=f"datum['cycles down'] - {half_down}",
        bottom=f"datum['cycles down'] + {half_down}",
    )
    chart = chart.mark_rect().encode(
        x=alt.X("left:Q", axis=axis, title="cycles across", scale=scale),
        x2="right:Q",
        y=alt.Y("top:Q", axis=axis, title="cycles down", scale=scale),
        y2="bottom:Q",
        color=alt.Color("share:Q", scale=alt.Scale(domain=limits, scheme="viridis"), legend=legend),
        tooltip=[f"{field}:N" for field in ("cycles across", "cycles down", "error rate")],
    )
    text = f"Error rate of {model} on images with one Fourier basis vector added, by its frequency."
    return render.chart_spec(chart.properties(width="container", height=200, description=text))


def _limits(rows: Sequence[FourierRow]) -> Limits:
    """The lowest and the highest error rate of any model, means over seeds: of all maps, so that their colors can be compared."""
    models = dict.fromkeys(row.model for row in rows)
    rates = [rate for model in models for rate in _mean_rates(row for row in rows if row.model == model).values()]
    return [min(rates), max(max(rates), min(rates) + 0.01)]


def _mean_rates(rows: Iterable[FourierRow]) -> dict[tuple[int, int], float]:
    """Error rate by frequency, mean over seeds."""
    rates: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        rates.setdefault((row.cycles_down, row.cycles_across), []).append(row.error_rate)
    return {place: sum(found) / len(found) for place, found in rates.items()}


def _both_halves(rates: dict[tuple[int, int], float], width: int) -> dict[tuple[float, float], float]:
    """The same for the whole plane: a frequency and its mirror are the same, and the table lists it once."""
    found: dict[tuple[float, float], float] = {(down, across): rate for (down, across), rate in rates.items()}
    last, first = max(down for down, _ in found), min(down for down, _ in found)
    nyquist = last if last > -first else math.nan  # of an even height: it is its own mirror
    mirrored = {(-down, across): rate for (down, across), rate in found.items() if 2 * across in (0, width) and down != nyquist}
    found |= {place: rate for place, rate in mirrored.items() if place not in found}
    return found | {(down if down == nyquist else -down, -across): rate for (down, across), rate in found.items() if across}


def _spacing(values: set[float]) -> float:
    """The smallest distance between values."""
    return min((after - before for before, after in pairwise(sorted(values))), default=1.0)


# ---- neural tangent kernel -------------------------------------------------------------------------------------------------


def _ntk_chart(rows: Sequence[NTKFeatureRow]) -> dict[str, object]:
    """Usefulness and robust usefulness, eigenvector by eigenvector, of the first seed."""
    import altair as alt

    values = []
    for row in (row for row in rows if row.seed == rows[0].seed):
        for measure, value in (("usefulness", row.usefulness), ("robust usefulness", row.robust_usefulness)):
            about = {"eigenvector": row.eigenvector + 1, "class": row.class_name, "category": row.category}
            values.append({**about, "measure": measure, "at": value, "value": f"{value:.2f}"})
    colors = alt.Scale(domain=["usefulness", "robust usefulness"], range=[*map(render.model_color, ("standard", "adversarial"))])
    x = alt.X(
        "eigenvector:Q",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="d", grid=False),
        title="eigenvector, in the order of eigenvalues",
    )
    chart = alt.Chart({"values": values}).mark_point(size=45, filled=True, opacity=0.9)
    chart = chart.encode(
        x=x,
        y=alt.Y("at:Q", title="usefulness, in [−1, 1]"),
        color=alt.Color("measure:N", scale=colors, legend=alt.Legend(orient="top", title=None, labelLimit=300)),
        tooltip=[f"{field}:N" for field in ("eigenvector", "class", "category", "measure", "value")],
    )
    text = "Usefulness and robust usefulness of the kernel's eigenvectors, in the order of their eigenvalues."
    return render.chart_spec(chart.properties(width="container", height=260, description=text))


# ---- human review ----------------------------------------------------------------------------------------------------------


def _review_chart(rows: Sequence[ReviewAnswerRow]) -> dict[str, object]:
    """Accuracy of people on each set, with its CI; small: each of several reviewers."""
    import altair as alt

    summary = answers.summary(rows)
    values = [
        {
            "set": row.set,
            "share": row.accuracy,
            "ci_low": row.ci_low,
            "ci_high": row.ci_high,
            "accuracy": percent(row.accuracy),
            "95 % CI": interval(100 * row.ci_low, 100 * row.ci_high),
            "answers": row.answers,
        }
        for row in summary
    ]
    names = [row.set for row in summary]
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    x = alt.X("share:Q", scale=alt.Scale(domain=[0, 1]), axis=axis, title="accuracy of people")
    y = alt.Y("set:N", sort=names, title=None, axis=alt.Axis(labelLimit=200))
    base = alt.Chart({"values": values}).encode(y=y, tooltip=[f"{name}:N" for name in ("set", "accuracy", "95 % CI", "answers")])
    layers = [
        base.mark_rule(strokeWidth=2, opacity=0.7, color="var(--accent)").encode(x=alt.X("ci_low:Q"), x2="ci_high:Q"),
        base.mark_point(size=80, filled=True, opacity=1, color="var(--accent)").encode(x=x),
    ]
    if single := _single_reviewers(rows, names):
        each = alt.Chart({"values": single}).encode(y=y, x=x, tooltip=[f"{name}:N" for name in ("reviewer", "set", "accuracy")])
        layers.insert(0, each.mark_point(size=30, opacity=0.6, color="currentColor"))
    text = "Accuracy of people on each set; the table above holds the same figures."
    return render.chart_spec(alt.layer(*layers).properties(width="container", height=44 * len(names), description=text))


def _single_reviewers(rows: Sequence[ReviewAnswerRow], sets: Sequence[str]) -> list[dict[str, object]]:
    """Accuracy of each reviewer on the sets that several have answered."""
    values: list[dict[str, object]] = []
    for name in sets:
        shares = answers.by_reviewer([row for row in rows if row.set == name])
        if len(shares) > 1:
            values += [
                {"set": name, "share": share, "reviewer": reviewer, "accuracy": percent(share)}
                for reviewer, share in shares.items()
            ]
    return values
