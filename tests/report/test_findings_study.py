"""Findings of every study, on accuracies made for the purpose."""

import math
from pathlib import Path
from typing import Any

import pytest
from report.conftest import MEASURED, Shares, accuracy_row, quick_study, wilson
from scipy.stats import binomtest

from notbugs.metrics import Accuracy
from notbugs.report import tables
from notbugs.report.findings import Finding, Status, findings
from notbugs.report.findings.construction import (
    larger_relabel_epsilon,
    not_more_robust,
    undecided_source,
    weak_source_warning,
)
from notbugs.report.findings.split import cross_accuracy
from notbugs.report.format import Estimate
from notbugs.report.next_steps import next_steps
from notbugs.report.results import StudyResults
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.row import Row
from notbugs.runs.tables.study import SetRow, TrainingRow

ROW: Any = {"seed": 0, "n": 90, "made_from": "standard", "seconds": 1.0}
EPOCH: Any = {"seed": 0, "epoch": 36, "loss": 2.3, "learning_rate": 0.0, "seconds": 1.0}


def found(folder: Path, shares: Shares, seeds: int = 3) -> list[Finding]:
    return findings(StudyResults.read(quick_study(folder, shares, seeds=seeds, complete=False)))


def test_supported_findings_have_their_figures(tmp_path: Path) -> None:
    standard, adversarial, split, random, following = found(tmp_path, MEASURED)
    assert {one.status for one in (standard, adversarial, split, random, following)} == {"supported"}
    accuracies = "clean accuracy 97.4 %, robust accuracy 0.0 % at L2 ε = 1.5 (500 test images, 3 seeds)"
    assert accuracies in standard.text and "at most 31 % of that of a typical image, 4.9; a single pixel" in standard.text
    assert "robust accuracy 60.4 %" in adversarial.text
    assert (
        "60.4 percentage points more than standard training (95 % CI [" in adversarial.text and "over 3 seeds" in adversarial.text
    )
    assert "at L2 ε = 0.75 and L2 ε = 1.5: trained on D_R 50.4 % and 20.4 %, on D_NR 20.4 % and 0.0 %, on the orig" in split.text
    assert "on the original images 15.4 % and 0.0 % (trained on D_R it is below" in split.text
    assert "chance level, 25.0 %, at L2 ε = 1.5: a constant answer has more). Clean: 94.4 %, 93.4 %, 97.4 %." in split.text
    assert "D_R minus D_NR, in percentage points: +30.0 [" in split.text and "; D_R minus original: +35.0 [" in split.text
    assert "95 % CIs over the test images, simultaneous for both ε (Bonferroni); 500" in split.text
    assert (
        "39.6 % of the test images [" in adversarial.text and "] are still misclassified under attack, more" in adversarial.text
    )
    assert [one.meaning for one in (standard, adversarial, split, random)] == ["bad", "good", "good", "neutral"]
    assert "reaches 88.4 % test accuracy (chance level 25.0 %" in random.text
    assert "control with shuffled perturbations reaches 1.4 % (below chance level: " in random.text
    assert "never its label), a difference of 87.0" in random.text
    assert "(chance level 25.0 %; 500 test images, 3 seeds), 63.4 percentage points above chance level" in random.text
    assert "reaches 70.4 % test accuracy" in following.text


