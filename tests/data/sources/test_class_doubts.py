"""Folders that are no classes: refused with both readings, and each remedy works; and targets of regression."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.conftest import image_folder, load_error
from data.sources.forms import arrays
from data.sources.test_layouts import counted, tree
from data.sources.test_said import numbered, parquet, table

from notbugs import data

MODALITIES = "called like modalities of the same images, or like classes"
FOLDS = "called like folds of the same classes, or like classes"
PETS, PARTS = ("cat", "dog"), ("train", "test")
RECORDINGS = "called like recordings of any class, or like classes"


@pytest.mark.parametrize(
    ("folders", "rule"),
    [
        (("depth", "rgb"), MODALITIES),
        (("images", "ir"), MODALITIES),
        (("left", "right"), MODALITIES),
        (("NIR_images", "RGB_images"), MODALITIES),
        (("fold1", "fold2"), FOLDS),
        (("fold_0", "fold_1", "fold_2"), FOLDS),
        (("cam1", "cam2"), RECORDINGS),
        (("patient001", "patient002"), RECORDINGS),
        (("client_0", "client_1"), RECORDINGS),
        (("0a", "1b", "ff"), "names say nothing of classes, got 0a, 1b, ff"),
    ],
)
def test_modalities_folds_and_recordings_are_no_classes(tmp_path: Path, folders: tuple[str, ...], rule: str) -> None:
    root = tree(tmp_path, dict.fromkeys(folders, 3))
    text = load_error(root)
    assert rule in text and text.endswith("labels of a table: --labels FILE; folders as classes: --all-classes")
    assert data.load(root, all_classes=True).train.classes == folders


def test_numbered_classes_are_no_recordings(tmp_path: Path) -> None:
    for names in (("c0", "c1"), ("grade_1", "grade_2"), ("person1", "person2"), ("class1", "class2"), ("a1", "b2")):
        assert data.load(tree(tmp_path / names[0], dict.fromkeys(names, 2))).train.classes == names


def test_folds_are_parts_by_the_options_that_the_error_names(tmp_path: Path) -> None:
    root = tree(tmp_path, {"fold1/cat": 3, "fold1/dog": 3, "fold2/cat": 2, "fold2/dog": 2, "fold2/emu": 2})
    assert "folds: --train fold1 --test fold2; " in load_error(root)
    assert "has a class that the training part does not have: emu" in load_error(root, train="fold1", test="fold2")
    assert counted(data.load(root, train="fold2", test="fold1").test) == "cat 3 dog 3"


@pytest.mark.parametrize(
    ("inside", "says", "option", "classes"),
    [
        (("left", "right"), MODALITIES, 0, ("left", "right")),
        (("images_001", "images_002"), "names say nothing of classes", 0, ("images_001", "images_002")),
        (("a/cat", "a/dog", "b/cat", "b/dog"), "that all hold the same folders", 0, ("cat", "dog")),
        (("a/cat", "a/dog", "b/cat", "b/dog"), "that all hold the same folders", 1, ("a", "b")),
        (("cat", "dog", "old/cat", "old/dog"), "got old, which holds cat, dog", 0, ("cat", "dog", "old")),
    ],
)
def test_folders_inside_parts_are_doubted_too(tmp_path: Path, inside: Any, says: str, option: int, classes: Any) -> None:
    root = tree(tmp_path, {f"{part}/{name}": 3 for part in ("train", "test") for name in inside})
    text = load_error(root)
    assert says in text and "part test: " in text and "--all-classes" not in text, "it would read the parts as classes"
    loaded = data.load(root, label_regex=text.split("--label-regex '")[option + 1].partition("'")[0])
    assert loaded.train.classes == classes and len(loaded.test) == 3 * len(inside)


@pytest.mark.parametrize(
    ("layout", "seen"),
    [
        ([f"{site}/images/{name}" for site in "ab" for name in PETS], "got a, b, each with cat, dog"),
        ([f"{kind}/{i}/{name}" for kind in ("fog", "ice") for i in (1, 2) for name in PETS], "got fog, ice, each with cat"),
        ([f"{site}/{part}/{name}" for site in "ab" for part in PARTS for name in PETS], "got a, b, each with cat, dog"),
        ([f"split{i}/{part}" for i in (1, 2) for part in PARTS], "names say nothing of classes, got split1, split2"),
        (["raw", "processed"], "got processed, raw"),
    ],
)
def test_folders_around_the_same_classes_are_no_classes(tmp_path: Path, layout: Any, seen: str) -> None:
    root = tree(tmp_path, dict.fromkeys(layout, 2))
    text = load_error(root)
    assert seen in text and "DATASET; " in text and ": --all-classes" in text
    assert len(data.load(root, all_classes=True).train.classes) == 2
    if len(layout) > 4:
        assert (
            data.load(sorted(path for path in root.iterdir() if path.is_dir())[0] / ("1" if "fog" in seen else "")).train.classes
            == PETS
        )


def test_a_table_that_labels_folders_is_no_table_of_classes(tmp_path: Path) -> None:
    names = [f"P{i}" for i in range(4)]
    root = table(tree(tmp_path, dict.fromkeys(names, 2)), "patient,diagnosis", names, ["ill", "well"] * 2)
    text = load_error(root)
    assert (
        "a table with labels for folders, got 2 labels in labels.csv for the folders P0, P1, P2, P3; its labels: write a" in text
    )
    assert data.load(root, all_classes=True).train.classes == tuple(names)
    files = [f"{name}/{i}.png" for name in names for i in range(2)]
    table(root, "file,diagnosis", files, ["ill", "ill", "well", "well"] * 2)
    assert data.load(root, labels="labels.csv").train.classes == ("ill", "well")
    for header in ("class,label", "folder,common name"):  # what classes are called besides
        assert data.load(table(root, header, names, ["ill", "well"] * 2)).train.classes == tuple(names)


def test_one_modality_beside_classes_is_said(tmp_path: Path) -> None:
    root = image_folder(tmp_path, ("cat", "depth", "dog"))
    assert any("depth is read as a class, like cat, dog" in note for note in data.load(root).notes)
    assert not any("read as a class" in note for note in data.load(image_folder(tmp_path / "a", ("left", "up"))).notes)


# ---- targets of regression -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "has_remedy"),
    [
        (lambda root: table(numbered(root), "file,label", [f"{i}.png" for i in range(8)], [1.5, 2.0, 3.25, 1.5] * 2), True),
        (lambda root: table(numbered(root), "file,age", [f"{i}.png" for i in range(8)], [20, 30, 41, 20] * 2), True),
        (lambda root: parquet(root / "a.parquet", label=[1.5, 2.0] * 4), True),
        (lambda root: npz(root / "a.npz", np.array([1.5, 2.0] * 4)), False),
        (lambda root: npz(root / "a.npz", np.array(["1.5", "2.0"] * 4)), False),
    ],
)
def test_targets_of_regression_are_no_classes(tmp_path: Path, make: Any, has_remedy: bool) -> None:
    path = make(tmp_path)
    text = load_error(path)
    assert (
        "are measured numbers (targets of regression), and classes are needed, got" in text and "group them into classes" in text
    )
    assert has_remedy == ("each number as a class: --label-column" in text)
    if has_remedy:
        assert len(data.load(path, label_column=text.rpartition(" ")[2]).train.classes) > 1


def npz(path: Path, labels: np.ndarray) -> Path:
    np.savez(path, images=arrays()["x_train"], labels=labels)
    return path


def test_whole_floats_in_a_parquet_file_are_classes(tmp_path: Path) -> None:
    assert data.load(parquet(tmp_path / "a.parquet", label=[1.0, 2.0] * 4)).train.classes == ("1", "2")


def test_many_numbers_of_few_images_are_said_to_be_perhaps_measured(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((60, 2, 2), np.uint8), labels=np.arange(60) % 30)
    assert any(
        note.startswith("the 30 classes are whole numbers, of 2 images each") for note in data.load(tmp_path / "a.npz").notes
    )
