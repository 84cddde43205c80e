"""Named recipes for the search: how a classifier is fooled, and how a verdict is reached."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Generator, Tensor, nn

from notbugs import goals, search
from notbugs.ball import Ball
from notbugs.errors import BadInput
from notbugs.search import Attack, Found


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, *, ball: Ball) -> Found:
    """One step of the full radius up the cross-entropy (Goodfellow et al. 2015)."""
    return search.maximize(
        goals.leave_class(model, labels, "loss"), images, ball, steps=1, rule=search.steepest(ball, ball.radius)
    )


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    ball: Ball,
    steps: int = 20,
    by: str = "lead",
    restarts: int = 1,
    generator: Generator | None = None,
) -> Found:
    """Projected gradient ascent away from the labels (N,); values above 0 are fooled.

    by: climb the other classes' "lead" or the cross-entropy "loss". The step falls from twice the radius to a hundredth of that.
    generator: start at random in the ball (needed for restarts > 1; each meets only the survivors); without one,
    start at the image.
    Source: Madry et al. 2018; falling steps after Croce & Hein 2020.
    """
    if restarts > 1 and generator is None:
        raise BadInput("restarts", "needs a generator: every restart from the image itself would be the same", restarts)

    def once(model: nn.Module, images: Tensor, labels: Tensor) -> Found:
        start = ball.sample(images, generator) if generator else None
        return search.maximize(goals.leave_class(model, labels, by), images, ball, steps=steps, rule=_rule(ball), start=start)

    return once(model, images, labels) if restarts == 1 else worst_case(model, images, labels, [once] * restarts)


def reach(model: nn.Module, images: Tensor, targets: Tensor, *, ball: Ball, steps: int = 20, by: str = "lead") -> Found:
    """Projected gradient ascent towards the target classes (N,); values above 0 got there."""
    return search.maximize(goals.reach_class(model, targets, by), images, ball, steps=steps, rule=_rule(ball))


def runner_up(model: nn.Module, images: Tensor, labels: Tensor, *, ball: Ball, rank: int = 1, steps: int = 20) -> Found:
    """Away from the labels towards the class that is rank-th (from 1) among the wrong ones for the unchanged image."""
    with torch.no_grad():
        logits = model(images).float().scatter(1, labels[:, None], -torch.inf)
    if not 1 <= rank < logits.shape[1]:
        raise BadInput("rank", f"must be from 1 to {logits.shape[1] - 1}, one less than there are classes", rank)
    goal = goals.leave_class_towards(model, labels, logits.topk(rank).indices[:, -1])
    return search.maximize(goal, images, ball, steps=steps, rule=_rule(ball))


def diverge(
    model: nn.Module, images: Tensor, labels: Tensor, *, ball: Ball, steps: int = 10, generator: Generator | None = None
) -> Found:
    """As far as possible from the model's own calm prediction (labels are not looked at): the inner attack of TRADES.

    The prediction itself is where the divergence is flat, so the start is a hundredth of the radius away, at random.
    """
    generator = generator or torch.Generator(images.device).manual_seed(0)
    near = Ball(ball.norm, 0.01 * ball.radius)
    with torch.no_grad():
        calm = model(images)
    return search.maximize(
        goals.leave_prediction(model, calm), images, ball, steps=steps, rule=_rule(ball), start=near.sample(images, generator)
    )


def worst_case(model: nn.Module, images: Tensor, labels: Tensor, attacks: Sequence[Attack]) -> Found:
    """The worst any of the attacks finds, each meeting only the survivors of those before; values above 0 are fooled.

    An image the model gets wrong as it is counts as fooled and is returned unchanged.
    """
    with torch.no_grad():
        best, value = images.clone(), -goals.lead(model(images).float(), labels)
    for attack in attacks:
        left = (value <= 0).nonzero().squeeze(1)
        if not len(left):
            break
        found = attack(model, images[left], labels[left])
        wins = found.values > value[left]
        best[left[wins]], value[left[wins]] = found.images[wins], found.values[wins]
    return Found(best, value)


def ensemble_name(classes: int) -> str:
    """What `ensemble` does, in a few words, for tables: numbers are steps."""
    return f"lead 5 + loss 15 + towards each of the {min(classes, 10) - 1} nearest classes 10"


def ensemble(ball: Ball, classes: int) -> list[Attack]:
    """The attacks behind every robust accuracy of a study, cheap ones first, for `worst_case`.

    Climbing the lead for 5 steps, the cross-entropy for 15, then towards each of the nearest wrong classes (nine at most) for 10.
    """
    nearest = (partial(runner_up, ball=ball, rank=rank, steps=10) for rank in range(1, min(classes, 10)))
    return [partial(pgd, ball=ball, steps=5), partial(pgd, ball=ball, steps=15, by="loss"), *nearest]


def _rule(ball: Ball) -> search.Rule:
    """Of all first steps and momenta tried, twice the radius and none fooled most (docs/lab-log.md)."""
    return search.steepest(ball, 2 * ball.radius, end=0.01)
