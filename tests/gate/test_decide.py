"""The decision and its exit code."""

import re
from dataclasses import replace

import pytest
from gate.conftest import accuracy, check, evaluation

from notbugs.attacks.sanity_checks.check import NOT_TRUSTED
from notbugs.gate import TimeLimit, decide, parse_requirement
from notbugs.runs.tables.audit import AuditAccuracyRow, CheckRow

CUT = TimeLimit(60.0, 20, 100, ("part 2 of 5",), checks=True)
CUT_CHECKS = CUT._replace(checks=False, left=("checks",))
NOTHING = TimeLimit(60.0, 0, 100, ("checks", "part 1 of 5"), checks=False)


@pytest.mark.parametrize(
    ("row", "checks", "limit", "outcome", "code"),
    [
        (accuracy(45), [check("yes"), check("not run")], None, "passed", 0),
        (accuracy(35), [check("yes")], None, "below", 1),  # 35 %, but its interval begins at 26.4 %
        (accuracy(10), [check("yes")], None, "below", 1),
        (accuracy(45), [check("no")], None, "not trusted", 3),
        (accuracy(10), [check("no")], None, "below", 1),  # an upper bound that is below is below
        (accuracy(10), [check("no", consequence=NOT_TRUSTED)], None, "not trusted", 3),
        (accuracy(18, 20), [check("yes")], CUT, "passed", 0),  # few images are enough
        (accuracy(8, 20), [check("yes")], CUT, "not trusted", 3),  # too few to decide
        (accuracy(1, 20), [check("yes")], CUT, "below", 1),
        (accuracy(18, 20), [], CUT_CHECKS, "not trusted", 3),
        (None, [], NOTHING, "not trusted", 3),
    ],
)
def test_the_lower_end_decides_and_then_whether_it_can_be_trusted(
    row: AuditAccuracyRow | None, checks: list[CheckRow], limit: TimeLimit | None, outcome: str, code: int
) -> None:
    decision = evaluation([row] if row else [], checks, limit=limit).decision
    assert (decision.outcome, decision.exit_code) == (outcome, code)
    assert bool(decision.lines) == bool(code)
    assert all(re.search(r"^sanity check [^:]+: failed: .+; .+\. .|^--[^:]+: .+, got ", line) for line in decision.lines)
    doubted = any(each.consequence == NOT_TRUSTED for each in checks)
    assert all((each.state == "not trusted") == doubted for each in decision.comparisons)


def test_what_puts_every_accuracy_in_doubt_is_said_first() -> None:
    checks = [check("no", "masking"), check("no", "class order", consequence=NOT_TRUSTED)]
    lines = evaluation([accuracy(10)], checks).decision.lines
    assert [line.split(":")[0] for line in lines] == ["sanity check class order", "--fail-under", "sanity check masking"]
    several = [check("no", name, consequence=NOT_TRUSTED) for name in ("above chance", "pixel range")]
    first = evaluation([accuracy(10)], several).decision.lines[0]
    assert first.startswith("sanity check pixel range")  # the cause before what follows from it
    assert lines[1] == (
        "--fail-under: the robust accuracy within l2 0.5 must be trustworthy to be compared with 30 %, got accuracy 10.0 %, "
        "10 of 100 images, attack: ensemble-standard v6; first mend what the sanity check names"
    )
    high = evaluation([accuracy(98)], checks).decision
    assert high.exit_code == 3 and high.lines[1].startswith("--fail-under: the robust accuracy within l2 0.5 must be trustworthy")


def test_a_check_that_failed_needs_no_more_time() -> None:
    """All requirements are met on the images that a time limit left, and the sanity checks are done."""
    decision = evaluation([accuracy(60)], [check("no", "gradients")], limit=CUT).decision
    assert decision.exit_code == 3 and [line.split(":")[0] for line in decision.lines] == ["sanity check gradients"]


def test_fewer_images_are_advised_only_where_none_was_attacked() -> None:
    undecided = evaluation([accuracy(7, 20)], limit=CUT).decision
    assert (undecided.exit_code, undecided.lines[-1].partition("; give")[2]) == (3, " more time: --time-limit")
    nothing = evaluation([], limit=NOTHING).decision
    assert nothing.lines[-1].endswith("give more time, or attack fewer images: --time-limit, --images")


def test_the_worst_of_several_requirements_decides() -> None:
    rows = [accuracy(95, threat="clean"), accuracy(45), accuracy(20, threat="linf 8/255")]
    required = [("clean=80%", "clean"), ("l2:0.5=30%", "l2 0.5"), ("linf:8/255=30%", "linf 8/255")]
    decision = evaluation(rows, required=required).decision
    assert [each.state for each in decision.comparisons] == ["met", "met", "below"] and decision.exit_code == 1
    (line,) = decision.lines
    assert line == (
        "--fail-under: the lower end of the 95 % CI of the robust accuracy within linf 8/255 must be 30 % or more, got 13.3 % "
        "(accuracy 20.0 %, 20 of 100 images, attack: ensemble-standard v6); train a more robust model: notbugs train --loss "
        "adversarial"
    )


def test_an_end_just_below_is_not_rounded_up() -> None:
    row = accuracy(45)
    low = 100 * row.ci_low  # 35.61…
    decision = evaluation([row], required=[(f"{low + 0.01}%", "l2 0.5")]).decision
    assert decision.exit_code == 1 and "got 35.6 %" in decision.lines[0]
    decision = evaluation([replace(row, ci_low=0.29972)], required=[("30%", "l2 0.5")]).decision
    assert decision.exit_code == 1 and "must be 30 % or more, got 29.97 % (" in decision.lines[0]


def test_a_lower_end_has_the_decimals_of_the_table() -> None:
    decision = evaluation([accuracy(26, 60)], required=[("l2:0.5=50%", "l2 0.5")]).decision
    assert decision.comparisons[0].row.ci_low == pytest.approx(0.3157, abs=1e-4) and "got 31.6 %" in decision.lines[0]


@pytest.mark.parametrize(("limit", "code"), [(None, 0), (CUT, 0), (NOTHING, 3)])
def test_without_a_requirement_only_nothing_measured_is_an_error(limit: TimeLimit | None, code: int) -> None:
    rows = [] if limit is NOTHING else [accuracy(10)]
    assert evaluation(rows, [check("no")], required=(), limit=limit).decision.exit_code == code


@pytest.mark.parametrize(
    ("available", "said"),
    [
        (0, r"more images may decide, about [\d,]+ if the accuracy stays$"),
        (4000, r"more images may decide, about [\d,]+ if the accuracy stays$"),
        (
            400,
            r"about [\d,]+ images would decide if the accuracy stays; DATASET has 400, with which this cannot be decided: "
            r"add test images, or require less$",
        ),
    ],
)
def test_how_many_images_may_decide_and_how_many_there_are(available: int, said: str) -> None:
    decision = decide([accuracy(34)], [], [(parse_requirement("l2:0.5=30%"), "l2 0.5")], available=available)
    (line,) = decision.lines
    assert re.search(said, line) and decision.exit_code == 1
