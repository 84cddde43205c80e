"""The scheduler's processes as they are: jobs of these tests attack nothing, so they need not import the attacks."""

import pytest
import small_budgets

from notbugs.runs import workers


@pytest.fixture(autouse=True)
def _plain_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_start_worker", small_budgets.plain_start_worker)
