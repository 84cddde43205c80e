"""Tables of a run folder for markdown_tables.py."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from markdown_format import table
from markdown_studies import replication_lines

from notbugs.report import tables, transferability
from notbugs.report.about import stages_by_device
from notbugs.report.analyses import corruption_difference, saliency_difference
from notbugs.report.findings import findings
from notbugs.report.findings.replication import replication_rows
from notbugs.report.format import Estimate, decimal, minus, percent
from notbugs.report.results import CLEAN, FULL, HALF, StudyResults
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.analyses import CorruptionDifferenceRow, SaliencyDifferenceRow
from notbugs.runs.tables.study import AccuracyRow, SetRow
from notbugs.runs.tables.theory import TheoryRow
from notbugs.study.catalog.models import ANALYZED_MODELS, ARCHITECTURES, EPSILON_TEXTS, MODELS, STRONG_MODELS
from notbugs.study.comparisons import LEAKAGE_PROBES, TRANSFER_SOURCES, TRANSFER_TARGETS, control_short, probe_name

CONSISTENCY_MODELS = (
    *("standard", "same-init", "reinit-1", *ARCHITECTURES, "adversarial", "trained-on-robust", "trained-on-nonrobust"),
    *("trained-on-random-labels", "trained-on-next-labels"),
)
EITHER_SET = ("robust", "nonrobust")
EITHER_MODEL = ("trained-on-robust", "trained-on-nonrobust")
SALIENCY_COLUMNS = (
    *("model", "attribution", "`alignment`", "`chance_alignment`", "`low_frequency_energy`"),
    *("`chance_low_frequency_energy`", "`deletion_gain`"),
)
METHOD_TITLES = {"integrated": "integrated gradients"}
CORRUPTION_TITLES = {"jpeg": "JPEG"}


def run_blocks(folder: Path, parts: Sequence[str]) -> list[str]:
    """Blocks of Markdown: what was run, then the tables of each part that is there.

    Parameters
    ----------
    folder : Path
    parts : sequence of str
        Only these (`PARTS`); empty: all.
    """
    if (run := RunFolder.read(folder)).kind == "theory":
        return [*_theory(run)]
    results = StudyResults.read(run)
    blocks = [_setup(results)]
    for part, part_blocks in PARTS.items():
        if not parts or part in parts:
            blocks += part_blocks(results)
    return blocks


def _setup(results: StudyResults) -> str:
    run, data = results.metadata, results.metadata.data
    unfinished = "" if run.finished else " **Not finished**: these are the figures of its finished stages."
    return (
        f"`{run.command}`: {data.train or 0:,} training and {data.test or 0:,} test images{_fingerprint(results)}, "
        f"{results.threat_model()}, "
        f"seeds {', '.join(map(str, run.seeds))}; {run.seconds / 60:.1f} min on {_devices(results)}"
        f"{' in bfloat16' if run.settings.get('bf16') else ''}.{unfinished}"
    )


def _devices(results: StudyResults) -> str:
    """Where the stages were done; with their number where that was on several devices."""
    run, metadata = results.metadata, results.run.metadata
    found = metadata.get("devices") or stages_by_device(metadata["stages"])
    if len(found) > 1:
        return "; ".join(f"{device} ({count} stage{'s' if count > 1 else ''})" for device, count in found.items())
    return f"{run.machine}, torch {run.versions.get('torch', '')}, {run.device}"


def _fingerprint(results: StudyResults) -> str:
    found = results.run.metadata.get("fingerprint")
    return f" (fingerprint {found})" if found else ""


def _theory(run: RunFolder) -> Iterator[str]:
    """The two-Gaussian model."""
    metadata = run.theory()
    yield f"`{metadata.command}`: {metadata.machine}, torch {metadata.versions.get('torch', '')}, commit {metadata.commit}."
    columns = (
        *("ε", "κ (`condition_number`), closed form", "`min_cosine`"),
        *("κ, adversary with mean square ε²", "κ, adversary with at most ε per example"),
    )
    rows = run.rows(TheoryRow)
    cells = [(row.condition_number, row.min_cosine, row.budget_condition_number, row.ball_condition_number) for row in rows]
    yield table(columns, [[f"{row.epsilon:g}", *map(_three_digits, each)] for row, each in zip(rows, cells, strict=True)])


def _three_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _cell(estimate: Estimate | None) -> str:
    return estimate.cell if estimate else ""


def _percent(estimate: Estimate | None) -> str:
    return estimate.percent if estimate else ""


# ---- every study -------------------------------------------------------------------------------------------------------------


def _accuracy(results: StudyResults) -> Iterator[str]:
    columns = (
        *("model", "clean accuracy", f"robust accuracy at ε / 2 = {results.epsilon_text(HALF)}"),
        f"robust accuracy at ε = {results.epsilon_text(FULL)}",
    )
    _, lines = tables.accuracy_table(results)
    if lines:
        yield table(columns, (cells[: len(columns)] for cells in lines))


def _findings(results: StudyResults) -> Iterator[str]:
    """The status as the report has it: not supported is inconclusive where the CI includes more than a small difference."""
    lines = []
    for finding in findings(results):
        status = "inconclusive" if finding.answer == "unclear" else finding.status
        lines.append([finding.question, f"{status[:1].upper()}{status[1:]}. {finding.text}"])
    if lines:
        yield table(("question", "result"), lines)


def _datasets(results: StudyResults) -> Iterator[str]:
    """Means over seeds."""
    rows = results.rows(SetRow)
    lines = []
    for name in dict.fromkeys(row.set for row in rows):
        own = [row for row in rows if row.set == name]
        columns = ([row.target_reached for row in own], [row.mean_l2 for row in own], [row.feature_error for row in own])
        lines.append([name, own[0].made_from, *map(_mean, columns)])
    if lines:
        yield table(("dataset", "made from", "target reached", "mean L2", "feature error"), lines)
    lines = [[name, *(_cell(results.accuracy(name, set)) for set in EITHER_SET)] for name in EITHER_MODEL]
    if all(cell for line in lines for cell in line):
        yield table(("trained on", "clean accuracy on D_R", "clean accuracy on D_NR"), lines)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else ""


# ---- a full study ------------------------------------------------------------------------------------------------------------


def _controls(results: StudyResults) -> Iterator[str]:
    """Excess over the controls, D_det by class, leakage."""
    columns = ("trained on", "accuracy, %", "control", "control accuracy, %", "excess, pp [95 % CI]")
    lines = [
        [
            *(MODELS[entry.model].trained_on, f"{100 * entry.accuracy:.1f}", control_short(entry.control)),
            *(f"{100 * entry.control_accuracy:.1f}", entry.excess.points_cell),
        ]
        for entry in transferability.excesses(results)
    ]
    if lines:
        yield table(columns, lines)
    names = dict.fromkeys(row.model for row in results.rows(AccuracyRow) if row.set == "test-next")
    lines = [[name, _cell(results.accuracy(name)), _cell(results.accuracy(name, "test-next"))] for name in names]
    if lines:
        yield table(("trained on", "predicts the true class", "predicts the next class"), lines)
    yield from _leakage(results)
    yield from _initialization(results)


def _leakage(results: StudyResults) -> Iterator[str]:
    probes = (control_short(probe_name(name)) for name in LEAKAGE_PROBES)
    columns = (
        *("dataset", "target reached", "linear separability of the perturbations", *probes),
        *("other model predicts the new label", "other model keeps the label", "highest test accuracy", "last test accuracy"),
    )
    lines = []
    for entry in transferability.label_leakage(results):
        leakage = [entry.probes[name].accuracy for name in LEAKAGE_PROBES]
        estimates = [entry.target_reached, entry.separability, *leakage]
        estimates += [entry.other_model_predicts_new_label, entry.other_model_keeps_label]
        curve = ["" if share is None else percent(share) for share in (entry.peak, entry.last)]
        lines.append([entry.set, *map(_cell, estimates), *curve])
    if lines:
        yield table(columns, lines)


def _initialization(results: StudyResults) -> Iterator[str]:
    """Training on a relabeled data set from the source model's initial weights."""
    columns = ("dataset", "same initial weights", "other initial weights", "difference, percentage points [95 % CI]")
    lines = []
    for name, spec in MODELS.items():
        other = next((model for model, each in MODELS.items() if each.trained_on == spec.trained_on and each.role == "main"), "")
        if spec.init_from and spec.trained_on != "original":
            difference = results.difference((name, CLEAN), (other, CLEAN))
            if difference:
                accuracies = [_percent(results.accuracy(model)) for model in (name, other)]
                lines.append([f"`{spec.trained_on}`", *accuracies, difference.points_cell])
    if lines:
        yield table(columns, lines)


