"""One model's adversarial examples on others, as a command asks for it: read or train each, and count."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from notbugs import attacks
from notbugs.audit import config
from notbugs.audit.config import AuditConfig
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.metrics import transfer
from notbugs.models import TRANSFER_ARCHITECTURES, sklearn_learners
from notbugs.runs.scheduler import Progress, default_workers, run_graph
from notbugs.search import NormBall
from notbugs.study.config import StudyConfig, load, resolve
from notbugs.study.tasks import train_classifier

ALL_TARGETS = (*TRANSFER_ARCHITECTURES, *sklearn_learners.LEARNERS)


def run_transfer(
    asked: AuditConfig,
    against: Sequence[str],
    *,
    seed: int = 0,
    epochs: int | None = None,
    workers: int | None = None,
    report_progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Rows of `transfer.transferred`, target by target, each with `source`, `target`, `norm` and `epsilon`.

    asked.model: whose examples; asked.within: inside what (one ball; default: what it was trained with). against: names of
    network families and learners, which are trained here on the training part, and models as `blackbox.read` takes them.
    Raises BadInput before anything is trained.
    """
    threat_model = config.threat_models(asked)[-1]
    if not isinstance(threat_model, NormBall) or threat_model.norm not in ("l2", "linf"):
        raise InputError("--epsilon", "must be in l2 or linf for transfer", str(threat_model))
    part = config.test_part(asked)[0]
    view = config.search_copy(asked, asked.model)
    if not attacks.has_gradient(view, part.pixels([0]).to(asked.device)):
        raise InputError("MODEL", "must have gradients for its examples to be made", asked.model)
    for name in against:
        if name not in ALL_TARGETS:
            config.load_classifier(asked, name)  # raises here, not after an hour
    report_progress = report_progress or (lambda stage, share, words: None)
    taken = {"resize": asked.resize, "limit": asked.limit, "skip_bad": asked.skip_bad, "device": asked.device}
    plan = StudyConfig(asked.source, seed=seed, epochs=epochs, **taken)  # type: ignore[arg-type]
    plan = resolve(plan, load(plan))
    report_progress("examples", 0.0, "")
    made = transfer.make_examples(view, part, threat_model, seed=seed, device=asked.device)
    report_progress("examples", 1.0, "")
    jobs = {name: ((), partial(_transfer_to, asked, plan, name, made, part)) for name in dict.fromkeys(against)}
    rows = dict(run_graph(jobs, workers or default_workers(asked.device), report_progress))
    common = {"source": asked.model, "seed": seed, "norm": threat_model.norm, "epsilon": threat_model.epsilon}
    return [{**common, "target": name, **row} for name in jobs for row in rows[name]]


def _transfer_to(
    asked: AuditConfig, plan: StudyConfig, name: str, made: transfer.AdversarialExamples, part: Dataset, report_progress: Progress
) -> list[dict[str, Any]]:
    target: torch.nn.Module
    if name in TRANSFER_ARCHITECTURES:
        own, train = replace(plan, network=name, width=None), load(plan).train
        told: Progress = lambda _, share, words: report_progress(name, share, words)  # noqa: E731
        target = train_classifier(own, train, name, loss="plain", on="original", seed=plan.seed, path=None, report_progress=told)[
            0
        ]
    elif name in sklearn_learners.LEARNERS:
        target = sklearn_learners.fit_learner(name, load(plan).train, seed=plan.seed)
    else:
        target = config.load_classifier(asked, name)[0]
    return transfer.transfer_rates(made, part, target, device=asked.device)
