"""The headline and the tiles of a study, on accuracies made for the purpose."""

from pathlib import Path

import pytest
from report.conftest import MEASURED, Shares, accuracy_row, quick_study, wilson

from notbugs import report
from notbugs.report.findings import findings
from notbugs.report.findings.headline import certainty, headline
from notbugs.report.findings.split import short_answer
from notbugs.report.pages.study import tiles
from notbugs.report.results import StudyResults
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import SetRow, TrainingRow


def study(folder: Path, shares: Shares, seeds: int = 3) -> StudyResults:
    return StudyResults.read(quick_study(folder, shares, seeds=seeds, complete=False))


def test_says_how_vulnerable_and_what_helps(tmp_path: Path) -> None:
    first, robust, relabeled, adversarial, size = headline(study(tmp_path, MEASURED))
    assert first == (
        "Standard training gives a classifier that is easily fooled: 97.4 % accuracy on clean images, "
        "0.0 % under attack within L2 ε = 1.5, 15.4 % within 0.75."
    )
    assert size == "L2 ε = 1.5 is 31 % of a typical image's norm."
    within = "raises accuracy under attack within L2 ε = 1.5 from 0.0 % to"
    left = "39.6 % are still misclassified, more under a stronger attack"
    assert (
        adversarial
        == f"Adversarial training {within} 60.4 %, +60.4 [59.4, 61.4] points (clean: −2.0 points [−4.6, 0.5]); {left}."
    )
    source = "other images, with the features that the adversarially trained model has for the originals"
    cost = "below chance (25.0 %) (clean: −3.0 points [−5.7, −0.4]); trained on D_NR: 0.0 %, "
    cost += "D_R minus D_NR +20.4 [19.0, 21.8]."
    assert robust == f"Standard training on D_R ({source}) {within} 20.4 %, +20.4 [19.0, 21.8] points (for both ε), {cost}"
    control = (
        "its control with shuffled perturbations 1.4 %. Where the images' own features all point to another class (D_det): yes, "
    )
    assert relabeled.endswith(
        f"reaches 88.4 % on clean test images, chance level 25.0 %; {control}70.4 % [69.4, 71.4]. "
        "Chance level is a strict comparison there: perturbations without features would teach to predict the other class."
    )


def test_says_what_the_intervals_cover(tmp_path: Path) -> None:
    bound = " Accuracy under attack is an upper bound: a stronger attack than ensemble-standard v6 could only lower it."
    bound += " All figures hold for these images, these trained models and this ε."
    assert certainty(study(tmp_path / "one", MEASURED, seeds=1)) == (
        "One training run (seed): the 95 % CIs cover the choice of the 500 test images, not another training." + bound
    )
    assert certainty(study(tmp_path / "three", MEASURED)) == (
        "3 training runs (seeds): the 95 % CIs are of the mean over these, or over the 500 test images where all give the same. "
        "They do not cover the choice of the test images." + bound
    )
    assert certainty(study(tmp_path / "none", {})) == ""


def test_the_settings_of_a_relabeled_set_stand_beside_its_figure(tmp_path: Path) -> None:
    quick_study(tmp_path, complete=False)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        run.record_stage("set", 0.0, [SetRow(set="random-labels", epsilon=3.0, seed=0, n=90, made_from="standard", seconds=1.0)])
        curves = [
            TrainingRow(model=f"trained-on-random-labels{of}", seed=0, epoch=9, test_accuracy=share, accuracy=0.9, loss=1.0,
                        learning_rate=0.0, seconds=1.0)
            for of, share in (("", 0.4), ("-shuffled", 0.1))
        ]  # fmt: skip
        run.record_stage("curves", 0.0, curves)
        run.update_metadata(settings={"adapt_batchnorm": True, "network": "resnet9"})
    first, _, relabeled, *_ = headline(StudyResults.read(tmp_path))
    assert first.startswith("Standard training (resnet9, trained here on these images) gives a classifier")
    assert "perturbed within L2 ε = 3 towards" in relabeled
    adapted = "(40.0 % before its batch-norm statistics are adapted to the clean training images, without labels), chance level"
    assert adapted in relabeled and "shuffled perturbations 1.4 % (10.0 % before)." in relabeled
    assert "This ε is 2 times that of the attacks: that these features are non-robust is not shown." in relabeled
    details = next(finding.details for finding in findings(StudyResults.read(tmp_path)) if "D_rand" in finding.question)
    assert "with those of the relabeled images its test accuracy is 40.0 %" in details and "(without: 10.0 %" in details


