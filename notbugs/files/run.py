"""A run of file scores: a data set in, a run folder with one row per file out.

Each fold of each repetition is a stage, and so are the features; what is finished is not done again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from notbugs import data, datacheck
from notbugs.atomic import StrPath
from notbugs.data import Dataset, Splits
from notbugs.data.load import fingerprint
from notbugs.data_config import check_outside
from notbugs.errors import InputError
from notbugs.files import robustness, score_coordinates, scores, subset_pairs, subset_regression
from notbugs.files.columns import CATEGORIES, COLUMNS
from notbugs.files.config import (
    PARTS,
    FilesConfig,
    crossfit_config,
    examples_path,
    fold_path,
    load_splits,
    pair_path,
    resumable_arguments,
    written_form,
)
from notbugs.files.crossfit import CrossfitConfig, fold_seed, merge_folds, score_fold, stratified_folds
from notbugs.files.explorer import explorer_stage, keeps_pictures, of_fold, prediction_rows
from notbugs.files.features import features_stage
from notbugs.files.fold_scores import FoldScores
from notbugs.files.subsets import remove_subsets
from notbugs.models.notes import keeping_notes
from notbugs.runs.attempts import Attempt
from notbugs.runs.engine import Engine, Progress
from notbugs.runs.folder import RunFolder, common_metadata, write_table
from notbugs.runs.runner import Stage, check_same_data, describe_device, on_device, run_stages
from notbugs.runs.scheduler import describe_machine
from notbugs.runs.tables.files import (
    CategoryRow,
    ColumnRow,
    FilePictureRow,
    FileRow,
    SubsetPairRow,
    SubsetRegressionRow,
    SubsetRegressionWeightRow,
)
from notbugs.runs.tables.row import Row
from notbugs.study.resolve import check_size, flip_is_measured

MOST_REPEATS = 1000  # as stages are planned before any is done
PICTURED_FILES = 12  # of each category


@data.keeping_loads()
def run(
    config: FilesConfig,
    folder: StrPath,
    *,
    command: str = "",
    workers: int | None = None,
    engine: Engine | None = None,
    report_progress: Progress | None = None,
) -> RunFolder:
    """Score all training files, or do what is left to do of the run in `folder`.

    What is finished is not done again. Repetitions may be added later: those that are there are kept, and the tables are written
    again.

    Parameters
    ----------
    config : FilesConfig
    folder : str or path
        New, or of an earlier run with the same settings.
    command : str
        Recorded in run.json.
    workers : int, optional
        Stages at once, each in a process of its own. Default: one per core on a CPU, one per GPU.
    engine : Engine, optional
        Does the folds and the features in place of worker processes (`runs.executors.open_engine`).
    report_progress : callable, optional

    Returns
    -------
    RunFolder

    Raises
    ------
    InputError
        Before anything is written if the input cannot be used.
    """
    folder = Path(folder)
    check_outside(config.data, folder)
    data.use_index(folder)
    splits = load_splits(config)
    check_size(config.data, splits)
    with keeping_notes() as notes:
        crossfit = crossfit_config(config, splits)
    if not 1 <= config.repeats <= MOST_REPEATS:
        rule = f"must be 1 or more, at most {MOST_REPEATS:,}"
        raise InputError("--repeats", rule, config.repeats)
    subset_pairs.check_pairs(config.subset_regression)
    if config.subset_regression:
        for number in range(subset_pairs.HELD_OUT_FOLDS):
            subset_pairs.deal(splits.train, config.seed, number)  # too few files fail here
    stratified_folds(splits.train.labels, config.folds, 0, splits.train.groups)  # too many folds fail here
    with RunFolder.open(folder, resumable_arguments(config)) as record:
        digest = fingerprint(splits.train, splits.test)
        check_same_data(record, digest, config.data.dataset, "must hold the same images as when this run began")
        crossfit = _as_before(record, config, crossfit, splits.train)
        data.keep_index(folder, splits, config.data.resize)
        earlier = record.files().settings
        asked = config.repeats, config.subset_regression
        if earlier and (earlier.get("repeats", config.repeats), earlier.get("subset_regression", 0)) != asked:
            _forget_summary(record)
        kept = {"network_notes": notes} if notes else {}
        record.update_metadata(**_metadata(config, splits, crossfit, command), **kept, fingerprint=digest)
        write_table(data.file_rows(splits), folder / "tables" / "data_files.csv")
        mirroring = crossfit.flip or flip_is_measured(config.flip, config.data.dataset, splits.train)
        datacheck.check_stage(record, splits.train, splits.test, folds=config.folds, mirroring=mirroring, flips=crossfit.flip)
        config = replace(config, flip=crossfit.flip)  # measured once, for all stages
        describe = on_device(describe_device, config, engine)
        stages = {"features": Stage((), on_device(features_stage, config, engine), describe)}
        for repeat in range(config.repeats):
            for fold in range(config.folds):
                work = on_device(_fold_stage, config, engine, repeat, fold)
                stages[f"repeat {repeat + 1}, fold {fold + 1}"] = Stage((), work, describe)
        folds = tuple(name for name in stages if name != "features")
        for number in range(config.subset_regression):
            work = on_device(_pair_stage, config, engine, folder, number)
            stages[f"subset regression, pair {number + 1}"] = Stage(folds, work, describe)
        run_stages(record, stages, device=config.device, workers=workers, engine=engine, report_progress=report_progress)
        run_stages(record, {"explorer": Stage((), partial(_explorer, config, folder))}, device=config.device, workers=1)
        for fold in range(config.folds):
            examples_path(folder, fold).unlink(missing_ok=True)  # now in explorer/
        run_stages(record, {"summary": Stage((), partial(_summary, config, folder))}, device=config.device, workers=1)
        stability = robustness.rank_stability(_load_scores(config, folder, splits), splits.train.labels.numpy())
        record.update_metadata(finished=True, rank_stability=None if math.isnan(stability) else round(stability, 3))
        return record


def _as_before(record: RunFolder, config: FilesConfig, crossfit: CrossfitConfig, files: Dataset) -> CrossfitConfig:
    """The same flips as when the run began. Raises InputError where others are asked for, or pictures that it has not stored."""
    settings = record.files().settings
    earlier, limit = settings.get("flip"), settings.get("pictures")
    scored = any(name.startswith("repeat") for name in record.metadata["stages"])
    if (
        scored
        and isinstance(limit, int | float)
        and keeps_pictures(replace(config, pictures=limit), files) != keeps_pictures(config, files)
    ):
        rule = "must be as before to resume a run: pictures are stored when the files are scored"
        got = f"{config.pictures:g} where the run has {limit:g}"
        raise InputError("--pictures", rule, got, f"give --pictures {limit:g}, or another --out for a new run")
    if not isinstance(earlier, bool):
        return crossfit
    if config.flip not in (None, earlier):
        got = f"{config.flip} where the run has {earlier}"
        raise InputError("--flip", "must be as before to resume a run", got, "give another --out for a new run")
    return replace(crossfit, flip=earlier)


def _forget_summary(record: RunFolder) -> None:
    """Before the number of repetitions or of pairs changes: tables and subsets of the earlier ranking are no longer valid."""
    remove_subsets(record.folder)
    for row in (SubsetRegressionRow, SubsetRegressionWeightRow, SubsetPairRow):
        for ending in ("csv", "parquet"):
            (record.folder / "tables" / f"{row.table}.{ending}").unlink(missing_ok=True)
    record.update_metadata(stages={name: mark for name, mark in record.metadata["stages"].items() if name != "summary"})


def _metadata(config: FilesConfig, splits: Splits, crossfit: CrossfitConfig, command: str) -> dict[str, object]:
    """What run.json says of a run of file scores."""
    settings = {**asdict(crossfit), "threat_model": str(crossfit.threat_model), "folds": config.folds, "repeats": config.repeats}
    settings |= {"pictures": config.pictures, "subset_regression": config.subset_regression}
    return {
        **common_metadata(config.device, describe_machine(config.device), command),
        "dataset": config.data.dataset,
        "threat": str(crossfit.threat_model),
        "settings": settings,
        "seed": config.seed,
        "data": data.summary(splits) | {"form": written_form(config, splits)},
        "finished": False,
    }


# ---- stages ----------------------------------------------------------------------------------------------------------------


def _fold_stage(config: FilesConfig, repeat: int, fold: int, attempt: Attempt) -> list[Row]:
    """Score the files of one fold, and keep the scores; in the first repetition also what the explorer shows."""
    splits, kept = load_splits(config), FoldScores()
    folds = stratified_folds(splits.train.labels, config.folds, fold_seed(config.seed, repeat), splits.train.groups)
    found = score_fold(
        splits.train,
        crossfit_config(config, splits),
        folds == fold,
        seed=fold_seed(config.seed, repeat, fold),
        test=splits.test,
        device=config.device,
        progress=lambda share, words: attempt("", min(share, 0.99), words),
        keep=None if repeat else kept.__setitem__,
        keep_pictures=not repeat and keeps_pictures(config, splits.train),
        unfinished=attempt.unfinished,
    )
    if kept:
        data.save_arrays(of_fold(kept, folds, fold), examples_path(attempt.folder, fold))
    data.save_arrays(found, fold_path(attempt.folder, repeat, fold))
    return []


def _pair_stage(config: FilesConfig, folder: Path, number: int, attempt: Attempt) -> list[Row]:
    """Train on one pair of halves, and keep which they were: the regression is repeated whenever scores or pairs are added."""
    splits = load_splits(config)
    combined = score_coordinates.scores_to_combine(_load_scores(config, folder, splits), splits.train.labels.numpy())
    pair = subset_pairs.train_pair(
        splits.train,
        combined,
        crossfit_config(config, splits),
        seed=config.seed,
        number=number,
        device=config.device,
        unfinished=attempt.unfinished,
        progress=lambda share, words: attempt("", share, words),
    )
    data.save_arrays(pair.arrays(), pair_path(attempt.folder, number))
    return []


def _load_scores(config: FilesConfig, folder: Path, splits: Splits) -> list[FoldScores]:
    """The scores of all files, one entry for each repetition."""
    whole = []
    for repeat in range(config.repeats):
        folds = stratified_folds(splits.train.labels, config.folds, fold_seed(config.seed, repeat), splits.train.groups)
        parts = [data.load_arrays(fold_path(folder, repeat, fold)) for fold in range(config.folds)]
        whole.append(merge_folds(folds, parts))
    return whole


def _explorer(config: FilesConfig, folder: Path, attempt: Attempt) -> list[Row]:
    """The explorer's pictures. It finds in one folder what the folds kept and what it writes."""
    attempt.folder.mkdir(parents=True)
    kept = attempt.folder / PARTS
    kept.symlink_to((folder / PARTS).resolve())
    rows = explorer_stage(config, attempt.folder, attempt)
    kept.unlink()
    return rows


