"""The ensemble behind every robust accuracy, on one dial."""

from functools import partial

import torch
from torch import Tensor

from notbugs import goals, speed
from notbugs.attacks.blind import few_pixels, hop_skip_jump, square
from notbugs.attacks.door import Model, has_gradient, in_evaluation, one_radius
from notbugs.attacks.recipes import apgd, pgd, runner_up
from notbugs.attacks.spatial import spatial
from notbugs.attacks.steps import straight_through
from notbugs.attacks.worst import Hunt
from notbugs.ball import Ball, Similar, Spatial
from notbugs.data import sweep
from notbugs.errors import BadInput
from notbugs.search import Attack, Found

BUDGETS = ("quick", "standard", "thorough")
LEAST = 0.4  # the share of its lead that an image has lost to cheap attacks before costly ones are tried on it
NEARLY = 0.85  # the same for longer ones: those that these fooled had all lost 0.99 (docs/lab-log.md)
PROBE = 10  # random squares that gradients must beat
MASKED = 0.5  # of what gradients took, squares take as much where these are masked; 0.26 at most elsewhere (docs/lab-log.md)


@in_evaluation
def standard(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    ball: Similar | Spatial,
    budget: str = "standard",
    batch_size: int | None = None,
) -> Found:
    """The verdict behind every robust accuracy: the worst that an ensemble finds; values of 0 or more are fooled.

    budget: "quick" (19 gradients an image), "standard" (up to 229) or "thorough" (about 1,100, 2,000 squares and 5,000
    questions along the border; nothing is left out). Each attack meets only the survivors of those before, cheap ones first:
    1. climb the lead for one step, then for 3, and the cross-entropy for 15;
    2. ten random squares. Where they hurt more than half as much as those gradients, these are masked (or did nothing): then
       the same attacks straight through rounding and other steps, if the model takes any (`steps.straight_through`), and after
       all else 1,000 squares (5,000 more where these took as much as gradients did) and walks along the border;
    3. towards each of the nearest wrong classes, nine at most, for 10 steps. Left out are images that have kept more than 0.6 of
       their lead so far: of those that step 3 fooled, none had kept more than 0.46 (docs/lab-log.md);
    4. where 0.85 of the lead is gone, towards the three nearest for 40 steps.
    In L0: pixel by pixel. Spatial: a grid, then gradients. A model without gradients: through its steps, squares, walks.
    Deterministic: the same images get the same verdict. They are taken batch by batch, so that memory does not grow with them;
    where it runs out all the same, the batch is halved, with a warning.
    """
    if budget not in BUDGETS:
        raise BadInput("--budget", f"must be one of {', '.join(BUDGETS)}", repr(budget))
    if batch_size is not None and batch_size < 1:
        raise BadInput("batch_size", "must be 1 or more", batch_size)
    one_radius(ball)

    def judged(some: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return _judged(model, some, labels[index.to(labels.device)], ball, BUDGETS.index(budget))

    found = sweep(judged, images, batch_size=batch_size or speed.at_once(images.device, images.shape[1:]), device=images.device)
    return Found(*(each.to(images.device) for each in found))


def _judged(model: Model, images: Tensor, labels: Tensor, ball: Similar | Spatial, level: int) -> Found:
    """The verdict on one batch."""
    hunt = Hunt(model, images, labels)
    if not bool(hunt.left.any()) or getattr(ball, "radius", 1) == 0:
        return hunt.found
    gradient, norm = has_gradient(model, images), getattr(ball, "norm", "")
    if isinstance(ball, Spatial):
        turns, moves, steps = ((7, 3, 0), (11, 5, 10), (31, 7, 30))[level]
        hunt.meet(partial(spatial, ball=ball, turns=turns, moves=moves, steps=steps, gradient=gradient))
    elif norm == "l0" and isinstance(ball, Ball):
        pixels = partial(few_pixels, pixels=int(min(ball.radius, 1e9)))
        for tries in (20, 200, 1000)[: level + 1] if gradient else ():
            hunt.meet(partial(pixels, tries=tries))
        before = hunt.value.clone()
        probe = hunt.meet(partial(pixels, tries=PROBE, gradient=False)) > before if gradient else hunt.left
        hunt.meet(partial(pixels, tries=(100, 400, 2000)[level], gradient=False), probe if level < 2 else None)
    elif gradient:
        _with_gradients(hunt, ball, level)
    else:
        _straight(hunt, ball, level, hunt.left)
        hunt.meet(partial(square, ball=ball, queries=(200, 1000, 5000)[level]))
        _walk(hunt, ball, level, None)
    return hunt.found


def _with_gradients(hunt: Hunt, ball: Similar, level: int) -> None:
    attacks = ensemble(ball, hunt.classes)
    for attack in attacks[:3]:
        hunt.meet(attack)
    by_gradients = hunt.lost()
    masked = hunt.lost(hunt.meet(partial(square, ball=ball, queries=PROBE))) > MASKED * by_gradients
    masked |= by_gradients < 1e-3  # nothing moved at all
    _straight(hunt, ball, level, masked)
    if level:
        for attack in attacks[3:]:
            hunt.meet(attack, hunt.lost() >= LEAST if level == 1 else None)
        for rank in range(1, min(hunt.classes, 4)):
            hunt.meet(partial(runner_up, ball=ball, rank=rank, steps=40), hunt.lost() >= NEARLY)
    if level == 2:
        generator = torch.Generator(hunt.images.device).manual_seed(0)
        hunt.meet(partial(apgd, ball=ball, steps=100, generator=generator))
        for rank in range(1, min(hunt.classes, 10)):
            hunt.meet(partial(apgd, ball=ball, steps=100, by="lead", rank=rank, generator=generator))
    so_far, who = hunt.lost(), masked if level < 2 else None
    by_squares = hunt.lost(hunt.meet(partial(square, ball=ball, queries=(200, 1000, 2000)[level]), who))
    if level:
        hunt.meet(partial(square, ball=ball, queries=5000), masked & (by_squares >= so_far))
    _walk(hunt, ball, level, who)


def _straight(hunt: Hunt, ball: Similar, level: int, who: Tensor) -> None:
    """The same gradient attacks straight through rounding and other steps, where there are any."""
    if bool((who & hunt.left).any()) and (straight := straight_through(hunt.model, hunt.images)):
        for attack in ensemble(ball, hunt.classes)[: None if level else 3]:
            hunt.meet(partial(_borrowed, attack=attack, other=straight), who)


def _borrowed(model: Model, images: Tensor, labels: Tensor, *, attack: Attack, other: Model) -> Found:
    """An attack made on another model, judged on this one."""
    found = attack(other, images, labels)  # type: ignore[arg-type]
    with torch.no_grad():
        return Found(found.images, -goals.lead(goals.logits(model, found.images), labels))


def _walk(hunt: Hunt, ball: Similar, level: int, who: Tensor | None) -> None:
    """Along the border, from the nearest of all images of the hunt, where the ball is one of L2 or L-inf."""
    if isinstance(ball, Ball) and ball.norm in ("l2", "linf"):
        hunt.meet(partial(_walked, ball=ball, queries=(300, 1000, 5000)[level], starts=hunt.images), who)


def _walked(model: Model, images: Tensor, labels: Tensor, *, ball: Ball, queries: int, starts: Tensor) -> Found:
    """`hop_skip_jump` as an attack within a ball: what it found outside counts for nothing."""
    assert isinstance(ball.radius, float | int)
    walked = hop_skip_jump(model, images, labels, norm=ball.norm, queries=queries, enough=ball.radius, starts=starts)
    with torch.no_grad():
        value = -goals.lead(goals.logits(model, walked.images), labels)
    return Found(walked.images, torch.where(walked.values <= ball.radius, value, -torch.inf))


def standard_name(ball: Similar | Spatial, classes: int, *, budget: str = "standard", gradient: bool = True) -> str:
    """What `standard` does, in a few words, for tables: numbers are steps, changes tried for a pixel, or questions asked."""
    level, norm, rivals = BUDGETS.index(budget), getattr(ball, "norm", ""), min(classes, 10) - 1
    if isinstance(ball, Spatial):
        return "grid 7x3x3" if not level else "grid 11x5x5 + steps 10" if level == 1 else "grid 31x7x7 + steps 30"
    where = " where gradients are masked" if gradient and level < 2 else ""
    if norm == "l0":
        tries = ["pixel by pixel 20", "200", "1000"][: level + 1] if gradient else ["pixel by pixel"]
        return " + ".join([*tries, f"blind {(100, 400, 2000)[level]}{where}"])
    walk = f" and along the border {(300, 1000, 5000)[level]}" if norm in ("l2", "linf") else ""
    if not gradient:
        return f"without gradients: through steps, squares {(200, 1000, 5000)[level]}{walk}"
    towards = f"towards each of the {rivals} nearest classes 10"
    return " + ".join(
        [
            "lead 1 + lead 3 + loss 15",
            *([] if not level else [f"where {LEAST} of the lead is gone: {towards}" if level == 1 else towards]),
            *([f"where {NEARLY} is gone: the 3 nearest 40"] if level else []),
            *([f"adaptive 100, away and towards each of the {rivals}"] if level == 2 else []),
            f"through steps, squares {('200', '1000 to 5000', '2000 to 5000')[level]}{walk}{where}",
        ]
    )


def ensemble(ball: Similar, classes: int) -> list[Attack]:
    """The gradient attacks of `standard`, cheap ones first, with nothing left out: for `worst_case`.

    The lead for one step (most of what a standard model has to lose) and for 3, the cross-entropy for 15, then towards each of
    the nearest wrong classes (nine at most) for 10.
    In L0: pixel by pixel.
    """
    if isinstance(ball, Ball) and ball.norm == "l0":
        return [partial(few_pixels, pixels=int(min(ball.radius, 1e9)), tries=tries) for tries in (20, 200)]
    nearest = (partial(runner_up, ball=ball, rank=rank, steps=10) for rank in range(1, min(classes, 10)))
    climbs = [partial(pgd, ball=ball, steps=steps, by=by) for steps, by in ((1, "lead"), (3, "lead"), (15, "loss"))]
    return [*climbs, *nearest]
