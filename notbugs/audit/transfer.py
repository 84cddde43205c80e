"""Transferability of one model's adversarial examples to other networks and to non-neural classifiers."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from tempfile import TemporaryDirectory

from torch import nn

from notbugs import data
from notbugs.audit.classifiers import load_classifier, report_order, with_gradients
from notbugs.audit.config import AuditConfig
from notbugs.audit.images import test_part
from notbugs.audit.threats import threat_models
from notbugs.data import Dataset
from notbugs.errors import InputError, NotbugsWarning
from notbugs.metrics import transfer
from notbugs.models import sklearn_learners
from notbugs.runs.attempts import done_there, no_run_folder
from notbugs.runs.engine import Engine, Progress
from notbugs.runs.scheduler import Job, default_workers, ignore_progress, run_graph
from notbugs.runs.tables.transferability import TransferRow
from notbugs.search import NormBall
from notbugs.study.catalog.models import ARCHITECTURES, LEARNERS, MODELS
from notbugs.study.classifiers import train_classifier
from notbugs.study.comparisons import learner_images
from notbugs.study.config import ResolvedConfig, StudyConfig, load
from notbugs.study.resolve import resolve

ALL_TARGETS = (*ARCHITECTURES, *LEARNERS)
EXAMPLES = "examples"  # the stage that makes them


@data.keeping_loads()
def run_transfer(
    config: AuditConfig,
    targets: Sequence[str],
    *,
    seed: int = 0,
    epochs: int | None = None,
    workers: int | None = None,
    engine: Engine | None = None,
    report_progress: Progress = ignore_progress,
) -> list[TransferRow]:
    """Make adversarial examples of one model and classify them with others.

    Parameters
    ----------
    config : AuditConfig
        `model` is the source; the last of its `threats` (one L2 or L-inf ball) bounds the perturbations, also within a mask.
    targets : sequence of str
        Names of architectures and learners (`ALL_TARGETS`), which are trained here on the training images, or models as
        `models.classifier_by_name` takes them.
    seed : int
        Of the examples and of the training.
    epochs : int, optional
        Of the training.
    workers : int, optional
        Targets at once.
    engine : Engine, optional
        Does the targets in place of worker processes (`runs.executors.open_engine`).
    report_progress : callable, optional

    Returns
    -------
    list of TransferRow
        Target by target, one row per kind of perturbation.

    Raises
    ------
    InputError
        Before anything is trained if the input cannot be used.
    """
    with TemporaryDirectory() as index:  # with it the workers of this machine need not open every image
        data.use_index(index, is_run=False)
        threat_model = _threat_model(config)
        source = with_gradients(config, config.model, "its adversarial examples are computed with them")
        part = test_part(config)[0]
        for name in targets:
            if name not in ALL_TARGETS:
                load_classifier(config, name)  # raises here, not after an hour
        report_order(config, config.model, *(name for name in targets if name not in ALL_TARGETS))
        bf16 = False if config.device == "cpu" else None  # rates must not depend on the processor
        study = StudyConfig(**asdict(config.data), seed=seed, epochs=epochs, bf16=bf16, device=config.device)
        resolved = resolve(study, load(study))
        _say_fitted_to_fewer(load(resolved).train, targets)
        report_progress(EXAMPLES, 0.0, "")
        examples = transfer.make_examples(source, part, threat_model, seed=seed, device=config.device)
        report_progress(EXAMPLES, 1.0, "")
        device, shared = (engine.device, no_run_folder()) if engine else (None, None)
        data.keep_index(index, load(resolved), resolved.resize)
        work = partial(_transfer_to, config, resolved, device, index, examples=examples, part=part)
        jobs = {name: Job((), partial(done_there, shared, partial(work, name))) for name in dict.fromkeys(targets)}
        rates = dict(run_graph(jobs, workers or default_workers(config.device), report_progress, engine=engine))
    return [
        TransferRow(
            source=config.model,
            target=name,
            seed=seed,
            norm=threat_model.norm,
            epsilon=float(threat_model.epsilon),
            **rate._asdict(),
        )
        for name in jobs
        for rate in rates[name]
    ]


def _say_fitted_to_fewer(train: Dataset, targets: Sequence[str]) -> None:
    fitted = learner_images(train.shape, len(train))
    if fitted < len(train) and {*targets} & {*LEARNERS}:
        text = f"non-neural classifiers are fitted to {fitted:,} of {len(train):,} training images: more take hours and gigabytes"
        warnings.warn(text, NotbugsWarning, stacklevel=2)


def _threat_model(config: AuditConfig) -> NormBall:
    """The last threat model. Raises InputError unless it is an L2 or L-inf ball."""
    threat_model = threat_models(config)[-1]
    if not isinstance(threat_model, NormBall) or threat_model.norm not in ("l2", "linf"):
        raise InputError("--epsilon", "must be in l2 or linf for transfer", str(threat_model))
    if threat_model.channels:
        raise InputError("--epsilon", "must be one limit for all channels for transfer", str(threat_model))
    return threat_model


def _transfer_to(
    config: AuditConfig,
    study: ResolvedConfig,
    device: Callable[[], str] | None,
    index: str,
    name: str,
    report_progress: Progress,
    *,
    examples: transfer.AdversarialExamples,
    part: Dataset,
) -> list[transfer.TransferRates]:
    """index: a folder with that of the image files; on other machines it is not there."""
    data.use_index(index, is_run=False)
    try:
        if device is not None:  # chosen where it is done
            config, study = replace(config, device=(found := device())), replace(study, device=found)
        target = _target(config, study, name, report_progress)
        return transfer.transfer_rates(examples, part, target, device=config.device)
    finally:
        data.use_index(None)


def _target(config: AuditConfig, study: ResolvedConfig, name: str, report_progress: Progress) -> nn.Module:
    """A target: trained here, or loaded."""
    train = load(study).train
    if name in ARCHITECTURES:
        named: Progress = lambda _, share, words: report_progress(name, share, words)  # noqa: E731
        return train_classifier(study, train, MODELS[name], seed=study.seed, report_progress=named).model
    if name in LEARNERS:
        part = data.balanced_subset(train, learner_images(train.shape, len(train)))
        return sklearn_learners.fit_learner(name, part, seed=study.seed)
    return load_classifier(config, name).model
