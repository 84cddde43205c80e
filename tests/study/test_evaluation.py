"""Accuracy of all models of a full study: on the test images, and on all data sets, clean and under attack."""

import pytest
from study.conftest import ATTACKED_IMAGES, FULL_STUDY, resolved

from notbugs import data
from notbugs.attacks import GRADIENT_ENSEMBLE
from notbugs.predict import predict
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import AccuracyRow, SetRow
from notbugs.study import store
from notbugs.study.catalog.datasets import CONTROL_DATASETS, DATASETS, QUICK, SECOND_SOURCE, STRONG_DATASETS, TEST_SETS
from notbugs.study.catalog.models import MODELS, trained_on


@pytest.mark.slow
def test_a_full_study_trains_and_evaluates_every_model_on_every_data_set(full_run: RunFolder) -> None:
    made = {row.set for row in full_run.rows(SetRow)}
    assert made == {*DATASETS} - {*STRONG_DATASETS}
    absent = {name for name in made if not (full_run.folder / "datasets" / name).exists()}
    assert absent <= {"misclassified-only", "unrelated-photos"}  # of undertrained models: too few images, or all of one class
    rows, missing = full_run.rows(AccuracyRow), {trained_on(name) for name in absent}
    other = {"reference", SECOND_SOURCE, *map(trained_on, STRONG_DATASETS)}  # beside a given model; with --robust-strong
    assert {row.model for row in rows if row.set == "test"} == {*MODELS} - missing - other
    crossed = {name for name, spec in MODELS.items() if spec.role in ("main", "control")} - missing
    sets = {"test", "original", *QUICK, *CONTROL_DATASETS} - absent
    for attacked in (False, True):
        pairs = {(row.model, row.set) for row in rows if bool(row.epsilon) == attacked}
        assert {(model, name) for model, name in pairs if model in crossed and name not in TEST_SETS[1:]} == {
            (model, name) for model in crossed for name in sets
        }
    robust = {name for name, spec in MODELS.items() if spec.loss == "adversarial"} - other
    assert {row.model for row in rows if row.set == "test-training-attack"} == robust
    assert full_run.metadata["full"] and full_run.metadata["replicate"] and full_run.metadata["finished"]


@pytest.mark.slow
def test_attacked_accuracy_is_on_a_balanced_subset_at_half_of_epsilon(full_run: RunFolder) -> None:
    config = resolved(FULL_STUDY)
    rows = [row for row in full_run.rows(AccuracyRow) if row.attack == GRADIENT_ENSEMBLE]
    assert {(row.epsilon, row.norm, row.n) for row in rows} == {(0.375, "l2", ATTACKED_IMAGES)}
    part = data.balanced_subset(store.load_dataset(config, full_run.folder, 0, "robust"), ATTACKED_IMAGES)
    correct = int((predict(store.load_model(config, full_run.folder, 0, "standard"), part) == part.labels).sum())
    (row,) = [row for row in rows if (row.model, row.set) == ("standard", "robust")]
    assert row.correct <= correct and row.trained_on == "original"
