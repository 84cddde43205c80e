"""Results as tables of text, for the command line, the page and the benchmarks: each returns columns and lines."""

import math
from collections.abc import Sequence

from notbugs.report.analyses import CORRUPTIONS, corruption_accuracy, fourier_models, ntk_accuracy, saliency_estimate
from notbugs.report.findings.replication import FIGURE_3, PAPER_FIGURES, PERTURBATIONS, replication_rows
from notbugs.report.format import Estimate, decimal, interval, minus, percent, plain
from notbugs.report.results import CLEAN, FULL, HALF, StudyResults
from notbugs.report.seed_mean import Value, seed_mean
from notbugs.report.transferability import TRAINED_ON_D_DET, accuracy_transfer_correlation, excesses, transfer_rate
from notbugs.review import answers
from notbugs.runs.tables.analyses import CorruptionRow, FourierRow, NTKAccuracyRow, SaliencyRow
from notbugs.runs.tables.replication import ReplicationRow
from notbugs.runs.tables.study import MetricRow
from notbugs.stats import correlation
from notbugs.study.catalog import in_order
from notbugs.study.catalog.datasets import DATASETS, PAPER_NAMES
from notbugs.study.catalog.models import ANALYZED_MODELS, MODELS, OWN_MODELS, TABLE_MODELS, trained_on
from notbugs.study.comparisons import CONTROLS_OF, control_short

Table = tuple[list[str], list[list[str]]]
MISSING = "–"
_RADII = (("ε/2", HALF), ("ε", FULL))
METHODS = ("gradient", "integrated")
SALIENCY_COLUMNS = ["method", "alignment", "chance", "low-frequency energy", "white noise", "deletion gain"]
FOURIER_COLUMNS = ["low frequencies", "high frequencies"]


# ---- a study ---------------------------------------------------------------------------------------------------------------


def accuracy_table(results: StudyResults) -> Table:
    """Each model of the main table: accuracy on the test images, clean, at epsilon / 2 and at epsilon; last, its training."""
    columns = ["model", "clean", f"ε/2 = {results.epsilon_text(HALF)}", f"ε = {results.epsilon_text(FULL)}", "training"]
    lines = []
    for model in results.models():
        found = [results.accuracy(model, radius=radius) for radius in range(3)]
        cells = [estimate.cell if estimate else "" for estimate in found]
        lines.append([model, *cells, results.title(model)])
    return columns, lines


def compact_accuracy_table(results: StudyResults) -> Table:
    """The same in percent for a terminal of 80 columns: each model by what it is trained on."""
    columns = ["trained on", "clean", *(f"{results.norm} {name} = {results.epsilon_text(r)}" for name, r in _RADII)]
    lines = []
    for model in results.models():
        found = [results.accuracy(model, radius=radius) for radius in (CLEAN, HALF, FULL)]
        lines.append([_training_images(results, model), *map(_percent_cell, found)])
    return columns, lines


def split_table(results: StudyResults) -> Table:
    """Robust accuracy of the model trained on D_R minus that of others, in percentage points, at both epsilons."""
    columns = ["robust (D_R) minus", *(f"{results.norm} {name} = {results.epsilon_text(r)}" for name, r in _RADII)]
    lines = []
    for other in ("trained-on-nonrobust", results.baseline):
        found = [results.difference(("trained-on-robust", radius), (other, radius), len(_RADII)) for _, radius in _RADII]
        if any(found):
            cells = [estimate.points_cell if estimate else MISSING for estimate in found]
            lines.append([_training_images(results, other), *cells])
    return columns, lines


def relabeled_table(results: StudyResults, *, before: bool = False) -> Table:
    """Models trained on relabeled sets: how often they predict the true class and the next one, and their control.

    before: also the accuracy before their batch-norm statistics were adapted, which is too wide for a terminal.
    """
    lines = []
    for name in ("random-labels", "random-labels-incl-true", "next-labels"):
        model = trained_on(name)
        if accuracy := results.accuracy(model):
            following = results.accuracy(model, "test-next")
            known = (control for control in CONTROLS_OF[model] if control not in OWN_MODELS)
            control = next((control for control in known if results.accuracy(control)), "")
            cells = [accuracy, following, results.accuracy(control) if control else None]
            texts = [_percent_cell(cell) for cell in cells]
            last = results.accuracy_before_adapting(model)  # of the last epoch: without an interval
            unadapted = [f"{100 * last.mean:.1f}" if last else MISSING] if before else []
            lines.append([_with_paper_name(name), *texts[:1], *unadapted, texts[1], texts[2] if control else "not run: --full"])
    columns = ["trained on", "true class", "next class", "control"]
    return [*columns[:2], *(["the same, batch norm not adapted"] if before else []), *columns[2:]], lines


