"""An evaluation as JUnit XML, with what both GitLab and Jenkins read: suites, suites' counts, cases, failures, skipped cases."""

import re
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from notbugs.gate.decide import MORE_TIME, Comparison, check_line
from notbugs.gate.formats import Evaluation
from notbugs.gate.requirements import Requirement
from notbugs.runs.tables.audit import AuditAccuracyRow, CheckRow

# What XML 1.0 cannot hold, even escaped: names of files and classes may have it
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_junit(evaluation: Evaluation) -> str:
    """Two suites: a case for each requirement or accuracy, also for a time limit that was reached; one for each sanity check."""
    gate = [_requirement(each) for each in evaluation.decision.comparisons]
    gate += [_unmeasured(*each) for each in evaluation.decision.unmeasured]
    required = {each.row.threat for each in evaluation.decision.comparisons}
    gate += [_accuracy(row) for row in evaluation.rows if row.threat not in required]
    if limit := evaluation.decision.time_limit:
        case = _case("robust accuracy", "time limit")
        if evaluation.decision.time_limit_line:
            _failure(case, "not trusted", limit.sentence)
        else:
            SubElement(case, "system-out").text = _text(limit.sentence)
        gate.append(case)
    root = Element("testsuites", name=_text(f"notbugs attack {evaluation.model}"))
    checks = [_check(check, accepted=check in evaluation.decision.accepted) for check in evaluation.checks]
    for name, cases in (("robust accuracy", gate), ("sanity checks", checks)):
        root.append(_suite(name, cases, evaluation))
    for count in ("tests", "failures", "errors"):  # Jenkins' schema has no "skipped" here
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    root.set("time", f"{evaluation.seconds:.3f}")
    indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _suite(name: str, cases: list[Element], evaluation: Evaluation) -> Element:
    suite = Element("testsuite", name=_text(f"{name}: {evaluation.model} on {evaluation.dataset}"), tests=str(len(cases)))
    for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(count, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("timestamp", evaluation.started.removesuffix("+00:00"))  # Jenkins' schema has no zone
    suite.extend(cases)
    return suite


def _case(group: str, name: str) -> Element:
    return Element("testcase", classname=_text(f"notbugs.{group}"), name=_text(name))


def _requirement(each: Comparison) -> Element:
    case = _required(each.requirement, each.row.threat)
    if each.state == "met":
        SubElement(case, "system-out").text = _text(f"met: {each.line}")
    else:
        _failure(case, "below" if each.state == "below" else "not trusted", each.line)
    return case


def _unmeasured(requirement: Requirement, threat: str) -> Element:
    """A requirement keeps its case where the time limit left no image: else it would vanish from the list."""
    case = _required(requirement, threat)
    _failure(case, "not trusted", f"not measured; {MORE_TIME}")
    return case


def _required(requirement: Requirement, threat: str) -> Element:
    return _case("robust accuracy", f"{threat}: at least {100 * requirement.share:g} %")


def _accuracy(row: AuditAccuracyRow) -> Element:
    case = _case("robust accuracy", row.threat)
    interval = f"[{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
    said = f"{100 * row.accuracy:.1f} %, 95 % CI {interval}, {row.correct} of {row.n} images, {row.attack}"
    SubElement(case, "system-out").text = _text(f"{said}; nothing is required of it")
    return case


def _check(check: CheckRow, *, accepted: bool) -> Element:
    case = _case("sanity checks", check.check)
    if accepted:
        SubElement(case, "skipped", message=_text(f"failed, and accepted beforehand: {check.observed}"))
    elif check.passed == "no":
        _failure(case, "sanity check", check_line(check), check.rationale)
    elif check.passed == "yes":
        SubElement(case, "system-out").text = _text(check.observed)
    else:
        SubElement(case, "skipped", message=_text(check.observed))
    return case


def _failure(case: Element, kind: str, message: str, more: str = "") -> None:
    SubElement(case, "failure", type=kind, message=_text(message)).text = _text(more or message)


def _text(text: str) -> str:
    return NOT_XML.sub("\ufffd", text)
