"""Findings of a full study, on tables made for the purpose."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from report.conftest import (
    ACCURACIES,
    NETWORKS,
    RATES,
    SWEEP,
    Counted,
    N,
    consistency_rows,
    control_row,
    control_rows,
    find,
    full_study,
    mean_share,
    targeted_rows,
    transfer_rows,
)
from report.test_results import FALLING, RISING, UNRELATED, points, shares
from scipy import stats as scipy_stats

from notbugs.report import tables
from notbugs.report.findings import controls, findings
from notbugs.report.results import StudyResults
from notbugs.report.transferability import ExcessOverControl, accuracy_transfer_correlation, excesses
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import SetRow
from notbugs.runs.tables.transferability import ControlRow, TransferRow
from notbugs.stats import wilson_interval
from notbugs.study import comparisons
from notbugs.study.catalog.models import ARCHITECTURES, EPSILON_TEXTS, LEARNERS
from notbugs.study.comparisons import ALTERNATIVE_EXPLANATIONS, CONTROLS_OF, TRANSFER_SOURCES, control_short

D_RAND, D_DET = "the D_rand result", "the D_det result"  # parts of questions
INCL_TRUE = "D_rand as in the paper"
OTHERS, NON_NEURAL = "transfer to other architectures", "transfer to non-neural classifiers"
INITIALIZATION, FIGURE_3, SWEEP_QUESTION = "another random initialization", "figure 3", "slightly robust source"

# ---- controls ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("question", "model"), [(D_RAND, "trained-on-random-labels"), (D_DET, "trained-on-next-labels")], ids=["D_rand", "D_det"]
)
def test_a_result_that_exceeds_every_control_is_supported_with_all_figures(
    tmp_path: Path, seeds: int, question: str, model: str
) -> None:
    results = full_study(tmp_path, seeds)
    finding = find(results, question)
    assert finding.status == "supported" and finding.text.endswith(" The result exceeds each control.")
    assert finding.question == f"Does {question} exceed each of its controls?"
    for control in CONTROLS_OF[model]:
        rows = [row for row in results.rows(ControlRow) if (row.model, row.control) == (model, control)]
        mean = sum(row.control_accuracy for row in rows) / seeds
        assert f"{control_short(control)} {100 * mean:.1f} %" in finding.text
    filtered = mean_share(ACCURACIES[f"{model}-filtered"], seeds)
    assert f"new label: {100 * filtered:.1f} %" in finding.text


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    "control",
    ["trained-on-random-labels-shuffled", "trained-on-random-labels-class-patterns", "trained-on-random-labels-robust"],
)
def test_a_control_that_reaches_as_much_is_named(tmp_path: Path, seeds: int, control: str) -> None:
    accuracies = ACCURACIES | {control: ACCURACIES["trained-on-random-labels"] - 0.02}  # less, but within the interval
    finding = find(full_study(tmp_path, seeds, controls=lambda seed: control_rows(accuracies, seed)), D_RAND)
    assert finding.status == "partly supported"
    last = finding.text.split(". ")[-1]
    assert control_short(control) in last
    others = {control_short(name) for name in CONTROLS_OF["trained-on-random-labels"]} - {control_short(control)}
    assert not any(text in last for text in others)


@pytest.mark.parametrize("seeds", [1, 3])
def test_if_all_controls_reach_as_much_the_result_is_not_supported(tmp_path: Path, seeds: int) -> None:
    def equal(seed: int) -> list[ControlRow]:
        rows = control_rows(dict.fromkeys(ACCURACIES, 0.5), seed)
        half, other = Counted(0.5, seed), Counted(0.5, (seed + 1) % 4)
        return [control_row(row.model, row.control, row.rules_out, half, other, seed) for row in rows]

    results = full_study(tmp_path, seeds, controls=equal)
    for question in (D_RAND, D_DET):
        assert find(results, question).status == "not supported"


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("noise", [0.1, 0.005], ids=["shuffled reach as much", "at chance level"])
def test_what_remains_without_already_predicted_images_counts_as_a_control(tmp_path: Path, seeds: int, noise: float) -> None:
    """Without them the result is no higher than the shuffled control, or exceeds that near 0, but is at chance level."""
    accuracies = ACCURACIES | {"trained-on-random-labels-filtered": 0.1, "trained-on-random-labels-shuffled": noise}
    results = full_study(tmp_path, seeds, controls=lambda seed: control_rows(accuracies, seed))
    finding = find(results, D_RAND)
    assert finding.status == "partly supported" and f"new label: {100 * mean_share(0.1, seeds):.1f} %" in finding.text
    assert finding.text.endswith("accuracy is not measurably above chance level: these images may explain the result.")
    assert "so it may explain the result:" not in finding.text
    wanted = ("trained-on-random-labels-filtered", "trained-on-random-labels-shuffled")
    (filtered,) = [entry for entry in excesses(results) if (entry.model, entry.control) == wanted]
    assert filtered.above_chance.ci_low <= 0 and (filtered.excess.ci_low > 0) == (noise < 0.1)
    assert find(results, D_DET).status == "supported"


def test_alternatives_without_an_attack_are_reported_and_explain_nothing_away(tmp_path: Path) -> None:
    """Errors and photographs may teach more than the relabeled set: that does not explain the result."""
    accuracies = ACCURACIES | {"trained-on-misclassified-only": 0.9, "trained-on-unrelated-photos": 0.9}
    finding = find(full_study(tmp_path, controls=lambda seed: control_rows(accuracies, seed)), D_RAND)
    assert finding.status == "supported" and f"{control_short('trained-on-unrelated-photos')} 90.1 %" in finding.text


def test_a_result_at_chance_level_is_a_null_result_over_seeds(tmp_path: Path) -> None:
    """Ten classes, 10 %: the controls are near 0, and the result is at chance level."""
    accuracies = ACCURACIES | {"trained-on-random-labels": 0.1}
    finding = find(full_study(tmp_path, 3, controls=lambda seed: control_rows(accuracies, seed)), D_RAND)
    assert finding.status == "not supported" and "not measurably above chance level" in finding.text


def test_a_result_at_chance_level_is_a_null_result_of_one_seed_too(tmp_path: Path) -> None:
    accuracies = ACCURACIES | {"trained-on-random-labels": 0.1, "trained-on-random-labels-robust": 0.02}
    finding = find(full_study(tmp_path, 1, controls=lambda seed: control_rows(accuracies, seed)), D_RAND)
    assert finding.status == "not supported" and "not measurably above chance level" in finding.text


@pytest.mark.parametrize("seeds", [1, 3])
def test_without_controls_the_question_is_inconclusive(tmp_path: Path, seeds: int) -> None:
    """To exceed all of no controls is nothing."""

    def alternatives(seed: int) -> list[ControlRow]:
        return [row for row in control_rows(ACCURACIES, seed) if row.control in ALTERNATIVE_EXPLANATIONS]

    finding = find(full_study(tmp_path, seeds, controls=alternatives), D_RAND)
    assert finding.status == "inconclusive" and finding.text.endswith(" Without controls this is not evidence yet.")


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("accuracy", "control", "status"), [(0.78, 0.12, "supported"), (0.78, 0.77, "not supported"), (0.1, 0.02, "not supported")]
)
def test_d_rand_with_labels_that_are_right_by_chance(
    tmp_path: Path, seeds: int, accuracy: float, control: float, status: str
) -> None:
    """Supported if above its control of right labels and patterns, and above chance level; with all three figures."""
    model = "trained-on-random-labels-incl-true"
    accuracies = ACCURACIES | {model: accuracy, f"{model}-class-patterns": control}
    results = full_study(tmp_path, seeds, controls=lambda seed: control_rows(accuracies, seed))
    finding = find(results, INCL_TRUE)
    assert finding.status == status
    (entry,) = [entry for entry in excesses(results) if entry.control == f"{model}-class-patterns"]
    assert f"test accuracy {100 * mean_share(accuracy, seeds):.1f} %" in finding.text
    assert f"reaches {100 * entry.control_accuracy:.1f} %" in finding.text
    assert f"{entry.excess.points} (95 % CI {entry.excess.interval} over" in finding.text


# ---- transferability ---------------------------------------------------------------------------------------------------------


def test_that_learners_were_fitted_to_fewer_images_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = full_study(tmp_path, 1)
    assert "fitted" not in find(results, NON_NEURAL).text
    monkeypatch.setattr(comparisons, "LEARNER_VALUES", 64 * 30)
    said = " They were fitted to 30 of the 90 training images: more take hours and gigabytes."
    assert find(results, NON_NEURAL).text.endswith(said) and said not in find(results, OTHERS).text


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("question", "titles"), [(OTHERS, ARCHITECTURES), (NON_NEURAL, LEARNERS)], ids=["architectures", "learners"]
)
def test_transfer_beyond_random_perturbations(tmp_path: Path, seeds: int, question: str, titles: dict[str, str]) -> None:
    finding = find(full_study(tmp_path, seeds), question)
    assert finding.status == "supported" and "; the standard model itself misclassifies 99.0 %." in finding.text
    assert f"misclassified by {len(titles)} {question.removeprefix('transfer to ')}:" in finding.text
    same = []
    for name, title in titles.items():
        correct = [Counted(RATES[name], seed).correct for seed in range(seeds)]
        same.append(sum(round(0.75 * count) for count in correct) / N / seeds)
        assert f"{title} {100 * sum(correct) / N / seeds:.1f} %" in finding.text
    assert f"the same size: at most {100 * mean_share(0.02, seeds):.1f} %." in finding.text
    assert f"same mistake as the standard model: {100 * min(same):.1f} % to {100 * max(same):.1f} %." in finding.text


@pytest.mark.parametrize("seeds", [1, 3])
def test_transfer_no_higher_than_after_random_perturbations(tmp_path: Path, seeds: int) -> None:
    one = RATES | {"mixer": 0.03}  # a point more than random perturbations, within the intervals
    partly = find(full_study(tmp_path / "one", seeds, transfer=lambda seed: transfer_rows(one, seed)), OTHERS)
    assert partly.status == "partly supported"
    low = dict.fromkeys(RATES, 0.03)
    none = find(full_study(tmp_path / "none", seeds, transfer=lambda seed: transfer_rows(low, seed)), OTHERS)
    assert none.status == "not supported"


def test_a_target_without_correct_images_is_left_out(tmp_path: Path) -> None:
    """n of 0 has no rate: no crash, and no mention of it."""

    def rows(seed: int) -> list[TransferRow]:
        blank = {
            "n": 0,
            "not_misclassified": 0,
            "same_mistake": 0,
            "other_mistake": 0,
            "transfer_rate": None,
            "source_rate": None,
        }
        found = transfer_rows(RATES, seed)
        return [replace(row, **blank, ci_low=0.0, ci_high=1.0) if row.target == "vgg" else row for row in found]

    finding = find(full_study(tmp_path / "some", 2, transfer=rows), OTHERS)
    assert "VGG" not in finding.text and "DenseNet" in finding.text and "by 4 other architectures" in finding.text
    only = full_study(tmp_path / "only", 1, transfer=lambda seed: [row for row in rows(seed) if row.target == "vgg"])
    assert not any(OTHERS in each.question for each in findings(only))


@pytest.mark.parametrize("seeds", [1, 3])
def test_adversarial_examples_shared_by_another_initialization(tmp_path: Path, seeds: int) -> None:
    finding = find(full_study(tmp_path, seeds), INITIALIZATION)
    assert finding.status == "supported"
    assert all(f"{100 * mean_share(share, seeds):.1f} %" in finding.text for share in (0.9, 0.6, 0.02))
    low, high = wilson_interval(9, 12)
    words = "both misclassify 12 test images, 75.0 % of these as the same class "
    assert f"{words}(95 % CI [{100 * low:.1f}, {100 * high:.1f}]; 25.0 % by chance)" in finding.text
    assert "(+2.0 percentage points, 95 % CI" in finding.text  # next-labels: 62 % and 60 % in every seed


def test_adversarial_examples_shared_by_the_same_initialization_only(tmp_path: Path) -> None:
    rates = RATES | {"reinit-1": 0.02}
    results = full_study(
        tmp_path, transfer=lambda seed: transfer_rows(rates, seed), error_consistency=lambda seed: consistency_rows(seed, 0)
    )
    finding = find(results, INITIALIZATION)
    assert finding.status == "not supported" and "as the same class" not in finding.text


def test_same_mistakes_over_seeds_have_a_share_with_its_interval(tmp_path: Path) -> None:
    """9 of 12, 12 of 12, and none that both misclassify."""
    counts = [(12, 9), (12, 12), (0, 0)]
    results = full_study(tmp_path, 3, error_consistency=lambda seed: consistency_rows(seed, *counts[seed]))
    words = "both misclassify 8 test images, 87.5 % of these as the same class (95 % CI [0.0, 100.0];"
    assert words in find(results, INITIALIZATION).text


# ---- figure 3 of the paper ---------------------------------------------------------------------------------------------------

WEAK = dict(zip(NETWORKS, (0.3, 0.62, 0.5, 0.2, 0.6, 0.5), strict=True))


def test_a_correlation_due_to_the_sources_own_architecture_is_visible(tmp_path: Path) -> None:
    """One architecture far up in both, five that fall: 0.9 with it, below 0 without."""
    accuracies = dict(zip(NETWORKS, (0.9, 0.3, 0.32, 0.34, 0.36, 0.38), strict=True))
    rates = dict(zip(NETWORKS, (0.9, 0.38, 0.36, 0.3, 0.32, 0.34), strict=True))
    made = points(accuracies, rates)
    results = full_study(tmp_path, 1, accuracy=made["accuracy"], transfer=lambda seed: transfer_rows(rates, seed))
    wanted = scipy_stats.pearsonr(*(column[1:] for column in shares(results, 0))).statistic
    assert wanted < -0.5
    assert f"−{-wanted:.2f} without the source's own." in find(results, FIGURE_3).text


@pytest.mark.parametrize(
    ("rates", "seeds", "status", "words"),
    [
        (RISING, 1, "supported", "Correlation 1.00"),
        (RISING, 3, "supported", "Correlation 1.00"),
        (FALLING, 1, "not supported", "opposite"),
        (FALLING, 3, "not supported", "opposite"),
        (UNRELATED, 1, "inconclusive", "includes 0"),
    ],
)
def test_correlation_of_accuracy_and_transfer(
    tmp_path: Path, rates: dict[str, float], seeds: int, status: str, words: str
) -> None:
    results = full_study(tmp_path, seeds, **points(RISING, rates))
    finding = find(results, FIGURE_3)
    assert finding.status == status and words in finding.text
    found = accuracy_transfer_correlation(results)
    assert found
    mean, low, high = (f"{value:.2f}" for value in found.correlation[:3])
    others = f"{found.without_own.mean:.2f} without the source's own"
    assert f"Correlation {mean} (95 % CI [{low}, {high}] over 6 architectures), {others}".replace("-", "−") in finding.text
    assert "seeds" not in finding.text and "-0" not in finding.text


@pytest.mark.parametrize("rates", [UNRELATED, WEAK], ids=["slightly below 0", "slightly above 0"])
def test_the_same_six_architectures_again_are_no_further_ones(tmp_path: Path, rates: dict[str, float]) -> None:
    """A correlation of six architectures that is small in each seed (Fisher's interval: −0.8 to 0.8) is no evidence.

    An interval over seeds would exclude 0: what varies from seed to seed is not what varies between architectures.
    """
    results = full_study(tmp_path, 3, **points(RISING, rates))
    for seed in range(3):
        ends = scipy_stats.pearsonr(*shares(results, seed)).confidence_interval()
        if not ends.low < 0 < ends.high:
            pytest.fail("not what this test is about")
    finding = find(results, FIGURE_3)
    assert finding.status == "inconclusive" and "includes 0" in finding.text


def test_an_architecture_without_figures_leaves_no_finding(tmp_path: Path) -> None:
    results = full_study(tmp_path, 2, transfer=lambda seed: transfer_rows({"reinit-1": 0.5}, seed))
    assert not any(FIGURE_3 in finding.question for finding in findings(results))


# ---- slightly robust sources -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_best_source_is_compared_with_the_standard_one_corrected_for_the_choice(tmp_path: Path, seeds: int) -> None:
    results = full_study(tmp_path, seeds)
    finding = find(results, SWEEP_QUESTION)
    means = {
        source: [
            sum(
                row.transfer_rate or 0.0
                for row in results.rows(TransferRow)
                if (row.source, row.target, row.perturbation) == (source, name, "targeted")
            )
            / seeds
            for name in NETWORKS
        ]
        for source in TRANSFER_SOURCES
    }
    gains = [one - other for one, other in zip(means["adversarial-quarter"], means["standard"], strict=True)]
    level = 1 - 0.05 / 4  # Bonferroni: all sources but those at the ends
    low, high = scipy_stats.t.interval(level, 5, loc=sum(gains) / 6, scale=scipy_stats.sem(gains))
    assert finding.status == ("partly supported" if seeds == 1 else "supported")
    assert finding.text.endswith(" One training per source only.") == (seeds == 1)
    assert f"exceeds the standard source by {100 * sum(gains) / 6:.1f} percentage points" in finding.text
    interval = f"[{100 * low:.1f}, {100 * high:.1f}] over the 6 networks, corrected for choosing the best of 4)."
    assert f"(95 % CI {interval}" in finding.text
    for source, text in EPSILON_TEXTS.items():
        assert f"{text}: {100 * sum(means[source]) / 6:.1f} %" in finding.text
    assert "The best, ε/4" in finding.text


@pytest.mark.parametrize("best", ["standard", "adversarial"])
def test_a_best_source_at_an_end_is_no_slightly_robust_one(tmp_path: Path, best: str) -> None:
    finding = find(full_study(tmp_path, 2, transfer=lambda seed: targeted_rows(SWEEP | {best: 0.6}, seed)), SWEEP_QUESTION)
    words = "The standard source is best" if best == "standard" else "The most robust source is best"
    assert finding.status == "not supported" and words in finding.text


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_gain_within_the_spread_of_networks_is_not_supported(tmp_path: Path, seeds: int) -> None:
    equal = dict.fromkeys(TRANSFER_SOURCES, 0.3) | {"adversarial-half": 0.32}
    finding = find(full_study(tmp_path, seeds, transfer=lambda seed: targeted_rows(equal, seed, 0.05)), SWEEP_QUESTION)
    assert finding.status == "not supported" and "−" in finding.text


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("rates", [(0.1, 0.15, 0.2, 0.3, 0.404, 0.402), (0.402, 0.2, 0.2, 0.3, 0.404, 0.1)], ids=["ε", "0"])
def test_a_source_no_better_than_one_at_an_end_is_not_best(tmp_path: Path, seeds: int, rates: tuple[float, ...]) -> None:
    """ε/2 transfers as ε does, or as the standard source, to 0.2 percentage points, and is far above the other end."""
    sources = dict(zip(TRANSFER_SOURCES, rates, strict=True))
    finding = find(full_study(tmp_path, seeds, transfer=lambda seed: targeted_rows(sources, seed)), SWEEP_QUESTION)
    assert finding.status == "not supported" and "The best, ε/2" in finding.text


def test_an_incomplete_sweep_gives_no_finding(tmp_path: Path) -> None:
    sources = {name: rate for name, rate in SWEEP.items() if name != "adversarial-half"}
    results = full_study(tmp_path, transfer=lambda seed: targeted_rows(sources, seed))
    assert not any(SWEEP_QUESTION in finding.question for finding in findings(results))


# ---- all of them -------------------------------------------------------------------------------------------------------------


def test_a_quick_study_has_no_such_findings(tmp_path: Path) -> None:
    results = full_study(tmp_path / "quick", 2, controls=None, transfer=None, error_consistency=None)
    assert controls.findings(results) == [] and tables.controls_table(results)[1] == [] and excesses(results) == []
    RunFolder.open(tmp_path / "empty", {}).close()
    assert controls.findings(StudyResults.read(tmp_path / "empty")) == []


@pytest.mark.parametrize("missing", ["accuracy", "controls", "transfer", "error_consistency"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_missing_table_costs_its_own_findings_only(tmp_path: Path, missing: str, seeds: int) -> None:
    whole, part = full_study(tmp_path / "whole", seeds), full_study(tmp_path / "part", seeds, **{missing: None})
    asked, left = ([one.question for one in controls.findings(results)] for results in (whole, part))
    assert len(asked) == 8 and {*left} <= {*asked}
    lost = {"accuracy": 1, "controls": 3, "transfer": 5, "error_consistency": 0}
    assert len(asked) - len(left) == lost[missing]
    assert [one.question for one in findings(part)][-len(left) :] == left


@pytest.mark.parametrize("seeds", [1, 3])
def test_no_sentence_has_what_is_no_number(tmp_path: Path, seeds: int) -> None:
    found = controls.findings(full_study(tmp_path, seeds))
    assert len(found) == 8
    assert {one.status for one in found} <= {"supported", "partly supported", "not supported", "inconclusive"}
    for finding in found:
        assert finding.question.endswith(("?", ")")) and finding.text.endswith(".")
        assert not any(word in finding.text for word in ("nan", "None", "inf ", "--", "  ", ".."))


def test_a_control_of_another_size_is_cautioned() -> None:
    """Else a control whose perturbations were clipped would be exceeded because they are smaller."""

    def said(own: float | None, controlled: float) -> str:
        rows = [
            SetRow(set=name, seed=0, n=9, made_from="standard", mean_l2=size, seconds=1.0)
            for name, size in (("random-labels-shuffled", own), ("random-labels", controlled))
        ]
        results = cast(StudyResults, SimpleNamespace(rows=lambda kind: rows))
        entry = cast(ExcessOverControl, SimpleNamespace(control="trained-on-random-labels-shuffled"))
        return controls._other_size(results, "random-labels", entry)

    assert said(1.5, 1.5) == said(1.45, 1.5) == said(None, 1.5) == ""
    assert "have a mean L2 norm of 1.19, those of random-labels 1.5. " in said(1.19, 1.5)
    assert said(1.8, 1.5)


def test_a_control_that_reaches_few_labels_says_so() -> None:
    def said(own: float | None, controlled: float | None) -> str:
        reached = {"random-labels-shuffled": own, "random-labels": controlled}
        results = cast(StudyResults, SimpleNamespace(target_reached=reached.get))
        entry = cast(ExcessOverControl, SimpleNamespace(control="trained-on-random-labels-shuffled"))
        return controls._reached(results, "random-labels", entry)

    assert said(None, 1.0) == said(0.5, None) == ""
    assert said(0.9, 1.0).endswith(
        "of the images of shuffled perturbations as their new label, 100.0 % of those of random-labels."
    )
    assert said(0.3, 1.0).endswith(" It may lack more of the label's features than it was made to lack.")