def _transfer(results: StudyResults) -> Iterator[str]:
    """Examples of the standard model by target; figure 3; by source and target."""
    columns = (
        *("target", "clean accuracy", "error rate, random perturbations", "transfer rate, untargeted", "same mistake"),
        *("other mistake", "transfer rate, targeted"),
    )
    lines = []
    for target in transferability.transfer_targets(results, "standard"):
        _, same, other = transferability.mistake_shares(results, "standard", target)
        random, untargeted, targeted = (
            transferability.transfer_rate(results, "standard", target, kind) for kind in ("random", "untargeted", "targeted")
        )
        clean = transferability.transfer_clean_accuracy(results, "standard", target)
        lines.append([target, *map(_cell, (clean, random, untargeted, same, other, targeted))])
    if lines:
        yield table(columns, lines)
    found = transferability.accuracy_transfer_correlation(results)
    if found:
        lines = [[ARCHITECTURES.get(name, name), percent(x), percent(y)] for name, x, y in found.points]
        yield table(("network", "accuracy after D_det", "transfer rate"), lines)
    yield from _by_source(results)


def _by_source(results: StudyResults) -> Iterator[str]:
    sources = [source for source in TRANSFER_SOURCES if transferability.transfer_targets(results, source)]
    if not sources:
        return
    networks = ("reinit-1", *ARCHITECTURES)
    means = []
    for source in sources:
        rates = [rate.mean for name in networks if (rate := transferability.transfer_rate(results, source, name, "targeted"))]
        means.append(percent(sum(rates) / len(rates)) if rates else "")
    label = f"targeted transfer rate, mean over the {len(networks)} networks"
    titles = ["0 (standard)" if source == "standard" else EPSILON_TEXTS[source] for source in sources]
    yield table(("ε of the source's adversarial training", *titles), [[label, *means]])
    lines = [
        [source, *(_percent(transferability.transfer_rate(results, source, name)) for name in TRANSFER_TARGETS)]
        for source in sources
    ]
    yield table(("source", *TRANSFER_TARGETS), lines)


