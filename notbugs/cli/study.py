"""Commands on a data set: the whole study, parts of it, file scores, one classifier trained."""

import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notbugs.cli.console import (
    accuracy_line,
    check_workers,
    command_line,
    data_lines,
    print_list_of_runs,
    print_report,
    print_table,
    progress,
    study_config,
)
from notbugs.cli.earlier import command_again, continued, earlier_study, taken_over
from notbugs.cli.options import (
    DATASET_HELP,
    NO_OPTIONS,
    Bf16,
    Compile,
    DataOptions,
    DatasetArgument,
    Device,
    Epochs,
    Epsilon,
    Folds,
    Network,
    Norm,
    Out,
    Pictures,
    Repeats,
    Seed,
    Versions,
    Width,
    Workers,
    Write,
    with_data_options,
)
from notbugs.cli.study_progress import study_progress
from notbugs.cli.study_summary import print_summary
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.files import FilesConfig
    from notbugs.files.run import Subset
    from notbugs.runs.folder import RunFolder
    from notbugs.study.config import StudyConfig


RelabelEpsilon = Annotated[
    str | None,
    typer.Option(
        metavar="EPS", help="Epsilon of D_rand and D_det. [default: epsilon; in L2 twice that for simple images such as digits]"
    ),
]
RelabelReach = Annotated[
    float | None,
    typer.Option(
        help="Enlarge that ε by half, four times at most, while a smaller share of a set's images reaches its new label. "
        "[default: 0.7; 0 with --relabel-epsilon]",
    ),
]
Seeds = Annotated[int | None, typer.Option(help="Repeat everything with N seeds, for intervals. [default: 3 for digits, else 1]")]
EarlierDataset = Annotated[
    str | None, typer.Argument(metavar="DATASET", help=f"{DATASET_HELP} May be left out where a study in --out goes on.")
]
GivenModel = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Study a trained classifier of yours as the standard model, instead of one trained here. It needs gradients: a "
        ".safetensors file of notbugs, or module:function of your own, called with classes=K, that returns a PyTorch network.",
    ),
]
BatchSize = Annotated[int | None, typer.Option(help="Images per training step. [default: by the number of images]")]
LearningRate = Annotated[float | None, typer.Option(help="Highest learning rate of AdamW. [default: by the images]")]
RelabelLearningRate = Annotated[
    float | None, typer.Option(help="The same for training on relabeled sets. [default: by the images]")
]
WeightDecay = Annotated[float | None, typer.Option(help="Weight decay of AdamW. [default: by the images]")]
Translate = Annotated[
    int | None,
    typer.Option(help="Augmentation: random translations up to N pixels. [default: 1/8 of the height; 0 up to 16x16]"),
]
RelabelTranslate = Annotated[int | None, typer.Option(help="The same in training on relabeled sets. [default: 0; 3 for mnist5k]")]
AdaptBatchnorm = Annotated[
    bool | None,
    typer.Option(
        "--adapt-batchnorm/--no-adapt-batchnorm",
        help="After training on a relabeled set, take batch-norm statistics from the original training images, without labels. "
        "[default: no; yes for mnist5k]",
    ),
]
Flip = Annotated[
    bool | None,
    typer.Option(
        "--flip/--no-flip",
        help="Augmentation: random horizontal flips. [default: for color images, unless mirroring changes the class]",
    ),
]
AdversarialSteps = Annotated[int, typer.Option(help="PGD steps of adversarial training.")]
InvertSteps = Annotated[
    int | None,
    typer.Option(help="Steps of feature inversion (D_R, D_NR). [default: 40; 25 up to 16x16; 20 for mnist5k and planted]"),
]
InvertStart = Annotated[str, typer.Option(help="Where inversion starts: image (another training image) or noise.")]
RelabelSteps = Annotated[int, typer.Option(help="PGD steps of D_rand and D_det.")]
Patience = Annotated[
    int | None,
    typer.Option(
        help="Extra epochs for a relabeled set while accuracy is at chance level. [default: half the epochs, 8 or more]"
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help="Also all controls, transferability, and every model attacked on every set. Takes several times as long.",
    ),
]
Replicate = Annotated[
    bool,
    typer.Option("--replicate", help="--full, and all else that the paper measured on CIFAR-10, with its figures beside."),
]
StratifiedTargets = Annotated[
    bool,
    typer.Option(
        "--stratified-targets",
        help="Draw random labels so that each class is drawn equally often: with few images none is left out.",
    ),
]
ByFile = Annotated[bool, typer.Option("--by-file", help="Change no image: sort the files by robustness, see `notbugs files`.")]
ListedFiles = Annotated[
    Path | None,
    typer.Option(
        metavar="LIST",
        help="Change no image: write the training files in LIST and all others as two subsets. One name per line, as the report "
        "of `notbugs files` exports it.",
    ),
]
Top = Annotated[
    float, typer.Option(metavar="SHARE", help="With --by-file: the share of each class in either subset, in (0, 0.5].")
]


