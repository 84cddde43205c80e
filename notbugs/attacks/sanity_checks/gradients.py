"""Checks of a model's gradients, and of whether gradient attacks get stronger with more of everything."""

from functools import partial

import torch
from torch import Tensor

from notbugs import search
from notbugs.attacks.combine import worst_case
from notbugs.attacks.pgd import pgd
from notbugs.attacks.sanity_checks.check import Check, largest_epsilon, single_epsilon
from notbugs.attacks.validation import Model, missing_gradient
from notbugs.search import NormBall, objectives


def gradients(model: Model, images: Tensor, labels: Tensor, *, threat_model: NormBall) -> Check:
    """Gradients exist, are finite, and predict what small steps gain: a hundredth and a tenth of epsilon.

    Fails if that does not hold for more than 10 % of the images.
    """
    if missing := missing_gradient(model, images):
        return Check(
            "gradients",
            False,
            f"the logits cannot be differentiated with respect to the pixels: {missing}",
            "Without gradients an attack is far weaker, so the robust accuracy is a loose upper bound.",
            "A network: remove what cuts off the gradients. A function or a decision tree has none: --budget thorough gives a "
            "tighter bound; with --fail-under, --accept-check gradients accepts that there are none.",
        )
    objective = objectives.untargeted(model, labels)
    values, slopes = search.gradients(lambda images: objective.objective(objective.forward(images))[:, None], images)
    finite = slopes[0].flatten(1).isfinite().all(1)
    zero = finite & (slopes[0].flatten(1) == 0).all(1)
    wrong = finite & ~zero & ~_predict_gains(objective, images, values[:, 0], slopes[0], threat_model)
    shares = [group.float().mean().item() for group in (zero, ~finite, wrong)]
    return Check(
        "gradients",
        sum(shares) <= 0.1,
        f"of {len(images)} images {shares[0]:.0%} have a gradient of zero and {shares[1]:.0%} one that is not finite; for "
        f"{shares[2]:.0%} a step along it, of a hundredth or a tenth of epsilon, gains less than 0.3 or more than 3 times "
        "what it predicts",
        "Attacks follow the gradient. They fail where it is zero, not finite, or unrelated to the logits nearby.",
        "Look for rounding, saturated activations, very large logits and step functions. Attack the model without them, and see "
        "whether the check `square attack` passes.",
    )


def _predict_gains(
    objective: search.Objective, images: Tensor, values: Tensor, gradient: Tensor, threat_model: NormBall
) -> Tensor:
    """For which images the margin gained by small steps is 0.3 to 3 times the linearized one: (N,).

    A step ends at most half way to the decision boundary, if that were linear.
    """
    steepness = (gradient * threat_model.steepest_direction(gradient)).nan_to_num(0.0, 0.0, 0.0).flatten(1).sum(1)
    half_way = torch.where((values < 0) & (steepness > 0), -values / steepness / 2, torch.inf)
    agree = torch.ones_like(values, dtype=torch.bool)
    for part in (100, 10):
        length = half_way.clamp_max(single_epsilon(threat_model) / part).float()
        moved = threat_model.project(images + threat_model.steepest_step(images, gradient, length), images)
        with torch.no_grad():
            gained = objective.criterion(objective.forward(moved)) - values
        predicted = (gradient * (moved - images)).nan_to_num(0.0, 0.0, 0.0).flatten(1).sum(1)
        agree &= predicted > 1e-6 * values.abs().clamp_min(1e-3)
        agree &= (gained > 0.3 * predicted) & (gained < 3 * predicted + 1e-6)
    return agree


def more_steps(model: Model, images: Tensor, labels: Tensor, *, threat_model: NormBall) -> Check:
    """PGD with 40 steps is at least as strong as with 10."""
    attack = partial(pgd, model, images, labels, threat_model=threat_model, loss="cross_entropy")
    few, many = (attack(steps=steps).margins >= 0 for steps in (10, 40))
    return _check_monotone(
        "more steps",
        few,
        many,
        "PGD-10",
        "PGD-40",
        "An attack that gets weaker with more steps does not maximize its objective.",
        "Look at the check `gradients`; use --budget thorough.",
    )


def larger_epsilon(model: Model, images: Tensor, labels: Tensor, *, threat_model: NormBall) -> Check:
    """PGD is at least as strong at twice the epsilon."""
    epsilon, largest = single_epsilon(threat_model), largest_epsilon(threat_model.norm, images)
    attack = partial(pgd, model, images, labels, steps=20, loss="cross_entropy")
    once, twice = (attack(threat_model=threat_model.within(min(factor * epsilon, largest))).margins >= 0 for factor in (1, 2))
    return _check_monotone(
        "larger epsilon",
        once,
        twice,
        f"PGD-20 at {threat_model}",
        "at twice the epsilon",
        "Whatever lies within epsilon lies within a larger epsilon, so robust accuracy cannot rise with it.",
        "Look at the check `gradients`: long steps that gain nothing are a sign of gradient masking.",
    )


def unbounded(model: Model, images: Tensor, labels: Tensor, *, threat_model: NormBall) -> Check:
    """Without a bound on the perturbation, robust accuracy falls to 2 % or less. Not made where not every value may change."""
    name, rationale = (
        "unbounded perturbation",
        "Then every image can be turned into every other one. An attack that fails even here says nothing about robustness.",
    )
    if threat_model.restriction:
        observed = f"not every value may change: {threat_model.restriction}"
        return Check(name, None, observed, rationale, "Attack without --mask and limits of channels.")
    whole_range = NormBall(threat_model.norm, largest_epsilon(threat_model.norm, images))
    attacks = [partial(pgd, threat_model=whole_range, steps=30, loss=loss) for loss in ("margin", "cross_entropy")]
    remaining = int((worst_case(model, images, labels, attacks).margins < 0).sum())
    return Check(
        name,
        remaining <= 0.02 * len(images),
        f"with perturbations of any size, {remaining} of {len(images)} images stay correctly classified after 60 steps of PGD",
        rationale,
        "Look at the check `gradients`. A model with constant outputs fails this check, too.",
    )


def _check_monotone(name: str, before: Tensor, after: Tensor, weaker: str, stronger: str, rationale: str, fix: str) -> Check:
    """Fails if the stronger attack misclassifies fewer images than chance allows: McNemar's exact test, one-sided, at 1 %."""
    from scipy.stats import binomtest

    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    p_value = float(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue) if lost + won else 1.0
    observed = (
        f"{weaker}: {int(before.sum())} of {len(before)} images misclassified; {stronger}: {int(after.sum())} "
        f"({lost} lost, {won} won)"
    )
    return Check(name, p_value > 0.01, observed, rationale, fix)