def _percent_cell(estimate: Estimate | None) -> str:
    """A percentage and its interval without the unit."""
    return MISSING if estimate is None else f"{100 * estimate.mean:.1f} {estimate.interval}"


def _training_images(results: StudyResults, model: str) -> str:
    """What a model is trained on, in few words."""
    if model == "standard" and results.given_model:
        return "(the given model)"
    if model == "adversarial":
        return "original, adversarially"
    return _with_paper_name(_trained_on(model)) if model in MODELS and MODELS[model].trained_on in DATASETS else "original"


def _with_paper_name(set: str) -> str:
    return f"{set} ({PAPER_NAMES[set]})" if set in PAPER_NAMES else set


def controls_table(results: StudyResults) -> Table:
    """Each relabeled result, and below it each of its controls: accuracy in percent, and the excess in percentage points."""
    lines: list[list[str]] = []
    model = ""
    for entry in excesses(results):
        if entry.model != model:
            model = entry.model
            lines.append([_with_paper_name(_trained_on(model)), f"{100 * entry.accuracy:.1f}", ""])
        cells = [f"{100 * entry.control_accuracy:.1f}", entry.excess.points_cell]
        lines.append([f"  control: {control_short(entry.control)}", *cells])
    return ["trained on", "accuracy", "excess over the control"], lines


def _trained_on(model: str) -> str:
    """The constructed set of a model, for narrow tables."""
    return MODELS[model].trained_on if model in MODELS and MODELS[model].trained_on in DATASETS else model


def own_metrics_table(results: StudyResults) -> Table:
    """Metrics of the user's own, one column each: shares in percent, others as numbers, with their 95 % CI."""
    rows = results.rows(MetricRow)
    titles = {row.metric: row.title for row in rows}
    lines = [
        [model, *(_metric_cell([row for row in rows if (row.model, row.metric) == (model, metric)]) for metric in titles)]
        for model in in_order(TABLE_MODELS, (row.model for row in rows))
    ]
    return ["model", *titles.values()], lines


def _metric_cell(rows: Sequence[MetricRow]) -> str:
    """Mean over seeds."""
    share = all(row.is_share for row in rows)
    found = seed_mean((Value(row.value, row.ci_low, row.ci_high, row.n) for row in rows), share=share)
    if found is None:
        return MISSING
    if share:
        return found.cell
    value = minus(plain(found.mean))
    return value if math.isnan(found.ci_low) else f"{value} {minus(f'[{plain(found.ci_low)}, {plain(found.ci_high)}]')}"


# ---- replication -----------------------------------------------------------------------------------------------------------


def replication_table(results: StudyResults) -> Table:
    """Each line of the paper and the run's for comparison, in percent."""
    rows = replication_rows(results)
    columns = ["trained on", "clean: paper", "clean: here"]
    for paper, radius in (("0.25", HALF), ("0.5", FULL)):
        columns += [f"L2 {paper}: paper", f"{results.norm} {results.epsilon_text(radius)}: here"]
    lines = []
    for entry in PAPER_FIGURES:
        own = {row.perturbation: row for row in rows if row.name == entry.name}
        if own:
            pairs = zip(PERTURBATIONS, entry.paper, strict=True)
            cells = [(MISSING if paper is None else f"{paper:g}", _here(own.get(name))) for name, paper in pairs]
            lines.append([entry.name, *(cell for pair in cells for cell in pair)])
    return columns, lines


def compact_replication_table(results: StudyResults) -> Table:
    """The same without intervals, one cell each: clean/half/full epsilon."""
    lines = [
        [name, "/".join(cells[::2]), "/".join(cell.split(" [")[0] for cell in cells[1::2])]
        for name, *cells in replication_table(results)[1]
    ]
    return ["trained on", "paper", "here"], lines


def _here(row: ReplicationRow | None) -> str:
    return f"{100 * row.here:.1f} {interval(100 * row.ci_low, 100 * row.ci_high)}" if row else MISSING


def figure_3_table(results: StudyResults) -> Table:
    """Figure 3 of the paper: test accuracy after training on D_det, and transfer rate from the source, in percent."""
    columns = ["architecture", "accuracy: paper", "accuracy: here", "transfer rate: paper", "transfer rate: here"]
    if not results.metadata.replicate:
        return columns, []
    lines = []
    for entry in FIGURE_3:
        here, rate = results.accuracy(TRAINED_ON_D_DET[entry.target]), transfer_rate(results, "standard", entry.target)
        if here and rate:
            cells = [f"{entry.accuracy:g}", f"{100 * here.mean:.1f}", f"{entry.transfer_rate:g}", f"{100 * rate.mean:.1f}"]
            lines.append([f"{entry.name} (here: {entry.target})", *cells])
    if found := accuracy_transfer_correlation(results):
        of_paper = correlation([entry.accuracy for entry in FIGURE_3], [entry.transfer_rate for entry in FIGURE_3])
        here = found.correlation
        cell = f"{decimal(here.mean)} {interval(here.ci_low, here.ci_high, 2)}, {here.n} networks"
        lines.append(["correlation", "", "", decimal(of_paper), cell])
    return columns, lines


