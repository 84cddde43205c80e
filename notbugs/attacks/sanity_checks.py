"""Can a robust accuracy be believed? What makes attacks fail without the model being robust, each looked for and put in words."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from notbugs import precision, search
from notbugs.attacks import black_box, ensemble, evaluation, validation
from notbugs.attacks.pgd import pgd
from notbugs.attacks.validation import Model
from notbugs.errors import InputError
from notbugs.models import frozen
from notbugs.search import NormBall, objectives


class Check(NamedTuple):
    """name; passed, or None where it could not be made; what was seen; why it matters; what to do."""

    name: str
    passed: bool | None
    seen: str
    why: str
    remedy: str


@precision.full_precision()
def run_all(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: NormBall | None,
    budget: str = "standard",
    others: Sequence[Model] = (),
) -> list[Check]:
    """All checks on a sample of images (N, C, H, W) in [0, 1], a hundred or so; those that failed come first.

    ball: what is called similar, L-inf or L2; None leaves out the checks that attack. others: models of the same task, for
    examples that transfer. The first two checks look at the model in the mode it is in, the rest in evaluation mode. A check says
    nothing about images that it was not made on.
    """
    if not len(images):
        raise InputError("images", "must be one or more for checks", 0)
    if threat_model is not None and (
        not isinstance(threat_model, NormBall)
        or threat_model.norm not in ("linf", "l2")
        or not 0 < _epsilon(threat_model) < torch.inf
    ):
        raise InputError("threat_model", "must be an L-inf or L2 ball with a radius above 0 for checks", str(threat_model))
    with _restored_buffers(model):
        found = [deterministic(model, images), batch_independence(model, images)]
    with frozen(model) if isinstance(model, nn.Module) else nullcontext():
        found += [
            outputs_are_logits(model, images),
            pixel_range(model, images, labels),
            input_clipping(model, images),
            input_quantization(model, images),
        ]
        found.append(gradients(model, images, labels, threat_model=threat_model or NormBall("l2", 0.1)))
        climbs = {"more steps": more_steps, "larger radius": larger_epsilon, "whole range": unbounded}
        if threat_model is None:
            seen, why = "no L-inf or L2 set was asked for", "These checks compare attacks, which here are made in L-inf and L2."
            remedy = "Ask for one as well: --epsilon l2:0.5."
            found += [Check(name, None, seen, why, remedy) for name in (*climbs, "blind", "transfer")]
        else:
            white = evaluation.adaptive_ensemble(model, images, labels, threat_model=threat_model, budget=budget).margins
            for name, check in climbs.items():
                if validation.has_gradient(model, images):
                    found.append(check(model, images, labels, threat_model=threat_model))
                else:
                    why, remedy = "It asks what more work with gradients brings.", "Nothing to do for a black box."
                    found.append(Check(name, None, "there are no gradients to climb", why, remedy))
            found.append(square_attack(model, images, labels, white, threat_model=threat_model))
            found.append(transfer(model, images, labels, white, others, threat_model=threat_model))
    return sorted(found, key=lambda check: {False: 0, None: 1, True: 2}[check.passed])


# ---- what the model answers --------------------------------------------------------------------------------------------------


def deterministic(model: Model, images: Tensor) -> Check:
    """The same images get the same answer twice, in the mode that the model is in."""
    with torch.no_grad():
        one, two = objectives.logits(model, images), objectives.logits(model, images)
    apart = _relative_difference(one, two)
    mode = "training" if isinstance(model, nn.Module) and any(part.training for part in model.modules()) else "evaluation"
    return Check(
        "repeatable",
        apart <= 1e-3,
        f"in {mode} mode two calls on the same {len(images)} images differ by up to {apart:.2g} of the spread of the logits",
        "A model that answers at random gives random gradients; an attack that fails once may succeed at the next look.",
        "Call .eval() (figures here are made in evaluation mode). If chance is the defence, attack its average over many calls.",
    )


def batch_independence(model: Model, images: Tensor) -> Check:
    """An image gets the answer that it gets in company: no batch statistics."""
    few = images[:8]
    with torch.no_grad():
        together = objectives.logits(model, few)
        try:
            single = torch.cat([objectives.logits(model, one[None]) for one in few])
        except (RuntimeError, ValueError) as error:
            if not isinstance(model, nn.Module):
                raise
            single, problem = None, " ".join(str(error).split())[:100]
    apart = _relative_difference(together, single) if single is not None else torch.inf
    seen = f"alone and in a batch of {len(few)}, answers differ by up to {apart:.2g} of the spread of the logits"
    return Check(
        "alone",
        apart <= 1e-3,
        seen if single is not None else f"it does not take a single image: {problem}",
        "Batch normalisation in training mode mixes the images of a batch: what is measured depends on the company.",
        "Call .eval() before the model is used.",
    )


def outputs_are_logits(model: Model, images: Tensor) -> Check:
    """Outputs are logits, not probabilities."""
    with torch.no_grad():
        outputs = objectives.logits(model, images)
    sums = outputs.sum(1)
    squashed = bool((outputs >= 0).all()) and bool((sums - 1).abs().max() < 1e-3)
    flat = (outputs.amax(1) >= 1 - 1e-6).float().mean().item()
    return Check(
        "logits",
        not squashed,
        f"outputs are from {outputs.min():.3g} to {outputs.max():.3g} and "
        + (f"sum to 1 for each image; {flat:.0%} are exactly 1" if squashed else "do not sum to 1"),
        "Probabilities near 1 have no digits left to show which way is up; cross-entropy of them takes the softmax twice.",
        "Return the logits, before the softmax. Until then their logarithms are attacked, which rounding has made coarse.",
    )


def pixel_range(model: Model, images: Tensor, labels: Tensor) -> Check:
    """The model reads images in [0, 1] at least as well as the same images in another usual range."""
    mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True).clamp_min(1e-3)
    ranges = {"0 to 255": images * 255, "-1 to 1": 2 * images - 1, "mean 0 and deviation 1": (images - mean) / std}
    why = "A model fed in another range than it learnt is wrong for reasons of its own, and radii mean something else."
    with torch.no_grad():
        own = _accuracy(objectives.logits(model, images), labels)
        try:
            read = {name: _accuracy(objectives.logits(model, changed), labels) for name, changed in ranges.items()}
        except Exception:  # a user's own function may refuse in any way
            return Check("pixel range", None, "it takes no pixels outside [0, 1]", why, "Nothing: it says itself what it takes.")
    best = max(read, key=lambda name: read[name])
    slack = 2 * (len(labels) / 4) ** 0.5 / len(labels)  # two standard errors of a share
    return Check(
        "pixel range",
        read[best] <= own + slack,
        f"it reads {own:.1%} of the images with pixels in [0, 1], {read[best]:.1%} with {best}",
        why,
        f"Make the step from [0, 1] to {best} the model's first layer (models.wrap takes mean and std).",
    )


def input_clipping(model: Model, images: Tensor) -> Check:
    """The model does not cut pixels to a range inside [0, 1], and black and white ones have gradients."""
    beyond = 3 * images - 1
    with torch.no_grad():
        calm = objectives.logits(model, images)
        inner = _relative_difference(calm, objectives.logits(model, images.clamp(0.1, 0.9)))
        narrow = bool((images != images.clamp(0.1, 0.9)).any()) and inner <= 1e-6 and not _labels_only(calm)
        try:
            outer = _relative_difference(objectives.logits(model, beyond), objectives.logits(model, beyond.clamp(0, 1)))
        except Exception:  # a user's own function may refuse in any way
            outer = torch.inf
    cut = bool((beyond != beyond.clamp(0, 1)).any()) and outer <= 1e-6
    dead = False
    if cut and validation.has_gradient(model, images):
        slope = search.gradients(lambda seen: objectives.logits(model, seen)[:, :1], images)[1][0]
        edge = (images == 0) | (images == 1)
        dead = bool(edge.any()) and bool((slope[edge] == 0).all()) and bool((slope[~edge] != 0).any())
    seen = "what lies outside [0, 1] is cut off, where attacks here do not go" if cut else "no sign of it"
    seen = "what lies outside [0, 1] is cut off, and pixels at its ends have no gradient" if dead else seen
    return Check(
        "clips its input",
        not narrow and not dead,
        "cutting pixels to [0.1, 0.9] changes nothing" if narrow else seen,
        "Where pixels are cut off the gradient is 0, so that black and white pixels look as if they did not count.",
        "Take the cut out of the model and attack what follows; attacks here keep pixels in [0, 1] themselves.",
    )


def input_quantization(model: Model, images: Tensor) -> Check:
    """A change too small for an 8-bit file still changes the answer."""
    generator = torch.Generator().manual_seed(0)
    push = (2 * torch.rand(images.shape, generator=generator) - 1).to(images) * 0.2 / 255
    with torch.no_grad():
        calm, moved = objectives.logits(model, images), objectives.logits(model, (images + push).clamp(0, 1))
    same = (calm == moved).all(1).float().mean().item()
    stepped = _labels_only(calm) or not validation.has_gradient(model, images)
    seen = f"after changes of a fifth of an 8-bit step, {same:.0%} of the answers are exactly as before"
    return Check(
        "quantises its input",
        None if stepped and same >= 0.05 else same < 0.05,
        seen + ", as labels and trees answer" if stepped and same >= 0.05 else seen,
        "Rounding has no gradient: attacks that climb stand still, though larger changes may well fool.",
        "Attack what follows the rounding, or give rounding the gradient of the identity; until then, ask without gradients.",
    )


# ---- what its gradients say --------------------------------------------------------------------------------------------------


def gradients(model: Model, images: Tensor, labels: Tensor, *, threat_model: NormBall) -> Check:
    """Gradients are there, finite, and say what small steps uphill do: a hundredth and a tenth of the radius."""
    what = "gradients"
    why = "Attacks climb the gradient. Where it is zero, broken, or says nothing of its surroundings, they fail."
    if not validation.has_gradient(model, images):
        remedy = "A network: take away what cuts its gradients off. A function or a tree has none: ask more, --budget thorough."
        seen = "the model's answers cannot be differentiated by the pixels"
        return Check(
            what, False, seen, "Without gradients an attack is far weaker: the accuracy it leaves is a loose bound.", remedy
        )
    goal = objectives.untargeted(model, labels)
    heights, slopes = search.gradients(lambda seen: goal.objective(goal.forward(seen))[:, None], images)
    height, slope = heights[:, 0], slopes[0]
    flat = slope.flatten(1)
    finite = flat.isfinite().all(1)
    zero = finite & (flat == 0).all(1)
    agree = finite & ~zero
    steepness = (slope * threat_model.steepest_direction(slope)).nan_to_num(0.0, 0.0, 0.0).flatten(1).sum(1)
    half_way = torch.where((height < 0) & (steepness > 0), -height / steepness / 2, torch.inf)  # to the border, were it straight
    for part in (100, 10):
        length = half_way.clamp_max(_epsilon(threat_model) / part).float()
        step = threat_model.project(images + threat_model.steepest_step(images, slope, length), images)
        with torch.no_grad():
            gained = goal.criterion(goal.forward(step)) - height
        foretold = (slope * (step - images)).nan_to_num(0.0, 0.0, 0.0).flatten(1).sum(1)
        agree &= (foretold > 1e-6 * height.abs().clamp_min(1e-3)) & (gained > 0.3 * foretold) & (gained < 3 * foretold + 1e-6)
    total, shares = len(images), [one.float().mean().item() for one in (zero, ~finite, finite & ~zero & ~agree)]
    return Check(
        what,
        sum(shares) <= 0.1,
        f"of {total} images {shares[0]:.0%} have none at all, {shares[1]:.0%} one that is not finite, "
        f"{shares[2]:.0%} one that a step of a hundredth or a tenth of the radius contradicts",
        why,
        "Look for rounding, saturated layers, very large logits, steps; attack without them, and see whether `blind` passes.",
    )


def more_steps(model: Model, images: Tensor, labels: Tensor, *, threat_model: NormBall) -> Check:
    """Forty steps fool at least what ten do."""
    few, many = (
        pgd(model, images, labels, threat_model=threat_model, steps=steps, loss="cross_entropy").margins >= 0
        for steps in (10, 40)
    )
    return _check_monotone(
        "more steps",
        few,
        many,
        "10 steps",
        "40 steps",
        "An attack that gets weaker with more work does not climb what it means to climb.",
        "Look at the gradients; use --budget thorough.",
    )


def larger_epsilon(model: Model, images: Tensor, labels: Tensor, *, threat_model: NormBall) -> Check:
    """Twice the radius fools at least what the radius does."""
    radius = _epsilon(threat_model)
    largest = 1.0 if threat_model.norm == "linf" else images[0].numel() ** 0.5
    once, twice = (
        pgd(
            model,
            images,
            labels,
            threat_model=NormBall(threat_model.norm, min(share * radius, largest)),
            steps=20,
            loss="cross_entropy",
        ).margins
        >= 0
        for share in (1, 2)
    )
    return _check_monotone(
        "larger radius",
        once,
        twice,
        f"{threat_model}",
        "twice that",
        "Whatever fools within a radius lies within every larger one, so accuracy cannot rise with it.",
        "Look at the gradients: long steps that lead nowhere are the mark of masked ones.",
    )


def unbounded(model: Model, images: Tensor, labels: Tensor, *, threat_model: NormBall) -> Check:
    """With the whole pixel range to move in nothing is left."""
    largest = NormBall(threat_model.norm, 1.0 if threat_model.norm == "linf" else images[0].numel() ** 0.5)
    hunt = ensemble.worst_case(
        model, images, labels, [partial(pgd, threat_model=largest, steps=30, loss=loss) for loss in ("margin", "cross_entropy")]
    )
    left = int((hunt.margins < 0).sum())
    return Check(
        "whole range",
        left <= 0.02 * len(images),
        f"with every pixel free to take any value, {left} of {len(images)} images are still read as labelled after 60 steps",
        "Any image can be turned into any other then: an attack that fails here fails everywhere, and proves nothing.",
        "Look at the gradients; a model that answers the same whatever it sees fails here as well.",
    )


# ---- what other attacks find ---------------------------------------------------------------------------------------------------


def square_attack(
    model: Model, images: Tensor, labels: Tensor, white: Tensor, *, threat_model: NormBall, queries: int = 300
) -> Check:
    """Squares without gradients fool nothing that the verdict left. white (N,): the verdict's values."""
    index = (white < 0).nonzero().squeeze(1)
    if not validation.has_gradient(model, images):
        seen = "the verdict itself was reached without gradients"
        return Check("blind", None, seen, "It asks whether gradients mislead.", "Nothing to do for a black box.")
    found = black_box.square_attack(model, images[index], labels[index], threat_model=threat_model, queries=queries).margins >= 0
    count = int(found.sum())
    return Check(
        "blind",
        count <= 0.01 * len(images),
        f"of {len(index)} images that the verdict left, {queries} random squares fooled {count}",
        "An attack that sees nothing but answers cannot beat one that sees everything, unless what is seen misleads.",
        "Use --budget thorough, and believe the smaller figure.",
    )


