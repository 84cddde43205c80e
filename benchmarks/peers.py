"""The same work by notbugs and by the tools that people use for it: one table with times, ratios and what comes out.

    git clone https://github.com/fra31/auto-attack
    pip install foolbox adversarial-robustness-toolbox dill pandas tqdm tensorboardX torchvision
    pip install --no-deps torchattacks robustness cox
    python benchmarks/peers.py cifar8k.npz --run runs/cifar --original auto-attack --out benchmarks/results/peers.json

RUN is a study's folder with the models `standard` and `adversarial`. All tools get the same model, images and labels on the same
device, and take turns. A tool that is not installed has a row that says so. Rows that are measured again replace the old ones.

pgd                   PGD-20 on the cross-entropy of the adversarial model, at the study's ε: notbugs, foolbox, torchattacks, ART
                      and a bare loop
apgd                  APGD-CE with 100 steps from a random start: notbugs, torchattacks, ART and the code of AutoAttack's authors
autoattack            `ensemble-standard` and `ensemble-thorough` beside AutoAttack of its authors, of torchattacks (10 steps for
                      each gradient attack) and of ART
relabeling            D_rand from the standard model: notbugs and the paper's library (`robustness`)
robust-version        D_R from the adversarial model: notbugs and the paper's library, each with its own settings, and at equal
                      steps
adversarial-training  one epoch in the study's norm: notbugs, the paper's library and ART

The shortest of the rounds counts; `autoattack` has one round. `cpu_time_ratio` is the CPU time over that of the first row of
notbugs in the same part, which has its default settings; on a GPU the time that has passed is divided. The last three parts are
those of reference_library.py, which says more about them.
"""

import argparse
import io
import warnings
from collections.abc import Iterator
from contextlib import nullcontext, redirect_stderr
from pathlib import Path

from harness import (  # the file beside this one
    ResultsFile,
    Row,
    TimeLimit,
    argument_parser,
    measure,
    recorded_arguments,
    require_study,
    study_arguments,
)

PARTS = ("pgd", "apgd", "autoattack", "relabeling", "robust-version", "adversarial-training")
PACKAGES = ("foolbox", "torchattacks", "adversarial-robustness-toolbox", "robustness")
KEY = ("part", "work", "tool", "method", "steps")  # a row measured again has the same values


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, parts=PARTS, device="cpu")
    study_arguments(found)
    found.add_argument("--original", type=Path, metavar="FOLDER", help="a clone of the code of AutoAttack")
    found.add_argument("--images", type=int, default=200, help="attacked, relabeled or inverted")
    found.add_argument("--autoattack-images", type=int, default=50, help="of `autoattack`, which takes seconds for each")
    found.add_argument("--batch-size", type=int, default=250, help="of all tools, but for training")
    found.add_argument("--library-steps", type=int, default=1000, help="of the inversion of `robustness`; 1000: the paper's")
    return found


def main() -> None:
    """Measure the parts that were asked for; rows of the others stay in the file."""
    options = parser().parse_args()
    require_study(parser(), options)
    import torch
    from peers_work import WORK
    from reference_adapter import without_cuda
    from reference_library import check_models
    from study_benchmark import Benchmark

    warnings.simplefilter("ignore")  # those of the other tools
    torch.set_num_threads(options.threads)
    limit = TimeLimit(options.minutes)
    options.methods = ["best"]  # of the library's inversion: its default
    benchmark = Benchmark.of_study(options, limit)
    options.seed = benchmark.config.seed if options.seed is None else options.seed
    check_models(benchmark, parser())
    results = ResultsFile(options.out, device=benchmark.config.device, packages=PACKAGES)
    with redirect_stderr(io.StringIO()), without_cuda() if benchmark.config.device == "cpu" else nullcontext():  # progress bars
        for part in options.parts:
            if limit.over:
                break
            rows: Iterator[Row] = ({"work": part, **row} for row in WORK[part](benchmark))
            measure(results, "peers", rows, recorded_arguments(options), key=KEY)


if __name__ == "__main__":
    main()
