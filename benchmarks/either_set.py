"""What limits the accuracy of a classifier trained on D_R on the images of D_NR, and the other way round: the starting image.

    python benchmarks/either_set.py cifar8k.npz --limit 4000 --width 8 --epochs 16 --out benchmarks/results/either-set.json

Each image of D_R and D_NR begins as another training image and is changed until one model has the wanted features for it. What
that model does not use stays as it was, in most cases with the evidence of another class. Hence two starts:

another image   drawn at random, as in a study
the same class  another image of the same class: what stays speaks for the label, too

With each of them both sets are made and a classifier is trained on each, as in a study. Measured for each seed: accuracy of both
classifiers on 1,000 images of either set, and how often they predict the class of the starting image, of the images whose start
has another class; on 300 test images clean accuracy and robust accuracy.

Stopped at any moment, the same command resumes with the seeds that are missing.
"""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, argument_parser, measure, recorded_arguments, resolve_device  # the file beside this one

if TYPE_CHECKING:
    from torch import Tensor

    from notbugs.data import Dataset
    from notbugs.models import Model
    from notbugs.study.config import ResolvedConfig

PART = "either-set"
STARTS = ("another image", "the same class")
SOURCES = {"D_R": "adversarial", "D_NR": "standard"}  # of each set
IMAGES, ATTACKED = 1000, 300  # of either set, and test images


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, device="auto")
    found.add_argument("dataset", metavar="DATASET")
    found.add_argument("--seeds", type=int, default=3)
    for name in ("limit", "width", "epochs"):
        found.add_argument(f"--{name}", type=int, help="as of `notbugs run`")
    return found


def main() -> None:
    """Measure the seeds that are missing."""
    options = parser().parse_args()
    import torch

    from notbugs.allocator import keep_freed_memory

    torch.set_num_threads(options.threads)
    keep_freed_memory()
    results = ResultsFile(options.out, device=resolve_device(options.device))
    measure(results, PART, _measured(options, results), recorded_arguments(options))


def _measured(options: argparse.Namespace, results: ResultsFile) -> Iterator[Row]:
    from pathlib import Path

    from notbugs.study.config import StudyConfig, load
    from notbugs.study.resolve import resolve

    settings = {name: getattr(options, name) for name in ("limit", "width", "epochs")}
    # without noise, as the rows that are there
    asked = StudyConfig(options.dataset, device=results.device, adversarial_noise=0.0, **settings)
    config, dataset = resolve(asked, load(asked)), Path(options.dataset).stem
    train = load(config).train
    if train.labels.bincount(minlength=len(train.classes)).min() < 2:
        raise SystemExit(f"{options.dataset}: each class must have two training images or more, to start from another one")
    known = {"dataset": dataset, "files": len(train), "width": config.width, "epochs": config.epochs}
    for seed in range(options.seeds):
        if not results.has(**known, seed=seed, start=STARTS[-1], model="D_NR", set="test"):  # the last row of a seed
            results.drop(**known, seed=seed)
            yield from ({**known, "seed": seed, **row} for row in measured(config, seed))


def measured(config: "ResolvedConfig", seed: int) -> Iterator[Row]:
    """The rows of one seed."""
    from notbugs import construct, data, metrics
    from notbugs.study.config import load

    splits = load(config, seed)
    train, test = splits.train, data.balanced_subset(splits.test, ATTACKED)
    sources = {name: trained(config, source, train, seed) for name, source in SOURCES.items()}
    for start in STARTS:
        index = starts(train.labels, seed, same_class=start == STARTS[1])
        sets = {
            name: construct.invert_features(
                source, train, start=index, steps=config.invert_steps, seed=seed, bf16=config.bf16, device=config.device
            ).dataset
            for name, source in sources.items()
        }
        models = {
            name: trained(config, f"trained-on-{kind}", sets[name], seed)
            for name, kind in (("D_R", "robust"), ("D_NR", "nonrobust"))
        }
        for name, model in models.items():
            for other, images in sets.items():
                yield {"start": start, "model": name, "set": other, **_on_set(config, model, images, train.labels[index])}
            clean, half, full = metrics.robust_accuracy(model, test, config.threat_models, device=config.device)
            row = {
                "clean_accuracy": clean.accuracy,
                "robust_accuracy_half_epsilon": half.accuracy,
                "robust_accuracy": full.accuracy,
            }
            yield {"start": start, "model": name, "set": "test", "n": clean.n, **row}


def starts(labels: "Tensor", seed: int, *, same_class: bool) -> "Tensor":
    """The index of the starting image of each image, another one: (N,). Each is used once.

    same_class: its class is that of the image.
    """
    import torch

    generator, index = torch.Generator().manual_seed(seed), torch.arange(len(labels))
    groups = [(labels == label).nonzero().squeeze(1) for label in set(labels.tolist())] if same_class else [index]
    found = index.clone()
    for group in groups:
        order = group[torch.randperm(len(group), generator=generator)]
        found[order] = order.roll(1)
    return found


def trained(config: "ResolvedConfig", name: str, dataset: "Dataset", seed: int) -> "Model":
    """A classifier of a study."""
    from notbugs.runs.scheduler import ignore_progress
    from notbugs.study.catalog.models import MODELS
    from notbugs.study.classifiers import train_classifier

    return train_classifier(config, dataset, MODELS[name], seed=seed, report_progress=ignore_progress).model


def _on_set(config: "ResolvedConfig", model: "Model", dataset: "Dataset", start_labels: "Tensor") -> Row:
    """Accuracy on the images of a set, and how often the class of the start is predicted where it is another."""
    from notbugs import data
    from notbugs.predict import predict

    index = data.evenly_spaced(min(IMAGES, len(dataset)), len(dataset))
    images = dataset.select(index)
    predicted, of_start = predict(model, images, config.device), start_labels[index]
    other = of_start != images.labels
    row: Row = {"n": len(images), "accuracy": (predicted == images.labels).float().mean().item()}
    if other.any():
        row["start_class_share"] = (predicted == of_start)[other].float().mean().item()
    return row


if __name__ == "__main__":
    main()