def transfer(
    model: Model, images: Tensor, labels: Tensor, white: Tensor, others: Sequence[Model], *, threat_model: NormBall
) -> Check:
    """Images made to fool other models fool nothing that the verdict left. others: models of the same task; none: not checked."""
    why = "Images made for another model know nothing of this one. Where they do better than its own, its gradients mislead."
    remedy = "Use --budget thorough, and believe the smaller figure."
    if not others:
        return Check("transfer", None, "no other model was given", why, "Name one or more: --other MODEL.")
    index, fooled = (white < 0).nonzero().squeeze(1), torch.zeros(int((white < 0).sum()), dtype=torch.bool, device=images.device)
    for other in others:
        with frozen(other) if isinstance(other, nn.Module) else nullcontext():
            if validation.has_gradient(other, images):
                goal = objectives.untargeted(other, labels[index], "cross_entropy")
                rule = search.cosine_steps(threat_model, 2 * _epsilon(threat_model), end=0.01)
                pushed = search.maximize(
                    goal._replace(criterion=goal.objective), images[index], threat_model, steps=20, rule=rule
                ).images
            else:
                pushed = black_box.square_attack(
                    other, images[index], labels[index], threat_model=threat_model, queries=200
                ).images
        with torch.no_grad():
            fooled |= objectives.margin(objectives.logits(model, pushed), labels[index]) <= 0
    count = int(fooled.sum())
    seen = f"of {len(index)} images that the verdict left, those made for {len(others)} other model(s) fooled {count}"
    return Check("transfer", count <= 0.01 * len(images), seen, why, remedy)


