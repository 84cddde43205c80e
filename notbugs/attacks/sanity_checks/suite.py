"""All sanity checks of a model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from notbugs import precision
from notbugs.attacks.ensemble import adaptive_ensemble
from notbugs.attacks.randomness import MeanOfDraws, is_random
from notbugs.attacks.sanity_checks.check import Check, single_epsilon
from notbugs.attacks.sanity_checks.class_order import above_chance, class_order
from notbugs.attacks.sanity_checks.forward import (
    batch_independence,
    deterministic,
    input_clipping,
    input_quantization,
    outputs_are_logits,
    pixel_range,
)
from notbugs.attacks.sanity_checks.gradients import gradients, larger_epsilon, more_steps, unbounded
from notbugs.attacks.sanity_checks.other_attacks import square_attack, transfer
from notbugs.attacks.sanity_checks.under_attack import finite_logits, randomness_averaged
from notbugs.attacks.validation import Model, has_gradient
from notbugs.errors import InputError
from notbugs.models import frozen
from notbugs.search import NormBall, objectives

GRADIENT_CHECKS = {
    "more steps": more_steps,
    "larger epsilon": larger_epsilon,
    "unbounded perturbation": unbounded,
}
FOLLOW_FROM_PROBABILITIES = ("input quantization", "gradients", *GRADIENT_CHECKS, "square attack", "transfer")


@precision.full_precision()
def run_all(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: NormBall | None,
    budget: str = "standard",
    others: Sequence[Model] = (),
    classes: Sequence[str] | None = None,
    clean: tuple[Tensor, Tensor] | None = None,
) -> list[Check]:
    """All sanity checks, on a sample of images; a passed check says nothing about other images.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K). The checks "deterministic" and "batch independence" run in the mode it is in, the
        others in evaluation mode.
    images : Tensor, (N, C, H, W), in [0, 1]
        A hundred or so.
    labels : Tensor, (N,), int64
    threat_model : NormBall or None
        In L-inf or L2, epsilon above 0. None leaves out the checks that attack.
    budget : {"quick", "standard", "thorough"}
        Of the attack ensemble.
    others : sequence of callable
        Models of the same task, for the check "transfer".
    classes : sequence of str, optional
        Names of the classes. Default: their numbers.
    clean : tuple of Tensor, int64 (n,), optional
        Predictions and labels of more clean images, for the checks "class order" and "above chance". Default: of `images`.

    Returns
    -------
    list of Check
        Failed ones first, passed ones last.

    References
    ----------
    Carlini et al. 2019, "On Evaluating Adversarial Robustness", section 5.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> checks = run_all(model, torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.int64), threat_model=None)
    >>> len(checks)
    16
    """
    _check_arguments(images, threat_model)
    with _restored_buffers(model):
        checks = [deterministic(model, images)]
        checks.append(batch_independence(model, images) if checks[0].passed else _not_comparable())
    with frozen(model) if isinstance(model, nn.Module) else nullcontext():
        checks += _prediction_checks(model, images, labels, classes, clean)
        checks.append(randomness_averaged(model, images, labels))
        if is_random(model, images):
            # the same draws each time: else all that follows would compare noise. A forward pass is 20, so the budget is small
            model, budget = MeanOfDraws(model, seed=0), "quick"
        checks += [
            outputs_are_logits(model, images),
            pixel_range(model, images, labels),
            input_clipping(model, images),
            input_quantization(model, images),
            gradients(model, images, labels, threat_model=threat_model or NormBall("l2", 0.1)),
        ]
        if threat_model is None:
            checks += _without_threat_model()
        else:
            checks += _attack_checks(model, images, labels, threat_model, budget, others)
    return sorted(_with_probable_cause(checks), key=lambda check: {False: 0, None: 1, True: 2}[check.passed])


def _with_probable_cause(checks: list[Check]) -> list[Check]:
    """Where outputs are probabilities, what else fails most likely fails because of them: that is said first."""
    if all(check.passed is not False for check in checks if check.name == "logits"):
        return checks
    first = "First return logits, as the check `logits` says, and repeat: that alone can be the cause. If this fails again:"
    return [
        check._replace(fix=f"{first} {check.fix[0].lower()}{check.fix[1:]}")
        if check.passed is False and check.name in FOLLOW_FROM_PROBABILITIES
        else check
        for check in checks
    ]


def _not_comparable() -> Check:
    """The check of batch independence of a random model, not made."""
    observed, rationale = "forward passes of the same batch differ", "This check compares an image alone and in a batch."
    return Check("batch independence", None, observed, rationale, "Look at the check `deterministic` first.")


def _check_arguments(images: Tensor, threat_model: NormBall | None) -> None:
    """Raises InputError for no images, and for another threat model than L-inf or L2."""
    if not len(images):
        raise InputError("images", "must be one or more for sanity checks", 0)
    if threat_model is None:
        return
    if (
        not isinstance(threat_model, NormBall)
        or threat_model.norm not in ("linf", "l2")
        or not 0 < single_epsilon(threat_model) < torch.inf
    ):
        raise InputError("threat_model", "must be linf or l2 with epsilon above 0 for sanity checks", str(threat_model))


def _prediction_checks(
    model: Model, images: Tensor, labels: Tensor, classes: Sequence[str] | None, clean: tuple[Tensor, Tensor] | None
) -> list[Check]:
    """The checks of clean predictions."""
    with torch.no_grad():
        logits = objectives.logits(model, images)
    predicted, known = clean or (logits.argmax(1), labels)
    names = classes or [*map(str, range(logits.shape[1]))]
    return [class_order(predicted, known, names), above_chance(predicted, known, names)]


def _without_threat_model() -> list[Check]:
    """The checks that attack, not made."""
    observed, rationale = "no threat model in L-inf or L2 was given", "This check compares attacks in L-inf or L2."
    names = ("finite logits", *GRADIENT_CHECKS, "square attack", "transfer")
    return [Check(name, None, observed, rationale, "Add one: --epsilon l2:0.5.") for name in names]


def _attack_checks(
    model: Model, images: Tensor, labels: Tensor, threat_model: NormBall, budget: str, others: Sequence[Model]
) -> list[Check]:
    """The checks that attack."""
    found = adaptive_ensemble(model, images, labels, threat_model=threat_model, budget=budget)
    margins, checks = found.margins, [finite_logits(model, found.images)]
    for name, check in GRADIENT_CHECKS.items():
        if has_gradient(model, images):
            checks.append(check(model, images, labels, threat_model=threat_model))
        else:
            rationale, fix = "This check compares gradient attacks.", "Nothing to do for a model without gradients."
            checks.append(Check(name, None, "the model has no gradients", rationale, fix))
    return [
        *checks,
        square_attack(model, images, labels, margins, threat_model=threat_model),
        transfer(model, images, labels, margins, others, threat_model=threat_model),
    ]


@contextmanager
def _restored_buffers(model: Model) -> Iterator[None]:
    """Puts buffers back: batch normalization in training mode updates its statistics with every forward pass."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()] if isinstance(model, nn.Module) else []
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