def test_a_gain_at_half_of_epsilon_alone_is_said_there(tmp_path: Path) -> None:
    shares = MEASURED | {"trained-on-robust": (0.94, 0.5, 0.0)}
    robust = headline(study(tmp_path, shares))[1]
    assert robust.endswith(
        "raises accuracy under attack within L2 ε = 0.75 from 15.4 % to 50.4 %, +35.0 [28.7, 40.9] points (for both ε) "
        "(clean: −3.0 points [−5.7, −0.4]); "
        "trained on D_NR: 20.4 %, D_R minus D_NR +30.0 [23.4, 36.2]. "
        "Unclear within 1.5: from 0.0 % to 0.0 %, +0.0 [−1.0, 1.0] points."
    )


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"standard": (0.97, 0.97, 0.97)}, "loses no measurable accuracy"),
        ({"standard": (0.97, 0.9, 0.8)}, "that is fooled: 97.4 %"),
        ({"standard": (0.25, 0.0, 0.0)}, "not measurably better than chance"),
        ({"adversarial": (0.95, 0.15, 0.0)}, "Adversarial training does not measurably raise accuracy under attack."),
        ({"trained-on-robust": (0.95, 0.1, 0.0)}, "originals) does not measurably raise accuracy under attack."),
    ],
)
def test_a_null_result_is_said(tmp_path: Path, shares: Shares, words: str) -> None:
    assert words in " ".join(headline(study(tmp_path, MEASURED | shares)))


ON_D_R = "standard training on D_R (the robust version of the images)"
SET_ROBUST, SET_NONROBUST = "trained-on-robust", "trained-on-nonrobust"


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({}, f"S{ON_D_R[1:]} is more robust than on the originals: 50.4 % against 15.4 % at L2 ε = 0.75."),
        (
            {SET_ROBUST: (0.94, 0.21, 0.2), SET_NONROBUST: (0.93, 0.0, 0.0)},
            f"S{ON_D_R[1:]} is more robust than on the originals: 20.4 % against 0.0 % at L2 ε = 1.5; below chance (25.0 %).",
        ),
        (
            {SET_NONROBUST: (0.93, 0.6, 0.3)},
            f"S{ON_D_R[1:]} is more robust than on the originals (50.4 % against 15.4 % at L2 ε = 0.75), "
            "but not measurably more than on D_NR.",
        ),
        (
            {SET_ROBUST: (0.94, 0.05, 0.3)},
            f"S{ON_D_R[1:]} is more robust than on the originals (30.4 % against 0.0 % at L2 ε = 1.5), "
            "but the reverse at the other ε.",
        ),
        (
            {SET_ROBUST: (0.94, 0.16, 0.0), SET_NONROBUST: (0.93, 0.16, 0.0)},
            f"Whether {ON_D_R} is more robust than on the originals is unclear: 16.4 % against 15.4 % at L2 ε = 0.75.",
        ),
        (
            {SET_ROBUST: (0.94, 0.0, 0.0), SET_NONROBUST: (0.93, 0.01, 0.1)},
            f"S{ON_D_R[1:]} is less robust than on the originals: 0.0 % against 15.4 % at L2 ε = 0.75.",
        ),
        (
            {"standard": (0.97, 0.0, 0.0), SET_ROBUST: (0.94, 0.0, 0.0), SET_NONROBUST: (0.93, 0.01, 0.1)},
            f"S{ON_D_R[1:]} is not measurably more robust than on the originals: 0.0 % against 0.0 % at L2 ε = 0.75.",
        ),
        (
            {
                "standard": (0.97, 0.75, 0.55),
                "adversarial": (0.95, 0.9, 0.8),
                SET_ROBUST: (0.94, 0.2, 0.1),
                SET_NONROBUST: (0.93, 0.7, 0.5),
            },
            f"S{ON_D_R[1:]} is less robust than on the originals: 20.4 % against 75.4 % at L2 ε = 0.75.",
        ),
        (
            {"adversarial": (0.5, 0.4, 0.3), SET_ROBUST: (0.94, 0.15, 0.0), SET_NONROBUST: (0.93, 0.15, 0.0)},
            "Whether D_R (the robust version of the images) helps cannot be said here: the adversarially trained model that D_R "
            "is made from has a clean accuracy of 50.4 %, the standard one 97.4 %.",
        ),
    ],
)
def test_the_first_screen_says_what_was_found_for_the_robust_data(tmp_path: Path, shares: Shares, sentence: str) -> None:
    assert short_answer(study(tmp_path, MEASURED | shares)) == sentence


