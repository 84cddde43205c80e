"""Commands on a set of images: the whole study, parts of it, its files sorted, one classifier trained."""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notbugs.cli.console import config_from_options, print_table, progress
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
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.study.config import StudyConfig


def demo(out: Out = Path("runs/demo"), device: Device = "auto", workers: Workers = None) -> None:
    """The whole study on built-in data, scanned digits of 8x8 pixels: `notbugs run digits --out runs/demo`."""
    _study(config_from_options({"source": "digits", "device": device}), out, workers)


def run(
    source: DatasetArgument,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    relabel_epsilon: Annotated[
        str | None,
        typer.Option(
            metavar="R", help="How far relabelled images may go. [default: epsilon; twice that for images up to 16x16 in L2]"
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Do everything N times, for intervals. [default: 3 for digits, else 1]")
    ] = None,
    seed: Seed = 0,
    network: Network = None,
    width: Width = None,
    epochs: Epochs = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a training step. [default: by their number]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW, at its highest. [default: by the images]")] = None,
    relabel_learning_rate: Annotated[
        float | None, typer.Option(help="The same, for relabelled sets. [default: by the images]")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW. [default: by the images]")] = None,
    shift: Annotated[
        int | None,
        typer.Option(
            help="Move training images by up to so many pixels; 0: never. [default: an eighth of the height; 0 up to 16x16]"
        ),
    ] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror training images half the time. [default: if they have colour]")
    ] = None,
    adversarial_steps: Annotated[int, typer.Option(help="Attack steps inside adversarial training.")] = 3,
    invert_steps: Annotated[
        int | None,
        typer.Option(help="Steps of the robust and the non-robust version. [default: 40; 25 up to 16x16; 20 for planted]"),
    ] = None,
    invert_start: Annotated[str, typer.Option(help="What those versions grow from: another image, or noise.")] = "image",
    invert_times: Versions = 1,
    relabel_steps: Annotated[int, typer.Option(help="Steps of the relabelled sets.")] = 20,
    patience: Annotated[int | None, typer.Option(help="Further epochs for relabelled sets that are still at chance.")] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Also what could refute it: all controls, transfer to other learners, every model on every set attacked.",
        ),
    ] = False,
    recipe: Annotated[
        str, typer.Option(metavar="paper", help="--full, and what else the paper measured on CIFAR-10, its figures beside these.")
    ] = "",
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipUnreadable = False,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """The whole study: train, attack, split, relabel, retrain, measure, report."""
    _study(config_from_options(locals()), out, workers)


def split(
    source: DatasetArgument,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    seed: Seed = 0,
    network: Network = None,
    width: Width = None,
    epochs: Epochs = None,
    invert_times: Versions = 1,
    by_file: Annotated[
        bool, typer.Option("--by-file", help="Leave the files as they are and sort them: see `notbugs files`.")
    ] = False,
    top: Annotated[
        float, typer.Option(metavar="SHARE", help="With --by-file: the share of each class that goes to either half.")
    ] = 0.5,
    folds: Folds = 3,
    repeats: Repeats = 3,
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipUnreadable = False,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Only the split: write the robust and the non-robust version of a set, file for file, to FOLDER/datasets.

    With --invert-times each file has several versions, from other starts: cat.png, cat~2.png, and so on.

    Train your own classifier on either with your own code. `notbugs run` with the same options goes on to the whole study.
    With --by-file no image is changed: the files that carry most and least robust evidence become two sets, class by class.
    """
    from notbugs.study.tasks import dataset_path

    if by_file:
        from notbugs import files

        if bf16 is not None or compile:
            raise InputError("--half, --compile", "cannot be used with --by-file")
        if invert_times != 1:
            raise InputError("--invert-times", "cannot be used with --by-file, which changes no image", invert_times)

        asked = files.FilesConfig(config_from_options({**locals(), "seeds": 1}), folds, repeats)
        _files(asked, out, workers, top)
        return

    plan = config_from_options({**locals(), "seeds": 1})
    record = _run(plan, out, workers, only=("set-robust", "set-nonrobust"))
    for row in (row for row in record.table("sets") if row["set"] in ("robust", "nonrobust") and row["seed"] == seed):
        print(
            f"{row['set']:10}  {row['n']} images, feature error {row['feature_error']:.3f}  "
            f"{dataset_path(plan, out, seed, str(row['set']))}"
        )


def files(
    source: DatasetArgument,
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
    skip_bad: SkipUnreadable = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Which training files carry robust and which non-robust evidence, which look mislabelled, and which cues are spurious.

    Every file is judged by models that were not trained on it. `notbugs split --by-file` with the same options writes the halves.
    """
    from notbugs import files

    _files(files.FilesConfig(config_from_options({**locals(), "seeds": 1}), folds, repeats), out, workers)


def train(
    source: DatasetArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the weights go: NAME.safetensors; NAME.json beside it.")],
    loss: Annotated[str, typer.Option(help="plain, adversarial (Madry et al. 2018) or trades (Zhang et al. 2019).")] = "plain",
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    seed: Seed = 0,
    network: Network = None,
    width: Width = None,
    epochs: Epochs = None,
    resize: Resize = None,
    limit: Limit = None,
    skip_bad: SkipUnreadable = False,
    bf16: Bf16 = None,
    compile: Compile = False,
    device: Device = "auto",
) -> None:
    """Train one classifier, ordinary or robust, and say how easily it is fooled."""
    from notbugs.study import pipeline

    if out.suffix != ".safetensors":
        raise InputError("--out", "must end in .safetensors", out)
    plan = config_from_options(locals())
    with progress() as report_progress:
        _accuracy(pipeline.train_single(plan, out, loss=loss, report_progress=report_progress))
    print(out)


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `notbugs run`, `files` or `attack --out` wrote.")],
) -> None:
    """Write report.html of a study, an audit or sorted files anew."""
    from notbugs import report
    from notbugs.review import answers

    path = report.write(folder)
    answers.load_answers(folder)  # the page has a warning where a file of theirs is wrong; here it is an error
    print(path)


