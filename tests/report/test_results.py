"""Results of a study: aggregates against scipy, on tables made for the purpose."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from report.conftest import (
    ACCURACIES,
    MEASURED,
    NETWORKS,
    RATES,
    Counted,
    MakeRows,
    accuracy_rows,
    consistency_rows,
    control_rows,
    full_study,
    made_study,
    mean_share,
    quick_study,
    student,
    transfer_rows,
    wilson,
)
from scipy import stats as scipy_stats

from notbugs.report import transferability
from notbugs.report.results import StudyResults
from notbugs.report.transferability import TRAINED_ON_D_DET
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import AccuracyRow, TrainingRow
from notbugs.runs.tables.transferability import ControlRow, PerturbationLeakageRow, RobustFeatureLeakageRow, TransferRow
from notbugs.stats import newcombe_difference, wilson_interval
from notbugs.study.catalog.models import ARCHITECTURES

# ---- accuracy ----------------------------------------------------------------------------------------------------------------


def test_intervals_over_seeds_are_students(tmp_path: Path) -> None:
    results = StudyResults.read(quick_study(tmp_path, complete=False))
    accuracy = results.accuracy("adversarial", radius=1)
    assert accuracy and (accuracy.ci_low, accuracy.ci_high) == pytest.approx(student([0.8, 0.804, 0.808]))
    gap = results.difference(("trained-on-robust", 1), ("trained-on-nonrobust", 1))  # 0.3 in each seed: an interval all the same
    assert gap and gap.mean == pytest.approx(0.3) and gap.ci_high - gap.ci_low > 0.05
    nothing = results.accuracy("standard", radius=2)  # 0 of 500 in each seed: not an interval of length 0
    assert nothing and nothing.ci_low == pytest.approx(0) and nothing.ci_high == pytest.approx(wilson(0, 500)[1])


def test_of_several_attacks_the_lowest_accuracy_counts(tmp_path: Path) -> None:
    quick_study(tmp_path, seeds=1, complete=False)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        wanted = ("adversarial", "test", 1.5)
        (row,) = [row for row in run.rows(AccuracyRow) if (row.model, row.set, row.epsilon) == wanted]
        run.record_stage("stronger", 0.0, [replace(row, accuracy=0.55, attack="stronger")])
        run.record_stage("weaker", 0.0, [replace(row, accuracy=0.65, attack="weaker")])
    results = StudyResults.read(tmp_path)
    assert results.accuracy_by_seed("adversarial", radius=2)[0].attack == "stronger"
    assert results.accuracy("adversarial", radius=2)[0] == 0.55  # type: ignore[index]
    assert results.accuracy("no such model") is None and results.accuracy("adversarial", "no such set") is None


def test_names_and_chance_level_come_from_the_run(tmp_path: Path) -> None:
    results = StudyResults.read(quick_study(tmp_path, complete=False))
    assert results.models() == [*list(MEASURED)[:5], "trained-on-next-labels", "trained-on-random-labels-shuffled"]
    assert results.sets() == ["test", "original", "robust", "nonrobust"]
    assert results.models_on_other_sets() == results.models() and results.seeds == 3
    assert (results.chance, results.threat_model(1), results.threat_model()) == (0.25, "L2 ε = 0.75", "L2 ε = 1.5")
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        run.update_metadata(norm="linf", epsilon=8 / 255, epsilon_text="8/255", data={"classes": ["a", "b"], "most_common": 0.7})
    again = StudyResults.read(tmp_path)
    assert (again.chance, again.threat_model(1), again.threat_model()) == (0.7, "Linf ε = 4/255", "Linf ε = 8/255")


def test_an_empty_run_has_no_results(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, {}).close()
    results = StudyResults.read(tmp_path)
    assert math.isnan(results.chance) and results.models() == results.sets() == [] and results.seeds == 0
    assert results.accuracy("standard") is None and results.difference(("standard", 0), ("standard", 2)) is None
    assert (
        transferability.accuracy_transfer_correlation(results) is None
        and results.review_answers == []
        and results.review_problem == ""
    )


# ---- controls and transferability --------------------------------------------------------------------------------------------


def test_an_excess_has_newcombes_interval() -> None:
    """Newcombe 1998, method 10, for 56 of 70 against 48 of 80: 0.2, 0.0524 to 0.3339 in his table II."""
    proportions = [(0.8, *wilson_interval(56, 70)), (0.6, *wilson_interval(48, 80))]
    assert newcombe_difference(*proportions) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("seeds", [1, 3])
def test_excesses_are_those_of_the_table(tmp_path: Path, seeds: int) -> None:
    results = full_study(tmp_path, seeds)
    entries = transferability.excesses(results)
    assert [(one.model, one.control) for one in entries] == [(row.model, row.control) for row in control_rows(ACCURACIES, 0)]
    for entry in entries:
        rows = [row for row in results.rows(ControlRow) if (row.model, row.control) == (entry.model, entry.control)]
        assert len(rows) == seeds == entry.excess.seeds
        values = [row.excess for row in rows]
        wanted = student(values) if seeds > 1 else (rows[0].excess_ci_low, rows[0].excess_ci_high)
        assert (entry.excess.ci_low, entry.excess.ci_high) == pytest.approx(wanted)
        assert entry.excess.mean == pytest.approx(sum(values) / seeds)
        assert entry.accuracy - entry.control_accuracy == pytest.approx(entry.excess.mean)


def test_transfer_rates_and_shares_of_mistakes(tmp_path: Path) -> None:
    results = full_study(tmp_path, 3)
    rate, shares = (
        transferability.transfer_rate(results, "standard", "vgg"),
        transferability.mistake_shares(results, "standard", "vgg"),
    )
    assert rate and all(shares)
    assert sum(share.mean for share in shares if share) == pytest.approx(1)
    assert shares[1] and shares[2] and shares[1].mean + shares[2].mean == pytest.approx(rate.mean)
    wanted = student([Counted(RATES["vgg"], seed).accuracy for seed in range(3)])
    assert (rate.ci_low, rate.ci_high) == pytest.approx(wanted)
    assert transferability.transfer_rate(results, "standard", "nobody") is None
    own, noise = transferability.own_rate(results, "standard"), transferability.own_rate(results, "standard", "random")
    assert own and own.mean == 0.99 and noise and noise.mean == 0.05


def test_no_transfer_rate_is_below_0(tmp_path: Path) -> None:
    """Of seeds at 0, 1 and 0 %, Student's interval would go below."""
    results = full_study(tmp_path, 3, transfer=lambda seed: transfer_rows({"vgg": 0.0}, seed, 0.0))
    none, same, _ = transferability.mistake_shares(results, "standard", "vgg")
    for share in (transferability.transfer_rate(results, "standard", "vgg"), same):
        assert share and share.ci_low == 0 < share.mean < share.ci_high
    assert none and none.ci_low < none.mean < none.ci_high == 1


