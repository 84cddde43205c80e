"""Data sets that may be meant otherwise than they seem: what was decided is said, and what is no label is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.conftest import image_folder, load_error, random_image, save
from data.sources.forms import arrays, png, tar
from data.sources.test_said import numbered, parquet, table

from notbugs import data

Case = tuple[Callable[[Path], Path], str]  # makes a data set; what is said of it


def npz(path: Path, **content: Any) -> Path:
    np.savez(path, **{"images": arrays()["x_train"], "labels": arrays()["y_train"], **content})
    return path


def folders(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        for i in range(3):
            save(random_image(10 * number + i), root / name / f"{number}{i}.png")
    return root


def labeled(root: Path, name: str, *labels: object) -> Path:
    return table(numbered(root), f"file,{name}", [f"{i}.png" for i in range(8)], [*labels] * (8 // len(labels)))


def shards(path: Path, label: str = "{}") -> Path:
    return tar(path, {f"{i}.png": png(i) for i in range(8)} | {f"{i}.cls": label.format(i % 2).encode() for i in range(8)})


def with_file(root: Path, name: str) -> Path:
    (root / name).write_text("cat/00.png\n")
    return root


def with_comma(root: Path) -> Path:
    text = "file;label\n" + "".join(f"{i}.png;{i % 2},5\n" for i in range(8))
    (numbered(root) / "labels.csv").write_text(text)
    return root


SAID: dict[str, Case] = {
    "channels first or last": (
        lambda root: npz(root / "a.npz", images=np.ones((8, 3, 5, 3), np.uint8)),
        "images has the shape (8, 3, 5, 3): its last axis is read as the channels",
    ),
    "rows of a part": (lambda root: npz(root / "a.npz", test_idx=np.arange(2)), "the array test_idx is not used: parts need"),
    "a class called ?": (lambda root: labeled(root, "label", "cat", "dog", "?", "cat"), "class ? may be of missing labels"),
    "a copy": (lambda root: folders(root, "cat", "dog", "cat - Copy"), "cat - Copy is read as a class, like cat, dog (if it is"),
    "more of a class": (lambda root: folders(root, "cat", "dog", "dog_aug"), "dog_aug is read as a class, like cat, dog (if it"),
    "waste": (lambda root: folders(root, "cat", "dog", "old", "tmp"), "old, tmp are read as classes, like cat, dog (if they"),
    "thumbnails": (
        lambda root: folders(root, "cat", "dog", "cat/thumbs", "dog/thumbs"),
        "belong to the class: cat/thumbs, dog/thumbs (6 of 12 images)",
    ),
    "classes of two depths": (lambda root: folders(root, "pet/cat", "pet/dog", "car"), "pet/cat, pet/dog (6 of 9 images)"),
    "bad files": (
        lambda root: with_file(folders(root, "cat", "dog"), "bad_files.txt"),
        "bad_files.txt may list images to leave out",
    ),
    "parts in json": (
        lambda root: with_file(folders(root, "cat", "dog"), "splits.json"),
        "splits.json may say which images are test",
    ),
    "labels in brackets": (lambda root: labeled(root, "label", "['cat']", "['dog']"), "labels are read without the brackets"),
    "tags": (
        lambda root: labeled(root, "tags", "clear primary", "haze primary"),
        "column tags may hold several labels of one image: primary stand in several",
    ),
    "a file of several": (lambda root: parquet(root / "train-00000-of-00002.parquet"), "1 of 2 files of train are there"),
    "a shard of several": (lambda root: shards(root / "a-0-of-3.tar"), "1 of 3 files of a are there"),
    "two columns of images": (
        lambda root: parquet(root / "a.parquet", mask=[png(9)] * 8),
        "train: not read, though they may be images: mask",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_what_may_be_meant_otherwise_is_said(tmp_path: Path, case: str) -> None:
    make, said = SAID[case]
    notes = data.load(make(tmp_path)).notes
    assert any(said in note for note in notes), notes


UNCLEAR: dict[str, Case] = {
    "several labels": (lambda root: labeled(root, "label", "['cat']", "\"['cat', 'dog']\""), "several labels of one image"),
    "a decimal comma": (with_comma, "column label: are measured numbers (targets of regression)"),
    "captions": (lambda root: labeled(root, "caption", "a cat", "a dog"), "must be clear which column holds the labels"),
    "who took them": (lambda root: labeled(root, "photographer", "ann", "bob"), "must be clear which column holds the labels"),
    "lists in parquet": (
        lambda root: parquet(root / "a.parquet", label=[[0], [1]] * 4),
        "must hold one whole number or one word",
    ),
    "decimals in shards": (lambda root: shards(root / "a.tar", "{}.5"), "labels: are measured numbers (targets of regression)"),
    "a file for each label": (
        lambda root: described(root),
        "0.txt, images/1.txt, images/2.txt and 5 more beside images of their names; save all labels as one labels.csv",
    ),
}


def described(root: Path) -> Path:
    numbered(root)
    for i in range(8):
        (root / "images" / f"{i}.txt").write_text("cat" if i % 2 else "dog")
    return root


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_is_no_label_is_refused(tmp_path: Path, case: str) -> None:
    make, says = UNCLEAR[case]
    root = make(tmp_path)
    if case == "a decimal comma":
        (root / "labels.csv").write_text(
            (root / "labels.csv").read_text().replace(",", ";").replace("0;5", "0,5").replace("1;5", "1,5")
        )
    assert says in load_error(root)


def test_cells_in_quotes_behind_a_blank(tmp_path: Path) -> None:
    root = numbered(tmp_path)
    (root / "labels.csv").write_text('"file", "label"\n' + "".join(f'{i}.png, "{"cd"[i % 2]}"\n' for i in range(8)))
    assert data.load(root).train.classes == ("c", "d")


def test_a_class_name_beside_a_number_in_json(tmp_path: Path) -> None:
    files = {f"{i}.json": json.dumps({"label": i % 2, "class": "cd"[i % 2]}).encode() for i in range(8)}
    path = tar(tmp_path / "a.tar", files | {f"{i}.png": png(i) for i in range(8)})
    assert data.load(path).train.classes == ("c", "d")
    (tmp_path / "b").mkdir()
    files = {name: content.replace(b'"class"', b'"category"') for name, content in files.items()}
    text = load_error(
        tar(tmp_path / "b" / "b.tar", {**files, "0.json": b'{"label": 1, "target": 2}'} | {f"{i}.png": png(i) for i in range(8)})
    )
    assert "it must be clear which field holds the label, got label, target; choose it with --label-column NAME" in text


def test_other_values_in_a_column_of_parts_are_parts_that_are_not_used(tmp_path: Path) -> None:
    parts = ["train"] * 4 + ["val"] * 2 + ["predict"] * 2
    root = table(numbered(tmp_path), "file,label,split", [f"{i}.png" for i in range(8)], ["cat", "dog"] * 4, parts)
    loaded = data.load(root)
    assert (len(loaded.train), len(loaded.test)) == (4, 2) and "not used: predict (2 images)" in loaded.notes
    assert {item.location for item in loaded.left_out} >= {"images/6.png", "images/7.png"}


def of_three_parts(root: Path, form: str) -> tuple[Path, list[str]]:
    """A set with a part for validation, which is not used, and the images of that."""
    parts = ("train", "val", "test")
    if form == "npz":
        images, labels = arrays()["x_test"], arrays()["y_test"]
        whole = {f"{part}_{kind}": array for part in parts for kind, array in (("images", images), ("labels", labels))}
        np.savez(root / "a.npz", **whole)
        return root / "a.npz", [f"{root}/a.npz: val_images[{i}]" for i in range(4)]
    if form == "parquet":
        for part in parts:
            parquet(root / f"{part}.parquet", 4)
        return root, [f"{root}: val row {i}" for i in range(4)]
    if form == "shards":
        for part in parts:
            shards(root / f"{part}-000000.tar")
        return root, [f"val-000000.tar: {i}.png" for i in range(8)]
    image_folder(root / "set", splits=parts)
    names = [f"val/{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]
    return (root / "set", names) if form == "folder" else (tar_of(root / "set"), [f"a.tar: {name}" for name in names])


def tar_of(root: Path) -> Path:
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))}
    return tar(root.parent / "a.tar", files)


@pytest.mark.parametrize("form", ["folder", "tar", "npz", "parquet", "shards"])
def test_each_image_of_a_part_that_is_not_used_is_listed(tmp_path: Path, form: str) -> None:
    path, images = of_three_parts(tmp_path, form)
    loaded = data.load(path)
    assert [item for item in loaded.left_out if item.reason == "is a part that is not used"] == [
        (image, "is a part that is not used") for image in images
    ]
    assert any(note == f"not used: val ({len(images):,} images); to test on it: --test val" for note in loaded.notes)


def test_each_file_of_a_folder_that_is_left_out_for_its_name_is_listed(tmp_path: Path) -> None:
    root = folders(tmp_path, "train/cat", "train/dog", "train/unlabeled/a", "test/cat", "test/dog")
    reason = "is called unlabeled"
    assert [item for item in data.load(root).left_out if item.reason == reason] == [
        (f"train/unlabeled/a/2{i}.png", reason) for i in range(3)
    ]
