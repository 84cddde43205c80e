"""Checks of models that are random, or whose logits are NaN or infinite under attack."""

import torch
import torch.nn.functional as F
from torch import Tensor

from notbugs import search
from notbugs.attacks.randomness import DRAWS, MeanOfDraws, is_random
from notbugs.attacks.sanity_checks.check import Check
from notbugs.attacks.validation import Model, has_gradient
from notbugs.search import objectives

LEAST_COSINE = 0.5  # of two means of independent draws: then each has a cosine of about 0.7 with the expected gradient


def randomness_averaged(model: Model, images: Tensor, labels: Tensor) -> Check:
    """A model that is random in evaluation mode has gradients that the mean of 20 draws shows: two such means agree.

    Fails if the median cosine of the two is below 0.5.
    """
    name = "randomness averaged"
    rationale = "A gradient of one draw is mostly noise, and an image that is misclassified once may be right the next time."
    fix = (
        f"An audit averages {DRAWS} draws (EOT) and counts each image by its share of correct draws. If that is too few, attack "
        "the model without its randomness, or the mean of more draws."
    )
    if not is_random(model, images):
        return Check(name, True, "in evaluation mode the model is not random", rationale, fix)
    if not has_gradient(model, images):
        return Check(name, None, "the model is random and has no gradients", rationale, fix)
    means = [_margin_gradient(MeanOfDraws(model, DRAWS), images, labels) for _ in range(2)]
    singles = [_margin_gradient(model, images, labels) for _ in range(2)]
    cosine, single = (F.cosine_similarity(one, other, dim=1).median().item() for one, other in (means, singles))
    return Check(
        name,
        cosine >= LEAST_COSINE,
        f"the model is random: gradients of the margin have a median cosine of {single:.2f} with those of another draw, means of "
        f"{DRAWS} draws one of {cosine:.2f} with means of {DRAWS} others",
        rationale,
        fix,
    )


def _margin_gradient(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """Gradients of the margin, (N, C * H * W); NaN counts as 0."""
    found = search.gradients(lambda images: objectives.margin(objectives.logits(model, images), labels)[:, None], images)[1]
    return found[0].flatten(1).nan_to_num(0.0, 0.0, 0.0)


def finite_logits(model: Model, perturbed: Tensor) -> Check:
    """The logits of the images that the ensemble found are finite.

    Parameters
    ----------
    model : callable
    perturbed : Tensor, (N, C, H, W), in [0, 1]
    """
    with torch.no_grad():
        logits = objectives.logits(model, perturbed)
    count = int((logits.isnan() | logits.isposinf()).any(1).sum())
    return Check(
        "finite logits",
        count == 0,
        f"under attack the logits of {count} of {len(perturbed)} images are NaN or infinite",
        "Such images count as misclassified. That is a numerical defect of the model, not an adversarial example: the figure "
        "says little about a model without the defect.",
        "Look for overflow, divisions by 0 and logarithms of 0. The column not_finite of the table accuracy counts these images.",
    )
