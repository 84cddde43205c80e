"""The run folder: what a run writes and a report reads. Imports no torch.

    run.json           arguments, metadata and one entry for each finished stage
    tables/*.csv       typed rows (`runs.tables`), and the same as .parquet
    pictures/*.png     pictures that tables name
    data-index.parquet of data sets that stay on disk: what is known of each file (`data.header_index`)
    .attempts/         what stages that are not finished have written
    .unfinished/       what such a stage resumes from when the command is repeated: weights after an epoch, blocks of images

A stage is whole or absent. Only the process that opened the folder changes anything but the last two. In .attempts/ each attempt
at a stage has a folder of its own. That process renames what the stage wrote into place, then writes its rows; the entry in
run.json, with the number of rows, comes last. Rows beyond these numbers are of a stage that was killed: never read, and
overwritten by the next one.
"""

import csv
import json
import math
import os
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from filelock import FileLock

from notbugs import __version__
from notbugs.atomic import acquire_lock, atomic_write, atomic_write_text, read_at_most
from notbugs.data_config import ADDRESS
from notbugs.errors import InputError
from notbugs.runs.arguments import opened
from notbugs.runs.metadata import AuditMetadata, FilesMetadata, RunMetadata, StudyMetadata, TheoryMetadata, parse
from notbugs.runs.source import source
from notbugs.runs.tables.row import AnyRow, Row, as_csv, cells, columns, from_text

FORMAT = 2  # of the run folder
LOCK = "run.lock"
ATTEMPTS = ".attempts"  # folder of stages that are not finished: see `runs.attempts`
UNFINISHED = ".unfinished"  # a folder for each stage that is not finished: see `runs.attempts.unfinished_folder`
MOST_ROWS = 2**40  # of a table
MOST_METADATA = 2**27  # bytes of a run.json: one of 10,000 stages has 3 MB
ARGUMENT_OPTIONS = {  # named otherwise
    "dataset": "DATASET",
    "threats": "--epsilon",
    "others": "--other",
    "only_classes": "--only-class",
    "pixel_range": "--range",
}
KINDS = {"study": "a study", "audit": "an audit", "files": "file scores", "theory": "the two-Gaussian model"}

Metadata = TypeVar("Metadata", bound=RunMetadata)