@pytest.mark.parametrize(
    ("control", "status"),
    [
        ((0.96, 0.6, 0.1), "supported"),
        ((0.96, 0.75, 0.1), "supported"),
        ((0.96, 0.9, 0.1), "partly supported"),
        ((0.96, 0.75, 0.5), "not supported"),
        ((0.96, 0.9, 0.7), "not supported"),
    ],
)
def test_the_stronger_d_r_is_compared_with_its_control(tmp_path: Path, control: tuple[float, ...], status: Status) -> None:
    shares = {**MEASURED, "trained-on-robust-strong": (0.95, 0.75, 0.5), "trained-on-correct-only": control}
    stronger = found(tmp_path, shares)[3]
    assert stronger.question.startswith("Is a classifier trained on the stronger D_R more robust") and stronger.status == status
    at = "at L2 ε = 1.5; unclear at L2 ε = 0.75" if control[1] == 0.75 and status == "supported" else ""
    assert stronger.where == at and "the stronger D_R 75.4 % and 50.4 %, its control" in stronger.text
    assert "adversarial training 80.4 % and 60.4 %. Clean: 95.4 %, 96.4 %, 95.4 %." in stronger.text
    results = StudyResults.read(tmp_path)
    assert results.models()[-2:] == ["trained-on-robust-strong", "trained-on-correct-only"]


def test_the_threat_model_of_a_set_is_its_own(tmp_path: Path) -> None:
    quick_study(tmp_path, complete=False)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        common = {"seed": 0, "n": 90, "made_from": "standard", "seconds": 1.0}
        rows = [SetRow(set="random-labels", epsilon=3.0, **common), SetRow(set="robust", **common)]
        run.record_stage("more", 0.0, rows)
    texts = [finding.text for finding in findings(StudyResults.read(tmp_path))]
    assert "perturbed by at most L2 ε = 3 (2 times the ε of the attacks, 61 % of a typical image) towards" in texts[3]
    assert "That these features are non-robust is not shown: the perturbations are 2 times the ε of the attacks" in texts[3]
    assert "perturbed by at most L2 ε = 1.5 towards the class after" in texts[4]


def test_intervals_of_one_seed_are_over_test_images(tmp_path: Path) -> None:
    texts = [finding.text for finding in found(tmp_path, MEASURED, seeds=1)]
    assert "over the test images" in texts[1] and "seeds" not in " ".join(texts) and "1 seed" in texts[1]
    assert tables.accuracy_table(StudyResults.read(tmp_path))[1][0][1] == "97.0 % [95.1, 98.2]"  # Wilson, 485 of 500


NULLS: list[tuple[int, Shares, str, str]] = [
    (0, {"standard": (0.97, 0.97, 0.97)}, "not supported", "no measurable drop"),
    (0, {"standard": (0.97, 0.9, 0.8)}, "partly supported", "Fewer than half"),
    (1, {"adversarial": (0.95, 0.1, 0.0)}, "not supported", "not measurably more robust"),
    (1, {"adversarial": (0.95, 0.3, 0.2)}, "supported", "percentage points more than standard"),
    (2, {"trained-on-robust": (0.94, 0.204, 0.0), "standard": (0.97, 0.2, 0.0)}, "not supported", "No difference in robustness"),
    (2, {"trained-on-robust": (0.94, 0.1, 0.0)}, "not supported", "opposite of what D_R is for"),
    (2, {"standard": (0.97, 0.6, 0.3)}, "partly supported", "not lead to measurably higher robust accuracy"),
    (2, {"standard": (0.97, 0.6, 0.0)}, "partly supported", "At the other ε it is the reverse"),
    (2, {"trained-on-nonrobust": (0.93, 0.5, 0.2)}, "partly supported", "but not measurably more than D_NR"),
    (3, {"trained-on-random-labels": (0.2, 0.0, 0.0)}, "inconclusive", "is not decided: allow larger perturbations"),
    (3, {"trained-on-random-labels": (0.25, 0.0, 0.0)}, "not supported", "not measurably above chance level. Its control with"),
    (3, {"trained-on-random-labels-shuffled": (0.88, 0.0, 0.0)}, "not supported", "the perturbations carry nothing measurable"),
    (4, {"trained-on-next-labels": (0.25, 0.0, 0.0)}, "not supported", "not measurably above chance level"),
]


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("place", "changed", "status", "words"), NULLS, ids=[f"{n}-{words}" for n, _, _, words in NULLS])
def test_a_null_result_is_reported_as_one(
    tmp_path: Path, place: int, changed: Shares, status: str, words: str, seeds: int
) -> None:
    finding = found(tmp_path, MEASURED | changed, seeds=seeds)[place]
    assert finding.status == status and (words in finding.text or (seeds == 1 and status == "partly supported"))


