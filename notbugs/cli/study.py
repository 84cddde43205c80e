"""Commands on a data set: the whole study, parts of it, file scores, one classifier trained."""

import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notbugs.cli.console import (
    How,
    accuracy_line,
    command_line,
    print_list_of_runs,
    progress,
    study_config,
)
from notbugs.cli.dry_run import DryRun, print_plan
from notbugs.cli.earlier import command_again, continued, earlier_study, taken_over
from notbugs.cli.files import files_config, split_files
from notbugs.cli.options import (
    NO_OPTIONS,
    Bf16,
    ClassMap,
    Compile,
    DataOptions,
    DatasetArgument,
    Device,
    Epochs,
    Epsilon,
    ExecutorName,
    Folds,
    HeadOnly,
    Layer,
    Network,
    Norm,
    Out,
    OutputNames,
    Pictures,
    Pretrained,
    Repeats,
    RobustModel,
    RobustStrong,
    Seed,
    SubsetRegression,
    Versions,
    Width,
    Workers,
    Write,
    with_data_options,
)
from notbugs.cli.say import say
from notbugs.cli.study_options import (
    AdaptBatchnorm,
    AdversarialSteps,
    BatchSize,
    ByFile,
    EarlierDataset,
    Flip,
    Full,
    GivenModel,
    InvertStart,
    InvertSteps,
    LearningRate,
    ListedFiles,
    Patience,
    RelabelEpsilon,
    RelabelLearningRate,
    RelabelReach,
    RelabelSteps,
    RelabelTranslate,
    Replicate,
    Seeds,
    StratifiedTargets,
    Top,
    Translate,
    WeightDecay,
)
from notbugs.cli.study_progress import finding_lines, study_progress
from notbugs.cli.study_summary import print_summary
from notbugs.errors import InputError

