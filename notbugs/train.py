"""How classifiers learn: one loop. Ordinary and adversarial training differ only in the loss."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from notbugs import precision
from notbugs.errors import InputError
from notbugs.models import frozen, memory_format
from notbugs.search import Attack

Loss = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
Augment = Callable[[Tensor, Generator], Tensor]


class LabeledImages(Protocol):
    """What is trained on: uint8 images (N, C, H, W), labels (N,), and the names of the classes."""

    @property
    def images(self) -> Any: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def classes(self) -> tuple[str, ...]: ...


class Epoch(NamedTuple):
    """One line of a training curve. loss, accuracy: on the set's own labels, as seen while training; seconds: since the start."""

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float


# ---- losses: (model, images, labels) -> (loss, logits) ----------------------------------------------------------------


def cross_entropy(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy: ordinary training."""
    logits = model(images)
    return F.cross_entropy(logits, labels), logits


def adversarial_loss(attack: Attack) -> Loss:
    """Cross-entropy on what an attack makes of each batch (Madry et al. 2018). The attack sees the model in evaluation mode."""

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with frozen(model):
            worst = attack(model, images, labels).images
        return cross_entropy(model, worst, labels)

    return loss


def trades(attack: Attack, *, beta: float = 6.0) -> Loss:
    """Cross-entropy on the images plus beta times the divergence an attack can cause (Zhang et al. 2019).

    attack: one that climbs that divergence, `attacks.diverge`. beta: 0 is ordinary training; more buys robustness.
    """

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with frozen(model):
            worst = attack(model, images, labels).images
        logits, moved = model(images), model(worst)  # apart, as in the paper: batch norm keeps their statistics apart too
        drift = F.kl_div(F.log_softmax(moved.float(), dim=1), F.softmax(logits.float(), dim=1), reduction="batchmean")
        return F.cross_entropy(logits, labels) + beta * drift, logits

    return loss


# ---- augmentation: (images (n, C, H, W), generator) -> images ----------------------------------------------------------


def random_translate(pixels: int, *, flip: bool) -> Augment:
    """Each image moved by up to so many pixels either way (edges reflected), and mirrored half the time if `flip`."""

    def augment(images: Tensor, generator: Generator) -> Tensor:
        count, _, height, width = images.shape
        padded = F.pad(images, [pixels] * 4, mode="reflect")

        def places(length: int) -> Tensor:
            offset = torch.randint(2 * pixels + 1, (count, 1), generator=generator, device=images.device)
            return torch.arange(length, device=images.device) + offset

        rows, columns = places(height), places(width)
        if flip:
            mirrored = torch.rand(count, 1, generator=generator, device=images.device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        which = torch.arange(count, device=images.device)[:, None, None]
        # indexing yields (n, H, W, C): permuted back it is the channels-last layout that convolutions like best
        return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    return augment


# ---- the loop -----------------------------------------------------------------------------------------------------------


def fit(
    model: nn.Module,
    data: LabeledImages,
    loss: Loss = cross_entropy,
    *,
    epochs: int,
    batch_size: int = 128,
    learning_rate: float = 0.01,
    weight_decay: float = 0.05,
    augment: Augment | None = None,
    patience: int = 0,
    bf16: bool | None = None,
    compile: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train in place (AdamW, a short warm-up, then a linear fall to 0); the training curve is returned.

    epochs: passes over the data that the schedule spans. patience: at most so many further passes, at full learning rate, before
    the schedule starts, while accuracy on the set's own labels is still at chance: labels that only faint features explain can
    sit there for long (Ilyas et al. 2019, figure 10), and a fixed short budget would call that failure.
    half: in bfloat16 (`speed.halved`); compile: the network first (`speed.compiled`).
    The weights are those of the last pass. The same seed on the same machine gives the same weights.
    """
    if epochs < 1:
        raise InputError("epochs", "must be 1 or more", epochs)
    device = torch.device(device)
    order = memory_format(model)
    model.to(device).to(memory_format=order).train()  # type: ignore[call-overload]
    images = data.images.to(device) if isinstance(data.images, Tensor) else data.images  # files too many for memory stay there
    labels = data.labels.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        betas=(0.9, 0.99),
        fused=True,
    )
    batches = max(1, min(math.ceil(len(labels) / batch_size), len(labels) // 2))  # batch norm has no use for a batch of one
    warm = max(1, round(0.15 * epochs * batches))
    chance = _chance_threshold(labels, len(data.classes))
    learner = precision.compiled(model) if compile else model
    curve: list[Epoch] = []
    begun, waited, step, started = patience == 0, 0, 0, time.perf_counter()
    # the network's own chance (dropout) starts from the seed too, and the caller's random state is left alone
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        torch.default_generator.manual_seed(seed)  # forked above; torch.manual_seed would reach every device's
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        while len(curve) < epochs + waited:
            total, right = torch.zeros((), device=device), torch.zeros((), device=device)
            for index in torch.randperm(len(labels), generator=generator, device=device).tensor_split(batches):
                step += 1
                fall = ((epochs + waited) * batches - step) / max(epochs * batches - warm, 1) if begun else 1.0
                rate = learning_rate * (step / warm if step <= warm else min(fall, 1.0))
                for group in optimizer.param_groups:
                    group["lr"] = rate
                batch = images[index if isinstance(images, Tensor) else index.cpu()].to(device).float().div_(255)
                if augment:
                    batch = augment(batch, generator)
                with precision.autocast(device, bf16):
                    value, logits = loss(learner, batch.clone(memory_format=order), labels[index])
                optimizer.zero_grad(set_to_none=True)
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += value.detach() * len(index)
                right += (logits.detach().argmax(1) == labels[index]).sum()
            loss_seen, accuracy, seconds = total.item() / len(labels), right.item() / len(labels), time.perf_counter() - started
            curve.append(Epoch(len(curve) + 1, loss_seen, accuracy, rate, seconds))
            if not math.isfinite(loss_seen):
                raise InputError("learning rate", "training diverged: the loss is no longer a number", learning_rate, "lower it")
            if progress:
                progress(curve[-1])
            if not begun:  # a pass at chance at full learning rate is one of waiting: the schedule's end moves by as much
                waited += accuracy < chance and step >= warm
                begun = accuracy >= chance or waited == patience
    model.eval()
    return curve


def _chance_threshold(labels: Tensor, classes: int) -> float:
    """Accuracy on the own labels from which learning has begun: half as much again as guessing gets.

    Guessing: always the commonest label, or, where every label is known to be wrong, one of the other classes.
    """
    guess = max(labels.bincount(minlength=classes).max().item() / len(labels), 1 / (classes - 1) if classes > 2 else 0.0)
    return min(1.5 * guess, (1 + guess) / 2)
