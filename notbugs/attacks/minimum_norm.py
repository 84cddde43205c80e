"""The smallest change that fools, image by image."""

import torch
from torch import Tensor

from notbugs import search
from notbugs.attacks.pgd import decaying_steps
from notbugs.attacks.validation import Model, clean_logits, validated, with_log_probabilities
from notbugs.errors import InputError
from notbugs.search import AttackResult, NormBall, objectives
from notbugs.search.threat_models import per_image

# What each round of `smallest_radius` climbs: 0 is the cross-entropy, else the nearest class of that rank.
ROUNDS = (0, 1, 2, 0, 1, 3)


@validated
def minimum_norm(
    model: Model, images: Tensor, labels: Tensor, *, norm: str = "l2", rounds: int = 10, steps: int = 10
) -> AttackResult:
    """The smallest change that fools, image by image. values (N,): its norm; 0: misread as it is; inf: none was found.

    Each round searches a ball about a tenth smaller than the smallest change so far (larger, while there is none), going on from
    there: up the cross-entropy, or towards one of the nearest classes. What is found is drawn back as far as it stays fooling.
    norm: "linf", "l2" or "l1". Takes a gradient for each of rounds x steps, and one for each of the nearest classes.
    """
    if norm not in ("linf", "l2", "l1"):
        raise InputError("norm", "must be linf, l2 or l1 for the smallest radius", repr(norm))
    logits = clean_logits(model, images, labels)
    model, right = with_log_probabilities(model, logits), objectives.margin(logits, labels) > 0
    targets, distances = nearest_classes(model, images, labels, norm=norm)
    farthest = NormBall(norm, 0.0).distance(images.new_full((1, *images.shape[1:]), 0.25))
    guess = distances[:, 0].clamp_min(1e-3).minimum(farthest.to(distances))
    best, size, low = images.clone(), torch.full_like(guess, torch.inf), torch.zeros_like(guess)
    for number in range(rounds):
        rank = ROUNDS[number % len(ROUNDS)]
        goal = (
            objectives.untargeted_via(model, labels, targets[:, min(rank, targets.shape[1]) - 1])
            if rank
            else objectives.untargeted(model, labels, "cross_entropy")
        )
        threat_model, again = NormBall(norm, guess), size.isfinite() & (number >= len(ROUNDS) or not rank)
        start = torch.where(per_image(again, images), best, images)
        rule = decaying_steps(threat_model, guess * torch.where(again, 1.0, 2.0), sparse=number % 2 == 1)
        found = search.maximize(goal, images, threat_model, steps=steps, rule=rule, start=start)
        won = found.margins >= 0
        drawn = bisect_to_boundary(model, images, labels, found.images)
        length = threat_model.distance(drawn - images).float()
        better = won & (length < size)
        best, size = torch.where(per_image(better, images), drawn, best), torch.where(better, length, size)
        low = torch.minimum(torch.where(won, low, torch.maximum(low, guess)), 0.98 * size)
        guess = torch.where(size.isfinite(), torch.maximum((low + size) / 2, 0.9 * size), 1.5 * guess)
    return AttackResult(torch.where(per_image(right, images), best, images), torch.where(right, size, 0.0))


def nearest_classes(model: Model, images: Tensor, labels: Tensor, *, norm: str = "l2", most: int = 9) -> tuple[Tensor, Tensor]:
    """The other classes in the order of their distance, were the model linear: classes and distances, both (N, most or fewer).

    That distance is the logits' gap over the dual norm of its gradient; looked at are the `most` classes with the highest logits.
    """
    threat_model = NormBall(norm, 1.0)
    with torch.no_grad():
        logits = objectives.logits(model, images).scatter(1, labels[:, None], -torch.inf)
    classes = logits.topk(min(most, logits.shape[1] - 1)).indices

    def gaps(seen: Tensor) -> Tensor:
        logits = objectives.logits(model, seen)
        return logits.gather(1, labels[:, None]) - logits.gather(1, classes)

    high, gradients = search.gradients(gaps, images)
    slopes = torch.stack([(each * threat_model.steepest_direction(each)).flatten(1).sum(1).float() for each in gradients], dim=1)
    distances, order = torch.where(slopes > 0, high / slopes, torch.inf).sort(1)
    return classes.gather(1, order), distances


def bisect_to_boundary(
    model: Model, images: Tensor, labels: Tensor, fooling: Tensor, *, halvings: int = 6, cut: bool = False
) -> Tensor:
    """Where on the way from each image to a fooling one the prediction turns: the far side of 2^-halvings of that way.

    cut: the way on which the largest changes shrink first; without, the straight one.
    """
    change = fooling - images
    largest = per_image(change.abs().flatten(1).amax(1), change)

    def between(share: Tensor) -> Tensor:
        share = per_image(share, images)
        return images + (change.clamp(-share * largest, share * largest) if cut else share * change)

    near, far = (torch.full(labels.shape, share, device=images.device, dtype=images.dtype) for share in (0.0, 1.0))
    with torch.no_grad():
        for _ in range(halvings):
            middle = (near + far) / 2
            fooled = objectives.margin(objectives.logits(model, between(middle)), labels) <= 0
            near, far = torch.where(fooled, near, middle), torch.where(fooled, middle, far)
    return torch.where(per_image(far, images) == 1, fooling, between(far))  # never an image that was not looked at
