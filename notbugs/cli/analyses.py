"""Commands that go further: the theory, and what a finished study is asked about explanations, other changes, kernels, people."""

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notbugs.cli.console import parse_device, print_table, progress
from notbugs.cli.options import Limit, Resize, Seed, SkipUnreadable, Workers
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.audit import AuditConfig
    from notbugs.runs.folder import RunFolder

COLUMNS = {
    "κ": "condition",
    "least cosine": "least_cosine",
    "cosine": "cosine",
    "reads": "accuracy",
    "attacked": "attacked",
    "untrained": "plain_attacked",
    "κ, ε² mean": "budget_condition",
    "κ, ε each": "ball_condition",
}
Subject = Annotated[
    str,
    typer.Argument(metavar="RUN|MODEL", help="The folder of a study; or, with SOURCE, a model as `notbugs attack` takes it."),
]
Its = Annotated[str | None, typer.Argument(metavar="SOURCE", help="With a model: the images, as `notbugs run` takes them.")]
Own = Annotated[str | None, typer.Option(metavar="module:function", help="Your own network, if MODEL is one.")]
Study = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a study: what `notbugs run --out` wrote.")]


def theory(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the table and the interactive picture go.")] = Path(
        "runs/theory"
    ),
    mean: Annotated[str, typer.Option(metavar="M,…", help="Mean of the class +1, one number a dimension.")] = "-10,1",
    variances: Annotated[str, typer.Option(metavar="V,…", help="Variance of both classes along each dimension.")] = "25,0.5",
    epsilon: Annotated[str, typer.Option(metavar="R,…", help="L2 radii of robust training.")] = "0,0.1,0.5,1,2,5,10",
    samples: Annotated[int, typer.Option(help="Examples for adversarial training, beside the closed form; 0: none.")] = 20_000,
    seed: Seed = 0,
) -> None:
    """Two Gaussian classes: vulnerability, what robust training does, and why its gradients align (section 4 of the paper)."""
    import numpy as np

    from notbugs import __version__, report, theory
    from notbugs.runs.folder import RunFolder

    if samples < 0:
        raise InputError("--samples", "must be 0 or more", samples)
    means, spread, radii = numbers(mean, "--mean"), numbers(variances, "--variances"), numbers(epsilon, "--epsilon")
    if len(means) != len(spread):
        raise InputError("--variances", f"must be as many as --mean, {len(means)}", len(spread))
    if min(spread) <= 0:
        raise InputError("--variances", "must be above 0", variances)
    if not 0 <= min(radii) <= max(radii) <= theory.LARGEST:
        raise InputError("--epsilon", f"must be 0 or more, at most {theory.LARGEST:g}", epsilon)
    if samples and samples <= len(means) + 1:
        raise InputError("--samples", f"must be 0, or more than {len(means) + 1} in {len(means)} dimensions", samples)
    if seed < 0:
        raise InputError("--seed", "must be 0 or more", seed)
    world = theory.Gaussians(np.array(means), np.array(spread))
    theory.accuracy(world, world)  # classes that do not differ fail before anything is written
    asked = {"kind": "theory", "mean": means, "variances": spread, "epsilon": radii, "samples": samples, "seed": seed}
    with RunFolder.open(out, asked) as record:
        if not record.done("theory"):
            began = time.perf_counter()
            rows = theory.table(world, radii, samples=samples, seed=seed)
            record.record_stage("theory", time.perf_counter() - began, {"theory": rows})
            record.update_metadata(
                kind="theory", notbugs=__version__, command=shlex.join(["notbugs", *sys.argv[1:]]), finished=True
            )
    heads, names = zip(*COLUMNS.items(), strict=True)
    lines = [
        [f"{row['epsilon']:g}", *(_figure(float(row[name])) for name in names if row.get(name, "") != "")]
        for row in record.table("theory")
    ]
    print_table("Robust training of two Gaussian classes; last, by adversarial training", ["ε", *heads][: len(lines[0])], lines)
    print(f"The report: {report.write(out)}")


def explain(
    subject: Subject,
    source: Its = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="With a model: a row a test image, and FILE.png, gradients of a few.")
    ] = None,
    network: Own = None,
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipUnreadable = False,
    seed: Seed = 0,
    workers: Workers = None,
) -> None:
    """What a classifier looks at: gradients, are they its reasons, and would a person call them so. Of a study, side by side."""
    from notbugs.report.findings import analyses

    title = "What explanations show [95 % interval]"
    if source is None:
        _run_and_print(Path(subject), ("explanations",), workers, title, analyses.saliency_table)
        return
    from notbugs import data
    from notbugs.audit import config
    from notbugs.models import black_box
    from notbugs.runs import folder
    from notbugs.study import analyses as study_analyses
    from notbugs.study.config import StudyConfig, load

    asked, view = _load_classifier(subject, source, out, network, resize, limit, skip_bad)
    if isinstance(view, black_box.BlackBox):
        raise InputError(subject, "must be a torch network: what has no gradients has none to show")
    splits = load(StudyConfig(source, resize=resize, limit=limit, skip_bad=skip_bad))
    with config.blame_failing_image(view, splits.test, asked.device):
        found = study_analyses.classifier_saliency(view, splits, seed=seed, device=asked.device)
    print_table(title, analyses.SALIENCY_COLUMNS, analyses.saliency_lines(found.rows))
    if out is not None:
        folder.write_atomic(out, folder.as_csv(found.files))
        data.save_image(found.sheet, out.with_suffix(".png"))
        print(f"{out}\n{out.with_suffix('.png')}: an image of each class, its gradient, its integrated gradient")