ATTACKED_IMAGES = 100  # test images at most on which `split` attacks the models that it constructs with

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

    Where --out holds a study, it goes on: options that are left out are as in its run.json.
    """
    options = {**{name: value for name, value in locals().items() if name not in ("context", "data_options")}, **data_options}
    sources = {name: context.get_parameter_source(name) for name in options}
    given = [name for name, source in sources.items() if source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")]
    how = How(workers, executor, device)
    if earlier := earlier_study(out):
        _continue_study(earlier, options, given, how, dry_run)
        return
    if dataset is None:
        raise InputError("DATASET", "must be given", None, "only a study that goes on, in --out, has its own")
    (print_plan if dry_run else _study)(study_config(options), out, how)


@with_data_options
def split(
    dataset: DatasetArgument,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    seed: Seed = 0,
    network: Network = None,
    pretrained: Pretrained = False,
    head_only: HeadOnly = False,
    layer: Layer = None,
    robust_model: RobustModel = None,
    width: Width = None,
    epochs: Epochs = None,
    flip: Flip = None,
    versions: Versions = 1,
    robust_strong: RobustStrong = False,
    by_file: ByFile = False,
    top: Top = 0.5,
    folds: Folds = 3,
    repeats: Repeats = 3,
    subset_regression: SubsetRegression = 0,
    pictures: Pictures = 1000,
    files: ListedFiles = None,
    data_options: DataOptions = NO_OPTIONS,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
    workers: Workers = None,
    executor: ExecutorName = None,
    write: Write = None,
    dry_run: DryRun = False,
) -> None:
    """The robust and the non-robust version of a data set.

    D_R and D_NR, file for file, in FOLDER/datasets.

    With --versions each file has several versions: cat.png, cat~2.png, and so on.

    Train on either with your own code. `notbugs run --out FOLDER` continues to the whole study.
    With --by-file the files with the highest and the lowest rank (robustness, or subset_regression) become two subsets.
    With --files LIST the listed training files become one subset, all others another.
    Either copies the files as they are, in their original size and format.
    """
    config, how = study_config({**locals(), **data_options, "seeds": 1}), How(workers, executor, device)
    if by_file or files:
        option = "--by-file" if by_file else "--files"
        if versions != 1:
            raise InputError("--versions", f"cannot be used with {option}, which changes no image", versions)
        speed = "--bf16, --compile", bf16 is not None or compile
        for name, value in (speed, ("--robust-strong", robust_strong), ("--robust-model", robust_model), ("--dry-run", dry_run)):
            if value:
                raise InputError(name, f"cannot be used with {option}", value)
        split_files(files_config(config, folds, repeats, subset_regression, pictures), out, how, files, top if by_file else None)
        return
    if subset_regression:
        raise InputError("--subset-regression", "ranks files: it needs --by-file", subset_regression)
    from notbugs.runs.tables.study import SetRow
    from notbugs.study.store import dataset_path

    names = ("robust", "nonrobust", *(("robust-strong",) if robust_strong else ()))
    stages = [f"dataset-{name}" for name in names]
    if dry_run:
        print_plan(config, out, how, only=stages)
        return
    record = _run(config, out, how, only=stages)
    _print_sources(config, record)
    rows = {row.set: row for row in record.rows(SetRow) if row.seed == seed}
    for name in names:
        path = dataset_path(config, out, seed, name)
        say(f"{name:13}  {rows[name].n} images, feature error {rows[name].feature_error:.3f}  {path}")
    _print_next(config, record)


def _print_next(config: "StudyConfig", record: "RunFolder") -> None:
    """How to measure what was trained on either version: on the same test images, at the same size, within the same epsilon."""
    from notbugs.data_config import asked_options
    from notbugs.runs.metadata import epsilon_text
    from notbugs.study.commands import command_with
    from notbugs.study.config import load
    from notbugs.study.epsilon import hardly_visible

    epsilon, by_distances = record.study().epsilon, record.study().settings.get("epsilon_from") == "gap"
    less = hardly_visible(load(config).train.shape, epsilon) if by_distances and config.norm == "l2" else None
    threats = tuple(f"{config.norm}:{epsilon_text(each)}" for each in (epsilon, epsilon / 2, *([less] if less else [])))
    options = {**asked_options(config.data), "epsilon": threats}
    options.pop("limit", None)  # of the test images that would be an eighth
    again = command_with("attack", ["MODEL", config.dataset], options)
    say(
        "Train on either: README.md beside the images has code. Then attack each model on the original test images:",
        f"  {again}",
        file=sys.stderr,
    )


def _print_sources(config: "StudyConfig", record: "RunFolder") -> None:
    """Accuracies of the two models that D_R and D_NR are made from, and warnings where the robust one may be too weak."""
    from notbugs import data, metrics
    from notbugs.report.findings.construction import not_more_robust, undecided_source, weak_source_warning
    from notbugs.search import NormBall
    from notbugs.study.config import load
    from notbugs.study.datasets import SOURCE_IMAGES
    from notbugs.study.store import load_model

    test, half = load(config).test, NormBall(config.norm, record.study().epsilon / 2)
    parts = [data.random_subset(test, count) for count in (SOURCE_IMAGES, ATTACKED_IMAGES)]
    clean, attacked = {}, {}
    for name in ("standard", "adversarial"):
        model = load_model(config, record.folder, config.seed, name)
        clean[name] = metrics.clean_accuracy(model, parts[0], device=config.device)
        attacked[name] = metrics.robust_accuracy(model, parts[1], [half], budget="quick", device=config.device)[1]
        for kind, found in (
            ("clean accuracy", clean[name]),
            (f"robust accuracy at {half} ({attacked[name].attack})", attacked[name]),
        ):
            interval = f"[{100 * found.ci_low:.1f}, {100 * found.ci_high:.1f}]"
            say(f"{name:13}  {kind} {100 * found.accuracy:.1f} % {interval} on {found.n} test images")
    chance, robust = test.labels.bincount().max().item() / len(test), clean["adversarial"]
    weak = weak_source_warning(robust.accuracy, robust.ci_low, chance, clean["standard"].accuracy)
    undecided = undecided_source(robust, chance, clean["standard"])
    for warning in filter(None, (weak, undecided, not_more_robust(attacked["adversarial"], attacked["standard"]))):
        say(f"notbugs: {warning}", file=sys.stderr)


@with_data_options
def train(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The weights, NAME.safetensors; NAME.json is written beside it.")],
    loss: Annotated[
        str, typer.Option(help="standard, adversarial (Madry et al. 2018) or trades (Zhang et al. 2019).")
    ] = "standard",
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    seed: Seed = 0,
    network: Network = None,
    pretrained: Pretrained = False,
    head_only: HeadOnly = False,
    robust_model: RobustModel = None,
    width: Width = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    optimizer: Annotated[
        str,
        typer.Option(
            help="adamw (warm-up, then linear decay), or sgd (momentum 0.9; the learning rate falls to a tenth after each third "
            "of the steps), as Ilyas et al. 2019."
        ),
    ] = "adamw",
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Highest learning rate. [default: by the images; with sgd 0.1, or 0.01 where weights are fine-tuned]"),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay. [default: by the images; with sgd 0.0005]")] = None,
    stop_early: Annotated[
        int | None,
        typer.Option(
            metavar="EPOCHS",
            help="Set a tenth of the training images aside, end once accuracy on them (with an adversarial loss: under PGD) has "
            "not risen for EPOCHS epochs, and take the best weights. Test images are not used.",
        ),
    ] = None,
    flip: Flip = None,
    data_options: DataOptions = NO_OPTIONS,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
) -> None:
    """Train one classifier, standard or robust.

    Prints its clean and robust accuracy. The same command goes on with a training that was stopped
    after its first 10 seconds.
    """
    from notbugs.study import pipeline

    if out.suffix != ".safetensors":
        raise InputError("--out", "must end in .safetensors", out)
    config = study_config({**locals(), **data_options})
    with progress() as report_progress:
        rows = pipeline.train_single(
            config, out, loss=loss, optimizer=optimizer, stop_early=stop_early, report_progress=report_progress
        )
    for line in _mirroring_lines(config):
        say(line, file=sys.stderr)
    for row in rows:
        threat = f"{row.norm} {row.epsilon:.4g}" if row.epsilon else "clean"
        say(accuracy_line(threat, row.accuracy, row.ci_low, row.ci_high, row.correct, row.n, row.attack))
    say(out)


def _mirroring_lines(config: "StudyConfig") -> Iterable[str]:
    """Why training did not mirror images, where that was measured."""
    from notbugs.datacheck import measure_mirroring
    from notbugs.datacheck.classes import mirroring_findings
    from notbugs.study.config import load
    from notbugs.study.resolve import flip_is_measured

    train = load(config).train
    measured = flip_is_measured(config.flip, config.dataset, train)
    return finding_lines(mirroring_findings(measure_mirroring(train), flips=False)) if measured else ()


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A folder of `notbugs run`, `files`, `attack --out` or `theory`.")
    ],
) -> None:
    """Write report.html of a run and the list of runs beside it."""
    from notbugs import report
    from notbugs.review import answers

    path = report.write(folder)
    answers.load_answers(folder)  # the page shows a warning if a file of answers is damaged; here it is an error
    say(path)
    print_list_of_runs(folder)


# ---- parts -------------------------------------------------------------------------------------------------------------------


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

    _run(config, out, how, asked=asked, command=command)
    page = report.write(out)
    print_summary(out, page)
    print_list_of_runs(out)


def _run(
    config: "StudyConfig",
    out: Path,
    how: How,
    only: Collection[str] | None = None,
    asked: "StudyConfig | None" = None,
    command: str = "",
) -> "RunFolder":
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