def test_either_epsilon_can_show_that_d_r_is_more_robust(tmp_path: Path) -> None:
    """As a run of photographs did: 55.0 against 36.7 % at epsilon, nothing measurable at half of it."""
    shares: Shares = {
        "standard": (0.9, 0.8, 0.367),
        "trained-on-robust": (0.9, 0.8, 0.55),
        "trained-on-nonrobust": (0.9, 0.8, 0.3),
    }
    for seeds in (1, 3):
        finding = found(tmp_path / str(seeds), MEASURED | shares, seeds=seeds)[2]
        assert (finding.status, finding.meaning) == ("supported", "good")
        assert finding.sentence.startswith("Yes at L2 ε = 1.5; unclear at L2 ε = 0.75"), "a yes says where"


def test_the_intervals_of_two_epsilons_hold_together(tmp_path: Path) -> None:
    """Newcombe's from Wilson's at 97.5 %, by scipy; of 500 images 40 more are correct, which 95 % would call measurable."""
    shares: Shares = {
        "trained-on-robust": (0.9, 0.56, 0.0),
        "standard": (0.9, 0.498, 0.0),
        "trained-on-nonrobust": (0.9, 0.1, 0.0),
    }
    results = StudyResults.read(quick_study(tmp_path, MEASURED | shares, seeds=1, complete=False))
    ends = [binomtest(correct, 500).proportion_ci(0.975, method="wilson") for correct in (280, 249)]
    alone, together = (results.difference(("trained-on-robust", 1), ("standard", 1), count) for count in (1, 2))
    assert alone and together and alone.ci_low > 0 > together.ci_low
    assert together.ci_low == pytest.approx(0.062 - math.hypot(0.56 - ends[0].low, ends[1].high - 0.498))


PROBLEMS: list[tuple[Shares, list[Row], int, str]] = [
    ({"adversarial": (0.61, 0.8, 0.6)}, [], 2, "clean accuracy of 61.0 %, the standard one 97.0 %: train it longer (--epochs 6)"),
    ({"adversarial": (0.95, 0.15, 0.0)}, [], 2, "not measurably more robust than the standard one: train it longer (--epochs 6)"),
    (
        {},
        [SetRow(set="robust", feature_error=0.7, **ROW)],
        2,
        "features of D_R are reproduced with a mean relative error of 0.70",
    ),
    (
        {"trained-on-robust": (0.25, 0.15, 0.0)},
        [],
        2,
        "trained on D_R has a clean accuracy of 25.0 %, not measurably above chance level: train longer (--epochs 6)",
    ),
    (
        {},
        [SetRow(set="random-labels", target_reached=0.33, **ROW)],
        3,
        "only 33.0 % of its images reach their new label",
    ),
    (
        {},
        [TrainingRow(model="trained-on-random-labels", accuracy=0.134, **EPOCH)],
        3,
        "training on it ends at 13.4 % accuracy on its own labels, chance is 25.0 %: lower its learning rate",
    ),
    ({"standard": (0.25, 0.15, 0.0)}, [], 3, "the model that it is made with has a clean accuracy of 25.0 %"),
]


@pytest.mark.parametrize(("shares", "rows", "place", "words"), PROBLEMS, ids=[words[:30] for *_, words in PROBLEMS])
def test_a_null_after_a_failed_construction_is_inconclusive(
    tmp_path: Path, shares: Shares, rows: list[Row], place: int, words: str
) -> None:
    nulls: Shares = {"trained-on-robust": (0.94, 0.15, 0.0), "trained-on-nonrobust": (0.93, 0.15, 0.0)}
    nulls |= {"trained-on-random-labels": (0.2, 0.0, 0.0)}
    quick_study(tmp_path, MEASURED | nulls | shares, seeds=1, complete=False)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        run.record_stage("sets", 0.0, rows)
    finding = findings(StudyResults.read(tmp_path))[place]
    assert (finding.status, finding.meaning) == ("inconclusive", "unclear")
    assert words in finding.text and finding.text.endswith("Repeat the command with that and another --out.")


