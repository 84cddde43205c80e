"""Names of classes beside numbers are used, whatever form they have; where they contradict the numbers, they are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from data.conftest import image_folder, load_error
from data.sources.forms import arrays, pixel_table, png, safetensors, tar
from data.sources.test_said import numbered, parquet, table
from safetensors.numpy import save_file

from notbugs import data

NUMBERS = {"images": arrays()["x_train"], "labels": arrays()["y_train"]}
FILES = [f"{i}.png" for i in range(8)]
WRONG = ["cat", "dog", "dog", "cat"] * 2  # beside 0, 1, 0, 1, …


def tensors(path: Path, **more: object) -> Path:
    torch.save({name: torch.from_numpy(array) for name, array in NUMBERS.items()} | more, path)
    return path


def hdf5(path: Path, change: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in NUMBERS.items():
            file[name] = array
        change(file)
    return path


def enum(file: h5py.File) -> None:
    del file["labels"]
    file.create_dataset("labels", data=NUMBERS["labels"].astype("i4"), dtype=h5py.enum_dtype({"cat": 0, "dog": 1}, basetype="i4"))


def shards(path: Path, names: list[str]) -> Path:
    files = {f"{i}.json": json.dumps({"label": i % 2, "label_name": name}).encode() for i, name in enumerate(names)}
    return tar(path, files | {f"{i}.png": png(i) for i in range(8)})


def pixels(path: Path, names: list[str]) -> Path:
    first, *rows = pixel_table(path).read_text().splitlines()
    path.write_text("\n".join([f"{first},label_name", *(f"{row},{name}" for row, name in zip(rows, names, strict=True))]))
    return path


NAMED: dict[str, Callable[[Path], Path]] = {
    "pt, class_to_idx": lambda root: tensors(root / "a.pt", class_to_idx={"dog": 1, "cat": 0}),
    "pt, both": lambda root: tensors(root / "a.pt", class_to_idx={"dog": 1, "cat": 0}, classes=["cat", "dog"]),
    "pt, deeper": lambda root: tensors(root / "a.pt", meta={"id2label": {0: "cat", 1: "dog"}}),
    "h5, enum": lambda root: hdf5(root / "a.h5", enum),
    "h5, attribute": lambda root: hdf5(root / "a.h5", lambda file: file.attrs.update(class_names=["cat", "dog"], classes=2)),
    "h5, of the labels": lambda root: hdf5(root / "a.h5", lambda file: file["labels"].attrs.update(classes="cat,dog")),
    "npz, a word for each image": lambda root: npz(root / "a.npz", label_names=np.array(["cat", "dog"] * 4)),
    "safetensors": lambda root: named_safetensors(root / "a.safetensors"),
    "parquet": lambda root: parquet(root / "a.parquet", label_name=["cat", "dog"] * 4),
    "csv": lambda root: table(numbered(root), "file,label,label_text", FILES, [0, 1] * 4, ["cat", "dog"] * 4),
    "json in shards": lambda root: shards(root / "a.tar", ["cat", "dog"] * 4),
    "pixels": lambda root: pixels(root / "a.csv", ["cat", "dog"] * 4),
}


def npz(path: Path, **more: Any) -> Path:
    np.savez(path, **NUMBERS, **more)
    return path


def named_safetensors(path: Path) -> Path:
    save_file(NUMBERS, path, metadata={"classes": '["cat", "dog"]'})
    return path


@pytest.mark.parametrize("form", NAMED)
def test_names_beside_numbers_are_the_classes(tmp_path: Path, form: str) -> None:
    assert data.load(NAMED[form](tmp_path)).train.classes == ("cat", "dog")


def test_numbers_that_names_are_given_need_not_follow_each_other(tmp_path: Path) -> None:
    tensors(tmp_path / "a.pt", labels=torch.tensor([3, 7] * 4), class_to_idx={"cat": 3, "dog": 7})
    loaded = data.load(tmp_path / "a.pt").train
    assert loaded.classes == ("cat", "dog") and loaded.labels.bincount().tolist() == [3, 3]


@pytest.mark.parametrize(
    ("make", "says", "option"),
    [
        (lambda root: parquet(root / "a.parquet", label_name=WRONG), "label and label_name must mean the same classes", "label"),
        (lambda root: table(numbered(root), "file,label,label_name", FILES, [0, 1] * 4, WRONG), "which column", "label_name"),
        (lambda root: shards(root / "a.tar", WRONG), "got 0 = cat, 0 = dog, 1 = cat and 1 more", "label"),
        (lambda root: pixels(root / "a.csv", WRONG), "label and label_name must mean the same classes", "label"),
        (lambda root: npz(root / "a.npz", label_names=np.array(WRONG)), "labels and label_names must mean the same", ""),
        (lambda root: npz(root / "a.npz", label_names=["cat", "dog"], classes=["a", "b"]), "name the classes in one way", ""),
        (lambda root: npz(root / "a.npz", classes=["cat", "cat"]), "class names must differ, got cat; rename one of the two", ""),
        (lambda root: tensors(root / "a.pt", class_to_idx={"cat": 1, "dog": 2}), "must be numbers that have a class name", ""),
        (lambda root: tensors(root / "a.pt", class_to_idx={"cat": 0, "dog": 0}), "must be a list of words, or a mapping", ""),
        (lambda root: hdf5(root / "a.h5", lambda file: file.attrs.update(classes=[1.5])), "must be a list of words", ""),
    ],
)  # fmt: skip
def test_names_that_contradict_the_numbers_are_refused(tmp_path: Path, make: Any, says: str, option: str) -> None:
    path = make(tmp_path)
    text = load_error(path)
    assert says in text
    if option:
        assert "--label-column" in text and len(data.load(path, label_column=option).train.classes) == 2


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes.txt", "cat\ndog\n"),
        ("labels.txt", "0 cat\n1 dog\n"),
        ("class_to_idx.json", '{"dog": 1, "cat": 0}'),
        ("id2label.json", '{"0": "cat", "1": "dog"}'),
        ("label_num_to_disease_map.json", '{"0": "cat", "1": "dog"}'),
    ],
)
def test_a_file_beside_numbered_classes_names_them(tmp_path: Path, file: str, content: str) -> None:
    root = image_folder(tmp_path / "set" / "inner", ("0", "1"), splits=(".",))
    (root / file).write_text(content)
    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.*"))}
    for path in (tmp_path / "set", tar(tmp_path / "a.tar", files)):
        loaded = data.load(path)
        assert loaded.train.classes == ("cat", "dog") and f"class names from {file}: 0 is cat, 1 is dog" in loaded.notes
        assert loaded.left_out == ()


def test_a_file_that_names_other_classes_is_said_or_refused(tmp_path: Path) -> None:
    root = image_folder(tmp_path, ("0", "1"), splits=(".",))
    (root / "classes.txt").write_text("cat\ndog\nemu\n")
    assert any("classes.txt is not read: it does not name each of the classes 0, 1" in note for note in data.load(root).notes)
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "classes.json").write_text('["dog", "cat"]')
    assert "must name the classes in one way, got classes.json and classes.txt; move one of the two away" in load_error(root)


@pytest.mark.parametrize("form", ["npz", "parquet", "csv"])
def test_labels_that_differ_in_blanks_or_unicode_form_are_one_class_which_is_said(tmp_path: Path, form: str) -> None:
    words = ["caf\u00e9", "cafe\u0301", "dog", "dog "] * 2
    if form == "npz":
        np.savez(tmp_path / "a.npz", images=NUMBERS["images"], labels=np.array(words))
    elif form == "parquet":
        parquet(tmp_path / "a.parquet", label=words)
    else:
        table(numbered(tmp_path), "file,label", FILES, [f'"{word}"' for word in words])
    loaded = data.load(tmp_path if form == "csv" else tmp_path / f"a.{form}")
    assert loaded.train.classes == ("caf\u00e9", "dog")
    assert any("without blanks around them and in one Unicode form: 4 of 8" in note for note in loaded.notes)


def test_class_names_that_some_images_lack_are_said_not_to_be_used(tmp_path: Path) -> None:
    files = {f"{i}.json": json.dumps({"label": i % 2} | ({"label_name": "cat"} if i == 0 else {})).encode() for i in range(8)}
    loaded = data.load(tar(tmp_path / "b.tar", files | {f"{i}.png": png(i) for i in range(8)}))
    assert loaded.train.classes == ("0", "1") and "class names in .json are not used: some images have none" in loaded.notes


def test_safetensors_without_metadata_are_read_as_before(tmp_path: Path) -> None:
    assert data.load(safetensors(tmp_path / "a.safetensors")).train.classes == ("0", "1")


def test_classes_of_two_numbers_are_two_though_their_names_hardly_differ(tmp_path: Path) -> None:
    part = {f"{name}_{kind}": array[:4] for name in ("train", "test") for kind, array in NUMBERS.items()}
    classes = {"train_classes": np.array(["caf\u00e9", "cafe\u0301"]), "test_classes": np.array(["cafe\u0301", "caf\u00e9"])}
    np.savez(tmp_path / "a.npz", **part, **classes)
    loaded = data.load(tmp_path / "a.npz")
    assert loaded.train.labels.tolist() == [0, 1, 0, 1] and loaded.test.labels.tolist() == [1, 0, 1, 0]
    assert any("Unicode form are kept apart" in note for note in loaded.notes)
