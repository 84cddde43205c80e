"""Transferability: adversarial examples of one model against other networks and other learning algorithms."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from notbugs import attacks, construct, precision, stats
from notbugs.data import Dataset, map_batches, to_8bit
from notbugs.models import fuse_batchnorm
from notbugs.predict import predict
from notbugs.search import NormBall, objectives

PERTURBATIONS = ("untargeted", "targeted", "random")


class AdversarialExamples(NamedTuple):
    """Adversarial examples of one model (source) for N images, as stored.

    Attributes
    ----------
    untargeted, targeted : Tensor, uint8, (N, C, H, W)
        Perturbed away from the label, and toward `targets`.
    random : Tensor, uint8, (N, C, H, W)
        The untargeted perturbations shuffled over pixels and signs (`construct.shuffled_perturbations`): a control.
    targets : Tensor, int64, (N,)
        A random wrong class for each image.
    predicted, predicted_untargeted, predicted_targeted, predicted_random : Tensor, int64, (N,)
        What the source predicts for the clean images and for these.
    """

    untargeted: Tensor
    targeted: Tensor
    random: Tensor
    targets: Tensor
    predicted: Tensor
    predicted_untargeted: Tensor
    predicted_targeted: Tensor
    predicted_random: Tensor


class TransferRates(NamedTuple):
    """How one kind of adversarial examples transfers to another model (target). What is not defined is None.

    Attributes
    ----------
    perturbation : {"untargeted", "targeted", "random"}
    n : int
        Images that source and target both classify correctly; the counts and rates are of these.
    not_misclassified, same_mistake, other_mistake : int
        What the target predicts for the perturbed image: the label, the source's mistake (targeted: the target class), or another
        class.
    transfer_rate : float or None, in [0, 1]
        Share of mistakes (targeted: of same mistakes).
    ci_low, ci_high : float, in [0, 1]
        Its 95 % CI.
    source_rate : float or None, in [0, 1]
        The same rate of the source itself.
    clean_accuracy : float, in [0, 1]
        Of the target, on all images.
    """

    perturbation: str
    n: int
    not_misclassified: int
    same_mistake: int
    other_mistake: int
    transfer_rate: float | None
    ci_low: float
    ci_high: float
    source_rate: float | None
    clean_accuracy: float


def make_examples(
    model: nn.Module,
    dataset: Dataset,
    threat_model: NormBall,
    *,
    steps: int = 20,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> AdversarialExamples:
    """Adversarial examples of a model for every image, rounded to 8 bits inside the ball.

    The search goes on after an image is misclassified: what only just crosses one model's decision boundary seldom transfers.

    Parameters
    ----------
    model : nn.Module
        The source: images (N, C, H, W) in [0, 1] to logits (N, K).
    dataset : Dataset
    threat_model : NormBall
        With one limit for all channels.
    steps : int
        Of PGD on the cross-entropy.
    seed : int
        Of the target classes and the shuffled perturbations.
    batch_size : int, optional
        By default as many images as suit the device.
    device : torch.device or str
    progress : callable, optional
        Called after each of the two attacks on a batch, with the share that is done, in [0, 1].

    Returns
    -------
    AdversarialExamples

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").test.select(slice(0, 5))
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> make_examples(model, digits, NormBall("l2", 0.5), steps=2).untargeted.shape
    torch.Size([5, 1, 8, 8])
    """
    fused = fuse_batchnorm(model, dataset.pixels(slice(0, 2)), device)
    targets = construct.random_labels(dataset.labels, len(dataset.classes), seed=seed)
    untargeted_attack = partial(attacks.pgd, threat_model=threat_model, steps=steps, loss="cross_entropy")
    targeted_attack = partial(attacks.targeted_pgd, threat_model=threat_model, steps=steps, loss="cross_entropy")

    def report(index: Tensor, share: float) -> None:
        if progress:
            progress((int(index[0]) + len(index) * share) / len(dataset))

    def perturb(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        labels, wanted = dataset.labels[index].to(images.device), targets[index].to(images.device)
        untargeted = threat_model.round_to_8bit(untargeted_attack(fused, images, labels).images, images)
        report(index, 0.5)
        targeted = threat_model.round_to_8bit(targeted_attack(fused, images, wanted).images, images)
        report(index, 1.0)
        with torch.no_grad():
            predicted = [objectives.logits(fused, each).argmax(1) for each in (images, untargeted, targeted)]
        return to_8bit(untargeted), to_8bit(targeted), *predicted

    batch_size = batch_size or precision.default_batch_size(device, dataset.shape)
    untargeted, targeted, *predicted = map_batches(perturb, dataset, batch_size=batch_size, device=device)
    attacked = dataset.with_images(untargeted)
    shuffled = construct.shuffled_perturbations(dataset, attacked, seed=seed, mask=threat_model.mask).dataset.images[:]
    predicted.append(predict(model, dataset.with_images(shuffled), device))
    return AdversarialExamples(untargeted, targeted, shuffled, targets, *predicted)


def transfer_rates(
    examples: AdversarialExamples,
    dataset: Dataset,
    target: Callable[[Tensor], Tensor],
    *,
    device: torch.device | str = "cpu",
) -> list[TransferRates]:
    """How adversarial examples of one model transfer to another.

    Parameters
    ----------
    examples : AdversarialExamples
    dataset : Dataset
        The clean images.
    target : callable
        The other model: images (N, C, H, W) in [0, 1] to logits (N, K).
    device : torch.device or str

    Returns
    -------
    list of TransferRates
        Untargeted, targeted and random.

    References
    ----------
    The three counts: Waseda et al. 2023, "Closer Look at the Transferability of Adversarial Examples: How They Fool Different
    Models Differently".

    Examples
    --------
    >>> from notbugs import data, models
    >>> digits = data.load("digits").test.select(slice(0, 5))
    >>> source, target = (models.build("small", shape=digits.shape, classes=10, width=4, seed=seed) for seed in (0, 1))
    >>> examples = make_examples(source, digits, NormBall("l2", 0.5), steps=2)
    >>> [rates.perturbation for rates in transfer_rates(examples, digits, target)]
    ['untargeted', 'targeted', 'random']
    """
    clean = predict(target, dataset, device)
    both_correct = (clean == dataset.labels) & (examples.predicted == dataset.labels)
    clean_accuracy = float((clean == dataset.labels).float().mean())
    kinds = {
        "untargeted": (examples.untargeted, examples.predicted_untargeted),
        "targeted": (examples.targeted, examples.predicted_targeted),
        "random": (examples.random, examples.predicted_random),
    }
    rates = []
    for perturbation, (images, source_predicted) in kinds.items():
        predicted = predict(target, dataset.with_images(images), device)
        targets = examples.targets if perturbation == "targeted" else None
        rates.append(_rates(perturbation, predicted, source_predicted, dataset.labels, targets, both_correct, clean_accuracy))
    return rates


def _rates(
    perturbation: str,
    predicted: Tensor,
    source_predicted: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    both_correct: Tensor,
    clean_accuracy: float,
) -> TransferRates:
    """Counts and rates from what the target and the source predict for perturbed images; targets: of targeted ones."""
    n = int(both_correct.sum())
    wanted = source_predicted if targets is None else targets
    same = int((both_correct & (predicted == wanted) & (predicted != labels)).sum())
    kept = int((both_correct & (predicted == labels)).sum())
    hits = n - kept if targets is None else same
    low, high = stats.wilson_interval(hits, n) if n else (0.0, 1.0)
    source_hits = both_correct & (source_predicted != labels if targets is None else source_predicted == targets)
    return TransferRates(
        perturbation=perturbation,
        n=n,
        not_misclassified=kept,
        same_mistake=same,
        other_mistake=n - kept - same,
        transfer_rate=hits / n if n else None,
        ci_low=low,
        ci_high=high,
        source_rate=float(source_hits.sum() / n) if n else None,
        clean_accuracy=clean_accuracy,
    )
