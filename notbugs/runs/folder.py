"""The run folder: what the study writes and the report reads. Standard library only.

    run.json        what was asked and found, versions, and one entry for each finished stage
    tables/*.csv    one row a fact
    pictures/*.png  what the report shows; written by the study, named in tables/pictures.csv

A stage is whole or absent. Its rows go to the tables first and its mark, with the number of rows it wrote, to run.json last; rows
beyond the marked ones come from a stage that was killed: they are never read, and the next stage to finish writes over them.
"""

import csv
import errno
import json
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from notbugs.errors import InputError

Row = Mapping[str, object]
Cell = str | int | float

# Columns that hold names: a class called "007", "1e5" or "nan" must come back as it was written, never as a number.
TEXT = frozenset(
    [
        "model",
        "trained_on",
        "set",
        "norm",
        "attack",
        "made_from",
        "file",
        "column",
        "picture",
        "label",
        "standard",
        "adversarial",
        "read",
        "stored",
        "within",
        "check",
        "passed",
        "seen",
        "why",
        "remedy",
        "kind",
        "suggested",
        "class",
        "fall_class",
        "speaks",
        "cue",
        "word",
        "layer",
        "name",
        "source",
        "target",
        "change",
        "result",
        "control",
        "refutes",
        "method",
        "measure",
        "corruption",
        "other",
    ]
)
OPTIONS = {"source": "source", "model": "MODEL", "within": "--epsilon", "others": "--other"}  # where the name is another
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass
class RunFolder:
    """A run folder: `folder`, and `facts`, the content of its run.json.

    `Run.open` is for the one process that writes; use it in a `with` block, which lets the folder go at the end.
    `Run.read` is for everyone else and takes no lock.
    """

    folder: Path
    facts: dict[str, Any]
    _release: Callable[[], object] = field(default=lambda: None, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path | str, asked: Mapping[str, object]) -> Self:
        """Start a run in a new folder, or go on with the one that is there.

        asked: the arguments, by their option's name; what JSON can hold. They are kept as facts["asked"].
        Raises BadInput when the folder holds something else, a run with other arguments, or a run in progress.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise InputError("--out", "must be a folder", f"the file {folder}", "name another folder")
        known = folder / "run.json"
        if not known.exists() and folder.exists() and any(entry.name != "run.json.new" for entry in folder.iterdir()):
            raise InputError(
                "--out", "must be a new folder or an earlier run", f"{folder}, which holds other files", "name another"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError("--out", "must be a folder that can be written", f"{folder} ({error.strerror})") from None
        run = cls(folder, {})
        lock = _lock(folder)
        if lock is not None:
            run._release = weakref.finalize(run, os.close, lock)
        try:
            if known.exists():
                run.facts = _read_metadata(folder)
                _check_arguments(run, asked)
            else:
                run.note(asked=dict(asked), stages={}, finished=False)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """An existing run, finished or not. Raises BadInput when there is none or its run.json is damaged."""
        folder = Path(folder)
        if not (folder / "run.json").is_file():
            raise InputError("run folder", "must hold a run.json", folder, "give the folder that `notbugs run --out` wrote")
        return cls(folder, _read_metadata(folder))

    def close(self) -> None:
        """Let the folder go, so that another process may write it. Safe to call twice."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def done(self, stage: str) -> bool:
        """Whether this stage finished, in this process or an earlier one."""
        return bool(self.facts["stages"].get(stage, {}).get("state") == "done")

    def finish(self, stage: str, seconds: float, tables: Mapping[str, Iterable[Row]] | None = None, **facts: object) -> None:
        """Add the stage's rows to tables/NAME.csv, then mark the stage done: killed in between, it counts as not done.

        seconds: the time it took; facts: what else its mark says. A stage that is done already raises ValueError.
        """
        if self.done(stage):
            raise ValueError(f"stage {stage!r} is done already")
        added = {name: list(rows) for name, rows in (tables or {}).items()}
        for name, rows in added.items():
            write_atomic(self.folder / "tables" / f"{name}.csv", as_csv([*self.table(name), *rows]))
        counts = {name: len(rows) for name, rows in added.items()}
        mark = {"state": "done", "seconds": round(seconds, 3), "rows": counts, **facts}
        self.note(stages={**self.facts["stages"], stage: mark})

    def note(self, **facts: object) -> None:
        """Add facts to run.json, in place of earlier ones of the same name."""
        text = json.dumps({**self.facts, **facts}, indent=1, ensure_ascii=False, default=str)
        write_atomic(self.folder / "run.json", text + "\n")
        self.facts = json.loads(text)

    def table(self, name: str) -> list[dict[str, Cell]]:
        """The rows that finished stages wrote to tables/NAME.csv, in their order; [] when there are none.

        Cells that are numbers come back as int or float, except in the columns that hold names (`TEXT`); an empty cell is "".
        """
        marked = sum(stage.get("rows", {}).get(name, 0) for stage in self.facts["stages"].values())
        path = self.folder / "tables" / f"{name}.csv"
        if not marked:
            return []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))[:marked]
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(str(path), "must be the table the run wrote", str(error), "run again into another folder") from None
        if len(rows) < marked:
            raise InputError(str(path), f"must hold the {marked} rows the run wrote", len(rows), "run again into another folder")
        return [{column: _cell(column, text) for column, text in row.items() if column} for row in rows]