# ---- analyses --------------------------------------------------------------------------------------------------------------


def saliency_table(results: StudyResults) -> Table:
    """Measures of each model's attributions."""
    rows = results.rows(SaliencyRow)
    models = in_order(ANALYZED_MODELS, (row.model for row in rows))
    lines = [[name, *line] for name in models for line in saliency_lines([row for row in rows if row.model == name])]
    return ["model", *SALIENCY_COLUMNS], lines


def saliency_lines(rows: Sequence[SaliencyRow]) -> list[list[str]]:
    """Of one model's rows: one line per method, under `SALIENCY_COLUMNS`."""
    lines = []
    for method in in_order(METHODS, (row.method for row in rows)):
        cosine = saliency_estimate(rows, method, "alignment")
        chance = saliency_estimate(rows, method, "chance_alignment")
        low = saliency_estimate(rows, method, "low_frequency_energy")
        noise = saliency_estimate(rows, method, "chance_low_frequency_energy")
        gain = saliency_estimate(rows, method, "deletion_gain")
        if cosine and chance and low and noise and gain:
            alignment = f"{decimal(cosine.mean)} {interval(cosine.ci_low, cosine.ci_high, 2)}"
            lines.append([method, alignment, decimal(chance.mean), low.cell, noise.percent, minus(gain.cell)])
    return lines


def corruptions_table(results: StudyResults) -> Table:
    """Accuracy of each model, clean and under each corruption: mean over severities."""
    rows = results.rows(CorruptionRow)
    kinds = in_order(CORRUPTIONS, (row.corruption for row in rows))
    lines = []
    for model in in_order(ANALYZED_MODELS, (row.model for row in rows)):
        shares = [corruption_accuracy(results, model, kind) for kind in kinds]
        lines.append([model, *(MISSING if share is None else percent(share) for share in shares)])
    return ["model", *kinds], lines


def fourier_table(results: StudyResults) -> Table:
    """Error rate of each model with one Fourier basis vector added: mean over low frequencies, and over high ones."""
    rows = results.rows(FourierRow)
    lines = [[name, *fourier_cells([row for row in rows if row.model == name])] for name in fourier_models(results)]
    return ["model", *FOURIER_COLUMNS], lines


def fourier_cells(rows: Sequence[FourierRow]) -> list[str]:
    """Of one model's rows: mean error rate over frequencies up to half of the highest, and over the others."""
    highest = max((max(row.cycles_down, row.cycles_across) for row in rows), default=0)
    bands: dict[bool, list[float]] = {False: [], True: []}
    for row in rows:
        bands[math.hypot(row.cycles_down, row.cycles_across) > highest / 2].append(row.error_rate)
    return [percent(sum(band) / len(band)) if band else MISSING for band in bands.values()]


def ntk_table(results: StudyResults) -> Table:
    """Accuracy of kernel regression on the first eigenvectors, clean and under attack."""
    lines = []
    for count in dict.fromkeys(row.eigenvectors for row in results.rows(NTKAccuracyRow)):
        found = [ntk_accuracy(results, count, attacked=attacked) for attacked in (False, True)]
        lines.append([str(count), *(estimate.cell if estimate else MISSING for estimate in found)])
    return ["eigenvectors", "clean", "under attack"], lines


# ---- human review ----------------------------------------------------------------------------------------------------------


def review_table(results: StudyResults) -> Table:
    """Accuracy of people on each set, minus that on the originals, and for comparison the accuracy of classifiers."""
    rows = results.review_answers
    differences = {
        row.set: minus(f"{100 * row.difference:+z.1f} {interval(100 * row.ci_low, 100 * row.ci_high)}")
        for row in answers.differences(rows)
    }
    models = [name for name in ("standard", "adversarial") if rows and results.accuracy(name, "robust")]
    lines = []
    for row in answers.summary(rows):
        accuracy = f"{percent(row.accuracy)} {interval(100 * row.ci_low, 100 * row.ci_high)}"
        found: list[Estimate | None] = [results.accuracy(name, row.set) for name in models]
        others = [estimate.percent if estimate else MISSING for estimate in found]
        lines.append([row.set, str(row.answers), accuracy, differences.get(row.set, MISSING), percent(row.unsure), *others])
    return ["set", "answers", "accuracy", "minus originals", "cannot tell", *models], lines
