"""Checks of whether attacks that ignore the model's gradients beat the ensemble."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from notbugs import search
from notbugs.attacks import black_box
from notbugs.attacks.sanity_checks.check import Check, single_epsilon
from notbugs.attacks.validation import Model, has_gradient
from notbugs.models import frozen
from notbugs.search import NormBall, objectives

FIX = "Use --budget thorough, and report the lower robust accuracy."


def square_attack(
    model: Model, images: Tensor, labels: Tensor, margins: Tensor, *, threat_model: NormBall, queries: int = 300
) -> Check:
    """Square Attack misclassifies at most 1 % more images than the ensemble, whose margins (N,) are given."""
    if not has_gradient(model, images):
        observed, rationale = "the ensemble itself had no gradients", "This check compares gradient attacks with black-box ones."
        return Check("square attack", None, observed, rationale, "Nothing to do for a model without gradients.")
    index = (margins < 0).nonzero().squeeze(1)
    found = black_box.square_attack(model, images[index], labels[index], threat_model=threat_model, queries=queries)
    count = int((found.margins >= 0).sum())
    return Check(
        "square attack",
        count <= 0.01 * len(images),
        f"of {len(index)} images that the ensemble left correct, Square-{queries} misclassified {count}",
        "Gradient attacks know more than a black-box attack. If they are weaker, the gradients mislead (gradient masking).",
        FIX,
    )


def transfer(
    model: Model, images: Tensor, labels: Tensor, margins: Tensor, others: Sequence[Model], *, threat_model: NormBall
) -> Check:
    """Adversarial examples of other models misclassify at most 1 % more images than the ensemble, whose margins are given."""
    rationale = (
        "Attacks on another model know nothing of this one. If they are stronger, its gradients mislead (gradient masking)."
    )
    if not others:
        return Check("transfer", None, "no other model was given", rationale, "Name one or more: --other MODEL.")
    index = (margins < 0).nonzero().squeeze(1)
    wrong = torch.zeros(len(index), dtype=torch.bool, device=images.device)
    for other in others:
        perturbed = _adversarial_examples(other, images, labels, index, threat_model)
        with torch.no_grad():
            wrong |= objectives.margin(objectives.logits(model, perturbed), labels[index]) <= 0
    count = int(wrong.sum())
    observed = (
        f"of {len(index)} images that the ensemble left correct, adversarial examples of {len(others)} other model(s) "
        f"misclassified {count}"
    )
    return Check("transfer", count <= 0.01 * len(images), observed, rationale, FIX)


def _adversarial_examples(other: Model, images: Tensor, labels: Tensor, index: Tensor, threat_model: NormBall) -> Tensor:
    """PGD-20 on another model, with the highest cross-entropy kept; Square-200 if it has no gradients."""
    with frozen(other) if isinstance(other, nn.Module) else nullcontext():
        if not has_gradient(other, images):
            return black_box.square_attack(other, images[index], labels[index], threat_model=threat_model, queries=200).images
        objective = objectives.untargeted(other, labels[index], "cross_entropy")
        objective = objective._replace(criterion=objective.objective)
        rule = search.cosine_steps(threat_model, 2 * single_epsilon(threat_model), end=0.01)
        return search.maximize(objective, images[index], threat_model, steps=20, rule=rule).images
