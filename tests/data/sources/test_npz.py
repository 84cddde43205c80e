"""NumPy archives, good ones and every kind of bad one."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.conftest import load_error, stored

from notbugs import data
from notbugs.data.sources import arrays as array_files
from notbugs.data.sources.arrays import parse_key
from notbugs.data.sources.npz import read_npz
from notbugs.data_config import DataConfig


def npz(path: Path, **changes: Any) -> Path:
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "train_images": generator.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
        "train_labels": np.array([[0], [1]] * 3),
        "test_images": generator.integers(0, 256, (2, 5, 4, 3), dtype=np.uint8),
        "test_labels": np.array([0, 1]),
    } | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_layouts(tmp_path: Path) -> None:
    last = data.load(str(npz(tmp_path / "last.npz", classes=np.array(["no", "yes"]))))
    assert last.train.shape == (3, 5, 4) and last.train.classes == ("no", "yes") and last.form == "npz"
    pixels = np.load(tmp_path / "last.npz")
    first = {f"{split}_images": pixels[f"{split}_images"].transpose(0, 3, 1, 2) for split in ("train", "test")}
    loaded = data.load(str(npz(tmp_path / "first.npz", **first)))
    assert torch.equal(stored(loaded.train), stored(last.train)) and loaded.form == "npz-channels-first"
    floats = {key: (value / 255).astype(np.float32) for key, value in first.items()}
    assert torch.equal(stored(data.load(str(npz(tmp_path / "float.npz", **floats))).test), stored(last.test))
    gray = {key: value[:, 0] for key, value in first.items()}
    assert data.load(str(npz(tmp_path / "gray.npz", **gray))).train.shape == (1, 5, 4)
    val = {"test_images": None, "test_labels": None, "val_images": pixels["test_images"], "val_labels": np.array([1, 0])}
    assert data.load(str(npz(tmp_path / "val.npz", **val))).test.labels.tolist() == [1, 0]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "counts": ({"train_labels": np.array([0, 1])}, "6 and 2"),
    "no labels": ({"train_labels": None}, "train_labels"),
    "training images alone": ({"train_labels": None, "test_labels": None}, "no array of labels for the part train"),
    "negative label": ({"train_labels": np.array([0, 1, 0, 1, 0, -1])}, r"train_images\[5\].*from 0 to 1"),
    "new label": ({"test_labels": np.array([0, 2])}, r"does not have: 2, got .*test_images\[1\]"),
    "fractions": ({"train_labels": np.array([0.5] * 6)}, "whole number"),
    "one class": ({"train_labels": np.zeros(6, int), "test_labels": np.zeros(2, int)}, "two classes"),
    "one image": ({"train_labels": np.array([0, 0, 0, 0, 0, 1])}, "two training images"),
    "gap": ({"train_labels": np.array([0, 0, 2, 2, 2, 2])}, "class 1 has no"),
    "nan": ({"train_images": np.full((6, 5, 4, 3), np.nan)}, "NaN.*uint8"),
    "floats": ({"train_images": np.full((6, 5, 4, 3), 0.3333)}, "multiples of 1/255.*uint8"),
    "range": ({"train_images": np.full((6, 5, 4, 3), 200.0)}, "floats from 200 to 200.*uint8"),
    "ints": ({"train_images": np.zeros((6, 5, 4, 3), int)}, "int64.*uint8"),
    "flat": ({"train_images": np.zeros((6, 60), np.uint8)}, "N x H x W"),
    "sizes": ({"test_images": np.zeros((2, 9, 4, 3), np.uint8)}, "one size"),
    "pickle": ({"train_labels": np.array([0, "x", None, 1, 0, 1], dtype=object)}, "Python objects"),
    "same names": ({"classes": np.array(["a", "a"])}, "must differ"),
    "control": ({"classes": np.array(["a", "b\x1b[2J"])}, r"without control characters"),
    "nothing": (
        {
            f"{split}_{what}": np.zeros((0, 5, 4, 3) if what == "images" else 0, np.uint8)
            for split in ("train", "test")
            for what in ("images", "labels")
        },
        "train on|no labeled",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_archives(tmp_path: Path, case: str) -> None:
    changes, pattern = BAD[case]
    text = load_error(npz(tmp_path / "set.npz", **changes))
    assert re.search(pattern, text) and ("set.npz" in text or "class" in text), text


def test_a_test_part_without_labels_is_left_out_and_listed(tmp_path: Path) -> None:
    found = data.load(str(npz(tmp_path / "set.npz", test_labels=None)))
    assert (len(found.train), len(found.test)) == (4, 2) and "not used: test (2 images without labels)" in found.notes
    assert found.left_out == tuple((f"{tmp_path}/set.npz: test_images[{i}]", "has no array of labels") for i in range(2))


@pytest.mark.parametrize("names", ["xtrain ytrain xtest ytest", "Xtr Ytr Xte Yte", "trainX trainY testX testY"])
def test_names_in_one_word(names: str) -> None:
    parsed = [parse_key(name) for name in names.split()]
    assert parsed == [("train", "images"), ("train", "labels"), ("test", "images"), ("test", "labels")]


def test_a_part_is_not_held_twice_while_the_next_is_read(tmp_path: Path) -> None:
    images, labels = np.arange(8 * 4 * 4 * 3, dtype=np.uint8).reshape(8, 4, 4, 3), np.arange(8) % 2
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    held: list[set[str]] = []

    def read(path: Path) -> object:
        found = read_npz(path)
        assert isinstance(found, array_files.LazyArrays)
        original = found.read
        return replace(found, read=lambda name: held.append({*found.known} | {name}) or original(name), known=found.known)

    located = array_files.locate_array_files(tmp_path / "a.npz", [tmp_path / "a.npz"], read, DataConfig("a.npz"))  # type: ignore[arg-type]
    assert len(located.labels) == 16 and not [names for names in held if {"train_images", "test_images"} <= names]


def test_images_in_an_npy_file_are_read_at_once(tmp_path: Path) -> None:
    images = np.arange(8 * 4 * 4, dtype=np.uint8).reshape(8, 4, 4)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", np.arange(8) % 2)
    found = data.load(tmp_path, test=".")
    np.save(tmp_path / "images.npy", 255 - images)
    assert found.test.images[:].numpy().sum() == images.sum(), "a later change of the file is not seen"
