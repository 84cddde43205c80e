"""The page of a study."""

import json
import math
from collections.abc import Mapping, Sequence

from notbugs.report import render, tables
from notbugs.report.findings import findings
from notbugs.report.findings.split import cross_accuracy
from notbugs.report.format import percent, plain
from notbugs.report.pages import analyses, controls
from notbugs.report.render import Charts, Context
from notbugs.report.results import FULL, HALF, StudyResults, in_order
from notbugs.runs.tables import AccuracyRow, PictureRow, SetRow, TrainingRow, cells
from notbugs.study.catalog import DATASETS, MAIN_MODELS, MODELS, SETS

PICTURE_TITLES = {
    "original": "clean",
    "adversarial": "perturbed within ε so that the standard model misclassifies it",
    "perturbation": "that perturbation, amplified; gray: none",
    "robust": "D_R",
    "nonrobust": "D_NR",
    "random-labels": "D_rand: perturbed towards a random other class",
    "random-labels-incl-true": "D_rand: perturbed towards a random class",
    "next-labels": "D_det: perturbed towards the next class",
    "random-labels-shuffled": "control: shuffled perturbation",
}
SET_COLUMNS = {
    "n": "images",
    "epsilon": "ε",
    "steps": "steps",
    "target_reached": "target reached",
    "mean_l2": "mean L2",
    "max_l2": "max. L2",
    "max_linf": "max. Linf",
    "feature_error": "feature error",
    "relabeled": "relabeled",
    "seconds": "time",
}


def page(results: StudyResults) -> tuple[Context, Charts]:
    """Context of study.html.jinja, and the charts."""
    metadata = results.metadata
    training, training_charts = _training_charts(results)
    charts = {"accuracy-chart": _accuracy_chart(results), **training_charts} if results.rows(AccuracyRow) else training_charts
    controls_context, controls_charts = controls.sections(results)
    analyses_context, analyses_charts = analyses.sections(results)
    attacks = dict.fromkeys(row.attack for row in results.rows(AccuracyRow) if row.epsilon)
    return {
        "title": metadata.dataset or "A study",
        "metadata": metadata,
        "stages": results.run.metadata["stages"],
        "findings": findings(results),
        "results": results,
        "models": [(model, title(model)) for model in results.models()],
        "accuracy_columns": tables.accuracy_table(results)[0][1:4],
        "sets": [(name, SETS.get(name, "")) for name in results.sets()],
        "models_on_other_sets": results.models_on_other_sets(),
        "cross_accuracy": cross_accuracy(results),
        "constructed": _constructed(results.rows(SetRow)),
        "set_columns": SET_COLUMNS,
        "pictures": _pictures(results),
        "picture_titles": PICTURE_TITLES,
        "training": training,
        "attacks": ", ".join(attacks),
        "main_models": MAIN_MODELS,
        "controls": controls_context,
        "analyses": analyses_context,
        "replication": tables.replication_table(results),
        "figure_3": tables.figure_3_table(results),
        "long_names": any(len(name) > 4 for name in metadata.data.classes),
    }, {**charts, **controls_charts, **analyses_charts}


def title(model: str) -> str:
    """What a model is, one line; "" for one that the catalog does not have."""
    return MODELS[model].title if model in MODELS else ""


def _pictures(results: StudyResults) -> tuple[list[str], dict[str, dict[str, Mapping[str, object]]]]:
    """Column names, and for each file its cells by column. `source` is a data URL, "" where the picture is gone."""
    columns: dict[str, None] = {}
    files: dict[str, dict[str, Mapping[str, object]]] = {}
    for row in results.rows(PictureRow):
        columns[row.column] = None
        source = render.inline(results.folder, row.picture)
        files.setdefault(row.file, {})[row.column] = {**cells(row), "source": source}
    return list(columns), files


def _constructed(rows: Sequence[SetRow]) -> list[dict[str, object]]:
    """One entry per set: means over seeds, the largest value in columns that hold one."""
    found = []
    for name in in_order(DATASETS, (row.set for row in rows)):
        same = [cells(row) for row in rows if row.set == name]
        entry: dict[str, object] = {"set": name, "made_from": same[0]["made_from"]}
        for column in SET_COLUMNS:
            values = [float(value) for row in same if isinstance(value := row[column], int | float)]
            largest = column in ("max_l2", "max_linf")
            entry[column] = None if not values else max(values) if largest else sum(values) / len(values)
        found.append(entry)
    return found


