"""The tables of an audit against each other and against the model."""

import csv

import pytest
from audit.conftest import IMAGES, accuracy

from notbugs import attacks, data, models
from notbugs.data import Dataset
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.audit import (
    AuditFileRow,
    AuditPictureRow,
    CheckRow,
    ClassAccuracyRow,
    ConfusionRow,
    CurveRow,
    ImageRow,
    PredictionRow,
)
from notbugs.runs.tables.row import cells
from notbugs.search import NormBall

pytestmark = pytest.mark.slow


@pytest.mark.slow
def test_robust_accuracy_is_that_of_the_attacks(done: RunFolder, part: Dataset, robust: models.Model) -> None:
    rows = accuracy(done)
    assert list(rows) == ["clean", "l2 0.375", "l2 0.75", "linf 0.1", "l0 1", "spatial 10,0.5"]
    images, labels = part.pixels(slice(None)), part.labels
    assert rows["clean"].correct == int((robust(images).argmax(1) == labels).sum())
    assert rows["clean"].correct_by_minimum_norm is None and rows["clean"].correct_8bit is None
    for name, norm, epsilon in (("l2 0.375", "l2", 0.375), ("l2 0.75", "l2", 0.75), ("linf 0.1", "linf", 0.1)):
        result = attacks.adaptive_ensemble(robust, images, labels, threat_model=NormBall(norm, epsilon))
        alone, row = int((result.margins < 0).sum()), rows[name]
        assert alone - 2 <= row.correct <= alone  # the minimum-norm attack runs first: it can only add
        assert row.correct_by_minimum_norm is not None
        assert row.correct <= row.correct_by_minimum_norm <= row.correct + 3
        assert row.n == IMAGES and row.ci_low < row.accuracy < row.ci_high
        assert (row.norm, row.epsilon) == (norm, epsilon)
    assert rows["l0 1"].correct_by_minimum_norm is None and rows["spatial 10,0.5"].norm == "spatial"
    assert rows["l2 0.75"].correct < rows["l2 0.375"].correct < rows["clean"].correct


def test_attacks_have_the_names_that_the_documentation_defines(done: RunFolder) -> None:
    assert [row.attack for row in accuracy(done).values()] == ["none", *["ensemble-standard v6"] * 5]


def test_files_are_in_the_order_of_the_data_set_and_agree_with_the_accuracies(done: RunFolder, part: Dataset) -> None:
    files, rows, predictions = done.rows(AuditFileRow), accuracy(done), done.rows(PredictionRow)
    assert [row.file for row in files] == list(part.names)
    assert [row.label for row in files] == [part.classes[label] for label in part.labels.tolist()]
    assert sorted(done.rows(ImageRow), key=lambda row: row.index) == [ImageRow(**cells(row)) for row in files]  # type: ignore[arg-type]
    misclassified = {(row.threat, row.index): row.misclassified for row in predictions}
    assert len(misclassified) == 5 * IMAGES
    for name in list(rows)[1:]:
        assert sum(not misclassified[name, row.index] for row in files) == rows[name].correct
    for row in files:
        assert row.minimum_l2 is not None and row.minimum_l1 is None
        assert (row.minimum_l2 == 0) == (row.predicted != row.label) == row.misclassified
        assert (row.minimum_l2 <= 0.375) == misclassified["l2 0.375", row.index]
        assert row.minimum_l0 in (0, 1, float("inf"))


def test_the_curve_counts_the_smallest_perturbations(done: RunFolder) -> None:
    files, curve = done.rows(AuditFileRow), done.rows(CurveRow)
    for norm in ("l2", "linf", "l0"):
        rows = [row for row in curve if row.norm == norm]
        sizes = [getattr(file, f"minimum_{norm}") for file in files]
        counts = [row.correct for row in rows]
        assert counts == [sum(size > row.epsilon for size in sizes) for row in rows]
        assert counts == sorted(counts, reverse=True)
        assert rows[0].epsilon == 0
    assert counts[0] > 0.9 * IMAGES


def test_classes_and_confusion_add_up(done: RunFolder) -> None:
    for name, row in accuracy(done).items():
        classes = [each for each in done.rows(ClassAccuracyRow) if each.threat == name]
        confusion = [each for each in done.rows(ConfusionRow) if each.threat == name]
        assert sum(each.correct for each in classes) == row.correct
        assert sum(each.n for each in classes) == sum(each.count for each in confusion) == IMAGES
        assert sum(each.count for each in confusion if each.predicted == each.label) == row.correct


def test_stored_images_are_in_8_bits_inside_the_ball_and_measured_as_stored(
    done: RunFolder, part: Dataset, robust: models.Model
) -> None:
    rows, form = accuracy(done), done.audit().data.form
    for name, norm, epsilon in (("l2 0.75", "l2", 0.75), ("linf 0.1", "linf", 0.1), ("l0 1", "l0", 1)):
        folder = done.folder / "datasets" / ("attacked-" + name.replace(" ", "-"))
        stored = data.load_part(folder, "npz" if (folder / "data.npz").exists() else form, "test")
        assert stored.names == part.names
        perturbation = (stored.images[:].double() - part.images[:].double()) / 255
        assert float(NormBall(norm, 0).distance(perturbation).max()) <= epsilon * (1 + 1e-9)
        correct = int((robust(stored.pixels(slice(None))).argmax(1) == part.labels).sum())
        assert correct == rows[name].correct_8bit
        assert rows[name].correct <= correct <= rows[name].correct + 1  # rounding undoes hardly any
        assert "misclassifies" in (folder / "README.md").read_text()
    assert not (done.folder / "parts").exists()


def test_pictures_are_of_the_most_and_the_least_fragile_files(done: RunFolder) -> None:
    rows = done.rows(AuditPictureRow)
    shown = ["l2 0.75", "linf 0.1", "l0 1", "spatial 10,0.5"]  # the largest epsilon of each norm
    columns = ["clean", *(column for name in shown for column in (name, f"perturbation, {name}"))]
    assert [row.column for row in rows] == columns * 12 and all((done.folder / row.picture).is_file() for row in rows)
    sizes = [row.minimum_norm for row in rows if row.column == "clean" and row.minimum_norm is not None]
    assert sizes == sorted(sizes) and len(sizes) == 12 and 0 < sizes[0] < sizes[-1]
    assert [row.group for row in rows][:: len(columns)] == ["most fragile"] * 6 + ["least fragile"] * 6
    assert len({row.picture for row in rows}) == len(rows)
    predicted = {(row.threat, row.index): row.predicted_8bit for row in done.rows(PredictionRow)}
    assert all(row.predicted == predicted[row.column, row.index] for row in rows if row.column in shown)


def test_checks_are_made_and_pass(done: RunFolder) -> None:
    rows = done.rows(CheckRow)
    assert len(rows) == 16
    assert {row.check: row.passed for row in rows if row.passed != "yes"} == {"transfer": "not run"}
    assert all(row.threat == "linf 0.1" and row.rationale and row.fix for row in rows)


def test_tables_are_plain_csv(done: RunFolder) -> None:
    with (done.folder / "tables" / "files.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == IMAGES
    assert list(rows[0])[:5] == ["index", "file", "label", "predicted", "misclassified"]
