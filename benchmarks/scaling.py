"""What it costs to do a stage elsewhere, or in several processes together.

    python benchmarks/scaling.py [--parts executors ranks] [--out benchmarks/results/scaling.json]

Prints the tables of docs/scale.md.

executors: each executor's time beside that of the stage itself. A stage here writes one file and one row. Each needs the one
before it, so that the time from the end of the first to the end of the last is that of as many submissions, starts, publications
and entries in run.json. Workers have imported torch by then. Dask: a scheduler and workers as processes of this machine.
`in this process` is the stage and its record without any executor.

ranks: a construction and a training in 1 and 2 processes, as torchrun starts them, of one thread each: by turns, and the fastest
of three.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, TimeLimit, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from notbugs.runs.attempts import Attempt
    from notbugs.runs.engine import Engine
    from notbugs.runs.tables.row import Row as TableRow

PARTS = ("executors", "ranks")
REPEATS = 3  # of work in several processes


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, parts=PARTS)
    found.add_argument("--stages", type=int, default=40, help="of each measurement, after the first one")
    return found


def main() -> None:
    """Measure the parts that are asked for."""
    options = parser().parse_args()
    results = ResultsFile(options.out, packages=("distributed",))
    key, limit = ("part", "method", "workers"), TimeLimit(options.minutes)
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "executors": lambda: _rows(options.stages),
        "ranks": _ranks,
    }
    for part in options.parts:
        measure(results, part, parts[part](), recorded_arguments(options), key=key, limit=limit)


def _rows(stages: int) -> Iterator[Row]:
    from notbugs.runs.workers import worker_processes

    yield _row("in this process", 1, stages, None)
    for workers in (1, 2):
        with worker_processes(workers) as engine:
            yield _row("process pool", workers, stages, engine)
    for workers in (1, 2, 3):
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


# ---- one stage in several processes --------------------------------------------------------------------------------------------


def _ranks() -> Iterator[Row]:
    from notbugs.runs.workers import WorkerProcesses

    for method, work in (("construction", construct), ("training", train)):
        found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for count in (1, 2) * REPEATS:
            with WorkerProcesses(count, environments=[]) as executor, tempfile.TemporaryDirectory() as folder:
                futures = [executor.submit(as_rank, rank, count, folder, work) for rank in range(count)]
                seconds, cpu_seconds = zip(*(future.result() for future in futures), strict=True)
            found[count].append((max(seconds), max(cpu_seconds)))
        for count, times in found.items():
            seconds, cpu_seconds = zip(*times, strict=True)
            yield {"method": method, "workers": count, "seconds": min(seconds), "cpu_seconds": min(cpu_seconds)}


def as_rank(rank: int, count: int, folder: str, work: Callable[[], object]) -> tuple[float, float]:
    """Do some work as one of several ranks: its seconds, and those of this process's CPU, without the first time."""
    from torch.distributed import FileStore  # type: ignore[attr-defined]  # documented, but not in __all__

    from notbugs.runs import ranks

    store = FileStore(f"{folder}/store", count)
    for job in ("first", "second"):
        with ranks.in_job(ranks.Ranks(rank, count, store, job)), ranks.in_stage(Path(folder) / job):
            began, cpu_began = time.perf_counter(), time.process_time()
            work()
            found = time.perf_counter() - began, time.process_time() - cpu_began
    return found


def construct() -> None:
    """D_R of digits: 12 batches of 100."""
    from notbugs import construct, data, models

    digits = data.load("digits").train.select(slice(0, 1200))
    model = models.build("small", shape=digits.shape, classes=10, width=16)
    construct.invert_features(model, digits, steps=30, batch_size=100)


def train() -> None:
    """An epoch of adversarial training on images of 32x32."""
    import notbugs.train as train
    from notbugs import attacks, data, models
    from notbugs.search import NormBall

    images = data.load("planted", limit=2560).train
    model = models.build("small", shape=images.shape, classes=len(images.classes), width=16)
    attack = partial(attacks.training_pgd, threat_model=NormBall("l2", 0.5), steps=3)
    train.fit(model, images, train.adversarial_loss(attack), epochs=1)


if __name__ == "__main__":
    main()
