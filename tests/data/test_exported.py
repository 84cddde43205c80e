"""What was exported is read again; what was changed since then is refused. Round trips: `test_export`."""

from pathlib import Path

import pytest
from data.conftest import random_dataset

from notbugs import data
from notbugs.data import Dataset
from notbugs.errors import InputError


def test_a_manifest_may_not_name_files_elsewhere(tmp_path: Path) -> None:
    data.export(random_dataset(), tmp_path / "set", "folder", card="")
    path = tmp_path / "set/manifest.csv"
    path.write_text(path.read_text().replace("train/a/0.png", "train/../../x.png"))
    with pytest.raises(InputError, match="below train/"):
        data.load_part(tmp_path / "set", "folder")
    path.unlink()
    with pytest.raises(InputError, match=r"manifest.csv"):
        data.load_part(tmp_path / "set", "folder")


def test_names_like_formulas_are_quoted_in_the_manifest_and_read_as_they_are(tmp_path: Path) -> None:
    plain = random_dataset()
    names = tuple(f"={number}+1.png" for number in range(len(plain)))
    classes = ("=1+1", "@x", "-2+3", *plain.classes[3:])[: len(plain.classes)]
    dataset = Dataset(plain.images, plain.labels, classes, names)
    data.export(dataset, tmp_path / "set", "folder", card="")
    rows = (tmp_path / "set/manifest.csv").read_text().splitlines()[1:]
    assert not [cell for row in rows for cell in row.split(",") if cell.startswith(("=", "@", "-"))]
    found = data.load_part(tmp_path / "set", "folder")
    assert (found.classes, found.names) == (classes, names)
    again = data.load(tmp_path / "set", labels="manifest.csv", label_column="label", test=".", all_classes=False)
    assert {again.train.classes[label] for label in again.train.labels.tolist()} <= {*classes}
