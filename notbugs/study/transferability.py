"""Stages that measure transfer: adversarial examples of one model, classified by other networks and by non-neural classifiers.

A stage is a function (config, folder, seed, report_progress) -> rows for the tables.
"""

from pathlib import Path

import torch

from notbugs import data
from notbugs.data import Dataset
from notbugs.metrics import transfer
from notbugs.models import sklearn_learners
from notbugs.runs.attempts import Attempt
from notbugs.runs.engine import Progress
from notbugs.runs.tables.row import Row
from notbugs.runs.tables.transferability import TransferRow
from notbugs.study.comparisons import TRANSFER_TARGETS, learner_images, starts_from_standard
from notbugs.study.config import ResolvedConfig, load
from notbugs.study.store import examples_path, load_model

TEST_IMAGES = 1000  # at most
LEARNER_SOURCE = "standard"  # whose examples the non-neural classifiers get


def targets(config: ResolvedConfig) -> tuple[str, ...]:
    """The networks on which examples are tried."""
    return tuple(name for name in TRANSFER_TARGETS if config.model is None or not starts_from_standard(name))


def make_examples(config: ResolvedConfig, folder: Path, seed: int, attempt: Attempt, *, source: str) -> list[Row]:
    """Adversarial examples of one model for the test images, kept in examples/SOURCE.npz."""
    model, test = load_model(config, folder, seed, source), test_images(config, seed)
    examples = transfer.make_examples(
        model,
        test,
        config.threat_model,
        seed=seed,
        device=config.device,
        progress=lambda share: attempt("", share, f"attacked: {share:.0%}"),
    )
    path = examples_path(config, attempt.folder, seed, source)
    data.save_arrays({name: column.numpy() for name, column in examples._asdict().items()}, path)
    return []


def transfer_to_networks(
    config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress, *, source: str
) -> list[TransferRow]:
    """The examples of one model on all other networks."""
    test, examples, rows = test_images(config, seed), load_examples(config, folder, seed, source), []
    networks = targets(config)
    for number, target in enumerate(networks):
        if target != source:
            rates = transfer.transfer_rates(examples, test, load_model(config, folder, seed, target), device=config.device)
            rows += _rows(config, seed, source, target, rates)
        report_progress("", (number + 1) / len(networks), target)
    return rows


def transfer_to_learner(
    config: ResolvedConfig, folder: Path, seed: int, report_progress: Progress, *, learner: str
) -> list[TransferRow]:
    """The examples of the standard model on one non-neural classifier, fitted to as many training images as are feasible."""
    train = load(config, seed).train
    part = data.balanced_subset(train, learner_images(train.shape, len(train)))
    fitted = sklearn_learners.fit_learner(learner, part, seed=seed)
    report_progress("", 0.6, "fitted" if len(part) == len(train) else f"fitted to {len(part):,} of {len(train):,} images")
    examples = load_examples(config, folder, seed, LEARNER_SOURCE)
    rates = transfer.transfer_rates(examples, test_images(config, seed), fitted)
    return _rows(config, seed, LEARNER_SOURCE, learner, rates)


def test_images(config: ResolvedConfig, seed: int) -> Dataset:
    """The images that are perturbed."""
    return data.balanced_subset(load(config, seed).test, TEST_IMAGES)


def load_examples(config: ResolvedConfig, folder: Path, seed: int, source: str) -> transfer.AdversarialExamples:
    """What `make_examples` kept."""
    arrays = data.load_arrays(examples_path(config, folder, seed, source))
    return transfer.AdversarialExamples(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def _rows(config: ResolvedConfig, seed: int, source: str, target: str, rates: list[transfer.TransferRates]) -> list[TransferRow]:
    return [
        TransferRow(source=source, target=target, seed=seed, norm=config.norm, epsilon=config.epsilon, **rate._asdict())
        for rate in rates
    ]