def write_atomic(path: Path, text: str) -> None:
    """Write a UTF-8 file all at once: under another name first, then renamed. Raises BadInput when the disk is full."""
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(exist_ok=True)
        with fresh.open("w", encoding="utf-8", errors="replace", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name with no content
        fresh.replace(path)
    except BaseException as error:
        fresh.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise InputError(
                "--out", "must be on a disk with room", f"a full one at {path.parent}", "free some and repeat"
            ) from None
        if isinstance(error, OSError):
            raise InputError("--out", "must be a folder that can be written", f"{path} ({error.strerror})") from None
        raise


class _Lines(list[str]):
    """Takes the lines of a CSV writer. With its own line ends the writer quotes "\\r" too; the file gets plain "\\n"."""

    def write(self, line: str) -> None:
        self.append(line.removesuffix("\r\n"))


def as_csv(rows: Iterable[Row]) -> str:
    """Rows as the text of a CSV file: all columns that any row has, in order of appearance."""
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = _Lines()
    writer = csv.DictWriter(lines, columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return "".join(f"{line}\n" for line in lines)


def _cell(column: str, text: str | None) -> Cell:
    if column in TEXT or not text:
        return text or ""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def _read_metadata(folder: Path) -> dict[str, Any]:
    remedy = "name another folder, or remove it and run again"
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(str(folder / "run.json"), "must be readable JSON", str(error), remedy) from None
    if not isinstance(facts, dict) or not all(isinstance(facts.get(key), dict) for key in ("asked", "stages")):
        raise InputError(str(folder / "run.json"), "must hold what was asked and the stages", None, remedy)
    return facts


def _check_arguments(run: RunFolder, asked: Mapping[str, object]) -> None:
    before, now = run.facts["asked"], json.loads(json.dumps(dict(asked), default=str))
    if before.get("kind") != now.get("kind"):
        kinds = {None: "a study", "audit": "an audit", "files": "a sorting of files", "theory": "a theory"}
        held, wanted = (kinds.get(each.get("kind"), "something else") for each in (before, now))
        raise InputError("--out", f"must be a new folder or {wanted}", f"{run.folder}, which holds {held}", "name another")
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            option = OPTIONS.get(name, "--" + name.replace("_", "-"))
            there = f"{now.get(name)} where the run in {run.folder} has {before.get(name)}"
            raise InputError(option, "must be as before to go on with a run", there, "give another --out for a new run")


def _lock(folder: Path) -> int | None:
    """Take the folder for this process, until the returned handle is closed or the process ends, however it ends."""
    if sys.platform == "win32":
        return None
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            "--out", "must not be in use", f"{folder}, which another run is writing", "wait for it or name another"
        ) from None
    except OSError:
        pass  # some network disks have no locks: then the user has to take care
    return handle
