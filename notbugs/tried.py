"""One model's adversarial examples on others, as a command asks for it: read or train each, and count."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from notbugs import attacks, transfer
from notbugs.audit import Audit, ask
from notbugs.ball import Ball
from notbugs.data import Dataset
from notbugs.errors import BadInput
from notbugs.models import FAMILIES
from notbugs.plan import Plan, complete, load
from notbugs.pool import Told, each_when_ready, usual_workers
from notbugs.stages import trained

EVERYONE = (*FAMILIES, *transfer.LEARNERS)


def run(
    asked: Audit,
    against: Sequence[str],
    *,
    seed: int = 0,
    epochs: int | None = None,
    workers: int | None = None,
    tell: Told | None = None,
) -> list[dict[str, Any]]:
    """Rows of `transfer.transferred`, target by target, each with `source`, `target`, `norm` and `epsilon`.

    asked.model: whose examples; asked.within: inside what (one ball; default: what it was trained with). against: names of
    network families and learners, which are trained here on the training part, and models as `blackbox.read` takes them.
    Raises BadInput before anything is trained.
    """
    ball = ask.allowed(asked)[-1]
    if not isinstance(ball, Ball) or ball.norm not in ("l2", "linf"):
        raise BadInput("--epsilon", "must be in l2 or linf for transfer", str(ball))
    part = ask.test_part(asked)[0]
    view = ask.view(asked, asked.model)
    if not attacks.has_gradient(view, part.pixels([0]).to(asked.device)):
        raise BadInput("MODEL", "must have gradients for its examples to be made", asked.model)
    for name in against:
        if name not in EVERYONE:
            ask.classifier(asked, name)  # raises here, not after an hour
    tell = tell or (lambda stage, share, words: None)
    taken = {"resize": asked.resize, "limit": asked.limit, "skip_bad": asked.skip_bad, "device": asked.device}
    plan = Plan(asked.source, seed=seed, epochs=epochs, **taken)  # type: ignore[arg-type]
    plan = complete(plan, load(plan))
    tell("examples", 0.0, "")
    made = transfer.examples(view, part, ball, seed=seed, device=asked.device)
    tell("examples", 1.0, "")
    jobs = {name: ((), partial(_against, asked, plan, name, made, part)) for name in dict.fromkeys(against)}
    rows = dict(each_when_ready(jobs, workers or usual_workers(asked.device), tell))
    common = {"source": asked.model, "seed": seed, "norm": ball.norm, "epsilon": ball.radius}
    return [{**common, "target": name, **row} for name in jobs for row in rows[name]]


def _against(asked: Audit, plan: Plan, name: str, made: transfer.Examples, part: Dataset, tell: Told) -> list[dict[str, Any]]:
    target: torch.nn.Module
    if name in FAMILIES:
        own, train = replace(plan, network=name, width=None), load(plan).train
        told: Told = lambda _, share, words: tell(name, share, words)  # noqa: E731
        target = trained(own, train, name, loss="plain", on="original", seed=plan.seed, path=None, tell=told)[0]
    elif name in transfer.LEARNERS:
        target = transfer.learner(name, load(plan).train, seed=plan.seed)
    else:
        target = ask.classifier(asked, name)[0]
    return transfer.transferred(made, part, target, device=asked.device)
