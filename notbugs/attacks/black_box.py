"""Attacks that ask the model for its answers alone: pixels, squares, and walks along the border between two answers."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from notbugs import search
from notbugs.attacks.minimum_norm import bisect_to_boundary
from notbugs.attacks.validation import Model, check_single_epsilon, clean_logits, validated
from notbugs.errors import InputError
from notbugs.search import AttackResult, NormBall, ThreatModel, objectives
from notbugs.search.threat_models import per_image


@validated
def one_pixel(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    tries: int | None = None,
    gradient: bool = True,
    generator: Generator | None = None,
) -> AttackResult:
    """One pixel changed, to a corner of the colour cube; values of 0 or more are fooled.

    tries: see `few_pixels`; None is all of them. The attack of Su et al. 2019, which looks for that pixel by evolution.
    """
    return few_pixels(model, images, labels, pixels=1, tries=tries, gradient=gradient, generator=generator)


@validated
def few_pixels(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    pixels: int = 1,
    tries: int | None = 100,
    gradient: bool = True,
    generator: Generator | None = None,
) -> AttackResult:
    """At most so many pixels changed, each to a corner of the colour cube, one after the other; values of 0 or more are fooled.

    Each time the `tries` most promising of all places and corners are tried (None: all, after which no corner of a single pixel
    is left untried), and what raises the lead of another class most is kept. An image is left alone once it is fooled.
    gradient: promising by the slopes of lead and cross-entropy; without, which asks for logits alone, drawn at random, and
    after a third of the tries every other time near the best so far.
    After Su et al. 2019, with a search in place of evolution. Asks the model tries x pixels times an image.
    """
    for name, number, fewest in (("pixels", pixels, 0), ("tries", tries, 1)):
        if number is not None and number < fewest:
            raise InputError(name, f"must be {fewest} or more", number)
    channels, height, width = images.shape[1:]
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * channels).reshape(-1, channels).to(images)
    choices = len(corners) * height * width  # a choice is corner x places + place
    tries = min(tries or choices, choices)
    generator = generator or torch.Generator().manual_seed(0)

    def judge(seen: Tensor, wanted: Tensor) -> Tensor:
        with torch.no_grad():
            return -objectives.margin(objectives.logits(model, seen), wanted)

    def promising(point: Tensor, wanted: Tensor) -> Tensor:
        if tries == choices:
            return torch.arange(choices, device=point.device).expand(len(point), -1)
        margin, cross_entropy = (objectives.untargeted(model, wanted, loss) for loss in ("margin", "cross_entropy"))

        def heights(seen: Tensor) -> Tensor:
            logits = objectives.logits(model, seen)
            return torch.stack([margin.objective(logits), cross_entropy.objective(logits)], dim=1)

        places = []
        for slope in search.gradients(heights, point)[1]:
            steep, now = slope.float().nan_to_num(0.0, 0.0, 0.0).flatten(2), point.float().flatten(2)
            gain = torch.einsum("kc,ncp->nkp", corners.float(), steep) - (steep * now).sum(1, keepdim=True)
            places.append(gain.flatten(1).topk(tries).indices)
        return torch.stack(places, dim=2).flatten(1)[:, :tries]  # the best by either slope, in turn

    def draw(most: int, count: int) -> Tensor:
        return torch.randint(most, (count,), generator=generator, device=generator.device)

    def guess(held: Tensor, number: int) -> Tensor:
        """One choice for each image, where `held` is the best so far, -1: none."""
        count, held = len(held), held.to(generator.device)
        anywhere = draw(choices, count)
        row, column = held % (height * width) // width, held % width
        row, column = ((at + draw(5, count) - 2).clamp(0, size - 1) for at, size in ((row, height), (column, width)))
        corner = torch.where(draw(2, count) == 0, held // (height * width), draw(len(corners), count))
        near = corner * height * width + row * width + column
        return torch.where((held >= 0) & (3 * number >= tries) & (draw(2, count) == 0), near, anywhere).to(images.device)

    best, value = images.clone(), -objectives.margin(clean_logits(model, images, labels), labels)
    for _ in range(min(pixels, height * width)):
        left = (value < 0).nonzero().squeeze(1)
        if not len(left):
            break
        point, held = best[left], torch.full_like(left, -1)
        plan = promising(point, labels[left]) if gradient or tries == choices else None
        for number in range(tries):
            still = (value[left] < 0).nonzero().squeeze(1)  # of those left at the start of this pixel
            if not len(still):
                break
            chosen = plan[still, number] if plan is not None else guess(held[still], number)
            spot = (chosen % (height * width))[:, None, None].expand(-1, channels, 1)
            before = point[still]
            seen = before.flatten(2).scatter(2, spot, corners[chosen // (height * width)][:, :, None]).reshape(before.shape)
            judged, index = judge(seen, labels[left[still]]), left[still]
            wins = judged > value[index]
            best[index[wins]], value[index[wins]], held[still[wins]] = seen[wins], judged[wins], chosen[wins]
    return AttackResult(best, value)


@validated
def square_attack(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    queries: int = 1000,
    generator: Generator | None = None,
) -> AttackResult:
    """Without gradients: one square of each image at a time is pushed, and kept where that raises the lead of another class.

    model: any function from images (n, C, H, W) to logits (n, K). The first push is of whole columns; the squares then shrink
    from a tenth of the image to a 300th, the pushes (but in L-inf) from the radius to a tenth of it. Images already fooled are
    left alone. Asks the model so many times an image, and once more at first.
    After Andriushchenko et al. 2020; here for any set that can project and move.
    """
    if queries < 1:
        raise InputError("queries", "must be 1 or more", queries)
    check_single_epsilon(threat_model)
    generator = generator or torch.Generator().manual_seed(0)
    channels, height, width = images.shape[1:]

    def judge(seen: Tensor, wanted: Tensor) -> Tensor:
        return -objectives.margin(objectives.logits(model, seen), wanted)

    def signs(*shape: int) -> Tensor:
        return 2 * torch.randint(2, shape, generator=generator, device=generator.device).to(images) - 1

    def places(count: int, length: int, side: int) -> Tensor:
        """Which of so many rows or columns lie in a window put anywhere: (count, length)."""
        first = torch.randint(length - min(side, length) + 1, (count, 1), generator=generator, device=generator.device)
        where = torch.arange(length, device=first.device) - first
        return ((where >= 0) & (where < side)).to(images.device)

    with torch.no_grad():
        best, value = images.clone(), -objectives.margin(clean_logits(model, images, labels), labels)
        for query in range(queries):
            left = (value < 0).nonzero().squeeze(1)
            if not len(left):
                break
            done = query / queries
            if query:
                side = max(1, round(math.sqrt(0.1 * (1 / 30) ** done * height * width)))
                window = places(len(left), height, side)[:, :, None] & places(len(left), width, side)[:, None]
                push = window[:, None] * signs(len(left), channels, 1, 1)
            else:
                push = signs(len(left), channels, 1, width).expand(-1, -1, height, -1)
            size = threat_model.epsilon * (2.0 if getattr(threat_model, "norm", "") == "linf" else 0.1**done)
            seen = threat_model.project(best[left] + threat_model.steepest_step(best[left], push, size), images[left])
            judged = judge(seen, labels[left])
            wins = judged > value[left]
            best[left[wins]], value[left[wins]] = seen[wins], judged[wins]
    return AttackResult(best, value)


@validated
def hop_skip_jump(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "l2",
    queries: int = 1000,
    enough: float = 0.0,
    starts: Tensor | None = None,
    generator: Generator | None = None,
) -> AttackResult:
    """The smallest change that fools, from the predicted labels alone. values (N,): its norm; 0: misread as it is; inf: none.

    Starts from the nearest image of `starts` (M, C, H, W; by default the images themselves) that is read as another class, or
    from noise; walks straight towards the
    image up to the border, estimates the border's direction from random pushes there, steps along it, and again.
    norm: "l2" or "linf". queries: how often the model may be asked about each image. enough: a size at which one is left alone.
    Source: HopSkipJump, Chen et al. 2020, algorithm 2; here all images of a batch walk together.
    """
    if norm not in ("l2", "linf"):
        raise InputError("norm", "must be l2 or linf for a walk along the border", repr(norm))
    if queries < 1:
        raise InputError("queries", "must be 1 or more", queries)
    generator = generator or torch.Generator().manual_seed(0)
    threat_model, values = NormBall(norm, 1.0), math.prod(images.shape[1:])
    predicted = clean_logits(model, images, labels).argmax(1)

    def fools(seen: Tensor, wanted: Tensor) -> Tensor:
        with torch.no_grad():
            return objectives.logits(model, seen).argmax(1) != wanted

    def drawn(draw: Callable[..., Tensor], like: Tensor) -> Tensor:
        return draw(like.shape, generator=generator, device=generator.device).to(like)

    best, size = images.clone(), torch.where(predicted == labels, torch.inf, 0.0).to(images.device)
    pool, known, asked = images, predicted, 1
    if starts is not None:
        with torch.no_grad():
            pool, known = starts, objectives.logits(model, starts).argmax(1)
    far = _nearest_misclassified(images, labels, pool, known, threat_model)
    for _ in range(min(20, queries - asked)):  # images that no other image helps: noise
        lost = (far.flatten(1) == images.flatten(1)).all(1) & (predicted == labels)
        if not bool(lost.any()):
            break
        index, noise = lost.nonzero().squeeze(1), drawn(torch.rand, images)[lost]
        found = fools(noise, labels[index])
        far[index[found]], asked = noise[found], asked + 1
    moved = (far != images).flatten(1).any(1) & (predicted == labels)

    def approach(index: Tensor, outside: Tensor) -> None:
        """To the border, straight; what is nearer than before is kept."""
        near = bisect_to_boundary(model, images[index], labels[index], outside, halvings=halvings, cut=norm == "linf")
        length = threat_model.distance(near - images[index]).float()
        wins = length < size[index]
        best[index[wins]], size[index[wins]] = near[wins], length[wins]

    halvings, turn = 10, 0
    if bool(moved.any()) and asked + halvings <= queries:
        approach(moved.nonzero().squeeze(1), far[moved])
        asked += halvings
    while True:
        turn += 1
        index = (size.isfinite() & (size > enough) & (size > 1e-6)).nonzero().squeeze(1)
        pushes = min(round(100 * math.sqrt(turn)), queries - asked - 2 * halvings)
        if pushes < 10 or not len(index):
            break
        here, wanted = best[index], labels[index]
        reach = per_image((here - images[index]).flatten(1).norm(dim=1) / math.sqrt(values), here)
        total, votes, count = torch.zeros_like(here), torch.zeros_like(here), torch.zeros(len(index), device=here.device)
        for _ in range(pushes):
            push = drawn(torch.randn, here)
            push = push / per_image(push.flatten(1).norm(dim=1), push)
            vote = fools((here + reach * push).clamp(0, 1), wanted).to(here.dtype) * 2 - 1
            total, votes, count = total + per_image(vote, push) * push, votes + push, count + vote
        mean = per_image(count / pushes, here).to(here.dtype)
        slope = torch.where(mean.abs() < 1, total - mean * votes, total)
        way = threat_model.steepest_direction(slope)
        step = (size[index] / math.sqrt(turn)).to(here.dtype)
        asked += pushes
        outside, landed = here, torch.zeros(len(index), dtype=torch.bool, device=here.device)
        for _ in range(halvings):  # half as far until it still fools
            seen = (here + per_image(step, here) * way).clamp(0, 1)
            good = fools(seen, wanted) & ~landed
            outside, landed, step = torch.where(per_image(good, here), seen, outside), landed | good, step / 2
            asked += 1
            if bool(landed.all()):
                break
        approach(index, outside)
        asked += halvings
    return AttackResult(best, size)


def _nearest_misclassified(images: Tensor, labels: Tensor, pool: Tensor, known: Tensor, threat_model: NormBall) -> Tensor:
    """For each image the nearest of the pool that is read (known: (M,)) as another class than its label; itself without one."""
    far, most = images.clone(), 200  # others looked at: more cost more than they bring
    for number in range(len(images)):
        other = (known != labels[number]).nonzero().squeeze(1)
        if len(other):
            other = other[:: -(-len(other) // most)]
            far[number] = pool[other[threat_model.distance(pool[other] - images[number]).argmin()]]
    return far
