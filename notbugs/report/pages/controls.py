"""Sections of the study's page on controls, transferability and error consistency: of a full study, or of own controls."""

from collections.abc import Sequence
from dataclasses import dataclass

from notbugs.report import render, transferability
from notbugs.report.format import Estimate, percent
from notbugs.report.render import Charts, Context
from notbugs.report.results import HALF, StudyResults
from notbugs.runs.tables.transferability import ErrorConsistencyRow
from notbugs.study.catalog import in_order
from notbugs.study.catalog.datasets import DATASETS, SETS
from notbugs.study.catalog.models import ARCHITECTURES, EPSILON_TEXTS, LEARNERS, MODELS, trained_on
from notbugs.study.comparisons import LEAKAGE_PROBES, PROBE_NAMES, TARGET_TITLES, TRANSFER_SOURCES, control_title

OTHER_NETWORKS = ("reinit-1", *ARCHITECTURES)  # targets that differ from the source
CONSISTENCY_MODELS = (
    *("standard", "same-init", "reinit-1", *ARCHITECTURES, "adversarial"),
    *map(trained_on, ("robust", "nonrobust", "random-labels", "next-labels")),
)


@dataclass(frozen=True)
class NextLabels:
    """A classifier trained on next labels: predictions of the true class and of the next one, on the test images."""

    model: str
    title: str
    true_class: Estimate
    next_class: Estimate


@dataclass(frozen=True)
class TransferTarget:
    """What adversarial examples of the standard model do to one target."""

    target: str
    title: str
    clean: Estimate | None
    random: Estimate | None
    untargeted: Estimate | None
    same_mistake: Estimate | None
    other_mistake: Estimate | None
    targeted: Estimate | None


@dataclass(frozen=True)
class SweepPoint:
    """Mean transfer rate of one source to the other networks."""

    source: str
    perturbation: str
    rate: float
    networks: int


def sections(results: StudyResults) -> tuple[Context, Charts]:
    """Context of controls.html.jinja, empty for a quick study without own controls, and the charts."""
    correlation, sweep = transferability.accuracy_transfer_correlation(results), epsilon_sweep(results)
    charts: Charts = {"correlation-chart": _correlation_chart(correlation.points)} if correlation else {}
    charts |= {"sweep-chart": _sweep_chart(sweep)} if sweep else {}
    sets = [name for name in SETS if name != "test"]
    models = results.models_on_other_sets()
    return {
        "excesses": transferability.excesses(results),
        "control_title": control_title,
        "trained_on": {name: spec.trained_on for name, spec in MODELS.items()},
        "next_labels": next_labels(results),
        "probes": [PROBE_NAMES[name] for name in LEAKAGE_PROBES],
        "leakage": transferability.label_leakage(results),
        "targets": transfer_targets(results),
        "matrix": transfer_matrix(results),
        "epsilon_texts": EPSILON_TEXTS,
        "correlation": correlation,
        "sweep": sweep,
        "consistency": error_consistencies(results),
        "attacked": [model for model in models if any(results.accuracy(model, name, HALF) for name in sets)],
    }, charts


def next_labels(results: StudyResults) -> list[NextLabels]:
    """Models trained on next labels and their controls, in the order of the catalog."""
    found = []
    for name, spec in MODELS.items():
        if spec.trained_on in DATASETS and DATASETS[spec.trained_on].labels == "next":
            true, after = results.accuracy(name), results.accuracy(name, "test-next")
            if true and after:
                found.append(NextLabels(name, spec.title, true, after))
    return found


def transfer_targets(results: StudyResults) -> list[TransferTarget]:
    """What adversarial examples of the standard model do to each target."""
    found = []
    for target in in_order(TARGET_TITLES, transferability.transfer_targets(results, "standard")):
        _, same, other = transferability.mistake_shares(results, "standard", target)
        rates = {
            perturbation: transferability.transfer_rate(results, "standard", target, perturbation)
            for perturbation in ("random", "untargeted", "targeted")
        }
        clean = transferability.transfer_clean_accuracy(results, "standard", target)
        title = TARGET_TITLES.get(target, "")
        found.append(TransferTarget(target, title, clean=clean, same_mistake=same, other_mistake=other, **rates))
    return found


