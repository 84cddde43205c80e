"""The attack ensemble behind every robust accuracy. docs/attacks.md defines its steps, `budgets` holds their numbers."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from notbugs import precision
from notbugs.attacks.black_box import hop_skip_jump, square_attack
from notbugs.attacks.bpda import straight_through
from notbugs.attacks.budgets import (
    BUDGETS,
    MASKING_MIN_MARGIN_LOST,
    MASKING_QUERIES,
    MASKING_RATIO,
    PIXEL_START_CANDIDATES,
    PIXEL_START_MARGIN_LOST,
    PIXEL_STARTS_ON_ALL,
    TARGET_CLASSES,
    TARGETED_STEPS,
    UNTARGETED_ATTACKS,
    AttackBudget,
    check_budget,
)
from notbugs.attacks.combine import EnsembleState
from notbugs.attacks.further import count_further_attacks, run_further_attacks
from notbugs.attacks.pgd import apgd, pgd, rank_targeted_pgd
from notbugs.attacks.sparse import few_pixels
from notbugs.attacks.spatial import spatial_attack
from notbugs.attacks.validation import Model, check_single_epsilon, has_gradient, validated
from notbugs.data import map_batches
from notbugs.errors import InputError
from notbugs.search import Attack, AttackResult, NormBall, SpatialTransforms, ThreatModel, objectives


@validated
def adaptive_ensemble(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel | SpatialTransforms,
    budget: str = "standard",
    batch_size: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> AttackResult:
    """Attacks every image with an ensemble of attacks, cheap ones first: the attack behind every robust accuracy.

    Each attack runs on the images that are still classified correctly. Targeted attacks run on the images that lost enough of
    their margin; black-box attacks on the images whose gradients look masked. docs/attacks.md defines the steps for each threat
    model, and for models without gradients.

    Parameters
    ----------
    model : callable
        Images (n, C, H, W) to logits (n, K); differentiable or not.
    images : Tensor, (N, C, H, W), in [0, 1]
    labels : Tensor, (N,), int64
    threat_model : ThreatModel or SpatialTransforms
        With one epsilon for all images.
    budget : {"quick", "standard", "thorough"}
        At most 19, 1,039 or 2,039 gradients per image, and black-box queries: a key of `BUDGETS`.
    batch_size : int, optional
        Images at a time, by default as many as suit the device. Halved, with a warning, where memory runs out.
    progress : callable, optional
        Called after each attack on each batch, with the share that is done, in [0, 1].

    Returns
    -------
    AttackResult
        For each image the perturbed image with the highest margin of the best other class, and that margin: 0 or more is
        misclassified. Deterministic: the same images in the same batches give the same result.

    Examples
    --------
    >>> def model(images):
    ...     mean = images.mean((1, 2, 3))
    ...     return torch.stack([0.5 - mean, mean - 0.5], dim=1)
    >>> images, labels = torch.tensor([0.2, 0.45]).reshape(2, 1, 1, 1).repeat(1, 1, 8, 8), torch.tensor([0, 0])
    >>> result = adaptive_ensemble(model, images, labels, threat_model=NormBall("linf", 0.1), budget="quick")
    >>> result.margins >= 0
    tensor([False,  True])
    """
    check_budget(budget)
    if batch_size is not None and batch_size < 1:
        raise InputError("batch_size", "must be 1 or more", batch_size)
    check_single_epsilon(threat_model)

    def attack_batch(batch: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        report = partial(_report, progress, index, len(images)) if progress else None
        return _attack_batch(model, batch, labels[index.to(labels.device)], threat_model, BUDGETS[budget], report)

    found = map_batches(
        attack_batch,
        images,
        batch_size=batch_size or precision.default_batch_size(images.device, images.shape[1:]),
        device=images.device,
    )
    return AttackResult(*(column.to(images.device) for column in found))


def gradient_ensemble(threat_model: ThreatModel, classes: int) -> list[Attack]:
    """The gradient attacks of `adaptive_ensemble`, for `worst_case`, which runs them on all images.

    Parameters
    ----------
    threat_model : ThreatModel
    classes : int
        Of the model.

    Returns
    -------
    list of callable
        PGD on the margin (1 step, most of what a standard model has to lose, then 3) and on the cross-entropy (15, which begin
        within 3 epsilon), then PGD at
        each of the nearest wrong classes, at most nine, for 10 steps. The first three alone are `GRADIENT_ENSEMBLE`. In L0:
        pixel by pixel, with 20 and with 200 candidates.
    """
    if isinstance(threat_model, NormBall) and threat_model.norm == "l0":
        candidates = BUDGETS["standard"].ranked_pixel_candidates
        attack = partial(few_pixels, pixels=_pixels(threat_model), exchanges=0, mask=threat_model.mask)
        return [partial(attack, candidates=count) for count in candidates]
    return [
        *(partial(pgd, threat_model=threat_model, steps=steps, loss=loss, shrink=True) for steps, loss in UNTARGETED_ATTACKS),
        *(
            partial(rank_targeted_pgd, threat_model=threat_model, rank=rank, steps=TARGETED_STEPS, shrink=True)
            for rank in range(1, min(classes, TARGET_CLASSES + 1))
        ),
    ]


def _report(progress: Callable[[float], None], index: Tensor, count: int, share: float) -> None:
    """A share of the attacks on one batch as a share of all. index: of the batch, on the CPU; count: of all images."""
    progress((int(index[0]) + len(index) * share) / count)


def _attack_batch(
    model: Model,
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel | SpatialTransforms,
    budget: AttackBudget,
    progress: Callable[[float], None] | None,
) -> AttackResult:
    """The ensemble on one batch."""
    state = EnsembleState.from_clean(model, images, labels)
    if not bool(state.remaining.any()) or getattr(threat_model, "epsilon", 1) == 0:
        return state.result
    gradient = has_gradient(model, images)
    state = replace(state, progress=progress, planned=_attack_count(threat_model, budget, state.classes, gradient))
    if isinstance(threat_model, SpatialTransforms):
        return state.run(_spatial(threat_model, budget, gradient)).result
    if isinstance(threat_model, NormBall) and threat_model.norm == "l0":
        return _run_few_pixels(state, threat_model, budget, gradient).result
    run = _run_gradient_attacks if gradient else _run_without_gradients
    return run(state, threat_model, budget).result


def _attack_count(threat_model: ThreatModel | SpatialTransforms, budget: AttackBudget, classes: int, gradient: bool) -> int:
    """How many attacks run on a batch, without those by BPDA, which most models do not get."""
    norm = threat_model.norm if isinstance(threat_model, NormBall) else ""
    if isinstance(threat_model, SpatialTransforms):
        return 1
    if isinstance(threat_model, NormBall) and norm == "l0":
        starts = budget.pixel_starts if _pixels(threat_model) > 1 else 0
        return 1 + (len(budget.ranked_pixel_candidates) + starts + 1 if gradient else 0)
    black_box = 1 + int(norm in ("l2", "linf"))
    if not gradient:
        return black_box
    further = count_further_attacks(budget, classes)
    adaptive = min(classes, TARGET_CLASSES + 1) if budget.apgd_steps else 0
    return len(UNTARGETED_ATTACKS) + 1 + further + adaptive + int(budget.extra_square_queries > 0) + black_box


def _spatial(threat_model: SpatialTransforms, budget: AttackBudget, gradient: bool) -> Attack:
    return partial(
        spatial_attack,
        threat_model=threat_model,
        angles=budget.angles,
        translations=budget.translations,
        steps=budget.spatial_steps,
        gradient=gradient,
    )


def _run_few_pixels(state: EnsembleState, threat_model: NormBall, budget: AttackBudget, gradient: bool) -> EnsembleState:
    """L0: candidates ranked by gradients, then random ones, where these find a lower margin at once or gradients are missing."""
    pixels = _pixels(threat_model)
    attack = partial(few_pixels, pixels=pixels, mask=threat_model.mask)
    masked = state.remaining
    if gradient:
        for number, count in enumerate(budget.ranked_pixel_candidates):
            state = state.run(partial(attack, candidates=count, exchanges=0 if number else budget.pixel_exchanges))
        if pixels > 1:
            state = _run_random_pixels(state, attack, budget)
        before = state.result.margins
        state = state.run(partial(attack, candidates=MASKING_QUERIES, exchanges=0, gradient=False))
        masked = state.last > before
    blind = partial(attack, candidates=budget.random_pixel_candidates, exchanges=budget.random_pixel_exchanges, gradient=False)
    return state.run(blind, None if budget.black_box_on_all else masked)


def _run_random_pixels(state: EnsembleState, attack: Callable[..., AttackResult], budget: AttackBudget) -> EnsembleState:
    """`few_pixels` from random pixels: a few starts on all images, then on what lost enough of its margin."""
    generator = torch.Generator().manual_seed(0)
    attack = partial(
        attack, candidates=PIXEL_START_CANDIDATES, exchanges=budget.pixel_exchanges, random_start=True, generator=generator
    )
    for number in range(budget.pixel_starts):
        subset = state.margin_lost() >= PIXEL_START_MARGIN_LOST if number >= PIXEL_STARTS_ON_ALL else None
        state = state.run(attack, subset)
    return state


def _pixels(threat_model: NormBall) -> int:
    """Number of pixels of an L0 ball."""
    return int(min(threat_model.epsilon, 1e9))


def _run_gradient_attacks(state: EnsembleState, threat_model: ThreatModel, budget: AttackBudget) -> EnsembleState:
    """L2, L-inf, L1 and threat models of the user, for a model with gradients."""
    for attack in gradient_ensemble(threat_model, state.classes)[: len(UNTARGETED_ATTACKS)]:
        state = state.run(attack)
    by_gradients = state.margin_lost()
    state = state.run(partial(square_attack, threat_model=threat_model, queries=MASKING_QUERIES))
    by_queries = state.margin_lost(state.last)
    tested = state
    state = _run_bpda(state, threat_model, budget, _look_masked(by_queries, by_gradients))
    followed = state is tested  # its gradients are the model's own
    state = run_further_attacks(state, threat_model, budget)
    masked = _look_masked(by_queries, state.margin_lost() if followed else by_gradients)
    state = _run_apgd(state, threat_model, budget)
    subset, before = None if budget.black_box_on_all else masked, state.margin_lost()
    state = state.run(partial(square_attack, threat_model=threat_model, queries=budget.square_queries), subset)
    if budget.extra_square_queries:
        extra = masked & (state.margin_lost(state.last) >= before)
        state = state.run(partial(square_attack, threat_model=threat_model, queries=budget.extra_square_queries), extra)
    return _run_hop_skip_jump(state, threat_model, budget, subset)


def _look_masked(by_queries: Tensor, by_gradients: Tensor) -> Tensor:
    """Which images' gradients look masked, by the share of the margin that a few random queries took and that gradients took."""
    return (by_queries > MASKING_RATIO * by_gradients) | (by_gradients < MASKING_MIN_MARGIN_LOST)


