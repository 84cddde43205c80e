"""The attacks beside those of other tools: strength, speed, smallest perturbations, one pixel, memory.

    python benchmarks/attacks.py --data cifar8k.npz --models models [--out benchmarks/results/attacks.json]
        [--parts strength gradient-masking speed minimum-norm one-pixel memory] [--images 500] [--autoattack-images 40]
        [--minimum-norm-images 100] [--rounds 5]

The folder of models has four, each trained by one command; a missing one is left out:

    notbugs train cifar8k.npz --out models/standard.safetensors --epochs 12
    notbugs train cifar8k.npz --out models/linf.safetensors --loss adversarial --norm linf --epsilon 8/255 --epochs 12
    notbugs train cifar8k.npz --out models/l2.safetensors --loss adversarial --norm l2 --epsilon 0.5 --epochs 12
    notbugs train cifar8k.npz --out models/trades.safetensors --loss trades --norm linf --epsilon 8/255 --epochs 12

strength          images still classified correctly under the ensemble and under AutoAttack (fewer: a stronger attack), and on a
                  linear model, where the answer is known
gradient-masking  the same on models with masked gradients, beside PGD-50
speed             PGD-20 beside foolbox, torchattacks, ART and a bare loop, and the cross-entropy that each reaches
minimum-norm      the smallest perturbation found, beside foolbox and torchattacks, at no more gradients than those get
one-pixel         one pixel, beside differential evolution with as many queries (Su et al. 2019)
memory            peak memory of a whole ensemble evaluation and of a single pass, in MiB

All tools get the same images, evenly spaced over the test set, and the same model, on one thread of the CPU. The model is frozen,
except in `speed`: there its parameters require gradients, as those of a model that was just trained do. The time of notbugs
includes fusing batch norm. The tools take turns. Seconds are medians over rounds, wall-clock and CPU; `time_ratio` is the median
over rounds of a tool's seconds over those of notbugs. `speed` has several rounds, `memory` two, the others one. A row measured
again replaces the old one. ART takes part if adversarial-robustness-toolbox is installed; torchattacks is required.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, TimeLimit, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from attacks_common import Benchmark

PARTS = ("strength", "gradient-masking", "speed", "minimum-norm", "one-pixel", "memory")
PACKAGES = ("foolbox", "torchattacks", "adversarial-robustness-toolbox", "scipy")
KEY = ("part", "model", "norm", "epsilon", "tool", "work", "candidates", "steps")  # a row measured again has the same values


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, parts=PARTS)
    found.add_argument("--data", type=Path, required=True, help="the data set, CIFAR-10 or a part of it (.npz)")
    found.add_argument("--models", type=Path, required=True, help="folder of the trained models")
    found.add_argument("--images", type=int, default=500, help="test images")
    found.add_argument("--autoattack-images", type=int, default=40, help="where AutoAttack takes seconds per image")
    found.add_argument("--minimum-norm-images", type=int, default=100, help="for `minimum-norm`")
    found.add_argument("--rounds", type=int, default=5, help="of `speed`")
    return found


def main() -> None:
    """Measure the parts that were asked for."""
    options = parser().parse_args()
    import torch
    from attacks_common import SEED, load_benchmark

    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # those of the other tools
    benchmark, missing = load_benchmark(options)
    for path in missing:
        print(f"{path}: no such model, left out")
    arguments = recorded_arguments(options) | {"seed": SEED, "missing_models": [path.stem for path in missing]}
    results, limit = ResultsFile(options.out, packages=PACKAGES), TimeLimit(options.minutes)
    for part in options.parts:
        if not limit.over:
            measure(results, part, _work(part, benchmark, options.data), arguments, key=KEY, limit=limit)


def _work(part: str, benchmark: "Benchmark", dataset: Path) -> Iterator[Row]:
    """The rows of one part. Imported here: `--help` then needs none of the other tools."""
    from attacks_memory import memory
    from attacks_minimum_norm import minimum_norms
    from attacks_one_pixel import one_pixel
    from attacks_speed import speed
    from attacks_strength import gradient_masking, strength

    work: dict[str, Callable[[], Iterator[Row]]] = {
        "strength": partial(strength, benchmark),
        "gradient-masking": partial(gradient_masking, benchmark),
        "speed": partial(speed, benchmark),
        "minimum-norm": partial(minimum_norms, benchmark),
        "one-pixel": partial(one_pixel, benchmark),
        "memory": partial(memory, benchmark, dataset),
    }
    return work[part]()


if __name__ == "__main__":
    main()
