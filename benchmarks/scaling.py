"""What it costs to do a stage elsewhere, or in several processes together, and how much memory a large set takes.

    python benchmarks/scaling.py [--parts executors ranks large-sets] [--out benchmarks/results/scaling.json]

Prints the tables of docs/scale.md.

executors: each executor's time beside that of the stage itself. A stage here writes one file and one row. Each needs the one
before it, so that the time from the end of the first to the end of the last is that of as many submissions, starts, publications
and entries in run.json. Workers have imported torch by then. Dask: a scheduler and workers as processes of this machine.
`in this process` is the stage and its record without any executor.

ranks: a construction and a training in 1 and 2 processes, as torchrun starts them, of one thread each.

large-sets: the peak memory of `notbugs split` with a tiny network, for a few generated JPEG files of 224x224 and for more, beside
a bare loop that decodes each image and takes it through the network. --in-memory: from how many bytes on images stay on disk,
lower than in notbugs, so that a few are as millions.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, TimeLimit, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from notbugs.runs.attempts import Attempt
    from notbugs.runs.engine import Engine
    from notbugs.runs.tables.row import Row as TableRow

PARTS = ("executors", "ranks", "large-sets")
SIDE, CLASSES = 224, 4  # of generated JPEG files


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, parts=PARTS)
    found.add_argument("--stages", type=int, default=40, help="of each measurement, after the first one")
    found.add_argument("--images", type=int, nargs=2, default=(5000, 20000), help="JPEG files, fewer and more")
    found.add_argument("--in-memory", type=int, default=2**25, help="bytes of images that are kept in memory")
    return found


def main() -> None:
    """Measure the parts that are asked for."""
    options = parser().parse_args()
    results = ResultsFile(options.out, packages=("distributed",))
    key, limit = ("part", "method", "workers", "images"), TimeLimit(options.minutes)
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "executors": lambda: _rows(options.stages),
        "ranks": _ranks,
        "large-sets": lambda: _memory(options.images, options.in_memory),
    }
    for part in options.parts:
        measure(results, part, parts[part](), recorded_arguments(options), key=key, limit=limit)


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


# ---- one stage in several processes --------------------------------------------------------------------------------------------


def _ranks() -> Iterator[Row]:
    from notbugs.runs.workers import WorkerProcesses

    for method, work in (("construction", construct), ("training", train)):
        for count in (1, 2):
            with WorkerProcesses(count, environments=[]) as executor, tempfile.TemporaryDirectory() as folder:
                futures = [executor.submit(as_rank, rank, count, folder, work) for rank in range(count)]
                seconds, cpu_seconds = zip(*(future.result() for future in futures), strict=True)
            yield {"method": method, "workers": count, "seconds": max(seconds), "cpu_seconds": max(cpu_seconds)}


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
    """D_R of the digits: 13 batches of 100."""
    from notbugs import construct, data, models

    digits = data.load("digits").train.select(slice(0, 1300))
    model = models.build("small", shape=digits.shape, classes=10, width=16)
    construct.invert_features(model, digits, steps=30, batch_size=100)


def train() -> None:
    """An epoch of adversarial training on images of 32x32."""
    from notbugs import attacks, data, models, train
    from notbugs.search import NormBall

    images = data.load("planted", limit=640).train
    model = models.build("small", shape=images.shape, classes=len(images.classes), width=16)
    attack = partial(attacks.pgd, threat_model=NormBall("l2", 0.5), steps=3, loss="cross_entropy")
    train.fit(model, images, train.adversarial_loss(attack), epochs=1)


# ---- memory --------------------------------------------------------------------------------------------------------------------

MEASURED = """
import json, re, sys, threading, time
peak = 0
def held(name):
    return int(re.findall(name + r":\\s*(\\d+) kB", open("/proc/self/status").read())[0]) / 1024
def look():
    global peak
    while True:
        peak = max(peak, held("RssAnon"))
        time.sleep(0.01)
threading.Thread(target=look, daemon=True).start()
folder, in_memory = sys.argv[1], int(sys.argv[2])
from notbugs import models
"""
BARE = """
import numpy as np, torch
from pathlib import Path
from PIL import Image
network = models.build("small", shape=(3, 224, 224), classes=4, width=2).eval()
files = sorted(Path(folder).rglob("*.jpg"))
with torch.no_grad():
    for start in range(0, len(files), 100):
        batch = np.stack([np.asarray(Image.open(file)) for file in files[start : start + 100]])
        network(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255)
"""
SPLIT = """
from notbugs.data import columns, images
from notbugs.study import pipeline
from notbugs.study.config import StudyConfig
columns.IN_MEMORY = images.IN_MEMORY = in_memory
config = StudyConfig(folder, epochs=1, width=2, epsilon=0.5, seeds=1, adversarial_steps=1, invert_steps=1, flip=False)
pipeline.run(config, sys.argv[3], only=("dataset-robust", "dataset-nonrobust"), workers=1)
"""
REPORT = 'print(json.dumps({"peak_mib": max(peak, held("RssAnon")), "cpu_seconds": time.process_time()}))'


def _memory(counts: Sequence[int], in_memory: int) -> Iterator[Row]:
    import json

    for count in counts:
        with tempfile.TemporaryDirectory() as place:
            write_jpegs(Path(place) / "images", count)
            for method, code in (("decode and forward", BARE), ("notbugs split", SPLIT)):
                words = [sys.executable, "-c", MEASURED + code + REPORT, f"{place}/images", str(in_memory), f"{place}/run"]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                yield {"method": method, "workers": 1, "images": count, **json.loads(done.stdout.splitlines()[-1])}


def write_jpegs(folder: Path, count: int) -> None:
    """Smooth random images of some classes."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(count):
        place = folder / str(number % CLASSES)
        place.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(generator.integers(0, 256, (14, 14, 3), np.uint8))
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place / f"{number:06d}.jpg", quality=90)


if __name__ == "__main__":
    main()
