"""The ensemble behind every robust accuracy beside the original AutoAttack: images still classified correctly, seconds.

    git clone https://github.com/fra31/auto-attack
    python benchmarks/autoattack.py runs/digits/models/adversarial.safetensors digits l2:0.75 --original auto-attack \\
        [--attacks apgd-ce apgd-t fab-t square] [--images 500] [--out FILE.json]

Both attack the same test images, evenly spaced, in one batch, on one thread. `--attacks` leaves out the slow ones.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import ResultsFile, Row, argument_parser, measure, recorded_arguments  # the file beside this one

if TYPE_CHECKING:
    from torch import nn

    from notbugs.search import NormBall

ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
NAMES = {"l2": "L2", "linf": "Linf", "l1": "L1"}


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__)
    found.add_argument("model", type=Path, metavar="MODEL", help="a .safetensors file of notbugs")
    found.add_argument("dataset", metavar="DATASET")
    found.add_argument("threat", metavar="THREAT", help="l2:0.5, linf:8/255 or l1:10")
    found.add_argument("--original", type=Path, required=True, metavar="FOLDER", help="a clone of fra31/auto-attack")
    found.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS), help="of AutoAttack")
    found.add_argument("--budget", default="standard", help="of the ensemble")
    found.add_argument("--images", type=int, default=500, help="test images, evenly spaced")
    return found


def main() -> None:
    """Measure both on one model."""
    options = parser().parse_args()
    import torch

    torch.set_num_threads(options.threads)
    key = ("part", "dataset", "model", "norm", "epsilon", "attack", "autoattack")
    measure(ResultsFile(options.out), "beside-autoattack", _compare(options), recorded_arguments(options), key=key)


def _compare(options: argparse.Namespace) -> Iterator[Row]:
    """The one row."""
    import torch

    from notbugs import allocator, attacks, data, models
    from notbugs.data import DataConfig
    from notbugs.data.subset import evenly_spaced
    from notbugs.search import NormBall
    from notbugs.search.threat_models import parse_threat_model

    allocator.keep_freed_memory()
    test = data.load_dataset(DataConfig(options.dataset)).test
    test = test.select(evenly_spaced(min(options.images, len(test)), len(test)))
    images, labels, threat_model = test.pixels(slice(None)), test.labels, parse_threat_model(options.threat)
    assert isinstance(threat_model, NormBall)
    model = models.fuse_batchnorm(models.load(options.model)[0], images[:2])
    original = _original(options, model, threat_model, len(test.classes))
    started = time.process_time()
    found = attacks.adaptive_ensemble(
        model, images, labels, threat_model=threat_model, budget=options.budget, batch_size=len(images)
    )
    middle = time.process_time()
    perturbed = original.run_standard_evaluation(images, labels, bs=len(images))
    end = time.process_time()
    with torch.no_grad():
        robust, robust_autoattack = found.margins < 0, model(perturbed).argmax(1) == labels
    yield {
        "dataset": options.dataset,
        "model": f"{options.model.parent.parent.name}/{options.model.stem}",
        "norm": threat_model.norm,
        "epsilon": float(threat_model.epsilon),
        "attack": attacks.ensemble_name(options.budget),
        "autoattack": " ".join(options.attacks),
        "n": len(test),
        "correct": int(robust.sum()),
        "autoattack_correct": int(robust_autoattack.sum()),
        "only_ensemble": int((~robust & robust_autoattack).sum()),
        "only_autoattack": int((robust & ~robust_autoattack).sum()),
        "seconds": middle - started,
        "autoattack_seconds": end - middle,
    }


def _original(options: argparse.Namespace, model: "nn.Module", threat_model: "NormBall", classes: int) -> Any:
    """AutoAttack of that clone, with the attacks that were asked for."""
    sys.path.insert(0, str(options.original))
    attack = importlib.import_module("autoattack").AutoAttack(
        model, norm=NAMES[threat_model.norm], eps=threat_model.epsilon, version="standard", device="cpu", verbose=False
    )
    attack.attacks_to_run, attack.seed = options.attacks, 0
    if classes < 10:
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = classes - 1
    return attack


if __name__ == "__main__":
    main()
