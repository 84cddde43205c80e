"""Several attacks on one batch: each runs on the images that are still classified correctly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from notbugs import precision
from notbugs.attacks.validation import Model, clean_logits, composed, inverse_of, validated
from notbugs.search import Attack, AttackResult, objectives


@dataclass(frozen=True)
class EnsembleState:
    """What the attacks so far found. Every margin here is that of the best other class: 0 or more is misclassified.

    Attributes
    ----------
    model : callable
        Images to logits; the log-probabilities of a model that returns probabilities.
    images, labels : Tensor
        The clean batch, (N, C, H, W) and (N,).
    classes : int
    clean : Tensor, (N,)
        Margins of the clean images.
    result : AttackResult
        For each image the perturbed image with the highest margin.
    last : Tensor, (N,)
        Margins that the last attack found; -inf where it did not run.
    progress : callable, optional
        Called after each attack with the share that is done, in [0, 1].
    planned, done : int
        Number of attacks that may run, and that ran, for `progress`.
    """

    model: Model
    images: Tensor
    labels: Tensor
    classes: int
    clean: Tensor
    result: AttackResult
    last: Tensor
    progress: Callable[[float], None] | None = None
    planned: int = 1
    done: int = 0

    @classmethod
    def from_clean(cls, model: Model, images: Tensor, labels: Tensor) -> "EnsembleState":
        """Before the first attack."""
        logits = clean_logits(model, images, labels)
        inverse = inverse_of(logits)
        attacked = composed(inverse, model)
        logits = logits if inverse is None else inverse(logits)
        margins = -objectives.margin(logits, labels)
        start = AttackResult(images.clone(), margins)
        return cls(attacked, images, labels, logits.shape[1], margins, start, torch.full_like(margins, -torch.inf))

    @property
    def remaining(self) -> Tensor:
        """Which images are still classified correctly: (N,)."""
        return self.result.margins < 0

    def margin_lost(self, margins: Tensor | None = None) -> Tensor:
        """Share of the clean margin that is lost, at `margins` (N,) or so far: (N,), 0 nothing, 1 misclassified."""
        margins = self.result.margins if margins is None else margins
        return torch.where(self.clean < 0, 1 - margins / self.clean, 1.0)

    def run(
        self, attack: Callable[..., AttackResult], subset: Tensor | None = None, *, from_best: bool = False
    ) -> "EnsembleState":
        """The state after one more attack on the images that remain.

        Parameters
        ----------
        attack : callable
            (model, images, labels) to AttackResult.
        subset : Tensor, (N,), bool, optional
            Only these images.
        from_best : bool
            The attack also gets `start`, the best perturbed images so far.
        """
        after = replace(self._after(attack, subset, from_best), done=self.done + 1)
        if after.progress:
            after.progress(min(after.done / after.planned, 1.0))
        return after

    def _after(self, attack: Callable[..., AttackResult], subset: Tensor | None, from_best: bool) -> "EnsembleState":
        index = (self.remaining if subset is None else self.remaining & subset).nonzero().squeeze(1)
        last = torch.full_like(self.clean, -torch.inf)
        if not len(index):
            return replace(self, last=last)
        start = {"start": self.result.images[index]} if from_best else {}
        with precision.tf32(self.images.device):
            found = attack(self.model, self.images[index], self.labels[index], **start)
        found = self._in_full_precision(found, index)
        last[index] = found.margins
        better = found.margins > self.result.margins[index]
        images, margins = self.result.images.clone(), self.result.margins.clone()
        images[index[better]], margins[index[better]] = found.images[better], found.margins[better]
        return replace(self, result=AttackResult(images, margins), last=last)

    def _in_full_precision(self, found: AttackResult, index: Tensor) -> AttackResult:
        """The result with its margins in full float32: on a GPU the attack's own are rounded. -inf, nothing found, stays."""
        if found.images.device.type != "cuda":
            return found
        with torch.no_grad(), precision.full_precision():
            margins = -objectives.margin(objectives.logits(self.model, found.images), self.labels[index])
        return AttackResult(found.images, torch.where(found.margins == -torch.inf, found.margins, margins))


@validated
def worst_case(model: Model, images: Tensor, labels: Tensor, attacks: Sequence[Attack]) -> AttackResult:
    """The best result of several attacks, each run on the images that those before left classified correctly.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K).
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, (N,), int64
    attacks : sequence of callable
        (model, images, labels) to AttackResult, in the order in which they run.

    Returns
    -------
    AttackResult
        Margins of 0 or more are misclassified. A misclassified clean image is returned without a perturbation.

    Examples
    --------
    >>> import torch
    >>> from functools import partial
    >>> from notbugs import attacks
    >>> from notbugs.search import NormBall
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> images, labels = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    >>> losses = [partial(attacks.pgd, threat_model=NormBall("l2", 0.5), loss=loss) for loss in ("margin", "cross_entropy")]
    >>> attacks.worst_case(model, images, labels, losses).margins.shape
    torch.Size([5])
    """
    state = EnsembleState.from_clean(model, images, labels)
    for attack in attacks:
        state = state.run(attack)
    return state.result