def _run_without_gradients(state: EnsembleState, threat_model: ThreatModel, budget: AttackBudget) -> EnsembleState:
    """L2, L-inf, L1 and threat models of the user, for a model without gradients."""
    state = _run_bpda(state, threat_model, budget, state.remaining)
    queries = budget.square_queries_without_gradients
    state = state.run(partial(square_attack, threat_model=threat_model, queries=queries))
    return _run_hop_skip_jump(state, threat_model, budget, None)


def _run_apgd(state: EnsembleState, threat_model: ThreatModel, budget: AttackBudget) -> EnsembleState:
    """APGD on the cross-entropy, then at each of the nearest wrong classes, from random starts."""
    if not budget.apgd_steps:
        return state
    generator = torch.Generator(state.images.device).manual_seed(0)
    attack = partial(apgd, threat_model=threat_model, steps=budget.apgd_steps, generator=generator, shrink=True)
    state = state.run(attack)
    for rank in range(1, min(state.classes, TARGET_CLASSES + 1)):
        state = state.run(partial(attack, loss="margin", rank=rank))
    return state


def _run_bpda(state: EnsembleState, threat_model: ThreatModel, budget: AttackBudget, subset: Tensor) -> EnsembleState:
    """The gradient attacks with straight-through gradients, if the model has a non-differentiable operation."""
    if not bool((subset & state.remaining).any()):
        return state
    differentiable = straight_through(state.model, state.images)
    if differentiable is None:
        return state
    attacks = gradient_ensemble(threat_model, state.classes)
    for attack in attacks[: len(UNTARGETED_ATTACKS)] if budget.further_margin_lost is None else attacks:
        state = state.run(partial(_transfer_from, attack=attack, other=differentiable), subset)
    return state


