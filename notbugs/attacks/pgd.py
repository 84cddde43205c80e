"""Gradient attacks: an objective and step sizes each; the loop is `search.maximize`."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Generator, Tensor

from notbugs import search
from notbugs.attacks.combine import worst_case
from notbugs.attacks.validation import Model, check_single_epsilon, validated
from notbugs.errors import InputError
from notbugs.search import AttackResult, NormBall, ThreatModel, objectives

SHRINKING = (3, 2)  # times epsilon, before epsilon itself


@validated
def fgsm(model: Model, images: Tensor, labels: Tensor, *, threat_model: ThreatModel) -> AttackResult:
    """Fast gradient sign method: one step of size epsilon on the cross-entropy, the steepest one in the norm.

    Parameters
    ----------
    model, images, labels, threat_model
        As in `pgd`.

    References
    ----------
    Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples".
    """
    objective = objectives.untargeted(model, labels, "cross_entropy")
    rule = search.cosine_steps(threat_model, threat_model.epsilon)
    return search.maximize(objective, images, threat_model, steps=1, rule=rule)


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
    shrink: bool = False,
) -> AttackResult:
    """Untargeted projected gradient descent, with step sizes that decay from 2 epsilon towards 0.02 epsilon.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K), differentiable.
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, (N,), int64
    threat_model : ThreatModel
    steps : int
    loss : {"margin", "cross_entropy", "dlr"}
        What is maximized.
    restarts : int
        Each on the images that are still classified correctly. More than 1 needs a generator.
    generator : torch.Generator, optional
        Start at a random point of the threat model. By default, at the clean image.
    shrink : bool
        Search within 3 epsilon first, then within 2, and within epsilon for the last 40 % of the steps, each from the best of the
        search before. Finds more where there are many maxima. For a threat
        model of your own this needs a method `enlarged`, as that of `NormBall`; else nothing changes.

    Returns
    -------
    AttackResult
        The iterate with the highest margin of the best other class, and that margin: 0 or more is misclassified.

    References
    ----------
    Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks". Decaying steps: Croce & Hein 2020.
    Shrinking: Croce & Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers".

    Examples
    --------
    >>> import torch
    >>> from notbugs.search import NormBall
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> images, labels = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    >>> result = pgd(model, images, labels, threat_model=NormBall("linf", 8 / 255))
    >>> bool((result.images - images).abs().max() <= 8 / 255 + 1e-6)
    True
    """

    def attack(model: Model, images: Tensor, labels: Tensor) -> AttackResult:
        objective = objectives.untargeted(model, labels, loss)
        return _search(objective, images, threat_model, steps, default_steps, generator=generator, shrink=shrink)

    return _with_restarts(attack, model, images, labels, threat_model, restarts, generator)


@validated
def training_pgd(
    model: Model, images: Tensor, labels: Tensor, *, threat_model: ThreatModel, steps: int = 3, loss: str = "cross_entropy"
) -> Tensor:
    """The PGD of adversarial training: steps as of `pgd`, but the last iterate, without the forward pass that gives its margin.

    With three steps that pass is about a tenth of the time of adversarial training. To measure robust accuracy use `pgd`, which
    keeps the best iterate.

    Parameters
    ----------
    model, images, labels, threat_model, steps, loss
        As in `pgd`.

    Returns
    -------
    Tensor, (N, C, H, W), in [0, 1]

    References
    ----------
    Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks".
    """
    objective, rule = objectives.untargeted(model, labels, loss), default_steps(threat_model)
    return search.last_iterate(objective, images, threat_model, steps=steps, rule=rule)


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
    shrink: bool = False,
) -> AttackResult:
    """Auto-PGD: step sizes adapt image by image; untargeted, or by way of one target class.

    Parameters
    ----------
    model, images, labels, steps, restarts, generator, shrink
        As in `pgd`.
    threat_model : ThreatModel
        With one epsilon for all images.
    loss : {"cross_entropy", "dlr", "margin"}
        "dlr" needs three classes, with a target class four. With a target class "dlr" or "margin".
    rank : int
        0: untargeted. Else the target is the wrong class with the rank-th highest logit on the clean image.

    Returns
    -------
    AttackResult
        As of `pgd`: the iterate with the highest margin.

    References
    ----------
    Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks". There
    the iterate with the highest loss is kept, and pixels are clipped apart from the projection.
    """
    check_single_epsilon(threat_model)

    def attack(model: Model, images: Tensor, labels: Tensor) -> AttackResult:
        objective = _via_ranked_class(model, images, labels, rank, loss) if rank else objectives.untargeted(model, labels, loss)

        def rule(threat_model: ThreatModel) -> search.UpdateRule:
            along, share = _step_geometry(threat_model)
            return search.auto_pgd(threat_model, images, along=along, share=share)

        return _search(objective, images, threat_model, steps, rule, generator=generator, shrink=shrink)

    return _with_restarts(attack, model, images, labels, threat_model, restarts, generator)


@validated
def targeted_pgd(
    model: Model, images: Tensor, targets: Tensor, *, threat_model: ThreatModel, steps: int = 20, loss: str = "margin"
) -> AttackResult:
    """PGD toward given target classes.

    Parameters
    ----------
    model, images, threat_model, steps
        As in `pgd`.
    targets : Tensor, (N,), int64
    loss : {"margin", "cross_entropy"}
        Maximizes the margin of the target, or minus its cross-entropy.

    Returns
    -------
    AttackResult
        Here the margins are those of the target: above 0 it is predicted.
    """
    objective, rule = objectives.targeted(model, targets, loss), default_steps(threat_model)
    return search.maximize(objective, images, threat_model, steps=steps, rule=rule)


@validated
def rank_targeted_pgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    rank: int = 1,
    steps: int = 20,
    shrink: bool = False,
) -> AttackResult:
    """PGD by way of one wrong class, the one with the rank-th highest logit on the clean image.

    Parameters
    ----------
    model, images, labels, threat_model, steps, shrink
        As in `pgd`.
    rank : int
        From 1 to the number of classes less one.

    Returns
    -------
    AttackResult
        As of `pgd`: any misclassification counts.
    """
    objective = _via_ranked_class(model, images, labels, rank, "margin")
    return _search(objective, images, threat_model, steps, default_steps, shrink=shrink)


@validated
def refine(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    start: Tensor,
    steps: int = 100,
    size: float = 0.2,
    sparse: bool = False,
) -> AttackResult:
    """PGD on the margin from perturbed images that another attack found.

    Parameters
    ----------
    model, images, labels, threat_model, steps
        As in `pgd`.
    start : Tensor, (N, C, H, W)
        The perturbed images.
    size : float
        Of the first step, as a share of epsilon; the last one is a hundredth of it.
    sparse : bool
        In L1, steps that change few values.

    Returns
    -------
    AttackResult
        As of `pgd`; never less than the start, brought into the threat model.
    """
    objective = objectives.untargeted(model, labels, "margin")
    rule = decaying_steps(threat_model, size * threat_model.epsilon, sparse=sparse)
    return search.maximize(objective, images, threat_model, steps=steps, rule=rule, start=start)


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
    """The inner attack of TRADES: PGD on the Kullback-Leibler divergence from the clean prediction.

    Parameters
    ----------
    model, images, threat_model, steps
        As in `pgd`.
    labels : Tensor, (N,), int64
        Not used; every attack takes them.
    generator : torch.Generator, optional
        Of the random start, a hundredth of epsilon away: the gradient is 0 at the clean image. By default seeded with 0.

    Returns
    -------
    AttackResult
        Here the margins are divergences.

    References
    ----------
    Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy".
    """
    generator = generator or torch.Generator(images.device).manual_seed(0)
    with torch.no_grad():
        clean = objectives.logits(model, images)
    start = images + 0.01 * (threat_model.sample(images, generator) - images)
    objective, rule = objectives.kl_from_clean(model, clean), default_steps(threat_model)
    return search.maximize(objective, images, threat_model, steps=steps, rule=rule, start=start)


def decaying_steps(threat_model: ThreatModel, size: float | Tensor, *, sparse: bool = False) -> search.UpdateRule:
    """The step sizes of every attack here but APGD: from `size` along a cosine to a hundredth of it.

    Parameters
    ----------
    threat_model : ThreatModel
    size : float or Tensor, (N,)
    sparse : bool
        In L1, steps that change few values instead of steps along the gradient.
    """
    along, share = (threat_model, 1.0) if sparse else _step_geometry(threat_model)
    return search.cosine_steps(along, share * size, end=0.01)


def _step_geometry(threat_model: ThreatModel) -> tuple[ThreatModel, float]:
    """The threat model whose steepest steps are taken, and how much longer than its own.

    In L1 the steps are 0.4 times as long, along the normalized gradient; the exact projection selects the values that count.
    Steps that change few values by as much as they can need twice the perturbation on CIFAR-10, though they are exact on a linear
    model (docs/lab-log.md).
    """
    if isinstance(threat_model, NormBall) and threat_model.norm == "l1":
        return replace(threat_model, norm="l2", epsilon=1.0), 0.4
    return threat_model, 1.0


def default_steps(threat_model: ThreatModel) -> search.UpdateRule:
    """`decaying_steps` from 2 epsilon.

    Of all first step sizes and momenta tried, 2 epsilon and no momentum left the lowest accuracy (docs/lab-log.md).
    """
    return decaying_steps(threat_model, 2 * threat_model.epsilon)


def _search(
    objective: search.Objective,
    images: Tensor,
    threat_model: ThreatModel,
    steps: int,
    rule: Callable[[ThreatModel], search.UpdateRule],
    *,
    generator: Generator | None = None,
    shrink: bool = False,
) -> AttackResult:
    """One search, from the clean images or a random point; with `shrink` within ever smaller threat models that end with this."""
    start = None
    for ball, count in _stages(threat_model, steps, images.shape) if shrink else ((threat_model, steps),):
        if generator and start is None:
            start = ball.sample(images, generator)
        found = search.maximize(objective, images, ball, steps=count, rule=rule(ball), start=start)
        start = found.images
    return found


def _stages(threat_model: ThreatModel, steps: int, shape: torch.Size) -> Iterator[tuple[ThreatModel, int]]:
    """The threat models of a search that shrinks, and the number of steps in each."""
    enlarged = getattr(threat_model, "enlarged", None)
    count = 3 * steps // 10
    if enlarged is None or not count:
        yield threat_model, steps
        return
    for factor in SHRINKING:
        yield enlarged(factor, shape), count
    yield threat_model, steps - len(SHRINKING) * count


def _with_restarts(
    attack: search.Attack,
    model: Model,
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    restarts: int,
    generator: Generator | None,
) -> AttackResult:
    """An attack once, or several times from random starts, each on the images that are still classified correctly."""
    if restarts == 1:
        return attack(model, images, labels)  # type: ignore[arg-type]
    check_single_epsilon(threat_model)
    if generator is None:
        raise InputError("restarts", "needs a generator: every restart from the clean image would be the same", restarts)
    return worst_case(model, images, labels, [attack] * restarts)


def _via_ranked_class(model: Model, images: Tensor, labels: Tensor, rank: int, loss: str) -> search.Objective:
    """Any wrong class, by way of the one with the rank-th highest logit on the clean image."""
    with torch.no_grad():
        logits = objectives.logits(model, images).scatter(1, labels[:, None], -torch.inf)
    if not 1 <= rank < logits.shape[1]:
        raise InputError("rank", f"must be from 1 to {logits.shape[1] - 1}, one less than there are classes", rank)
    return objectives.untargeted_via(model, labels, logits.topk(rank).indices[:, -1], loss)