def _files(asked: Any, out: Path, workers: int | None, top: float | None = None) -> None:
    """Score the files of a set and say in short what came out. top: also write so large a share of either end as two sets."""
    from notbugs import files, report
    from notbugs.files.run import check_fraction

    if workers is not None and workers < 1:
        raise InputError("--workers", "must be 1 or more", workers)
    if top is not None:
        check_fraction(asked, top)
    with progress() as report_progress:
        record = files.run(
            asked, out, command=shlex.join(["notbugs", *sys.argv[1:]]), workers=workers, report_progress=report_progress
        )
    if note := record.metadata["data"]["note"]:
        print(note)
    for row in record.table("kinds"):
        shown = [picture["file"] for picture in record.table("pictures") if picture["kind"] == row["kind"]][:3]
        print(f"{row['kind']:20} {row['files']:6} of {row['n']} files   {', '.join(map(str, shown))}")
    if record.metadata["steadiness"] is not None:
        print(f"steadiness: another such run would rank the files alike to {record.metadata['steadiness']:.2f} (Spearman)")
    words = [row["word"] for row in record.table("words")]
    counts = (f"{words.count(word)} {word}" for word in ("robust", "non-robust", "spurious", "useless"))
    print(f"features, by the versions and the test part: {', '.join(counts)}")
    for row in record.table("cues"):
        if row["spurious"]:
            print(
                f"spurious: {row['name']} {row['speaks']} {row['class']}: usefulness {float(row['usefulness']):.2f} in training, "
                f"{float(row['test_usefulness']):.2f} on the test part"
            )
    for name, place, count in files.split(asked, out, top) if top is not None else ():
        print(f"{name:10}  {count} files  {place}")
    print(f"{record.metadata['seconds']:.0f} s. The table: {out / 'tables' / 'files.csv'}. The report: {report.write(out)}")


def _study(plan: "StudyConfig", out: Path, workers: int | None) -> None:
    from rich.console import Console

    from notbugs import report
    from notbugs.report import results
    from notbugs.report.findings import controls, main, replication

    record = _run(plan, out, workers)
    page = report.write(out)
    for sentence in main.headline(record):
        Console().print(f"• {sentence}", highlight=False, markup=False)
    columns, rows = results.accuracy_table(record)
    images = f"{record.metadata['data']['test']} test images"
    print_table(f"What each classifier reads of {images} [95 % interval]", columns[:-1], [row[:-1] for row in rows])
    if lines := controls.controls_table(record):
        title = "What the controls of relabelled sets read in percent, and the excess over each [95 % interval]"
        again = [bool(place) and lines[place - 1].result == line.result for place, line in enumerate(lines)]
        shown = [("" if known else line.result, *line[1:]) for known, line in zip(again, lines, strict=True)]
        print_table(title, ["trained on", "control", "reads", "excess"], shown)
    if (compared := replication.compact_table(record))[1]:
        print_table("Beside the paper’s CIFAR-10 (L2 0.25 and 0.5), in percent: unchanged/half the radius/the radius", *compared)
    print(f"{record.metadata['seconds']:.0f} s. The report: {page}")


def _run(plan: "StudyConfig", out: Path, workers: int | None, only: tuple[str, ...] | None = None) -> Any:
    from notbugs.study import pipeline

    command = shlex.join(["notbugs", *sys.argv[1:]])
    if workers is not None and workers < 1:
        raise InputError("--workers", "must be 1 or more", workers)
    with progress() as report_progress:
        return pipeline.run(plan, out, only=only, command=command, workers=workers, report_progress=report_progress)


def _accuracy(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        where = "unchanged" if not row["epsilon"] else f"{row['norm']} {row['epsilon']:.4g}"
        print(
            f"{where:14} {100 * row['accuracy']:5.1f} %  [{100 * row['low']:.1f}–{100 * row['high']:.1f}]  "
            f"{row['correct']} of {row['n']}  {row['attack']}"
        )
