"""The data check as text, for pages and for the terminal. Imports no torch."""

from typing import NamedTuple

from notbugs.report.format import interval, minus, percent
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.data_check import DataCheckFileRow, DataCheckRow, DataCheckSummaryRow


class DataCheckSection(NamedTuple):
    """What a page says of a run's data check: what was checked, the findings, and whether tables/ lists files."""

    checked: str
    findings: list[DataCheckRow]
    lists_files: bool


def section(run: RunFolder) -> DataCheckSection | None:
    """The data check of a run; None if it has none."""
    rows = run.rows(DataCheckSummaryRow)
    if not rows:
        return None
    return DataCheckSection(checked_text(rows[0]), run.rows(DataCheckRow), bool(run.rows(DataCheckFileRow)))


def finding_text(row: DataCheckRow) -> str:
    """One finding: problem, count, examples, what it means, what to do.

    Examples
    --------
    >>> row = DataCheckRow(problem="constant images", serious=True, count=5, n=90, unit="images", examples="cat/1.png",
    ...                    meaning="There is nothing to see.", remedy="Remove them.")
    >>> finding_text(row)
    'constant images: 5 of 90 images (cat/1.png). There is nothing to see. Remove them.'
    """
    examples = f" ({row.examples})" if row.examples else ""
    return f"{row.problem}: {row.count:,} of {row.n:,} {row.unit}{examples}. {row.meaning} {row.remedy}"


def checked_text(row: DataCheckSummaryRow) -> str:
    """What was checked, in one or two sentences."""
    images = row.train + row.test
    near = f"near duplicates among {row.compared:,} of them" if row.compared < images else "near duplicates"
    what = f"duplicates, {near}" if row.compared else "duplicates (the images are too small for near duplicates)"
    checked = f"Checked {images:,} images: {what}, labels of duplicates, sizes of classes, contrast"
    return f"{checked}; not whether labels are right, which notbugs files looks for. {mirroring_text(row)}"


def mirroring_text(row: DataCheckSummaryRow) -> str:
    """Whether mirroring is safe, with the accuracies behind the answer."""
    if row.accuracy is None or row.mirrored_accuracy is None or row.mirroring_drop is None:
        return "Mirroring was not measured" + ("." if row.train else ": that takes training images.")
    ends = interval(100 * (row.mirroring_drop_ci_low or 0), 100 * (row.mirroring_drop_ci_high or 0))
    accuracies = f"accuracy {percent(row.accuracy)}, mirrored {percent(row.mirrored_accuracy)}"
    drop = f"a drop of {minus(f'{100 * row.mirroring_drop:.1f}')} percentage points {ends}"
    return f"Mirroring: {row.mirroring} ({accuracies}: {drop}, n {row.mirroring_n or 0:,} held-out training images)."
