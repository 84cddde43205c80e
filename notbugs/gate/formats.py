"""What an evaluation came to, and that as JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from notbugs import __version__
from notbugs.gate.decide import Comparison, Decision
from notbugs.gate.requirements import Requirement
from notbugs.runs.metadata import epsilon_text
from notbugs.runs.source import source
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
        "commit": source().commit,
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
        "requirements": [
            *map(_comparison, decision.comparisons),
            *(_unmeasured(*each, doubted=decision.doubted) for each in decision.unmeasured),
        ],
        "accuracies": [{name: _plain(cell) for name, cell in cells(row).items()} for row in evaluation.rows],
        "accepted_checks": [check.check for check in decision.accepted],
        "checks": [{name: _plain(cell) for name, cell in cells(check).items()} for check in evaluation.checks],
        "robustbench": robustbench_entries(
            evaluation.rows,
            evaluation.model,
            evaluation.dataset,
            unreliable=any(check.passed == "no" for check in evaluation.checks),
        ),
        "time_limit": None if limit is None else {**limit._asdict(), "left": list(limit.left)},
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


ROBUSTBENCH_NORMS = {"linf": "Linf", "l2": "L2"}  # of its leaderboards


def robustbench_entries(
    rows: Sequence[AuditAccuracyRow], model: str, dataset: str, *, unreliable: bool
) -> list[dict[str, object]]:
    """A row for each L-inf and L2 threat model with the names and units of RobustBench's model_info files, and what these lack.

    `external` is the robust accuracy by other attacks than AutoAttack, in percent. There is no `autoattack_acc`: it was not run.
    `link`, `authors`, `venue` and `architecture` are for whoever submits the model.

    Parameters
    ----------
    rows : sequence of AuditAccuracyRow
        With the clean accuracy.
    model, dataset : str
        As they were given; of a path its last part names the data set.
    unreliable : bool
        Whether a sanity check failed.
    """
    clean = next((row for row in rows if row.attack == "none"), None)
    dataset = Path(dataset).name
    return [
        {
            "threat_model_id": f"{dataset}/{ROBUSTBENCH_NORMS[row.norm]}/{epsilon_text(row.epsilon).replace('/', '_')}",
            "link": "",
            "name": model,
            "authors": "",
            "additional_data": None,
            "number_forward_passes": row.draws or 1,
            "dataset": dataset,
            "venue": "",
            "architecture": "",
            "eps": epsilon_text(row.epsilon),
            "clean_acc": f"{100 * clean.accuracy:.2f}",
            "reported": f"{100 * row.accuracy:.2f}",
            "external": f"{100 * row.accuracy:.2f}",
            "unreliable": unreliable,
            "attack": row.attack,
            "ci_low": f"{100 * row.ci_low:.2f}",
            "ci_high": f"{100 * row.ci_high:.2f}",
            "n": row.n,
            "seed": 0,  # of every random choice of an ensemble: docs/attacks.md
        }
        for row in rows
        if clean is not None and row.norm in ROBUSTBENCH_NORMS and row.target is None and row.attack != "none"
    ]


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
        "more_images_may_decide": each.more_images_may_decide,
    }


def _unmeasured(requirement: Requirement, threat: str, *, doubted: bool) -> dict[str, object]:
    nothing = {"accuracy": None, "ci_low": None, "ci_high": None, "n": 0}
    state = {"state": "not trusted" if doubted else "inconclusive", "more_images_may_decide": not doubted}
    return {"requirement": requirement.text, "threat": threat, "at_least": requirement.share, **nothing, **state}


def _plain(cell: object) -> object:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
