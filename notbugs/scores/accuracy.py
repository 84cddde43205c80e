"""Accuracy tables: every figure with its n and its interval."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from notbugs import attacks, speed
from notbugs.ball import Ball
from notbugs.data import Dataset, sweep
from notbugs.models import Model, folded, frozen


def interval(correct: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a share."""
    from scipy.stats import binomtest

    found = binomtest(correct, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def row(correct: int, n: int, *, epsilon: float = 0.0, attack: str = "none") -> dict[str, Any]:
    """One accuracy: correct, n, accuracy in [0, 1] with its 95 % interval, epsilon (0 is clean) and attack."""
    low, high = interval(correct, n)
    return {"epsilon": epsilon, "attack": attack, "correct": correct, "n": n, "accuracy": correct / n, "low": low, "high": high}


def clean(model: Model, part: Dataset, *, batch_size: int = 500, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Accuracy on the images as they are."""
    model = model.to(device)

    def right(images: Tensor, index: Tensor) -> Tensor:
        with frozen(model), torch.no_grad():
            predicted: Tensor = model(images).argmax(1)
        return predicted == part.labels[index].to(predicted.device)

    correct: Any = sweep(right, part, batch_size=batch_size, device=device)
    return row(int(correct.sum()), len(part))


def under_attack(
    model: nn.Module,
    part: Dataset,
    balls: Sequence[Ball],
    *,
    budget: str = "standard",
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> list[dict[str, Any]]:
    """Accuracy clean and at each radius, ascending, by `attacks.standard`; each radius meets only the survivors of the smaller.

    An image fooled at a radius is fooled at every larger one: what was found lies in the larger ball too.
    """
    view, classes = folded(model, part.pixels(slice(0, 2)), device), len(part.classes)
    ascending = sorted(balls, key=lambda ball: ball.radius)

    def survive(images: Tensor, index: Tensor) -> Tensor:
        labels = part.labels[index].to(images.device)
        with torch.no_grad():
            alive = view(images).argmax(1) == labels
        verdicts = [alive]
        for ball in ascending:
            left = alive.nonzero().squeeze(1)
            alive = alive.clone()
            if len(left):
                found = attacks.standard(view, images[left], labels[left], ball=ball, budget=budget)
                alive[left] = found.values < 0
            verdicts.append(alive)
        return torch.stack(verdicts, dim=1)

    table: Any = sweep(survive, part, batch_size=batch_size or speed.at_once(device, part.shape), device=device)
    correct, n = table.sum(0).tolist(), len(part)
    common = {"norm": ascending[0].norm}
    return [
        {**common, **row(correct[0], n)},
        *(
            {
                **common,
                **row(correct[i], n, epsilon=float(ball.radius), attack=attacks.standard_name(ball, classes, budget=budget)),
            }
            for i, ball in enumerate(ascending, 1)
        ),
    ]
