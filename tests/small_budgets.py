"""Small attack ensembles: one image whose gradients look masked costs thousands of queries, one after the other.

What depends on the numbers asks for the fixture `whole_budgets`; `tests/attacks/test_budgets.py` checks the numbers themselves.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from notbugs.attacks import AttackBudget, budgets, ensemble
from notbugs.runs import scheduler
from notbugs.runs.scheduler import _start_worker as plain_start_worker


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
            angles=min(15, budget.angles),
        )
        for name, budget in budgets.BUDGETS.items()
    }


BUDGETS = with_queries(50)


def use() -> None:
    """In this process and in the scheduler's processes that it starts."""
    ensemble.BUDGETS, scheduler._start_worker = BUDGETS, start_worker


def start_worker(queue: Any) -> None:
    """Starts a worker process of the scheduler as ever, but with small budgets."""
    ensemble.BUDGETS = BUDGETS
    plain_start_worker(queue)