def _accuracy_chart(results: StudyResults) -> dict[str, object]:
    """Accuracy of each model, clean and at both epsilons, with its CI."""
    import altair as alt

    models, names = results.models(), ["clean", *(results.epsilon_text(radius) for radius in (HALF, FULL))]
    labels = {model: ["trained on", MODELS[model].trained_on] for model in models if _is_retrained(model)}
    label_axis = alt.Axis(
        labelExpr=f"({json.dumps(labels)})[datum.label] || datum.label",
        labelLimit=170,
        labelLineHeight=13,
        grid=True,
        bandPosition=0,
        tickBand="extent",
    )
    base = alt.Chart({"values": _accuracy_values(results, names)}).encode(
        y=alt.Y("model:N", sort=models, title=None, axis=label_axis),
        yOffset=alt.YOffset("ε:N", sort=names),
        color=alt.Color("model:N", legend=None, scale=alt.Scale(domain=models, range=[*map(render.model_color, models)])),
        tooltip=[f"{field}:N" for field in ("model", "ε", "accuracy", "95 % CI", "images", "seeds")],
    )
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    shapes = alt.Scale(domain=names, range=["circle", "square", "triangle-up"])
    legend = alt.Legend(orient="top", title=f"{results.norm} ε", symbolFillColor="currentColor", columns=3)
    points = base.mark_point(size=70, filled=True, opacity=1).encode(
        x=alt.X("share:Q", scale=alt.Scale(domain=[0, 1]), axis=axis, title="test accuracy"),
        shape=alt.Shape("ε:N", scale=shapes, legend=legend),
    )
    layers = [base.mark_rule(strokeWidth=2, opacity=0.7).encode(x="ci_low:Q", x2="ci_high:Q"), points]
    if not math.isnan(results.chance):
        line = alt.Chart({"values": [{"chance": results.chance, "line": f"chance level: {percent(results.chance)}"}]})
        rule = line.mark_rule(strokeDash=[3, 3], color="currentColor", opacity=0.6)
        layers.insert(0, rule.encode(x="chance:Q", tooltip="line:N"))
    text = "Accuracy of each model on the test images, clean and under attack; the table above holds the same figures."
    return render.chart_spec(alt.layer(*layers).properties(width="container", height=42 * len(models), description=text))


def _is_retrained(model: str) -> bool:
    """Whether a model was trained on a constructed set."""
    return model in MODELS and MODELS[model].trained_on in DATASETS


def _accuracy_values(results: StudyResults, names: Sequence[str]) -> list[dict[str, object]]:
    values: list[dict[str, object]] = []
    for model in results.models():
        for radius, name in enumerate(names):
            found = results.accuracy(model, radius=radius)
            if found:
                ends = {"share": found.mean, "ci_low": found.ci_low, "ci_high": found.ci_high}
                texts = {"accuracy": found.percent, "95 % CI": found.interval, "images": found.n, "seeds": found.seeds}
                values.append({"model": model, "ε": name, **ends, **texts})
    return values


def _training_charts(results: StudyResults) -> tuple[list[str], Charts]:
    """Models, and a small chart each: accuracy on its own training labels by epoch, one line per seed."""
    rows = results.rows(TrainingRow)
    models = in_order(MAIN_MODELS, (row.model for row in rows))
    if results.metadata.full:
        models = [model for model in models if model in MAIN_MODELS]
    charts = {f"training-{place}": _training_chart(model, rows) for place, model in enumerate(models)}
    return models, charts


def _training_chart(model: str, rows: Sequence[TrainingRow]) -> dict[str, object]:
    import altair as alt

    values = [
        {
            "epoch": row.epoch,
            "share": row.accuracy,
            "seed": row.seed,
            "accuracy": percent(row.accuracy),
            "loss": plain(row.loss),
            "learning rate": plain(row.learning_rate),
        }
        for row in rows
        if row.model == model
    ]
    base = alt.Chart({"values": values}).encode(
        x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, tickCount=5, format="d", grid=False), title="epoch"),
        y=alt.Y("share:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", values=[0, 0.5, 1]), title=None),
        detail="seed:N",
    )
    color = render.model_color(model)
    line = base.mark_line(strokeWidth=1.75, color=color, clip=True)
    near = alt.selection_point(on="pointerover", empty=False, clear="pointerout")
    opacity = alt.when(near).then(alt.value(1)).otherwise(alt.value(0))
    tooltip = [f"{field}:N" for field in ("seed", "epoch", "accuracy", "loss", "learning rate")]
    points = base.mark_point(size=90, filled=True, color=color).add_params(near).encode(opacity=opacity, tooltip=tooltip)
    text = f"Training of {model}: accuracy on its own training labels by epoch, one line per seed."
    return render.chart_spec(alt.layer(line, points).properties(width="container", height=110, description=text))
