"""`notbugs run` and `notbugs demo`: the whole study of a data set."""

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from notbugs.cli.config_file import source_of
from notbugs.cli.console import How, command_line, print_list_of_runs, study_config
from notbugs.cli.dry_run import DryRun, print_plan
from notbugs.cli.earlier import command_again, continued, earlier_study, taken_over
from notbugs.cli.options import (
    NO_OPTIONS,
    Bf16,
    ClassMap,
    Compile,
    DataOptions,
    Device,
    Epochs,
    Epsilon,
    ExecutorName,
    HeadOnly,
    Layer,
    Network,
    Norm,
    Out,
    OutputNames,
    Pretrained,
    RobustModel,
    RobustStrong,
    Seed,
    Versions,
    Width,
    Workers,
    Write,
    with_data_options,
)
from notbugs.cli.say import say
from notbugs.cli.study_options import (
    AdaptBatchnorm,
    AdversarialNoise,
    AdversarialSteps,
    BatchSize,
    EarlierDataset,
    Flip,
    Full,
    GivenModel,
    InvertStart,
    InvertSteps,
    LearningRate,
    Patience,
    RelabelEpsilon,
    RelabelLearningRate,
    RelabelReach,
    RelabelSteps,
    RelabelTranslate,
    Replicate,
    Seeds,
    StratifiedTargets,
    Translate,
    WeightDecay,
)
from notbugs.cli.study_progress import study_progress
from notbugs.cli.study_summary import print_summary
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.runs.folder import RunFolder
    from notbugs.study.config import StudyConfig


def demo(out: Out = Path("runs/demo"), device: Device = "auto", workers: Workers = None, executor: ExecutorName = None) -> None:
    """The whole study on 2,000 digits of MNIST, in a few minutes.

    The same as `notbugs run mnist5k --limit 2000 --out runs/demo`.
    """
    config = study_config({"dataset": "mnist5k", "limit": 2000, "device": device, "executor": executor})
    _study(config, out, How(workers, executor, device))


@with_data_options
def run(
    context: typer.Context,
    out: Out,
    dataset: EarlierDataset = None,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    relabel_epsilon: RelabelEpsilon = None,
    relabel_reach: RelabelReach = None,
    seeds: Seeds = None,
    seed: Seed = 0,
    model: GivenModel = None,
    classes: OutputNames = None,
    class_map: ClassMap = None,
    layer: Layer = None,
    network: Network = None,
    pretrained: Pretrained = False,
    head_only: HeadOnly = False,
    robust_model: RobustModel = None,
    width: Width = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    relabel_learning_rate: RelabelLearningRate = None,
    weight_decay: WeightDecay = None,
    translate: Translate = None,
    relabel_translate: RelabelTranslate = None,
    adapt_batchnorm: AdaptBatchnorm = None,
    flip: Flip = None,
    adversarial_steps: AdversarialSteps = 3,
    adversarial_noise: AdversarialNoise = None,
    invert_steps: InvertSteps = None,
    invert_start: InvertStart = "image",
    versions: Versions = 1,
    robust_strong: RobustStrong = False,
    relabel_steps: RelabelSteps = 20,
    patience: Patience = None,
    full: Full = False,
    replicate: Replicate = False,
    data_options: DataOptions = NO_OPTIONS,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
    workers: Workers = None,
    executor: ExecutorName = None,
    write: Write = None,
    stratified_targets: StratifiedTargets = False,
    dry_run: DryRun = False,
) -> None:
    """The whole study of a data set, with a report.

    Trains a standard and a robust classifier, attacks them, constructs D_R, D_NR, D_rand and D_det, trains on these, and reports.
    With --model the standard classifier is yours.

    A study in --out is resumed: options that are left out are as in its run.json.
    """
    options = {**{name: value for name, value in locals().items() if name not in ("context", "data_options")}, **data_options}
    given = [name for name in options if source_of(context, name) in ("COMMANDLINE", "DEFAULT_MAP")]
    how = How(workers, executor, device)
    if earlier := earlier_study(out):
        _continue_study(earlier, options, given, how, dry_run)
        return
    if dataset is None:
        raise InputError("DATASET", "must be given", None, "only a study in --out that is resumed has its own")
    (print_plan if dry_run else _study)(study_config(options), out, how)


def _continue_study(earlier: "RunFolder", options: Mapping[str, Any], given: Collection[str], how: How, dry_run: bool) -> None:
    """Go on with a study: what is not given is as it was, which is said."""
    now = study_config({**options, "dataset": options["dataset"] or earlier.study().dataset})
    config = continued(earlier, now, given)
    if taken := taken_over(earlier, given):
        say(f"As in {earlier.folder / 'run.json'}: {taken}", file=sys.stderr)
    if dry_run:
        print_plan(config, earlier.folder, how)
        return
    _study(config, earlier.folder, how, now, command_again(earlier, now))


def _study(config: "StudyConfig", out: Path, how: How, asked: "StudyConfig | None" = None, command: str = "") -> None:
    """Do a study and print it. asked, command: for run.json, where a study goes on."""
    from notbugs import report

    do_stages(config, out, how, asked=asked, command=command)
    page = report.write(out)
    print_summary(out, page)
    print_list_of_runs(out)


def do_stages(
    config: "StudyConfig",
    out: Path,
    how: How,
    only: Collection[str] | None = None,
    asked: "StudyConfig | None" = None,
    command: str = "",
) -> "RunFolder":
    """Do a study, or only some stages of it with all that they need, and show the progress."""
    from notbugs.runs.scheduler import default_workers
    from notbugs.runs.workers import start_server
    from notbugs.study import pipeline

    with how.engine() as engine, study_progress() as display:
        if engine is None:  # the server imports torch while the data are read
            start_server(how.workers or default_workers(config.device))
        return pipeline.run(
            config,
            out,
            only=only,
            asked=asked,
            command=command or command_line(),
            workers=how.workers,
            engine=engine,
            report_progress=display.on_progress,
            on_plan=display.on_plan,
            on_stage=display.on_stage,
        )
