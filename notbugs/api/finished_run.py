"""A finished run: its tables, its report, and a figure with all that a reader needs to check it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from notbugs import inline, report
from notbugs.errors import InputError
from notbugs.gate.formats import robustbench_entries
from notbugs.report import citation
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditAccuracyRow, CheckRow
from notbugs.runs.tables.row import Cell

MOST_ROWS, MOST_PICTURES = 20, 4  # in a notebook
MAIN_TABLES = {"files": "files"}  # by kind of run; else "accuracy"


@dataclass(frozen=True, init=False)
class Run:
    """A finished run. In a notebook it shows its main table and pictures.

    Parameters
    ----------
    folder : str or path
        A run folder that is there.

    Attributes
    ----------
    folder : Path
        Its tables, data sets, models and pictures. If no folder was given to the run it is removed with this object.

    Raises
    ------
    InputError
        If it is no run folder.
    """

    folder: Path

    def __init__(self, folder: str | PathLike[str]) -> None:
        object.__setattr__(self, "folder", RunFolder.read(Path(folder)).folder)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of its tables."""
        return tuple(sorted(path.stem for path in (self.folder / "tables").glob("*.parquet")))

    def table(self, name: str) -> list[dict[str, Cell]]:
        """The rows of a table, as pandas.DataFrame takes them. Raises InputError if there is none of this name."""
        from pyarrow import parquet

        if name not in self.tables:
            raise InputError("table", f"must be one of {', '.join(self.tables)}", name)
        rows: list[dict[str, Cell]] = parquet.read_table(self.folder / "tables" / f"{name}.parquet").to_pylist()
        return rows

    def report(self) -> Path:
        """Write report.html, and return where it is."""
        return report.write(self.folder)

    def cite(self, row: Mapping[str, Cell] | Sequence[Mapping[str, Cell]]) -> str:
        """A figure with all that a reader needs to check it.

        Parameters
        ----------
        row : mapping, or sequence of mappings
            Of `table("accuracy")` of an audit or a study, or of a study's `table("controls")`. Several: of one figure, a
            row for each training seed.

        Returns
        -------
        str
            Accuracy, 95 % CI, n, threat model, attack with its version, seed, model, data, version of notbugs, command. Of a
            control the difference of the two accuracies, with its interval. Of several seeds the mean, with its interval over
            seeds.

        Raises
        ------
        InputError
            For rows of another table, or rows that differ by more than their seed.
        """
        rows = [row] if isinstance(row, Mapping) else [*row]
        if not rows:
            raise InputError("row", "must be one row, or one of each seed", "none")
        names = set.intersection(*({*each} for each in rows))
        if {"excess", "excess_ci_low", "control_accuracy"} <= names:
            return citation.excess(rows, RunFolder.read(self.folder))
        if missing := sorted({"accuracy", "ci_low", "ci_high", "n", "norm", "epsilon", "attack"} - names):
            raise InputError("row", 'must be of table("accuracy") or table("controls")', f"one without {', '.join(missing)}")
        return citation.sentence(rows, RunFolder.read(self.folder))

    def robustbench(self) -> list[dict[str, object]]:
        """Of an audit: an entry for each L-inf and L2 threat model, with the fields of RobustBench's model_info files.

        Accuracies are text in percent, as there; `attack` names the ensemble with its version, `n` the images (documentation,
        "A gate for pipelines").

        Raises
        ------
        InputError
            For another run than an audit.
        """
        record = RunFolder.read(self.folder)
        if record.kind != "audit":
            raise InputError("run", "must be an audit", record.kind, "notbugs.audit(…) makes one")
        about, failed = record.audit(), any(check.passed == "no" for check in record.rows(CheckRow))
        return robustbench_entries(record.rows(AuditAccuracyRow), about.model, about.dataset, unreliable=failed)

    def _repr_html_(self) -> str:
        record = RunFolder.read(self.folder)
        name = MAIN_TABLES.get(record.kind, "accuracy")
        rows = self.table(name) if name in self.tables else []
        known = [column for column in (rows[0] if rows else {}) if any(row[column] is not None for row in rows)]
        left = len(rows) - MOST_ROWS
        caption = f"{name}{f', the first {MOST_ROWS} of {len(rows)} rows' if left > 0 else ''}"
        pictures = sorted((self.folder / "pictures").glob("*.png"))[:MOST_PICTURES]
        return (
            inline.table(known, [[row[column] for column in known] for row in rows[:MOST_ROWS]], caption)
            + inline.pictures([(path.read_bytes(), path.stem) for path in pictures], side=None)
            + inline.table(["run folder"], [[str(self.folder)]])
        )
