"""What the paper measured beyond a full study: how well the model of the robust version reads that version itself.

A stage: (plan, folder, seed, tell) -> rows for the tables. What was found stands beside the paper's figures in `beside`.
"""

from dataclasses import replace
from pathlib import Path

import torch

from notbugs import construct, scores
from notbugs.ball import Ball
from notbugs.plan import Plan, known, load
from notbugs.pool import Told
from notbugs.stages import Tables, load_model, load_set, seed_of

MOST = 2000  # images of the robust version's training part


def versions(plan: Plan, folder: Path, seed: int, tell: Told) -> Tables:
    """The classifier trained on D_R, under attack, on D_R's training images, on the robust version of the test images, on these.

    Source: table 8 of Ilyas et al. 2019.
    """
    splits, ball = load(plan, seed), Ball(plan.norm, known(plan.epsilon))
    made = construct.inverted(
        load_model(plan, folder, seed, "adversarial"),
        splits.test,
        start=plan.invert_start,
        steps=known(plan.invert_steps),
        seed=seed_of(seed, "robust-test"),
        half=plan.half,
        compile=plan.compile,
        device=plan.device,
    )
    tell("", 0.3, "the test images' robust version")
    learnt = load_set(plan, folder, seed, "robust")
    some = torch.arange(min(MOST, len(learnt))) * len(learnt) // min(MOST, len(learnt))
    parts = {"robust": learnt.take(some), "robust-test": made.data, "test": splits.test}
    model, rows = load_model(plan, folder, seed, "on-robust"), []
    for number, (name, part) in enumerate(parts.items()):
        found = scores.under_attack(model, part, [replace(ball, radius=ball.radius / 2), ball], device=plan.device)
        rows += [{"model": "on-robust", "set": name, "seed": seed, **row} for row in found]
        tell("", 0.3 + 0.7 * (number + 1) / len(parts), name)
    return {"versions": rows}