def _transfer_from(model: Model, images: Tensor, labels: Tensor, *, attack: Attack, other: Model) -> AttackResult:
    """An attack on another model, with the margins of this one."""
    found = attack(other, images, labels)  # type: ignore[arg-type]
    with torch.no_grad():
        return AttackResult(found.images, -objectives.margin(objectives.logits(model, found.images), labels))


def _run_hop_skip_jump(
    state: EnsembleState, threat_model: ThreatModel, budget: AttackBudget, subset: Tensor | None
) -> EnsembleState:
    """HopSkipJump in L2 and L-inf, which may start at any image of the batch."""
    if not isinstance(threat_model, NormBall) or threat_model.norm not in ("l2", "linf"):
        return state
    queries = budget.hop_skip_jump_queries
    return state.run(partial(_hop_skip_jump_within, threat_model=threat_model, queries=queries, starts=state.images), subset)


def _hop_skip_jump_within(
    model: Model, images: Tensor, labels: Tensor, *, threat_model: NormBall, queries: int, starts: Tensor
) -> AttackResult:
    """`hop_skip_jump` as an attack within a ball: what it found outside is no success."""
    epsilon = threat_model.epsilon
    assert isinstance(epsilon, float | int)
    found = hop_skip_jump(model, images, labels, norm=threat_model, queries=queries, stop_norm=epsilon, starts=starts)
    with torch.no_grad():
        margins = -objectives.margin(objectives.logits(model, found.images), labels)
    return AttackResult(found.images, torch.where(found.norms <= epsilon, margins, -torch.inf))
