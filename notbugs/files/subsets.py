"""Two subsets of the files of a data set, by rank: data sets that hold the files as the input stores them."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from notbugs import __version__, data
from notbugs.atomic import StrPath
from notbugs.data import Splits, markdown
from notbugs.data_config import check_outside
from notbugs.errors import InputError
from notbugs.files import robustness
from notbugs.files.columns import COLUMNS
from notbugs.files.config import FilesConfig, load_splits, written_form
from notbugs.runs.folder import RunFolder, write_table
from notbugs.runs.tables.files import FileRow, SubsetRegressionRow, SubsetRow

SUBSETS = {"robust": "highest", "nonrobust": "lowest"}


class Subset(NamedTuple):
    """One subset of the files, as it is stored. notes: how it was written, and what its card says besides."""

    name: str
    folder: Path
    files: int
    notes: tuple[str, ...] = ()


def check_fraction(config: FilesConfig, top: float) -> None:
    """Raises InputError unless the share `top` of each class can go to either subset."""
    counts = load_splits(config).train.labels.bincount()
    robustness.check_share(top, int(counts[counts > 0].min()))


@data.keeping_loads()
def split_by_robustness(config: FilesConfig, folder: StrPath, top: float) -> list[Subset]:
    """Write the files with the highest and with the lowest rank as two data sets: unchanged, if the input has files.

    The rank is `subset_regression` where the configuration asks for it, else `robustness`. They replace what an earlier call
    wrote. tables/subsets.csv lists the files.

    Parameters
    ----------
    config : FilesConfig
    folder : str or path
        Of a finished `run` with the same settings.
    top : float, in (0, 0.5]
        Share of each class in either subset.

    Returns
    -------
    list of Subset
        "robust" and "nonrobust".

    Raises
    ------
    InputError
        For another share, a folder that cannot be written, or where `subset_regression` is not measurably better than chance.
    """
    folder = Path(folder)
    data.use_index(folder)
    check_outside(config.data, folder)
    splits = load_splits(config)
    with RunFolder.open(folder, RunFolder.read(folder).metadata["arguments"]) as record:  # nobody else writes meanwhile
        rows, score = record.rows(FileRow), "robustness"
        for learned in record.rows(SubsetRegressionRow) if config.subset_regression else ():
            score = "subset_regression"
            if learned.ci_low <= 0:
                remedy = "ask for more pairs, or leave it out: the subsets are then by robustness"
                rule = "must predict the separation of pairs left out to rank files"
                raise InputError("--subset-regression", rule, f"r = {learned.correlation:.2f}", remedy)
        chosen = robustness.top_and_bottom([row.label for row in rows], [getattr(row, score) for row in rows], top)
        remove_subsets(folder)
        subsets, listed = [], list[SubsetRow]()
        for name, indices in zip(SUBSETS, chosen, strict=True):
            subsets.append(write_subset(config, splits, folder, name, indices, _card(name, score, top)))
            listed += [_subset_row(name, rows[index]) for index in indices]
        write_table(listed, folder / "tables" / f"{SubsetRow.table}.csv")
    return subsets


def write_subset(config: FilesConfig, splits: Splits, folder: Path, name: str, indices: Sequence[int], card: str) -> Subset:
    """Write training files as a data set, as they are stored in the input. card: its text before the statement how they are."""
    place, form = folder / "datasets" / f"{name}-files", written_form(config, splits)
    found = data.originals(config.data, splits.train.select(torch.tensor(indices, dtype=torch.int64)), form)
    made_from = f"Made by notbugs {__version__} from {markdown.code(Path(config.data.dataset).name)}."
    notes = data.export(
        found.dataset,
        place,
        form,
        card=f"{card} {found.statement} {made_from}",
        encoded=found.encoded,
        origin=data.origin_of(config.data.dataset, splits),
    )
    return Subset(name, place, len(indices), (found.statement, *notes))


def _subset_row(name: str, row: FileRow) -> SubsetRow:
    return SubsetRow(
        subset=name,
        index=row.index,
        file=row.file,
        label=row.label,
        robustness=row.robustness,
        subset_regression=row.subset_regression,
        category=row.category,
    )


def _card(name: str, score: str, top: float) -> str:
    """The README of a subset. score: the column that decides."""
    meaning = next(column.description for column in COLUMNS if column.column == score)
    return (
        f"# {name}-files\n\nOf each class the {100 * top:g} % of the files with the {SUBSETS[name]} {score}: {meaning}.\n"
        "tables/files.csv has every score."
    )


def remove_subsets(folder: Path) -> None:
    """Remove from a run folder what `split_by_robustness` wrote."""
    for ending in ("csv", "parquet"):
        (folder / "tables" / f"{SubsetRow.table}.{ending}").unlink(missing_ok=True)
    for name in SUBSETS:
        shutil.rmtree(folder / "datasets" / f"{name}-files", ignore_errors=True)
