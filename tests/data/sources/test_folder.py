"""Image folders, good ones and every kind of bad one."""

from pathlib import Path

import numpy as np
import pytest
from data.conftest import image_folder, load_error, random_image, save, stored

from notbugs import data


def test_a_folder_with_both_parts(tmp_path: Path) -> None:
    loaded = data.load(str(image_folder(tmp_path)))
    assert loaded.train.classes == ("cat", "dog") and loaded.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert loaded.train.names[4] == "dog/1.png" and loaded.notes == () and loaded.form == "folder" and loaded.left_out == ()
    assert np.array_equal(stored(loaded.test)[3].permute(1, 2, 0).numpy(), np.asarray(random_image(110)))


@pytest.mark.parametrize("split", ["val", "validation"])
def test_a_validation_part_replaces_a_missing_test_part(tmp_path: Path, split: str) -> None:
    assert len(data.load(str(image_folder(tmp_path, each=4, splits=("train", split)))).test) == 8


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert data.load(str(image_folder(tmp_path, ("bus", "train"), splits=("",)))).train.classes == ("bus", "train")


def test_clutter_is_ignored(tmp_path: Path) -> None:
    image_folder(tmp_path)
    clutter = (
        "README.md",
        "labels.csv",
        "train/Thumbs.db",
        "train/cat/.DS_Store",
        "train/cat/Thumbs.db",
        ".git/x",
        "train/notes.txt",
    )
    for name in clutter:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert len(data.load(str(tmp_path)).train) == 6


def test_a_link_inside_the_folder_is_a_file(tmp_path: Path) -> None:
    image_folder(tmp_path)
    (tmp_path / "train/dog/more.png").symlink_to(tmp_path / "train/dog/1.png")
    assert len(data.load(str(tmp_path)).train) == 7


def test_bad_folders(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert "no class folders" in load_error(tmp_path / "nothing")
    save(random_image(0), tmp_path / "flat/0.png")
    assert "0.png" in load_error(tmp_path / "flat") or "no class folders" in load_error(tmp_path / "flat")
    assert "two classes" in load_error(image_folder(tmp_path / "one", ("cat",)))
    (image_folder(tmp_path / "hole") / "train/ant").mkdir()
    assert "class ant has no training images" in load_error(tmp_path / "hole")
    save(random_image(0), image_folder(tmp_path / "few") / "train/ant/0.png")
    assert "two training images" in load_error(tmp_path / "few") and "ant" in load_error(tmp_path / "few")
    save(random_image(0), image_folder(tmp_path / "new") / "test/ant/0.png")
    assert "test/ant" in load_error(tmp_path / "new")
    save(random_image(0), image_folder(tmp_path / "stray") / "train/0.png")
    assert "train/0.png" in load_error(tmp_path / "stray")
    (image_folder(tmp_path / "linked") / "train/fox").symlink_to(tmp_path / "new/train/cat")
    assert "fox" in load_error(tmp_path / "linked")
    spoiled = image_folder(tmp_path / "spoiled")
    for i in range(3):
        (spoiled / f"train/cat/{i}.png").write_bytes(b"")
    assert "3 such files" in load_error(spoiled) and "class cat has no" in load_error(spoiled, skip_unreadable=True)


def test_files_that_are_no_data_sets(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no archive")
    (tmp_path / "x.parquet").write_bytes(b"no table")
    (tmp_path / "x.zip").write_bytes(b"")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/state.json").write_text("{}")
    for name in ("x.npz", "x.parquet", "x.zip", "saved", "missing", "missing.npz"):
        assert name in load_error(tmp_path / name)
    assert "does not exist" in load_error(tmp_path / "missing")
    assert "does not exist" in load_error("nobody-at-all/no-such-set")
    for address in ("s3://bucket/images", "gs://bucket/set.npz", "https://host/set.zip"):
        assert "object stores and URLs are not read; mount the store" in load_error(address)