def test_the_stronger_d_r_is_inconclusive_where_its_source_is_weak(tmp_path: Path) -> None:
    weak = {
        "adversarial": (0.5, 0.45, 0.4),
        "trained-on-robust-strong": (0.9, 0.3, 0.1),
        "trained-on-correct-only": (0.9, 0.3, 0.1),
    }
    stronger = found(tmp_path, {**MEASURED, **weak})[3]
    assert (stronger.status, stronger.meaning) == ("inconclusive", "unclear")
    assert "but the adversarially trained model that D_R is made from has a clean accuracy of 50.4 %" in stronger.text


@pytest.mark.parametrize(
    ("nearest", "larger", "words"),
    [
        (9.0, 6.0, "allow larger perturbations (--relabel-epsilon 6)"),
        (5.0, 4.5, "allow larger perturbations (--relabel-epsilon 4.5)"),
        (3.4, None, "take more steps (--relabel-steps 60), or train on more images: larger perturbations would reach"),
    ],
)
def test_larger_perturbations_stay_below_the_nearest_image_of_another_class(
    tmp_path: Path, nearest: float, larger: float | None, words: str
) -> None:
    quick_study(tmp_path, MEASURED | {"trained-on-random-labels": (0.25, 0.0, 0.0)}, complete=False)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        run.record_stage("sets", 0.0, [SetRow(set="random-labels", target_reached=0.33, **ROW | {"epsilon": 3.0})])
        settings = run.metadata["settings"] | {"relabel_epsilon": 1.5, "relabel_steps": 20}
        run.update_metadata(settings=settings, data=run.metadata["data"] | {"nearest_other_class": nearest})
    results = StudyResults.read(tmp_path)
    assert larger_relabel_epsilon(results, "random-labels") == larger and words in findings(results)[3].text
    commands = [step.code for step in next_steps(results) if "relabel-epsilon" in step.code]
    assert len(commands) == bool(larger) and (not larger or f"--relabel-epsilon {larger:g}" in commands[0])


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("digits", "chosen on these test images"),
        ("mnist5k", "of which some are test images"),
        ("photos", "are defaults. They were"),
    ],
)
def test_where_settings_were_chosen_stands_with_what_depends_on_it(tmp_path: Path, dataset: str, words: str) -> None:
    quick_study(tmp_path, MEASURED, complete=False)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        run.update_metadata(dataset=dataset)
    assert [words in finding.details for finding in findings(StudyResults.read(tmp_path))] == [False, False, True, True, True]


def test_a_poor_d_r_has_a_command_that_improves_it(tmp_path: Path) -> None:
    quick_study(tmp_path, MEASURED | {"adversarial": (0.5, 0.45, 0.4)}, complete=False)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        run.record_stage("sets", 0.0, [SetRow(set="robust", feature_error=0.6, **ROW)])
        run.update_metadata(settings=run.metadata["settings"] | {"epochs": 8, "invert_steps": 20})
    (step,) = (step for step in next_steps(StudyResults.read(tmp_path)) if step.words.startswith("Improve D_R"))
    assert "--epochs 16" in step.code and "--invert-steps 60" in step.code and step.code.split("--out ")[1].endswith("-improved")


def test_a_result_stands_though_its_construction_was_poor(tmp_path: Path) -> None:
    quick_study(tmp_path, MEASURED, complete=False)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        run.record_stage("sets", 0.0, [SetRow(set="random-labels", target_reached=0.33, **ROW)])
    assert findings(StudyResults.read(tmp_path))[3].status == "supported"


