"""What file scores say of a data set: absolute evidence, the rank and its stability, label errors, features."""

from pathlib import Path

import pytest

from notbugs.report import files_summary
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.features import FeatureCategoryRow
from notbugs.runs.tables.files import LabelErrorsRow, ModelAccuracyRow

STANDARD = ModelAccuracyRow(
    model="standard",
    n=450,
    accuracy=0.65,
    ci_low=0.605,
    ci_high=0.693,
    epsilon=0.5,
    robust_accuracy=0.1,
    robust_ci_low=0.075,
    robust_ci_high=0.131,
    median_minimum_norm=0.25,
)
VERSIONS = ModelAccuracyRow(model="trained_on_robust", n=450, accuracy=0.6, ci_low=0.554, ci_high=0.644, epsilon=0.5)


def test_accuracies_have_intervals_and_norms_are_beside_epsilon() -> None:
    columns, lines = files_summary.accuracy_table([STANDARD, VERSIONS])
    assert columns == ["models", "accuracy, %", "robust accuracy, %", "median minimum norm"]
    assert lines[0] == ["standard", "65.0 [60.5, 69.3]", "10.0 [7.5, 13.1]", "0.25 (0.50 ε)"]
    assert lines[1] == ["on robust versions", "60.0 [55.4, 64.4]", "–", "–"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (
            {"rank_stability": 0.734, "finished": True},
            "Rank stability: 0.73 (Spearman correlation expected with another such run",
        ),
        (
            {"rank_stability": None, "finished": True},
            "cannot be estimated from one repetition: repeat the same command with",
        ),
        ({}, "known when the run is finished"),
    ],
)
def test_rank_stability_is_always_there(metadata: dict[str, object], words: str, tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", {"kind": "files"}) as run:
        run.update_metadata(settings={"repeats": 3}, **metadata)
        found = files_summary.rank(run)
    assert words in found and ("--repeats 3" in found) == ("one repetition" in found) and "below 0.5 by definition" in found


def label_errors(*, too_weak: bool) -> str:
    likely, detectable = (0, 0.02) if too_weak else (20, 0.9)
    row = LabelErrorsRow(n=450, estimated_rate=0.049, likely=likely, threshold=0.95, detectable=detectable, too_weak=too_weak)
    return files_summary.label_errors(row, [STANDARD, VERSIONS])


def test_weak_models_say_so_with_their_accuracy_and_the_remedy() -> None:
    text = label_errors(too_weak=True)
    assert "too weak" in text and "65.0 %" in text and "would find 2.0 %" in text and "--epochs" in text and "--network" in text
    assert "likely" not in text


def test_strong_models_say_how_many_and_what_they_would_find() -> None:
    text = label_errors(too_weak=False)
    assert "20 of 450 files are likely ones (probability 0.95 or more)" in text
    assert "Estimated share of wrong labels: 4.9 %" in text and "would find 90.0 %" in text


def test_features_are_counted_by_category_and_spurious_ones_apart() -> None:
    common = {"class_name": "a", "sign": "for", "usefulness": 0.5, "robust_usefulness": 0.1, "drop_class": "a", "cue": ""}
    common |= {"usefulness_drop": 0.1, "test_usefulness": 0.4, "p_value": 0.5, "cue_correlation": 0.0}
    kept = {"usefulness_kept_on_robust": 0.5, "usefulness_kept_on_nonrobust": 0.5}
    categories = ["robust", "robust", "non-robust", "useless"]
    rows = [
        FeatureCategoryRow(feature=place, category=category, spurious=place == 1, **common, **kept)  # type: ignore[arg-type]
        for place, category in enumerate(categories)
    ]
    found = files_summary.feature_counts(rows, "l2 0.5")
    assert found.startswith(
        "Features of a standard model: 2 robust, 1 non-robust, 1 useless (robust: usefulness ρ of 0.1 or more"
    )
    assert "within l2 0.5, γ). 1 of them is spurious" in found
