"""File scores as a command, and the two subsets that `notbugs split` makes of files."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from notbugs.cli.console import How, command_line, print_report, print_table, progress, study_config
from notbugs.cli.notes import TABLE, print_notes
from notbugs.cli.options import (
    NO_OPTIONS,
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
    Pictures,
    Pretrained,
    Repeats,
    Seed,
    SubsetRegression,
    Width,
    Workers,
    with_data_options,
)
from notbugs.cli.say import say
from notbugs.cli.study_options import Flip
from notbugs.cli.study_progress import finding_lines
from notbugs.errors import InputError

if TYPE_CHECKING:
    from notbugs.files import FilesConfig
    from notbugs.files.subsets import Subset
    from notbugs.runs.folder import RunFolder
    from notbugs.study.config import StudyConfig


@with_data_options
def files(
    dataset: DatasetArgument,
    out: Out,
    norm: Norm = "l2",
    epsilon: Epsilon = None,
    folds: Folds = 3,
    repeats: Repeats = 3,
    subset_regression: SubsetRegression = 0,
    pictures: Pictures = 1000,
    seed: Seed = 0,
    network: Network = None,
    pretrained: Pretrained = False,
    head_only: HeadOnly = False,
    layer: Layer = None,
    width: Width = None,
    epochs: Epochs = None,
    flip: Flip = None,
    data_options: DataOptions = NO_OPTIONS,
    device: Device = "auto",
    workers: Workers = None,
    executor: ExecutorName = None,
) -> None:
    """Scores for each training file, and spurious cues.

    By cross-fitted models: no file is scored by a model that was trained on it. Their accuracy comes first, then which files
    robust models classify correctly within epsilon, and likely label errors, unless the models are too weak to tell.
    The report shows every file. It exports lists of files for `notbugs split --files`.
    `notbugs split --by-file` with the same options writes the most and the least robust files as two subsets.
    """
    config = study_config({**locals(), **data_options, "seeds": 1})
    _files(files_config(config, folds, repeats, subset_regression, pictures), out, How(workers, executor, device))


def files_config(config: "StudyConfig", folds: int, repeats: int, subset_regression: int, pictures: float) -> "FilesConfig":
    """The configuration of file scores from that of a study and their own options."""
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
        pretrained=config.pretrained,
        head_only=config.head_only,
        layer=config.layer,
        device=config.device,
        folds=folds,
        repeats=repeats,
        subset_regression=subset_regression,
        pictures=pictures,
        write=config.write,
    )


def _files(config: "FilesConfig", out: Path, how: How, top: float | None = None) -> None:
    """Score the files of a data set and print a summary. top: also write that share of each class as two subsets."""
    from notbugs import files
    from notbugs.runs.tables.data_check import DataCheckRow

    how.check()
    if top is not None:
        files.check_fraction(config, top)
    with how.engine() as engine, progress(TABLE) as report_progress:
        command = command_line()
        record = files.run(config, out, command=command, workers=how.workers, engine=engine, report_progress=report_progress)
    for line in finding_lines(record.rows(DataCheckRow)):
        say(line, file=sys.stderr)
    _print_files(record)
    _print_subsets(files.split_by_robustness(config, out, top) if top is not None else ())
    seconds = record.files().seconds
    print_report(out, f"{seconds:.0f} s. The table: {out / 'tables' / 'files.csv'}. ")


def split_files(config: "FilesConfig", out: Path, how: How, listed: Path | None, top: float | None) -> None:
    """Write two subsets of the files: those in a list and all others, or by robustness."""
    from notbugs import files

    if listed is None:
        _files(config, out, how, top)
    elif top is None:
        subsets = files.split_by_list(config, listed, out)
        print_notes()
        _print_subsets(subsets)
    else:
        raise InputError("--files", "cannot be used with --by-file")


def _print_subsets(subsets: "Iterable[Subset]") -> None:
    for subset in subsets:
        say(f"{subset.name:10}  {subset.files} files  {subset.folder}")
        for note in subset.notes:
            say(f"{'':10}  {note}")


def _print_files(record: "RunFolder") -> None:
    """First what the models can do at all, then files and features by category, the rank, label errors, and spurious cues."""
    from notbugs.report import files_summary
    from notbugs.runs.tables.features import FeatureCategoryRow, SpuriousCueRow
    from notbugs.runs.tables.files import (
        CategoryRow,
        FilePictureRow,
        FileRow,
        LabelErrorsRow,
        ModelAccuracyRow,
        SubsetRegressionRow,
    )

    metadata, pictures, accuracies = record.files(), record.rows(FilePictureRow), record.rows(ModelAccuracyRow)
    title = f"Models on {metadata.data.train} files that they were not trained on, within {metadata.threat_model} [95 % CI]"
    print_table(title, *files_summary.accuracy_table(accuracies))
    say(files_summary.robust_files(record.rows(FileRow), metadata.threat_model))
    for row in record.rows(CategoryRow):
        examples = [picture.file for picture in pictures if picture.category == row.category][:3]
        say(f"{row.category:20} {row.files:6} of {row.n} files   {', '.join(examples)}")
    say(files_summary.rank(record))
    for regression in record.rows(SubsetRegressionRow):
        say(files_summary.subset_regression(regression))
    for errors in record.rows(LabelErrorsRow):
        say(files_summary.label_errors(errors, accuracies))
    say(files_summary.feature_counts(record.rows(FeatureCategoryRow), metadata.threat_model))
    for cue in record.rows(SpuriousCueRow):
        if cue.spurious:
            say(
                f"spurious: {cue.name} {cue.sign} {cue.class_name}: usefulness {cue.usefulness:.2f} on training images, "
                f"{cue.test_usefulness:.2f} on test images"
            )
