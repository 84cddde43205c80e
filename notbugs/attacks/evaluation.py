"""The ensemble behind every robust accuracy, on one dial."""

from functools import partial

import torch
from torch import Tensor

from notbugs import precision
from notbugs.attacks.black_box import few_pixels, hop_skip_jump, square_attack
from notbugs.attacks.bpda import straight_through
from notbugs.attacks.ensemble import EnsembleState
from notbugs.attacks.pgd import apgd, pgd, rank_targeted_pgd
from notbugs.attacks.spatial import spatial_attack
from notbugs.attacks.validation import Model, check_single_epsilon, has_gradient, validated
from notbugs.data import map_batches
from notbugs.errors import InputError
from notbugs.search import Attack, AttackResult, NormBall, SpatialTransforms, ThreatModel, objectives

BUDGETS = ("quick", "standard", "thorough")
MIN_MARGIN_LOST = 0.4  # the share of its lead that an image has lost to cheap attacks before costly ones are tried on it
NEAR_BOUNDARY = 0.85  # the same for longer ones: those that these fooled had all lost 0.99 (docs/lab-log.md)
MASKING_QUERIES = 10  # random squares that gradients must beat
MASKING_RATIO = (
    0.5  # of what gradients took, squares take as much where these are masked; 0.26 at most elsewhere (docs/lab-log.md)
)


