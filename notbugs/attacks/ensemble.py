"""Several attacks on one set of images, each meeting only those that are left."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from notbugs.attacks.validation import Model, clean_logits, validated, with_log_probabilities
from notbugs.search import Attack, AttackResult, objectives


@dataclass
class EnsembleState:
    """The worst found so far. best: images (N, C, H, W); value: (N,), the best other class's lead there, fooled from 0 on."""

    model: Model
    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        logits = clean_logits(self.model, self.images, self.labels)
        opened = with_log_probabilities(self.model, logits)
        if opened is not self.model:
            self.model, logits = opened, logits.clamp_min(1e-37).log()
        self.best, self.classes = self.images.clone(), logits.shape[1]
        self.value = -objectives.margin(logits, self.labels)
        self.clean = self.value.clone()

    @property
    def left(self) -> Tensor:
        """Who is not fooled yet: (N,)."""
        return self.value < 0

    def margin_lost(self, value: Tensor | None = None) -> Tensor:
        """The share of the label's lead that is gone (or is at `value`): (N,), 0 untouched, 1 fooled, or nothing was to lose."""
        return torch.where(self.clean < 0, 1 - (self.value if value is None else value) / self.clean, 1.0)

    def run(self, attack: Attack, who: Tensor | None = None) -> Tensor:
        """Let an attack loose on those that are left (and in `who`); returns its values (N,), -inf for those it did not meet."""
        index = (self.left if who is None else self.left & who).nonzero().squeeze(1)
        tried = torch.full_like(self.value, -torch.inf)
        if len(index):
            found = attack(self.model, self.images[index], self.labels[index])  # type: ignore[arg-type]
            wins = found.margins > self.value[index]
            won = index[wins]
            self.best[won], self.value[won], tried[index] = found.images[wins], found.margins[wins], found.margins
        return tried

    @property
    def found(self) -> AttackResult:
        return AttackResult(self.best, self.value)


@validated
def worst_case(model: Model, images: Tensor, labels: Tensor, attacks: Sequence[Attack]) -> AttackResult:
    """The worst any of the attacks finds, each meeting only the survivors of those before; values of 0 or more are fooled.

    An image the model gets wrong as it is counts as fooled and is returned unchanged.
    """
    hunt = EnsembleState(model, images, labels)
    for attack in attacks:
        hunt.run(attack)
    return hunt.found
