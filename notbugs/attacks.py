"""Named recipes for the search: how a classifier is fooled, and how a verdict is reached."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Generator, Tensor, nn

from notbugs import goals, search
from notbugs.ball import Ball, Similar, by_image
from notbugs.errors import BadInput
from notbugs.search import Attack, Found


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, *, ball: Similar) -> Found:
    """One step of the full radius up the cross-entropy (Goodfellow et al. 2015)."""
    return search.maximize(
        goals.leave_class(model, labels, "loss"), images, ball, steps=1, rule=search.steepest(ball, ball.radius)
    )


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    ball: Similar,
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
    if restarts > 1:
        _one_radius(ball)
    if restarts > 1 and generator is None:
        raise BadInput("restarts", "needs a generator: every restart from the image itself would be the same", restarts)

    def once(model: nn.Module, images: Tensor, labels: Tensor) -> Found:
        start = ball.sample(images, generator) if generator else None
        return search.maximize(goals.leave_class(model, labels, by), images, ball, steps=steps, rule=_rule(ball), start=start)

    return once(model, images, labels) if restarts == 1 else worst_case(model, images, labels, [once] * restarts)


def reach(model: nn.Module, images: Tensor, targets: Tensor, *, ball: Similar, steps: int = 20, by: str = "lead") -> Found:
    """Projected gradient ascent towards the target classes (N,); values above 0 got there."""
    return search.maximize(goals.reach_class(model, targets, by), images, ball, steps=steps, rule=_rule(ball))


def runner_up(model: nn.Module, images: Tensor, labels: Tensor, *, ball: Similar, rank: int = 1, steps: int = 20) -> Found:
    """Away from the labels towards the class that is rank-th (from 1) among the wrong ones for the unchanged image."""
    with torch.no_grad():
        logits = model(images).float().scatter(1, labels[:, None], -torch.inf)
    if not 1 <= rank < logits.shape[1]:
        raise BadInput("rank", f"must be from 1 to {logits.shape[1] - 1}, one less than there are classes", rank)
    goal = goals.leave_class_towards(model, labels, logits.topk(rank).indices[:, -1])
    return search.maximize(goal, images, ball, steps=steps, rule=_rule(ball))


def diverge(
    model: nn.Module, images: Tensor, labels: Tensor, *, ball: Similar, steps: int = 10, generator: Generator | None = None
) -> Found:
    """As far as possible from the model's own calm prediction (labels are not looked at): the inner attack of TRADES.

    The prediction itself is where the divergence is flat, so the start is a hundredth of the radius away, at random.
    """
    generator = generator or torch.Generator(images.device).manual_seed(0)
    with torch.no_grad():
        calm = model(images)
    goal, start = goals.leave_prediction(model, calm), images + 0.01 * (ball.sample(images, generator) - images)
    return search.maximize(goal, images, ball, steps=steps, rule=_rule(ball), start=start)


def worst_case(model: nn.Module, images: Tensor, labels: Tensor, attacks: Sequence[Attack], *, least: float = 0.0) -> Found:
    """The worst any of the attacks finds, each meeting only the survivors of those before; values above 0 are fooled.

    An image the model gets wrong as it is counts as fooled and is returned unchanged.
    least: from the third attack on, images whose lead the attacks before have not shrunk by this share are left alone as well.
    """
    with torch.no_grad():
        best, value = images.clone(), -goals.lead(model(images).float(), labels)
    calm = value.clone()
    for number, attack in enumerate(attacks):
        hopeful = value >= (1 - least) * calm if number >= 2 else torch.ones_like(value, dtype=torch.bool)
        left = ((value <= 0) & hopeful).nonzero().squeeze(1)
        if not len(left):
            break
        found = attack(model, images[left], labels[left])
        wins = found.values > value[left]
        best[left[wins]], value[left[wins]] = found.images[wins], found.values[wins]
    return Found(best, value)


ROUNDS = (
    0,
    1,
    2,
    0,
    1,
    3,
)  # what each round of `smallest_radius` climbs: 0 is the cross-entropy, else the nearest class of that rank


def smallest_radius(
    model: nn.Module, images: Tensor, labels: Tensor, *, norm: str = "l2", rounds: int = 10, steps: int = 10
) -> Found:
    """The smallest change that fools, image by image. values (N,): its norm; 0: misread as it is; inf: none was found.

    Each round searches a ball about a tenth smaller than the smallest change so far (larger, while there is none), going on from
    there: up the cross-entropy, or towards one of the nearest classes. What is found is drawn back as far as it stays fooling.
    norm: "linf", "l2" or "l1". Takes a gradient for each of rounds x steps, and one for each of the nearest classes.
    """
    if norm not in ("linf", "l2", "l1"):
        raise BadInput("norm", "must be linf, l2 or l1 for the smallest radius", repr(norm))
    with torch.no_grad():
        right = goals.lead(model(images).float(), labels) > 0
    targets, distances = nearest_classes(model, images, labels, norm=norm)
    farthest = Ball(norm, 0.0).size(images.new_full((1, *images.shape[1:]), 0.25))
    guess = distances[:, 0].clamp_min(1e-3).minimum(farthest.to(distances))
    best, size, low = images.clone(), torch.full_like(guess, torch.inf), torch.zeros_like(guess)
    for number in range(rounds):
        rank = ROUNDS[number % len(ROUNDS)]
        goal = (
            goals.leave_class_towards(model, labels, targets[:, min(rank, targets.shape[1]) - 1])
            if rank
            else goals.leave_class(model, labels, "loss")
        )
        ball, again = Ball(norm, guess), size.isfinite() & (number >= len(ROUNDS) or not rank)
        start = torch.where(by_image(again, images), best, images)
        rule = search.steepest(ball, guess * torch.where(again, 1.0, 2.0), end=0.01)
        found = search.maximize(goal, images, ball, steps=steps, rule=rule, start=start)
        won = found.values > 0
        drawn = _draw_near(model, images, labels, found.images)
        length = ball.size(drawn - images).float()
        better = won & (length < size)
        best, size = torch.where(by_image(better, images), drawn, best), torch.where(better, length, size)
        low = torch.minimum(torch.where(won, low, torch.maximum(low, guess)), 0.98 * size)
        guess = torch.where(size.isfinite(), torch.maximum((low + size) / 2, 0.9 * size), 1.5 * guess)
    return Found(torch.where(by_image(right, images), best, images), torch.where(right, size, 0.0))


def nearest_classes(
    model: nn.Module, images: Tensor, labels: Tensor, *, norm: str = "l2", most: int = 9
) -> tuple[Tensor, Tensor]:
    """The other classes in the order of their distance, were the model linear: classes and distances, both (N, most or fewer).

    That distance is the logits' gap over the dual norm of its gradient; looked at are the `most` classes with the highest logits.
    """
    ball = Ball(norm, 1.0)
    with torch.no_grad():
        logits = model(images).float().scatter(1, labels[:, None], -torch.inf)
    classes = logits.topk(min(most, logits.shape[1] - 1)).indices

    def gaps(seen: Tensor) -> Tensor:
        logits: Tensor = model(seen).float()
        return logits.gather(1, labels[:, None]) - logits.gather(1, classes)

    high, gradients = search.slopes(gaps, images)
    slopes = torch.stack([(each * ball.direction(each)).flatten(1).sum(1).float() for each in gradients], dim=1)
    distances, order = torch.where(slopes > 0, high / slopes, torch.inf).sort(1)
    return classes.gather(1, order), distances


def _draw_near(model: nn.Module, images: Tensor, labels: Tensor, fooling: Tensor) -> Tensor:
    """Where on the straight way from each image to a fooling one the prediction turns: the far side of 2^-6 of that way."""
    near, far = (torch.full(labels.shape, share, device=images.device, dtype=images.dtype) for share in (0.0, 1.0))
    with torch.no_grad():
        for _ in range(6):
            middle = (near + far) / 2
            fooled = goals.lead(model(images + by_image(middle, images) * (fooling - images)).float(), labels) < 0
            near, far = torch.where(fooled, near, middle), torch.where(fooled, middle, far)
    return images + by_image(far, images) * (fooling - images)


def few_pixels(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    pixels: int = 1,
    tries: int | None = 100,
    gradient: bool = True,
    generator: Generator | None = None,
) -> Found:
    """At most so many pixels changed, each to a corner of the colour cube, one after the other; values above 0 are fooled.

    Each time the `tries` most promising of all places and corners are tried (None: all, after which no corner of a single pixel
    is left untried), and what raises the lead of another class most is kept. An image is left alone once it is fooled.
    gradient: promising by the slopes of lead and cross-entropy; without, drawn at random, which asks for logits alone.
    After Su et al. 2019, with a search in place of evolution. Asks the model tries x pixels times an image.
    """
    for name, number, fewest in (("pixels", pixels, 0), ("tries", tries, 1)):
        if number is not None and number < fewest:
            raise BadInput(name, f"must be {fewest} or more", number)
    channels, height, width = images.shape[1:]
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * channels).reshape(-1, channels).to(images)
    choices = len(corners) * height * width  # a choice is corner x places + place
    tries = min(tries or choices, choices)
    generator = generator or torch.Generator().manual_seed(0)

    def judge(seen: Tensor, wanted: Tensor) -> Tensor:
        with torch.no_grad():
            return -goals.lead(model(seen).float(), wanted)

    def promising(point: Tensor, wanted: Tensor) -> Tensor:
        if tries == choices:
            return torch.arange(choices, device=point.device).expand(len(point), -1)
        if not gradient:
            return torch.stack([torch.randperm(choices, generator=generator)[:tries] for _ in point]).to(point.device)
        lead, loss = (goals.leave_class(model, wanted, by) for by in ("lead", "loss"))

        def heights(seen: Tensor) -> Tensor:
            logits = model(seen)
            return torch.stack([lead.climb(logits), loss.climb(logits)], dim=1)

        places = []
        for slope in search.slopes(heights, point)[1]:
            steep, now = slope.float().nan_to_num(0.0, 0.0, 0.0).flatten(2), point.float().flatten(2)
            gain = torch.einsum("kc,ncp->nkp", corners.float(), steep) - (steep * now).sum(1, keepdim=True)
            places.append(gain.flatten(1).topk(tries).indices)
        return torch.stack(places, dim=2).flatten(1)[:, :tries]  # the best by either slope, in turn

    best, value = images.clone(), judge(images, labels)
    for _ in range(min(pixels, height * width)):
        left = (value <= 0).nonzero().squeeze(1)
        point, wanted = best[left], labels[left]
        for chosen in promising(point, wanted).unbind(1) if len(left) else ():
            spot = (chosen % (height * width))[:, None, None].expand(-1, channels, 1)
            seen = point.flatten(2).scatter(2, spot, corners[chosen // (height * width)][:, :, None]).reshape(point.shape)
            judged = judge(seen, wanted)
            wins = judged > value[left]
            best[left[wins]], value[left[wins]] = seen[wins], judged[wins]
    return Found(best, value)


def square(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    ball: Similar,
    queries: int = 1000,
    generator: Generator | None = None,
) -> Found:
    """Without gradients: one square of each image at a time is pushed, and kept where that raises the lead of another class.

    model: any function from images (n, C, H, W) to logits (n, K). The first push is of whole columns; the squares then shrink
    from a tenth of the image to a 300th, the pushes (but in L-inf) from the radius to a tenth of it. Images already fooled are
    left alone. Asks the model so many times an image, and once more at first.
    After Andriushchenko et al. 2020; here for any set that can project and move.
    """
    if queries < 1:
        raise BadInput("queries", "must be 1 or more", queries)
    _one_radius(ball)
    generator = generator or torch.Generator().manual_seed(0)
    channels, height, width = images.shape[1:]

    def judge(seen: Tensor, wanted: Tensor) -> Tensor:
        return -goals.lead(model(seen).float(), wanted)

    def signs(*shape: int) -> Tensor:
        return 2 * torch.randint(2, shape, generator=generator).to(images) - 1

    def places(count: int, length: int, side: int) -> Tensor:
        """Which of so many rows or columns lie in a window put anywhere: (count, length)."""
        first = torch.randint(length - min(side, length) + 1, (count, 1), generator=generator)
        where = torch.arange(length) - first
        return ((where >= 0) & (where < side)).to(images.device)

    with torch.no_grad():
        best, value = images.clone(), judge(images, labels)
        for query in range(queries):
            left = (value <= 0).nonzero().squeeze(1)
            if not len(left):
                break
            done = query / queries
            if query:
                side = max(1, round(math.sqrt(0.1 * (1 / 30) ** done * height * width)))
                window = places(len(left), height, side)[:, :, None] & places(len(left), width, side)[:, None]
                push = window[:, None] * signs(len(left), channels, 1, 1)
            else:
                push = signs(len(left), channels, 1, width).expand(-1, -1, height, -1)
            size = ball.radius * (2.0 if getattr(ball, "norm", "") == "linf" else 0.1**done)
            seen = ball.project(best[left] + ball.move(best[left], push, size), images[left])
            judged = judge(seen, labels[left])
            wins = judged > value[left]
            best[left[wins]], value[left[wins]] = seen[wins], judged[wins]
    return Found(best, value)


def standard(model: nn.Module, images: Tensor, labels: Tensor, *, ball: Similar) -> Found:
    """The verdict behind every robust accuracy: `worst_case` of `ensemble`; values above 0 are fooled.

    The costly attacks leave out images that have kept more than 0.6 of their lead under the cheap ones: of those that the costly
    ones fooled, none had kept more than 0.46, not even behind saturating layers (docs/lab-log.md).
    """
    _one_radius(ball)
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    return worst_case(model, images, labels, ensemble(ball, classes), least=0.4)


def standard_name(norm: str, classes: int) -> str:
    """What `standard` does, in a few words, for tables: numbers are steps, or changes tried for a pixel."""
    if norm == "l0":
        return "pixel by pixel 20 + pixel by pixel 200"
    return f"lead 5 + loss 15 + where 0.4 of the lead is gone: towards each of the {min(classes, 10) - 1} nearest classes 10"


def ensemble(ball: Similar, classes: int) -> list[Attack]:
    """The attacks of `standard`, cheap ones first, for `worst_case`.

    Climbing the lead for 5 steps, the cross-entropy for 15, then towards each of the nearest wrong classes (nine at most) for 10.
    In L0: pixel by pixel.
    """
    if isinstance(ball, Ball) and ball.norm == "l0":
        return [partial(few_pixels, pixels=int(min(ball.radius, 1e9)), tries=tries) for tries in (20, 200)]
    nearest = (partial(runner_up, ball=ball, rank=rank, steps=10) for rank in range(1, min(classes, 10)))
    return [partial(pgd, ball=ball, steps=5), partial(pgd, ball=ball, steps=15, by="loss"), *nearest]


def _one_radius(ball: Similar) -> None:
    if isinstance(ball.radius, Tensor):
        raise BadInput("radius", "must be one for all images where an attack meets only survivors", "one for each")


def _rule(ball: Similar) -> search.Rule:
    """Of all first steps and momenta tried, twice the radius and none fooled most (docs/lab-log.md)."""
    return search.steepest(ball, 2 * ball.radius, end=0.01)
