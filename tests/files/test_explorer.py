"""What the explorer shows: pictures, predictions and nearest files of every file, as the models of the run find them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from files.conftest import QUICK, Done

from notbugs import data, models, predict
from notbugs.data import Dataset
from notbugs.errors import InputError
from notbugs.files import FilesConfig, load_pictures
from notbugs.files.config import examples_path
from notbugs.files.crossfit import fold_seed, score_fold, stratified_folds
from notbugs.files.examples import NEIGHBORS, nearest_files
from notbugs.files.explorer import PICTURES, VERSIONS, _merged, explorer_stage, keeps_pictures, of_fold, sheet_rows
from notbugs.runs.folder import RunFolder
from notbugs.runs.tables.files import AdversarialExampleRow, FilePredictionRow, FileRow, NeighborRow, PictureSheetRow


def gray(pictures: np.ndarray) -> torch.Tensor:
    """Pictures (N, H, W, 3) of gray images as images (N, 1, H, W)."""
    assert (pictures[..., 0] == pictures[..., 2]).all()
    return torch.from_numpy(np.ascontiguousarray(pictures[..., :1])).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def files(done: Done) -> Dataset:
    """The data set of the run."""
    return data.load(str(done.dataset)).train


@pytest.fixture(scope="module")
def folds(files: Dataset) -> torch.Tensor:
    """Its folds in the first repetition; models/ holds the models of fold 0, as the stage `features` trains them again."""
    return stratified_folds(files.labels, 2, fold_seed(0, 0))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_folds_of_unequal_sizes_give_each_file_its_own_entry(count: int) -> None:
    """A fold keeps what belongs to its own files, and the versions of those of the fold before."""
    folds = torch.tensor([0, 0, 0, 1, 1, 0, 0, 0, 1, *range(2, count), *range(2, count), 1, 0, count - 1])
    files = np.arange(len(folds))
    parts = []
    for fold in range(count):
        own = {name: files[(folds == fold).numpy()] for name in PICTURES if name not in VERSIONS}
        others = {name: files[(folds != fold).numpy()] for name in VERSIONS}
        nearest = {name: np.zeros((int((folds == fold).sum()), 1), int) for name in ("same_class", "other_class")}
        parts.append(of_fold({**own, **others, **nearest}, folds, fold))
    assert len({len(part[name]) for part in parts for name in PICTURES}) > 1, "the folds are of unequal sizes"
    for name in PICTURES:
        assert _merged(parts, folds, name).tolist() == files.tolist(), name


@pytest.mark.slow
def test_adversarial_examples_are_misclassified_by_the_model_that_did_not_see_the_file(
    done: Done, files: Dataset, folds: torch.Tensor
) -> None:
    rows = RunFolder.read(done.run).rows(AdversarialExampleRow)
    assert [row.index for row in rows] == [*range(len(files))] * 2
    own = (folds == 0).nonzero().squeeze(1)
    for name in ("standard", "robust"):
        model = models.load(done.run / "models" / f"{name}.safetensors")[0]
        chosen = [row for row in rows if row.model == name]
        pictures = gray(load_pictures(done.run, f"{name}_adversarial"))
        clean, attacked = (predict.predict(model, part).tolist() for part in (files, files.with_images(pictures)))
        for index in own.tolist():
            row, label = chosen[index], files.classes[files.labels[index]]
            assert (row.clean_prediction, row.adversarial_prediction) == (
                files.classes[clean[index]],
                files.classes[attacked[index]],
            )
            change = data.from_8bit(pictures[index]) - files.pixels([index])[0]
            assert row.linf == pytest.approx(change.abs().max().item(), abs=1e-6)
            if row.norm is None:
                assert row.adversarial_prediction == label
            else:
                assert row.norm == pytest.approx(change.norm().item(), abs=1e-5) and row.adversarial_prediction != label
        assert sum(row.norm is None for row in chosen) < len(chosen) / 10
        assert sum(bool(row.norm) for row in chosen) > len(chosen) / 4


@pytest.mark.slow
def test_nearest_files_are_of_the_same_fold_and_by_the_model_that_saw_neither(
    done: Done, files: Dataset, folds: torch.Tensor
) -> None:
    rows = RunFolder.read(done.run).rows(NeighborRow)
    assert all(folds[row.index] == folds[row.neighbor] and row.index != row.neighbor for row in rows)
    assert all(files.names[row.neighbor] == row.neighbor_file and files.names[row.index] == row.file for row in rows)
    own = (folds == 0).nonzero().squeeze(1)
    robust = models.load(done.run / "models" / "robust.safetensors")[0]
    wanted = nearest_files(predict.features(robust, files.select(own)), files.labels[own])
    for same, name in ((True, "same_class"), (False, "other_class")):
        for place, index in enumerate(own.tolist()):
            found = [row for row in rows if row.index == index and row.same_class == same]
            assert [row.rank for row in found] == [*range(1, NEIGHBORS + 1)]
            assert [row.neighbor for row in found] == own[wanted[name][place]].tolist()
            assert [row.distance for row in found] == pytest.approx(wanted[f"{name}_distance"][place].tolist(), rel=1e-4)


@pytest.mark.slow
def test_pictures_are_the_files_and_versions_with_their_features(done: Done, files: Dataset, folds: torch.Tensor) -> None:
    assert torch.equal(gray(load_pictures(done.run, "original")), files.images[:])
    trained_on = folds == 1  # by the models of fold 0, which made the versions of these files
    for kind, name in (("robust_version", "robust"), ("nonrobust_version", "standard")):
        model = models.load(done.run / "models" / f"{name}.safetensors")[0]
        version = files.with_images(gray(load_pictures(done.run, kind)))
        wanted, found = (predict.features(model, part)[trained_on] for part in (files, version))
        own = (found - wanted).norm(dim=1)
        other = (found - wanted.roll(1, 0)).norm(dim=1)
        assert (own < other).float().mean() > 0.9
    assert not list((done.run / "parts").glob("examples-*"))
    with pytest.raises(InputError, match=r"^kind: must be one of original, standard_adversarial"):
        load_pictures(done.run, "thumbnail")


@pytest.mark.slow
def test_predictions_are_those_behind_the_scores(done: Done) -> None:
    run = RunFolder.read(done.run)
    rows, files = run.rows(FilePredictionRow), run.rows(FileRow)
    assert len(rows) == 4 * len(files)
    standard = [row for row in rows if row.model == "standard"]
    assert [row.label_probability for row in standard] == pytest.approx([row.label_quality for row in files])
    for row, file in zip(standard, files, strict=True):
        assert row.index == file.index and row.confidence >= row.label_probability - 1e-6
        assert (row.predicted == file.label) == (row.confidence == pytest.approx(row.label_probability))


@pytest.mark.slow
def test_without_room_for_pictures_only_the_nearest_files_are_kept(few: Dataset) -> None:
    config = FilesConfig(data.DataConfig("digits"), pictures=0.03)
    assert keeps_pictures(config, few.select(slice(0, 100))) and not keeps_pictures(config, few)  # 4 x 120 x 64 bytes
    folds, kept = stratified_folds(few.labels, 2, 0), dict[str, np.ndarray]()
    score_fold(few, QUICK, folds == 0, seed=0, keep=kept.__setitem__)
    assert {*kept} == {"same_class", "same_class_distance", "other_class", "other_class_distance"}
    found = of_fold(kept, folds, 0)
    assert (folds[torch.from_numpy(found["same_class"][found["same_class"] >= 0])] == 0).all()


def test_a_run_from_before_there_was_an_explorer_gets_the_files_only(tmp_path: Path) -> None:
    config = FilesConfig(data.DataConfig("digits"))
    rows = explorer_stage(config, tmp_path, lambda stage, share, words: None)
    assert {row.kind for row in rows if isinstance(row, PictureSheetRow)} == {"original"}
    assert all(isinstance(row, PictureSheetRow) for row in rows) and len(list((tmp_path / "explorer").iterdir())) == len(rows)


def test_large_images_have_thumbnails(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (30, 3, 50, 100), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    small, full = (sheet_rows(kind, images, tmp_path) for kind in ("thumbnail", "original"))
    assert [(row.first, row.files, row.columns) for row in small] == [(0, 25, 5), (25, 5, 5)]
    assert [(row.first, row.files, row.columns) for row in full] == [(0, 9, 3), (9, 9, 3), (18, 9, 3), (27, 3, 3)]
    assert {(row.width, row.height) for row in small} == {(64, 32)} and {(row.width, row.height) for row in full} == {(100, 50)}
    found = data.load_sheet(tmp_path / full[1].picture, 9, columns=3, height=50, width=100)
    assert np.array_equal(found, images[9:18].permute(0, 2, 3, 1).numpy())


def test_each_file_has_the_version_of_one_fold(tmp_path: Path, few: Dataset) -> None:
    """What a fold keeps is put together in the order of the data set."""
    config = FilesConfig(data.DataConfig("digits", limit=120))
    digits = data.load("digits", limit=120).train
    folds = stratified_folds(digits.labels, 3, fold_seed(0, 0))
    index = np.arange(len(digits))
    for fold in range(3):
        own, others = index[folds == fold], index[folds != fold]
        kept: dict[str, np.ndarray] = {}
        for name in PICTURES:
            places = others if name in VERSIONS else own
            kept[name] = np.repeat(places.astype(np.uint8)[:, None, None, None], 64, axis=-1).reshape(-1, 1, 8, 8)
        for model in ("standard", "robust"):
            kept |= {f"{model}_{name}": digits.labels.numpy()[own] for name in ("clean_prediction", "adversarial_prediction")}
        for name in ("same_class", "other_class"):
            kept |= {name: np.zeros((len(own), 1), np.int64), f"{name}_distance": np.ones((len(own), 1), np.float32)}
        data.save_arrays(of_fold(kept, folds, fold), examples_path(tmp_path, fold))
    rows = explorer_stage(config, tmp_path, lambda stage, share, words: None)
    with RunFolder.open(tmp_path / "run", {"kind": "files"}) as run:
        run.record_stage("explorer", 0.0, rows)
    (tmp_path / "explorer").rename(tmp_path / "run" / "explorer")
    for name in PICTURES:
        assert load_pictures(tmp_path / "run", name)[:, 0, 0, 0].tolist() == index.tolist()
    first = [int((folds == fold).nonzero()[0]) for fold in range(3)]
    neighbors = [row for row in rows if isinstance(row, NeighborRow)]
    assert all(row.neighbor == first[folds[row.index]] for row in neighbors) and len(neighbors) == 2 * len(digits)
    examples = [row for row in rows if isinstance(row, AdversarialExampleRow)]
    assert all(row.norm is None for row in examples)  # predicted as labeled: no example was found
