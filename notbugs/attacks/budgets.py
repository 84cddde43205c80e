"""The budgets of the attack ensembles, as data, and the names that stand for them in tables.

docs/attacks.md defines the ensembles with the same numbers. Any change here is a new `ENSEMBLE_VERSION`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from notbugs.errors import InputError

ENSEMBLE_VERSION = "v4"
GRADIENT_ENSEMBLE = f"gradient-ensemble {ENSEMBLE_VERSION}"  # `UNTARGETED_ATTACKS` alone

UNTARGETED_ATTACKS = ((1, "margin"), (3, "margin"), (15, "cross_entropy"))  # PGD: steps and loss, in order; the last one shrinks
TARGET_CLASSES = 9  # targeted attacks: at most so many of the wrong classes with the highest clean logits
TARGETED_STEPS = 10
LONG_STEPS = 40
LONG_LOSSES = ("cross_entropy", "margin", "dlr")  # untargeted, in this order, from the clean image and then from random starts
LONG_TARGET_CLASSES = 3
PIXEL_START_CANDIDATES = 20  # of the searches from random pixels
PIXEL_STARTS_ON_ALL = 4  # then only on images that lost this share of their margin
PIXEL_START_MARGIN_LOST = 0.5
REFINED_MARGIN_LOST = 0.95
REFINED_STEPS = 100
MASKING_QUERIES = 10  # random queries that the gradient attacks must beat
MASKING_RATIO = 0.5  # Square Attack took at least this share of what gradients took where they are masked, 0.26 at most elsewhere
MASKING_MIN_MARGIN_LOST = 1e-3  # less than this by gradients: they are masked, too


@dataclass(frozen=True)
class AttackBudget:
    """How much an ensemble spends on one image; candidates are per pixel, queries and steps per attack.

    Parameters
    ----------
    targeted_margin_lost : float or None
        Share of the clean margin that an image must have lost before it gets the targeted attacks. 0: all images. None: no
        targeted attacks, neither these nor by BPDA.
    long_margin_lost : float or None
        The same for the long attacks, targeted and not, and for `restarts`.
    restarts : int
        Long attacks from so many random starts.
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

    targeted_margin_lost: float | None
    long_margin_lost: float | None
    restarts: int
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


# 0.4: of the images that the targeted attacks misclassified, all had lost more than 0.54 of their margin; 0.85: of those that the
# long ones misclassified, all had lost 0.99 (docs/lab-log.md)
BUDGETS: Mapping[str, AttackBudget] = {
    "quick": AttackBudget(
        targeted_margin_lost=None,
        long_margin_lost=None,
        restarts=0,
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
        targeted_margin_lost=0.4,
        long_margin_lost=0.85,
        restarts=12,
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
        targeted_margin_lost=0.0,
        long_margin_lost=0.85,
        restarts=12,
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
    'ensemble-standard v4'
    """
    check_budget(budget)
    return f"ensemble-{budget} {ENSEMBLE_VERSION}"