def test_error_consistency_takes_a_pair_in_either_order(tmp_path: Path) -> None:
    results = full_study(tmp_path, 2)
    for pair in (("standard", "reinit-1"), ("reinit-1", "standard")):
        found = transferability.error_consistency(results, *pair)
        means = {name: estimate.mean for name, estimate in vars(found).items()}
        assert means == {
            "agreement": 0.96, "both_wrong": 12, "same_mistake": 0.75, "same_mistake_by_chance": 0.25, "consistency": 0.4,
        }  # fmt: skip
        same = found.same_mistake
        assert same and (same.ci_low, same.ci_high) == wilson_interval(9, 12)  # both seeds agree
    assert set(vars(transferability.error_consistency(results, "standard", "vgg")).values()) == {None}


def test_same_mistakes_over_seeds_are_a_share_and_leave_out_seeds_without_any(tmp_path: Path) -> None:
    """9 of 12, 12 of 12, and none that both misclassify: two seeds count, and their interval ends at 100 %."""
    counts = [(12, 9), (12, 12), (0, 0)]
    results = full_study(tmp_path, 3, error_consistency=lambda seed: consistency_rows(seed, *counts[seed]))
    same = transferability.error_consistency(results, "standard", "reinit-1").same_mistake
    assert same and (same.mean, same.ci_low, same.ci_high, same.seeds, same.over_seeds) == (0.875, 0, 1, 2, True)