def demo(out: Out = Path("runs/demo"), device: Device = "auto", workers: Workers = None) -> None:
    """The whole study on 2,000 digits of MNIST, in a few minutes.

    The same as `notbugs run mnist5k --limit 2000 --out runs/demo`.
    """
    _study(study_config({"dataset": "mnist5k", "limit": 2000, "device": device}), out, workers)


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
    network: Network = None,
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
    relabel_steps: RelabelSteps = 20,
    patience: Patience = None,
    full: Full = False,
    replicate: Replicate = False,
    data_options: DataOptions = NO_OPTIONS,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
    workers: Workers = None,
    write: Write = None,
    stratified_targets: StratifiedTargets = False,
) -> None:
    """The whole study of a data set, with a report.

    Trains a standard and a robust classifier, attacks them, constructs D_R, D_NR, D_rand and D_det, trains on these, and reports.
    With --model the standard classifier is yours.

    Where --out holds a study, it goes on: options that are left out are as in its run.json.
    """
    options = {**{name: value for name, value in locals().items() if name not in ("context", "data_options")}, **data_options}
    given = [name for name in options if str(context.get_parameter_source(name)).endswith("COMMANDLINE")]
    if earlier := earlier_study(out):
        _continue_study(earlier, options, given, workers)
        return
    if dataset is None:
        raise InputError("DATASET", "must be given", None, "only a study that goes on, in --out, has its own")
    _study(study_config(options), out, workers)


@with_data_options
def split(
    dataset: DatasetArgument,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    seed: Seed = 0,
    network: Network = None,
    width: Width = None,
    epochs: Epochs = None,
    flip: Flip = None,
    versions: Versions = 1,
    by_file: ByFile = False,
    top: Top = 0.5,
    folds: Folds = 3,
    repeats: Repeats = 3,
    pictures: Pictures = 1000,
    files: ListedFiles = None,
    data_options: DataOptions = NO_OPTIONS,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
    workers: Workers = None,
    write: Write = None,
) -> None:
    """The robust and the non-robust version of a data set.

    D_R and D_NR, file for file, in FOLDER/datasets.

    With --versions each file has several versions: cat.png, cat~2.png, and so on.

    Train on either with your own code. `notbugs run --out FOLDER` continues to the whole study.
    With --by-file the files with the highest and the lowest robustness become two subsets, class by class.
    With --files LIST the listed training files become one subset, all others another.
    Either copies the files as they are, in their original size and format.
    """
    config = study_config({**locals(), **data_options, "seeds": 1})
    if by_file or files:
        option = "--by-file" if by_file else "--files"
        if bf16 is not None or compile:
            raise InputError("--bf16, --compile", f"cannot be used with {option}")
        if versions != 1:
            raise InputError("--versions", f"cannot be used with {option}, which changes no image", versions)
        _split_files(_files_config(config, folds, repeats, pictures), out, workers, files, top if by_file else None)
        return
    from notbugs.runs.tables import SetRow
    from notbugs.study.store import dataset_path

    record = _run(config, out, workers, only=("dataset-robust", "dataset-nonrobust"))
    rows = {row.set: row for row in record.rows(SetRow) if row.seed == seed}
    for name in ("robust", "nonrobust"):
        path = dataset_path(config, out, seed, name)
        print(f"{name:10}  {rows[name].n} images, feature error {rows[name].feature_error:.3f}  {path}")


