"""What the paper measured beyond a full study: how well the model of the robust version reads that version itself.

A stage: (plan, folder, seed, tell) -> rows for the tables. What was found stands beside the paper's figures in `beside`.
"""

from dataclasses import replace
from pathlib import Path

import torch

from notbugs import construct, metrics
from notbugs.runs.scheduler import Progress
from notbugs.search import NormBall
from notbugs.study.config import StudyConfig, known, load
from notbugs.study.tasks import Tables, derive_seed, load_dataset, load_model

MAX_IMAGES = 2000  # images of the robust version's training part


def robust_version_accuracy(plan: StudyConfig, folder: Path, seed: int, report_progress: Progress) -> Tables:
    """The classifier trained on D_R, under attack, on D_R's training images, on the robust version of the test images, on these.

    Source: table 8 of Ilyas et al. 2019.
    """
    splits, threat_model = load(plan, seed), NormBall(plan.norm, known(plan.epsilon))
    made = construct.invert_features(
        load_model(plan, folder, seed, "adversarial"),
        splits.test,
        start=plan.invert_start,
        steps=known(plan.invert_steps),
        seed=derive_seed(seed, "robust-test"),
        bf16=plan.bf16,
        compile=plan.compile,
        device=plan.device,
    )
    report_progress("", 0.3, "the test images' robust version")
    learnt = load_dataset(plan, folder, seed, "robust")
    some = torch.arange(min(MAX_IMAGES, len(learnt))) * len(learnt) // min(MAX_IMAGES, len(learnt))
    parts = {"robust": learnt.select(some), "robust-test": made.dataset, "test": splits.test}
    model, rows = load_model(plan, folder, seed, "on-robust"), []
    for number, (name, part) in enumerate(parts.items()):
        found = metrics.robust_accuracy(
            model, part, [replace(threat_model, epsilon=threat_model.epsilon / 2), threat_model], device=plan.device
        )
        rows += [{"model": "on-robust", "set": name, "seed": seed, **row} for row in found]
        report_progress("", 0.3 + 0.7 * (number + 1) / len(parts), name)
    return {"versions": rows}