def _summary(config: FilesConfig, folder: Path, attempt: Attempt) -> list[Row]:
    """The rows of all files, the accuracies of the models, the categories, the columns, and pictures of representative files."""
    splits = load_splits(config)
    whole, epsilon = _load_scores(config, folder, splits), float(crossfit_config(config, splits).threat_model.epsilon)
    rows = scores.combine(splits.train, whole, epsilon)
    learned = list[Row]()
    if config.subset_regression:
        paths = [pair_path(folder, number) for number in range(config.subset_regression)]
        pairs = [subset_pairs.Pair.load(path, len(splits.train)) for path in paths]
        rows, learned = subset_regression.learned_rows(rows, pairs, whole, splits.train)
    predictions = prediction_rows(splits.train, scores.probabilities_by_model(whole))
    counts, pictures = list[Row](), list[Row]()
    for category in CATEGORIES:
        own = [row for row in rows if row.category == category]
        counts.append(CategoryRow(category=category, files=len(own), n=len(rows)))
        pictures += [_picture(row, splits, attempt.folder) for row in representative_files(own, category)]
    columns: list[ColumnRow] = [column for column in COLUMNS if getattr(rows[0], column.column) is not None]
    accuracies = scores.model_accuracies(whole, epsilon)
    errors = scores.label_errors_row(whole, splits.train)
    return [*rows, *learned, *predictions, *accuracies, errors, *counts, *columns, *pictures]


def _picture(row: FileRow, splits: Splits, folder: Path) -> FilePictureRow:
    """Save the picture of one file."""
    picture = f"pictures/file-{row.index:06d}.png"
    data.save_image(splits.train.pixels([row.index])[0], folder / picture)
    return FilePictureRow(
        index=row.index,
        file=row.file,
        label=row.label,
        suggested_label=row.suggested_label,
        robustness=row.robustness,
        label_quality=row.label_quality,
        category=row.category,
        picture=picture,
    )


def representative_files(rows: Sequence[FileRow], category: str) -> list[FileRow]:
    """The files of one category that represent it best, taking turns between the classes; at most `PICTURED_FILES`."""
    order: dict[str, Callable[[FileRow], float]] = {
        "robust": lambda row: -row.robustness,
        "non-robust": lambda row: row.robustness,
        "likely label error": lambda row: -row.label_error_probability,
        "misclassified": lambda row: row.label_quality,
    }
    turns: dict[str, int] = {}
    placed = []
    for row in sorted(rows, key=order[category]):
        turns[row.label] = turns.get(row.label, -1) + 1
        placed.append((turns[row.label], row))
    return [row for _, row in sorted(placed, key=lambda entry: entry[0])[:PICTURED_FILES]]
