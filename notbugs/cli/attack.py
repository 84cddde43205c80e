"""`notbugs attack`: the robust accuracy of a classifier, with sanity checks, and the gate for pipelines."""

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from notbugs.cli.attack_summary import print_audit
from notbugs.cli.config_file import write_alone
from notbugs.cli.console import How, audit_config, command_line, print_conditions, print_report, progress
from notbugs.cli.gate_options import (
    NONE_GIVEN,
    GateOptions,
    Given,
    print_decision,
    required_rows,
    with_gate_options,
    with_required,
    write_files,
)
from notbugs.cli.notes import TABLE, print_notes, print_warnings
from notbugs.cli.options import (
    NO_MODEL_OPTIONS,
    NO_OPTIONS,
    AnyClassifier,
    DataOptions,
    DatasetArgument,
    Device,
    ExecutorName,
    Images,
    MaskFile,
    ModelOptions,
    OnlyClasses,
    Workers,
    with_data_options,
    with_model_options,
)
from notbugs.cli.say import say
from notbugs.cli.study_progress import duration, finding_lines
from notbugs.errors import InputError

STAGE_NAMES = {"checks": "sanity checks", "summary": "tables and pictures"}  # as a reader of the terminal knows them

if TYPE_CHECKING:
    from notbugs.audit import AuditConfig
    from notbugs.audit.cost import AuditPlan
    from notbugs.gate import Evaluation, Requirement
    from notbugs.runs.folder import RunFolder

AuditOut = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Keep the audit: report, tables, adversarial examples. Resumes a stopped audit."),
]
Threats = Annotated[
    list[str] | None,
    typer.Option(
        metavar="EPS",
        help="Threat model: 0.5 or 8/255 (in --norm), or l2:0.5, linf:8/255, l1:10, l0:1 (one pixel), spatial:30,3 (degrees, "
        "pixels), linf:8/255,0,0 (by channel), auto. May be repeated. [default: auto, what the model was trained with, else what "
        "suits the images; and half of it]",
    ),
]
DefaultNorm = Annotated[
    str | None,
    typer.Option(help="Norm of an EPS without one: l2, linf, l1 or l0. [default: what the model was trained with, else l2]"),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS",
        help="Targeted attacks: at this class, of which no image is then attacked; random or least-likely: at such a wrong "
        "class of each image; FILE.csv: at the class in a table with the columns file (or index) and target, only on images that "
        "it names. Success is only that the target is predicted. [default: any wrong class]",
    ),
]
OtherModels = Annotated[
    list[str] | None,
    typer.Option(metavar="MODEL", help="Another model of the same task, whose adversarial examples are tried. May be repeated."),
]
Budget = Annotated[str, typer.Option(help="Attack ensemble: quick, standard or thorough.")]


@with_data_options
@with_model_options
@with_gate_options
def attack(
    model: AnyClassifier,
    dataset: DatasetArgument,
    out: AuditOut = None,
    epsilon: Threats = None,
    norm: DefaultNorm = None,
    budget: Budget = "standard",
    images: Images = None,
    mask: MaskFile = None,
    target: Target = None,
    only_class: OnlyClasses = None,
    other: OtherModels = None,
    gate_options: Given = NONE_GIVEN,
    model_options: ModelOptions = NO_MODEL_OPTIONS,
    data_options: DataOptions = NO_OPTIONS,
    device: Device = "auto",
    workers: Workers = None,
    executor: ExecutorName = None,
) -> None:
    """Robust accuracy of a classifier, with sanity checks.

    Exit codes with --fail-under: 0 all that is required is met; 1 an accuracy is below, or too few images were attacked to
    show that it is not; 2 unusable input; 3 the accuracies cannot be trusted: a sanity check failed, or the time limit left
    too little to decide. Without --fail-under 0, or 3 where it left no image at all. Documentation: A gate for pipelines.
    """
    options = GateOptions.read(gate_options)
    config = audit_config(
        model,
        dataset,
        threats=with_required(options.requirements, _threats(epsilon or [], norm), norm),
        budget=budget,
        images=images,
        mask=mask,
        target=target,
        only_classes=only_class or (),
        others=other or (),
        model_options=model_options,
        data_options=data_options,
        device=device,
        executor=executor,
    )
    how = How(workers, executor, device)
    how.check()
    required = required_rows(options.requirements, config, norm)
    if options.dry_run:
        _print_plan(config, how, required, options, out)
        return
    code = _attack(config, how, required, options, out)
    if code:
        raise typer.Exit(code)


