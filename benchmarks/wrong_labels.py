"""Why the errors of an undertrained model teach: how wrong their labels are, and what is learned where no image shows them.

    python benchmarks/wrong_labels.py runs/cifar-full --out benchmarks/results/wrong-labels.json

RUN is a finished study with all controls (`--full`). Its set `misclassified-only` holds the images that an undertrained model
misclassifies, with that model's predictions as labels. Two questions:

evidence     does an image show the class of its wrong label? A standard and an adversarially trained model, trained on one half
             of the training images, rank the wrong classes of each image of the other half by their logits. Rank 1 is the
             likeliest wrong class. Of wrong labels drawn at random the mean rank is half of the number of classes.
training     test accuracy after training on images whose label ranks third or lower, first, on as many others, with permuted
             wrong labels, and on as many images of D_rand.

Stopped at any moment, the same command resumes with the rows that are missing.
"""

import argparse
from pathlib import Path

from harness import ResultsFile, argument_parser, measure, recorded_arguments  # the file beside this one


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__)
    found.add_argument("run", type=Path, metavar="RUN", help="a finished study with all controls")
    found.add_argument("--seeds", type=int, default=3, help="trainings on each subset")
    return found


def main() -> None:
    """Measure what is missing."""
    options = parser().parse_args()
    from wrong_labels_subsets import EVIDENCE, TRAINING, WrongLabels

    results, arguments = ResultsFile(options.out), recorded_arguments(options)
    wrong = WrongLabels.of_run(options.run)
    ranks = wrong.ranks()
    measure(results, EVIDENCE, wrong.evidence(ranks), arguments, key=("part", "subset", "model"))
    measure(results, TRAINING, wrong.trainings(ranks, options.seeds, results), arguments, key=("part", "subset", "seed"))


if __name__ == "__main__":
    main()
