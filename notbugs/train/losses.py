"""Losses of training: (model, images, labels) -> (loss, logits)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from notbugs.errors import InputError
from notbugs.models import frozen
from notbugs.models.fusion import fused_now
from notbugs.precision import bounded_batch_size
from notbugs.search import AttackResult

Loss = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(model, images (N, C, H, W), labels (N,)) -> (loss, logits (N, K)): `cross_entropy`, `adversarial_loss`, `trades`, or own."""

TrainingAttack = Callable[[nn.Module, Tensor, Tensor], AttackResult | Tensor]
"""(model, images (N, C, H, W), labels (N,)) -> the images of a training step, or a result with them: every attack is one."""


def cross_entropy(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy on the clean images: standard training.

    Parameters
    ----------
    model : nn.Module
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, (N,), int64

    Returns
    -------
    tuple of Tensor
        The mean loss, and the logits (N, K).

    Examples
    --------
    >>> loss, logits = cross_entropy(nn.Flatten(), torch.zeros(2, 1, 1, 4), torch.tensor([0, 1]))
    >>> round(loss.item(), 3), logits.shape
    (1.386, torch.Size([2, 4]))
    """
    logits = model(images)
    return F.cross_entropy(logits, labels), logits


def adversarial_loss(attack: TrainingAttack) -> Loss:
    """Cross-entropy on adversarial examples of each batch: adversarial training.

    Parameters
    ----------
    attack : callable
        (model, images, labels) to perturbed images, as Tensor or AttackResult: `attacks.training_pgd`, any other attack, or your
        own. Gets the model in evaluation mode.

    Returns
    -------
    Loss

    References
    ----------
    Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks".

    Examples
    --------
    >>> from functools import partial
    >>> from notbugs import attacks
    >>> from notbugs.search import NormBall
    >>> loss = adversarial_loss(partial(attacks.training_pgd, threat_model=NormBall("l2", 0.5), steps=3))
    """

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return cross_entropy(model, adversarial_examples(attack, model, images, labels), labels)

    return loss


def trades(attack: TrainingAttack, *, beta: float = 6.0) -> Loss:
    """Cross-entropy on clean images plus beta times the KL divergence that an attack causes.

    Parameters
    ----------
    attack : callable
        One that maximizes this divergence: `attacks.kl_pgd`.
    beta : float
        0 is standard training; larger values trade clean for robust accuracy.

    Returns
    -------
    Loss
        Its logits are those of the clean images.

    References
    ----------
    Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy".

    Examples
    --------
    >>> from functools import partial
    >>> from notbugs import attacks
    >>> from notbugs.search import NormBall
    >>> loss = trades(partial(attacks.kl_pgd, threat_model=NormBall("l2", 0.5), steps=3))
    """

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        adversarial = adversarial_examples(attack, model, images, labels)
        # two passes, as in the paper: batch norm uses the statistics of clean and of adversarial images separately
        logits, adversarial_logits = model(images), model(adversarial)
        log_probabilities, clean = F.log_softmax(adversarial_logits.float(), dim=1), F.softmax(logits.float(), dim=1)
        divergence = F.kl_div(log_probabilities, clean, reduction="batchmean")
        return F.cross_entropy(logits, labels) + beta * divergence, logits

    return loss


def adversarial_examples(attack: TrainingAttack, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Adversarial examples of a batch, for the model in evaluation mode; of large images on a CPU some at a time.

    Attacks get the network itself, with batch norm fused where that can be: of one that several ranks train together only the
    passes of training are counted.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    count = len(images)
    at_once = bounded_batch_size(count, "cpu", images.shape[1:]) if images.device.type == "cpu" else count
    model = fused_now(model, images) or model
    with frozen(model):
        pairs = zip(torch.split(images, at_once), torch.split(labels, at_once), strict=True)
        return torch.cat([_images_of(attack(model, *pair), pair[0]) for pair in pairs])


def _images_of(result: AttackResult | Tensor, images: Tensor) -> Tensor:
    """The images that an attack made of images. Raises InputError for anything else."""
    found = result if isinstance(result, Tensor) else getattr(result, "images", None)
    if not isinstance(found, Tensor) or found.shape != images.shape:
        rule = f"must return perturbed images of shape {tuple(images.shape)}, as Tensor or as `images` of its result"
        got = tuple(found.shape) if isinstance(found, Tensor) else type(result).__name__
        raise InputError("attack", rule, got)
    return found
