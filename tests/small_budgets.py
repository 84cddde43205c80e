"""Small attack ensembles: one image whose gradients look masked costs thousands of queries, one after the other.

The further gradient attacks are fewer and shorter, too, but not in `tests/attacks`. What depends on the numbers asks for the
fixture `whole_budgets`; `tests/attacks/test_budgets.py` checks the numbers themselves.
"""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from notbugs.attacks import AttackBudget, budgets, ensemble, further
from notbugs.runs import workers
from notbugs.runs.workers import _start_worker as plain_start_worker


def with_queries(count: int) -> Mapping[str, AttackBudget]:
    """The budgets with so many queries of each black-box attack, and a fifth of the APGD steps and candidates of `thorough`."""
    return {
        name: replace(
            budget,
            apgd_steps=min(20, budget.apgd_steps),
            square_queries=count,
            extra_square_queries=min(count, budget.extra_square_queries),
            square_queries_without_gradients=2 * count,
            hop_skip_jump_queries=2 * count,
            ranked_pixel_candidates=tuple(min(200, each) for each in budget.ranked_pixel_candidates),
            random_pixel_candidates=min(400, budget.random_pixel_candidates),
            random_pixel_exchanges=min(1, budget.random_pixel_exchanges),
            pixel_starts=min(2, budget.pixel_starts),
            angles=min(15, budget.angles),
        )
        for name, budget in budgets.BUDGETS.items()
    }


BUDGETS = with_queries(50)
FEW = tuple(
    each._replace(steps=min(10, each.steps)) if not each.rank else each._replace(steps=3)
    for each in budgets.FURTHER_ATTACKS[:12]
    if each.rank <= 3
)
SMALL = {
    ensemble: {"TARGET_CLASSES": 3, "TARGETED_STEPS": 3},
    further: {"FURTHER_ATTACKS": FEW, "REFINED_STEPS": 10},
}


def use() -> None:
    """In this process and in the scheduler's processes that it starts."""
    shorten()
    workers._start_worker = start_worker


def shorten() -> None:
    """In this process alone."""
    ensemble.BUDGETS = BUDGETS
    for module, values in SMALL.items():
        for name, value in values.items():
            setattr(module, name, value)


def restore(patch: pytest.MonkeyPatch) -> None:
    """Constants of the ensemble as they are."""
    for module, values in SMALL.items():
        for name in values:
            patch.setattr(module, name, getattr(budgets, name))


def start_worker() -> None:
    """Starts a worker process of the scheduler as ever, but with small budgets."""
    shorten()
    plain_start_worker()