def _error_consistency(results: StudyResults) -> Iterator[str]:
    def kappa(model: str, other: str) -> str:
        found = transferability.error_consistency(results, model, other).consistency if model != other else None
        return decimal(found.mean) if found else ""

    names = [name for name in CONSISTENCY_MODELS if any(kappa(name, other) for other in CONSISTENCY_MODELS)]
    if names:
        yield table(("error consistency", *names), ([name, *(kappa(name, other) for other in names)] for name in names))


# ---- replication and analyses ------------------------------------------------------------------------------------------------


def _replication(results: StudyResults) -> Iterator[str]:
    rows = replication_rows(results)
    if rows:
        yield replication_lines([asdict(row) for row in rows])
    _, lines = tables.figure_3_table(results)
    if lines:
        yield table(("network", "accuracy after D_det, %: paper", "ours", "transfer rate, %: paper", "ours"), lines)


def _analyses(results: StudyResults) -> Iterator[str]:
    _, lines = tables.saliency_table(results)
    if lines:
        yield table(SALIENCY_COLUMNS, ([model, METHOD_TITLES.get(method, method), *cells] for model, method, *cells in lines))
    yield from _alignment_differences(results)
    columns, lines = tables.corruptions_table(results)
    if lines:
        yield table([CORRUPTION_TITLES.get(name, name) for name in columns], lines)
    yield from _corruption_differences(results)
    _, lines = tables.fourier_table(results)
    if lines:
        yield table(("model", "low frequencies (up to half of the highest)", "high frequencies"), lines)
    _, lines = tables.ntk_table(results)
    if lines:
        yield table(("leading eigenvectors", "clean accuracy", "robust accuracy"), lines)
    columns, lines = tables.review_table(results)
    if lines:
        yield table(columns, lines)


def _alignment_differences(results: StudyResults) -> Iterator[str]:
    rows = results.rows(SaliencyDifferenceRow)
    pairs = dict.fromkeys((row.model, row.other_model) for row in rows if row.model in (*ANALYZED_MODELS, *STRONG_MODELS))
    lines = []
    for model, other in pairs:
        found = saliency_difference(results, model, other, "gradient", "alignment")
        if found:
            ends = minus(f"[{found.ci_low:z.2f}, {found.ci_high:z.2f}]")
            lines.append([f"{model} − {other}", f"{minus(f'{found.mean:+z.2f}')} {ends}"])
    if lines:
        yield table(("difference", "alignment, 95 % CI"), lines)


def _corruption_differences(results: StudyResults) -> Iterator[str]:
    """Adversarially trained minus standard, in percentage points, mean over severities."""
    names = dict.fromkeys(row.corruption for row in results.rows(CorruptionDifferenceRow))
    found = {name: corruption_difference(results, "adversarial", name) for name in names}
    lines = [[CORRUPTION_TITLES.get(name, name), each.points_cell] for name, each in found.items() if each]
    if lines:
        yield table(("corruption", "difference, 95 % CI"), lines)


PARTS: dict[str, Callable[[StudyResults], Iterator[str]]] = {
    "accuracy": _accuracy,
    "findings": _findings,
    "datasets": _datasets,
    "controls": _controls,
    "transfer": _transfer,
    "error-consistency": _error_consistency,
    "replication": _replication,
    "analyses": _analyses,
}