@with_data_options
def files(
    dataset: DatasetArgument,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    folds: Folds = 3,
    repeats: Repeats = 3,
    pictures: Pictures = 1000,
    seed: Seed = 0,
    network: Network = None,
    width: Width = None,
    epochs: Epochs = None,
    flip: Flip = None,
    data_options: DataOptions = NO_OPTIONS,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Scores for each training file, and spurious cues.

    By cross-fitted models: no file is scored by a model that was trained on it. Their accuracy comes first, then which files
    robust models classify correctly within epsilon, and likely label errors, unless the models are too weak to tell.
    The report shows every file. It exports lists of files for `notbugs split --files`.
    `notbugs split --by-file` with the same options writes the most and the least robust files as two subsets.
    """
    _files(_files_config(study_config({**locals(), **data_options, "seeds": 1}), folds, repeats, pictures), out, workers)


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
    width: Width = None,
    epochs: Epochs = None,
    flip: Flip = None,
    data_options: DataOptions = NO_OPTIONS,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
) -> None:
    """Train one classifier, standard or robust.

    Prints its clean and robust accuracy.
    """
    from notbugs.study import pipeline

    if out.suffix != ".safetensors":
        raise InputError("--out", "must end in .safetensors", out)
    config = study_config({**locals(), **data_options})
    with progress() as report_progress:
        rows = pipeline.train_single(config, out, loss=loss, report_progress=report_progress)
    for row in rows:
        threat = f"{row.norm} {row.epsilon:.4g}" if row.epsilon else "clean"
        print(accuracy_line(threat, row.accuracy, row.ci_low, row.ci_high, row.correct, row.n, row.attack))
    print(out)


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
    print(path)
    print_list_of_runs(folder)


# ---- parts -------------------------------------------------------------------------------------------------------------------


def _files_config(config: "StudyConfig", folds: int, repeats: int, pictures: float) -> "FilesConfig":
    from notbugs.files import FilesConfig

    if not pictures >= 0:
        raise InputError("--pictures", "must be 0 or more", pictures)
    return FilesConfig(
        config.data,
        norm=config.norm,
        epsilon=config.epsilon,
        seed=config.seed,
        network=config.network,
        width=config.width,
        epochs=config.epochs,
        flip=config.flip,
        device=config.device,
        folds=folds,
        repeats=repeats,
        pictures=pictures,
        write=config.write,
    )


def _files(config: "FilesConfig", out: Path, workers: int | None, top: float | None = None) -> None:
    """Score the files of a data set and print a summary. top: also write that share of each class as two subsets."""
    from notbugs import files

    check_workers(workers)
    if top is not None:
        files.check_fraction(config, top)
    with progress() as report_progress:
        record = files.run(config, out, command=command_line(), workers=workers, report_progress=report_progress)
    _print_files(record)
    _print_subsets(files.split_by_robustness(config, out, top) if top is not None else ())
    seconds = record.files().seconds
    print_report(out, f"{seconds:.0f} s. The table: {out / 'tables' / 'files.csv'}. ")


def _split_files(config: "FilesConfig", out: Path, workers: int | None, listed: Path | None, top: float | None) -> None:
    """Write two subsets of the files: those in a list and all others, or by robustness."""
    from notbugs import files

    if listed is None:
        _files(config, out, workers, top)
    elif top is None:
        _print_subsets(files.split_by_list(config, listed, out))
    else:
        raise InputError("--files", "cannot be used with --by-file")


def _print_subsets(subsets: "Iterable[Subset]") -> None:
    for subset in subsets:
        print(f"{subset.name:10}  {subset.files} files  {subset.folder}")
        for note in subset.notes:
            print(f"{'':10}  {note}")


def _print_files(record: "RunFolder") -> None:
    """First what the models can do at all, then files and features by category, the rank, label errors, and spurious cues."""
    from notbugs.report import files_summary
    from notbugs.runs.tables import (
        CategoryRow,
        FeatureCategoryRow,
        FilePictureRow,
        FileRow,
        LabelErrorsRow,
        ModelAccuracyRow,
        SpuriousCueRow,
    )

    metadata, pictures, accuracies = record.files(), record.rows(FilePictureRow), record.rows(ModelAccuracyRow)
    for line in data_lines(metadata.data.notes, metadata.data.left_out):
        print(line)
    title = f"Models on {metadata.data.train} files that they were not trained on, within {metadata.threat} [95 % CI]"
    print_table(title, *files_summary.accuracy_table(accuracies))
    print(files_summary.robust_files(record.rows(FileRow), metadata.threat))
    for row in record.rows(CategoryRow):
        examples = [picture.file for picture in pictures if picture.category == row.category][:3]
        print(f"{row.category:20} {row.files:6} of {row.n} files   {', '.join(examples)}")
    print(files_summary.rank(record))
    for errors in record.rows(LabelErrorsRow):
        print(files_summary.label_errors(errors, accuracies))
    print(files_summary.feature_counts(record.rows(FeatureCategoryRow), metadata.threat))
    for cue in record.rows(SpuriousCueRow):
        if cue.spurious:
            print(
                f"spurious: {cue.name} {cue.sign} {cue.class_name}: usefulness {cue.usefulness:.2f} on training images, "
                f"{cue.test_usefulness:.2f} on test images"
            )


def _continue_study(earlier: "RunFolder", options: Mapping[str, Any], given: Collection[str], workers: int | None) -> None:
    """Go on with a study: what is not given is as it was, which is said."""
    now = study_config({**options, "dataset": options["dataset"] or earlier.study().dataset})
    config = continued(earlier, now, given)
    if taken := taken_over(earlier, given):
        print(f"As in {earlier.folder / 'run.json'}: {taken}", file=sys.stderr)
    _study(config, earlier.folder, workers, now, command_again(earlier, now))


def _study(config: "StudyConfig", out: Path, workers: int | None, asked: "StudyConfig | None" = None, command: str = "") -> None:
    """Do a study and print it. asked, command: for run.json, where a study goes on."""
    from notbugs import report

    _run(config, out, workers, asked=asked, command=command)
    page = report.write(out)
    print_summary(out, page)
    print_list_of_runs(out)


def _run(
    config: "StudyConfig",
    out: Path,
    workers: int | None,
    only: Collection[str] | None = None,
    asked: "StudyConfig | None" = None,
    command: str = "",
) -> "RunFolder":
    from notbugs.study import pipeline

    check_workers(workers)
    with study_progress(epsilon_chosen=config.epsilon is not None) as display:
        return pipeline.run(
            config,
            out,
            only=only,
            asked=asked,
            command=command or command_line(),
            workers=workers,
            report_progress=display.on_progress,
            on_plan=display.on_plan,
            on_stage=display.on_stage,
        )
