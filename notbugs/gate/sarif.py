"""An evaluation as SARIF 2.1.0, the format of code scanning (GitHub, Azure DevOps, GitLab)."""

import json
import os
import re
from pathlib import Path
from urllib.parse import quote

from notbugs import __version__
from notbugs.gate.decide import Comparison, check_line
from notbugs.gate.formats import Evaluation

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROBUST_ACCURACY, TIME_LIMIT = "robust-accuracy", "time-limit"
DESCRIPTIONS = {
    ROBUST_ACCURACY: "The lower end of the 95 % CI of an accuracy reaches what --fail-under requires.",
    TIME_LIMIT: "The time limit leaves enough images and sanity checks to decide.",
}


def as_sarif(evaluation: Evaluation) -> str:
    """One run: a rule for the robust accuracy and one for each sanity check, a result for each that is not met or failed.

    Code scanning would list what passed as an alert, too.
    """
    undecided = ("met", "not trusted")  # of the latter the check that failed is a result
    results = [_requirement(each, evaluation) for each in evaluation.decision.comparisons if each.state not in undecided]
    descriptions = dict(DESCRIPTIONS)
    for check in evaluation.checks:
        descriptions[_rule(check.check)] = check.rationale
        if check.passed == "no" and check not in evaluation.decision.accepted:
            results.append(_result(_rule(check.check), "error", check_line(check), evaluation))
    limit = evaluation.decision.time_limit
    if limit:
        level = "error" if evaluation.decision.outcome == "not trusted" else "note"
        results.append(_result(TIME_LIMIT, level, limit.sentence, evaluation))
    rules = [{"id": name, "shortDescription": {"text": text}} for name, text in descriptions.items()]
    driver = {"name": "notbugs", "version": __version__, "semanticVersion": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "invocations": [
            {
                "commandLine": evaluation.command,
                "executionSuccessful": True,
                "exitCode": evaluation.decision.exit_code,
                "startTimeUtc": evaluation.started.replace("+00:00", "Z"),
            }
        ],
        "results": results,
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, ensure_ascii=False) + "\n"


def _rule(check: str) -> str:
    """The id of a sanity check."""
    return "check-" + re.sub("[^a-z0-9]+", "-", check.lower()).strip("-")


def _requirement(each: Comparison, evaluation: Evaluation) -> dict[str, object]:
    found = _result(ROBUST_ACCURACY, "error", each.line, evaluation, each.row.threat)
    row = each.row
    measured = {name: getattr(row, name) for name in ("threat", "accuracy", "ci_low", "ci_high", "n", "attack")}
    return {**found, "properties": {**measured, "at_least": each.requirement.share, "state": each.state}}


def _result(rule: str, level: str, text: str, evaluation: Evaluation, about: str = "") -> dict[str, object]:
    """A result about the model. Its name makes it the same result in the next evaluation, whatever the figures are."""
    kind = "fail" if level == "error" else "informational"
    return {
        "ruleId": rule,
        "kind": kind,
        "level": level if kind == "fail" else "none",  # the standard has no other level for what is no failure
        "message": {"text": text},
        "locations": [_location(evaluation.model)],
        "partialFingerprints": {"notbugs/v1": " ".join(filter(None, (rule, about, evaluation.model, evaluation.dataset)))},
    }


def _location(model: str) -> dict[str, object]:
    """The model: a file, as code scanning shows it, or a name."""
    if Path(model).is_file():
        # GitHub requires a region
        return {"physicalLocation": {"artifactLocation": {"uri": _uri(Path(model))}, "region": {"startLine": 1}}}
    return {"logicalLocations": [{"name": model, "kind": "module"}]}


def _uri(path: Path) -> str:
    """Relative to the working directory, which is that of the repository, where it lies in there."""
    absolute = path.absolute()
    try:
        return quote(os.fsencode(absolute.relative_to(Path.cwd()).as_posix()))
    except ValueError:
        return absolute.as_uri()
