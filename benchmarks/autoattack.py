"""The ensemble behind every verdict beside AutoAttack (as torchattacks ships it): who leaves fewer images, in what time.

    python benchmarks/autoattack.py runs/demo adversarial-seed1 --radius 0.75 [--images 450]

NAME: a model of the run, with its seed. One thread; the two take turns on the same test images, spread evenly, in L2.
"""

import argparse
import time
from pathlib import Path

import torch
import torchattacks

from notbugs import metrics, models
from notbugs.runs.folder import RunFolder
from notbugs.search import NormBall
from notbugs.study import config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--radius", type=float, required=True)
    parser.add_argument("--images", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)

    asked = config.StudyConfig(**RunFolder.read(options.run).metadata["asked"])
    _, found, seed = options.name.partition("-seed")
    part = config.load(asked, int(seed) if found else asked.seed).test
    part = (
        part.select(slice(0, None, len(part) // options.images)) if options.images else part
    )  # evenly: folders go class by class
    model, _ = models.load(options.run / "models" / f"{options.name}.safetensors", asked.network)
    images, labels = part.pixels(slice(None)), part.labels

    began = time.perf_counter()
    ours = metrics.robust_accuracy(model, part, [NormBall("l2", options.radius)])[-1]["correct"]
    middle = time.perf_counter()
    attack = torchattacks.AutoAttack(model, norm="L2", eps=options.radius, n_classes=len(part.classes), seed=0)
    attacked = attack(images, labels)
    end = time.perf_counter()
    with torch.no_grad():
        theirs = int((model(attacked).argmax(1) == labels).sum())
    print(
        f"{options.run} {options.name}, L2 {options.radius:g}, {len(part)} images: the ensemble leaves {ours} in "
        f"{middle - began:.0f} s, AutoAttack {theirs} in {end - middle:.0f} s"
    )


if __name__ == "__main__":
    main()
