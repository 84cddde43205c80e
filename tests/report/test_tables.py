"""Results as tables of text."""

from pathlib import Path

import pytest
from report.conftest import MEASURED, accuracy_row, full_study, quick_study, wilson

from notbugs.models import TRANSFER_ARCHITECTURES, sklearn_learners
from notbugs.report import tables
from notbugs.report.results import StudyResults
from notbugs.report.transferability import excesses
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.analyses import FourierRow
from notbugs.study.catalog.models import ARCHITECTURES, LEARNERS, MAIN_MODELS, MODELS
from notbugs.study.comparisons import (
    CONTROLS_OF,
    LEAKAGE_PROBES,
    TARGET_TITLES,
    TRANSFER_SOURCES,
    TRANSFER_TARGETS,
    control_short,
    control_title,
    probe_name,
)


def test_the_accuracy_table_has_means_and_intervals_over_seeds(tmp_path: Path) -> None:
    results = StudyResults.read(quick_study(tmp_path, complete=False))
    columns, lines = tables.accuracy_table(results)
    assert columns == ["model", "clean", "ε/2 = 0.75", "ε = 1.5", "training"]
    assert [line[0] for line in lines] == [*MAIN_MODELS[:5], "trained-on-next-labels", "trained-on-random-labels-shuffled"]
    assert [line[4] for line in lines] == [MODELS[line[0]].title for line in lines] and len(lines) == len(MEASURED)
    assert lines[1][2] == "80.4 % [79.4, 81.4]"  # 80.0, 80.4, 80.8: mean ± 4.303 · 0.4 / √3


def test_tables_for_a_terminal_name_the_training_images_and_fit_into_80_columns(tmp_path: Path) -> None:
    results = StudyResults.read(quick_study(tmp_path, complete=False))
    columns, lines = tables.compact_accuracy_table(results)
    assert columns == ["trained on", "clean", "L2 ε/2 = 0.75", "L2 ε = 1.5"]
    assert [line[0] for line in lines][:5] == [
        "original", "original, adversarially", "robust (D_R)", "nonrobust (D_NR)", "random-labels (D_rand)",
    ]  # fmt: skip
    assert lines[1][2] == "80.4 [79.4, 81.4]"  # the same as in the table of the page
    assert sum(max(len(line[column]) for line in lines) + 1 for column in range(4)) <= 81


def test_d_r_is_compared_with_the_others_at_both_epsilons(tmp_path: Path) -> None:
    results = StudyResults.read(quick_study(tmp_path, complete=False))
    columns, lines = tables.split_table(results)
    assert columns == ["robust (D_R) minus", "L2 ε/2 = 0.75", "L2 ε = 1.5"]
    assert [line[0] for line in lines] == ["nonrobust (D_NR)", "original"]
    together = results.difference(("trained-on-robust", 1), ("trained-on-nonrobust", 1), 2)
    assert together and lines[0][1] == together.points_cell and lines[0][1].startswith("+30.0 [")


def test_relabeled_sets_have_the_next_class_and_their_control_or_say_that_it_was_not_run(tmp_path: Path) -> None:
    quick_study(tmp_path, complete=False, seeds=1)
    with RunFolder.open(tmp_path, {"kind": "study", "dataset": "digits"}) as run:
        run.record_stage("next", 0.0, [accuracy_row("trained-on-next-labels", 90, 500, wilson(90, 500), 0, set="test-next")])
    columns, lines = tables.relabeled_table(StudyResults.read(tmp_path))
    assert columns == ["trained on", "true class", "next class", "control"]
    wider = tables.relabeled_table(StudyResults.read(tmp_path), before=True)
    assert wider[0] == [*columns[:2], "the same, batch norm not adapted", *columns[2:]]
    assert [len(line) for line in wider[1]] == [5, 5] and wider[1][0][2] == "–"
    random, following = lines
    assert random == ["random-labels (D_rand)", "88.0 [84.9, 90.6]", "–", "1.0 [0.4, 2.3]"]
    assert following[0] == "next-labels (D_det)" and following[2].startswith("18.0 [") and following[3] == "not run: --full"


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_controls_table_has_the_excesses(tmp_path: Path, seeds: int) -> None:
    results = full_study(tmp_path, seeds)
    columns, lines = tables.controls_table(results)
    entries = excesses(results)
    own = [line for line in lines if not line[0].startswith("  ")]
    by_model = {entry.model: f"{100 * entry.accuracy:.1f}" for entry in entries}
    assert [(name.split(" (")[0], accuracy) for name, accuracy, _ in own] == [
        (MODELS[model].trained_on, accuracy) for model, accuracy in by_model.items()
    ]
    of_controls = [line for line in lines if line[0].startswith("  ")]
    assert len(of_controls) == len(entries) > 15 and len(columns) == 3
    for (control, accuracy, excess), entry in zip(of_controls, entries, strict=True):
        assert control == f"  control: {control_short(entry.control)}" and accuracy == f"{100 * entry.control_accuracy:.1f}"
        texts = [f"{100 * value:.1f}" for value in (entry.excess.mean, entry.excess.ci_low, entry.excess.ci_high)]
        plus = "+" if entry.excess.mean >= 0 else ""
        assert excess == f"{plus}{texts[0]} [{texts[1]}, {texts[2]}]".replace("-", "−")


def test_every_control_and_target_has_its_title() -> None:
    names = {control for controls in CONTROLS_OF.values() for control in controls} | {*map(probe_name, LEAKAGE_PROBES)}
    assert all(control_short(name) not in ("", name) and control_title(name) != name for name in names)
    assert {*TRANSFER_TARGETS} <= TARGET_TITLES.keys() and {*TRANSFER_SOURCES} <= MODELS.keys()
    for controls in CONTROLS_OF.values():  # one word stands for one control of a result
        assert len({*map(control_short, controls)}) == len(controls)
    assert ARCHITECTURES.keys() == {*TRANSFER_ARCHITECTURES}
    assert LEARNERS.keys() == sklearn_learners.LEARNERS.keys()


def test_fourier_cells_are_means_over_low_and_over_high_frequencies(tmp_path: Path) -> None:
    rates = {(0, 1): 0.1, (1, 1): 0.2, (2, 0): 0.3, (2, 2): 0.5, (-3, 1): 0.6, (4, 4): 0.7}
    rows = [
        FourierRow(model="standard", seed=0, cycles_down=down, cycles_across=across, amplitude=0.1, error_rate=rate, n=9)
        for (down, across), rate in rates.items()
    ]
    assert tables.fourier_cells(rows) == ["20.0 %", "60.0 %"] and tables.fourier_cells([]) == ["–", "–"]
    with RunFolder.open(tmp_path, {"kind": "study"}) as run:
        run.record_stage("fourier", 0.0, rows)
    columns, lines = tables.fourier_table(StudyResults.read(tmp_path))
    assert columns == ["model", *tables.FOURIER_COLUMNS] and lines == [["standard", "20.0 %", "60.0 %"]]


def test_tables_of_an_empty_run_have_columns_and_no_lines(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, {}).close()
    results = StudyResults.read(tmp_path)
    made = (
        tables.accuracy_table, tables.controls_table, tables.replication_table, tables.compact_replication_table,
        tables.figure_3_table, tables.saliency_table, tables.corruptions_table, tables.fourier_table, tables.ntk_table,
        tables.review_table, tables.compact_accuracy_table, tables.split_table, tables.relabeled_table,
    )  # fmt: skip
    for table in made:
        columns, lines = table(results)
        assert columns and lines == []