def _attack(
    config: "AuditConfig", how: How, required: Sequence[tuple["Requirement", str]], options: GateOptions, out: Path | None
) -> int:
    """Attack, print, write; the exit code."""
    import notbugs.audit as audit
    from notbugs import models
    from notbugs.audit.gate import evaluate
    from notbugs.runs.tables.data_check import DataCheckRow

    for form, path in options.files.items():
        models.check_writable(path)
        write_alone(path, f"--{form}")
    left = _TimeLeft(options.time_limit)
    with TemporaryDirectory() as temporary:
        with (
            how.engine() as engine,
            progress(TABLE if out else "", quiet=options.quiet, left=left, names=STAGE_NAMES) as report_progress,
        ):
            record = audit.run(
                config,
                out or Path(temporary) / "audit",
                command=command_line(),
                workers=how.workers,
                engine=engine,
                report_progress=report_progress,
                on_plan=None if options.quiet else left.start,
                time_limit=options.time_limit,
            )
        evaluation = evaluate(config, record, required, options.time_limit, options.accepted)
        if options.quiet:
            print_warnings([check.check for check in evaluation.decision.failed])
        else:
            print_notes()
            for line in finding_lines(record.rows(DataCheckRow), every=out is None):  # without --out no table is kept
                say(line, file=sys.stderr)
            print_audit(record, evaluation, verbose=options.verbose)
        print_decision(evaluation, quiet=options.quiet)
        write_files(options.files, evaluation)
        if out:
            _print_place(out, record, evaluation, quiet=options.quiet)
    return evaluation.decision.exit_code


class _TimeLeft:
    """How much longer an audit takes, once a stage of it is done."""

    def __init__(self, time_limit: float | None) -> None:
        self.time_limit, self.began = time_limit, 0.0
        self.shares: dict[str, float] = {}

    def start(self, found: "AuditPlan") -> None:
        """Before the first attack, print what is attacked, how long that may take, and if the time limit is shorter."""
        print_notes()
        of_all = "" if found.images == found.all_images else f" of {found.all_images:,}"
        say(f"{found.images:,}{of_all} test images, {', '.join(found.threats)}: {found.duration}.", file=sys.stderr)
        if self.time_limit is not None and self.time_limit < found.least_seconds:
            say("WARNING: --time-limit is shorter than that: images may be left out.", file=sys.stderr)
        self.began, self.shares = time.monotonic(), dict.fromkeys(found.stages, 0.0)

    def __call__(self, stage: str, share: float) -> str:
        """The time left, if each stage takes as long; "" before the first is done."""
        if stage in self.shares:
            self.shares[stage] = share
        done = sum(self.shares.values()) / max(len(self.shares), 1)
        if done == 1 or 1.0 not in self.shares.values():
            return ""
        elapsed = time.monotonic() - self.began
        left = elapsed * (1 - done) / done
        return f"{duration(left if self.time_limit is None else min(left, self.time_limit - elapsed))} left"


def _print_place(out: Path, record: "RunFolder", evaluation: "Evaluation", *, quiet: bool) -> None:
    """Write the report of a finished audit; say where it is."""
    from notbugs import report

    if not record.audit().finished:
        if not quiet:
            say(f"{out} is not finished and has no report yet: the same command resumes it")
    elif quiet:
        report.write(out)
    else:
        print_report(out, f"{evaluation.seconds:.0f} s. ")


def _print_plan(
    config: "AuditConfig",
    how: How,
    required: Sequence[tuple["Requirement", str]],
    options: GateOptions,
    out: Path | None,
) -> None:
    """What would be attacked, how long it would take, what would be required and written."""
    from notbugs.audit.cost import plan

    found = plan(config, how.workers)
    print_notes()
    say("Dry run: nothing is attacked or written.")
    say(f"{config.model} on {found.images} of {found.all_images} test images of {config.data.dataset}, {config.device}")
    print_conditions(found.conditions)
    for name, cost in found.threats.items():
        say(f"{name:14} {cost}")
    say(f"Time: {found.duration}")
    if options.time_limit is not None:
        say(f"At most {options.time_limit:g} s: --time-limit. {images_that_fit(found, options.time_limit)}")
    for requirement, threat in required:
        say(f"Required: {threat} with a 95 % CI of {100 * requirement.share:g} % or more, else exit code 1")
    for path in (*([out] if out else []), *options.files.values()):
        say(f"Would be written: {path}")


def images_that_fit(found: "AuditPlan", time_limit: float) -> str:
    """How many images to attack, so that a time limit is twice the longest time."""
    known = f", without {', '.join(found.not_counted)}, whose time is not known" if found.not_counted else ""
    if 2 * found.most_seconds <= time_limit:
        return f"That is at least twice the longest time{known}."
    if fit := found.images_within(time_limit / 2):
        return f"That is twice the longest time of --images {fit}{known}."
    one = found.fixed_seconds + (found.most_seconds - found.fixed_seconds) / found.images
    return f"That is too short: twice the longest time of the sanity checks and one image is {math.ceil(2 * one)} s{known}."


def _threats(epsilon: Sequence[str], norm: str | None) -> list[str]:
    """The threat models of --epsilon, each with its norm. Raises InputError for one that cannot be read."""
    from notbugs.audit.default_threats import AUTO, check_open, is_open
    from notbugs.search.threat_models import NORMS, parse_threat_model

    if norm is not None and norm not in NORMS:
        raise InputError("--norm", f"must be one of {', '.join(NORMS)}", repr(norm))
    given = epsilon or ([] if norm is None else [AUTO])
    threats = [text if ":" in text or norm is None else f"{norm}:{text}" for text in given]
    for text in threats:
        if is_open(text):
            check_open(text)
        else:
            parse_threat_model(text)
    return threats
