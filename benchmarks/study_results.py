"""The results of a finished run as one JSON file, from which markdown_tables.py prints the same tables as from its folder.

    python benchmarks/study_results.py runs/digits --out benchmarks/results/studies/digits.json

The file has what run.json says of the run, without its stages and paths, on which devices they were done, and the rows of its
tables that results pages have. Numbers have 9 significant digits.
"""

import argparse
import csv
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from notbugs.atomic import atomic_write_text
from notbugs.report.about import stages_by_device
from notbugs.study.catalog.datasets import TEST_SETS

Content = dict[str, Any]
LEFT_OUT = ("stages",)  # of run.json: long
TABLES = (
    "accuracy", "training", "sets", "controls", "perturbation_leakage", "robust_feature_leakage", "transfer", "error_consistency",
    "saliency", "saliency_differences", "corruptions", "corruption_differences", "fourier", "ntk_accuracy", "theory",
)  # fmt: skip
PATH = re.compile(r"(?<= )(--out )?/\S*/(?=[^/\s]+)")  # folders of a machine, before a name


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("run", type=Path, metavar="RUN", help="a finished run folder")
    found.add_argument("--unfinished", action="store_true", help="what is finished of a run that was stopped; the tables say so")
    found.add_argument("--out", type=Path, required=True, help="results file (.json)")
    return found


def packed(folder: Path, *, unfinished: bool = False) -> Content:
    """A run as JSON.

    Parameters
    ----------
    folder : Path
    unfinished : bool
        Whether the run may have been stopped.
    """
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if not run.get("finished") and not unfinished:
        raise SystemExit(f"{folder}: must be finished, or given with --unfinished")
    kept = {name: _without_folder(value) for name, value in run.items() if name not in LEFT_OUT}
    kept["devices"] = stages_by_device(run["stages"])
    kept["command"] = PATH.sub(lambda found: f"{found[1]}runs/" if found[1] else "", kept["command"])
    tables: Content = {}
    for name in TABLES:
        path = folder / "tables" / f"{name}.csv"
        if not path.exists():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            columns, *rows = csv.reader(file)
        rows = [row for row in rows if _is_printed(name, dict(zip(columns, row, strict=True)))]
        tables[name] = {"columns": columns, "rows": [[_number(cell) for cell in row] for row in rows]}
    return {"run": kept, "tables": tables}


def _without_folder(value: Any) -> Any:
    """The name alone of an absolute path; of a dictionary the same for each of its values."""
    if isinstance(value, dict):
        return {name: _without_folder(each) for name, each in value.items()}
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _is_printed(table: str, row: dict[str, str]) -> bool:
    """Whether results pages have this row of a table."""
    from markdown_run import CONSISTENCY_MODELS, EITHER_MODEL, EITHER_SET

    if table == "error_consistency":
        return row["model"] in CONSISTENCY_MODELS and row["other_model"] in CONSISTENCY_MODELS
    on_either_set = row.get("set") in EITHER_SET and row.get("model") in EITHER_MODEL and float(row["epsilon"] or 0) == 0
    return table != "accuracy" or row["set"] in TEST_SETS or on_either_set


def _number(cell: str) -> str | int | float:
    """A cell as a number, where it is one."""
    try:
        return int(cell) if re.fullmatch(r"-?\d+", cell) else float(f"{float(cell):.9g}")
    except ValueError:
        return cell


@contextmanager
def unpacked(content: Content) -> Iterator[Path]:
    """A run folder with these results, for as long as it is needed."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "tables").mkdir()
        counts = {name: len(table["rows"]) for name, table in content["tables"].items()}
        run = {**content["run"], "stages": {"results": {"state": "done", "seconds": 0.0, "rows": counts}}}
        (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
        for name, table in content["tables"].items():
            with (folder / "tables" / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([table["columns"], *table["rows"]])
        yield folder


def main() -> None:
    """Write the file."""
    options = parser().parse_args()
    atomic_write_text(options.out, json.dumps(packed(options.run, unfinished=options.unfinished), separators=(",", ":")) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()
