"""Do the scores of `notbugs files` separate robust from non-robust files? Training on halves, other scores, known features.

    python benchmarks/files.py planted --runs runs --out benchmarks/results/files-planted.json
    python benchmarks/files.py digits  --runs runs --out benchmarks/results/files-digits.json
    python benchmarks/files.py cifar8k.npz --runs runs --out benchmarks/results/files-cifar10.json --repeats 2 --test 500

The files are scored twice, with the seeds 0 and 1, in RUNS/NAME-seed0 and -seed1, as by `notbugs files`: stopped, it is resumed.
`regression` and `halves` need the first scoring only, or that of --scoring SEED.

regression    with --subset-regression PAIRS: the separation of each pair of halves, and the weight of each score, as of
              `notbugs files`. In `halves` its columns are the scores "subset regression" and "subset regression, equal clean
              accuracy"
halves        standard training on the upper and on the lower half of the files by each score (class-balanced, equal in size), and
              on random halves: clean accuracy, robust accuracy at half of epsilon and at epsilon, under the standard ensemble
stability     Spearman's rank correlation of each column between the two scorings
label-errors  the data set with the labels of a share of the files changed (`--relabeled`): which scores find them, and how many
              labels each rule calls wrong, from the same out-of-fold predictions
truth         `planted` only: whether files with a wrong or missing shape, and the background, are found
feature-truth `planted` only: category and evidence of features of each kind
oracle        `planted` with a shape of another class in half of the files: halves by the truth beside halves by the scores
cost          CPU seconds of the scoring over those of the trainings in it
features      seconds of `notbugs features` on a full-width ResNet-18, 512 features, and the test part; all cores

Halves of equal difficulty (`--stratify`): each class in ten strata by the standard models' margin, the upper half of each by the
score. `--half-random`: half of the files of each class are divided by the score, the others at random. Combined
scores, which these options and `--scores` take by name, are in files_candidates.py.

The separation of a score is the robust accuracy of the upper half minus that of the lower half, in percentage points, mean over
both epsilons and all trainings: `python benchmarks/markdown_tables.py FILE.json` prints it.

Other scores: loss, margin, mean confidence over epochs (dataset cartography, Swayamdipta et al. 2020) and forgetting events
(Toneva et al. 2019) of the standard models; PGD steps (GAIRAT, Zhang et al. 2021) and margin (margin consistency, Ngnawé et al.
2024) of the robust models; cleanlab's label quality. All are out of fold, from the same cross-fitted models. One thread per
process.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, TimeLimit, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from files_scoring import Benchmark

PARTS = ("regression", "halves", "stability", "label-errors", "truth", "feature-truth", "oracle", "cost", "features")
PACKAGES = ("cleanlab", "scipy", "numpy")


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, parts=PARTS)
    found.add_argument("dataset", metavar="DATASET")
    found.add_argument("--runs", type=Path, required=True, help="folder of the two scorings")
    found.add_argument("--scoring", type=int, default=0, metavar="SEED", help="whose scores `regression` and `halves` use")
    found.add_argument("--repeats", type=int, default=3, help="as of `notbugs files`")
    found.add_argument("--scores", nargs="+", default=[], help="train on halves by these only; others can follow")
    found.add_argument("--stratify", nargs="+", default=[], metavar="SCORE", help="also halves of equal difficulty by these")
    found.add_argument("--half-random", nargs="+", default=[], metavar="SCORE", help="also halves half of which is random")
    found.add_argument("--trainings", type=int, default=5, help="of each half")
    found.add_argument("--first-training", type=int, default=0, metavar="SEED", help="seed of the first; the others follow")
    found.add_argument("--random", type=int, default=3, help="random halves")
    found.add_argument("--subset-regression", type=int, default=0, metavar="PAIRS", help="as of `notbugs files`")
    found.add_argument("--test", type=int, default=10**9, help="test images, evenly spaced")
    found.add_argument("--max-files", type=int, default=0, help="files of `label-errors` and `cost`; 0: all")
    found.add_argument("--relabeled", nargs="+", type=float, default=[0.0, 0.05], help="shares of `label-errors`")
    found.add_argument("--limit", type=int, help="as of `notbugs files`")
    found.add_argument("--resize", type=int, help="as of `notbugs files`")
    found.add_argument("--resize-mode", default="crop", help="as of `notbugs files`")
    found.add_argument("--workers", type=int, default=os.cpu_count(), help="folds or trainings at once")
    return found


def main() -> None:
    """Measure the parts that were asked for."""
    options = parser().parse_args()
    import torch
    from files_scoring import Benchmark

    torch.set_num_threads(options.threads)
    results, limit = ResultsFile(options.out, packages=PACKAGES), TimeLimit(options.minutes)
    benchmark = Benchmark(options)
    for part in options.parts:
        if limit.over:
            break
        if part not in ("regression", "halves"):  # which are resumed
            results.drop(part=part, dataset=benchmark.name)
        scoring = {"scoring": options.scoring} if options.scoring and part in ("regression", "halves") else {}
        rows = ({"dataset": benchmark.name, **scoring, **row} for row in _work(part)(benchmark, results))
        measure(results, part, rows, recorded_arguments(options), limit=limit)


def _work(part: str) -> "Callable[[Benchmark, ResultsFile], Iterator[Row]]":
    """The function that measures a part."""
    from files_halves import halves
    from files_regression import regression
    from files_scoring import cost, features, label_errors, stability
    from files_truth import feature_truth, oracle, truth

    return {
        "regression": regression,
        "halves": halves,
        "stability": stability,
        "label-errors": label_errors,
        "truth": truth,
        "feature-truth": feature_truth,
        "oracle": oracle,
        "cost": cost,
        "features": features,
    }[part]


if __name__ == "__main__":
    main()
