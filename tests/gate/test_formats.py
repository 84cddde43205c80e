"""What pipelines read: JSON, JUnit, SARIF."""

import json
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gate.conftest import accuracy, check, evaluation

from notbugs.gate import Evaluation, TimeLimit, as_json, as_junit, as_sarif
from notbugs.gate.formats import robustbench_entries

ROWS = [accuracy(95, threat="clean"), accuracy(20), accuracy(50, threat="l2 0.25")]
CHECKS = [check("no", "gradients"), check("yes", "logits"), check("not run", "transfer")]
BAD_NAME = "m\x00\x1b[2J<&>\"'é\ud800.onnx"


@pytest.fixture
def weak() -> Evaluation:
    return evaluation(ROWS, CHECKS, [("l2:0.5=30%", "l2 0.5"), ("clean=80%", "clean")])


def test_json_has_the_decision_and_all_figures(weak: Evaluation) -> None:
    found = json.loads(as_json(weak))
    assert (found["format"], found["outcome"], found["exit_code"]) == (1, "below", 1)
    assert [each["state"] for each in found["requirements"]] == ["below", "met"]
    assert found["requirements"][0]["ci_low"] == ROWS[1].ci_low and found["requirements"][0]["at_least"] == 0.3
    assert [row["threat"] for row in found["accuracies"]] == ["clean", "l2 0.5", "l2 0.25"]
    assert [row["passed"] for row in found["checks"]] == ["no", "yes", "not run"]
    assert len(found["reasons"]) == 2 and found["time_limit"] is None


def test_json_has_no_infinity_and_says_what_the_time_limit_left() -> None:
    infinite = accuracy(20)
    object.__setattr__(infinite, "epsilon", float("inf"))
    limit = TimeLimit(5.0, 20, 100, ("part 2 of 5",), checks=True)
    text = as_json(evaluation([infinite], limit=limit))
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert found["accuracies"][0]["epsilon"] is None
    assert found["time_limit"] == {"seconds": 5.0, "attacked": 20, "images": 100, "left": ["part 2 of 5"], "checks": True}


# What Jenkins' schema (xunit plugin, junit-10.xsd) and GitLab's documentation allow
JUNIT = {
    "testsuites": {"name", "tests", "failures", "errors", "time"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "timestamp"},
    "testcase": {"classname", "name"},
    "failure": {"type", "message"},
    "skipped": {"message"},
    "system-out": set(),
}


def test_junit_has_a_case_for_each_requirement_and_check(weak: Evaluation) -> None:
    root = ElementTree.fromstring(as_junit(weak))
    for element in root.iter():
        assert {*element.attrib} <= JUNIT[element.tag], element.tag
    assert {name: root.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "6", "failures": "2", "errors": "0",
    }  # fmt: skip
    cases = {case.get("name"): [part.tag for part in case] for case in root.iter("testcase")}
    assert cases == {
        "l2 0.5: at least 30 %": ["failure"],
        "clean: at least 80 %": ["system-out"],
        "l2 0.25": ["system-out"],
        "gradients": ["failure"],
        "logits": ["system-out"],
        "transfer": ["skipped"],
    }
    for suite in root:
        assert suite.get("timestamp") == "2026-11-27T10:00:00" and suite.get("tests") == str(len(suite))


def test_what_a_time_limit_left_out_is_a_case_under_its_usual_name() -> None:
    limit = TimeLimit(5.0, 0, 100, ("checks", "part 1 of 5"), checks=False)
    found = evaluation([], limit=limit)
    root = ElementTree.fromstring(as_junit(found))
    required, case = root.iter("testcase")
    assert required.get("name") == "l2 0.5: at least 30 %" and required[0].get("type") == "not trusted"
    assert "not measured; give more time" in str(required[0].get("message"))
    assert case.get("name") == "time limit" and case[0].tag == "failure" and "0 of 100 images" in str(case[0].get("message"))
    (entry,) = json.loads(as_json(found))["requirements"]
    assert entry == {
        "requirement": "l2:0.5=30%", "threat": "l2 0.5", "at_least": 0.3, "accuracy": None, "ci_low": None, "ci_high": None,
        "n": 0, "state": "inconclusive", "more_images_may_decide": True,
    }  # fmt: skip


def test_junit_holds_names_that_xml_cannot_have(weak: Evaluation) -> None:
    found = as_junit(evaluation(ROWS, CHECKS, model=BAD_NAME)).encode("utf-8", errors="replace")
    assert "<&>\"'é" in str(ElementTree.fromstring(found).get("name"))


