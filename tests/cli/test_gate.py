"""`notbugs attack` as a gate: requirements, exit codes, files for pipelines, --time-limit, --dry-run, --quiet, --verbose."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from cli.conftest import Finished, call_here, error_line
from gate.conftest import accuracy, check
from prototypes import prototype_classifier

from notbugs import audit, cli, data, models
from notbugs.audit import AuditConfig, cost
from notbugs.cli.attack import images_that_fit
from notbugs.cli.gate_options import parse_time
from notbugs.errors import InputError
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditAccuracyRow, CheckRow, ClassAccuracyRow

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture
def here(tmp_path: Path, digits: data.Splits, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    models.save(prototype_classifier(digits.train), tmp_path / "m.safetensors")
    return tmp_path


Attack = Callable[..., Finished]


@pytest.fixture
def attack(here: Path, monkeypatch: pytest.MonkeyPatch) -> Attack:
    """The command, with an audit that finds what it is told to find."""
    found: dict[str, Any] = {}

    def run(config: AuditConfig, folder: Path, *, command: str, **options: object) -> RunFolder:
        found["options"], found["config"] = options, config
        with RunFolder.open(folder, {"kind": "audit"}) as record:
            record.record_stage("all", 1.0, [*found["rows"], *found["checks"]])
            record.update_metadata(finished=True, command=command, model=config.model)
        return record

    def call(*words: object, rows: list[AuditAccuracyRow], checks: list[CheckRow] | None = None) -> Finished:
        found.update(rows=rows, checks=checks or [])
        return call_here("attack", "m.safetensors", "digits", *words)

    monkeypatch.setattr(audit, "run", run)
    call.found = found  # type: ignore[attr-defined]
    return call


def test_a_weak_model_ends_with_1_a_failed_check_with_3_and_files_are_written_all_the_same(attack: Attack) -> None:
    files = ["--json", "new/a.json", "--junit", "new/a.xml", "--sarif", "new/a.sarif"]
    for correct, passed, code in ((45, "yes", 0), (35, "yes", 1), (45, "no", 3)):
        done = attack("--fail-under", "l2:0.5=30%", *files, rows=[accuracy(correct)], checks=[check(passed)])
        assert done.returncode == code, done.stderr
        assert json.loads(Path("new/a.json").read_text())["exit_code"] == code
        assert int(ElementTree.parse("new/a.xml").getroot().get("failures", "")) == bool(code)
        assert json.loads(Path("new/a.sarif").read_text())["runs"][0]["invocations"][0]["exitCode"] == code
        assert done.stdout.splitlines()[-1].endswith(f"(exit code {code})")
        said = {0: "met: ", 1: "NOT MET: ", 3: "NOT TRUSTED: "}
        assert [word for word in said.values() if f"\n{word}" in done.stdout] == ([said[0]] if code == 3 else []) + [said[code]]
        assert "notbugs: " not in done.stderr  # all of the decision stands on one stream
    assert attack(*files, rows=[accuracy(1)], checks=[check("no")]).returncode == 0  # nothing is required


def test_a_check_may_fail_that_was_accepted_beforehand(attack: Attack) -> None:
    """A black box has no gradients, whatever is done. Its accuracy still counts, and files say what was accepted."""
    words = [
        "--fail-under",
        "l2:0.5=30%",
        "--accept-check",
        "gradients",
        "--json",
        "a.json",
        "--junit",
        "a.xml",
        "--sarif",
        "a.sarif",
    ]
    for correct, checks, code in ((45, ["gradients"], 0), (35, ["gradients"], 1), (45, ["gradients", "logits"], 3)):
        done = attack(*words, rows=[accuracy(correct)], checks=[check("no", name) for name in checks])
        assert done.returncode == code and "accepted: the sanity check `gradients` failed" in done.stdout
        found = json.loads(Path("a.json").read_text())
        assert found["accepted_checks"] == ["gradients"] and found["checks"][0]["passed"] == "no"
    assert int(ElementTree.parse("a.xml").getroot().get("failures", "")) == 1
    assert [each["ruleId"] for each in json.loads(Path("a.sarif").read_text())["runs"][0]["results"]] == ["check-logits"]


def test_what_is_required_is_attacked_beside_what_epsilon_says(attack: Attack) -> None:
    rows = [accuracy(90, threat="clean"), accuracy(80), accuracy(70, threat="l2 1"), accuracy(60, threat="linf 8/255")]
    words = ["--epsilon", "1/2", "--epsilon", "1", "--fail-under", "l2:0.5=30%", "--fail-under", "clean=50%"]
    assert attack(*words, rows=rows).returncode == 0
    assert attack.found["config"].threats == ("1/2", "1")  # type: ignore[attr-defined]
    done = attack("--fail-under", "linf:8/255=90%", "--fail-under", "0.5=10%", "--norm", "l2", "--epsilon", "1", rows=rows)
    assert attack.found["config"].threats == ("l2:1", "linf:8/255", "l2:0.5")  # type: ignore[attr-defined]
    assert done.returncode == 1 and "within linf 8/255 must be 90 %" in done.stdout
    done = attack("--fail-under", "65%", "--epsilon", "0.5", "--epsilon", "1", rows=rows)  # the largest epsilon
    assert done.returncode == 1 and "within l2 1 must be 65 %" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--fail-under", "30"], "--fail-under: must be above 0 % and below 100 %"),
        (["--fail-under", "l2:x=30%"], "must be a number, or a fraction like 8/255, in THREAT=SHARE, as l2:0.5=30%, got 'l2:x'"),
        (["--fail-under", "l7:1=30%"], "--fail-under: must start with one of linf, l2, l1, l0, spatial"),
        (["--fail-under", "l2:auto=30%"], "--fail-under: must name an epsilon, got l2:auto=30%"),
        (["--fail-under", "l2:9=30%"], "epsilon: two images of this size differ by at most 8"),
        (["--fail-under", "30%", "--epsilon", "l2:1", "--epsilon", "linf:0.1"], "in several norms, got l2 1, linf 0.1"),
        (["--fail-under", "99%", "--images", "100"], "must be at most 96.3 %, the lower end of the 95 % CI if all 100 images"),
        (["--time-limit", "soon"], "--time-limit: must be above 0, in seconds, minutes or hours: 90s, 10m, 2h, got 'soon'"),
        (["--time-limit", "0"], "--time-limit: must be above 0"),
        (["--quiet", "--verbose"], "--quiet, --verbose: must not both be given"),
        (["--json", "."], "--json: must be a file, got the folder ."),
        (["--accept-check", "gradient"], "--accept-check: must be one of deterministic, randomness averaged, "),
        (
            ["--accept-check", "class-order"],
            "--accept-check: must not be a check that puts every accuracy in doubt, got class order",
        ),
        (["--json", "a", "--junit", "./a"], "--junit: must be another file than --json"),
        (["--json", "m.safetensors"], "--json: must not replace m.safetensors, which is read"),
        (["--sarif", "m.json"], "--sarif: must not replace m.json, which is read"),
        (["--other", "m.safetensors", "--junit", "m.json"], "--junit: must not replace m.json, which is read"),
        (["--time-limit", "9" * 400], "--time-limit: must be above 0"),
        (["--budget", "\x1b[31mred", "--dry-run"], "--budget: must be one of quick, standard, thorough, got '\\x1b[31mred'"),
        (["--workers", str(2**64)], "--workers: must be at most 2,147,483,647"),
        (["--json", "/dev/stdout"], "/dev/stdout: must be a file, got a device"),
        (["--sarif", "/dev/null"], "/dev/null: must be a file, got a device"),
    ],
)
def test_what_cannot_be_used_is_one_line_before_any_work(here: Path, words: list[str], says: str) -> None:
    assert says in error_line(call_here("attack", "m.safetensors", "digits", *words))


def test_files_for_pipelines_lie_outside_the_data_set(here: Path) -> None:
    (here / "images" / "cat").mkdir(parents=True)
    said = error_line(call_here("attack", "m.safetensors", "images", "--junit", "images/a.xml"))
    assert said.startswith("notbugs: --junit: must lie outside images")


def test_a_time_is_read_in_seconds_minutes_and_hours() -> None:
    assert [parse_time(text) for text in ("90", "90s", " 1.5 m", "10min", "2h", ".5")] == [90, 90, 90, 600, 7200, 0.5]
    for text in ("-1", "1d", "1e3", "", "s", "nan"):
        with pytest.raises(InputError, match="--time-limit"):
            parse_time(text)


def test_quiet_prints_what_is_wrong_or_one_line_and_verbose_everything(attack: Attack) -> None:
    rows, checks = [accuracy(45)], [check("yes", "logits"), check("not run", "transfer")]
    done = attack("--quiet", "--fail-under", "l2:0.5=30%", rows=rows, checks=checks)
    said = "Gate: passed (exit code 0): l2:0.5=30%: 45.0 % [35.6, 54.8] of 100 images\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    assert attack("--quiet", rows=rows, checks=checks).stdout == ""  # nothing is required
    done = attack("--quiet", rows=rows, checks=[check("no")])
    assert (done.returncode, done.stdout) == (0, "") and done.stderr.count("\n") == 1 and "sanity check gradients" in done.stderr
    of_class = ClassAccuracyRow(
        threat="l2 0.5", norm="l2", epsilon=0.5, label="3", correct=4, n=9, accuracy=4 / 9, ci_low=0.2, ci_high=0.7
    )
    done = attack("--verbose", rows=[*rows, of_class], checks=checks)  # type: ignore[list-item]
    assert "sanity check logits: passed: it was seen" in done.stdout and "sanity check transfer: not run" in done.stdout
    assert "l2 0.5, class 3: 44.4 %  [20.0, 70.0]  4 of 9" in done.stdout


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "run", lambda *_, **__: pytest.fail("attacked"))
    for clock in ("CLOCK", "PROCESSOR_CLOCK"):  # each timed call takes a millisecond, and nothing else runs
        monkeypatch.setattr(cost, clock, partial(next, iter(number / 1000 for number in range(100))))
    before = sorted(here.iterdir())
    words = ["--images", 50, "--fail-under", "l2:0.5=30%", "--json", "new/a.json", "--out", "run", "--workers", 1]
    done = call_here("attack", "m.safetensors", "digits", *words, "--dry-run")
    assert done.returncode == 0 and sorted(here.iterdir()) == before
    lines = done.stdout.splitlines()
    assert lines[0] == "Dry run: nothing is attacked or written."
    assert lines[1] == "m.safetensors on 50 of 450 test images of digits, cpu"
    assert lines[2] == "l2 0.5         109 to 1,148 gradients and 0 to 10 queries per image"  # docs/attacks.md: 109 + 1,039
    assert lines[3].startswith("Time: about 4 s with 1 stage at once")
    assert lines[4:] == [
        "Required: l2 0.5 with a 95 % CI of 30 % or more, else exit code 1",
        "Would be written: run",
        "Would be written: new/a.json",
    ]


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (240, "That is at least twice the longest time."),
        (239, "That is twice the longest time of --images 79."),
        (120, "That is twice the longest time of --images 20."),
        (81, "That is too short: twice the longest time of the sanity checks and one image is 82 s."),
        (82, "That is twice the longest time of --images 1."),
    ],
)
def test_a_dry_run_says_how_many_images_suit_a_time_limit(limit: float, said: str) -> None:
    found = cost.AuditPlan(80, 100, {}, [], 20.0, 120.0, 1, fixed_seconds=40.0)  # each of 80 images takes a second at most
    assert images_that_fit(found, limit) == said


def test_what_a_dry_run_says_of_a_budget_is_what_the_documents_say() -> None:
    table = (DOCS / "attacks.md").read_text()
    (row,) = [line for line in table.splitlines() if line.startswith("| gradients per image, 10 classes or more, at most |")]
    documented = [int(cell.replace(",", "")) for cell in row.split("|")[2:5]]
    parse = cost._cost
    from notbugs.search import NormBall

    found = [parse(budget, NormBall("l2", 0.5), 10, True, first=False) for budget in ("quick", "standard", "thorough")]
    assert [each.most_gradients for each in found] == documented
    three, one = (parse("standard", NormBall("l0", pixels), 10, True, first=False) for pixels in (3, 1))
    assert f"{three.most_gradients / 3:,.0f} ε gradients and {three.most_queries / 3:,.0f} ε queries" in table
    assert f"With one pixel: {one.most_gradients} gradients and {one.most_queries} queries" in table


@pytest.mark.parametrize(
    ("error", "code"), [(KeyError("x"), 70), (ConnectionError("x"), 70), (BrokenPipeError(), 141), (InputError("a", "b"), 2)]
)
def test_no_error_looks_like_a_weak_model(error: Exception, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    done = call_here("attack")
    assert done.returncode == code and ("Traceback" in done.stderr) == (code == 70)


def test_a_reader_that_stops_does_not_look_like_a_weak_model(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: object, **options: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(sys.modules["notbugs.cli.attack"], "print_audit", broken)
    assert attack(rows=[accuracy(45)]).returncode == 141


def test_the_documents_list_every_exit_code() -> None:
    from notbugs import exit_codes

    table = (DOCS / "gate.md").read_text()
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    documented = {int(line.split("|")[1]) for line in table.splitlines() if line.startswith("| ") and line[2].isdigit()}
    assert documented == codes


@pytest.mark.slow
def test_a_gate_as_a_pipeline_has_it(here: Path) -> None:
    quick = ["--images", 30, "--budget", "quick", "--workers", 1, "-q", "--json", "a.json"]
    done = call_here("attack", "m.safetensors", "digits", *quick, "--fail-under", "l2:0.1=20%", "--fail-under", "l2:3=20%")
    assert done.returncode == 1 and done.stdout == "", done.stderr
    found = json.loads(Path("a.json").read_text())
    assert [each["state"] for each in found["requirements"]] == ["met", "below"] and found["images"] == 30
    assert {row["passed"] for row in found["checks"]} <= {"yes", "not run"} and len(found["checks"]) == 16