@validated
def adaptive_ensemble(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel | SpatialTransforms,
    budget: str = "standard",
    batch_size: int | None = None,
) -> AttackResult:
    """The verdict behind every robust accuracy: the worst that an ensemble finds; values of 0 or more are fooled.

    budget: "quick" (19 gradients an image), "standard" (up to 229) or "thorough" (about 1,100, 2,000 squares and 5,000
    questions along the border; nothing is left out). Each attack meets only the survivors of those before, cheap ones first:
    1. climb the lead for one step, then for 3, and the cross-entropy for 15;
    2. ten random squares. Where they hurt more than half as much as those gradients, these are masked (or did nothing): then
       the same attacks straight through rounding and other steps, if the model takes any (`steps.straight_through`), and after
       all else 1,000 squares (5,000 more where these took as much as gradients did) and walks along the border;
    3. towards each of the nearest wrong classes, nine at most, for 10 steps. Left out are images that have kept more than 0.6 of
       their lead so far: of those that step 3 fooled, none had kept more than 0.46 (docs/lab-log.md);
    4. where 0.85 of the lead is gone, towards the three nearest for 40 steps.
    In L0: pixel by pixel. Spatial: a grid, then gradients. A model without gradients: through its steps, squares, walks.
    Deterministic: the same images get the same verdict. They are taken batch by batch, so that memory does not grow with them;
    where it runs out all the same, the batch is halved, with a warning.
    """
    if budget not in BUDGETS:
        raise InputError("--budget", f"must be one of {', '.join(BUDGETS)}", repr(budget))
    if batch_size is not None and batch_size < 1:
        raise InputError("batch_size", "must be 1 or more", batch_size)
    check_single_epsilon(threat_model)

    def judged(some: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return _evaluate_batch(model, some, labels[index.to(labels.device)], threat_model, BUDGETS.index(budget))

    found = map_batches(
        judged,
        images,
        batch_size=batch_size or precision.default_batch_size(images.device, images.shape[1:]),
        device=images.device,
    )
    return AttackResult(*(each.to(images.device) for each in found))


def _evaluate_batch(
    model: Model, images: Tensor, labels: Tensor, threat_model: ThreatModel | SpatialTransforms, level: int
) -> AttackResult:
    """The verdict on one batch."""
    hunt = EnsembleState(model, images, labels)
    if not bool(hunt.left.any()) or getattr(threat_model, "epsilon", 1) == 0:
        return hunt.found
    gradient, norm = has_gradient(model, images), getattr(threat_model, "norm", "")
    if isinstance(threat_model, SpatialTransforms):
        turns, moves, steps = ((7, 3, 0), (11, 5, 10), (31, 7, 30))[level]
        hunt.run(partial(spatial_attack, threat_model=threat_model, turns=turns, moves=moves, steps=steps, gradient=gradient))
    elif norm == "l0" and isinstance(threat_model, NormBall):
        pixels = partial(few_pixels, pixels=int(min(threat_model.epsilon, 1e9)))
        for tries in (20, 200, 1000)[: level + 1] if gradient else ():
            hunt.run(partial(pixels, tries=tries))
        before = hunt.value.clone()
        probe = hunt.run(partial(pixels, tries=MASKING_QUERIES, gradient=False)) > before if gradient else hunt.left
        hunt.run(partial(pixels, tries=(100, 400, 2000)[level], gradient=False), probe if level < 2 else None)
    elif gradient:
        _run_gradient_attacks(hunt, threat_model, level)
    else:
        _run_bpda(hunt, threat_model, level, hunt.left)
        hunt.run(partial(square_attack, threat_model=threat_model, queries=(200, 1000, 5000)[level]))
        _run_hop_skip_jump(hunt, threat_model, level, None)
    return hunt.found


def _run_gradient_attacks(hunt: EnsembleState, threat_model: ThreatModel, level: int) -> None:
    attacks = gradient_ensemble(threat_model, hunt.classes)
    for attack in attacks[:3]:
        hunt.run(attack)
    by_gradients = hunt.margin_lost()
    masked = (
        hunt.margin_lost(hunt.run(partial(square_attack, threat_model=threat_model, queries=MASKING_QUERIES)))
        > MASKING_RATIO * by_gradients
    )
    masked |= by_gradients < 1e-3  # nothing moved at all
    _run_bpda(hunt, threat_model, level, masked)
    if level:
        for attack in attacks[3:]:
            hunt.run(attack, hunt.margin_lost() >= MIN_MARGIN_LOST if level == 1 else None)
        for rank in range(1, min(hunt.classes, 4)):
            hunt.run(
                partial(rank_targeted_pgd, threat_model=threat_model, rank=rank, steps=40), hunt.margin_lost() >= NEAR_BOUNDARY
            )
    if level == 2:
        generator = torch.Generator(hunt.images.device).manual_seed(0)
        hunt.run(partial(apgd, threat_model=threat_model, steps=100, generator=generator))
        for rank in range(1, min(hunt.classes, 10)):
            hunt.run(partial(apgd, threat_model=threat_model, steps=100, loss="margin", rank=rank, generator=generator))
    so_far, who = hunt.margin_lost(), masked if level < 2 else None
    by_squares = hunt.margin_lost(
        hunt.run(partial(square_attack, threat_model=threat_model, queries=(200, 1000, 2000)[level]), who)
    )
    if level:
        hunt.run(partial(square_attack, threat_model=threat_model, queries=5000), masked & (by_squares >= so_far))
    _run_hop_skip_jump(hunt, threat_model, level, who)


def _run_bpda(hunt: EnsembleState, threat_model: ThreatModel, level: int, who: Tensor) -> None:
    """The same gradient attacks straight through rounding and other steps, where there are any."""
    if bool((who & hunt.left).any()) and (straight := straight_through(hunt.model, hunt.images)):
        for attack in gradient_ensemble(threat_model, hunt.classes)[: None if level else 3]:
            hunt.run(partial(_transfer_from, attack=attack, other=straight), who)


def _transfer_from(model: Model, images: Tensor, labels: Tensor, *, attack: Attack, other: Model) -> AttackResult:
    """An attack made on another model, judged on this one."""
    found = attack(other, images, labels)  # type: ignore[arg-type]
    with torch.no_grad():
        return AttackResult(found.images, -objectives.margin(objectives.logits(model, found.images), labels))


def _run_hop_skip_jump(hunt: EnsembleState, threat_model: ThreatModel, level: int, who: Tensor | None) -> None:
    """Along the border, from the nearest of all images of the hunt, where the ball is one of L2 or L-inf."""
    if isinstance(threat_model, NormBall) and threat_model.norm in ("l2", "linf"):
        hunt.run(
            partial(_hop_skip_jump_within, threat_model=threat_model, queries=(300, 1000, 5000)[level], starts=hunt.images), who
        )


def _hop_skip_jump_within(
    model: Model, images: Tensor, labels: Tensor, *, threat_model: NormBall, queries: int, starts: Tensor
) -> AttackResult:
    """`hop_skip_jump` as an attack within a ball: what it found outside counts for nothing."""
    assert isinstance(threat_model.epsilon, float | int)
    walked = hop_skip_jump(
        model, images, labels, norm=threat_model.norm, queries=queries, enough=threat_model.epsilon, starts=starts
    )
    with torch.no_grad():
        value = -objectives.margin(objectives.logits(model, walked.images), labels)
    return AttackResult(walked.images, torch.where(walked.margins <= threat_model.epsilon, value, -torch.inf))


def describe_ensemble(
    threat_model: ThreatModel | SpatialTransforms, classes: int, *, budget: str = "standard", gradient: bool = True
) -> str:
    """What `standard` does, in a few words, for tables: numbers are steps, changes tried for a pixel, or questions asked."""
    level, norm, rivals = BUDGETS.index(budget), getattr(threat_model, "norm", ""), min(classes, 10) - 1
    if isinstance(threat_model, SpatialTransforms):
        return "grid 7x3x3" if not level else "grid 11x5x5 + steps 10" if level == 1 else "grid 31x7x7 + steps 30"
    where = " where gradients are masked" if gradient and level < 2 else ""
    if norm == "l0":
        tries = ["pixel by pixel 20", "200", "1000"][: level + 1] if gradient else ["pixel by pixel"]
        return " + ".join([*tries, f"blind {(100, 400, 2000)[level]}{where}"])
    walk = f" and along the border {(300, 1000, 5000)[level]}" if norm in ("l2", "linf") else ""
    if not gradient:
        return f"without gradients: through steps, squares {(200, 1000, 5000)[level]}{walk}"
    towards = f"towards each of the {rivals} nearest classes 10"
    return " + ".join(
        [
            "lead 1 + lead 3 + loss 15",
            *([] if not level else [f"where {MIN_MARGIN_LOST} of the lead is gone: {towards}" if level == 1 else towards]),
            *([f"where {NEAR_BOUNDARY} is gone: the 3 nearest 40"] if level else []),
            *([f"adaptive 100, away and towards each of the {rivals}"] if level == 2 else []),
            f"through steps, squares {('200', '1000 to 5000', '2000 to 5000')[level]}{walk}{where}",
        ]
    )


def gradient_ensemble(threat_model: ThreatModel, classes: int) -> list[Attack]:
    """The gradient attacks of `standard`, cheap ones first, with nothing left out: for `worst_case`.

    The lead for one step (most of what a standard model has to lose) and for 3, the cross-entropy for 15, then towards each of
    the nearest wrong classes (nine at most) for 10.
    In L0: pixel by pixel.
    """
    if isinstance(threat_model, NormBall) and threat_model.norm == "l0":
        return [partial(few_pixels, pixels=int(min(threat_model.epsilon, 1e9)), tries=tries) for tries in (20, 200)]
    nearest = (partial(rank_targeted_pgd, threat_model=threat_model, rank=rank, steps=10) for rank in range(1, min(classes, 10)))
    climbs = [
        partial(pgd, threat_model=threat_model, steps=steps, loss=loss)
        for steps, loss in ((1, "margin"), (3, "margin"), (15, "cross_entropy"))
    ]
    return [*climbs, *nearest]