def test_label_leakage_joins_its_tables(tmp_path: Path) -> None:
    def perturbations(seed: int) -> list[PerturbationLeakageRow]:
        figures = {"correct": 150, "n": 500, "accuracy": 0.3, "ci_low": 0.25, "ci_high": 0.35, "chance": 0.1}
        others = {"other_model_predicts_new_label": 0.6, "other_model_keeps_label": 0.3}
        return [PerturbationLeakageRow(set="next-labels", seed=seed, **figures, **others)]

    def probes(seed: int) -> list[RobustFeatureLeakageRow]:
        none = {"correct": None, "n": None, "accuracy": None, "ci_low": None, "ci_high": None}
        one = {"correct": 100, "n": 500, "accuracy": 0.2, "ci_low": 0.17, "ci_high": 0.24}
        linear = RobustFeatureLeakageRow(set="next-labels", model="robust-linear", seed=seed, features=5, **one)
        return [linear, RobustFeatureLeakageRow(set="next-labels", model="adversarial", seed=seed, features=0, **none)]

    def training(seed: int) -> list[TrainingRow]:
        common = {
            "model": "trained-on-next-labels",
            "seed": seed,
            "loss": 1.0,
            "accuracy": 1.0,
            "learning_rate": 0.1,
            "seconds": 1,
        }
        return [TrainingRow(epoch=epoch, test_accuracy=share, **common) for epoch, share in enumerate((None, 0.8, 0.5))]

    made = {"perturbations": perturbations, "probes": probes, "training": training}
    (line,) = transferability.label_leakage(made_study(tmp_path, 2, made, n=500))
    assert (line.set, line.target_reached, line.peak, line.last) == ("next-labels", None, 0.8, 0.5)
    assert line.separability and line.separability.mean == 0.3 and line.separability.ci_low == 0.25
    assert line.probes["robust-linear"].accuracy and line.probes["robust-linear"].accuracy.mean == 0.2
    deep = line.probes["adversarial"]
    assert deep.accuracy is None and deep.features and deep.features.mean == 0


# ---- figure 3 of the paper ---------------------------------------------------------------------------------------------------

RISING = {name: 0.3 + 0.08 * place for place, name in enumerate(NETWORKS)}
FALLING = {name: 0.8 - 0.08 * place for place, name in enumerate(NETWORKS)}
UNRELATED = dict(zip(NETWORKS, (0.5, 0.3, 0.6, 0.6, 0.2, 0.5), strict=True))


def points(accuracies: dict[str, float], rates: dict[str, float]) -> dict[str, MakeRows]:
    """Tables in which each architecture has this accuracy after D_det and this rate, slightly different from seed to seed."""

    def shifted(seed: int) -> dict[str, float]:
        return {name: rate + 0.01 * ((NETWORKS.index(name) * (seed + 1)) % 4) for name, rate in rates.items()}

    return {
        "accuracy": lambda seed: accuracy_rows({TRAINED_ON_D_DET[name]: share for name, share in accuracies.items()}, seed),
        "transfer": lambda seed: transfer_rows(shifted(seed), seed),
    }


def shares(results: StudyResults, seed: int) -> tuple[list[float], list[float]]:
    """What the tables have: accuracies and rates of the six architectures."""
    models = [TRAINED_ON_D_DET[name] for name in NETWORKS]
    rows = results.rows(AccuracyRow)
    accuracies = [row.accuracy for model in models for row in rows if (row.model, row.seed) == (model, seed)]
    rates = [
        row.transfer_rate or 0.0
        for name in NETWORKS
        for row in results.rows(TransferRow)
        if (row.source, row.target, row.perturbation, row.seed) == ("standard", name, "untargeted", seed)
    ]
    return accuracies, rates