def test_accuracy_below_chance_level_is_explained(tmp_path: Path) -> None:
    random, following = found(tmp_path, MEASURED | {"trained-on-next-labels": (0.01, 0.0, 0.0)})[3:]
    why = "(below chance level: an image's own features point to its true class, which is never its label)"
    assert f"control with shuffled perturbations reaches 1.4 % {why}, a difference of" in random.text
    unclear = (
        "But 1.4 % after training on `next-labels` is below chance level, as each image's own features point to its true class"
    )
    assert unclear in following.text and following.text.count("below chance level") == 1


def test_how_a_control_was_made_stands_apart_from_the_result(tmp_path: Path) -> None:
    finding = found(tmp_path, MEASURED)[3]
    assert "with its pixels shuffled" in finding.details and "pixels shuffled" not in finding.text and len(finding.text) < 700
    assert finding.text.endswith("So the perturbations contain features that generalize.")


def test_without_its_control_the_question_is_inconclusive(tmp_path: Path) -> None:
    shares = {model: share for model, share in MEASURED.items() if model != "trained-on-random-labels-shuffled"}
    finding = found(tmp_path, shares)[3]
    assert finding.status == "inconclusive" and "not evidence yet" in finding.text


def test_cross_accuracy_is_a_sentence_if_both_were_measured(tmp_path: Path) -> None:
    results = StudyResults.read(quick_study(tmp_path / "all", complete=False))
    assert cross_accuracy(results) == "Trained on D_R: accuracy 60.4 % on D_NR. Trained on D_NR: 60.4 % on D_R."
    shares = {model: share for model, share in MEASURED.items() if model != "trained-on-robust"}
    assert cross_accuracy(StudyResults.read(quick_study(tmp_path / "part", shares, complete=False))) == ""


# ---- answers -----------------------------------------------------------------------------------------------------------------


def answered(status: Status, low: float | None = None, high: float = 0.0) -> tuple[str, str]:
    effect = None if low is None else Estimate((low + high) / 2, low, high, 500, 3, True)
    finding = Finding("Is it?", status, "It is measured.", effect=effect)
    return finding.answer, finding.sentence


def test_a_question_has_an_answer_that_says_how_sure_it_is() -> None:
    assert answered("supported") == ("yes", "Yes, with 95 % confidence.")
    assert answered("partly supported", -0.1, 0.2) == ("partly", "Partly.")
    assert answered("inconclusive", -0.1, 0.2) == ("unclear", "Unclear.")
    assert answered("not supported") == ("no", "No, not measurably.")
    assert answered("not supported", -0.2, -0.1) == ("no", "No, the opposite, with 95 % confidence.")
    assert answered("not supported", -0.03, 0.021) == ("no", "No: with 95 % confidence at most 2.1 percentage points.")


def test_no_measured_difference_is_no_answer_where_a_large_one_is_not_excluded() -> None:
    answer, sentence = answered("not supported", -0.219, 0.098)
    assert answer == "unclear"
    assert sentence == "Unclear: the difference may be anything from −21.9 to 9.8 percentage points (95 % CI)."


def test_the_effect_of_a_finding_is_the_difference_that_decides(tmp_path: Path) -> None:
    results = StudyResults.read(quick_study(tmp_path, complete=False))
    standard, adversarial, split, random, following = findings(results)
    assert standard.effect == results.difference(("standard", 0), ("standard", 2))
    assert adversarial.effect == results.difference(("adversarial", 2), ("standard", 2))
    assert split.effect == results.difference(("trained-on-robust", 1), ("trained-on-nonrobust", 1), 2)
    assert random.effect == results.difference(("trained-on-random-labels", 0), ("trained-on-random-labels-shuffled", 0))
    accuracy = results.accuracy("trained-on-next-labels")
    assert accuracy and following.effect and following.effect.mean == pytest.approx(accuracy.mean - 0.25)
    assert [finding.answer for finding in findings(results)] == ["yes"] * 5


