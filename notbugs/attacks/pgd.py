"""Gradient attacks: what each climbs and how it steps. The search itself is `search.maximize`."""

import torch
from torch import Generator, Tensor

from notbugs import search
from notbugs.attacks.ensemble import worst_case
from notbugs.attacks.validation import Model, check_single_epsilon, validated
from notbugs.errors import InputError
from notbugs.search import AttackResult, NormBall, ThreatModel, objectives


@validated
def fgsm(model: Model, images: Tensor, labels: Tensor, *, threat_model: ThreatModel) -> AttackResult:
    """One step of the full radius up the cross-entropy (Goodfellow et al. 2015)."""
    return search.maximize(
        objectives.untargeted(model, labels, "cross_entropy"),
        images,
        threat_model,
        steps=1,
        rule=search.cosine_steps(threat_model, threat_model.epsilon),
    )


@validated
def pgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    steps: int = 20,
    loss: str = "margin",
    restarts: int = 1,
    generator: Generator | None = None,
) -> AttackResult:
    """Projected gradient ascent away from the labels (N,); values of 0 or more are fooled.

    by: climb the other classes' "lead" or the cross-entropy "loss". The step falls from twice the radius to a hundredth of that.
    generator: start at random in the ball (needed for restarts > 1; each meets only the survivors); without one,
    start at the image.
    Source: Madry et al. 2018; falling steps after Croce & Hein 2020.
    """

    def once(model: Model, images: Tensor, labels: Tensor) -> AttackResult:
        start = threat_model.sample(images, generator) if generator else None
        return search.maximize(
            objectives.untargeted(model, labels, loss),
            images,
            threat_model,
            steps=steps,
            rule=_default_rule(threat_model),
            start=start,
        )

    return _with_restarts(once, model, images, labels, threat_model, restarts, generator)


@validated
def apgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    steps: int = 100,
    loss: str = "cross_entropy",
    rank: int = 0,
    restarts: int = 1,
    generator: Generator | None = None,
) -> AttackResult:
    """Gradient ascent whose steps adapt, image by image; values of 0 or more are fooled.

    by: "loss" (cross-entropy), "dlr" (three classes or more; towards one: four) or "lead". rank: towards the class that is
    rank-th (from 1) among the wrong ones for the unchanged image, by "dlr" or "lead"; 0: away from the label.
    generator: start at random in the ball (needed for restarts > 1); without one, at the image.
    Source: Croce & Hein 2020; here the best point by the lead is kept, and pixels stay in [0, 1] by `ball.project`.
    """
    check_single_epsilon(threat_model)

    def once(model: Model, images: Tensor, labels: Tensor) -> AttackResult:
        start = threat_model.sample(images, generator) if generator else None
        goal = _via_ranked_class(model, images, labels, rank, loss) if rank else objectives.untargeted(model, labels, loss)
        along, share = _step_geometry(threat_model)
        rule = search.auto_pgd(threat_model, images, along=along, share=share)
        return search.maximize(goal, images, threat_model, steps=steps, rule=rule, start=start)

    return _with_restarts(once, model, images, labels, threat_model, restarts, generator)


@validated
def targeted_pgd(
    model: Model, images: Tensor, targets: Tensor, *, threat_model: ThreatModel, steps: int = 20, loss: str = "margin"
) -> AttackResult:
    """Projected gradient ascent towards the target classes (N,); values above 0 got there."""
    return search.maximize(
        objectives.targeted(model, targets, loss), images, threat_model, steps=steps, rule=_default_rule(threat_model)
    )


@validated
def rank_targeted_pgd(
    model: Model, images: Tensor, labels: Tensor, *, threat_model: ThreatModel, rank: int = 1, steps: int = 20
) -> AttackResult:
    """Away from the labels towards the class that is rank-th (from 1) among the wrong ones for the unchanged image."""
    return search.maximize(
        _via_ranked_class(model, images, labels, rank, "margin"),
        images,
        threat_model,
        steps=steps,
        rule=_default_rule(threat_model),
    )


@validated
def kl_pgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    steps: int = 10,
    generator: Generator | None = None,
) -> AttackResult:
    """As far as possible from the model's own calm prediction (labels are not looked at): the inner attack of TRADES.

    The prediction itself is where the divergence is flat, so the start is a hundredth of the radius away, at random.
    """
    generator = generator or torch.Generator(images.device).manual_seed(0)
    with torch.no_grad():
        calm = objectives.logits(model, images)
    goal, start = objectives.kl_from_clean(model, calm), images + 0.01 * (threat_model.sample(images, generator) - images)
    return search.maximize(goal, images, threat_model, steps=steps, rule=_default_rule(threat_model), start=start)


def decaying_steps(threat_model: ThreatModel, size: float | Tensor, *, sparse: bool = False) -> search.UpdateRule:
    """Steps that fall from `size` (one, or one for each image) to a hundredth of it, as all attacks here take them."""
    along, share = (threat_model, 1.0) if sparse else _step_geometry(threat_model)
    return search.cosine_steps(along, share * size, end=0.01)


def _step_geometry(threat_model: ThreatModel) -> tuple[ThreatModel, float]:
    """Whose steps to take inside a ball, and how much longer than its own.

    In L1 they go along the gradient itself, 0.4 times as long, and the exact projection picks the values that count: moving few
    values all the way needs twice the change on CIFAR-10, though it is exact on a linear model (docs/lab-log.md).
    """
    return (NormBall("l2", 1.0), 0.4) if isinstance(threat_model, NormBall) and threat_model.norm == "l1" else (threat_model, 1.0)


def _default_rule(threat_model: ThreatModel) -> search.UpdateRule:
    """Of all first steps and momenta tried, twice the radius and none fooled most (docs/lab-log.md)."""
    return decaying_steps(threat_model, 2 * threat_model.epsilon)


def _with_restarts(
    once: search.Attack,
    model: Model,
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    restarts: int,
    generator: Generator | None,
) -> AttackResult:
    """An attack once, or so many times from other starts, each meeting only the survivors."""
    if restarts == 1:
        return once(model, images, labels)  # type: ignore[arg-type]
    check_single_epsilon(threat_model)
    if generator is None:
        raise InputError("restarts", "needs a generator: every restart from the image itself would be the same", restarts)
    return worst_case(model, images, labels, [once] * restarts)


def _via_ranked_class(model: Model, images: Tensor, labels: Tensor, rank: int, loss: str) -> search.Objective:
    """Away from the label, towards the class that is rank-th among the others for the unchanged image."""
    with torch.no_grad():
        logits = objectives.logits(model, images).scatter(1, labels[:, None], -torch.inf)
    if not 1 <= rank < logits.shape[1]:
        raise InputError("rank", f"must be from 1 to {logits.shape[1] - 1}, one less than there are classes", rank)
    return objectives.untargeted_via(model, labels, logits.topk(rank).indices[:, -1], loss)
