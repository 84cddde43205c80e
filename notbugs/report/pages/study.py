"""The page of a study."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from notbugs.report import data_check, render, tables
from notbugs.report.findings import findings, split
from notbugs.report.findings.base import Meaning
from notbugs.report.findings.headline import certainty, headline
from notbugs.report.findings.relabeled import CONTROL, D_RAND, random_labels
from notbugs.report.findings.split import ROBUST, cross_accuracy
from notbugs.report.format import Estimate, percent, plain
from notbugs.report.next_steps import next_steps
from notbugs.report.pages import analyses, controls
from notbugs.report.render import Charts, Context
from notbugs.report.results import CLEAN, FULL, HALF, StudyResults
from notbugs.runs.tables.row import cells
from notbugs.runs.tables.study import AccuracyRow, AdversarialPictureRow, PictureRow, SetRow, TrainingRow
from notbugs.study.catalog import in_order
from notbugs.study.catalog.datasets import DATASETS, PAPER_NAMES, SETS
from notbugs.study.catalog.models import MAIN_MODELS, MODELS, OWN_MODELS, trained_on

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
    "mean_l2": "L2 from the original: mean",
    "max_l2": "largest",
    "max_linf": "Linf: largest",
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
    attacks, others = _attacks(results)
    return {
        "title": metadata.dataset or "A study",
        "metadata": metadata,
        "data_check": data_check.section(results.run),
        "stages": results.run.metadata["stages"],
        "headline": headline(results),
        "robust_data": split.short_answer(results),
        "certainty": certainty(results),
        "tiles": tiles(results),
        "signs": {"good": "✓", "bad": "!", "unclear": "?", "neutral": "•"},
        "examples": _examples(results),
        "findings": findings(results),
        "next_steps": [*next_steps(results)],
        "results": results,
        "models": [(model, results.title(model)) for model in results.models()],
        "equal_seeds": len({len(results.accuracy_by_seed(model)) for model in results.models()}) == 1,
        "accuracy_columns": tables.accuracy_table(results)[0][1:4],
        "split_table": tables.split_table(results),
        "relabeled_table": tables.relabeled_table(results, before=results.adapts_batchnorm),
        "sets": [(name, SETS.get(name, "")) for name in results.sets()],
        "models_on_other_sets": results.models_on_other_sets(),
        "cross_accuracy": cross_accuracy(results),
        "constructed": _constructed(results.rows(SetRow)),
        "set_columns": SET_COLUMNS,
        "pictures": _pictures(results),
        "picture_titles": PICTURE_TITLES,
        "training": training,
        "attacks": ", ".join(attacks),
        "curve_attack": ", ".join(others),
        "main_models": MAIN_MODELS,
        "own_metrics": tables.own_metrics_table(results),
        "controls": controls_context,
        "analyses": analyses_context,
        "replication": tables.replication_table(results),
        "figure_3": tables.figure_3_table(results),
        "long_names": any(len(name) > 4 for name in metadata.data.classes),
    }, {**charts, **controls_charts, **analyses_charts}


def _attacks(results: StudyResults) -> tuple[list[str], list[str]]:
    """Names of the attacks on the models of the main table: those in the table, and those only in the chart."""
    shown = [row for row in results.rows(AccuracyRow) if row.epsilon and row.set == "test" and row.model in results.models()]
    radii = results.radii[HALF:]
    main = dict.fromkeys(row.attack for row in shown if any(math.isclose(row.epsilon, each, rel_tol=1e-3) for each in radii))
    return [*main], [*dict.fromkeys(row.attack for row in shown if row.attack not in main)]


@dataclass(frozen=True)
class Tile:
    """One figure of the first screen: its model, its label, its value with CI, what it was measured with, what it means.

    comparison: what it is better or worse than, which the meaning is about.
    """

    model: str
    label: str
    value: str
    interval: str
    details: Sequence[str]
    meaning: Meaning
    comparison: str = ""


# Of robust accuracy beside that of standard training
_COMPARED: dict[Meaning, str] = {
    "good": "above standard training",
    "bad": "below standard training",
    "unclear": "not measurably different from standard training",
}


def tiles(results: StudyResults) -> list[Tile]:
    """The figures that matter most: clean accuracy, robust accuracy of the three ways to train, and what wrong labels teach.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    list of Tile
        Fewer if not all of them were measured.
    """
    clean = results.accuracy("standard")
    found = [_clean_tile(results, clean)] if clean else []
    standard = results.given_model or "standard training"
    for model, words in (("standard", standard), ("adversarial", "adversarial training"), (ROBUST, "trained on D_R")):
        attacked = results.accuracy(model, radius=FULL)
        if attacked:
            found.append(_robust_tile(results, model, words, attacked))
    return [*found, *_relabeled_tile(results)]


def _clean_tile(results: StudyResults, clean: Estimate) -> Tile:
    label = f"Clean accuracy, {results.given_model or 'standard training'}"
    seeds = f", {clean.seeds} seeds" if clean.seeds > 1 else ""
    return Tile("standard", label, clean.percent, clean.interval, [f"{clean.n:,} test images{seeds}"], "neutral")


def _robust_tile(results: StudyResults, model: str, words: str, attacked: Estimate) -> Tile:
    """Robust accuracy at epsilon, and at half of it; good or bad only where a difference was measured."""
    meaning, comparison = _loss(results) if model == "standard" else _compared(results, model)
    details = []
    if below := results.beside_chance(attacked):
        meaning = "neutral" if meaning == "good" else meaning
        if model == "standard":
            comparison = f"{comparison}, {below}"
        else:
            details.append(f"no defense: {below}")
    if model == ROBUST and (less := results.difference(("adversarial", FULL), (ROBUST, FULL))) and less.ci_low > 0:
        details.append(f"{100 * less.mean:.1f} points below adversarial training")
    half, clean = results.accuracy(model, radius=HALF), results.accuracy(model) if model != "standard" else None
    others = [f"{half.percent} {half.interval} at {results.epsilon_text(HALF)}"] if half else []
    others += [f"{clean.percent} clean"] if clean else []
    details += [", ".join(others)] if others else []
    label = f"Robust accuracy at {results.threat_model()}, {words}"
    return Tile(model, label, attacked.percent, attacked.interval, details, meaning, comparison)


def _relabeled_tile(results: StudyResults) -> list[Tile]:
    """Test accuracy after training on D_rand, beside chance level and its control; none if these were not measured."""
    found = random_labels(results)
    if not found:
        return []
    chance = results.beside_chance(found.accuracy) or f"above chance ({percent(results.chance)})"
    over = "above" if found.above_control else "not measurably above"
    epsilon = results.relabel_epsilon("random-labels")
    details = [f"{over} its control ({found.control.percent}), whose perturbations are shuffled"]
    if epsilon:
        details.append(f"training images: perturbed within {results.norm} ε = {epsilon:.3g}")
    if before := results.accuracy_before_adapting(D_RAND):
        details.append(f"{before.percent} if batch norm is not adapted")
    meaning: Meaning = "neutral" if found.above_chance and found.above_control else "unclear"
    label = "Clean accuracy, trained on wrong labels (D_rand)"
    return [Tile(D_RAND, label, found.accuracy.percent, found.accuracy.interval, details, meaning, chance)]


def _loss(results: StudyResults) -> tuple[Meaning, str]:
    """What standard training loses under attack."""
    change = results.difference(("standard", FULL), ("standard", CLEAN))
    if not change:
        return "neutral", ""
    if change.ci_high < 0:
        return "bad", f"{change._replace(mean=abs(change.mean)).points} below clean accuracy"
    return "good", "not measurably below clean accuracy"


def _compared(results: StudyResults, model: str) -> tuple[Meaning, str]:
    """Whether a model is above standard training, at epsilon and at half of it, where the answers differ."""
    found: dict[int, Meaning] = {}
    for radius in (FULL, HALF):
        if change := results.difference((model, radius), (results.baseline, radius), 2):
            found[radius] = "good" if change.ci_low > 0 else "bad" if change.ci_high < 0 else "unclear"
    if not found:
        return "neutral", ""
    if len({*found.values()}) == 1:
        meaning = next(iter(found.values()))
        return meaning, _COMPARED[meaning]
    mixed: Meaning = "bad" if "bad" in found.values() else "good"
    words = {**_COMPARED, "unclear": "unclear"}
    return mixed, ", ".join(f"{words[meaning]} at {results.epsilon_text(radius)}" for radius, meaning in found.items())


@dataclass(frozen=True)
class Example:
    """An adversarial example with its pictures as data URLs; `share` is its norm as a share of epsilon."""

    row: AdversarialPictureRow
    clean: str
    perturbed: str
    perturbation: str
    share: float


def _examples(results: StudyResults) -> dict[str, list[Example]]:
    """The adversarial examples of each model."""
    found: dict[str, list[Example]] = {}
    for row in results.rows(AdversarialPictureRow):
        pictures = [render.inline(results.folder, name) for name in (row.clean_picture, row.picture, row.perturbation_picture)]
        share = row.distance / results.radii[FULL]
        found.setdefault(row.model, []).append(Example(row, pictures[0], pictures[1], pictures[2], share))
    return found


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
    """Accuracy of each model against epsilon: a line through what was measured, with a band for its CI."""
    import altair as alt

    models = [model for model in results.models() if results.accuracy_curve(model)]
    relabeled = alt.FieldOneOfPredicate(field="model", oneOf=[model for model in models if _is_relabeled(model)])
    chosen = alt.selection_point(fields=["model"], bind="legend")
    legend = alt.Legend(
        orient="top",
        title=None,
        columns={"expr": "width < 360 ? 2 : width < 800 ? 3 : 4"},
        labelLimit=200,
        symbolOpacity=1,
        symbolDash=[1, 0],
        labelExpr=_legend_labels(models),
    )
    scale = alt.Scale(domain=models, range=[*map(render.model_color, models)])
    values = _curve_values(results, models)
    ticks = alt.Axis(grid=False, values=sorted({float(str(value["epsilon"])) for value in values}), format=".4~g")
    base = alt.Chart({"values": values}).encode(
        x=alt.X("epsilon:Q", title=f"largest perturbation, {results.norm} ε", axis=ticks, scale=alt.Scale(nice=False)),
        color=alt.Color("model:N", scale=scale, legend=legend),
    )
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    y = alt.Y("share:Q", scale=alt.Scale(domain=[0, 1]), axis=axis, title="test accuracy")
    faded = alt.condition(chosen, alt.value(1.0), alt.value(0.12))
    band = base.mark_area().encode(
        y=alt.Y("ci_low:Q", title="test accuracy"),
        y2="ci_high:Q",
        opacity=alt.condition(chosen, alt.value(0.13), alt.value(0.02)),
    )
    dash = alt.condition(relabeled, alt.value([2, 2]), alt.value([1, 0]))
    line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash, opacity=faded)
    tooltip = [f"{field}:N" for field in ("model", "ε", "accuracy", "95 % CI", "attack", "images", "seeds")]
    points = base.encode(y=y, tooltip=tooltip, opacity=faded)
    weaker = alt.FieldEqualPredicate(field="weaker", equal=True)
    layers = [band, line, points.transform_filter(~weaker).mark_point(size=55, filled=True).add_params(chosen)]
    if any(value["weaker"] for value in values):
        layers.append(points.transform_filter(weaker).mark_point(size=45, filled=False, strokeWidth=1.75))
    if not math.isnan(results.chance):
        value = alt.Chart({"values": [{"chance": results.chance, "line": f"chance level: {percent(results.chance)}"}]})
        rule = value.mark_rule(strokeDash=[3, 3], color="currentColor", opacity=0.6)
        layers.insert(0, rule.encode(y="chance:Q", tooltip="line:N"))
        words = value.mark_text(align="right", baseline="bottom", dx=-4, dy=-2, color="currentColor", opacity=0.75)
        layers.append(words.encode(x=alt.value("width"), y="chance:Q", text="line:N"))
    text = "Accuracy of each model on the test images against the largest perturbation; the table below holds the main figures."
    return render.chart_spec(alt.layer(*layers).properties(width="container", height=235, description=text))


def _is_relabeled(model: str) -> bool:
    """Whether a model was trained on images with other labels than their own, or on a control of such a set."""
    return model in MODELS and MODELS[model].trained_on in DATASETS and not DATASETS[MODELS[model].trained_on].is_inverted


def _legend_labels(models: Sequence[str]) -> str:
    """A Vega expression: the short label of a model in the legend, by the paper's name of the set it was trained on."""
    names = {trained_on(name): f"on {paper}" for name, paper in PAPER_NAMES.items()}
    names[trained_on("random-labels-incl-true")] = "on D_rand incl. true"
    names[CONTROL] = "on shuffled (control)"
    return f"{json.dumps({model: names[model] for model in models if model in names})}[datum.label] || datum.label"


