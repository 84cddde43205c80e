"""The ensemble behind every robust accuracy beside AutoAttack (of torchattacks): images still classified correctly, seconds.

    python benchmarks/autoattack.py runs/digits adversarial-seed1 --epsilon 0.75 [--images 450] [--out FILE.json]

MODEL: a file of RUN/models without its suffix. The two take turns on the same test images, evenly spaced, in L2, on one thread.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from harness import ResultsFile, Row, argument_parser, measure, recorded_arguments  # the file beside this one


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__)
    found.add_argument("run", type=Path, metavar="RUN")
    found.add_argument("model", metavar="MODEL")
    found.add_argument("--epsilon", type=float, required=True)
    found.add_argument("--images", type=int)
    return found


def main() -> None:
    """Measure both on one model."""
    options = parser().parse_args()
    import torch

    torch.set_num_threads(options.threads)
    results = ResultsFile(options.out, packages=("torchattacks",))
    key = ("part", "dataset", "model", "norm", "epsilon")
    measure(results, "autoattack", _compare(options), recorded_arguments(options), key=key)


def _compare(options: argparse.Namespace) -> Iterator[Row]:
    """The one row."""
    import torch
    import torchattacks

    from notbugs import metrics, models
    from notbugs.runs.folder import RunFolder
    from notbugs.search import NormBall
    from notbugs.study.config import config_of_run, load

    path = options.run / "models" / f"{options.model}.safetensors"
    config = config_of_run(RunFolder.read(options.run))
    model, metadata = models.load(path, config.network)
    test = load(config, metadata.seed).test
    if options.images:
        test = test.select(slice(0, None, len(test) // options.images))  # evenly spaced: folders are sorted by class
    images, labels = test.pixels(slice(None)), test.labels
    started = time.perf_counter()
    found = metrics.robust_accuracy(model, test, [NormBall("l2", options.epsilon)])[-1]
    middle = time.perf_counter()
    attack = torchattacks.AutoAttack(model, norm="L2", eps=options.epsilon, n_classes=len(test.classes), seed=0)
    perturbed = attack(images, labels)
    end = time.perf_counter()
    with torch.no_grad():
        correct = int((model(perturbed).argmax(1) == labels).sum())
    yield {
        "dataset": config.dataset,
        "model": options.model,
        "norm": "l2",
        "epsilon": options.epsilon,
        "n": len(test),
        "correct": found.correct,
        "autoattack_correct": correct,
        "seconds": middle - started,
        "autoattack_seconds": end - middle,
    }


if __name__ == "__main__":
    main()
