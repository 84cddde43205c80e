"""How fast features are inverted: the paper's fixed step beside ours, on a robust and a standard model of one run.

    python benchmarks/inversion.py runs/demo [--images 100] [--paper-steps 1000] [--out benchmarks/results/inversion-digits.json]

For each model and rule: the mean relative feature error ‖g(z) − g(x)‖ / ‖g(x)‖ after so many steps and the seconds they took,
growing training images from other training images, in floats, anywhere in the pixel range. The rules take turns, so that a busy
machine slows them alike. The last lines give the fewest steps of ours that reach the error of the paper's last step.
"""

import argparse
import json
import platform
import subprocess
import time
from pathlib import Path

import torch

from notbugs import construct, models, search
from notbugs.runs.folder import RunFolder, write_atomic
from notbugs.search import NormBall, objectives
from notbugs.study import config

OURS = (10, 20, 30, 40, 60, 80, 120, 160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--paper-steps", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    asked = RunFolder.read(options.run).metadata["asked"]
    part = config.load(config.StudyConfig(**asked)).train
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[: 2 * options.images]
    images, start = part.pixels(order).split(options.images)
    rows = []
    for name in ("adversarial", "standard"):
        model, _ = models.load(options.run / "models" / f"{name}.safetensors", asked["network"])
        view = models.fuse_batchnorm(model, images[:4]).to(memory_format=torch.channels_last)
        with torch.no_grad():
            wanted = view.features(images)
            metric = construct.whitened_metric(view.features, start[:40])
        looks = {
            "paper": objectives.feature_matching(view.features, wanted),
            "ours": objectives.feature_matching(view.features, wanted, metric),
        }
        paper = [steps for steps in (40, 160, 640, options.paper_steps) if steps <= options.paper_steps]
        for steps in sorted({*OURS, *paper}):
            for rule_name, rule in (("paper", construct.paper_update_rule()), ("ours", construct.default_update_rule(part))):
                if steps in (paper if rule_name == "paper" else OURS):
                    began = time.perf_counter()
                    found = search.maximize(
                        looks[rule_name], images, NormBall("l2", torch.inf), steps=steps, rule=rule, start=start
                    )
                    seconds = time.perf_counter() - began
                    row = {
                        "model": name,
                        "rule": rule_name,
                        "steps": steps,
                        "error": -found.margins.mean().item(),
                        "seconds": seconds,
                    }
                    rows.append(row)
                    print(f"{name:12} {rule_name:6} {steps:5} steps  error {row['error']:.4f}  {seconds:7.2f} s", flush=True)
    for name in ("adversarial", "standard"):
        goal_error = min(row["error"] for row in rows if row["model"] == name and row["rule"] == "paper")
        enough = [row["steps"] for row in rows if row["model"] == name and row["rule"] == "ours" and row["error"] <= goal_error]
        print(
            f"{name}: the paper's best error, {goal_error:.4f}, is reached in "
            f"{min(enough) if enough else f'more than {OURS[-1]}'} steps of ours"
        )
    if options.out:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        facts = {
            "run": asked["source"],
            "images": options.images,
            "device": "cpu",
            "machine": platform.machine(),
            "threads": 1,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "commit": commit,
            "rows": rows,
        }
        write_atomic(options.out, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
