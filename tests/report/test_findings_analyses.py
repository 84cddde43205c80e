"""Findings of the analyses, on tables made for the purpose."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.conftest import MakeRows, find, made_study, student
from scipy import stats as scipy_stats

from notbugs import metrics
from notbugs.metrics import corruptions
from notbugs.report import tables
from notbugs.report.analyses import CORRUPTIONS, rank_correlation_of_drop
from notbugs.report.findings import analyses
from notbugs.report.results import StudyResults
from notbugs.runs.tables.analyses import CorruptionDifferenceRow, NTKFeatureRow, SaliencyDifferenceRow, SaliencyRow
from notbugs.study.catalog.models import ANALYZED_MODELS, ANALYZED_TITLES, MODELS

SEED_SHIFTS = (0.0, 0.01, -0.012)  # from seed to seed
ALIGNMENT, FAITHFULNESS, CORRUPTED, NTK = "align with", "faithful", "common corruptions", "before any training"  # in questions
COSINES = {"standard": 0.3, "adversarial": 0.6, "trained-on-robust": 0.5, "trained-on-nonrobust": 0.28}
PAIRS = (
    ("adversarial", "standard"),
    ("trained-on-robust", "standard"),
    ("trained-on-nonrobust", "standard"),
    ("trained-on-robust", "trained-on-nonrobust"),
)
GAINS = {"clean": -0.05, "noise": 0.2, "blur": 0.15, "fog": 0.12, "contrast": 0.11, "jpeg": 0.2}


def measured(value: float, seed: int, half_width: float = 0.04) -> dict[str, Any]:
    value += SEED_SHIFTS[seed]
    return {"value": value, "ci_low": value - half_width, "ci_high": value + half_width, "n": 400, "seed": seed}


def saliency_rows(seed: int, cosines: Mapping[str, float] = COSINES, gain: float = 0.4) -> list[SaliencyRow]:
    rows = []
    values = {"chance_alignment": 0.01, "low_frequency_energy": 0.4, "deletion": 0.1, "chance_deletion": 0.1 + gain}
    for model, cosine in cosines.items():
        for method in metrics.METHODS:
            common = {"model": model, "method": method}
            for measure, value in ({"alignment": cosine} | values | {"deletion_gain": gain}).items():
                rows.append(SaliencyRow(**common, measure=measure, **measured(value, seed)))
            rows.append(SaliencyRow(**common, measure="chance_low_frequency_energy", value=0.2, n=400, seed=seed))
    return rows


def saliency_differences(
    seed: int, cosines: Mapping[str, float] = COSINES, half_width: float = 0.04, **half_widths: float
) -> list[SaliencyDifferenceRow]:
    """half_widths: of the CIs of single models, "-" in their names as "_"."""
    rows = []
    for model, other in PAIRS:
        value = (cosines[model] - cosines[other]) * (1 + 2 * SEED_SHIFTS[seed])
        for method in metrics.METHODS:
            for measure in ("alignment", "low_frequency_energy", "deletion_gain"):
                about = {"model": model, "other_model": other, "method": method, "measure": measure}
                width = half_widths.get(model.replace("-", "_"), half_width)
                rows.append(SaliencyDifferenceRow(**about, **measured(value, seed, width)))
    return rows


def corruption_differences(seed: int, gains: Mapping[str, float] = GAINS) -> list[CorruptionDifferenceRow]:
    return [
        CorruptionDifferenceRow(model=model, other_model=other, corruption=name, **measured(gain, seed))
        for model, other in PAIRS
        for name, gain in gains.items()
    ]


def ntk_rows(
    seed: int, slope: float = 1.0, categories: Sequence[str] = ("robust", "non-robust", "useless"), count: int = 12
) -> list[NTKFeatureRow]:
    rows = []
    for place in range(count):
        drop = 0.2 + slope * (place + 3 * (place % 3)) / 40
        rows.append(
            NTKFeatureRow(
                eigenvector=place, eigenvalue_share=1 / (place + 2), seed=seed, class_name="1", sign=1, usefulness=0.5,
                usefulness_ci_low=0.4, usefulness_ci_high=0.6, robust_usefulness=0.5 - drop, robust_usefulness_ci_low=-1.0,
                robust_usefulness_ci_high=1.0, category=categories[place * len(categories) // count], significant=True, n=400,
                n_attacked=400, steps=20,
            )
        )  # fmt: skip
    return rows


def study(folder: Path, seeds: int = 1, **changed: MakeRows | None) -> StudyResults:
    """Results of `seeds` seeds. changed: rows by seed of those tables that are not to be convincing; None: no such table."""
    convincing: dict[str, MakeRows | None] = {
        "saliency": saliency_rows, "saliency_differences": saliency_differences,
        "corruption_differences": corruption_differences, "ntk": ntk_rows,
    }  # fmt: skip
    return made_study(folder, seeds, convincing | changed, n=400)


def with_cosines(cosines: Mapping[str, float], **half_widths: float) -> dict[str, MakeRows]:
    differences = partial(saliency_differences, cosines=cosines, **half_widths)
    return {"saliency": partial(saliency_rows, cosines=cosines), "saliency_differences": differences}


# ---- attributions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 3])
def test_gradients_of_robust_classifiers_align(tmp_path: Path, seeds: int) -> None:
    results = study(tmp_path, seeds)
    finding = find(results, ALIGNMENT)
    assert finding.status == "supported" and finding.text.endswith(".")
    wanted = {("gradient", "alignment")}
    rows = [row for row in results.rows(SaliencyDifferenceRow) if (row.method, row.measure) in wanted]
    for model in ("adversarial", "trained-on-robust", "trained-on-nonrobust"):
        own = [row for row in rows if (row.model, row.other_model) == (model, "standard")]
        assert len(own) == seeds
        values = [row.value for row in own]
        low, high = student(values) if seeds > 1 else (own[0].ci_low, own[0].ci_high)
        assert f"{np.mean(values):+.2f} [{low:.2f}, {high:.2f}]".replace("-", "−") in finding.text
    assert "the standard classifier 0.30, the adversarially trained one 0.60" in finding.text
    assert "chance level 0.01" in finding.text


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("changed", "status", "words"),
    [
        ({"trained-on-robust": 0.28}, "partly supported", "D_R does not, measurably, more than on D_NR"),
        ({"trained-on-robust": 0.31}, "partly supported", "does not, measurably, more"),
        ({"trained-on-robust": 0.5, "trained-on-nonrobust": 0.55}, "partly supported", "does not, measurably, more"),
        ({"adversarial": 0.305}, "not supported", "No measurable difference."),
    ],
)
def test_gradients_that_do_not_align_with_robust_training_or_its_data(
    tmp_path: Path, seeds: int, changed: dict[str, float], status: str, words: str
) -> None:
    finding = find(study(tmp_path, seeds, **with_cosines(COSINES | changed)), ALIGNMENT)
    assert (finding.status, words in finding.text) == (status, True)


def test_a_lower_alignment_is_reported_as_lower(tmp_path: Path) -> None:
    finding = find(study(tmp_path, 1, **with_cosines(COSINES | {"adversarial": 0.1})), ALIGNMENT)
    assert finding.status == "not supported" and "lowers the alignment" in finding.text
    assert "No measurable difference" not in finding.text


def test_the_excess_over_the_control_is_that_of_the_difference(tmp_path: Path) -> None:
    """D_R 0.12 [0.08, 0.16] and D_NR 0.10 [−0.10, 0.30] above the standard classifier: no measurable difference."""
    cosines = COSINES | {"trained-on-robust": 0.42, "trained-on-nonrobust": 0.40}
    finding = find(study(tmp_path, 1, **with_cosines(cosines, trained_on_nonrobust=0.2)), ALIGNMENT)
    assert "0.12 [0.08, 0.16]" in finding.text and "0.10 [−0.10, 0.30]" in finding.text
    assert finding.status == "partly supported"


@pytest.mark.parametrize("seeds", [1, 3])
def test_attributions_are_faithful_if_the_prediction_is_lost_sooner(tmp_path: Path, seeds: int) -> None:
    finding = find(study(tmp_path, seeds), FAITHFULNESS)
    assert finding.status == "supported" and "Both attributions are faithful" in finding.text
    values = [0.4 + shift for shift in SEED_SHIFTS[:seeds]]
    low, high = student(values) if seeds > 1 else (0.36, 0.44)
    assert f"classifier by {100 * np.mean(values):.0f} percentage points [{100 * low:.1f}, {100 * high:.1f}]" in finding.text
    assert "0.30 and 0.60" in finding.text


@pytest.mark.parametrize("gain", [0.01, -0.2], ids=["no sooner", "later"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_attributions_that_are_not_faithful(tmp_path: Path, seeds: int, gain: float) -> None:
    finding = find(study(tmp_path, seeds, saliency=lambda seed: saliency_rows(seed, gain=gain)), FAITHFULNESS)
    assert finding.status == "not supported"
    assert "Not both attributions" in finding.text and "Both attributions" not in finding.text


def test_a_prediction_that_is_lost_later_has_a_minus_sign(tmp_path: Path) -> None:
    finding = find(study(tmp_path, 1, saliency=lambda seed: saliency_rows(seed, gain=-0.2)), FAITHFULNESS)
    assert "−20 percentage points" in finding.text and "-20" not in finding.text


# ---- corruptions -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("changed", "status", "words"),
    [
        ({}, "supported", "better: noise, blur, fog, contrast, jpeg. Measurably worse: none"),
        ({"fog": 0.0}, "partly supported", "better: noise, blur, contrast, jpeg. Measurably worse: none"),
        ({"fog": -0.2}, "partly supported", "better: noise, blur, contrast, jpeg. Measurably worse: fog"),
        (dict.fromkeys(GAINS, 0.0), "not supported", "better: none. Measurably worse: none"),
        (dict.fromkeys(GAINS, -0.3), "not supported", "better: none. Measurably worse: noise, blur, fog, contrast, jpeg"),
        ({"clean": 0.3, **dict.fromkeys([*GAINS][1:], 0.0)}, "not supported", "better: none"),
    ],
)
def test_help_against_corruptions(tmp_path: Path, seeds: int, changed: dict[str, float], status: str, words: str) -> None:
    results = study(tmp_path, seeds, corruption_differences=lambda seed: corruption_differences(seed, GAINS | changed))
    finding = find(results, CORRUPTED)
    assert (finding.status, words in finding.text) == (status, True)
    rows = results.rows(CorruptionDifferenceRow)
    own = [row for row in rows if (row.model, row.other_model) == ("adversarial", "standard")]
    for name in GAINS:
        values = [row.value for row in own if row.corruption == name]
        low, high = student(values) if seeds > 1 else (values[0] - 0.04, values[0] + 0.04)
        cell = f"{name} {100 * np.mean(values):+z.1f} [{100 * low:z.1f}, {100 * high:z.1f}]"
        assert cell.replace("-", "−") in finding.text


# ---- neural tangent kernel ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slope", "categories", "status"),
    [
        (1.0, ("robust", "non-robust", "useless"), "supported"),
        (1.0, ("robust", "useless"), "not supported"),
        (-1.0, ("robust", "non-robust", "useless"), "not supported"),
    ],
)
def test_features_before_any_training(tmp_path: Path, slope: float, categories: tuple[str, ...], status: str) -> None:
    results = study(tmp_path, 3, ntk=lambda seed: [] if seed else ntk_rows(0, slope, categories))
    finding = find(results, NTK)
    assert finding.status == status
    counts = {name: 12 // len(categories) * (name in categories) for name in ("robust", "non-robust", "useless")}
    words = f"{counts['robust']} are robust features, {counts['non-robust']} useful but non-robust, {counts['useless']} useless"
    assert words in finding.text and "Of 12 eigenvectors" in finding.text
    rows = results.rows(NTKFeatureRow)
    drops = [row.usefulness - row.robust_usefulness for row in rows]
    wanted = scipy_stats.spearmanr([row.eigenvector for row in rows], drops).statistic
    ends = [math.tanh(math.atanh(wanted) + side * 1.959964 / 3) for side in (-1, 1)]
    found = rank_correlation_of_drop(rows)
    assert found and found[:4] == (pytest.approx(wanted), *map(pytest.approx, ends), 12)


def test_a_spectrum_whose_end_is_no_more_fragile_is_not_said_to_be(tmp_path: Path) -> None:
    assert "Later eigenvectors lose more" not in find(study(tmp_path, 1, ntk=lambda seed: ntk_rows(0, -1.0)), NTK).text


def test_equal_drops_have_no_correlation(tmp_path: Path) -> None:
    def equal(seed: int) -> list[NTKFeatureRow]:
        return [replace(row, robust_usefulness=0.2) for row in ntk_rows(seed)]

    assert not any("nan" in finding.text for finding in analyses.findings(study(tmp_path, 1, ntk=equal)))


def test_eigenvectors_without_a_known_drop_are_left_out_and_few_give_no_finding(tmp_path: Path) -> None:
    def partly(seed: int, known: int) -> list[NTKFeatureRow]:
        return [row if row.eigenvector < known else replace(row, robust_usefulness=math.nan) for row in ntk_rows(seed)]

    most = study(tmp_path / "most", 1, ntk=lambda seed: partly(seed, 9))
    found = rank_correlation_of_drop(most.rows(NTKFeatureRow))
    assert found and found.n == 9
    few = study(tmp_path / "few", 1, ntk=lambda seed: partly(seed, 4))
    assert rank_correlation_of_drop(few.rows(NTKFeatureRow)) is None
    assert len(analyses.findings(few)) == 3 and rank_correlation_of_drop([]) is None


# ---- all of them -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["saliency", "saliency_differences", "corruption_differences", "ntk"])
def test_a_missing_table_costs_its_own_findings_only(tmp_path: Path, missing: str) -> None:
    whole, part = study(tmp_path / "whole"), study(tmp_path / "part", **{missing: None})
    asked, left = ([finding.question for finding in analyses.findings(results)] for results in (whole, part))
    lost = {
        "saliency": [ALIGNMENT, FAITHFULNESS], "saliency_differences": [ALIGNMENT], "corruption_differences": [CORRUPTED],
        "ntk": [NTK],
    }[missing]  # fmt: skip
    assert left == [question for question in asked if not any(words in question for words in lost)] and len(left) < len(asked)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("scale", [1.0, 0.0, -1.0], ids=["as is", "null", "reversed"])
def test_no_sentence_has_what_is_no_number(tmp_path: Path, seeds: int, scale: float) -> None:
    cosines = {name: 0.3 + scale * (cosine - 0.3) for name, cosine in COSINES.items()}
    gains = {name: scale * gain for name, gain in GAINS.items()}
    changed: dict[str, MakeRows] = {"corruption_differences": lambda seed: corruption_differences(seed, gains)}
    results = study(tmp_path, seeds, **with_cosines(cosines), **changed)
    found = analyses.findings(results)
    assert len(found) == 4
    for finding in found:
        assert finding.question.endswith("?") and finding.text.endswith(".")
        assert finding.status in ("supported", "partly supported", "not supported")
        assert not any(word in finding.text for word in ("nan", "None", "inf ", "--", "  ", ".."))
    for question in (ALIGNMENT, CORRUPTED):
        assert (find(results, question).status == "supported") == (scale > 0)


@pytest.mark.parametrize("scale", [0.0, -1.0], ids=["nothing", "below 0"])
def test_minus_is_a_minus_sign_and_0_has_none(tmp_path: Path, scale: float) -> None:
    cosines = {name: 0.2 + scale * (cosine - 0.2) for name, cosine in COSINES.items()}
    text = find(study(tmp_path, 3, **with_cosines(cosines)), ALIGNMENT).text
    assert "−0.00" not in text and " -0" not in text and "[-" not in text


def test_a_run_without_analyses_has_no_such_findings(tmp_path: Path) -> None:
    results = study(tmp_path, saliency=None, saliency_differences=None, corruption_differences=None, ntk=None)
    assert analyses.findings(results) == []


def test_the_saliency_table_has_a_line_per_model_and_method(tmp_path: Path) -> None:
    columns, lines = tables.saliency_table(study(tmp_path))
    assert columns == ["model", *tables.SALIENCY_COLUMNS] and len(lines) == 2 * len(COSINES)
    assert lines[0] == [
        "standard",
        "gradient",
        "0.30 [0.26, 0.34]",
        "0.01",
        "40.0 % [36.0, 44.0]",
        "20.0 %",
        "40.0 % [36.0, 44.0]",
    ]


def test_everything_that_is_measured_has_its_title() -> None:
    assert [*ANALYZED_TITLES] == [*ANALYZED_MODELS] and {*ANALYZED_MODELS} <= MODELS.keys()
    assert [*CORRUPTIONS] == ["clean", *corruptions.CORRUPTIONS]
    assert {*metrics.METHODS} == {*tables.METHODS}
