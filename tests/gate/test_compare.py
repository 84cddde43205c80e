"""`notbugs compare`: paired tests over the same images."""

from dataclasses import replace
from pathlib import Path

import pytest
from cli.conftest import call_here, error_line
from gate.conftest import accuracy
from scipy.stats import binomtest

from notbugs.errors import InputError
from notbugs.gate.compare import PairedComparison, _interval, compare, conclusions, different_attacks, left_out
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import AuditFileRow, CheckRow, ImageRow, PredictionRow
from notbugs.runs.tables.row import Row, cells


def audited(
    folder: Path, right: dict[str, bool], threat: str = "l2 0.5", model: str = "m.onnx", finished: bool = True
) -> RunFolder:
    """An audit in which these images are classified correctly under attack; clean all are."""
    images = [
        AuditFileRow(index=index, file=name, label="0", predicted="0", misclassified=False) for index, name in enumerate(right)
    ]
    attacked = [
        PredictionRow(
            index=index, file=name, label="0", threat=threat, misclassified=not correct, by_minimum_norm=False, predicted="0",
            predicted_8bit="0", misclassified_8bit=False,
        )
        for index, (name, correct) in enumerate(right.items())
    ]  # fmt: skip
    with RunFolder.open(folder, {"kind": "audit"}) as run:
        run.record_stage("all", 1.0, [*images, *attacked, accuracy(1)])
        run.update_metadata(finished=finished, model=model, dataset="digits", budget="standard")
    return run


def outcomes(both: int, only_first: int, only_second: int, neither: int) -> tuple[dict[str, bool], dict[str, bool]]:
    pairs = [(True, True)] * both + [(True, False)] * only_first + [(False, True)] * only_second + [(False, False)] * neither
    return tuple({f"{number}.png": pair[side] for number, pair in enumerate(pairs)} for side in (0, 1))  # type: ignore[return-value]


def test_the_difference_is_paired(tmp_path: Path) -> None:
    first, second = outcomes(50, 5, 20, 25)
    clean, attacked = compare(audited(tmp_path / "a", first), audited(tmp_path / "b", second))
    assert (clean.threat, clean.difference, clean.p_value) == ("clean", 0.0, 1.0)
    assert (attacked.n, attacked.only_first, attacked.only_second) == (100, 5, 20)
    assert (attacked.first, attacked.second, attacked.difference) == (0.55, 0.7, 0.15)
    assert attacked.p_value == binomtest(5, 25).pvalue < 0.01
    assert 0.05 < attacked.ci_low < 0.15 < attacked.ci_high < 0.26  # unpaired it would be [0.02, 0.28]


def test_the_interval_covers_the_true_difference_in_95_percent() -> None:
    import numpy as np

    generator, covered = np.random.default_rng(0), []
    for shares in ((0.1, 0.2, 0.7), (0.01, 0.02, 0.97), (0.5, 0.5, 0.0)):
        inside = [
            low <= shares[1] - shares[0] <= high
            for first, second, _ in generator.multinomial(60, shares, size=30)
            for low, high in [_interval(int(first), int(second), 60)]
        ]
        covered.append(sum(inside))
    assert min(covered) >= 27
    assert _interval(0, 0, 100)[1] > 0.03  # no difference in 100 images is not 0 for certain


def test_only_images_that_both_have_are_compared(tmp_path: Path) -> None:
    first, second = audited(tmp_path / "a", {"a": True, "b": True}), audited(tmp_path / "b", {"b": False, "c": True})
    assert [(each.n, each.only_first) for each in compare(first, second)] == [(1, 0), (1, 1)]
    with pytest.raises(InputError, match="must have images in common"):
        compare(first, audited(tmp_path / "c", {"z": True}))
    with pytest.raises(InputError, match=r"must have a threat model in common.*got l2 0.5; linf 0.1"):
        compare(first, audited(tmp_path / "d", {"a": True}, threat="linf 0.1"))
    with RunFolder.open(tmp_path / "e", {"kind": "audit"}) as nothing, pytest.raises(InputError, match="must have attacked some"):
        compare(first, nothing)
    with (
        RunFolder.open(tmp_path / "f", {"kind": "study"}) as study,
        pytest.raises(InputError, match=r"must be an audit, got .*study"),
    ):
        compare(first, study)


