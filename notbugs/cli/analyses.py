"""Further commands: the theory, and the analyses of a study or a classifier: saliency, corruptions, NTK, human review."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from notbugs.cli.config_file import source_of, write_alone
from notbugs.cli.console import (
    How,
    audit_config,
    command_line,
    parse_numbers,
    percent,
    print_findings,
    print_report,
    print_table,
    progress,
)
from notbugs.cli.notes import TABLE, list_files_in, print_notes
from notbugs.cli.options import (
    NO_MODEL_OPTIONS,
    NO_OPTIONS,
    DataOptions,
    ExecutorName,
    ModelOptions,
    RunArgument,
    Seed,
    Workers,
    with_data_options,
    with_model_options,
)
from notbugs.cli.say import say
from notbugs.cli.table_file import beside, check_table_file, write_table
from notbugs.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from notbugs.audit import AuditConfig
    from notbugs.report.results import StudyResults
    from notbugs.runs.tables.theory import TheoryRow
    from notbugs.theory import Gaussians

Subject = Annotated[
    str,
    typer.Argument(metavar="RUN|MODEL", help="The folder of a study; or, with DATASET, a model as `notbugs attack` takes it."),
]
ItsDataset = Annotated[
    str | None, typer.Argument(metavar="DATASET", help="With a model: the images, as `notbugs run` takes them.")
]
SHEET, FOURIER = ".png", "-fourier.csv"  # endings of files beside a table
MOST_SAMPLES = 10_000_000  # which are all in memory
TextTable = tuple[Sequence[str], Sequence[Sequence[str]]]  # columns and rows


# ---- theory ------------------------------------------------------------------------------------------------------------------


def theory(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The run folder: table and report.")] = Path("runs/theory"),
    mean: Annotated[str, typer.Option(metavar="M,…", help="Mean of class +1, one number per dimension.")] = "-10,1",
    variances: Annotated[
        str, typer.Option(metavar="V,…", help="Variance of both classes in each dimension, above 0.")
    ] = "25,0.5",
    epsilon: Annotated[
        str, typer.Option(metavar="EPS,…", help="L2 epsilons of robust training, 0 or more.")
    ] = "0,0.1,0.5,1,2,5,10",
    samples: Annotated[
        int, typer.Option(help="Examples for adversarial training, to compare with the closed form. 0: none.")
    ] = 20_000,
    seed: Seed = 0,
) -> None:
    """The two-Gaussian model of the paper (section 4).

    Vulnerability, robust training and gradient alignment in closed form.
    """
    from notbugs import theory
    from notbugs.runs.folder import RunFolder
    from notbugs.runs.tables.theory import TheoryRow

    means, spread = parse_numbers(mean, "--mean"), parse_numbers(variances, "--variances")
    epsilons = parse_numbers(epsilon, "--epsilon")
    classes = _gaussians(means, spread, epsilons, samples, seed)
    arguments = {"kind": "theory", "mean": means, "variances": spread, "epsilon": epsilons, "samples": samples, "seed": seed}
    with RunFolder.open(out, arguments) as record:
        if not record.done("theory"):
            from notbugs.runs.folder import common_metadata
            from notbugs.runs.scheduler import describe_machine

            began = time.perf_counter()
            rows = theory.table(classes, epsilons, samples=samples, seed=seed)
            record.record_stage("theory", time.perf_counter() - began, rows)
            record.update_metadata(**common_metadata("cpu", describe_machine("cpu"), command_line()), finished=True)
    print_table(
        "Robust training of two Gaussian classes; the last two columns by adversarial training",
        *_theory_table(record.rows(TheoryRow)),
    )
    print_report(out)


def _gaussians(
    means: Sequence[float], variances: Sequence[float], epsilons: Sequence[float], samples: int, seed: int
) -> "Gaussians":
    """Two Gaussian classes. Raises InputError for options that cannot be used, before anything is written."""
    import numpy as np

    from notbugs import theory

    if not 0 <= samples <= MOST_SAMPLES:
        raise InputError("--samples", f"must be 0 or more, at most {MOST_SAMPLES:,}", samples)
    if len(means) != len(variances):
        raise InputError("--variances", f"must be as many as --mean, {len(means)}", len(variances))
    if min(variances) <= 0:
        raise InputError("--variances", "must be above 0", ",".join(f"{value:g}" for value in variances))
    if not 0 <= min(epsilons) <= max(epsilons) <= theory.MAX_EPSILON:
        rule = f"must be 0 or more, at most {theory.MAX_EPSILON:g}"
        raise InputError("--epsilon", rule, ",".join(f"{value:g}" for value in epsilons))
    if samples and samples <= len(means) + 1:
        raise InputError("--samples", f"must be 0, or more than {len(means) + 1} in {len(means)} dimensions", samples)
    if seed < 0:
        raise InputError("--seed", "must be 0 or more", seed)
    classes = theory.Gaussians(np.array(means), np.array(variances))
    theory.accuracy(classes, classes)  # classes that do not differ fail here
    return classes


def _theory_table(rows: Sequence["TheoryRow"]) -> TextTable:
    columns = ["ε", "κ", "min cosine", "cosine", "accuracy", "robust accuracy", "of true parameters"]
    trained = all(row.budget_condition_number is not None for row in rows)
    lines = []
    for row in rows:
        values = [row.condition_number, row.min_cosine, row.cosine, row.accuracy, row.robust_accuracy]
        values.append(row.true_parameters_robust_accuracy)
        if row.budget_condition_number is not None and row.ball_condition_number is not None:
            values += [row.budget_condition_number, row.ball_condition_number]
        lines.append([f"{row.epsilon:g}", *map(_short, values)])
    return [*columns, *(["κ, mean ε²", "κ, each ε"] if trained else [])], lines


def _short(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.0e}" if value else "0"


# ---- analyses of a study or of one classifier --------------------------------------------------------------------------------


@with_data_options
@with_model_options
def explain(
    context: typer.Context,
    subject: Subject,
    dataset: ItsDataset = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="With a model: a row per test image; FILE.png: gradients of a few; FILE.json: how the data were read.",
        ),
    ] = None,
    model_options: ModelOptions = NO_MODEL_OPTIONS,
    data_options: DataOptions = NO_OPTIONS,
    seed: Seed = 0,
    workers: Workers = None,
    executor: ExecutorName = None,
) -> None:
    """Saliency: alignment and faithfulness of attributions.

    Of the main models of a study, or of one classifier.
    """
    from notbugs.report import tables

    title = "Saliency [95 % CI]"
    if dataset is None:
        _check_none_given(context, subject, {**data_options, **model_options})
        _run_and_print(Path(subject), ("saliency",), How(workers, executor), [(title, tables.saliency_table)])
        return
    _check_no_executor(executor)
    from notbugs import data
    from notbugs.audit.classifiers import with_gradients
    from notbugs.audit.failures import blame_failing_image
    from notbugs.data.load import check_training_part
    from notbugs.models.black_box import BlackBox
    from notbugs.runs.tables.row import records_as_csv
    from notbugs.study import analyses

    config, model = _load_classifier(subject, dataset, out, model_options, data_options, SHEET)
    if isinstance(model, BlackBox):
        raise InputError(subject, "must be a PyTorch network: a black box has no gradients")
    model = with_gradients(config, subject, "attributions are computed with them")
    splits = data.load_dataset(config.data)
    check_training_part(dataset, splits)
    print_notes()
    with blame_failing_image(model, splits.test, config.device):
        found = analyses.classifier_saliency(model, splits, seed=seed, device=config.device)
    print_table(title, tables.SALIENCY_COLUMNS, tables.saliency_lines(found.rows))
    if out is not None:
        write_table(out, records_as_csv(found.files))
        data.save_image(found.sheet, beside(out, SHEET))
        say(f"{beside(out, SHEET)}: an image of each class, its gradient, its integrated gradients")


@with_data_options
@with_model_options
def corruptions(
    context: typer.Context,
    subject: Subject,
    dataset: ItsDataset = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="With a model: keep the table, and beside it FILE-fourier.csv, and FILE.json: how the data were read.",
        ),
    ] = None,
    model_options: ModelOptions = NO_MODEL_OPTIONS,
    data_options: DataOptions = NO_OPTIONS,
    seed: Seed = 0,
    workers: Workers = None,
    executor: ExecutorName = None,
) -> None:
    """Accuracy under common corruptions, and Fourier sensitivity.

    Noise, blur, fog, contrast and JPEG at five severities. Of the models of a study, or of one classifier.
    """
    from notbugs.report import tables

    fourier_title = "Error rate with one Fourier basis vector added, mean over frequencies"
    if dataset is None:
        _check_none_given(context, subject, {**data_options, **model_options})
        shown = [
            ("Accuracy on test images, mean over five severities", tables.corruptions_table),
            (fourier_title, tables.fourier_table),
        ]
        _run_and_print(Path(subject), ("corruptions", "fourier"), How(workers, executor), shown)
        return
    _check_no_executor(executor)
    from notbugs import data, metrics
    from notbugs.atomic import atomic_write_text
    from notbugs.audit.images import test_part
    from notbugs.runs.tables.analyses import CorruptionRow, FourierRow
    from notbugs.runs.tables.row import as_csv
    from notbugs.study.analyses import FOURIER_IMAGES

    config, model = _load_classifier(subject, dataset, out, model_options, data_options, FOURIER)
    part = test_part(config)[0]
    print_notes()
    accuracies = metrics.corruption_accuracy(model, part, seed=seed, device=config.device).accuracies
    rows = [CorruptionRow(model=subject, seed=seed, **accuracy._asdict()) for accuracy in accuracies]
    lines = [
        [name, *(percent(row.accuracy, row.ci_low, row.ci_high) for row in rows if row.corruption == name)]
        for name in dict.fromkeys(row.corruption for row in rows)
    ]
    print_table(
        f"Accuracy on {len(part)} test images by severity, in percent [95 % CI]", ["corruption", "1", "2", "3", "4", "5"], lines
    )
    errors = metrics.fourier_sensitivity(model, data.balanced_subset(part, FOURIER_IMAGES), seed=seed, device=config.device)
    fourier = [FourierRow(model=subject, seed=seed, **error._asdict()) for error in errors]
    print_table(fourier_title, tables.FOURIER_COLUMNS, [tables.fourier_cells(fourier)])
    if out is not None:
        write_table(out, as_csv(rows))
        atomic_write_text(beside(out, FOURIER), as_csv(fourier))


def _check_none_given(context: typer.Context, subject: str, options: DataOptions) -> None:
    """Raises InputError for a model without its data set, and for options of both where a study has its own."""
    if Path(subject).is_file():
        raise InputError("DATASET", "must be given with a MODEL", None, f"a study is a folder, and {subject} a file")
    given = [name for name, value in options.items() if value != NO_OPTIONS.get(name)]
    given += [name for name in ("out", "seed") if source_of(context, name) == "COMMANDLINE"]
    if given:
        names = ", ".join("--" + name.removeprefix("pixel_").replace("_", "-") for name in given)
        raise InputError(names, "can only be used with a MODEL and a DATASET: a study has its own")


def _load_classifier(
    subject: str, dataset: str, out: Path | None, model_options: ModelOptions, data_options: DataOptions, *endings: str
) -> tuple["AuditConfig", "nn.Module"]:
    """One classifier, ready for analysis, and its configuration. endings: of the files beside `out`."""
    from notbugs.audit.classifiers import report_order, search_copy

    check_table_file(out, *endings)
    config = audit_config(subject, dataset, model_options=model_options, data_options=data_options)
    model = search_copy(config, subject)
    report_order(config, subject)
    return config, model


def ntk(folder: RunArgument, workers: Workers = None, executor: ExecutorName = None) -> None:
    """Features of the neural tangent kernel, before any training.

    How useful and how robust its eigenvectors are on a study's images.
    """
    from notbugs.report import tables

    title = "Kernel regression on the first eigenvectors [95 % CI]"
    _run_and_print(folder, ("ntk",), How(workers, executor), [(title, tables.ntk_table)])


def _check_no_executor(executor: str | None) -> None:
    if executor is not None:
        raise InputError("--executor", "can do stages of a study only", executor, "leave it out for one classifier")


def _run_and_print(
    folder: Path,
    stages: tuple[str, ...],
    how: How,
    shown: Sequence[tuple[str, Callable[["StudyResults"], TextTable]]],
) -> None:
    """Run analyses of a study; print the findings they add, and their tables."""
    from notbugs.report.findings import findings
    from notbugs.report.results import StudyResults
    from notbugs.study import pipeline

    how.check()
    before = {finding.text for finding in findings(StudyResults.read(folder))}
    with how.engine() as engine, progress(TABLE) as report_progress:
        pipeline.run_analyses(folder, stages, workers=how.workers, engine=engine, report_progress=report_progress)
    results = StudyResults.read(folder)
    print_findings(finding for finding in findings(results) if finding.text not in before)
    for title, table in shown:
        print_table(title, *table(results))
    print_report(folder)


# ---- human review ------------------------------------------------------------------------------------------------------------


def review(
    folder: RunArgument,
    count: Annotated[
        int, typer.Option(help="Images per set, 1 or more. With 35 or fewer even perfect answers cannot show non-inferiority.")
    ] = 50,
    sets: Annotated[
        str, typer.Option(metavar="SET,…", help="original, or names of data sets of the study.")
    ] = "original,robust,nonrobust",
    seed: Seed = 0,
) -> None:
    """A page for human review of a study's data sets.

    People classify blinded images of each set; once there are answers, also their accuracy.

    Open RUN/review/review.html in a browser, export the answers, put the file into RUN/review and repeat the command.
    """
    from notbugs.report import tables
    from notbugs.report.findings.review import findings
    from notbugs.report.pages.review import write_page
    from notbugs.report.results import StudyResults
    from notbugs.review import answers, sample

    drawn = sample.draw_sample(folder, sets=[name.strip() for name in sets.split(",")], count=count, seed=seed)
    write_alone(folder / "review", "RUN")  # the key and the page of one call
    sample.save_key(folder, drawn)
    list_files_in(TABLE)
    print_notes()
    say(write_page(folder, drawn))
    if answers.load_answers(folder):
        results = StudyResults.read(folder)
        print_findings(findings(results))
        columns, rows = tables.review_table(results)
        print_table("Accuracy of people, in percent [95 % CI]", columns[:5], [row[:5] for row in rows])
        print_report(folder)
