"""Accuracy tables: every figure with its n and its interval."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from notbugs import attacks, precision
from notbugs.data import Dataset, map_batches
from notbugs.models import Model, frozen, fuse_batchnorm
from notbugs.search import NormBall
from notbugs.stats import wilson_interval


def accuracy_row(correct: int, n: int, *, epsilon: float = 0.0, attack: str = "none") -> dict[str, Any]:
    """One accuracy: correct, n, accuracy in [0, 1] with its 95 % interval, epsilon (0 is clean) and attack."""
    low, high = wilson_interval(correct, n)
    return {"epsilon": epsilon, "attack": attack, "correct": correct, "n": n, "accuracy": correct / n, "low": low, "high": high}


def clean_accuracy(model: Model, part: Dataset, *, batch_size: int = 500, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Accuracy on the images as they are."""
    model = model.to(device)

    def right(images: Tensor, index: Tensor) -> Tensor:
        with frozen(model), torch.no_grad():
            predicted: Tensor = model(images).argmax(1)
        return predicted == part.labels[index].to(predicted.device)

    correct: Any = map_batches(right, part, batch_size=batch_size, device=device)
    return accuracy_row(int(correct.sum()), len(part))


def robust_accuracy(
    model: nn.Module,
    part: Dataset,
    balls: Sequence[NormBall],
    *,
    budget: str = "standard",
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> list[dict[str, Any]]:
    """Accuracy clean and at each radius, ascending, by `attacks.standard`; each radius meets only the survivors of the smaller.

    An image fooled at a radius is fooled at every larger one: what was found lies in the larger ball too.
    """
    view, classes = fuse_batchnorm(model, part.pixels(slice(0, 2)), device), len(part.classes)
    ascending = sorted(balls, key=lambda threat_model: threat_model.epsilon)

    def survive(images: Tensor, index: Tensor) -> Tensor:
        labels = part.labels[index].to(images.device)
        with torch.no_grad():
            alive = view(images).argmax(1) == labels
        verdicts = [alive]
        for threat_model in ascending:
            left = alive.nonzero().squeeze(1)
            alive = alive.clone()
            if len(left):
                found = attacks.adaptive_ensemble(view, images[left], labels[left], threat_model=threat_model, budget=budget)
                alive[left] = found.margins < 0
            verdicts.append(alive)
        return torch.stack(verdicts, dim=1)

    table: Any = map_batches(
        survive, part, batch_size=batch_size or precision.default_batch_size(device, part.shape), device=device
    )
    correct, n = table.sum(0).tolist(), len(part)
    common = {"norm": ascending[0].norm}
    return [
        {**common, **accuracy_row(correct[0], n)},
        *(
            {
                **common,
                **accuracy_row(
                    correct[i],
                    n,
                    epsilon=float(threat_model.epsilon),
                    attack=attacks.describe_ensemble(threat_model, classes, budget=budget),
                ),
            }
            for i, threat_model in enumerate(ascending, 1)
        ),
    ]