@dataclass
class RunFolder:
    """One run folder.

    `RunFolder.open` is for the one process that writes: use it in a `with` block, which releases the lock at the end.
    `RunFolder.read` is for everyone else and takes no lock.

    Attributes
    ----------
    folder : Path
    metadata : dict
        The content of run.json; `study()`, `audit()`, `files()` and `theory()` give it typed.
    """

    folder: Path
    metadata: dict[str, Any]
    _lock: FileLock | None = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path | str, arguments: Mapping[str, object]) -> Self:
        """Start a run in a new folder, or resume the one that is there.

        Parameters
        ----------
        folder : Path or str
        arguments : mapping
            What was asked for, by option; "kind" names the kind of run. Anything that JSON can hold.

        Raises
        ------
        InputError
            If the folder holds other files, a run with other arguments, a run of the first version, or a run in progress.
        """
        folder = Path(folder)
        if ADDRESS.match(str(folder)):
            raise InputError(
                "--out", "must be a folder on a disk: object stores are not supported", folder, "mount it, or copy later"
            )
        if folder.exists() and not folder.is_dir():
            raise InputError("--out", "must be a folder", f"the file {folder}", "name another folder")
        known = folder / "run.json"
        if (
            not known.exists()
            and folder.exists()
            and any(entry.name != LOCK and entry.suffix != ".part" for entry in folder.iterdir())
        ):
            raise InputError(
                "--out", "must be a new folder or an earlier run", f"{folder}, which holds other files", "name another"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError("--out", "must be a folder that can be written", f"{folder} ({error.strerror})") from None
        run = cls(folder, {}, acquire_lock(folder / LOCK, f"{folder}, which another run is writing"))
        try:
            if run._lock:
                _remove_leftovers(folder)
            if known.exists():
                run.metadata = _read_metadata(folder)
                _check_arguments(run, arguments)
            else:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                run.update_metadata(format=FORMAT, arguments=dict(arguments), started=now, stages={}, finished=False)
            opened(folder)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """An existing run, finished or not. Raises InputError if there is none or its run.json is damaged."""
        folder = Path(folder)
        if not (folder / "run.json").is_file():
            raise InputError("run folder", "must hold a run.json", folder, "give the folder that `notbugs run --out` wrote")
        return cls(folder, _read_metadata(folder))

    def close(self) -> None:
        """Release the lock. Safe to call twice."""
        if self._lock is not None:
            self._lock.release(force=True)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def kind(self) -> str:
        """study, audit, files or theory."""
        return str(self.metadata["arguments"].get("kind", "study"))

    def done(self, stage: str) -> bool:
        """Whether this stage finished, in this process or an earlier one."""
        return bool(self.metadata["stages"].get(stage, {}).get("state") == "done")

    def record_stage(self, stage: str, seconds: float, rows: Iterable[Row] = (), **metadata: object) -> None:
        """Add a stage's rows to their tables, then mark the stage done: killed in between, it counts as not done.

        Parameters
        ----------
        stage : str
        seconds : float
            The time it took.
        rows : iterable of Row
            Of any tables; their order within each table is kept.
        **metadata
            What else its entry in run.json says.

        Raises
        ------
        ValueError
            If the stage is done already.
        """
        if self.done(stage):
            raise ValueError(f"stage {stage!r} is done already")
        added: dict[type[Row], list[Row]] = {}
        for row in rows:
            added.setdefault(type(row), []).append(row)
        for row_type, new in added.items():
            self._write_table([*self.rows(row_type), *new])
        counts = {row_type.table: len(new) for row_type, new in added.items()}
        mark = {"state": "done", "seconds": round(seconds, 3), "rows": counts, **metadata}
        self.update_metadata(stages={**self.metadata["stages"], stage: mark})

    def update_metadata(self, **metadata: object) -> None:
        """Set entries of run.json."""
        text = json.dumps({**self.metadata, **metadata}, indent=1, ensure_ascii=False, default=str)
        atomic_write_text(self.folder / "run.json", text + "\n")
        self.metadata = json.loads(text)

    def rows(self, row_type: type[AnyRow]) -> list[AnyRow]:
        """The rows that finished stages wrote to one table, in their order; [] if there are none."""
        marked = sum(stage.get("rows", {}).get(row_type.table, 0) for stage in self.metadata["stages"].values())
        path = self.folder / "tables" / f"{row_type.table}.csv"
        if not marked:
            return []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                found = [from_text(row_type, text) for text, _ in zip(csv.DictReader(file), range(marked), strict=False)]
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(str(path), "must be the table the run wrote", str(error), "run again into another folder") from None
        if len(found) < marked:
            raise InputError(str(path), f"must hold the {marked} rows the run wrote", len(found), "run again into another folder")
        return found

    def study(self) -> StudyMetadata:
        """The metadata of a study."""
        return self._typed(StudyMetadata)

    def audit(self) -> AuditMetadata:
        """The metadata of an audit."""
        return self._typed(AuditMetadata)

    def files(self) -> FilesMetadata:
        """The metadata of file scores."""
        return self._typed(FilesMetadata)

    def theory(self) -> TheoryMetadata:
        """The metadata of the two-Gaussian model."""
        return self._typed(TheoryMetadata)

    def _typed(self, kind: type[Metadata]) -> Metadata:
        return parse(kind, {**self.metadata, "kind": self.kind})

    def _write_table(self, rows: Sequence[Row]) -> None:
        path = self.folder / "tables" / f"{rows[0].table}.csv"
        write_parquet(rows, path.with_suffix(".parquet"))
        atomic_write_text(path, as_csv(rows))


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write rows of one table as .csv and, beside it, as .parquet, in place of what is there."""
    write_parquet(rows, path.with_suffix(".parquet"))
    atomic_write_text(path, as_csv(rows))


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Rows of one table as a parquet file with the types of `runs.tables`."""
    import pyarrow
    from pyarrow import parquet

    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, (kind, _) in columns(type(rows[0])).items()])
    records = [{name: _encodable(cell) for name, cell in cells(row).items()} for row in rows]
    table = pyarrow.Table.from_pylist(records, schema=schema)
    atomic_write(path, lambda stream: parquet.write_table(table, stream))


