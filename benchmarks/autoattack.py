"""The ensemble behind every robust accuracy beside the original AutoAttack: images still classified correctly, seconds.

    git clone https://github.com/fra31/auto-attack
    python benchmarks/autoattack.py runs/digits/models/adversarial.safetensors digits l2:0.75 --original auto-attack \\
        [--attacks apgd-ce apgd-t fab-t square] [--images 500] [--device cuda] [--out FILE.json]

Both attack the same test images, evenly spaced, in one batch, on one thread. `--attacks` leaves out the slow ones.
In L0, for which there is no AutoAttack, the original Sparse-RS of the same authors (github.com/fra31/sparse-rs) takes its place:
`l0:1 --original sparse-rs`, with 10,000 queries.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import ResultsFile, Row, argument_parser, measure, recorded_arguments, resolve_device  # the file beside this one

if TYPE_CHECKING:
    from torch import Tensor, nn

    from notbugs.search import NormBall

ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
NAMES = {"l2": "L2", "linf": "Linf", "l1": "L1"}
SPARSE_QUERIES = 10_000
CALIBRATION = 500  # training images
KEY = ("part", "dataset", "model", "norm", "epsilon", "attack", "autoattack", "n")


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, device="cpu")
    found.add_argument("model", type=Path, metavar="MODEL", help="a .safetensors file of notbugs")
    found.add_argument("dataset", metavar="DATASET")
    found.add_argument("threat", metavar="THREAT", help="l2:0.5, linf:8/255, l1:10 or l0:1")
    found.add_argument(
        "--original", type=Path, required=True, metavar="FOLDER", help="a clone of the code of AutoAttack or Sparse-RS"
    )
    found.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS), help="of AutoAttack")
    found.add_argument("--budget", default="standard", help="of the ensemble")
    found.add_argument("--images", type=int, default=500, help="test images, evenly spaced")
    found.add_argument("--network", help="module:function, if the model's description names one that is to be trusted")
    found.add_argument("--name", default="", help="of the model in the results (default: FOLDER/FILE)")
    int8 = "convolutions and linear layers in int8 (ranges of 500 training images), with the gradients in float32, for both"
    found.add_argument("--int8", action="store_true", help=int8)
    kept = "what AutoAttack found; if the file is there, AutoAttack does not run again"
    found.add_argument("--keep", type=Path, metavar="FILE.npz", help=kept)
    return found


def main() -> None:
    """Measure both on one model."""
    options = parser().parse_args()
    import torch

    torch.set_num_threads(options.threads)
    options.device = resolve_device(options.device)
    results = ResultsFile(options.out, device=options.device)
    measure(results, "beside-autoattack", _compare(options), recorded_arguments(options), key=KEY)


def _compare(options: argparse.Namespace) -> Iterator[Row]:
    """The one row."""
    import torch

    from notbugs import allocator, attacks, data, models
    from notbugs.data import DataConfig
    from notbugs.data.subset import evenly_spaced
    from notbugs.search import NormBall
    from notbugs.search.threat_models import parse_threat_model

    allocator.keep_freed_memory()
    splits = data.load_dataset(DataConfig(options.dataset))
    test = splits.test
    test = test.select(evenly_spaced(min(options.images, len(test)), len(test)))
    images, labels = test.pixels(slice(None)).to(options.device), test.labels.to(options.device)
    threat_model = parse_threat_model(options.threat)
    assert isinstance(threat_model, NormBall)
    model = models.fuse_batchnorm(models.load(options.model, options.network)[0], images[:2], options.device)
    if options.int8:
        from int8 import in_int8  # the file beside this one

        calibration = splits.train.select(evenly_spaced(min(CALIBRATION, len(splits.train)), len(splits.train)))
        model = in_int8(model, calibration.pixels(slice(None)), test.classes)
    started = _seconds(options.device)
    found = attacks.adaptive_ensemble(
        model, images, labels, threat_model=threat_model, budget=options.budget, batch_size=len(images)
    )
    seconds = _seconds(options.device) - started
    robust_autoattack, autoattack_seconds = _autoattack(options, model, threat_model, images, labels, len(test.classes))
    with torch.no_grad():
        clean, robust = model(images).argmax(1) == labels, found.margins < 0
    yield {
        "dataset": Path(options.dataset).stem,
        "model": options.name or f"{options.model.parent.parent.name}/{options.model.stem}",
        "norm": threat_model.norm,
        "epsilon": float(threat_model.epsilon),
        "attack": attacks.ensemble_name(options.budget),
        "autoattack": f"sparse-rs {SPARSE_QUERIES}" if threat_model.norm == "l0" else " ".join(options.attacks),
        "n": len(test),
        "clean_correct": int(clean.sum()),
        "correct": int(robust.sum()),
        "autoattack_correct": int(robust_autoattack.sum()),
        "only_ensemble": int((~robust & robust_autoattack).sum()),
        "only_autoattack": int((robust & ~robust_autoattack).sum()),
        "seconds": seconds,
        "autoattack_seconds": autoattack_seconds,
    }


def _autoattack(
    options: argparse.Namespace, model: "nn.Module", threat_model: "NormBall", images: "Tensor", labels: "Tensor", classes: int
) -> "tuple[Tensor, float]":
    """Which images the original leaves correct (N,), and its seconds; from the file of an earlier run if there is one."""
    import numpy as np
    import torch

    if options.keep and options.keep.exists():
        kept = np.load(options.keep)
        return torch.from_numpy(kept["correct"]).to(labels.device), float(kept["seconds"])
    started = _seconds(options.device)
    perturbed = _original(options, model, threat_model, images, labels, classes)
    seconds = _seconds(options.device) - started
    with torch.no_grad():
        correct = model(perturbed).argmax(1) == labels
    if options.keep:
        np.savez_compressed(options.keep, correct=correct.cpu().numpy(), seconds=seconds)
    return correct, seconds


def _seconds(device: str) -> float:
    """CPU time of this process; on a GPU the time that has passed, once it has finished."""
    import torch

    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _original(
    options: argparse.Namespace, model: "nn.Module", threat_model: "NormBall", images: "Tensor", labels: "Tensor", classes: int
) -> "Tensor":
    """The adversarial examples of the original code."""
    sys.path.insert(0, str(options.original))
    if threat_model.norm == "l0":
        attack = importlib.import_module("rs_attacks").RSAttack(
            model,
            norm="L0",
            eps=int(threat_model.epsilon),
            n_queries=SPARSE_QUERIES,
            seed=0,
            verbose=False,
            device=options.device,
        )
        return _perturbed(attack, model, images, labels)
    attack = importlib.import_module("autoattack").AutoAttack(
        model, norm=NAMES[threat_model.norm], eps=threat_model.epsilon, version="standard", device=options.device, verbose=False
    )
    attack.attacks_to_run, attack.seed = options.attacks, 0
    if classes < 10:
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = classes - 1
    found: Tensor = attack.run_standard_evaluation(images, labels, bs=len(images))
    return found


def _perturbed(attack: Any, model: "nn.Module", images: "Tensor", labels: "Tensor") -> "Tensor":
    """Of Sparse-RS, which wants images that are classified correctly."""
    import torch

    result = images.clone()
    with torch.no_grad():
        correct = model(images).argmax(1) == labels
        result[correct] = attack.perturb(images[correct], labels[correct])[1]
    return result


if __name__ == "__main__":
    main()