def corruptions(
    subject: Subject,
    source: Its = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="With a model: keep the table, and FILE-frequencies.csv beside it.")
    ] = None,
    network: Own = None,
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipUnreadable = False,
    seed: Seed = 0,
    workers: Workers = None,
) -> None:
    """Noise, blur, fog, contrast and JPEG, at five severities: every model that a study has by then, or one of your own.

    And which spatial frequencies mislead them.
    """
    from notbugs.report.findings import analyses

    if source is None:
        title = "Test images read, mean over five severities"
        _run_and_print(Path(subject), ("corruptions", "frequencies"), workers, title, analyses.corruptions_table)
        print_table("Test images misread with one wave added, mean over waves", *analyses.fourier_table(_open(Path(subject))))
        return
    from notbugs import metrics
    from notbugs.audit import config
    from notbugs.data import subset
    from notbugs.runs import folder
    from notbugs.study import analyses as study_analyses

    asked, view = _load_classifier(subject, source, out, network, resize, limit, skip_bad)
    part = config.test_part(asked)[0]
    rows = metrics.corruption_accuracy(view, part, seed=seed, device=asked.device).rows
    kinds = dict.fromkeys(row["corruption"] for row in rows)
    lines = [
        [
            kind,
            *(
                f"{100 * row['accuracy']:.1f} % [{100 * row['low']:.1f}–{100 * row['high']:.1f}]"
                for row in rows
                if row["corruption"] == kind
            ),
        ]
        for kind in kinds
    ]
    print_table(f"What it reads of {len(part)} test images [95 % interval]", ["severity", "1", "2", "3", "4", "5"], lines)
    waved = metrics.fourier_sensitivity(
        view, part.select(subset.balanced(part.labels, study_analyses.FOURIER_IMAGES)), seed=seed, device=asked.device
    )
    print_table(
        "Misread with one wave added, mean over waves",
        ["slow waves, up to half of the fastest", "fast waves"],
        [analyses.low_and_high(waved)],
    )
    if out is not None:
        folder.write_atomic(out, folder.as_csv(rows))
        folder.write_atomic(out.with_name(f"{out.stem}-frequencies.csv"), folder.as_csv(waved))
        print(out)


def _load_classifier(
    subject: str, source: str, out: Path | None, network: str | None, resize: int | None, limit: int | None, skip_bad: bool
) -> tuple["AuditConfig", Any]:
    """What is asked of a classifier of the user's own, and the classifier ready to be looked at."""
    from notbugs import models
    from notbugs.audit import AuditConfig, config

    if out is not None:
        models.check_writable(out)
    asked = AuditConfig(subject, source, (), "quick", None, (), network, resize, limit, skip_bad, parse_device("auto"))
    return asked, config.search_copy(asked, subject)


def ntk(folder: Study, workers: Workers = None) -> None:
    """Features before any training: eigenvectors of a wide network's kernel on a study's images, useful and robust or not."""
    from notbugs.report.findings import analyses

    _run_and_print(folder, ("kernel",), workers, "Regression on the first eigenvectors [95 % interval]", analyses.ntk_table)


def review(
    folder: Study,
    count: Annotated[
        int, typer.Option(help="Images of each set: with 35 or fewer, even those who read all cannot show that a set is fair.")
    ] = 50,
    sets: Annotated[
        str, typer.Option(metavar="SET,…", help="original, or names in the study's datasets/.")
    ] = "original,robust,nonrobust",
    seed: Seed = 0,
) -> None:
    """A page on which people say what they see in blinded images of each set; what they answered, once their exports are back.

    Open RUN/review/review.html in a browser, export the answers, put the file into RUN/review and give the command again.
    """
    from notbugs import report
    from notbugs.report.findings import analyses
    from notbugs.review import answers

    print(answers.write_page(folder, sets=[name.strip() for name in sets.split(",")], count=count, seed=seed))
    record = _open(folder)
    if answers.load_answers(folder):
        for finding in analyses.review_findings(record):
            print(f"• {finding.question} {finding.verdict}. {finding.text}")
        heads, lines = analyses.review_table(record)
        print_table("What people see, in percent [95 % interval]", heads[:5], [line[:5] for line in lines])
        print(f"The report: {report.write(folder)}")


def _run_and_print(
    folder: Path,
    stages: tuple[str, ...],
    workers: int | None,
    title: str,
    table: Callable[["RunFolder"], tuple[list[str], list[list[str]]]],
) -> None:
    from notbugs import report
    from notbugs.report.findings import analyses
    from notbugs.study import pipeline

    if workers is not None and workers < 1:
        raise InputError("--workers", "must be 1 or more", workers)
    before = {finding.text for finding in analyses.findings(_open(folder))}
    with progress() as report_progress:
        record = pipeline.run_analyses(folder, stages, workers=workers, report_progress=report_progress)
    found = analyses.findings(record)
    fresh = [finding for finding in found if finding.text not in before]
    for finding in fresh or found:
        print(f"• {finding.question} {finding.verdict}. {finding.text}")
    print_table(title, *table(record))
    print(f"The report: {report.write(folder)}")


def _open(folder: Path) -> "RunFolder":
    from notbugs.runs.folder import RunFolder

    return RunFolder.read(folder)


def _figure(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.0e}" if value else "0"


def numbers(text: str, option: str) -> list[float]:
    """ "25, 0.5" -> [25.0, 0.5]; raises BadInput for anything else."""
    try:
        found: list[Any] = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(option, "must be numbers with commas between them", repr(text)) from None
    return found
