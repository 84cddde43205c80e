"""Unchanged files: their own bytes, names and formats, whatever was loaded; pixels only where the input has no files."""

import os
from pathlib import Path

import datasets
import numpy as np
import pytest
from data.conftest import image_folder, random_dataset, random_image, save, stored

from notbugs import data
from notbugs.data import DataConfig
from notbugs.data.originals import _rows
from notbugs.data.sources import Located
from notbugs.errors import InputError


def photographs(root: Path) -> Path:
    """Files of several sizes and formats, one of them in a folder below its class, and one that is a link."""
    image_folder(root, each=2)
    for index, name in enumerate(("cat/0.jpg", "cat/s/0.webp", "dog/b.JPEG", "dog/no suffix")):
        save(random_image(index, size=(20 + index, 12)), root / "train" / name, format="WEBP" if "webp" in name else "JPEG")
    os.symlink("../cat/0.jpg", root / "train/dog/link.jpg")
    return root


def test_files_are_copied_byte_for_byte_under_their_names(tmp_path: Path) -> None:
    config = DataConfig(str(photographs(tmp_path / "photographs")), resize=8)
    part = data.load_dataset(config).train
    found = data.originals(config, part, "folder")
    assert found.statement == "Files are copied byte for byte, in their original size and format."
    notes = data.export(found.dataset, tmp_path / "set", "folder", card="", encoded=found.encoded)
    assert notes == (
        "1 files have another name here. manifest.csv has the original names.",
        "torchvision or Keras skip files that end in no suffix, .webp.",
    )
    for name in part.names:
        copy = tmp_path / "set/train" / name.replace("cat/s/", "cat/s--")
        assert copy.read_bytes() == (tmp_path / "photographs/train" / name).read_bytes() and not copy.is_symlink()
    assert len([path for path in (tmp_path / "set/train").rglob("*") if path.is_file()]) == len(part)
    assert "transforms.Resize((8, 8))" in (tmp_path / "set/README.md").read_text()


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_files_keep_their_bytes_in_other_forms(tmp_path: Path, form: str) -> None:
    config = DataConfig(str(photographs(tmp_path / "photographs")), resize=8)
    part = data.load_dataset(config).train.select([5, 0, 3])
    found = data.originals(config, part, form)
    data.export(found.dataset, tmp_path / "set", form, card="", encoded=found.encoded)
    written = [(tmp_path / "photographs/train" / name).read_bytes() for name in part.names]
    if form == "parquet":
        rows = datasets.Dataset.from_parquet(str(tmp_path / "set/train.parquet"), cache_dir=str(tmp_path / "cache"))
        assert [row["bytes"] for row in rows.cast_column("image", datasets.Image(decode=False))["image"]] == written
        return
    rows = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))["train"]
    suffixes = {"jpg", "png", "webp"} & {*rows.column_names}
    assert suffixes >= {"jpg", "png"}, "the suffix is that of the format"
    for suffix in suffixes:
        rows = rows.cast_column(suffix, datasets.Image(decode=False))
    assert [next(row[suffix]["bytes"] for suffix in suffixes if row[suffix]) for row in rows] == written


@pytest.mark.parametrize("form", ["parquet", "saved"])
def test_encoded_images_of_tables_are_copied(tmp_path: Path, form: str) -> None:
    save(random_image(0, size=(9, 7)), tmp_path / "a.jpg")
    save(random_image(1, size=(5, 7)), tmp_path / "b.png")
    cells = [{"bytes": (tmp_path / name).read_bytes(), "path": None} for name in ("a.jpg", "b.png") * 3]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])})
    rows = datasets.Dataset.from_dict({"image": cells, "label": [0, 1] * 3}, features=features)
    place = tmp_path / "set.parquet" if form == "parquet" else tmp_path / "saved"
    rows.to_parquet(str(place)) if form == "parquet" else datasets.DatasetDict({"train": rows}).save_to_disk(str(place))
    config = DataConfig(str(place), resize=8)
    part = data.load_dataset(config).train
    found = data.originals(config, part, form)
    assert found.statement.startswith("Encoded images are copied byte for byte") and found.encoded is not None
    order = [int(Path(name).stem) for name in part.names]
    assert [cell["bytes"] for cell in found.encoded] == [cells[row]["bytes"] for row in order]  # type: ignore[index, call-overload]


def test_rows_are_those_of_the_training_part_by_name() -> None:
    part = random_dataset(3)
    names = ["x", *part.names, *reversed(part.names)]  # the test part has the same names
    located = Located(part.images, [0] * 7, names, names, 4, ("a", "b"), "folder")
    assert _rows(located, part) == (1, 2, 3) and _rows(located, part.select([2, 0])) == (3, 1)
    assert _rows(located._replace(n_train=3), part) is None, "one of them is a test image"
    assert _rows(located._replace(names=["x", "x", *names[2:]]), part.select([1])) is None, "two images have one name"


def test_arrays_keep_their_pixels_and_size(tmp_path: Path) -> None:
    images = stored(random_dataset(12)).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "set.npz", train_images=images, train_labels=np.arange(12) % 2)
    config = DataConfig(str(tmp_path / "set.npz"), resize=16, limit=6)
    part = data.load_dataset(config).train
    found = data.originals(config, part, "npz")
    assert found.encoded is None and found.statement == "The pixels are written unchanged, in arrays."
    rows = [int(Path(name).stem) for name in part.names]
    assert np.array_equal(found.dataset.to_numpy()[0], images[rows])


def test_sets_without_files_and_forms_without_files_are_said(tmp_path: Path) -> None:
    planted = DataConfig("planted", limit=40)
    found = data.originals(planted, data.load_dataset(planted).train, "folder")
    assert found.encoded is None and "have no files: their pixels are written unchanged" in found.statement
    config = DataConfig(str(image_folder(tmp_path / "folder")), resize=4)
    part = data.load_dataset(config).train
    decoded = data.originals(config, part, "npz")
    assert decoded.encoded is None and decoded.statement.endswith("the files are decoded, resized to 4x4 pixels.")
    assert decoded.dataset.shape == (3, 4, 4)


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    config = DataConfig(str(image_folder(tmp_path / "folder")))
    part = data.load_dataset(config).train
    found = data.originals(config, part, "folder")
    (tmp_path / "folder/train/cat/0.png").unlink()
    with pytest.raises(InputError, match="cannot be written"):
        data.export(part, tmp_path / "set", "folder", card="", encoded=found.encoded)
    assert "told apart" in data.originals(config, part, "folder").statement
    with pytest.raises(InputError, match="not for npz"):
        data.export(part, tmp_path / "set", "npz", card="", encoded=found.encoded)