# ---- parts ---------------------------------------------------------------------------------------------------------------------


def _check_monotone(name: str, before: Tensor, after: Tensor, first: str, second: str, why: str, remedy: str) -> Check:
    """Fails where the stronger attack loses more than chance would: McNemar's exact test, one-sided, at 1 %."""
    from scipy.stats import binomtest

    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    luck = float(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue) if lost + won else 1.0
    seen = f"{first} fool {int(before.sum())} of {len(before)} images, {second} {int(after.sum())} ({lost} lost, {won} won)"
    return Check(name, luck > 0.01, seen, why, remedy)


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return (objectives.margin(logits, labels) > 0).float().mean().item()


def _relative_difference(one: Tensor, other: Tensor) -> float:
    """The largest difference of two sets of logits as a share of their spread."""
    return float((one - other).abs().max() / one.std(1, correction=0).mean().clamp_min(1e-12))


def _labels_only(logits: Tensor) -> bool:
    """Whether these are labels made into logits, as `blackbox` does."""
    return bool((logits.abs() == 1).all())


def _epsilon(threat_model: NormBall) -> float:
    assert not isinstance(threat_model.epsilon, Tensor), "checks take one radius"
    return float(threat_model.epsilon)


@contextmanager
def _restored_buffers(model: Model) -> Iterator[None]:
    """Batch norm in training mode takes notice of whatever it sees: put back what it knew."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()] if isinstance(model, nn.Module) else []
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
