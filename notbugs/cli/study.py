"""Commands on a data set: the whole study, parts of it, file scores, one classifier trained."""

import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from notbugs.cli.console import (
    accuracy_line,
    check_workers,
    command_line,
    print_findings,
    print_table,
    progress,
    study_config,
)
from notbugs.cli.options import (
    Bf16,
    Compile,
    DatasetArgument,
    Device,
    Epochs,
    Epsilon,
    Folds,
    Limit,
    Network,
    Norm,
    Out,
    Repeats,
    Resize,
    Seed,
    SkipUnreadable,
    Versions,
    Width,
    Workers,
)
from notbugs.cli.study_progress import study_progress
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.files import FilesConfig
    from notbugs.report.results import StudyResults
    from notbugs.runs.folder import RunFolder
    from notbugs.study.config import StudyConfig


RelabelEpsilon = Annotated[
    str | None,
    typer.Option(
        metavar="EPS", help="Epsilon of D_rand and D_det. [default: epsilon; in L2 twice that for simple images such as digits]"
    ),
]
Seeds = Annotated[int | None, typer.Option(help="Repeat everything with N seeds, for intervals. [default: 3 for digits, else 1]")]
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
Flip = Annotated[
    bool | None, typer.Option("--flip/--no-flip", help="Augmentation: random horizontal flips. [default: for color images]")
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
ByFile = Annotated[bool, typer.Option("--by-file", help="Change no image: sort the files by robustness, see `notbugs files`.")]
Top = Annotated[
    float, typer.Option(metavar="SHARE", help="With --by-file: the share of each class in either subset, in (0, 0.5].")
]


def demo(out: Out = Path("runs/demo"), device: Device = "auto", workers: Workers = None) -> None:
    """The whole study on 2,000 digits of MNIST, in a few minutes.

    The same as `notbugs run mnist5k --limit 2000 --out runs/demo`.
    """
    _study(study_config({"dataset": "mnist5k", "limit": 2000, "device": device}), out, workers)


def run(
    dataset: DatasetArgument,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    relabel_epsilon: RelabelEpsilon = None,
    seeds: Seeds = None,
    seed: Seed = 0,
    network: Network = None,
    width: Width = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    relabel_learning_rate: RelabelLearningRate = None,
    weight_decay: WeightDecay = None,
    translate: Translate = None,
    relabel_translate: RelabelTranslate = None,
    flip: Flip = None,
    adversarial_steps: AdversarialSteps = 3,
    invert_steps: InvertSteps = None,
    invert_start: InvertStart = "image",
    versions: Versions = 1,
    relabel_steps: RelabelSteps = 20,
    patience: Patience = None,
    full: Full = False,
    replicate: Replicate = False,
    resize: Resize = None,
    limit: Limit = None,
    skip_unreadable: SkipUnreadable = False,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """The whole study of a data set, with a report.

    Trains a standard and a robust classifier, attacks them, constructs D_R, D_NR, D_rand and D_det, trains on these, and reports.
    """
    _study(study_config(locals()), out, workers)


def split(
    dataset: DatasetArgument,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    seed: Seed = 0,
    network: Network = None,
    width: Width = None,
    epochs: Epochs = None,
    versions: Versions = 1,
    by_file: ByFile = False,
    top: Top = 0.5,
    folds: Folds = 3,
    repeats: Repeats = 3,
    resize: Resize = None,
    limit: Limit = None,
    skip_unreadable: SkipUnreadable = False,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """The robust and the non-robust version of a data set.

    D_R and D_NR, file for file, in FOLDER/datasets.

    With --versions each file has several versions: cat.png, cat~2.png, and so on.

    Train on either with your own code. `notbugs run` with the same options continues to the whole study.
    With --by-file the files with the highest and the lowest robustness become two subsets, class by class.
    """
    config = study_config({**locals(), "seeds": 1})
    if by_file:
        if bf16 is not None or compile:
            raise InputError("--bf16, --compile", "cannot be used with --by-file")
        if versions != 1:
            raise InputError("--versions", "cannot be used with --by-file, which changes no image", versions)
        _files(_files_config(config, folds, repeats), out, workers, top)
        return
    from notbugs.runs.tables import SetRow
    from notbugs.study.store import dataset_path

    record = _run(config, out, workers, only=("dataset-robust", "dataset-nonrobust"))
    rows = {row.set: row for row in record.rows(SetRow) if row.seed == seed}
    for name in ("robust", "nonrobust"):
        path = dataset_path(config, out, seed, name)
        print(f"{name:10}  {rows[name].n} images, feature error {rows[name].feature_error:.3f}  {path}")


def files(
    dataset: DatasetArgument,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    folds: Folds = 3,
    repeats: Repeats = 3,
    seed: Seed = 0,
    network: Network = None,
    width: Width = None,
    epochs: Epochs = None,
    resize: Resize = None,
    limit: Limit = None,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Scores for each training file, and spurious cues.

    By cross-fitted models: no file is scored by a model that was trained on it. Their accuracy comes first, then which files
    robust models classify correctly within epsilon, and likely label errors, unless the models are too weak to tell.
    `notbugs split --by-file` with the same options writes the most and the least robust files as two subsets.
    """
    _files(_files_config(study_config({**locals(), "seeds": 1}), folds, repeats), out, workers)


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
    resize: Resize = None,
    limit: Limit = None,
    skip_unreadable: SkipUnreadable = False,
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
    config = study_config(locals())
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
    """Write report.html of a run again."""
    from notbugs import report
    from notbugs.review import answers

    path = report.write(folder)
    answers.load_answers(folder)  # the page shows a warning if a file of answers is damaged; here it is an error
    print(path)


# ---- parts -------------------------------------------------------------------------------------------------------------------


def _files_config(config: "StudyConfig", folds: int, repeats: int) -> "FilesConfig":
    from notbugs.files import FilesConfig

    return FilesConfig(
        config.data,
        norm=config.norm,
        epsilon=config.epsilon,
        seed=config.seed,
        network=config.network,
        width=config.width,
        epochs=config.epochs,
        device=config.device,
        folds=folds,
        repeats=repeats,
    )


def _files(config: "FilesConfig", out: Path, workers: int | None, top: float | None = None) -> None:
    """Score the files of a data set and print a summary. top: also write that share of each class as two subsets."""
    from notbugs import files, report

    check_workers(workers)
    if top is not None:
        files.check_fraction(config, top)
    with progress() as report_progress:
        record = files.run(config, out, command=command_line(), workers=workers, report_progress=report_progress)
    _print_files(record)
    for subset in files.split_by_robustness(config, out, top) if top is not None else ():
        print(f"{subset.name:10}  {subset.files} files  {subset.folder}")
    seconds = record.files().seconds
    print(f"{seconds:.0f} s. The table: {out / 'tables' / 'files.csv'}. The report: {report.write(out)}")


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
    if metadata.data.note:
        print(metadata.data.note)
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


def _study(config: "StudyConfig", out: Path, workers: int | None) -> None:
    from notbugs import report
    from notbugs.report import tables
    from notbugs.report.findings import findings
    from notbugs.report.results import StudyResults

    record = _run(config, out, workers)
    page = report.write(out)
    results, metadata = StudyResults.read(out), record.study()
    print_findings(findings(results))
    (model, clean, *attacked, _), rows = tables.accuracy_table(results)
    columns = [model, clean, *(f"{results.norm} {column}" for column in attacked)]
    print_table(f"Accuracy on {metadata.data.test} test images [95 % CI]", columns, [row[:-1] for row in rows])
    for title, table in (
        (
            "Controls of the relabeled sets: test accuracy and excess over each control, in percent [95 % CI]",
            tables.controls_table,
        ),
        ("The paper's CIFAR-10 figures (L2, epsilon 0.25 and 0.5) and this run's, in percent", tables.compact_replication_table),
    ):
        columns, rows = table(results)
        if rows:
            print_table(title, columns, rows)
    for line in _next_steps(config, out, results):
        print(line)
    print(f"{metadata.seconds:.0f} s. The report: {page}")


def _next_steps(config: "StudyConfig", out: Path, results: "StudyResults") -> Iterator[str]:
    """What a user may do with a finished study, as commands with its own paths."""
    from notbugs.report.findings.construction import split_problems
    from notbugs.study.store import dataset_path

    metadata = results.metadata
    given = {"--limit": config.limit, "--resize": config.resize}
    data = shlex.join([config.dataset, *(word for name, value in given.items() if value for word in (name, str(value)))])
    same = _without_out(metadata.command) if metadata.command.startswith("notbugs run ") else f"notbugs run {data}"
    yield "What to do now:"
    if problem := split_problems(results):
        yield f"  improve D_R first: {problem}"
    yield f"  train your own network on D_R, in {dataset_path(config, out, config.seed, 'robust')}"
    if not problem and config.versions == 1:
        yield f"  try a D_R with four versions of each image: {same} --versions 4 --out {_beside(out, 'versions')}"
    epsilon = f"{config.norm}:{metadata.epsilon_text}"
    yield f"  attack your own classifier: notbugs attack MODEL {data} --epsilon {epsilon} --out {_beside(out, 'audit')}"
    yield f"  see robust files, non-robust files and likely label errors: notbugs files {data} --out {_beside(out, 'files')}"
    if not metadata.full:
        yield f"  rule out other explanations, with all controls: {same} --full --out {shlex.quote(str(out))}"


def _without_out(command: str) -> str:
    """A command as it was typed, but for its --out."""
    words = shlex.split(command)
    return shlex.join(word for before, word in zip(["", *words], words, strict=False)
                      if "--out" not in (before, word) and not word.startswith("--out="))  # fmt: skip


def _beside(out: Path, what: str) -> str:
    """A folder beside the study's own, for a further command."""
    return shlex.quote(str(out.with_name(f"{out.name}-{what}")))


def _run(config: "StudyConfig", out: Path, workers: int | None, only: Collection[str] | None = None) -> "RunFolder":
    from notbugs.study import pipeline

    check_workers(workers)
    with study_progress(epsilon_chosen=config.epsilon is not None) as display:
        return pipeline.run(
            config,
            out,
            only=only,
            command=command_line(),
            workers=workers,
            report_progress=display.on_progress,
            on_plan=display.on_plan,
            on_stage=display.on_stage,
        )
