"""The scheduler's processes as they are: jobs of these tests attack nothing, so they need not import the attacks."""

import pytest
import small_budgets

from notbugs.runs import scheduler


@pytest.fixture(autouse=True)
def _plain_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_start_worker", small_budgets.plain_start_worker)