@pytest.mark.parametrize("rates", [RISING, FALLING, UNRELATED], ids=["rising", "falling", "unrelated"])
def test_one_seeds_correlation_has_fishers_interval(tmp_path: Path, rates: dict[str, float]) -> None:
    results = full_study(tmp_path, 1, **points(RISING, rates))
    found = transferability.accuracy_transfer_correlation(results)
    wanted = scipy_stats.pearsonr(*shares(results, 0))
    ends = wanted.confidence_interval(0.95)
    assert found and found.correlation.mean == pytest.approx(wanted.statistic)
    assert (found.correlation.ci_low, found.correlation.ci_high) == pytest.approx((ends.low, ends.high), abs=1e-6)
    assert (found.correlation.n, found.correlation.seeds) == (6, 1)
    assert found.points == [*zip(NETWORKS, *shares(results, 0), strict=True)]


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("rates", [RISING, UNRELATED], ids=["rising", "unrelated"])
def test_the_correlation_is_that_of_means_over_seeds_and_its_interval_over_architectures(
    tmp_path: Path, rates: dict[str, float], seeds: int
) -> None:
    results = full_study(tmp_path, seeds, **points(RISING, rates))
    found = transferability.accuracy_transfer_correlation(results)
    assert found
    by_seed = zip(*map(partial(shares, results), range(seeds)), strict=True)
    means = [[sum(column) / seeds for column in zip(*each, strict=True)] for each in by_seed]
    assert [name for name, _, _ in found.points] == [*NETWORKS]
    assert [x for _, x, _ in found.points] == pytest.approx(means[0])
    assert [y for _, _, y in found.points] == pytest.approx(means[1])
    for estimate, first in ((found.correlation, 0), (found.without_own, 1)):
        wanted = scipy_stats.pearsonr(means[0][first:], means[1][first:])
        ends = wanted.confidence_interval(0.95)
        assert estimate.mean == pytest.approx(wanted.statistic)
        assert (estimate.ci_low, estimate.ci_high) == pytest.approx((ends.low, ends.high), abs=1e-6)
        assert (estimate.n, estimate.seeds, estimate.over_seeds) == (6 - first, seeds, False)


def test_equal_rates_have_no_correlation(tmp_path: Path) -> None:
    results = full_study(tmp_path, 1, transfer=lambda seed: transfer_rows(dict.fromkeys(NETWORKS, 0.5), seed))
    found = transferability.accuracy_transfer_correlation(results)
    assert found and found.correlation.mean == 0 and found.correlation.ci_low < 0 < found.correlation.ci_high


def test_an_architecture_missing_in_one_seed_has_the_mean_of_the_others_and_in_all_there_is_no_answer(tmp_path: Path) -> None:
    def partly(seed: int) -> list[TransferRow]:
        return transfer_rows({name: rate for name, rate in RATES.items() if seed != 1 or name != "mixer"}, seed)

    found = transferability.accuracy_transfer_correlation(full_study(tmp_path / "partly", 3, transfer=partly))
    assert found and found.correlation.seeds == 3 and found.correlation.n == 6
    assert found.points[-1][2] == pytest.approx(sum(Counted(RATES["mixer"], seed).accuracy for seed in (0, 2)) / 2)
    assert found.points[1][2] == pytest.approx(mean_share(RATES["vgg"], 3))
    accuracies = {name: share for name, share in ACCURACIES.items() if name != "vgg-trained-on-next-labels"}
    for place, lost in enumerate(
        (
            {"transfer": lambda seed: transfer_rows({"reinit-1": 0.5}, seed)},
            {"accuracy": lambda seed: accuracy_rows(accuracies, seed)},
        )
    ):
        assert transferability.accuracy_transfer_correlation(full_study(tmp_path / f"none{place}", 2, **lost)) is None


def test_the_architectures_of_figure_3_are_those_of_the_catalog() -> None:
    assert [*TRAINED_ON_D_DET] == [*NETWORKS] == ["reinit-1", *ARCHITECTURES]