def common_metadata(device: str, machine: str, command: str) -> dict[str, object]:
    """What every run records of its environment: version, commit, command, device, machine, library versions."""
    import numpy
    import scipy
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    return {
        "notbugs": __version__,
        "commit": source().commit,
        "commit_date": source().date,
        "command": command,
        "device": device,
        "machine": machine,
        "versions": {**versions, "scipy": scipy.__version__},
    }


def _encodable(cell: object) -> object:
    """Text as UTF-8 can hold it, as in the CSV file."""
    return cell.encode("utf-8", errors="replace").decode("utf-8") if isinstance(cell, str) else cell


def _read_metadata(folder: Path) -> dict[str, Any]:
    remedy = "name another folder, or remove it and run again"
    content = read_at_most(folder / "run.json", MOST_METADATA)
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError) as error:
        got = str(error) if content.strip(b"\0") else "zero bytes alone, as a power failure leaves"
        raise InputError(str(folder / "run.json"), "must be readable JSON", got, remedy) from None
    if isinstance(metadata, dict) and "asked" in metadata and "format" not in metadata:
        raise InputError("run folder", f"must be of format {FORMAT}", f"{folder}, written by the first version", remedy)
    if not isinstance(metadata, dict) or not all(isinstance(metadata.get(key), dict) for key in ("arguments", "stages")):
        raise InputError(str(folder / "run.json"), "must hold arguments and stages", None, remedy)
    if not isinstance(metadata["arguments"].get("kind", "study"), str):
        raise InputError(str(folder / "run.json"), "must say in words what kind of run it is", remedy=remedy)
    if not all(_is_mark(mark) for mark in metadata["stages"].values()):
        rule = "must say of each stage what it wrote: state, seconds, and rows by table"
        raise InputError(str(folder / "run.json"), rule, remedy=remedy)
    if metadata.get("format") != FORMAT:
        raise InputError("run folder", f"must be of format {FORMAT}", f"{metadata.get('format')} in {folder}", remedy)
    return metadata


def _is_mark(mark: object) -> bool:
    """Whether this can be the entry of a stage."""
    if not isinstance(mark, dict):
        return False
    rows, seconds = mark.get("rows", {}), mark.get("seconds", 0)
    counted = isinstance(rows, dict) and all(type(count) is int and 0 <= count < MOST_ROWS for count in rows.values())
    return counted and type(seconds) in (int, float) and math.isfinite(seconds)


def _check_arguments(run: RunFolder, arguments: Mapping[str, object]) -> None:
    """Raises InputError unless a run is resumed with the arguments it was started with."""
    before, now = run.metadata["arguments"], json.loads(json.dumps(dict(arguments), default=str))
    if before.get("kind", "study") != now.get("kind", "study"):
        held, wanted = (KINDS.get(each.get("kind", "study"), "something else") for each in (before, now))
        raise InputError("--out", f"must be a new folder or {wanted}", f"{run.folder}, which holds {held}", "name another")
    other = [name for name in {**before, **now} if not _same(before.get(name), now.get(name))]
    if other:
        options = ", ".join(_option(name, run.kind) for name in other)
        given, there = (", ".join(str(each.get(name)) for name in other) for each in (now, before))
        got = f"{given} where the run in {run.folder} has {there}"
        moved = "; put moved data back, or a link to it" if other == ["dataset"] and os.path.exists(str(now["dataset"])) else ""
        raise InputError(options, "must be as before to resume a run", got, f"give another --out for a new run{moved}")


def _same(before: object, now: object) -> bool:
    """Whether an argument is as before: `./imgs` and the absolute path of `imgs` name one place."""
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_same, before, now))
    if before == now or not (isinstance(before, str) and isinstance(now, str)):
        return before == now
    return os.path.exists(now) and os.path.realpath(before) == os.path.realpath(now)


def _option(name: str, kind: str) -> str:
    """How an argument is called on the command line."""
    if name == "model" and kind == "audit":
        return "MODEL"
    return ARGUMENT_OPTIONS.get(name, "--" + name.replace("_", "-"))


def _remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed left half written: attempts at stages, tables."""
    for path in (folder / ATTEMPTS, *folder.glob("*.part"), *folder.glob("*/*.part")):
        with suppress(OSError):  # it is in nobody's way
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
