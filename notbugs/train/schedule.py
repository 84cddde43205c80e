"""The learning rate, and when training ends: relabeled data sets get extra epochs while accuracy is at chance level.

If these are used up, training starts again at a quarter of the rate: at a rate that is too high for faint features they are never
found, and lowering it later only memorizes (docs/lab-log.md).

There is no early stopping unless it is asked for: no part of a relabeled data set could decide which epoch is best (Ilyas et al.
2019, appendix D.4).
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from notbugs.train.checks import factor_of

RESTART_RATE = 0.25  # of the learning rate


class Schedule(NamedTuple):
    """Factor of the learning rate: linear warm-up over 15 % of the steps, then linear decay to 0.

    While accuracy is at chance level the factor stays at 1 and the end of the schedule moves back, by `chance_epochs`.
    """

    learning_rate: float  # that the optimizer was made with
    epochs: int
    batches: int  # of an epoch
    decaying: bool  # False while accuracy is at chance level
    chance_epochs: int = 0
    shape: Callable[[float], float] | None = None  # the user's own: share of the steps done -> factor of the learning rate

    @property
    def warmup(self) -> int:
        """Steps of the warm-up."""
        return max(1, round(0.15 * self.epochs * self.batches))

    @property
    def total_epochs(self) -> int:
        """Epochs with those at chance level."""
        return self.epochs + self.chance_epochs

    def factor(self, step: int) -> float:
        """By which a step, from 1, multiplies the initial learning rate of each parameter group."""
        if self.shape:
            return factor_of(self.shape, step / (self.epochs * self.batches))
        left = self.total_epochs * self.batches - step
        decay = left / max(self.epochs * self.batches - self.warmup, 1) if self.decaying else 1.0
        return step / self.warmup if step <= self.warmup else min(decay, 1.0)

    def used_up(self, patience: int) -> bool:
        """Whether accuracy stayed at chance level for as long as patience allows."""
        return 0 < patience == self.chance_epochs

    def after_epoch(self, step: int, *, at_chance: bool, patience: int) -> "Schedule":
        """The schedule after an epoch that ended with this step."""
        if self.decaying:
            return self
        chance_epochs = self.chance_epochs + (at_chance and step >= self.warmup)
        return self._replace(chance_epochs=chance_epochs, decaying=not at_chance or chance_epochs == patience)


def above_chance(labels: Tensor, classes: int) -> float:
    """Accuracy from which training is above chance level: 1.5 times chance, at most halfway from chance to 1.

    Chance is always predicting the most frequent label or, if all labels are known to be wrong, one of the other classes.
    """
    chance = max(labels.bincount(minlength=classes).max().item() / len(labels), 1 / (classes - 1) if classes > 2 else 0.0)
    return min(1.5 * chance, (1 + chance) / 2)