def test_of_an_audit_that_a_time_limit_ended_those_images_count_that_are_attacked(tmp_path: Path) -> None:
    """Its table of files is written at the end; each part has rows of its own."""
    whole = audited(tmp_path / "whole", {"a": True, "b": True, "c": True})
    rows: list[Row] = []
    for row in audited(tmp_path / "other", {"a": False, "b": True}).rows(AuditFileRow):
        rows.append(ImageRow(**cells(row)))  # type: ignore[arg-type]
    rows += RunFolder.read(tmp_path / "other").rows(PredictionRow)
    with RunFolder.open(tmp_path / "ended", {"kind": "audit"}) as ended:
        ended.record_stage("part-1", 1.0, rows)
    assert [(each.n, each.only_first) for each in compare(whole, ended)] == [(2, 0), (2, 1)]
    assert left_out(whole) == ""
    assert left_out(ended) == "not finished: 2 images attacked, no sanity checks; the same command resumes it"
    done = call_here("compare", tmp_path / "whole", tmp_path / "ended")
    assert "WARNING: Second: not finished: 2 images attacked" in done.stdout
    assert "Undecided which has higher robust accuracy within l2 0.5" in done.stdout


def test_a_difference_of_clean_accuracies_is_told() -> None:
    clean = PairedComparison("clean", 0.8, 0.6, 20, 0, 100, -0.2, -0.3, -0.1, 1e-5)
    attacked = replace(clean, threat="l2 0.5", difference=-0.1, ci_low=-0.2, ci_high=0.1)
    said = conclusions([clean, attacked])
    assert said[:2] == ["The second has lower clean accuracy.", attacked.conclusion]
    assert said[2].startswith("That is said of these two models") and len(said) == 4
    assert said[3].startswith("Clean accuracies differ by -20.0 percentage points. An image")
    assert len(conclusions([clean, attacked], alone=False)) == 3
    assert len(conclusions([replace(clean, ci_high=0.1), attacked])) == 2


def test_audits_by_different_attacks_are_told(tmp_path: Path) -> None:
    first, second = audited(tmp_path / "a", {"a": True}), audited(tmp_path / "b", {"a": True})
    assert different_attacks(first, second) == ""
    with RunFolder.open(tmp_path / "b", {"kind": "audit"}) as run:
        run.update_metadata(attack="ensemble-quick v6 + mine")
    done = call_here("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "page.html")
    for text in (done.stdout, (tmp_path / "page.html").read_text()):
        assert "not the same attack: ensemble-standard v6; ensemble-quick v6 + mine. The difference may" in text


def test_the_command_prints_a_table_and_writes_one_page(tmp_path: Path) -> None:
    first, second = outcomes(50, 5, 20, 25)
    audited(tmp_path / "a", first, model="<weak>.onnx")
    audited(tmp_path / "b", second, model="strong.onnx")
    with RunFolder.open(tmp_path / "b", {"kind": "audit"}) as run:
        checks = {"rationale": "", "fix": "", "threat": "l2 0.5", "n": 100, "observed": ""}
        rows = [CheckRow(check=name, passed=passed, **checks) for name, passed in (("gradients", "no"), ("logits", "yes"))]  # type: ignore[arg-type]
        run.record_stage("checks", 1.0, rows)
    done = call_here("compare", tmp_path / "a", tmp_path / "b", tmp_path / "a", "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "+15.0" in done.stdout and "second minus first" in done.stdout and "…" not in done.stdout
    said = f"WARNING: Second: sanity checks failed: gradients. Its accuracies may be wrong: {tmp_path / 'b'}"
    assert said in " ".join(done.stdout.split()) and done.stdout.count("WARNING") == 1
    page = (tmp_path / "page.html").read_text()
    assert page.count("failed: gradients.") == 1
    assert "strong.onnx against &lt;weak&gt;.onnx" in page and "<weak>" not in page and page.count("<table>") == 2
    assert "must be two or more" in error_line(call_here("compare", tmp_path / "a"))
    assert "must end in .html" in error_line(call_here("compare", tmp_path / "a", tmp_path / "b", "--out", "x.txt"))
    assert "must hold a run.json" in error_line(call_here("compare", tmp_path / "a", tmp_path / "none"))
