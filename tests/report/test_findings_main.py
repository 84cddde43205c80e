"""Findings of every study, on accuracies made for the purpose."""

from pathlib import Path

import pytest
from report.conftest import MEASURED, Shares, quick_study

from notbugs.report import tables
from notbugs.report.findings import Finding, findings
from notbugs.report.findings.main import cross_accuracy
from notbugs.report.results import StudyResults
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables import SetRow


def found(folder: Path, shares: Shares, seeds: int = 3) -> list[Finding]:
    return findings(StudyResults.read(quick_study(folder, shares, seeds=seeds, complete=False)))


def test_supported_findings_have_their_figures(tmp_path: Path) -> None:
    standard, adversarial, split, random, following = found(tmp_path, MEASURED)
    assert {one.status for one in (standard, adversarial, split, random, following)} == {"supported"}
    accuracies = "clean accuracy 97.4 %, robust accuracy 0.0 % at L2 ε = 1.5 (500 test images, 3 seeds)"
    assert accuracies in standard.text and "a typical image has an L2 norm of 4.9" in standard.text
    assert "robust accuracy 60.4 %" in adversarial.text
    assert (
        "60.4 percentage points more than standard training (95 % CI [" in adversarial.text and "over 3 seeds" in adversarial.text
    )
    assert "robust accuracy 50.4 % at L2 ε = 0.75" in split.text and "93.4 % and 20.4 %" in split.text
    assert "difference in robust accuracy is 30.0 percentage points" in split.text
    assert "original images: robust accuracy 15.4 %" in split.text
    assert "reaches 88.4 % test accuracy (chance level 25.0 %" in random.text
    assert "control with shuffled perturbations 1.4 %" in random.text
    assert "reaches 70.4 % test accuracy" in following.text


def test_the_threat_model_of_a_set_is_its_own(tmp_path: Path) -> None:
    quick_study(tmp_path, complete=False)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        common = {"seed": 0, "n": 90, "made_from": "standard", "seconds": 1.0}
        rows = [SetRow(set="random-labels", epsilon=3.0, **common), SetRow(set="robust", **common)]
        run.record_stage("more", 0.0, rows)
    texts = [finding.text for finding in findings(StudyResults.read(tmp_path))]
    assert "perturbed by at most L2 ε = 3 towards a random" in texts[3]
    assert "perturbed by at most L2 ε = 1.5 towards the class after" in texts[4]


def test_intervals_of_one_seed_are_over_test_images(tmp_path: Path) -> None:
    texts = [finding.text for finding in found(tmp_path, MEASURED, seeds=1)]
    assert "over the test images" in texts[1] and "seeds" not in " ".join(texts) and "1 seed" in texts[1]
    assert tables.accuracy_table(StudyResults.read(tmp_path))[1][0][1] == "97.0 % [95.1, 98.2]"  # Wilson, 485 of 500


NULLS: list[tuple[int, Shares, str, str]] = [
    (0, {"standard": (0.97, 0.97, 0.97)}, "not supported", "no measurable loss"),
    (0, {"standard": (0.97, 0.9, 0.8)}, "partly supported", "Fewer than half"),
    (1, {"adversarial": (0.95, 0.1, 0.0)}, "not supported", "not measurably more robust"),
    (1, {"adversarial": (0.95, 0.3, 0.2)}, "partly supported", "20.4 percentage points more"),
    (
        2,
        {"trained-on-robust": (0.94, 0.204, 0.2), "trained-on-nonrobust": (0.94, 0.204, 0.0)},
        "not supported",
        "The CI includes 0",
    ),
    (
        2,
        {"trained-on-robust": (0.94, 0.2, 0.2), "trained-on-nonrobust": (0.94, 0.5, 0.0)},
        "not supported",
        "opposite of what the split is for",
    ),
    (2, {"standard": (0.97, 0.6, 0.0)}, "partly supported", "not lead to measurably higher robust accuracy"),
    (3, {"trained-on-random-labels": (0.2, 0.0, 0.0)}, "not supported", "not measurably above chance level"),
    (3, {"trained-on-random-labels-shuffled": (0.88, 0.0, 0.0)}, "not supported", "the perturbations carry nothing measurable"),
    (4, {"trained-on-next-labels": (0.01, 0.0, 0.0)}, "not supported", "not measurably above chance level"),
]


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("place", "changed", "status", "words"), NULLS, ids=[f"{n}-{words}" for n, _, _, words in NULLS])
def test_a_null_result_is_reported_as_one(
    tmp_path: Path, place: int, changed: Shares, status: str, words: str, seeds: int
) -> None:
    finding = found(tmp_path, MEASURED | changed, seeds=seeds)[place]
    assert finding.status == status and (words in finding.text or (seeds == 1 and status == "partly supported"))


def test_without_its_control_the_question_is_inconclusive(tmp_path: Path) -> None:
    shares = {model: share for model, share in MEASURED.items() if model != "trained-on-random-labels-shuffled"}
    finding = found(tmp_path, shares)[3]
    assert finding.status == "inconclusive" and "not evidence yet" in finding.text


def test_cross_accuracy_is_a_sentence_if_both_were_measured(tmp_path: Path) -> None:
    results = StudyResults.read(quick_study(tmp_path / "all", complete=False))
    assert cross_accuracy(results) == "Trained on D_R: accuracy 60.4 % on D_NR. Trained on D_NR: 60.4 % on D_R."
    shares = {model: share for model, share in MEASURED.items() if model != "trained-on-robust"}
    assert cross_accuracy(StudyResults.read(quick_study(tmp_path / "part", shares, complete=False))) == ""