def transfer_matrix(results: StudyResults) -> dict[str, dict[str, Estimate | None]]:
    """Untargeted transfer rates: by source, by network."""
    names = [name for name in TARGET_TITLES if name not in LEARNERS]
    found = {
        source: {target: transferability.transfer_rate(results, source, target) for target in names}
        for source in TRANSFER_SOURCES
    }
    return {source: row for source, row in found.items() if any(row.values())}


def epsilon_sweep(results: StudyResults) -> list[SweepPoint]:
    """Mean transfer rates to the other networks, by the epsilon of the source's adversarial training."""
    points = []
    for source, text in EPSILON_TEXTS.items():
        for perturbation in ("untargeted", "targeted"):
            rates = [transferability.transfer_rate(results, source, target, perturbation) for target in OTHER_NETWORKS]
            known = [rate.mean for rate in rates if rate]
            if known:
                points.append(SweepPoint(text, perturbation, sum(known) / len(known), len(known)))
    return points


def error_consistencies(results: StudyResults) -> dict[str, dict[str, transferability.ErrorConsistency]]:
    """Error consistency, model by model."""
    known = {name for row in results.rows(ErrorConsistencyRow) for name in (row.model, row.other_model)}
    names = [name for name in CONSISTENCY_MODELS if name in known]
    return {
        one: {other: transferability.error_consistency(results, one, other) for other in names if other != one} for one in names
    }


def _correlation_chart(points: Sequence[tuple[str, float, float]]) -> dict[str, object]:
    """Accuracy after training on D_det and transfer rate, one point per architecture."""
    import altair as alt

    values = [
        {
            "network": ARCHITECTURES.get(target, "the study's network"),
            "x": accuracy,
            "y": rate,
            "accuracy": percent(accuracy),
            "transfer rate": percent(rate),
        }
        for target, accuracy, rate in points
    ]
    axis, scale = alt.Axis(format="%", tickCount=6), alt.Scale(zero=False, nice=True)
    base = alt.Chart({"values": values}).encode(
        x=alt.X("x:Q", axis=axis, title="test accuracy after training on D_det", scale=scale),
        y=alt.Y("y:Q", axis=axis, title="transfer rate from the standard model", scale=scale),
        tooltip=[f"{field}:N" for field in ("network", "accuracy", "transfer rate")],
    )
    marks = base.mark_point(size=90, filled=True, opacity=1, color=render.model_color("standard"))
    middle = (min(accuracy for _, accuracy, _ in points) + max(accuracy for _, accuracy, _ in points)) / 2
    names = base.encode(text="network:N", tooltip=alt.value(None))
    right = names.mark_text(dx=10, align="left", color="currentColor").transform_filter(alt.datum.x <= middle)
    left = names.mark_text(dx=-10, align="right", color="currentColor").transform_filter(alt.datum.x > middle)
    text = "Test accuracy after training on D_det and transfer rate, one point per architecture; the finding holds the figures."
    return render.chart_spec(alt.layer(marks, right, left).properties(width="container", height=280, description=text))


def _sweep_chart(points: Sequence[SweepPoint]) -> dict[str, object]:
    """Mean transfer rate by the epsilon of the source's adversarial training."""
    import altair as alt

    values = [{**vars(point), "share": point.rate, "rate": percent(point.rate)} for point in points]
    colors = alt.Scale(domain=["untargeted", "targeted"], range=[*map(render.model_color, ("standard", "adversarial"))])
    title = "ε of the source's adversarial training"
    base = alt.Chart({"values": values}).encode(
        x=alt.X("source:O", sort=[*EPSILON_TEXTS.values()], title=title, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("share:Q", axis=alt.Axis(format="%", tickCount=5), title="mean transfer rate"),
        color=alt.Color("perturbation:N", scale=colors, legend=alt.Legend(orient="top", title=None)),
        tooltip=[f"{field}:N" for field in ("source", "perturbation", "rate", "networks")],
    )
    layers = alt.layer(base.mark_line(strokeWidth=1.75), base.mark_point(size=80, filled=True, opacity=1))
    text = "Mean transfer rate to the other networks by the ε of the source's adversarial training."
    return render.chart_spec(layers.properties(width="container", height=220, description=text))
