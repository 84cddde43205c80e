"""What all benchmarks share: arguments, a time limit, and a results file.

A results file has the form of schema.json. It is resumed if it exists, extended row by row, and always written whole. Imports no
torch, so that `--help` answers at once.
"""

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from environment import describe_environment  # the file beside this one

from notbugs.atomic import atomic_write_text

Row = dict[str, Any]
SCHEMA = Path(__file__).with_name("schema.json")
LABELS = ("part", "dataset", "model", "norm", "epsilon", "tool")  # first in the printed rows, without their names
NOT_RECORDED = ("out", "minutes", "parts", "folder", "original")  # arguments that change no figure


def argument_parser(description: str | None, *, parts: Sequence[str] = (), device: str = "") -> argparse.ArgumentParser:
    """A parser with the arguments that all benchmarks share.

    Parameters
    ----------
    description : str
        The docstring of the benchmark.
    parts : sequence of str
        What can be measured alone; empty: no `--parts`.
    device : str
        Default of `--device`; "" if the benchmark runs on the CPU only.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="results file (.json); resumed if it exists")
    parser.add_argument("--minutes", type=float, default=0, help="stop after the stage or row then in progress; 0: no limit")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    if parts:
        parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    if device:
        parser.add_argument("--device", default=device, help=f"cpu, cuda, cuda:1, or auto (default: {device})")
    return parser


def study_arguments(parser: argparse.ArgumentParser) -> None:
    """Add those of benchmarks that compare other tools on the models of a study."""
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--run", type=Path, required=True, help="the study's folder")
    parser.add_argument("--seed", type=int, help="of the study's models (default: its first)")
    parser.add_argument("--training-images", type=int, default=1000)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="notbugs only, as of `notbugs run`")
    parser.add_argument("--compile", action="store_true", help="notbugs only, as of `notbugs run`")
    parser.add_argument("--rounds", type=int, default=3)


def require_study(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit unless the folder holds a study."""
    if not (options.run / "run.json").exists():
        parser.error(f"{options.run} holds no study; make one: notbugs run {options.dataset} --out {options.run}")


def resolve_device(device: str) -> str:
    """`auto` is the GPU if there is one."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


class TimeLimit:
    """Minutes from now on; 0: no limit."""

    def __init__(self, minutes: float) -> None:
        self.minutes, self.started = minutes, time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return bool(self.minutes) and time.monotonic() - self.started > 60 * self.minutes


class ResultsFile:
    """Rows of a benchmark and what they were measured on.

    Parameters
    ----------
    path : Path or None
        None: rows are only printed.
    device : str
    packages : sequence of str
        Distributions whose versions are recorded.

    Attributes
    ----------
    rows : list of dict
        Those of earlier calls first.
    """

    def __init__(self, path: Path | None, *, device: str = "cpu", packages: Sequence[str] = ()) -> None:
        self.path, self.device, self.packages = path, device, packages
        content = json.loads(path.read_text()) if path and path.exists() else {}
        self.rows: list[Row] = content.get("rows", [])
        self.parts: dict[str, Row] = content.get("parts", {})

    def has(self, **values: object) -> bool:
        """Whether there is a row with these values."""
        return any(_matches(row, values) for row in self.rows)

    def drop(self, **values: object) -> None:
        """Remove the rows with these values."""
        self.rows = [row for row in self.rows if not _matches(row, values)]

    def add(self, row: Row, key: Sequence[str] = ()) -> None:
        """Print a row, add it and write the file.

        Parameters
        ----------
        row : dict
        key : sequence of str
            The new row replaces the one that has the same values in these columns; empty: it replaces none.

        Raises
        ------
        ValueError
            If a column is not in schema.json.
        """
        if unknown := row.keys() - _columns():
            raise ValueError(f"columns that {SCHEMA.name} does not have: {', '.join(sorted(unknown))}")
        print(row_text(row), flush=True)
        if key:
            self.drop(**{name: row.get(name) for name in key})
        self.rows.append({**row, "date": describe_environment()["date"]})
        self.write()

    def write(self) -> None:
        """Write the file, if there is one."""
        if self.path is None:
            return
        import torch

        content = {
            **describe_environment(self.device, self.packages),
            "threads": torch.get_num_threads(),
            "parts": self.parts,
            "rows": self.rows,
        }
        atomic_write_text(self.path, json.dumps(content, indent=1) + "\n")


def measure(
    results: ResultsFile,
    part: str,
    rows: Iterable[Row],
    arguments: Mapping[str, object],
    *,
    key: Sequence[str] = (),
    limit: TimeLimit | None = None,
) -> None:
    """Add the rows of one part as they come, and record when, where and with which arguments they were measured.

    Parameters
    ----------
    results : ResultsFile
    part : str
        Of rows that do not name their own.
    rows : iterable of dict
    arguments : mapping
    key : sequence of str
        As in `ResultsFile.add`.
    limit : TimeLimit, optional
        Stop after the row in progress; by default the part ends when `rows` does.
    """
    started = time.monotonic()
    for row in rows:
        environment = describe_environment(results.device)
        record: Row = {name: environment[name] for name in ("date", "commit", "machine")}
        record |= {"minutes": (time.monotonic() - started) / 60, "arguments": dict(arguments)}
        results.parts[part] = record
        results.add({"part": part, **row}, key)
        if limit and limit.over:
            return


def recorded_arguments(options: argparse.Namespace) -> Row:
    """The arguments as JSON can hold them."""
    values = {name: value for name, value in vars(options).items() if name not in NOT_RECORDED}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def row_text(row: Row) -> str:
    """A row in one line: what it is about, then every figure by its name."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in row.items()}
    head = "  ".join(shown[name] for name in LABELS if name in shown)
    return f"{head}: " + " ".join(f"{name}={value}" for name, value in shown.items() if name not in LABELS)


def _matches(row: Row, values: Mapping[str, object]) -> bool:
    return all(row.get(name) == value for name, value in values.items())


@cache
def _columns() -> frozenset[str]:
    """Columns of a row, as schema.json has them."""
    return frozenset(json.loads(SCHEMA.read_text())["properties"]["rows"]["items"]["properties"])
