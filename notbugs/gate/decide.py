"""The decision: each requirement against the lower end of its interval, and whether the accuracies can be trusted at all."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from notbugs.errors import InputError, printable
from notbugs.exit_codes import BELOW, NOT_TRUSTED, PASSED
from notbugs.gate.requirements import OPTION, Requirement, images_to_show
from notbugs.runs.tables.audit import OVERESTIMATED, AuditAccuracyRow, CheckRow

Outcome = Literal["passed", "below", "not trusted"]
State = Literal["met", "below", "inconclusive", "not trusted"]
EXIT_CODES: dict[Outcome, int] = {"passed": PASSED, "below": BELOW, "not trusted": NOT_TRUSTED}
LATER = "give more time, or attack fewer images: --time-limit, --images"
MORE_TIME = "give more time: --time-limit"  # fewer images would make the interval wider


class TimeLimit(NamedTuple):
    """How far an audit came that its time limit ended.

    Attributes
    ----------
    seconds : float
        The limit.
    attacked, images : int
        Images that went through all attacks, and all that were to be attacked.
    left : tuple of str
        Stages that are not done.
    checks : bool
        Whether the sanity checks are done.
    """

    seconds: float
    attacked: int
    images: int
    left: tuple[str, ...]
    checks: bool

    @property
    def sentence(self) -> str:
        """What was reached, and what was not."""
        whole = ", each by all attacks of the ensemble" if self.attacked else ""
        checks = "done" if self.checks else "not done"
        return f"{self.attacked:,} of {self.images:,} images attacked in {self.seconds:g} s{whole}; sanity checks {checks}"


class Comparison(NamedTuple):
    """One requirement and what was measured: met if the lower end of the interval reaches it.

    inconclusive: the time limit left so few images that the interval holds the required accuracy. not trusted: a sanity check
    failed that puts every accuracy in doubt. available: images that could be attacked, 0 if not known.
    """

    requirement: Requirement
    row: AuditAccuracyRow
    state: State
    available: int = 0

    @property
    def line(self) -> str:
        """The comparison in one line: parameter, rule, got, remedy."""
        row, share = self.row, f"{100 * self.requirement.share:g} %"
        kind = "clean accuracy" if row.attack == "none" else f"robust accuracy within {row.threat}"
        measured = f"accuracy {_percent(row.accuracy)}, {row.correct} of {row.n} images, attack: {row.attack}"
        if self.state == "not trusted":
            rule = f"the {kind} must be trustworthy to be compared with {share}"
            return str(InputError(OPTION, rule, measured, "first mend what the sanity check names"))
        low = _percent(row.ci_low)
        if self.state != "met" and round(row.ci_low, 3) >= self.requirement.share:  # 29.97 % is no 30.0 %
            low = f"{math.floor(1e4 * row.ci_low) / 100:.2f} %"
        rule = f"the lower end of the 95 % CI of the {kind} must be {share} or more"
        return str(InputError(OPTION, rule, f"{low} ({measured})", self.remedy))

    @property
    def more_images_may_decide(self) -> bool:
        """Whether it is not met and the interval contains the required share: the accuracy itself may be high enough."""
        return self.state in ("below", "inconclusive") and self.row.ci_high >= self.requirement.share

    @property
    def remedy(self) -> str:
        """What to do if it is not met; "" if it is, or if it cannot be trusted."""
        if self.state in ("met", "not trusted"):
            return ""
        if self.state == "inconclusive":
            return MORE_TIME
        if self.more_images_may_decide:
            images = images_to_show(self.row.correct / self.row.n, self.requirement.share)
            ends = f"the interval ends at {_percent(self.row.ci_high)}"
            if images and 0 < self.available < images:
                few = f"DATASET has {self.available:,}, with which this cannot be decided: add test images, or require less"
                return f"{ends}: about {images:,} images would decide if the accuracy stays; {few}"
            return f"{ends}: more images may decide" + (f", about {images:,} if the accuracy stays" if images else "")
        if self.row.attack == "none":
            return "train longer, or on more images"
        how = ": notbugs train --loss adversarial" if self.row.norm in ("l2", "linf") else ""
        return f"train a more robust model{how}"


@dataclass(frozen=True)
class Decision:
    """What a pipeline does with a classifier.

    Attributes
    ----------
    outcome : {"passed", "below", "not trusted"}
    comparisons : tuple of Comparison
        Requirements within whose threat model something was measured.
    unmeasured : tuple of (Requirement, str)
        Requirements, each with its threat model, of which the time limit left no image.
    failed : tuple of CheckRow
        Sanity checks that failed, without those that were accepted.
    time_limit : TimeLimit or None
        Where the time limit ended the audit.
    required : bool
        Whether anything is required.
    accepted : tuple of CheckRow
        Sanity checks that failed, and whose failure was accepted beforehand.
    """

    outcome: Outcome
    comparisons: tuple[Comparison, ...]
    unmeasured: tuple[tuple[Requirement, str], ...]
    failed: tuple[CheckRow, ...]
    time_limit: TimeLimit | None
    required: bool
    accepted: tuple[CheckRow, ...] = ()

    @property
    def doubted(self) -> bool:
        """Whether a sanity check failed that puts every accuracy in doubt."""
        return any(map(_doubts_all, self.failed))

    @property
    def exit_code(self) -> int:
        """0 passed, or nothing is required and something was measured; 1 below; 3 not trusted."""
        nothing_measured = self.time_limit is not None and not self.time_limit.attacked
        return EXIT_CODES[self.outcome] if self.required or nothing_measured else PASSED

    @property
    def lines(self) -> list[str]:
        """Why it is not passed, one line each: parameter, rule, got, remedy. First what puts every accuracy in doubt."""
        found = [check_line(check) for check in sorted(filter(_doubts_all, self.failed), key=_cause_first)]
        found += [each.line for each in self.comparisons if each.state != "met"]
        found += [check_line(check) for check in self.failed if not _doubts_all(check)]
        return [*found, self.time_limit_line] if self.time_limit_line else found

    @property
    def time_limit_line(self) -> str:
        """That the time limit was too short to decide, in one line; "" if it was not: a check that failed needs no more time."""
        undecided = bool(self.unmeasured) or any(each.state == "inconclusive" for each in self.comparisons)
        if not self.time_limit or self.outcome != "not trusted" or (self.time_limit.checks and not undecided):
            return ""
        remedy = MORE_TIME if self.time_limit.attacked else LATER
        return str(InputError("--time-limit", "must be long enough to decide", self.time_limit.sentence, remedy))


def check_line(check: CheckRow) -> str:
    """A failed sanity check in one line: what was seen, what follows, and what to do."""
    consequence = check.consequence or OVERESTIMATED
    return printable(f"sanity check {check.check}: failed: {check.observed}; {consequence}. {check.fix}")


def decide(
    rows: Sequence[AuditAccuracyRow],
    checks: Sequence[CheckRow],
    requirements: Sequence[tuple[Requirement, str]],
    time_limit: TimeLimit | None = None,
    accepted: Collection[str] = (),
    available: int = 0,
) -> Decision:
    """Compare an audit with what is required of it.

    Parameters
    ----------
    rows : sequence of AuditAccuracyRow
    checks : sequence of CheckRow
    requirements : sequence of (Requirement, str)
        Each with the `threat` of its row.
    time_limit : TimeLimit, optional
        Where it ended the audit.
    accepted : collection of str
        Names of sanity checks whose failure does not count: a black box has no gradients, whatever is done.
    available : int
        Images that could be attacked; 0 if not known.

    Returns
    -------
    Decision
        "not trusted" if a sanity check failed that puts every accuracy in doubt. Else "below" if a requirement is not met: it is
        an upper bound, better attacks would not help. Else "not trusted" if any sanity check failed, or if the time limit left
        no sanity checks, or too few images to decide.
    """
    all_failed = [check for check in checks if check.passed == "no"]
    failed = [check for check in all_failed if check.check not in accepted]
    doubted = any(map(_doubts_all, failed))
    measured = {row.threat: row for row in rows}
    comparisons = [
        Comparison(
            requirement,
            measured[threat],
            "not trusted" if doubted else _state(requirement.share, measured[threat], time_limit),
            available,
        )
        for requirement, threat in requirements
        if threat in measured
    ]
    unmeasured = tuple((requirement, threat) for requirement, threat in requirements if threat not in measured)
    unfinished = time_limit is not None and (not time_limit.checks or bool(unmeasured))
    outcome: Outcome = "passed"
    if doubted:
        outcome = "not trusted"
    elif any(each.state == "below" for each in comparisons):
        outcome = "below"
    elif failed or unfinished or any(each.state == "inconclusive" for each in comparisons):
        outcome = "not trusted"
    return Decision(outcome, tuple(comparisons), unmeasured, tuple(failed), time_limit, bool(requirements),
        tuple(check for check in all_failed if check not in failed),
    )  # fmt: skip


def _doubts_all(check: CheckRow) -> bool:
    """Whether a check that failed puts every accuracy in doubt, the clean one, too."""
    return (check.consequence or OVERESTIMATED) != OVERESTIMATED


def _cause_first(check: CheckRow) -> int:
    """Wrong pixels or another order of the classes make a model no better than chance: not the other way round."""
    return check.check == "above chance"


def _state(share: float, row: AuditAccuracyRow, time_limit: TimeLimit | None) -> State:
    if row.ci_low >= share:
        return "met"
    return "inconclusive" if time_limit and row.ci_high >= share else "below"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
