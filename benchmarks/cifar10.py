"""The paper's figures on CIFAR-10, in pieces that can be stopped, and further measurements on the same models.

    python benchmarks/cifar10.py CIFAR10 --run runs/cifar10 --out benchmarks/results/cifar10-gpu.json --minutes 8
    python benchmarks/cifar10.py cifar8k.npz --run runs/cifar --out benchmarks/results/cifar10-cpu.json --width 8 --epochs 16

Stopped at any moment, by Ctrl-C or by --minutes, the same command resumes: finished stages and rows are kept. A study that is in
RUN already keeps its settings.

study        `notbugs run DATASET --replicate` in RUN, stage by stage: the paper's table, figure 3, seconds per stage, memory
autoattack   the ensemble and AutoAttack (torchattacks) on the adversarially trained and the D_R models, same images
storage      D_rand without true labels stored in 8 bits, as everywhere, and in 16-bit floats: what rounding costs
floor        image passes per second of each kind of work, in float32, in bfloat16 and (with --compile) compiled, relative to bare
             float32 passes of the same network, and of those relative to matrix products on the same device
versions     variants of D_R, and standard training on each

`python benchmarks/markdown_tables.py FILE.json` prints the tables.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, TimeLimit, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from study_benchmark import Benchmark

PARTS = ("study", "autoattack", "storage", "floor", "versions")
MEASURED_ANEW = {"study": ("study", "figure-3", "seconds", "total"), "floor": ("floor",)}  # whole, at each call


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, parts=PARTS, device="auto")
    found.add_argument("dataset", metavar="DATASET")
    found.add_argument("--run", type=Path, required=True, help="the study's folder")
    found.add_argument("--stages", nargs="+", default=[], help="of `study`: only these, without their seed, and what they need")
    found.add_argument("--limit", type=int, help="training images")
    found.add_argument("--seed", type=int, default=0, help="the first, of a new study")
    found.add_argument("--seeds", type=int, help="default: 3 in a new study, else as many as it has")
    found.add_argument("--network")
    found.add_argument("--width", type=int)
    found.add_argument("--epochs", type=int)
    found.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="as of `notbugs run`")
    found.add_argument("--compile", action="store_true", help="as of `notbugs run`")
    found.add_argument("--images", type=int, default=1000, help="test images of `autoattack` and `versions`")
    found.add_argument("--files", type=int, default=10**9, help="training images of `versions`")
    found.add_argument("--variants", nargs="+", default=[], help="of `versions`: only these")
    found.add_argument("--workers", type=int, default=1, help="stages at once")
    return found


def main() -> None:
    """Measure the parts that were asked for."""
    options = parser().parse_args()
    if options.out is None:
        parser().error("--out is required: this benchmark is resumed from it")
    import torch
    from study_benchmark import Benchmark

    from notbugs.allocator import keep_freed_memory

    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as the command line
    limit = TimeLimit(options.minutes)
    benchmark = Benchmark.of_study(options, limit)
    results = ResultsFile(options.out, device=benchmark.config.device)
    for part in options.parts:
        if limit.over:
            break
        for name in MEASURED_ANEW.get(part, ()):
            results.drop(part=name)
        measure(results, part, _work(part)(benchmark, results), recorded_arguments(options))


def _work(part: str) -> "Callable[[Benchmark, ResultsFile], Iterator[Row]]":
    """The function that measures a part."""
    from cifar10_study import autoattack, storage, study
    from cifar10_throughput import floor
    from cifar10_variants import versions

    return {"study": study, "autoattack": autoattack, "storage": storage, "floor": floor, "versions": versions}[part]


if __name__ == "__main__":
    main()
