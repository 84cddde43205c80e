"""Rows of an audit, and what is required of it: `from gate.conftest import ...`."""

from collections.abc import Sequence

from notbugs.gate import Evaluation, TimeLimit, decide, parse_requirement
from notbugs.runs.tables.audit import AuditAccuracyRow, CheckRow
from notbugs.stats import wilson_interval


def accuracy(correct: int, n: int = 100, threat: str = "l2 0.5") -> AuditAccuracyRow:
    low, high = wilson_interval(correct, n)
    return AuditAccuracyRow(
        threat=threat, norm="l2", epsilon=0.5, correct=correct, n=n, accuracy=correct / n, ci_low=low, ci_high=high,
        attack="ensemble-standard v6", correct_by_minimum_norm=None, correct_8bit=None,
    )  # fmt: skip


def check(passed: str, name: str = "gradients", consequence: str | None = None) -> CheckRow:
    return CheckRow(
        check=name, passed=passed, observed="it was seen", rationale="Why.", fix="Mend it.", threat="l2 0.5", n=100,
        consequence=consequence,
    )  # fmt: skip


def evaluation(
    rows: Sequence[AuditAccuracyRow],
    checks: Sequence[CheckRow] = (),
    required: Sequence[tuple[str, str]] = (("l2:0.5=30%", "l2 0.5"),),
    limit: TimeLimit | None = None,
    model: str = "m.onnx",
) -> Evaluation:
    requirements = [(parse_requirement(text), threat) for text, threat in required]
    return Evaluation(
        command="notbugs attack m.onnx digits",
        model=model,
        dataset="digits",
        budget="standard",
        images=100,
        conditions=(),
        rows=rows,
        checks=checks,
        decision=decide(rows, checks, requirements, limit),
        seconds=1.5,
        started="2026-11-27T10:00:00+00:00",
    )