def test_nothing_is_said_of_robust_data_that_was_not_compared(tmp_path: Path) -> None:
    assert short_answer(study(tmp_path / "none", {})) == ""
    without = {model: shares for model, shares in MEASURED.items() if model != "trained-on-nonrobust"}
    assert short_answer(study(tmp_path / "no-nonrobust", without)) == ""


def test_relabeled_sets_are_named_only_with_a_control_that_fails(tmp_path: Path) -> None:
    controls = (
        ({"trained-on-random-labels": (0.2, 0.0, 0.0)}, "unclear"),
        ({"trained-on-random-labels-shuffled": (0.9, 0.0, 0.0)}, "no"),
    )
    for place, (shares, answer) in enumerate(controls):
        found = headline(study(tmp_path / str(place), MEASURED | shares))[2]
        assert f"as training on wrong labels tests? D_rand {answer}, D_det yes (see Findings)." in found
        assert ("Why: 20.4 % after training on `random-labels` is below chance level, as each image's own" in found) == (
            answer == "unclear"
        )


def test_tiles_hold_the_figures_and_what_they_mean(tmp_path: Path) -> None:
    shown = tiles(study(tmp_path, MEASURED))
    assert [tile.value for tile in shown] == ["97.4 %", "0.0 %", "60.4 %", "20.4 %", "88.4 %"]
    assert [tile.meaning for tile in shown] == ["neutral", "bad", "good", "neutral", "neutral"]
    assert [tile.comparison for tile in shown] == [
        "",
        "97.4 percentage points below clean accuracy, below chance (25.0 %)",
        "above standard training",
        "above standard training",
        "above chance (25.0 %)",
    ]
    assert shown[0].details == ["500 test images, 3 seeds"]
    assert shown[2].label == "Robust accuracy at L2 ε = 1.5, adversarial training"
    assert shown[2].details == ["80.4 % [79.4, 81.4] at 0.75, 95.4 % clean"]
    below = "no defense: below chance (25.0 %)"
    assert shown[3].details == [below, "40.0 points below adversarial training", "50.4 % [49.4, 51.4] at 0.75, 94.4 % clean"]
    control = ["above its control (1.4 %), whose perturbations are shuffled"]
    assert (shown[4].label, shown[4].details) == ("Clean accuracy, trained on wrong labels (D_rand)", control)
    weak = tiles(study(tmp_path / "weak", MEASURED | {"trained-on-robust": (0.94, 0.2, 0.0), "adversarial": (0.9, 0.1, 0.002)}))
    assert [tile.meaning for tile in weak] == ["neutral", "bad", "bad", "unclear", "neutral"]
    assert weak[2].comparison == "unclear at 1.5, below standard training at 0.75"
    assert weak[3].comparison == "not measurably different from standard training"
    assert weak[3].details == ["no defense: below chance (25.0 %)", "20.4 % [19.4, 21.4] at 0.75, 94.4 % clean"]
    null = tiles(study(tmp_path / "null", MEASURED | {"trained-on-random-labels-shuffled": (0.9, 0.0, 0.0)}))[4]
    assert (null.meaning, null.comparison) == ("unclear", "above chance (25.0 %)")
    assert null.details == ["not measurably above its control (90.4 %), whose perturbations are shuffled"]
    below_chance = tiles(study(tmp_path / "below", MEASURED | {"trained-on-random-labels": (0.2, 0.0, 0.0)}))[4]
    assert (below_chance.meaning, below_chance.comparison) == ("unclear", "below chance (25.0 %)")
    half = tiles(study(tmp_path / "half", MEASURED | {"trained-on-robust": (0.94, 0.15, 0.3)}))[3]
    above = "above standard training at 1.5, unclear at 0.75"
    assert (half.meaning, half.comparison) == ("good", above)
    assert tiles(study(tmp_path / "none", {})) == []


