"""The further gradient attacks of the ensemble, on the images that one of them may still misclassify."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from notbugs.attacks.budgets import (
    ATTACKS_ON_TRIAL,
    COMPARED_ATTACKS,
    DIFFERENCES,
    FURTHER_ATTACKS,
    PROMISING,
    REFINED,
    REFINED_STEPS,
    TARGETED_STEPS,
    AttackBudget,
    FurtherAttack,
)
from notbugs.attacks.combine import EnsembleState
from notbugs.attacks.pgd import apgd, pgd, rank_targeted_pgd, refine
from notbugs.search import Attack, ThreatModel


def run_further_attacks(state: EnsembleState, threat_model: ThreatModel, budget: AttackBudget) -> EnsembleState:
    """`FURTHER_ATTACKS`, one after the other, and then steps from the best image so far.

    Parameters
    ----------
    state : EnsembleState
        After `UNTARGETED_ATTACKS`.
    threat_model : ThreatModel
    budget : AttackBudget

    Returns
    -------
    EnsembleState
    """
    if budget.further_margin_lost is None or budget.margin_left is None:
        return state
    generator = torch.Generator(state.images.device).manual_seed(0)
    lost = [state.margin_lost()]  # by each attack, those before these as one
    untried: dict[int, Tensor] = {}  # by rank, the images that were not attacked by way of this class
    for each in FURTHER_ATTACKS:
        if each.rank < state.classes:
            subset = lost[0] >= budget.further_margin_lost
            if len(lost) > ATTACKS_ON_TRIAL:
                subset = subset & _may_succeed(state.margin_lost(), lost, budget.margin_left)
            state = state.run(_attack(each, threat_model, state.classes, generator), subset)
            lost.append(state.margin_lost(state.last))
            if each.rank and not each.auto:
                untried[each.rank] = (lost[0] >= budget.further_margin_lost) & lost[-1].isneginf()
    state = _run_untried_classes(state, threat_model, untried)
    for margin_lost, size, sparse in REFINED:
        last = partial(refine, threat_model=threat_model, steps=REFINED_STEPS, size=size, sparse=sparse)
        state = state.run(last, state.margin_lost() >= margin_lost, from_best=True)
    return state


def count_further_attacks(budget: AttackBudget, classes: int) -> int:
    """How many attacks `run_further_attacks` runs."""
    if budget.further_margin_lost is None or budget.margin_left is None:
        return 0
    count = sum(each.rank < classes for each in FURTHER_ATTACKS)
    return count + 2 * sum(0 < each.rank < classes and not each.auto for each in FURTHER_ATTACKS) + len(REFINED)


def _run_untried_classes(state: EnsembleState, threat_model: ThreatModel, untried: Mapping[int, Tensor]) -> EnsembleState:
    """One step by way of each class that was none so far, then more by way of the one that took most, if that is not little.

    That attacks agree says nothing of classes that none of them led to: of a linear model they all find the same maximum.

    Parameters
    ----------
    state : EnsembleState
    threat_model : ThreatModel
    untried : mapping of int to Tensor, bool (N,)
        By the rank of a class, the images that were not attacked by way of it.
    """
    first = dict[int, Tensor]()
    for rank, images in untried.items():
        state = state.run(partial(rank_targeted_pgd, threat_model=threat_model, rank=rank, steps=1), images)
        first[rank] = state.margin_lost(state.last)
    if not first:
        return state
    most, place = torch.stack([*first.values()]).max(dim=0)
    promising = most >= PROMISING * state.margin_lost()
    for number, rank in enumerate(first):
        attack = partial(rank_targeted_pgd, threat_model=threat_model, rank=rank, steps=TARGETED_STEPS, shrink=True)
        state = state.run(attack, promising & (place == number))
    return state


def _may_succeed(best: Tensor, lost: list[Tensor], margin_left: float) -> Tensor:
    """Whether what is left of the margin is small, or the attacks so far differ by as much: (N,).

    Where the best ones agree they have found the maximum; where they differ another one may find more.

    Parameters
    ----------
    best : Tensor, (N,)
        Share of the margin that is lost.
    lost : list of Tensor, (N,)
        By each attack; -inf where it did not run.
    margin_left : float
    """
    compared = torch.stack(lost).topk(min(COMPARED_ATTACKS, len(lost)), dim=0).values[-1]
    return 1 - best <= DIFFERENCES * (best - compared) + margin_left


def _attack(each: FurtherAttack, threat_model: ThreatModel, classes: int, generator: torch.Generator) -> Attack:
    """The attack as a function."""
    start = generator if each.random_start else None
    loss = "margin" if each.loss == "dlr" and classes < 3 else each.loss  # the DLR needs three classes
    if each.auto:
        attack = partial(apgd, loss=loss, rank=each.rank, generator=start)
    elif each.rank:
        attack = partial(rank_targeted_pgd, rank=each.rank)
    else:
        attack = partial(pgd, loss=loss, generator=start)
    return partial(attack, threat_model=threat_model, steps=each.steps, shrink=each.shrink)
