"""What it costs to do a stage elsewhere: each executor's time beside that of the stage itself. Prints a table of docs/scale.md.

    python benchmarks/scaling.py --parts executors [--out benchmarks/results/scaling.json]

A stage here writes one file and one row. Each needs the one before it, so that the time from the end of the first to the end of
the last is that of as many submissions, starts, publications and entries in run.json. Workers have imported torch by then. Dask:
a scheduler and workers as processes of this machine. `in this process` is the stage and its record without any executor.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, TimeLimit, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from notbugs.runs.attempts import Attempt
    from notbugs.runs.engine import Engine
    from notbugs.runs.tables.row import Row as TableRow

PARTS = ("executors",)


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, parts=PARTS)
    found.add_argument("--stages", type=int, default=40, help="of each measurement, after the first one")
    return found


def main() -> None:
    """Measure each executor with 1 and 2 workers."""
    options = parser().parse_args()
    results = ResultsFile(options.out, packages=("distributed",))
    key = ("part", "method", "workers")
    measure(results, "executors", _rows(options.stages), recorded_arguments(options), key=key, limit=TimeLimit(options.minutes))


def _rows(stages: int) -> Iterator[Row]:
    from notbugs.runs.workers import worker_processes

    yield _row("in this process", 1, stages, None)
    for workers in (1, 2):
        with worker_processes(workers) as engine:
            yield _row("process pool", workers, stages, engine)
    for workers in (1, 2):
        with _dask(workers) as engine:
            yield _row("Dask", workers, stages, engine)


def _row(method: str, workers: int, stages: int, engine: "Engine | None") -> Row:
    """Seconds between the ends of two stages, each of which needs the one before."""
    from notbugs.runs.folder import RunFolder
    from notbugs.runs.runner import Stage, run_stages

    ends: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder, RunFolder.open(folder, {}) as run:
        names = [f"stage {number}" for number in range(stages + 1)]
        graph = {
            name: Stage(tuple(names[max(0, number - 1) : number]), partial(write, number)) for number, name in enumerate(names)
        }
        ended = lambda *_: ends.append((time.perf_counter(), time.process_time()))  # noqa: E731
        run_stages(run, graph, device="cpu", workers=1, engine=engine, on_stage=ended)
    (began, cpu_began), *_, (end, cpu_end) = ends
    found = {"seconds": (end - began) / stages, "cpu_seconds": (cpu_end - cpu_began) / stages}
    return {"method": method, "workers": workers, "stages": stages, **found}


def write(number: int, attempt: "Attempt") -> "list[TableRow]":
    """A stage that writes a file and a row."""
    from notbugs.runs.tables.files import CategoryRow

    path = attempt.folder / "parts" / f"{number}.txt"
    path.parent.mkdir(parents=True)
    path.write_text(str(number))
    return [CategoryRow(category="robust", files=number, n=number)]


@contextmanager
def _dask(workers: int) -> "Iterator[Engine]":
    """A scheduler and workers, which end with the block."""
    from notbugs.runs.executors import open_engine

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler.json"
        common = ["--no-dashboard", "--scheduler-file", str(file)]
        commands = [["scheduler", "--port", "0", "--host", "127.0.0.1", *common]]
        commands += [["worker", "--nthreads", "1", "--no-nanny", "--memory-limit", "0", *common]] * workers
        processes = []
        try:
            for words in commands:
                processes.append(
                    subprocess.Popen([sys.executable, "-m", "dask", *words], stderr=subprocess.DEVNULL, env=environment)
                )
                while not file.exists():
                    time.sleep(0.05)
            while True:  # until all workers are there
                with open_engine(str(file), None) as engine:
                    if engine.at_once() == workers:
                        yield engine
                        return
                time.sleep(0.5)
        finally:
            for process in processes:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