@pytest.mark.parametrize(
    ("source", "norm", "words"),
    [
        (
            "gap",
            "l2",
            "as about the difference of two distances: the nearest image of another class is 7.03 away (median), of the",
        ),
        (
            "pixels",
            "l2",
            "as much per pixel as 0.5 on CIFAR-10 (Ilyas et al. 2019). The nearest image of another class is 7.03 away",
        ),
        ("gap", "linf", "8/255, as usual on CIFAR-10, times what these images allow more of in L2. The nearest image"),
        ("pixels", "linf", "It was chosen by notbugs (--epsilon changes it): as usual on CIFAR-10. The nearest image"),
        ("dataset", "l2", "It was chosen by notbugs (--epsilon changes it), for this data set. The nearest image"),
        ("option", "l2", "It was set by --epsilon. The nearest image"),
    ],
)
def test_the_first_screen_says_why_epsilon_has_its_value(tmp_path: Path, source: str, norm: str, words: str) -> None:
    quick_study(tmp_path, complete=False)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        data = run.metadata["data"] | {"nearest_same_class": 5.46, "nearest_other_class": 7.03}
        run.update_metadata(norm=norm, data=data, settings={"epsilon_from": source})
    assert words in headline(StudyResults.read(tmp_path))[-1]


def test_random_labels_that_may_be_true_are_no_evidence_alone(tmp_path: Path) -> None:
    shares = {"trained-on-random-labels": (0.2, 0.0, 0.0), "trained-on-random-labels-incl-true": (0.4, 0.0, 0.0)}
    relabeled = headline(study(tmp_path, MEASURED | shares))[2]
    assert relabeled.endswith(" With the true label among the random ones: 40.4 %, no evidence without its control.")


def test_the_curve_never_rises_and_keeps_the_stronger_attack(tmp_path: Path) -> None:
    quick_study(tmp_path, {"standard": (0.97, 0.15, 0.04)}, seeds=1, complete=False)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        rows = [
            accuracy_row("standard", correct, 500, wilson(correct, 500), 0, epsilon=epsilon, attack="ensemble-quick v6")
            for epsilon, correct in ((0.375, 300), (1.125, 90), (1.5, 30), (2.25, 0))  # 90 is more than the 75 at 0.75
        ]
        run.record_stage("curve", 0.0, rows)
    curve = StudyResults.read(tmp_path).accuracy_curve("standard")
    assert [(point.epsilon, round(500 * point.accuracy.mean)) for point in curve] == [
        (0, 485), (0.375, 300), (0.75, 75), (1.125, 75), (1.5, 20), (2.25, 0)
    ]  # fmt: skip
    assert [point.attack for point in curve][::4] == ["none", "ensemble-standard v6"]
    assert (curve[3].accuracy.ci_low, curve[3].accuracy.ci_high) == (curve[2].accuracy.ci_low, curve[2].accuracy.ci_high)


def test_notes_on_the_data_say_once_what_is_beyond_the_limit(tmp_path: Path) -> None:
    quick_study(tmp_path, complete=False)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        data = run.metadata["data"]
        left_out = {"is beyond --limit 90": 1000, "is no image": 2}
        run.update_metadata(data=data | {"notes": ["--limit 90: 90 of 1,090 training images"], "left_out": left_out})
    page = report.write(tmp_path).read_text()
    assert "--limit 90: 90 of 1,090 training images. Left out: 2 files (2: is no image). Listed in <code>" in page
    assert "1,000" not in page.partition("<main>")[0].partition("</style>")[2]
