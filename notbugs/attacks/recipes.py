"""Gradient attacks: what each climbs and how it steps. The search itself is `search.maximize`."""

import torch
from torch import Generator, Tensor

from notbugs import goals, search
from notbugs.attacks.door import Model, in_evaluation, one_radius
from notbugs.attacks.worst import worst_case
from notbugs.ball import Ball, Similar
from notbugs.errors import BadInput
from notbugs.search import Found


@in_evaluation
def fgsm(model: Model, images: Tensor, labels: Tensor, *, ball: Similar) -> Found:
    """One step of the full radius up the cross-entropy (Goodfellow et al. 2015)."""
    return search.maximize(
        goals.leave_class(model, labels, "loss"), images, ball, steps=1, rule=search.steepest(ball, ball.radius)
    )


@in_evaluation
def pgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    ball: Similar,
    steps: int = 20,
    by: str = "lead",
    restarts: int = 1,
    generator: Generator | None = None,
) -> Found:
    """Projected gradient ascent away from the labels (N,); values of 0 or more are fooled.

    by: climb the other classes' "lead" or the cross-entropy "loss". The step falls from twice the radius to a hundredth of that.
    generator: start at random in the ball (needed for restarts > 1; each meets only the survivors); without one,
    start at the image.
    Source: Madry et al. 2018; falling steps after Croce & Hein 2020.
    """

    def once(model: Model, images: Tensor, labels: Tensor) -> Found:
        start = ball.sample(images, generator) if generator else None
        return search.maximize(goals.leave_class(model, labels, by), images, ball, steps=steps, rule=_rule(ball), start=start)

    return _repeated(once, model, images, labels, ball, restarts, generator)


@in_evaluation
def apgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    ball: Similar,
    steps: int = 100,
    by: str = "loss",
    rank: int = 0,
    restarts: int = 1,
    generator: Generator | None = None,
) -> Found:
    """Gradient ascent whose steps adapt, image by image; values of 0 or more are fooled.

    by: "loss" (cross-entropy), "dlr" (three classes or more; towards one: four) or "lead". rank: towards the class that is
    rank-th (from 1) among the wrong ones for the unchanged image, by "dlr" or "lead"; 0: away from the label.
    generator: start at random in the ball (needed for restarts > 1); without one, at the image.
    Source: Croce & Hein 2020; here the best point by the lead is kept, and pixels stay in [0, 1] by `ball.project`.
    """
    one_radius(ball)

    def once(model: Model, images: Tensor, labels: Tensor) -> Found:
        start = ball.sample(images, generator) if generator else None
        goal = _towards(model, images, labels, rank, by) if rank else goals.leave_class(model, labels, by)
        along, share = _mover(ball)
        rule = search.adaptive(ball, images, along=along, share=share)
        return search.maximize(goal, images, ball, steps=steps, rule=rule, start=start)

    return _repeated(once, model, images, labels, ball, restarts, generator)


@in_evaluation
def reach(model: Model, images: Tensor, targets: Tensor, *, ball: Similar, steps: int = 20, by: str = "lead") -> Found:
    """Projected gradient ascent towards the target classes (N,); values above 0 got there."""
    return search.maximize(goals.reach_class(model, targets, by), images, ball, steps=steps, rule=_rule(ball))


@in_evaluation
def runner_up(model: Model, images: Tensor, labels: Tensor, *, ball: Similar, rank: int = 1, steps: int = 20) -> Found:
    """Away from the labels towards the class that is rank-th (from 1) among the wrong ones for the unchanged image."""
    return search.maximize(_towards(model, images, labels, rank, "lead"), images, ball, steps=steps, rule=_rule(ball))


@in_evaluation
def diverge(
    model: Model, images: Tensor, labels: Tensor, *, ball: Similar, steps: int = 10, generator: Generator | None = None
) -> Found:
    """As far as possible from the model's own calm prediction (labels are not looked at): the inner attack of TRADES.

    The prediction itself is where the divergence is flat, so the start is a hundredth of the radius away, at random.
    """
    generator = generator or torch.Generator(images.device).manual_seed(0)
    with torch.no_grad():
        calm = goals.logits(model, images)
    goal, start = goals.leave_prediction(model, calm), images + 0.01 * (ball.sample(images, generator) - images)
    return search.maximize(goal, images, ball, steps=steps, rule=_rule(ball), start=start)


def stepping(ball: Similar, size: float | Tensor, *, sparse: bool = False) -> search.Rule:
    """Steps that fall from `size` (one, or one for each image) to a hundredth of it, as all attacks here take them."""
    along, share = (ball, 1.0) if sparse else _mover(ball)
    return search.steepest(along, share * size, end=0.01)


def _mover(ball: Similar) -> tuple[Similar, float]:
    """Whose steps to take inside a ball, and how much longer than its own.

    In L1 they go along the gradient itself, 0.4 times as long, and the exact projection picks the values that count: moving few
    values all the way needs twice the change on CIFAR-10, though it is exact on a linear model (docs/lab-log.md).
    """
    return (Ball("l2", 1.0), 0.4) if isinstance(ball, Ball) and ball.norm == "l1" else (ball, 1.0)


def _rule(ball: Similar) -> search.Rule:
    """Of all first steps and momenta tried, twice the radius and none fooled most (docs/lab-log.md)."""
    return stepping(ball, 2 * ball.radius)


def _repeated(
    once: search.Attack, model: Model, images: Tensor, labels: Tensor, ball: Similar, restarts: int, generator: Generator | None
) -> Found:
    """An attack once, or so many times from other starts, each meeting only the survivors."""
    if restarts == 1:
        return once(model, images, labels)  # type: ignore[arg-type]
    one_radius(ball)
    if generator is None:
        raise BadInput("restarts", "needs a generator: every restart from the image itself would be the same", restarts)
    return worst_case(model, images, labels, [once] * restarts)


def _towards(model: Model, images: Tensor, labels: Tensor, rank: int, by: str) -> goals.Goal:
    """Away from the label, towards the class that is rank-th among the others for the unchanged image."""
    with torch.no_grad():
        logits = goals.logits(model, images).scatter(1, labels[:, None], -torch.inf)
    if not 1 <= rank < logits.shape[1]:
        raise BadInput("rank", f"must be from 1 to {logits.shape[1] - 1}, one less than there are classes", rank)
    return goals.leave_class_towards(model, labels, logits.topk(rank).indices[:, -1], by)