def test_d_det_says_how_often_the_next_class_is_predicted_and_that_its_control_is_missing(tmp_path: Path) -> None:
    quick_study(tmp_path, complete=False, seeds=1)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        run.record_stage("next", 0.0, [accuracy_row("trained-on-next-labels", 90, 500, wilson(90, 500), 0, set="test-next")])
    text = findings(StudyResults.read(tmp_path))[4].text
    assert "For 18.0 % of the test images it predicts the next class, as its labels teach" in text
    assert "right less often than chance: so chance level is a strict comparison" in text
    assert text.endswith("Its control with shuffled perturbations was not run; notbugs run --full adds it.")


def test_few_test_images_do_not_decide_whether_the_source_of_d_r_is_good_enough() -> None:
    def accuracy(correct: int, n: int) -> Accuracy:
        return Accuracy.from_counts(correct, n)

    few, many = undecided_source(accuracy(11, 18), 1 / 3, accuracy(13, 18)), accuracy(153, 200)
    assert few == ""  # 61 and 72 %, a third by chance: weak, which another warning says
    assert weak_source_warning(11 / 18, 0.386, 1 / 3, 13 / 18) and not weak_source_warning(13 / 18, 0.491, 1 / 3, 15 / 18)
    said = undecided_source(accuracy(13, 18), 1 / 3, accuracy(15, 18))
    assert said.startswith("18 test images do not decide") and "below about 70.8 %" in said and "[49.1, 87.5]" in said
    assert undecided_source(many, 1 / 3, accuracy(160, 200)) == ""
    said = not_more_robust(accuracy(9, 18), accuracy(5, 18))
    assert "robust accuracy 50.0 % and 27.8 %" in said and "Train for more epochs" in said
    assert not_more_robust(accuracy(90, 180), accuracy(50, 180)) == ""


@pytest.mark.parametrize(("correct", "said"), [(450, True), (355, False)])
def test_adversarial_training_that_overfits_to_its_attack_is_said(tmp_path: Path, correct: int, said: bool) -> None:
    """Of the 500 test images 300 are classified correctly under the ensemble: 90 % under the attack of training, or 71 %."""
    folder = quick_study(tmp_path, seeds=1, complete=False)
    with RunFolder.open(folder, {"kind": "study", "dataset": "digits"}) as run:
        run.update_metadata(settings={"epochs": 3, "adversarial_steps": 3})
        row = accuracy_row("adversarial", correct, 500, wilson(correct, 500), 0, set="test-training-attack", epsilon=1.5)
        run.record_stage("attack of training", 0.0, [row])
    results = StudyResults.read(folder)
    text = findings(results)[1].text
    assert (
        "Under the attack of training itself (PGD of 3 steps) robust accuracy is 90.0 %, 30.0 percentage points more (95 % CI ["
        in text
    ) == said
    assert ("(--adversarial-steps 10) or noise (--adversarial-noise 0.52)." in text) == said
    assert "test-training-attack" not in results.sets() and results.accuracy("adversarial", radius=2) is not None


def test_what_is_not_more_robust_may_overfit_to_its_attack(tmp_path: Path) -> None:
    """The worst case: nothing is left under the ensemble, and nearly all under the attack of training."""
    folder = quick_study(tmp_path, {**MEASURED, "adversarial": (0.95, 0.1, 0.0)}, seeds=1, complete=False)
    with RunFolder.open(folder, {"kind": "study", "dataset": "digits"}) as run:
        run.update_metadata(settings={"epochs": 3, "adversarial_steps": 3, "adversarial_noise": 0.6})
        row = accuracy_row("adversarial", 450, 500, wilson(450, 500), 0, set="test-training-attack", epsilon=1.5)
        run.record_stage("attack of training", 0.0, [row])
    text = findings(StudyResults.read(folder))[1].text
    assert "not measurably more robust. Under the attack of training itself (PGD of 3 steps) robust accuracy is 90.0 %" in text
    assert text.endswith("Train with more steps (--adversarial-steps 10).")  # it has the noise already
