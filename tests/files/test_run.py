"""A run of file scores: tables, subsets, resuming, and rejected input."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cli.conftest import call_here, error_line
from files.conftest import Done
from pyarrow import parquet

from notbugs import data, metrics
from notbugs.files.run import representative_files
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.features import FeatureCategoryRow, FeatureRow
from notbugs.runs.tables.files import FileRow, LabelErrorsRow, ModelAccuracyRow, SubsetRow
from notbugs.runs.tables.row import columns, from_text


def subset(done: Done, name: str) -> data.Dataset:
    return data.load_part(done.run / "datasets" / f"{name}-files", "folder")


@pytest.mark.slow
def test_the_command_writes_two_subsets_and_their_manifest(done: Done) -> None:
    assert done.printed.returncode == 0, done.printed.stderr
    table = parquet.read_table(done.run / "tables" / "files.parquet").to_pylist()
    rows = RunFolder.read(done.run).rows(FileRow)
    assert len(table) == len(rows) > 100
    assert [row["file"] for row in table] == [row.file for row in rows]
    assert [row["robustness"] for row in table] == [row.robustness for row in rows]
    lines = parquet.read_table(done.run / "tables" / "subsets.parquet").to_pylist()
    listed = [from_text(SubsetRow, {name: "" if value is None else str(value) for name, value in line.items()}) for line in lines]
    subsets = {name: subset(done, name) for name in ("robust", "nonrobust")}
    robustness = {row.file: row.robustness for row in rows}
    for name, part in subsets.items():
        assert [row.file for row in listed if row.subset == name] == [*part.names]
        assert f"{name:10}  {len(part)} files" in done.printed.stdout
        assert len({*part.names}) == len(part)
    assert torch.equal(subsets["robust"].labels.bincount(minlength=10), subsets["nonrobust"].labels.bincount(minlength=10))
    assert not {*subsets["robust"].names} & {*subsets["nonrobust"].names}
    means = [np.mean([robustness[name] for name in subsets[part].names]) for part in ("robust", "nonrobust")]
    assert means[0] > means[1] + 0.3


@pytest.mark.slow
def test_pixels_of_the_subsets_are_unchanged(done: Done) -> None:
    splits = data.load(str(done.dataset))
    known = {name: splits.train.images[[index]] for index, name in enumerate(splits.train.names)}
    part = subset(done, "robust")
    manifest = (done.run / "datasets/robust-files/manifest.csv").read_text().splitlines()
    names = {row["original_name"]: row["file"] for row in csv.DictReader(manifest)}
    for name in part.names:
        copy = done.run / "datasets/robust-files" / names[name]
        assert copy.read_bytes() == (done.dataset / "train" / name).read_bytes()
    assert "Files are copied byte for byte" in done.printed.stdout
    assert all(torch.equal(part.images[[index]], known[name]) for index, name in enumerate(part.names))


@pytest.mark.slow
def test_the_same_command_resumes_and_another_is_rejected(done: Done, tmp_path: Path) -> None:
    run, words = tmp_path / "run", [*done.words]
    words[words.index("--out") + 1] = str(run)
    shutil.copytree(done.run, run)
    files = run / "tables" / "files.csv"
    before = files.read_text()
    metadata = json.loads((run / "run.json").read_text())
    removed = "repeat 1, fold 2"
    del metadata["stages"][removed], metadata["stages"]["summary"]
    (run / "run.json").write_text(json.dumps(metadata))
    again = call_here(*words)
    assert again.returncode == 0, again.stderr
    assert [line for line in again.stderr.splitlines() if line.startswith("done:")] == [f"done: {removed}"]
    assert files.read_text() == before
    more = [*words]
    more[more.index("--repeats") + 1] = "2"
    extended = call_here(*more)
    finished = [line for line in extended.stderr.splitlines() if line.startswith("done:")]
    assert finished == ["done: repeat 2, fold 1", "done: repeat 2, fold 2"]
    assert "Rank stability: " in extended.stdout
    assert len(RunFolder.read(run).rows(FileRow)) == len(before.splitlines()) - 1
    assert files.read_text() != before
    kept = (run / "run.json").read_bytes()
    without = call_here(*more, "--pictures", "0")
    assert without.returncode == 2 and "--pictures: must be as before to resume a run: pictures are stored when" in without.stderr
    assert "; give --pictures 1000, or another --out" in without.stderr and (run / "run.json").read_bytes() == kept
    study = call_here("run", str(done.dataset), "--out", str(run))
    assert study.returncode == 2 and "which holds file scores" in study.stderr
    words[words.index("--folds") + 1] = "3"
    other = call_here(*words)
    assert other.returncode == 2 and "--folds: must be as before" in other.stderr


@pytest.mark.slow
def test_the_summary_prints_absolute_evidence_first_and_the_tables_agree(done: Done) -> None:
    """One definition everywhere: a file's category, a feature's category, and the accuracies follow from the same columns."""
    run, printed = RunFolder.read(done.run), done.printed.stdout
    files, accuracies = run.rows(FileRow), {row.model: row for row in run.rows(ModelAccuracyRow)}
    assert [*accuracies] == ["standard", "robust", "trained_on_robust", "trained_on_nonrobust"]
    for name in ("standard", "robust"):
        share = np.mean([getattr(row, f"{name}_correct") for row in files])
        assert accuracies[name].accuracy == pytest.approx(share) and accuracies[name].n == len(files)
    assert accuracies["robust"].robust_accuracy == pytest.approx(np.mean([row.robust_correct_within_epsilon for row in files]))
    for row in files:
        within, likely = row.robust_correct_within_epsilon > 0.5, row.category == "likely label error"
        assert likely or (row.category == "robust") == within
        assert likely or (row.category == "misclassified") == (not within and row.standard_correct <= 0.5)
    (errors,) = run.rows(LabelErrorsRow)
    assert errors.likely == sum(row.category == "likely label error" for row in files)
    parts = [
        "robust accuracy",
        "The majority of the robust models",
        f"of {len(files)} files",
        "below 0.5 by definition",
        "Label errors",
    ]
    places = [printed.index(part) for part in parts]
    assert places == sorted(places)
    assert "--repeats 3" in printed  # one repetition: rank stability cannot be estimated


@pytest.mark.slow
def test_robust_features_are_those_of_ilyas_et_al(done: Done) -> None:
    run = RunFolder.read(done.run)
    best = {row.feature: row for row in metrics.best_class_rows(run.rows(FeatureRow))}
    rows = run.rows(FeatureCategoryRow)
    assert len(rows) == len(best) > 0
    for row in rows:
        of_class = best[row.feature]
        assert (row.category, row.class_name) == (of_class.category, of_class.class_name)
        assert (row.usefulness, row.robust_usefulness) == (of_class.usefulness, of_class.robust_usefulness)
        assert (row.category == "robust") == (row.usefulness >= metrics.RHO and row.robust_usefulness > 0)
    assert f"{sum(row.category == 'robust' for row in rows)} robust, " in done.printed.stdout


def test_representative_files_take_turns_between_the_classes() -> None:
    numbers = {
        name: 0.0
        for name in columns(FileRow)
        if name not in ("index", "file", "label", "category", "suggested_label", "robustness")
    }
    rows = [
        FileRow(
            index=index,
            file=f"{index}.png",
            label=label,
            category="robust",
            suggested_label=label,
            robustness=robustness,
            **numbers,
        )
        for index, (label, robustness) in enumerate([("a", 0.9), ("a", 0.8), ("b", 0.7), ("a", 1.0)])
    ]
    assert [row.index for row in representative_files(rows, "robust")] == [3, 2, 0, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["files", "digits", "--folds", "1"], "--folds: must be from 2 to"),
        (["files", "digits", "--folds", "5000"], "--folds: must be from 2 to"),
        (["files", "digits", "--repeats", "0"], "--repeats: must be 1 or more"),
        (["files", "digits", "--repeats", "1000000000"], "--repeats: must be 1 or more, at most 1,000"),
        (["split", "digits", "--by-file", "--top", "0.7"], "--top: is a share of each class"),
        (["split", "digits", "--by-file", "--top", "0.001"], "--top: must leave a file of each class"),
        (["files", "digits", "--workers", "0"], "--workers: must be 1 or more"),
    ],
)
def test_input_errors_come_before_anything_is_written(words: list[str], message: str, tmp_path: Path) -> None:
    assert message in error_line(call_here(*words, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()
