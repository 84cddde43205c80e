"""How long a study takes, as estimated before it starts and as measured: three small studies.

    python benchmarks/estimate.py FOLDER [--studies digits mnist photographs] [--out benchmarks/results/estimate.json]

FOLDER is for the studies' run folders and for the images of `photographs`: crops of two photographs, of 48x48 pixels, in a folder
per class. Both times are CPU seconds of one process with one thread: on an idle machine those are the seconds that one worker
takes, and other work slows them less than those of the clock. Loading the libraries and writing the report are in neither.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ResultsFile, Row, TimeLimit, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from notbugs.study.config import StudyConfig
    from notbugs.study.plan import Plan

STUDIES = ("digits", "mnist", "photographs")
PHOTOGRAPHS, PHOTOGRAPH_TESTS = 300, 60  # crops, and how many of them are test images
SIDE = 48


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__)
    found.add_argument("folder", type=Path, metavar="FOLDER")
    found.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    return found


def main() -> None:
    """Estimate and run each study."""
    options = parser().parse_args()
    import torch

    torch.set_num_threads(options.threads)
    results = ResultsFile(options.out)
    rows = (_row(name, options.folder) for name in options.studies)
    measure(results, "estimate", rows, recorded_arguments(options), key=("part", "dataset"), limit=TimeLimit(options.minutes))


def _row(name: str, folder: Path) -> Row:
    """One study, new in its folder."""
    import shutil

    from notbugs.study import cost, pipeline

    cost.CLOCK = time.process_time
    plans: list[tuple[Plan, float]] = []

    def on_plan(plan: "Plan") -> None:
        plans.append((plan, time.process_time()))

    shutil.rmtree(folder / name, ignore_errors=True)
    pipeline.run(_config(name, folder), folder / name, workers=1, on_plan=on_plan)
    (plan, began), *_ = plans
    seconds, predicted = time.process_time() - began, sum(plan.stages.values())  # without the start, which was before
    return {
        "dataset": name,
        "settings": {"epochs": plan.config.epochs, "network": plan.config.network, "width": plan.config.width},
        "training_images": len(plan.splits.train),
        "images": len(plan.splits.test),
        "predicted_cpu_seconds": predicted,
        "cpu_seconds": seconds,
        "predicted_ratio": predicted / seconds,
    }


def _config(name: str, folder: Path) -> "StudyConfig":
    from notbugs.study.config import StudyConfig

    if name == "digits":
        return StudyConfig("digits", limit=400, epochs=6, seeds=1)
    if name == "mnist":
        return StudyConfig("mnist5k", limit=600)
    if not (folder / "images").exists():
        _save_photographs(folder / "images")
    return StudyConfig(str(folder / "images"), epochs=8)


def _save_photographs(folder: Path) -> None:
    """Crops of two photographs as a labeled folder: the class is the photograph."""
    import torch

    from notbugs import data

    classes = ("temple", "flower")  # crops are of one and of the other in turn
    shape = data.Dataset(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8), torch.tensor([0]), classes, ("like.png",))
    crops = data.photo_crops(PHOTOGRAPHS, shape, seed=0)
    for number in range(len(crops)):
        part = "test" if number < PHOTOGRAPH_TESTS else "train"
        data.save_image(crops.pixels([number])[0], folder / part / classes[number % 2] / f"{number:04d}.png")


if __name__ == "__main__":
    main()
