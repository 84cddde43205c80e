"""Arrays by the names that people give them, in .npz files and in folders of .npy files; and every kind of label."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from data.conftest import load_error, stored
from data.sources.forms import arrays

from notbugs import data
from notbugs.data.sources import limits

STYLES = {
    "keras": "x_train y_train x_test y_test",
    "medmnist": "train_images train_labels val_images val_labels",
    "capital": "X_train Y_train X_test Y_test",
    "words": "training_data training_targets testing_data testing_targets",
    "paths": "train/images train/labels test/images test/labels",
}


@pytest.mark.parametrize("style", STYLES)
def test_names_of_arrays(tmp_path: Path, style: str) -> None:
    given = arrays()
    np.savez(tmp_path / "set.npz", **dict(zip(STYLES[style].split(), given.values(), strict=True)))  # type: ignore[arg-type]
    loaded = data.load(tmp_path / "set.npz")
    assert np.array_equal(stored(loaded.train)[:, 0].numpy(), given["x_train"])
    assert np.array_equal(stored(loaded.test)[:, 0].numpy(), given["x_test"])
    assert loaded.train.labels.tolist() == given["y_train"].tolist() and not loaded.left_out


@pytest.mark.parametrize("names", ["X y", "images labels", "x_train y_train"])
def test_one_part_is_split(tmp_path: Path, names: str) -> None:
    given = arrays()
    np.savez(tmp_path / "set.npz", **dict(zip(names.split(), (given["x_train"], given["y_train"]), strict=True)))  # type: ignore[arg-type]
    loaded = data.load(tmp_path / "set.npz")
    assert (len(loaded.train), len(loaded.test)) == (6, 2) and "set aside" in " ".join(loaded.notes)


def test_names_that_say_nothing_are_refused(tmp_path: Path) -> None:
    given = arrays()
    np.savez(tmp_path / "set.npz", given["x_train"], given["y_train"])
    assert "arrays arr_0, arr_1; name them train_images" in load_error(tmp_path / "set.npz")
    np.savez(tmp_path / "set.npz", **given, x=given["x_test"], images=given["x_test"])
    assert "clear which array holds the images, got x and images" in load_error(tmp_path / "set.npz")


def test_an_array_of_unknown_use_is_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **arrays(), weights=np.zeros(3))  # type: ignore[arg-type]
    assert [item.location.rpartition(" ")[2] for item in data.load(tmp_path / "set.npz").left_out] == ["weights"]


LABELS: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {
    "column": (np.arange(8)[:, None] % 2, ("0", "1")),
    "row": (np.arange(8)[None] % 2, ("0", "1")),
    "four dimensions": (np.arange(8).reshape(8, 1, 1, 1) % 2, ("0", "1")),
    "whole floats": (np.arange(8) % 2.0, ("0", "1")),
    "booleans": (np.arange(8) % 2 == 1, ("False", "True")),
    "one-hot": (np.eye(2)[np.arange(8) % 2], ("0", "1")),
    "one-hot booleans": (np.eye(2, dtype=bool)[np.arange(8) % 2], ("0", "1")),
    "from one": (np.arange(8) % 2 + 1, ("1", "2")),
    "words": (np.array(["cat", "dog"] * 4), ("cat", "dog")),
    "bytes": (np.array([b"cat", b"dog"] * 4), ("cat", "dog")),
    "numbers as words": (np.array(["2", "10"] * 4), ("2", "10")),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels(tmp_path: Path, kind: str) -> None:
    labels, classes = LABELS[kind]
    np.savez(tmp_path / "set.npz", X=arrays()["x_train"], y=labels)
    loaded = data.load(tmp_path / "set.npz")
    both = torch.cat([loaded.train.labels, loaded.test.labels]).tolist()
    assert loaded.train.classes == classes and sorted(both) == [0] * 4 + [1] * 4
    labels_of = dict(zip(loaded.train.names, loaded.train.labels.tolist(), strict=True))
    assert all(label == int(name[4]) % 2 for name, label in labels_of.items())


NO_LABELS = {
    "fractions": np.arange(8) / 2,
    "several ones": np.ones((8, 3), int),
    "probabilities": np.full((8, 2), 0.5),
    "NaN": np.array([0, 1] * 3 + [0, np.nan]),
    "complex": np.zeros(8, complex),
    "dates": np.zeros(8, "datetime64[s]"),
}


@pytest.mark.parametrize("kind", NO_LABELS)
def test_what_is_no_label_is_refused(tmp_path: Path, kind: str) -> None:
    np.savez(tmp_path / "set.npz", X=arrays()["x_train"], y=NO_LABELS[kind])
    assert "whole number" in load_error(tmp_path / "set.npz")


def test_a_label_does_not_become_a_list_of_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", X=arrays()["x_train"], y=np.array([0, 1, 0, 1, 0, 1, 0, 2**40]))
    assert "must be below 1,048,576, got 1099511627776" in load_error(tmp_path / "set.npz")


def test_folders_of_npy(tmp_path: Path) -> None:
    given = arrays(channels=3)
    for name, array in given.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "notes.md").write_text("of last year")
    loaded = data.load(tmp_path)
    assert np.array_equal(stored(loaded.test).permute(0, 2, 3, 1).numpy(), given["x_test"])
    assert loaded.form == "npz" and "constructed sets are written as one .npz" in loaded.notes
    assert [item.location for item in loaded.left_out] == ["notes.md"]
    assert "put x_train.npy, y_train.npy" in load_error(tmp_path / "x_train.npy")


def test_x_and_y_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", arrays()["x_train"])
    assert "no array of labels" in load_error(tmp_path)
    np.save(tmp_path / "y.npy", arrays()["y_train"])
    assert len(data.load(tmp_path).train) == 6


def test_several_npz_are_parts_by_their_names(tmp_path: Path) -> None:
    given = arrays()
    for part in ("train", "test"):
        np.savez(tmp_path / f"mnist_{part}.npz", images=given[f"x_{part}"], labels=given[f"y_{part}"])
    assert np.array_equal(stored(data.load(tmp_path).test)[:, 0].numpy(), given["x_test"])


def header(shape: str, descr: str = "|u1") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize("shape", ["(1000000000000, 28, 28)", "(9, 5, 5)", "(-1, 5, 5)", "(7, 5, 5)"])
def test_claims_are_checked_before_they_are_believed(tmp_path: Path, shape: str) -> None:
    content = header(shape) + bytes(200)
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("X.npy", content)
        archive.writestr("y.npy", header("(8,)", "|u1") + bytes([0, 1] * 4))
    assert "set.npz" in load_error(tmp_path / "set.npz")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "X.npy").write_bytes(content)
    np.save(tmp_path / "folder" / "y.npy", arrays()["y_train"])
    assert "X.npy" in load_error(tmp_path / "folder")


def test_an_npz_that_expands_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE", 2**20)
    np.savez_compressed(tmp_path / "set.npz", X=np.zeros((2000, 32, 32), np.uint8), y=np.arange(2000) % 2)
    assert "must not expand to more than 100 times its size" in load_error(tmp_path / "set.npz")
