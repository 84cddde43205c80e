"""How fast features are inverted: the paper's fixed step beside the default rule, on a robust and a standard model of one run.

    python benchmarks/inversion.py RUN [--images 100] [--paper-steps 1000] [--out benchmarks/results/inversion-digits.json]

For each model and rule: the mean relative feature error ‖g(z) − g(x)‖ / ‖g(x)‖ after so many steps, and the seconds they took.
Training images are inverted from other training images, in floats, anywhere in the pixel range. The rules take turns, so that a
busy machine slows both. `python benchmarks/markdown_tables.py FILE.json` prints the steps in which the default rule reaches the
error of the paper's last step.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import (  # the file beside this one
    ResultsFile,
    Row,
    TimeLimit,
    argument_parser,
    measure,
    recorded_arguments,
    resolve_device,
)

if TYPE_CHECKING:
    from torch import Tensor

    from notbugs.data import Dataset
    from notbugs.search import Objective, UpdateRule

MODELS = ("adversarial", "standard")
DEFAULT_STEPS = (10, 20, 30, 40, 60, 80, 120, 160)
PAPER_STEPS = (40, 160, 640)  # and the last one, an option
KEY = ("part", "dataset", "model", "rule", "steps")


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argument_parser(__doc__, device="cpu")
    found.add_argument("run", type=Path, metavar="RUN")
    found.add_argument("--images", type=int, default=100)
    found.add_argument("--paper-steps", type=int, default=1000, help="of the paper's rule, at most")
    return found


def main() -> None:
    """Measure both rules on both models."""
    options = parser().parse_args()
    import torch

    torch.set_num_threads(options.threads)
    device, limit = resolve_device(options.device), TimeLimit(options.minutes)
    results, rows = ResultsFile(options.out, device=device), _inversions(options, device)
    measure(results, "inversion", rows, recorded_arguments(options), key=KEY, limit=limit)


def _inversions(options: argparse.Namespace, device: str) -> Iterator[Row]:
    """One row per model, rule and number of steps."""
    import torch

    from notbugs import models
    from notbugs.runs.folder import RunFolder
    from notbugs.study.config import config_of_run, load

    config = config_of_run(RunFolder.read(options.run))
    train = load(config).train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[: 2 * options.images]
    images, start = (part.to(device) for part in torch.split(train.pixels(order), options.images))
    steps = {"paper": {*[each for each in PAPER_STEPS if each < options.paper_steps], options.paper_steps}}
    steps["default"] = {*DEFAULT_STEPS}
    for name in MODELS:
        model, _ = models.load(options.run / "models" / f"{name}.safetensors", config.network)
        fused = models.fuse_batchnorm(model, images[:4], device).to(memory_format=torch.channels_last)
        rules = _rules(fused, images, start, train)
        for count in sorted(steps["paper"] | steps["default"]):
            for rule, (objective, update) in rules.items():
                if count in steps[rule]:
                    found = _invert(objective, update, images, start, count)
                    yield {"dataset": config.dataset, "model": name, "rule": rule, "steps": count, **found}


def _rules(model: Any, images: "Tensor", start: "Tensor", train: "Dataset") -> "dict[str, tuple[Objective, UpdateRule]]":
    """Objective and update rule, by name."""
    import torch

    from notbugs import construct
    from notbugs.search import objectives

    with torch.no_grad():
        wanted = model.features(images)
    metric = construct.whitened_metric(model.features, start[:40])
    return {
        "paper": (objectives.feature_matching(model.features, wanted), construct.paper_update_rule()),
        "default": (objectives.feature_matching(model.features, wanted, metric), construct.default_update_rule(train)),
    }


def _invert(objective: "Objective", update: "UpdateRule", images: "Tensor", start: "Tensor", steps: int) -> Row:
    """Feature error and seconds after so many steps."""
    from notbugs import search
    from notbugs.search import NormBall

    started = time.perf_counter()
    found = search.maximize(objective, images, NormBall("l2", math.inf), steps=steps, rule=update, start=start)
    seconds = time.perf_counter() - started
    return {"feature_error": -found.margins.mean().item(), "seconds": seconds}


if __name__ == "__main__":
    main()
