"""Part `memory` of attacks.py: peak memory of an ensemble evaluation and of a single pass, each in a fresh process."""

import multiprocessing
import re
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from attacks_common import BATCH_SIZE, SEED, Benchmark, about
from harness import Row

from notbugs import attacks, data, metrics, models, stats
from notbugs.search import NormBall

THREAT_MODEL = NormBall("linf", 2 / 255)  # at 8/255 few images would reach the costly attacks
ENSEMBLE = f"{attacks.ensemble_name('standard')} on all images"
PASS = "one forward and backward pass of one batch"
FUSED_PASS = "the same with fused batch norm"
DATASET = "the dataset alone"
ABOVE = {"above_one_pass_mib": PASS, "above_fused_pass_mib": FUSED_PASS, "above_dataset_mib": DATASET}


def memory(benchmark: Benchmark, path: Path) -> Iterator[Row]:
    """Each kind of work twice, in turns; medians."""
    count = 20 * benchmark.images
    peaks: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for work in (ENSEMBLE, PASS, FUSED_PASS, DATASET) * 2:
        started = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks.setdefault(work, []).append(pool.apply(peak_memory, (work, path, count)))
        seconds.setdefault(work, []).append(time.perf_counter() - started)
    mib = {work: median(values) for work, values in peaks.items()}
    for work in mib:
        above = {column: mib[work] - mib[other] for column, other in ABOVE.items()} if work == ENSEMBLE else {}
        common = {**about("small, width 8, untrained", THREAT_MODEL, count), "tool": "notbugs", "work": work}
        yield {**common, "peak_mib": mib[work], **above, "seconds": median(seconds[work]), "rounds": 2}


def peak_memory(work: str, path: Path, count: int) -> float:
    """MiB that this process has held at most: the data set, repeated to `count` images, and one kind of work on it.

    Read from VmHWM and not from `ru_maxrss`, which counts what the parent process held, too.
    """
    torch.set_num_threads(1)
    dataset = data.load(str(path)).test
    dataset = dataset.select(torch.arange(count) % len(dataset))
    model = models.build("small", shape=dataset.shape, classes=10, width=8, seed=SEED).eval().requires_grad_(False)
    starts = range(0, count, 20)  # few images at a time: the peak must be that of the work
    dataset = dataset.with_labels(torch.cat([model(dataset.pixels(slice(i, i + 20))).argmax(1) for i in starts]))
    stats.wilson_interval(1, 2)  # or the import of scipy would count as memory of the ensemble
    if work == ENSEMBLE:
        metrics.robust_accuracy(model, dataset, [THREAT_MODEL], batch_size=BATCH_SIZE)
    elif work != DATASET:
        forward = models.fuse_batchnorm(model, dataset.pixels(slice(0, 2))) if work == FUSED_PASS else model
        images = dataset.pixels(slice(0, BATCH_SIZE)).requires_grad_()
        torch.autograd.grad(F.cross_entropy(forward(images), dataset.labels[:BATCH_SIZE]), images)
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) / 1024
