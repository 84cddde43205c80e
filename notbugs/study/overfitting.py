"""Catastrophic overfitting, measured: adversarial training that resists the few steps of its own attack, and not more of them."""

import torch
from torch import Tensor

from notbugs import attacks, data, stats
from notbugs.data import Dataset
from notbugs.metrics import Accuracy
from notbugs.models import Model, frozen, fuse_batchnorm
from notbugs.search import NormBall, objectives
from notbugs.study.catalog.overfitting import MIN_SHARE, remedy

TESTED_IMAGES, TESTED_STEPS = 200, 20


def training_attack_accuracy(
    model: Model, dataset: Dataset, threat_model: NormBall, steps: int, device: torch.device | str = "cpu"
) -> Accuracy:
    """Accuracy under the attack of adversarial training, `attacks.training_pgd`: an upper bound far from tight.

    Parameters
    ----------
    model : Model
    dataset : Dataset
        One image or more.
    threat_model : NormBall
    steps : int
        Of the attack in training.
    device : torch.device or str

    Examples
    --------
    >>> from notbugs import models
    >>> digits = data.load("digits").test.select(slice(0, 20))
    >>> model = models.build("small", shape=digits.shape, classes=10, width=4)
    >>> training_attack_accuracy(model, digits, NormBall("l2", 0.5), steps=3).attack
    'PGD of training, 3 steps'
    """
    correct = int(_correct(model, dataset, threat_model, steps, device).sum())
    attack = f"PGD of training, {_counted(steps)}"
    return Accuracy.from_counts(correct, len(dataset), norm=threat_model.norm, epsilon=float(threat_model.epsilon), attack=attack)


def overfitting_warning(
    model: Model,
    dataset: Dataset,
    threat_model: NormBall,
    steps: int,
    device: torch.device | str = "cpu",
    *,
    noise: float = 0.0,
    option: str = "--noise",
    python: bool = False,
) -> str:
    """Why the attack of adversarial training was too weak, on some of its images and on what to do; "" if it was not.

    Parameters
    ----------
    model, threat_model, steps, device
        As in `training_attack_accuracy`.
    dataset : Dataset
        Its training images: what it has not learned of others does not count.
    noise, option, python
        As in `catalog.overfitting.remedy`.

    References
    ----------
    Wong et al. 2020, "Fast is better than free: Revisiting adversarial training": the name.
    de Jorge et al. 2022, "Make Some Noise: Reliable and Efficient Single-Step Adversarial Training": noise as a remedy.
    """
    part = dataset.select(data.evenly_spaced(min(TESTED_IMAGES, len(dataset)), len(dataset)))
    more = max(TESTED_STEPS, 2 * steps)
    few, many = (_correct(model, part, threat_model, each, device) for each in (steps, more))
    if stats.wilson_interval(int((few & ~many).sum()), len(part))[0] <= MIN_SHARE:
        return ""
    first, second = (f"{100 * int(correct.sum()) / len(part):.0f} %" for correct in (few, many))
    epsilon = float(threat_model.epsilon)
    helps = remedy(threat_model.norm, epsilon, steps, dataset.shape, noise=noise, option=option, python=python)
    return (
        f"adversarial training overfits to its attack, PGD of {_counted(steps)} (catastrophic overfitting): of {len(part)} "
        f"training images {first} are classified correctly under it, {second} under {more} steps. {helps}"
    )


def _counted(steps: int) -> str:
    return f"{steps} step{'s' if steps > 1 else ''}"


def _correct(model: Model, dataset: Dataset, threat_model: NormBall, steps: int, device: torch.device | str) -> Tensor:
    """Which images are classified correctly under PGD as in training, (N,), bool."""
    fused = fuse_batchnorm(model, dataset.pixels(slice(0, 2)), device)

    def correct(images: Tensor, index: Tensor) -> Tensor:
        labels = dataset.labels[index].to(images.device)
        with frozen(fused):
            attacked = attacks.training_pgd(fused, images, labels, threat_model=threat_model, steps=steps)
        with torch.no_grad():
            return objectives.logits(fused, attacked).argmax(1) == labels

    found: Tensor = data.map_batches(correct, dataset, device=device).cpu()
    return found
