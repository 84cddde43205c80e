"""What the terminal shows of an attacked classifier."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from notbugs.cli.console import accuracy_line, print_conditions
from notbugs.cli.say import say

if TYPE_CHECKING:
    from notbugs.gate import Evaluation
    from notbugs.runs.folder import RunFolder
    from notbugs.runs.tables.audit import CheckRow


def print_audit(record: "RunFolder", evaluation: "Evaluation", *, verbose: bool = False) -> None:
    """Failed checks first, then one line per threat model. verbose: all checks, and the accuracy of each class."""
    from notbugs.runs.tables.audit import OVERESTIMATED

    for check in evaluation.checks:
        if check.passed == "no":
            say(f"WARNING: {check.consequence or OVERESTIMATED}: {check.check}: {check.observed}")
            say(f"  {check.rationale}", f"  {check.fix}")
        elif verbose:
            say(f"sanity check {check.check}: {'passed' if check.passed == 'yes' else 'not run'}: {check.observed}")
    if limit := evaluation.decision.time_limit:
        say(f"WARNING: the time limit ended the attack: {limit.sentence}")
    metadata = record.audit()
    if metadata.missing_gradient:
        say(f"without gradients: {metadata.missing_gradient}")
    if metadata.draws > 1:
        say(f"random model: gradients and accuracies are means of {metadata.draws} draws")
    print_conditions(metadata.conditions)
    rows = evaluation.rows
    width = max(14, *(len(row.threat) for row in rows)) if rows else 14
    for row in rows:
        interval = row.accuracy, row.ci_low, row.ci_high
        say(accuracy_line(row.threat, *interval, row.correct, row.n, row.attack, row.correct_8bit, width))
        if row.correct_by_ensemble is not None:
            more = row.correct_by_ensemble - row.correct
            say(f"  the ensemble alone leaves {row.correct_by_ensemble} of {row.n}; attacks of your own misclassify {more} more")
        if row.success_rate is not None and row.success_ci_low is not None and row.success_ci_high is not None:
            rate = f"{100 * row.success_rate:.1f} %  [{100 * row.success_ci_low:.1f}, {100 * row.success_ci_high:.1f}]"
            stored = "" if row.reached_8bit is None else f" (stored in 8 bits: {row.reached_8bit})"
            kind = "without an attack classified as their target" if row.attack == "none" else "targeted success rate"
            say(f"  {kind} {rate}  {row.reached} of {row.n}{stored}")
        if row.not_finite:
            say(f"  of these misclassified: the logits of {row.not_finite} perturbed images are NaN or infinite")
    if verbose:
        _print_classes(record)
    elif evaluation.checks:
        say(_counted(evaluation.checks))


def _counted(checks: Sequence["CheckRow"]) -> str:
    """How many sanity checks passed, failed, and were not made."""
    count = Counter(check.passed for check in checks)
    kinds = (("passed", count["yes"]), ("failed", count["no"]), ("not made (--verbose: why)", count["not run"]))
    return f"sanity checks: {', '.join(f'{number} {kind}' for kind, number in kinds if number or kind == 'passed')}"


def _print_classes(record: "RunFolder") -> None:
    """The accuracy of each class, threat model by threat model."""
    from notbugs.runs.tables.audit import ClassAccuracyRow

    for row in record.rows(ClassAccuracyRow):
        interval = f"[{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
        say(f"{row.threat}, class {row.label}: {100 * row.accuracy:.1f} %  {interval}  {row.correct} of {row.n}")