def _curve_values(results: StudyResults, models: Sequence[str]) -> list[dict[str, object]]:
    """One value for each point; weaker: evaluated under a weaker attack than the points of the main table."""
    attacks, _ = _attacks(results)
    values: list[dict[str, object]] = []
    for model in models:
        for epsilon, found, attack in results.accuracy_curve(model):
            ends = {"epsilon": epsilon, "share": found.mean, "ci_low": found.ci_low, "ci_high": found.ci_high}
            texts = {"ε": plain(epsilon), "accuracy": found.percent, "95 % CI": found.interval, "attack": attack}
            counts = {"images": found.n, "seeds": found.seeds, "weaker": epsilon > 0 and attack not in attacks}
            values.append({"model": model, **ends, **texts, **counts})
    return values


def _training_charts(results: StudyResults) -> tuple[list[str], Charts]:
    """Models, and a small chart each: accuracy on its own training labels by epoch, one line per seed."""
    rows = results.rows(TrainingRow)
    shown = (*MAIN_MODELS, *OWN_MODELS)
    models = in_order(shown, (row.model for row in rows))
    if results.metadata.full:
        models = [model for model in models if model in shown]
    charts = {f"training-{place}": _training_chart(model, rows) for place, model in enumerate(models)}
    return models, charts


def _training_chart(model: str, rows: Sequence[TrainingRow]) -> dict[str, object]:
    values = [
        {
            "epoch": row.epoch,
            "share": row.accuracy,
            "seed": row.seed,
            "accuracy": percent(row.accuracy),
            "loss": plain(row.loss),
            "learning rate": plain(row.learning_rate),
            "color": render.model_color(model),
            "described": f"seed {row.seed}, epoch {row.epoch}: {percent(row.accuracy)}",
        }
        for row in rows
        if row.model == model
    ]
    text = f"Training of {model}: accuracy on its own training labels by epoch, one line per seed."
    return {**_training_spec(), "datasets": {"epochs": values}, "description": text}


@cache
def _training_spec() -> dict[str, object]:
    """The training chart of any model; Altair takes a fifth of a second for each."""
    import altair as alt

    base = alt.Chart(alt.NamedData("epochs")).encode(
        x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, tickCount=5, format="d", grid=False), title="epoch"),
        y=alt.Y("share:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", values=[0, 0.5, 1]), title=None),
        color=alt.Color("color:N", scale=None),
        description="described:N",
        detail="seed:N",
    )
    line = base.mark_line(strokeWidth=1.75, clip=True)
    near = alt.selection_point(on="pointerover", empty=False, clear="pointerout")
    opacity = alt.when(near).then(alt.value(1)).otherwise(alt.value(0))
    tooltip = [f"{field}:N" for field in ("seed", "epoch", "accuracy", "loss", "learning rate")]
    points = base.mark_point(size=90, filled=True).add_params(near).encode(opacity=opacity, tooltip=tooltip)
    return render.chart_spec(alt.layer(line, points).properties(width="container", height=110))
