"""Small attack ensembles: one image whose gradients look masked costs thousands of queries, one after the other.

The targeted attacks and the long ones are shorter, too, but not in `tests/attacks`. What depends on the numbers asks for the
fixture `whole_budgets`; `tests/attacks/test_budgets.py` checks the numbers themselves.
"""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from notbugs.attacks import AttackBudget, budgets, ensemble
from notbugs.runs import workers
from notbugs.runs.workers import _start_worker as plain_start_worker


def with_queries(count: int) -> Mapping[str, AttackBudget]:
    """The budgets with so many queries of each black-box attack, and a fifth of the APGD steps and candidates of `thorough`."""
    return {
        name: replace(
            budget,
            apgd_steps=min(20, budget.apgd_steps),
            restarts=min(6, budget.restarts),
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
SMALL = {"TARGET_CLASSES": 3, "TARGETED_STEPS": 3, "LONG_TARGET_CLASSES": 1, "LONG_STEPS": 10, "REFINED_STEPS": 10}


def use() -> None:
    """In this process and in the scheduler's processes that it starts."""
    shorten()
    workers._start_worker = start_worker


def shorten() -> None:
    """In this process alone."""
    ensemble.BUDGETS = BUDGETS
    for name, value in SMALL.items():
        setattr(ensemble, name, value)


def restore(patch: pytest.MonkeyPatch) -> None:
    """Constants of the ensemble as they are."""
    for name in SMALL:
        patch.setattr(ensemble, name, getattr(budgets, name))


def start_worker() -> None:
    """Starts a worker process of the scheduler as ever, but with small budgets."""
    shorten()
    plain_start_worker()
