"""Analyses of one small study of digits: their tables agree with the stored models, and they are resumed like any stage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats as scipy_stats
from study.conftest import ANALYZED_STUDY, COMMAND, AnalyzedStudy, only, resolved

from notbugs import data, metrics, models, report
from notbugs.errors import InputError, NotbugsWarning
from notbugs.report.findings import analyses as findings
from notbugs.report.results import StudyResults
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.analyses import (
    CorruptionDifferenceRow,
    CorruptionRow,
    FourierRow,
    NTKAccuracyRow,
    NTKFeatureRow,
    SaliencyDifferenceRow,
    SaliencyPictureRow,
    SaliencyRow,
)
from notbugs.runs.tables.row import Row, cells
from notbugs.runs.tables.study import AccuracyRow
from notbugs.study import pipeline, store
from notbugs.study.analyses import (
    ANALYSES,
    COMPARED_MEASURES,
    MEASURES,
    SALIENCY_IMAGES,
    WHITE_NOISE,
    classifier_saliency,
)
from notbugs.study.catalog.models import ANALYZED_MODELS
from notbugs.study.config import StudyConfig, load
from notbugs.study.graph import study_graph

pytestmark = pytest.mark.slow
TABLES: dict[str, tuple[type[Row], ...]] = {
    "saliency": (SaliencyRow, SaliencyDifferenceRow, SaliencyPictureRow),
    "corruptions": (CorruptionRow, CorruptionDifferenceRow),
    "fourier": (FourierRow,),
    "ntk": (NTKFeatureRow, NTKAccuracyRow),
}


@pytest.fixture
def study(analyzed: AnalyzedStudy, tmp_path: Path) -> Path:
    """A copy of the study without analyses."""
    shutil.copytree(analyzed.before.folder, tmp_path / "run")
    return tmp_path / "run"


def model(run: RunFolder, name: str) -> models.Model:
    return store.load_model(resolved(ANALYZED_STUDY), run.folder, 0, name)


# ---- tables ----------------------------------------------------------------------------------------------------------------


def test_every_table_is_complete(analyzed: AnalyzedStudy) -> None:
    run = analyzed.run
    counts = {table.table: len(run.rows(table)) for tables in TABLES.values() for table in tables}
    assert counts == {
        "saliency": 4 * 2 * 7,
        "saliency_differences": 5 * 2 * 3,
        "saliency_pictures": 8 * 5,
        "corruptions": 4 * 26,
        "corruption_differences": 5 * 6,
        "fourier": 4 * 34,
        "ntk": 100,
        "ntk_accuracy": 2 * 5,
    }
    for stage, tables in TABLES.items():
        assert {*run.metadata["stages"][f"seed0/{stage}"]["rows"]} == {table.table for table in tables}
        for row in (cells(row) for table in tables for row in run.rows(table)):
            assert not any(cell in ("", None) for cell in row.values() if row.get("measure") != WHITE_NOISE), row
            if row.get("ci_low") is not None:
                assert row["ci_low"] <= row.get("value", row.get("accuracy")) <= row["ci_high"]
    assert not list(run.folder.rglob("*.part")) and not list(run.folder.rglob("*.new"))


def test_saliency_is_that_of_the_stored_models(analyzed: AnalyzedStudy) -> None:
    rows, splits = analyzed.run.rows(SaliencyRow), load(ANALYZED_STUDY)
    images, means = data.balanced_subset(splits.test, SALIENCY_IMAGES), metrics.class_means(splits.train)
    result = metrics.saliency(model(analyzed.run, "trained-on-robust"), images, means, method="integrated")
    for measure in MEASURES:
        row = only(rows, model="trained-on-robust", method="integrated", measure=measure)
        values = getattr(result, measure)
        wanted = scipy_stats.t.interval(0.95, len(images) - 1, loc=values.mean(), scale=scipy_stats.sem(values))
        assert row.n == len(images) == 50 and row.value == pytest.approx(values.mean(), abs=1e-5)
        assert (row.ci_low, row.ci_high) == pytest.approx(wanted, abs=1e-5)
    assert {row.value for row in rows if row.measure == WHITE_NOISE} == {metrics.white_noise_energy((1, 8, 8))}
    for row in analyzed.run.rows(SaliencyDifferenceRow):
        one, other = (
            only(rows, model=name, method=row.method, measure=row.measure).value for name in (row.model, row.other_model)
        )
        assert row.value == pytest.approx(one - other, abs=1e-6)


def test_pictures_are_gradients_on_gray(analyzed: AnalyzedStudy) -> None:
    rows, names = analyzed.run.rows(SaliencyPictureRow), {*load(ANALYZED_STUDY).test.names}
    assert [row.column for row in rows[:5]] == ["image", *ANALYZED_MODELS]
    assert len({row.file for row in rows}) == 8 and {row.file for row in rows} <= names
    assert len({row.label for row in rows}) == 8
    for row in rows:
        with Image.open(analyzed.run.folder / row.picture) as picture:
            pixels = np.asarray(picture)
        assert pixels.shape[:2] == (8, 8)
        if row.column != "image":
            assert {0, 255} & {pixels.min(), pixels.max()} and pixels.std() > 10


def test_the_saliency_of_a_classifier_is_that_of_a_study(analyzed: AnalyzedStudy) -> None:
    splits = load(ANALYZED_STUDY)
    result = classifier_saliency(model(analyzed.run, "standard"), splits)
    wanted = [row for row in analyzed.run.rows(SaliencyRow) if row.model == "standard"]
    assert [(row.method, row.measure, row.n) for row in result.rows] == [(row.method, row.measure, row.n) for row in wanted]
    assert [row.value for row in result.rows] == pytest.approx([row.value for row in wanted], abs=1e-5)
    columns = ["file", "label", *(f"{method}_{measure}" for method in metrics.METHODS for measure in COMPARED_MEASURES)]
    assert len(result.files) == 50 and all([*record] == columns for record in result.files)
    assert result.sheet.shape == (1, 8 * 8 * 16, 3 * 8 * 16) and 0 <= result.sheet.min() <= result.sheet.max() <= 1


def test_corruption_differences_are_those_of_mean_accuracies(analyzed: AnalyzedStudy) -> None:
    rows, test = analyzed.run.rows(CorruptionRow), load(ANALYZED_STUDY).test
    assert {row.model for row in rows} == {*ANALYZED_MODELS} and {row.n for row in rows} == {50}
    for difference in analyzed.run.rows(CorruptionDifferenceRow):
        means = [
            np.mean([row.accuracy for row in rows if (row.model, row.corruption) == (name, difference.corruption)])
            for name in (difference.model, difference.other_model)
        ]
        assert difference.value == pytest.approx(means[0] - means[1], abs=1e-9)
    images = metrics.corrupt(test.pixels(slice(None)), "noise", 4, seed=0)
    with torch.no_grad():
        correct = model(analyzed.run, "standard")(images).argmax(1) == test.labels
    assert only(rows, model="standard", corruption="noise", severity=4).correct == int(correct.sum())
    clean = only(analyzed.run.rows(AccuracyRow), model="adversarial", set="test", epsilon=0)
    assert only(rows, model="adversarial", severity=0).correct == clean.correct


def test_fourier_sensitivity_is_that_of_the_stored_models(analyzed: AnalyzedStudy) -> None:
    wanted = metrics.fourier_sensitivity(model(analyzed.run, "adversarial"), load(ANALYZED_STUDY).test, seed=0)
    rows = [row for row in analyzed.run.rows(FourierRow) if row.model == "adversarial"]
    for row, known in zip(rows, wanted, strict=True):
        assert (row.cycles_down, row.cycles_across, row.n) == (known.cycles_down, known.cycles_across, known.n)
        assert row.error_rate == pytest.approx(known.error_rate, abs=1.5 / 50)  # batch norm is fused: ties may break otherwise


@pytest.mark.slow
def test_kernel_features_are_in_the_order_of_their_eigenvalues(analyzed: AnalyzedStudy) -> None:
    rows, splits = analyzed.run.rows(NTKFeatureRow), load(ANALYZED_STUDY)
    kernel = metrics.EigenFeatures(splits.train)
    assert [row.eigenvector for row in rows] == metrics.chosen_eigenvectors(len(kernel.values))
    shares = (kernel.values / kernel.values.sum()).tolist()
    for row in rows:
        assert row.eigenvalue_share == pytest.approx(shares[row.eigenvector])
        assert row.category in ("robust", "non-robust", "useless")
        assert row.robust_usefulness <= row.usefulness + 1e-9
    accuracies = analyzed.run.rows(NTKAccuracyRow)
    counts = [10, 30, 100, 300, len(kernel.values)]
    assert [row.eigenvectors for row in accuracies] == [count for count in counts for _ in (0, 1)]
    for count, clean, attacked in zip(counts, accuracies[::2], accuracies[1::2], strict=True):
        with torch.no_grad():
            predicted = metrics.EigenFeatures(splits.train, keep=count)(splits.test.pixels(slice(None))).argmax(1)
        assert clean.correct == int((predicted == splits.test.labels).sum()) >= attacked.correct
        assert attacked.epsilon == 0.75


@pytest.mark.slow
def test_the_report_has_the_findings(analyzed: AnalyzedStudy) -> None:
    page = report.write(analyzed.run.folder).read_text(encoding="utf-8")
    found = findings.findings(StudyResults(analyzed.run))
    assert len(found) >= 4
    for finding in found:
        assert finding.question.replace("'", "&#39;") in page


# ---- resumed, elsewhere, and stopped ---------------------------------------------------------------------------------------


def test_done_analyses_are_not_done_again(analyzed: AnalyzedStudy) -> None:
    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in analyzed.run.folder.rglob("*") if path.is_file()}

    stages: list[str] = []
    before = content()
    pipeline.run_analyses(
        analyzed.run.folder, (*ANALYSES,), workers=1, report_progress=lambda stage, share, words: stages.append(stage)
    )
    assert not stages and content() == before


def test_the_studys_own_metadata_are_kept(analyzed: AnalyzedStudy) -> None:
    before, after = analyzed.before.metadata, analyzed.run.metadata
    kept = {*before} - {"stages", "seconds"}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert after["command"] == COMMAND and after["finished"] is False  # of a study that has more to do
    assert {name: after["stages"][name] for name in before["stages"]} == before["stages"]
    assert {*after["stages"]} - {*before["stages"]} == {f"seed0/{name}" for name in ANALYSES}
    assert before["seconds"] <= after["seconds"] <= before["seconds"] + analyzed.seconds + 0.1


@pytest.mark.slow
def test_the_same_seed_gives_the_same_tables_in_any_order(analyzed: AnalyzedStudy, study: Path) -> None:
    events: list[str] = []
    names = ("fourier", "corruptions", "saliency")
    for name in names:
        run = pipeline.run_analyses(
            study, (name,), workers=1, report_progress=lambda stage, share, words: events.append(f"{stage} {share:.2f}")
        )
        assert run.done(f"seed0/{name}") and not run.rows(NTKFeatureRow)
    for table in (table.table for name in names for table in TABLES[name]):
        assert (study / "tables" / f"{table}.csv").read_bytes() == (analyzed.run.folder / "tables" / f"{table}.csv").read_bytes()
    assert events[0] == "seed0/fourier 0.00" and events[-1] == "seed0/saliency 1.00"
    pipeline.run(ANALYZED_STUDY, study, only=("standard",), workers=1, command=COMMAND)  # the study is resumed as before
    assert RunFolder.read(study).rows(FourierRow) == analyzed.run.rows(FourierRow)


@pytest.mark.slow
def test_a_study_made_on_a_gpu_is_analyzed_where_there_is_none(study: Path, analyzed: AnalyzedStudy) -> None:
    record = json.loads((study / "run.json").read_text())
    (study / "run.json").write_text(json.dumps({**record, "device": "cuda:7"}))
    with pytest.warns(NotbugsWarning, match="was made on cuda:7, which is not here: this is done on cpu"):
        run = pipeline.run_analyses(study, ("fourier",), workers=1)
    assert run.rows(FourierRow) == analyzed.run.rows(FourierRow)
    assert run.metadata["device"] == "cuda:7", "the study's own; its stages say where each was done"


@pytest.mark.slow
def test_what_an_analysis_needs_is_done_first(tmp_path: Path) -> None:
    tiny = StudyConfig("digits", seeds=1, limit=60, epochs=1, width=8, invert_steps=1)
    pipeline.run(tiny, tmp_path / "run", only=("standard",), workers=1)
    run = pipeline.run_analyses(tmp_path / "run", ("fourier",), workers=1)
    needed = {*ANALYZED_MODELS, "dataset-robust", "dataset-nonrobust", "fourier"}
    assert {*run.metadata["stages"]} == {"data-check", *(f"seed0/{name}" for name in needed)}


def stop_at(stage: str, after: float = -1.0) -> Callable[[str, float, str], None]:
    def report_progress(name: str, share: float, words: str) -> None:
        if name == stage and share > after:
            raise KeyboardInterrupt

    return report_progress


def finish(folder: Path) -> None:
    """The rest of the study as if it had been done."""
    with RunFolder.open(folder, RunFolder.read(folder).metadata["arguments"]) as run:
        for stage_id in study_graph(resolved(ANALYZED_STUDY)):
            if not run.done(str(stage_id)):
                run.record_stage(str(stage_id), 0.0)
        run.update_metadata(finished=True)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["saliency", "fourier"])
def test_stopped_within_a_stage_the_study_stays_readable_and_is_resumed(analyzed: AnalyzedStudy, study: Path, stage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        pipeline.run_analyses(study, (stage,), workers=1, report_progress=stop_at(f"seed0/{stage}", 0.3))
    run = RunFolder.read(study)
    assert not run.done(f"seed0/{stage}") and not any(run.rows(table) for table in TABLES[stage])
    assert run.rows(AccuracyRow) == analyzed.before.rows(AccuracyRow) and run.metadata["command"] == COMMAND
    assert findings.findings(StudyResults(run)) == []
    assert stage != "saliency" or report.write(study).stat().st_size > 10_000
    done = pipeline.run_analyses(study, (stage,), workers=1)
    for table in TABLES[stage]:
        assert done.rows(table) == analyzed.run.rows(table)


@pytest.mark.slow
def test_a_finished_study_stays_finished(study: Path) -> None:
    finish(study)
    assert pipeline.run_analyses(study, ("fourier",), workers=1).metadata["finished"] is True


def test_a_finished_study_stays_finished_where_an_analysis_is_stopped(study: Path) -> None:
    finish(study)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run_analyses(study, ("fourier",), workers=1, report_progress=stop_at("seed0/fourier"))
    assert RunFolder.read(study).metadata["finished"] is True


def test_two_processes_cannot_write_one_study(study: Path) -> None:
    with (
        RunFolder.open(study, RunFolder.read(study).metadata["arguments"]),
        pytest.raises(InputError, match=r"^--out: must not be in use"),
    ):
        pipeline.run_analyses(study, ("fourier",), workers=1)


@pytest.mark.parametrize("kind", ["theory", "audit", "files", "unknown setting", "begun"])
def test_only_a_study_can_be_analyzed(kind: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "unknown setting": {"dataset": "digits", "seed": 0, "of a later version": 1},
        "begun": {"dataset": "digits"},
    }
    with RunFolder.open(tmp_path / "run", given.get(kind, {"kind": kind})) as run:
        if kind != "begun":
            run.update_metadata(seeds=[0], full=False, device="cpu", command="")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(InputError, match=r"^RUN: must be a study('s folder| that began), got .*; make one: notbugs run"):
        pipeline.run_analyses(tmp_path / "run", ("ntk",), workers=1)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_folder_without_a_run_is_no_study(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"^run folder: must hold a run\.json"):
            pipeline.run_analyses(place, ("ntk",), workers=1)
    assert not any(tmp_path.iterdir())


def test_an_analysis_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^stage: must be one of saliency, corruptions, fourier, ntk, got kernel"):
        pipeline.run_analyses(tmp_path, ("kernel",))


def test_other_data_is_an_error(study: Path) -> None:
    with RunFolder.open(study, RunFolder.read(study).metadata["arguments"]) as run:
        run.update_metadata(fingerprint="other")
    with pytest.raises(InputError, match=r"^digits: must hold the same images"):
        pipeline.run_analyses(study, ("fourier",), workers=1)