def test_sarif_has_a_rule_for_each_and_a_result_for_what_failed(weak: Evaluation) -> None:
    found = json.loads(as_sarif(weak))
    (run,) = found["runs"]
    assert found["version"] == "2.1.0" and {*run} == {"tool", "invocations", "results"}
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == ["robust-accuracy", "time-limit", "check-gradients", "check-logits", "check-transfer"]
    results = [(each["ruleId"], each["kind"], each["level"]) for each in run["results"]]
    assert results == [
        ("robust-accuracy", "fail", "error"),
        ("check-gradients", "fail", "error"),
    ]
    for result in run["results"]:
        assert result["ruleId"] in rules and result["message"]["text"]
        assert result["locations"] == [{"logicalLocations": [{"name": "m.onnx", "kind": "module"}]}]  # no such file
    assert len({each["partialFingerprints"]["notbugs/v1"] for each in run["results"]}) == 2
    assert run["invocations"][0]["exitCode"] == 1 and run["invocations"][0]["startTimeUtc"] == "2026-11-27T10:00:00Z"


def test_sarif_names_the_file_of_the_model_as_code_scanning_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "my model.onnx").touch()
    for model, uri in (
        ("models/my model.onnx", "models/my%20model.onnx"),
        (str(tmp_path / "models" / "my model.onnx"), "models/my%20model.onnx"),
    ):
        found = json.loads(as_sarif(evaluation(ROWS, model=model)))
        (location,) = found["runs"][0]["results"][0]["locations"]
        assert location == {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}}


@pytest.mark.skipif(sys.platform != "linux", reason="file systems of other systems have names in Unicode alone")
def test_sarif_names_a_file_whose_name_is_no_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"m\xff.onnx")
    Path(name).touch()
    found = json.loads(as_sarif(evaluation(ROWS, model=name)).encode("utf-8", errors="replace"))
    place = {"artifactLocation": {"uri": "m%FF.onnx"}, "region": {"startLine": 1}}
    assert found["runs"][0]["results"][0]["locations"] == [{"physicalLocation": place}]


def test_sarif_keeps_to_the_schema_where_it_is_stored(weak: Evaluation) -> None:
    """The parts of the 2.1.0 schema that these files use: names that it has, and values that it allows."""
    allowed = {
        "run": {"tool", "invocations", "results"},
        "result": {"ruleId", "kind", "level", "message", "locations", "partialFingerprints", "properties"},
    }
    limit = TimeLimit(5.0, 100, 100, ("checks",), checks=False)
    for each in (weak, evaluation(ROWS, CHECKS, limit=limit), evaluation([], limit=limit)):
        (run,) = json.loads(as_sarif(each))["runs"]
        assert {*run} <= allowed["run"]
        for result in run["results"]:
            assert {*result} <= allowed["result"]
            assert result["kind"] in ("fail", "informational") and result["level"] in ("none", "error")
            assert (result["level"] == "error") == (result["kind"] == "fail")  # section 3.27.10


def test_json_has_an_entry_as_robustbench_has_them() -> None:
    """Its loader reads clean_acc and external (or autoattack_acc) as text of percent, and eps as its folders are called."""
    rows = [accuracy(95, threat="clean"), accuracy(20), accuracy(50, threat="linf 8/255")]
    object.__setattr__(rows[0], "attack", "none")
    for name, value in (("norm", "linf"), ("epsilon", 8 / 255)):
        object.__setattr__(rows[2], name, value)
    l2, linf = json.loads(as_json(evaluation(rows)))["robustbench"]
    assert (l2["threat_model_id"], linf["threat_model_id"]) == ("digits/L2/0.5", "digits/Linf/8_255")
    assert (linf["eps"], linf["clean_acc"], linf["external"], linf["number_forward_passes"]) == ("8/255", "95.00", "50.00", 1)
    assert (linf["attack"], linf["n"], linf["unreliable"]) == ("ensemble-standard v6", 100, False)
    assert "autoattack_acc" not in linf  # nobody ran it
    known = {"link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture", "eps"}
    assert known | {"clean_acc", "reported", "unreliable"} <= {*linf}


@pytest.mark.usefixtures("torchvision_operators")
def test_robustbench_itself_lists_the_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own loader, where it is installed."""
    utils = pytest.importorskip("robustbench.utils")
    enums = pytest.importorskip("robustbench.model_zoo.enums")
    rows = [accuracy(95, threat="clean"), accuracy(20)]
    object.__setattr__(rows[0], "attack", "none")
    (entry,) = robustbench_entries(rows, "m.onnx", "cifar10", unreliable=False)
    place = tmp_path / "model_info" / str(entry["threat_model_id"]).rpartition("/")[0]
    place.mkdir(parents=True)
    (place / "Mine.json").write_text(json.dumps(entry))
    known = {enums.BenchmarkDataset.cifar_10: {enums.ThreatModel.L2: {"Mine": {}}}}
    monkeypatch.setattr(utils, "all_models", known)
    monkeypatch.chdir(tmp_path)
    utils.list_available_models("cifar10", "L2")
    row = "| <sub><sup>**Mine**</sup></sub> | <sub>*[m.onnx]()*</sub> | <sub>95.00%</sub> | <sub>20.00%</sub> |"
    assert row in capsys.readouterr().out
