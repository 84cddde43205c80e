"""Controls of a full study: each figure agrees with the tables and files that it was computed from."""

import pytest
from study.conftest import FULL_STUDY, only, resolved

from notbugs.metrics import error_consistency
from notbugs.predict import predict
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.study import AccuracyRow
from notbugs.runs.tables.transferability import ControlRow, ErrorConsistencyRow, PerturbationLeakageRow, RobustFeatureLeakageRow
from notbugs.study import store
from notbugs.study.catalog.models import MODELS
from notbugs.study.comparisons import (
    CONTROLS_OF,
    LEAKAGE_DATASETS,
    LEAKAGE_PROBES,
    PERTURBATION_DATASETS,
    ROBUST_FEATURES_ALONE,
    probe_name,
)
from notbugs.study.config import load

pytestmark = pytest.mark.slow


def test_controls_are_differences_of_the_accuracies_in_the_tables(full_run: RunFolder) -> None:
    clean = {row.model: row for row in full_run.rows(AccuracyRow) if (row.set, row.epsilon) == ("test", 0)}
    labels, rows = load(resolved(FULL_STUDY)).test.labels, full_run.rows(ControlRow)
    probes = {probe_name(probe) for probe in LEAKAGE_PROBES}
    trained = {(model, control) for model, controls in CONTROLS_OF.items() for control in controls if control in clean}
    assert {(row.model, row.control) for row in rows if row.control not in probes} == trained
    for row in rows:
        assert row.excess == pytest.approx(row.accuracy - row.control_accuracy)
        assert row.excess_ci_low <= row.excess <= row.excess_ci_high
        assert row.accuracy == clean[row.model].accuracy
        assert row.above_chance == pytest.approx(row.accuracy - labels.bincount().max().item() / len(labels))
        if row.control in clean:
            assert row.control_accuracy == clean[row.control].accuracy
            assert row.rules_out == CONTROLS_OF[row.model][row.control]


def test_leakage_probes_are_controls_where_they_have_features(full_run: RunFolder) -> None:
    leakage, rows = full_run.rows(RobustFeatureLeakageRow), full_run.rows(ControlRow)
    assert {(row.set, row.model) for row in leakage} == {(name, probe) for name in LEAKAGE_DATASETS for probe in LEAKAGE_PROBES}
    for row in leakage:
        assert (row.features == 0) == (row.accuracy is None)
        models = [model for model in CONTROLS_OF if MODELS[model].trained_on == row.set]
        found = [each for each in rows if each.model in models and each.control == probe_name(row.model)]
        assert len(found) == (0 if row.accuracy is None else len(models))
        for each in found:
            assert (each.control_accuracy, each.rules_out) == (row.accuracy, ROBUST_FEATURES_ALONE)


def test_perturbations_are_classified_by_a_model_that_took_no_part(full_run: RunFolder) -> None:
    config, rows = resolved(FULL_STUDY), full_run.rows(PerturbationLeakageRow)
    assert [row.set for row in rows] == [*PERTURBATION_DATASETS]
    stored, original = store.load_dataset(config, full_run.folder, 0, "next-labels"), load(config).train
    predicted = predict(store.load_model(config, full_run.folder, 0, "reinit-1"), stored)
    row = only(rows, set="next-labels")
    assert row.other_model_predicts_new_label == pytest.approx((predicted == stored.labels).float().mean().item())
    assert row.other_model_keeps_label == pytest.approx((predicted == original.labels).float().mean().item())


def test_error_consistency_is_that_of_each_pair_of_stored_models(full_run: RunFolder) -> None:
    config, rows = resolved(FULL_STUDY), full_run.rows(ErrorConsistencyRow)
    test = load(config).test
    pairs = [{row.model, row.other_model} for row in rows]
    names = {name for pair in pairs for name in pair}
    assert len(pairs) == len(names) * (len(names) - 1) // 2 == len({frozenset(pair) for pair in pairs})
    one, other = (predict(store.load_model(config, full_run.folder, 0, name), test).numpy() for name in ("standard", "reinit-1"))
    wanted = error_consistency(one, other, test.labels.numpy())
    row = only(rows, model="standard", other_model="reinit-1")
    assert {name: getattr(row, name) for name in wanted._fields} == pytest.approx(wanted._asdict())
