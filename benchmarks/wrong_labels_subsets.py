"""Subsets of an undertrained model's errors, by what other models see of their labels: the work of wrong_labels.py."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from harness import ResultsFile, Row
from torch import Tensor

from notbugs import metrics
from notbugs.data import Dataset, Splits
from notbugs.predict import logits
from notbugs.runs.folder import RunFolder
from notbugs.runs.scheduler import ignore_progress
from notbugs.stats import wilson_interval
from notbugs.study import classifiers, store
from notbugs.study import config as study_config
from notbugs.study.catalog.models import MODELS
from notbugs.study.config import ResolvedConfig
from notbugs.study.resolve import resolve

EVIDENCE, TRAINING = "wrong-label-evidence", "wrong-label-training"  # parts
ERRORS, D_RAND = "misclassified-only", "random-labels"
JUDGES = ("standard", "adversarial")
LOW = 3  # rank from which a label is not one of the two likeliest wrong classes
Ranks = Mapping[str, Tensor]  # by judge: of the label of each error, 1 is the likeliest wrong class


@dataclass(frozen=True)
class WrongLabels:
    """The errors of a study's undertrained model.

    Attributes
    ----------
    folder : Path
    config : ResolvedConfig
    splits : Splits
    errors : Dataset
    index : Tensor, int64
        Of each error in the training images.
    """

    folder: Path
    config: ResolvedConfig
    splits: Splits
    errors: Dataset
    index: Tensor

    @classmethod
    def of_run(cls, folder: Path) -> "WrongLabels":
        """Read the data and the set of a run, whose file names say which training images are in it."""
        asked = study_config.config_of_run(RunFolder.read(folder))
        splits = study_config.load(asked)
        errors = store.load_dataset(asked, folder, asked.seed, ERRORS)
        place = {name: number for number, name in enumerate(splits.train.names)}
        index = torch.tensor([place[name] for name in errors.names])
        if (splits.train.labels[index] == errors.labels).any():
            raise SystemExit(f"{folder}: {ERRORS} must have wrong labels only")
        return cls(folder, resolve(asked, splits), splits, errors, index)

    @property
    def truth(self) -> Tensor:
        """The true labels of the errors."""
        return self.splits.train.labels[self.index]

    def ranks(self) -> Ranks:
        """Ranks by models that have not seen the image: each judge is trained twice, on every other training image."""
        train, found = self.splits.train, {}
        for judge in JUDGES:
            seen = torch.zeros(len(train), len(train.classes))
            for half in (0, 1):
                own, other = torch.arange(half, len(train), 2), torch.arange(1 - half, len(train), 2)
                spec = MODELS[judge]
                model = classifiers.train_classifier(
                    self.config, train.select(own), spec, seed=self.config.seed + 1000 + half, report_progress=ignore_progress
                ).model
                seen[other] = logits(model, train.select(other))
            found[judge] = rank_among_wrong(seen[self.index], self.truth, self.errors.labels)
        return found

    def evidence(self, ranks: Ranks) -> Iterator[Row]:
        """How high the labels rank."""
        for judge, rank in ranks.items():
            first = int((rank == 1).sum())
            low, high = wilson_interval(first, len(rank))
            yield {
                "subset": "all",
                "model": judge,
                "n": len(rank),
                "mean_rank": rank.float().mean().item(),
                "first_share": first / len(rank),
                "ci_low": low,
                "ci_high": high,
            }

    def trainings(self, ranks: Ranks, seeds: int, results: ResultsFile) -> Iterator[Row]:
        """Test accuracy by subset and seed; the spec of the study's own training on the errors, as many steps each."""
        sets = self.subsets(ranks)
        for seed in range(seeds):
            for name, part in sets.items():
                if results.has(part=TRAINING, subset=name, seed=seed):
                    continue
                spec = MODELS[f"trained-on-{D_RAND if name == 'D_rand' else ERRORS}"]
                trained = classifiers.train_classifier(
                    self.config, part, spec, seed=2000 + seed, report_progress=ignore_progress
                ).model
                found = metrics.clean_accuracy(trained, self.splits.test)
                yield {
                    "subset": name,
                    "seed": seed,
                    "n": len(part),
                    "accuracy": found.accuracy,
                    "ci_low": found.ci_low,
                    "ci_high": found.ci_high,
                }

    def subsets(self, ranks: Ranks) -> dict[str, Dataset]:
        """What is trained on; all but the first of one size, that of the rarest."""
        ranked = torch.stack([*ranks.values()])
        masks = {
            "at random": ranked[0] > 0,
            "first: both": (ranked == 1).all(0),
            **{f"low: {judge}": rank >= LOW for judge, rank in ranks.items()},
            "low: both": (ranked >= LOW).all(0),
        }
        size, generator = min(int(mask.sum()) for mask in masks.values()), torch.Generator().manual_seed(0)
        found = {"all": self.errors}
        for name, mask in masks.items():
            index = mask.nonzero().squeeze(1)
            found[name] = self.errors.select(index[torch.randperm(len(index), generator=generator)[:size]])
        index = torch.randperm(len(self.errors), generator=generator)[:size]
        found["shuffled labels"] = self.errors.select(index).with_labels(
            permuted_wrong(self.errors.labels[index], self.truth[index], generator)
        )
        relabeled = store.load_dataset(self.config, self.folder, self.config.seed, D_RAND)
        found["D_rand"] = relabeled.select(torch.randperm(len(relabeled), generator=generator)[:size])
        return found


def rank_among_wrong(scores: Tensor, truth: Tensor, labels: Tensor) -> Tensor:
    """Rank of each label among the classes that are not the true one, (N,), from 1.

    Parameters
    ----------
    scores : Tensor, (N, K)
    truth, labels : Tensor, int64, (N,)

    Examples
    --------
    >>> rank_among_wrong(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]), torch.tensor([1])).tolist()
    [2]
    """
    wrong = scores.scatter(1, truth[:, None], -torch.inf)
    return (wrong > wrong.gather(1, labels[:, None])).sum(1) + 1


def permuted_wrong(labels: Tensor, truth: Tensor, generator: torch.Generator) -> Tensor:
    """The labels in another order in which none is true: two that swap must both stay wrong.

    Examples
    --------
    >>> labels, truth = torch.tensor([1, 2, 0, 1]), torch.tensor([0, 1, 2, 2])
    >>> found = permuted_wrong(labels, truth, torch.Generator().manual_seed(0))
    >>> bool((found == truth).any()), found.sort().values.tolist()
    (False, [0, 1, 1, 2])
    """
    found = labels.clone()
    for _ in range(20):
        for first, second in enumerate(torch.randperm(len(labels), generator=generator).tolist()):
            if found[first] != truth[second] and found[second] != truth[first]:
                found[[first, second]] = found[[second, first]]
    return found
