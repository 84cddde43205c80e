"""Turned and moved: the search for an image's worst rotation and translation."""

import torch
from torch import Tensor

from notbugs import search
from notbugs.attacks.validation import Model, clean_logits, validated
from notbugs.errors import InputError
from notbugs.search import AttackResult, NormBall, Objective, SpatialTransforms, objectives


@validated
def spatial_attack(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: SpatialTransforms,
    turns: int = 11,
    moves: int = 5,
    steps: int = 10,
    gradient: bool = True,
) -> AttackResult:
    """The worst turn and move of each image within bounds; values of 0 or more are fooled.

    A grid of `turns` angles and `moves` places across and down, then, where nothing fools yet, `steps` of gradient ascent on the
    three numbers from the worst point of the grid. An image is left alone once it is fooled.
    gradient: without, the grid alone, which asks for logits only.
    Source: the grid of Engstrom et al. 2019, who found gradients alone far weaker.
    """
    if not isinstance(threat_model, SpatialTransforms):
        raise InputError("threat_model", "must be Spatial for turns and moves", type(threat_model).__name__)
    threat_model.fit(images.shape)
    value = -objectives.margin(clean_logits(model, images, labels), labels)
    best, amounts = images.clone(), images.new_zeros(len(images), 3)

    def ticks(count: int, bound: float) -> Tensor:
        return torch.linspace(-1, 1, count) if bound and count > 1 else torch.zeros(1)

    def keep(index: Tensor, tried: Tensor, seen: Tensor, judged: Tensor) -> None:
        wins = judged > value[index]
        best[index[wins]], value[index[wins]], amounts[index[wins]] = seen[wins], judged[wins], tried[wins]

    grid = torch.cartesian_prod(
        ticks(turns, threat_model.degrees), ticks(moves, threat_model.pixels), ticks(moves, threat_model.pixels)
    )
    with torch.no_grad():
        for point in grid[grid.abs().sum(1).argsort(descending=True, stable=True)]:  # what is far out fools soonest
            index = (value < 0).nonzero().squeeze(1)
            if not len(index):
                break
            tried = point.to(images).expand(len(index), 3)
            seen = threat_model.apply(images[index], tried)
            keep(index, tried, seen, -objectives.margin(objectives.logits(model, seen), labels[index]))
    index = (value < 0).nonzero().squeeze(1)
    if gradient and steps and len(index):
        # the same engine on three numbers an image instead of its pixels; it searches in [0, 1], the middle being no change
        middle, box = images.new_full((len(index), 3, 1, 1), 0.5), NormBall("linf", 0.5)
        plain = objectives.untargeted(model, labels[index])

        def turned(numbers: Tensor) -> Tensor:
            return threat_model.apply(images[index], 2 * numbers.flatten(1) - 1)

        goal = Objective(lambda numbers: plain.forward(turned(numbers)), plain.objective, plain.criterion)
        spacing = 1 / max(min(turns, moves) - 1, 1)
        start = (amounts[index, :, None, None] + 1) / 2
        found = search.maximize(goal, middle, box, steps=steps, rule=search.cosine_steps(box, spacing, end=0.01), start=start)
        keep(index, 2 * found.images.flatten(1) - 1, turned(found.images), found.margins)
    return AttackResult(best, value)
