"""What could be guessed, dropped or confused in silence: it is read as it is meant, said, or refused with a remedy that works."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from data.conftest import image_folder, load_error, random_dataset, random_image, save
from data.sources.forms import arrays, pixel_table, png, tar

from notbugs import data
from notbugs.data.dataset import Dataset
from notbugs.data.export import export


def numbered(root: Path, count: int = 8, folder: str = "images") -> Path:
    for i in range(count):
        save(random_image(i), root / folder / f"{i}.png")
    return root


def table(root: Path, header: str, *columns: Any, name: str = "labels.csv") -> Path:
    rows = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    (root / name).write_text("\n".join([header, *rows]))
    return root


def parquet(path: Path, count: int = 8, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"image": [png(i) for i in range(count)], "label": [i % 2 for i in range(count)]}
    pyarrow.parquet.write_table(pyarrow.table(rows | columns), path)
    return path


# ---- parts ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("column", "cells"), [("is_train", "11110000"), ("Is_Test", "00001111"), ("is_val", "00001111")])
def test_columns_of_0_and_1_that_say_the_parts(tmp_path: Path, column: str, cells: str) -> None:
    files, labels = [f"{i}.png" for i in range(8)], ["cat", "dog"] * 4
    found = data.load(table(numbered(tmp_path), f"file,label,{column}", files, labels, cells))
    assert {Path(name).stem for name in found.test.names} == {"4", "5", "6", "7"}
    assert {Path(name).stem for name in found.train.names} == {"0", "1", "2", "3"}


def test_a_column_called_train_is_said(tmp_path: Path) -> None:
    root = table(numbered(tmp_path), "file,label,train", [f"{i}.png" for i in range(8)], ["cat", "dog"] * 4, "11110000")
    assert "column train is not used: 0, 1" in data.load(root).notes


def test_parts_in_a_table_beside_class_folders_are_said_and_the_remedy_reads_them(tmp_path: Path) -> None:
    root = image_folder(tmp_path, splits=(".",))
    files, labels = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)], ["cat"] * 3 + ["dog"] * 3
    parts = ["train", "train", "test"] * 2
    table(root, "file,label,split", files, labels, parts, name="about.csv")
    said = "column split of about.csv says which images are test images; not read (--labels about.csv reads it)"
    assert said in data.load(root).notes
    assert sorted(data.load(root, labels="about.csv").test.names) == ["cat/2.png", "dog/2.png"]
    table(root, "file,split", files, parts, name="about.csv")
    assert any("to use it, make folders" in note for note in data.load(root).notes)


@pytest.mark.parametrize("form", ["npz", "pixels", "parquet"])
def test_columns_and_arrays_that_say_the_parts_are_said(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"set.{form}"
    if form == "npz":
        np.savez(path, images=arrays()["x_train"], labels=arrays()["y_train"], split=np.array(["train", "test"] * 4))
    elif form == "parquet":
        parquet(path, split=["train", "test"] * 4)
    else:
        path = pixel_table(tmp_path / "set.csv")
        lines = path.read_text().splitlines()
        path.write_text("\n".join([f"{lines[0]},Usage", *(f"{line},Training" for line in lines[1:])]))
    assert any("split is not used" in note or "Usage is not used" in note for note in data.load(path).notes)


def test_parquet_files_in_folders_of_different_depth(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet")
    parquet(tmp_path / "test" / "0.parquet", 4)
    assert "in folders of different depth, got train.parquet, test/0.parquet" in load_error(tmp_path)
    assert len(data.load(tmp_path / "train.parquet").train) == 6


# ---- labels and classes --------------------------------------------------------------------------------------------------------


def test_a_name_in_another_folder_is_another_file(tmp_path: Path) -> None:
    """Files of p1 are missing: those of the same name in p2 must not get their labels."""
    for name in ("p2/0", "p2/1", "p2/2", "p2/3", "p1/4"):
        save(random_image(0), tmp_path / "images" / f"{name}.png")
    files = [f"p2/{i}.png" for i in range(2)] + ["p1/2.png", "p1/3.png", "p1/4.png"]
    root = table(tmp_path, "file,label", files, ["cat", "dog", "cat", "dog", "cat"])
    assert "labels.csv: p1/2.png: is not there" in load_error(root, labels="labels.csv")


def test_names_without_their_folder_are_said(tmp_path: Path) -> None:
    root = table(numbered(tmp_path, 6, "a/mine"), "file,label", [f"/data/yours/{i}.png" for i in range(6)], ["cat", "dog"] * 3)
    assert "names of files are matched without their folders" in data.load(root, labels="labels.csv").notes


def test_a_cell_that_no_path_can_be_takes_no_time(tmp_path: Path) -> None:
    """Each end of a path is looked up: of 50,000 folders that took long."""
    records = [{"file": "a/" * 50_000 + "0.png" if i == 7 else f"{i}.png", "label": i % 2} for i in range(8)]
    (numbered(tmp_path) / "labels.json").write_text(json.dumps(records))
    assert "is not there" in load_error(tmp_path)


def test_missing_labels_are_no_class(tmp_path: Path) -> None:
    records = [{"file": f"{i}.png", "label": float("nan") if i > 5 else i % 2} for i in range(8)]
    (numbered(tmp_path) / "labels.json").write_text(json.dumps(records))
    assert "labels.json: 6.png: has no label" in load_error(tmp_path)
    np.savez(tmp_path / "a.npz", images=arrays()["x_train"], labels=np.array(["cat", "nan"] * 4))
    assert "class nan may be of missing labels" in data.load(tmp_path / "a.npz").notes


def test_a_file_that_stands_twice_in_json_has_two_labels(tmp_path: Path) -> None:
    pairs = [f'"{i}.png": "{("cat", "dog")[i % 2]}"' for i in range(8)]
    (numbered(tmp_path) / "labels.json").write_text("{" + ", ".join([*pairs, '"0.png": "dog"']) + "}")
    assert "0.png: has two labels in labels.json: cat and dog" in load_error(tmp_path)


def test_numbers_of_images_in_coco_are_different(tmp_path: Path) -> None:
    listed = [{"id": i // 2, "file_name": f"{i}.png"} for i in range(8)]
    about = [{"image_id": i // 2, "category_id": i % 2} for i in range(8)]
    content = {"images": listed, "annotations": about, "categories": [{"id": i, "name": f"c{i}"} for i in range(2)]}
    (numbered(tmp_path) / "labels.json").write_text(json.dumps(content))
    assert "labels.json, which label none of them" in load_error(tmp_path)


def test_one_of_two_columns_of_one_name_cannot_be_meant(tmp_path: Path) -> None:
    root = table(numbered(tmp_path), "file,label,label", [f"{i}.png" for i in range(8)], ["cat", "dog"] * 4, "xxyyxxyy")
    assert "--label-column: must be the name of one column" in load_error(root, label_column="label")


@pytest.mark.parametrize("words", [["cat", "Cat"], ["1", "01"]])
def test_words_that_hardly_differ_are_said(tmp_path: Path, words: list[str]) -> None:
    np.savez(tmp_path / "a.npz", images=arrays()["x_train"], labels=np.array(words * 4))
    assert any("Unicode form are kept apart" in note for note in data.load(tmp_path / "a.npz").notes)


def test_a_folder_of_images_beside_masks_is_no_class(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass"):
        numbered(tmp_path, 3, folder)
    assert "got JPEGImages and SegmentationClass; name the folder" in load_error(tmp_path)
    assert data.load(tmp_path, all_classes=True).train.classes == ("JPEGImages", "SegmentationClass")


def test_a_class_called_mask_beside_photo_is_said(tmp_path: Path) -> None:
    root = image_folder(tmp_path, ("photo", "mask", "real"), splits=("train", "test"))
    for i in range(3):  # other names than those of photos
        for part in ("train", "test"):
            (root / part / "photo" / f"{i}.png").rename(root / part / "photo" / f"p{i}.png")
    assert "train: called like annotations, and left out: mask (3 images)" in data.load(root).notes


def test_images_in_a_folder_called_unlabeled_are_counted(tmp_path: Path) -> None:
    root = image_folder(tmp_path, ("cat", "dog", "unlabeled"), splits=("train", "test"))
    assert "train: called unlabeled, and left out: unlabeled (3 images)" in data.load(root).notes


@pytest.mark.parametrize("names", [("cat", "dog", "unlabeled"), ("mask", "photo", "real")])
def test_nothing_is_left_out_where_all_folders_are_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        for i in range(5):
            save(random_image(i), tmp_path / name / f"{name}{i}.png")
    assert any("left out" in note for note in data.load(tmp_path).notes)
    loaded = data.load(tmp_path, all_classes=True)
    assert loaded.train.classes == names and loaded.left_out == ()
    assert not any("left out" in note for note in loaded.notes)


@pytest.mark.parametrize(
    "classes",
    [("mask", "photo", "unlabeled"), (".x", "Thumbs.db", "__macosx", "a/b", "a_b"), ("depth", "rgb"), ("fold1", "fold2")],
)
def test_a_written_folder_has_the_classes_that_were_written(tmp_path: Path, classes: tuple[str, ...]) -> None:
    data.export(random_dataset(2 * len(classes), 3, classes), tmp_path / "set", "folder", card="")
    assert set(data.load(tmp_path / "set").train.classes) == set(classes)


def test_folders_inside_all_class_folders_are_said(tmp_path: Path) -> None:
    for name in ("pet/cat", "pet/dog", "farm/cow", "farm/pig"):
        numbered(tmp_path, 2, name)
    assert any("belong to the class: farm/cow, farm/pig" in note for note in data.load(tmp_path).notes)


def test_folders_of_classes_that_are_written_alike_keep_their_own_name(tmp_path: Path) -> None:
    written: Dataset = random_dataset(classes=("a/b", "a_b"))
    export(written, tmp_path / "out", "folder", card="x")
    read = data.load(tmp_path / "out")
    assert set(read.train.classes) == {"a_b", "a/b"}
    assert "class names from manifest.csv, as no folder can be called so: a_b~2 is a/b" in read.notes
    own = {name.rpartition("/")[2] for name in read.train.names if name.startswith("a_b/")}
    assert own <= {name.rpartition("/")[2] for name, label in zip(written.names, written.labels, strict=True) if label == 1}


# ---- options and remedies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "got", "remedy"),
    [
        (lambda x: x > 99, "got bool", "255 * images"),
        (lambda x: x.astype(np.uint16) * 257, "got uint16 from ", "scale them"),
        (lambda x: x.astype(np.float32), "got floats from ", "save images.round()"),
        (lambda x: x.astype(int), "got int64 from ", "save it with .astype('uint8')"),
    ],
)
def test_the_remedy_for_other_pixels_keeps_them(tmp_path: Path, pixels: Any, got: str, remedy: str) -> None:
    np.savez(tmp_path / "a.npz", images=pixels(arrays()["x_train"]), labels=arrays()["y_train"])
    text = load_error(tmp_path / "a.npz")
    assert got in text and remedy in text


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    assert "--label-column: has no effect on a built-in data set" in load_error("digits", label_column="x")
    assert "--test: has no effect on a built-in data set" in load_error("digits", test=".")
    np.savez(tmp_path / "a.npz", images=arrays()["x_train"], labels=arrays()["y_train"])
    assert "--file-column" in load_error(tmp_path, file_column="x")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    assert "--all-classes" in load_error(tmp_path / "saved", all_classes=True)


def test_a_label_column_is_a_field_of_the_json_of_shards(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for i in range(8):
        files |= {
            f"{i}.png": png(i),
            f"{i}.cls": b"%d" % (i % 2),
            f"{i}.json": b'{"color": "%s"}' % (b"blue" if i > 3 else b"red"),
        }
    path = tar(tmp_path / "a.tar", files)
    assert data.load(path).train.classes == ("0", "1")
    assert data.load(path, label_column="color").train.classes == ("blue", "red")


def test_folders_in_shards_are_said(tmp_path: Path) -> None:
    names = [f"{name}/{i}" for name in ("cat", "dog") for i in range(4)]
    files = {f"{name}.png": png(i) for i, name in enumerate(names)}
    files |= {f"{name}.txt": b"CC0" if i % 2 else b"CC-BY" for i, name in enumerate(names)}
    path = tar(tmp_path / "a.tar", files)
    assert any("folders are not read as classes: cat, dog" in note for note in data.load(path).notes)
    assert data.load(path, all_classes=True).train.classes == ("cat", "dog")
    assert "a.tar: holds no files" in load_error(tar(tmp_path / "empty" / "a.tar", {}))


def test_a_folder_of_archives_takes_the_option_that_its_error_names(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        tar(tmp_path / f"{name}.tar", {f"{name}_{i}.png": png(i) for i in range(4)})
    option = load_error(tmp_path).partition("--label-regex '")[2].partition("'")[0]
    assert data.load(tmp_path, label_regex=option).train.classes == ("cat", "dog")


def test_two_label_columns_of_a_parquet_file(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", labels=["x", "y"] * 4)
    assert "columns label, labels; choose it with --label-column NAME" in load_error(path)
    assert data.load(path, label_column="labels").train.classes == ("x", "y")


def test_images_in_the_colors_of_a_printer_are_said(tmp_path: Path) -> None:
    root = image_folder(tmp_path, splits=(".",))
    random_image(0).convert("CMYK").save(root / "cat" / "print.jpg")
    assert any("1 of 7 images are CMYK" in note for note in data.load(root).notes)
