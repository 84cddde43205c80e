"""The budgets of the attack ensembles, as data, and the names that stand for them in tables.

docs/attacks.md defines the ensembles with the same numbers. Any change here is a new `ENSEMBLE_VERSION`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from notbugs.errors import InputError

ENSEMBLE_VERSION = "v6"
GRADIENT_ENSEMBLE = f"gradient-ensemble {ENSEMBLE_VERSION}"  # `UNTARGETED_ATTACKS` alone

UNTARGETED_ATTACKS = ((1, "margin"), (3, "margin"), (15, "cross_entropy"))  # PGD: steps and loss, in order; the last one shrinks
TARGET_CLASSES = 9  # targeted attacks: at most so many of the wrong classes with the highest clean logits
TARGETED_STEPS = 10
ATTACKS_ON_TRIAL = 4  # of `FURTHER_ATTACKS`: from then on an image goes on only if one of the next may misclassify it
COMPARED_ATTACKS = 5  # the best ones on an image, whose difference tells how much more the next ones may find
DIFFERENCES = 1.25  # so much more
PROMISING = 0.5  # share of what the best attack took that one step toward a class must take for more steps toward it
PIXEL_START_CANDIDATES = 20  # of the searches from random pixels
PIXEL_STARTS_ON_ALL = 4  # then only on images that lost this share of their margin
PIXEL_START_MARGIN_LOST = 0.5
# Share of the margin that an image must have lost for it, first step over epsilon, and whether steps in L1 change few values
REFINED = ((0.95, 0.2, False), (0.99, 1.0, False), (0.99, 0.2, True))
REFINED_STEPS = 100
MASKING_QUERIES = 10  # random queries that the gradient attacks must beat
MASKING_RATIO = 0.5  # Square Attack took at least this share of what gradients took where they are masked, 0.26 at most elsewhere
MASKING_MIN_MARGIN_LOST = 1e-3  # less than this by gradients: they are masked, too


class FurtherAttack(NamedTuple):
    """One of the gradient attacks after `UNTARGETED_ATTACKS`, on the images that are still classified correctly.

    Attributes
    ----------
    steps : int
    loss : {"margin", "cross_entropy", "dlr"}
    rank : int
        0: untargeted. Else by way of the wrong class with the rank-th highest clean logit.
    random_start, shrink : bool
        As `generator` and `shrink` of `attacks.pgd`.
    auto : bool
        APGD in place of PGD.
    """

    steps: int
    loss: str = "margin"
    rank: int = 0
    random_start: bool = False
    shrink: bool = True
    auto: bool = False


def _targeted(*ranks: int) -> tuple[FurtherAttack, ...]:
    return tuple(FurtherAttack(TARGETED_STEPS, rank=rank) for rank in ranks)


# In this order, chosen on 21 cases of four data sets for what each still misclassifies (docs/lab-log.md)
FURTHER_ATTACKS = (
    FurtherAttack(20, random_start=True),
    *_targeted(2, 3, 1),
    FurtherAttack(20, "cross_entropy", random_start=True),
    FurtherAttack(20, "dlr", random_start=True),
    *_targeted(4, 5),
    FurtherAttack(40, random_start=True, shrink=False),
    FurtherAttack(40, "cross_entropy", random_start=True),
    FurtherAttack(40, "cross_entropy", random_start=True, shrink=False),
    FurtherAttack(40, random_start=True),
    *_targeted(6, 7),
    FurtherAttack(40, "dlr", random_start=True, shrink=False),
    FurtherAttack(40, random_start=True),
    *_targeted(8, 9),
    FurtherAttack(40, random_start=True, shrink=False),
    FurtherAttack(40, "cross_entropy", random_start=True, shrink=False),
    FurtherAttack(40, "cross_entropy", random_start=True),
    *(FurtherAttack(40, loss) for loss in ("margin", "dlr", "cross_entropy")),
    *(FurtherAttack(30, rank=rank, random_start=True, auto=True) for rank in (1, 2, 3)),
)


@dataclass(frozen=True)
class AttackBudget:
    """How much an ensemble spends on one image; candidates are per pixel, queries and steps per attack.

    Parameters
    ----------
    further_margin_lost : float or None
        Share of the clean margin that an image must have lost before it gets `FURTHER_ATTACKS`. 0: all images. None: none of
        these, nor targeted attacks by BPDA.
    margin_left : float or None
        After the first `ATTACKS_ON_TRIAL` of these an image goes on while it has at most so much of its margin left, beyond
        `DIFFERENCES` times the difference between the best attack and the fifth best.
    apgd_steps : int
        Of APGD-CE and of APGD at each target class. 0: no APGD.
    square_queries, extra_square_queries : int
        The extra ones go to masked images on which Square Attack did as well as gradients.
    square_queries_without_gradients : int
        For models without gradients.
    hop_skip_jump_queries : int
        In L2 and L-inf.
    black_box_on_all : bool
        Whether black-box attacks get all images, not only those whose gradients look masked.
    ranked_pixel_candidates : tuple of int
        L0: candidates ranked by gradients, one attack for each entry.
    random_pixel_candidates : int
        L0: random candidates.
    pixel_exchanges, random_pixel_exchanges : int
        L0: rounds of exchanges at most, of the first attack by gradients and those from random starts, and of the one with random
        candidates.
    pixel_starts : int
        L0 with several pixels: searches from random pixels.
    angles, translations, spatial_steps : int
        Rotations and translations: the grid, and the gradient steps after it.
    minimum_norm_rounds : int
        Of the minimum-norm attack of an audit, ten gradients each.
    minimum_norm_queries : int
        Of HopSkipJump instead, for models without gradients.
    """

    further_margin_lost: float | None
    margin_left: float | None
    apgd_steps: int
    square_queries: int
    extra_square_queries: int
    square_queries_without_gradients: int
    hop_skip_jump_queries: int
    black_box_on_all: bool
    ranked_pixel_candidates: tuple[int, ...]
    random_pixel_candidates: int
    pixel_exchanges: int
    random_pixel_exchanges: int
    pixel_starts: int
    angles: int
    translations: int
    spatial_steps: int
    minimum_norm_rounds: int
    minimum_norm_queries: int


# 0.4 and 0.02: where fewer gradients would have misclassified fewer images of the models of `FURTHER_ATTACKS` (docs/lab-log.md)
BUDGETS: Mapping[str, AttackBudget] = {
    "quick": AttackBudget(
        further_margin_lost=None,
        margin_left=None,
        apgd_steps=0,
        square_queries=200,
        extra_square_queries=0,
        square_queries_without_gradients=200,
        hop_skip_jump_queries=300,
        black_box_on_all=False,
        ranked_pixel_candidates=(20,),
        random_pixel_candidates=100,
        pixel_exchanges=0,
        random_pixel_exchanges=0,
        pixel_starts=0,
        angles=7,
        translations=3,
        spatial_steps=0,
        minimum_norm_rounds=4,
        minimum_norm_queries=500,
    ),
    "standard": AttackBudget(
        further_margin_lost=0.4,
        margin_left=0.02,
        apgd_steps=0,
        square_queries=1000,
        extra_square_queries=5000,
        square_queries_without_gradients=1000,
        hop_skip_jump_queries=1000,
        black_box_on_all=False,
        ranked_pixel_candidates=(20, 200),
        random_pixel_candidates=400,
        pixel_exchanges=10,
        random_pixel_exchanges=3,
        pixel_starts=16,
        angles=11,
        translations=5,
        spatial_steps=10,
        minimum_norm_rounds=10,
        minimum_norm_queries=2000,
    ),
    "thorough": AttackBudget(
        further_margin_lost=0.0,
        margin_left=0.15,
        apgd_steps=100,
        square_queries=2000,
        extra_square_queries=5000,
        square_queries_without_gradients=5000,
        hop_skip_jump_queries=5000,
        black_box_on_all=True,
        ranked_pixel_candidates=(20, 200, 1000),
        random_pixel_candidates=2000,
        pixel_exchanges=10,
        random_pixel_exchanges=3,
        pixel_starts=64,
        angles=31,
        translations=7,
        spatial_steps=30,
        minimum_norm_rounds=20,
        minimum_norm_queries=10000,
    ),
}


def check_budget(budget: str, parameter: str = "budget") -> None:
    """Raises InputError unless `budget` is a key of `BUDGETS`."""
    if budget not in BUDGETS:
        raise InputError(parameter, f"must be one of {', '.join(BUDGETS)}", repr(budget))


def ensemble_name(budget: str) -> str:
    """Name of an ensemble in tables; docs/attacks.md defines it.

    Parameters
    ----------
    budget : {"quick", "standard", "thorough"}

    Examples
    --------
    >>> ensemble_name("standard")
    'ensemble-standard v6'
    """
    check_budget(budget)
    return f"ensemble-{budget} {ENSEMBLE_VERSION}"
