"""The same adversarial examples against other networks and other learning algorithms: who inherits a model's blind spots?"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from notbugs import attacks, construct, precision, stats
from notbugs.data import Dataset, map_batches, to_8bit
from notbugs.models import fuse_batchnorm
from notbugs.predict import predict_any
from notbugs.search import NormBall, objectives

PERTURBATIONS = ("untargeted", "targeted", "random")


class AdversarialExamples(NamedTuple):
    """Images as one model is misled, uint8 (N, C, H, W) each, and int64 (N,): what it reads in them.

    untargeted: away from the label. targeted: towards `targets`, another class for each. random: the untargeted change scattered
    over the image, signs too, every norm the same (but see `construct.noise_like`). read: by the source, of the images as they
    are; read_untargeted, read_targeted, read_random: of these.
    """

    untargeted: Tensor
    targeted: Tensor
    random: Tensor
    targets: Tensor
    read: Tensor
    read_untargeted: Tensor
    read_targeted: Tensor
    read_random: Tensor


def make_examples(
    model: nn.Module,
    part: Dataset,
    threat_model: NormBall,
    *,
    steps: int = 20,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> AdversarialExamples:
    """Adversarial examples of a model for every image, as strong inside the ball as the search makes them, and as stored.

    Every image is pushed to the end, also once it is misread: what only just misleads one model seldom misleads another.
    """
    view = fuse_batchnorm(model, part.pixels(slice(0, 2)), device)
    targets = construct.random_labels(part.labels, len(part.classes), seed=seed)

    def push(images: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        labels, wanted = part.labels[index].to(images.device), targets[index].to(images.device)
        away = threat_model.round_to_8bit(
            attacks.pgd(view, images, labels, threat_model=threat_model, steps=steps, loss="cross_entropy").images, images
        )
        towards = threat_model.round_to_8bit(
            attacks.targeted_pgd(view, images, wanted, threat_model=threat_model, steps=steps, loss="cross_entropy").images,
            images,
        )
        with torch.no_grad():
            read = [objectives.logits(view, each).argmax(1) for each in (images, away, towards)]
        return to_8bit(away), to_8bit(towards), *read

    untargeted, targeted, *reads = map_batches(
        push, part, batch_size=batch_size or precision.default_batch_size(device, part.shape), device=device
    )
    scattered = construct.shuffled_perturbations(part, part.with_images(untargeted), seed=seed).dataset.images
    assert isinstance(scattered, Tensor)
    noisy = predict_any(model, part.with_images(scattered), device)
    return AdversarialExamples(untargeted, targeted, scattered, targets, reads[0], reads[1], reads[2], noisy)


def transfer_rates(
    made: AdversarialExamples, part: Dataset, target: Callable[[Tensor], Tensor], *, device: torch.device | str = "cpu"
) -> list[dict[str, Any]]:
    """What another model makes of these examples: one row a kind of change.

    target: images in [0, 1] -> logits; part: the images as they were. Counted are the n images that both models read unchanged.
    unfooled: the target still reads the label; same: it makes the source's own mistake (targeted: it reads the class wanted);
    other: another mistake. rate, with its 95 % interval: same + other (targeted: same), over n. source_rate: the source's own.
    Source of the three counts: Waseda et al. 2023.
    """
    labels = part.labels
    calm = predict_any(target, part, device)
    both = (calm == labels) & (made.read == labels)
    n = int(both.sum())
    rows = []
    sources = {"untargeted": made.read_untargeted, "targeted": made.read_targeted, "random": made.read_random}
    for change in PERTURBATIONS:
        answer = predict_any(target, part.with_images(getattr(made, change)), device)
        wanted = made.targets if change == "targeted" else sources[change]
        same = int((both & (answer == wanted) & (answer != labels)).sum())
        unfooled = int((both & (answer == labels)).sum())
        hits = same if change == "targeted" else n - unfooled
        low, high = stats.wilson_interval(hits, n) if n else (0.0, 1.0)
        own = sources[change] == made.targets if change == "targeted" else sources[change] != labels
        rows.append(
            {
                "change": change,
                "n": n,
                "unfooled": unfooled,
                "same": same,
                "other": n - unfooled - same,
                "rate": hits / n if n else "",
                "low": low,
                "high": high,
                "source_rate": float((both & own).sum() / n) if n else "",
                "clean": float((calm == labels).float().mean()),
            }
        )
    return rows


# ---- learners that are no networks --------------------------------------------------------------------------------------
