"""Clean and robust accuracy: every figure with its n, its 95 % CI, its threat model and its attack."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from notbugs import attacks, precision
from notbugs.attacks.own import attack_name, can_follow_gradients, own_attacks, warn_of_unused
from notbugs.data import Dataset, map_batches
from notbugs.errors import InputError
from notbugs.models import fuse_batchnorm
from notbugs.models.reading import check_finite
from notbugs.predict import predict
from notbugs.search import Attack, NormBall, objectives
from notbugs.stats import wilson_interval

PROGRESS = 0.05  # at most so often is progress reported
CURVE_SHARE = 0.1  # time of an epsilon of the curve, which few images get, over that of another
CLEAN = -1.0  # in place of an epsilon: below 0, which may be one


@dataclass(frozen=True)
class Accuracy:
    """One accuracy with its 95 % CI (Wilson).

    Attributes
    ----------
    epsilon : float, 0 or more
        0 is clean.
    norm : str
        Of epsilon; "" where no threat model is given.
    attack : str
        "none" for clean images.
    correct, n : int
    accuracy, ci_low, ci_high : float, in [0, 1]
    """

    epsilon: float
    norm: str
    attack: str
    correct: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float

    @classmethod
    def from_counts(cls, correct: int, n: int, *, epsilon: float = 0.0, norm: str = "", attack: str = "none") -> Self:
        """Accuracy and interval from counts.

        Examples
        --------
        >>> Accuracy.from_counts(3, 4).accuracy
        0.75
        """
        low, high = wilson_interval(correct, n)
        return cls(epsilon, norm, attack, correct, n, correct / n, low, high)


def clean_accuracy(model: nn.Module, dataset: Dataset, *, device: torch.device | str = "cpu") -> Accuracy:
    """Accuracy on clean images.

    Parameters
    ----------
    model : nn.Module
        Images (N, C, H, W) in [0, 1] to logits (N, K).
    dataset : Dataset
        One image or more.
    device : torch.device or str

    Returns
    -------
    Accuracy

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").test
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> clean_accuracy(model, digits).n
    450
    """
    correct = predict(model, dataset, device) == dataset.labels
    return Accuracy.from_counts(int(correct.sum()), len(dataset))


def robust_accuracy(
    model: nn.Module,
    dataset: Dataset,
    threat_models: Sequence[NormBall],
    *,
    budget: str = "standard",
    curve: Sequence[NormBall] = (),
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> list[Accuracy]:
    """Accuracy on clean images and at each epsilon, ascending, under `attacks.adaptive_ensemble`.

    Attacks that are registered (`extensions.Attack`) run after it, and stand in the name of the attack.

    Each epsilon is tried on the images that are still classified correctly at the smaller ones: what is misclassified within
    a ball is misclassified within every larger one.

    Parameters
    ----------
    model : nn.Module
        Images (N, C, H, W) in [0, 1] to logits (N, K).
    dataset : Dataset
        One image or more.
    threat_models : sequence of NormBall
        One or more, all in the same norm, in any order.
    budget : {"quick", "standard", "thorough"}
        See `attacks.BUDGETS`.
    curve : sequence of NormBall
        Further epsilons, under the quick ensemble. Only the images are attacked that `threat_models` leave open: misclassified
        within a larger of their balls, but not within a smaller one.
    batch_size : int, optional
        By default as many images as suit the device.
    device : torch.device or str
    progress : callable, optional
        Called with the share that is done, in [0, 1]: it rises by a twentieth or more at a time, after single attacks, up to 1.

    Returns
    -------
    list of Accuracy
        First the clean accuracy, then one for each epsilon, also those of `curve`, ascending.

    Raises
    ------
    InputError
        If the threat models are in different norms, or the model cannot be attacked, or its logits for a clean image are not
        finite.

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").test.select(slice(0, 20))
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> rows = robust_accuracy(model, digits, [NormBall("linf", 0.1)], budget="quick")
    >>> [(row.epsilon, row.n) for row in rows]
    [(0.0, 20), (0.1, 20)]
    """
    norms = sorted({threat_model.norm for threat_model in (*threat_models, *curve)})
    if len(norms) != 1 or not threat_models:
        raise InputError("threat_models", "must be one or more, all in the same norm", ", ".join(norms) or "none")
    fused = fuse_batchnorm(model, dataset.pixels(slice(0, 2)), device)
    main, further = ({float(threat_model.epsilon) for threat_model in balls} for balls in (threat_models, curve))
    gradient = can_follow_gradients(fused, dataset.pixels(slice(0, 2)).to(device))
    warn_of_unused(gradient)
    order = [*sorted(main), *sorted(further - main)]
    weights = [1.0] * len(main) + [CURVE_SHARE] * (len(order) - len(main))
    report = _rising(progress)
    budgets = {epsilon: budget if epsilon in main else "quick" for epsilon in order}

    def correct_at_each(images: Tensor, index: Tensor) -> Tensor:
        labels = dataset.labels[index].to(images.device)
        with torch.no_grad():
            logits = objectives.logits(fused, images)
        check_finite(logits, dataset.names, index)
        correct = {CLEAN: objectives.margin(logits, labels) > 0}  # equal logits are no prediction
        for number, epsilon in enumerate(order):
            of_epsilon = partial(_report, report, index, len(dataset), weights, number)
            ball = NormBall(norms[0], epsilon)
            own = own_attacks(ball, gradient=gradient)
            correct[epsilon] = _still_correct(
                fused, images, labels, correct, ball, budget=budgets[epsilon], own=own, progress=of_epsilon
            )
            of_epsilon(1.0)  # also where no image was left to attack
        return torch.stack([correct[epsilon] for epsilon in sorted(correct)], dim=1)

    batch_size = batch_size or precision.default_batch_size(device, dataset.shape)
    clean, *counts = map_batches(correct_at_each, dataset, batch_size=batch_size, device=device).sum(0).tolist()
    report(1.0)  # under torchrun the last batch may be done elsewhere
    names = {epsilon: attack_name(budgets[epsilon], NormBall(norms[0], epsilon), gradient=gradient) for epsilon in order}
    return [Accuracy.from_counts(clean, len(dataset), norm=norms[0])] + [
        Accuracy.from_counts(count, len(dataset), epsilon=epsilon, norm=norms[0], attack=names[epsilon])
        for count, epsilon in zip(counts, sorted(order), strict=True)
    ]


def _rising(progress: Callable[[float], None] | None) -> Callable[[float], None]:
    """`progress` called only where the share rose by `PROGRESS` or is 1: smaller batches, where memory runs out, begin anew."""
    highest = 0.0

    def report(share: float) -> None:
        nonlocal highest
        share = 1.0 if share > 1 - 1e-9 else share
        if progress and highest < share and (share == 1 or share >= highest + PROGRESS):
            highest = share
            progress(share)

    return report


def _report(
    report: Callable[[float], None], index: Tensor, count: int, weights: Sequence[float], number: int, share: float
) -> None:
    """A share of one epsilon in one batch as a share of all.

    index: of the batch, on the CPU; count: of all images; weights: time of each epsilon; number: which one.
    """
    done = (sum(weights[:number]) + weights[number] * share) / sum(weights)
    report((int(index[0]) + len(index) * done) / count)


def _still_correct(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    correct: Mapping[float, Tensor],
    threat_model: NormBall,
    *,
    budget: str,
    own: Sequence[Attack],
    progress: Callable[[float], None],
) -> Tensor:
    """Which images are still classified correctly under attack; correct: the same (n,) at the epsilons evaluated before.

    own: attacks that run after the ensemble. progress: of the ensemble.

    What is misclassified within a ball is misclassified within every larger one, so that only the other images are attacked.
    """
    epsilon = float(threat_model.epsilon)
    smaller, larger = max(other for other in correct if other < epsilon), [other for other in correct if other > epsilon]
    robust = correct[min(larger)] if larger else torch.zeros_like(correct[smaller])
    index = (correct[smaller] & ~robust).nonzero().squeeze(1)
    if not len(index):
        return correct[smaller]
    found = attacks.adaptive_ensemble(
        model, images[index], labels[index], threat_model=threat_model, budget=budget, progress=progress
    )
    left = found.margins < 0
    rest = index[left]
    if own and len(rest):
        left[left.clone()] = attacks.worst_case(model, images[rest], labels[rest], own).margins < 0
    return correct[smaller].index_copy(0, index, left)
