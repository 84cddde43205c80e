"""What an evaluation came to, and that as JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from notbugs import __version__
from notbugs.gate.decide import Comparison, Decision
from notbugs.runs.tables.audit import AuditAccuracyRow, CheckRow
from notbugs.runs.tables.row import cells

FORMAT = 1  # of the JSON


@dataclass(frozen=True)
class Evaluation:
    """One classifier evaluated by `notbugs attack`.

    Attributes
    ----------
    command, model, dataset : str
        As they were given.
    budget : str
        Of the attack ensemble.
    images : int
        Test images that were to be attacked.
    conditions : sequence of str
        What restricts images and perturbations.
    rows : sequence of AuditAccuracyRow
    checks : sequence of CheckRow
    decision : Decision
    seconds : float
        That the audit took.
    started : str
        Date and time in UTC, as ISO 8601 has them.
    """

    command: str
    model: str
    dataset: str
    budget: str
    images: int
    conditions: Sequence[str]
    rows: Sequence[AuditAccuracyRow]
    checks: Sequence[CheckRow]
    decision: Decision
    seconds: float
    started: str


def as_json(evaluation: Evaluation) -> str:
    """An evaluation as JSON, as docs/gate.md describes it. What is not finite is null: JSON has no infinity."""
    decision, limit = evaluation.decision, evaluation.decision.time_limit
    found = {
        "format": FORMAT,
        "notbugs": __version__,
        "command": evaluation.command,
        "started": evaluation.started,
        "seconds": evaluation.seconds,
        "model": evaluation.model,
        "dataset": evaluation.dataset,
        "budget": evaluation.budget,
        "conditions": list(evaluation.conditions),
        "images": evaluation.images,
        "outcome": decision.outcome,
        "exit_code": decision.exit_code,
        "reasons": decision.lines,
        "requirements": [_comparison(each) for each in decision.comparisons],
        "accuracies": [{name: _plain(cell) for name, cell in cells(row).items()} for row in evaluation.rows],
        "checks": [{name: _plain(cell) for name, cell in cells(check).items()} for check in evaluation.checks],
        "time_limit": None if limit is None else {**limit._asdict(), "left": list(limit.left)},
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _comparison(each: Comparison) -> dict[str, object]:
    return {
        "requirement": each.requirement.text,
        "threat": each.row.threat,
        "at_least": each.requirement.share,
        "accuracy": each.row.accuracy,
        "ci_low": each.row.ci_low,
        "ci_high": each.row.ci_high,
        "n": each.row.n,
        "state": each.state,
    }


def _plain(cell: object) -> object:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
