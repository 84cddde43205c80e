"""The card: what it says, and that by its code five readers load pixels, labels and order of classes."""

import ast
import os
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from data.conftest import equal, random_dataset, stored
from PIL import Image

from notbugs import data
from notbugs.data.card import license_of

CLASSES = [
    ("cat", "dog", "emu"),
    ("2", "10", "1"),  # sorted by name: 1, 10, 2
    ("ant", "Bee", "cow"),  # sorted by name: Bee, ant, cow
    ("b/x", ".hidden", "a"),  # folders: b_x, _.hidden, a
    ("test", "train", "val"),
]


def front(folder: Path) -> dict[str, Any]:
    head = yaml.safe_load((folder / "README.md").read_text().split("\n---\n")[0])
    assert isinstance(head, dict)
    return head


def code_by_library(folder: Path) -> dict[str, str]:
    found = re.findall(r"\n([\w ]+):\n\n```python\n(.*?)\n```\n", (folder / "README.md").read_text(), re.DOTALL)
    return dict(found)


def classes_in(code: str) -> list[str] | None:
    """What the code calls classes, if it does."""
    named = [node for node in ast.parse(code).body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "classes"]
    return ast.literal_eval(named[0].value) if named else None


# The documented rules of the readers of image folders: which classes there are, in which order, for the code on the card.
# test_readers.py runs that code with the libraries themselves, where they are installed.


def of_torchvision(folder: Path, code: str) -> list[str]:
    """ImageFolder.find_classes: the folders, sorted; overridden by the code. A class without files needs allow_empty."""
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    assert "allow_empty=True" in code or all(any((folder / name).iterdir()) for name in found)
    assert (classes_in(code) is None) or "return classes, {name: index for index, name in enumerate(classes)}" in code
    return classes_in(code) or found


def of_keras(folder: Path, code: str) -> list[str]:
    """image_dataset_from_directory: the folders that are not hidden, sorted; or class_names, which must be among them."""
    found = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    given = classes_in(code)
    assert given is None or ("form['class_names'] = classes" in code and {*given} <= {*found})
    return given or found


def of_fastai(folder: Path, code: str) -> list[str]:
    """CategoryBlock: the labels that occur, sorted; or the vocab, in its order where it is not to be sorted."""
    given = classes_in(code)
    assert given is None or "CategoryBlock(vocab=classes, sort=False)" in code
    return given or sorted({path.parent.name for path in folder.rglob("*.png")})


def of_fiftyone(folder: Path, code: str) -> list[str]:
    """ImageClassificationDirectoryTree: the folders with files that are not hidden, sorted; default_classes may be set."""
    given = classes_in(code)
    assert given is None or "data.default_classes = classes" in code
    return given or sorted({path.parent.name for path in folder.rglob("*.png") if not path.parent.name.startswith(".")})


READERS = {"torchvision": of_torchvision, "Keras": of_keras, "fastai": of_fastai, "FiftyOne": of_fiftyone}


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("classes", CLASSES, ids="-".join)
def test_five_readers_of_folders_see_the_same_pixels_labels_and_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: tuple[str, ...], empty: bool
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    whole, folder = random_dataset(9, 3, classes), tmp_path / "set"
    whole = whole.with_labels(whole.labels.clamp_max(1)) if empty else whole
    data.export(whole, folder, "folder", card="# Mine")
    assert equal(data.load_part(folder, "folder"), whole)
    expected = {
        (image.permute(1, 2, 0).numpy().tobytes(), int(label)) for image, label in zip(stored(whole), whole.labels, strict=True)
    }
    code = code_by_library(folder)
    assert list(code) == ["torchvision", "Hugging Face datasets", "Keras", "fastai", "FiftyOne"]
    for name, reader in READERS.items():
        order = reader(folder / "train", code[name])
        files = sorted((folder / "train").rglob("*.png"))
        pairs = {(np.asarray(Image.open(path)).tobytes(), order.index(path.parent.name)) for path in files}
        assert len(order) == len(classes) and pairs == expected, name
    names: dict[str, Any] = {}
    exec(code["Hugging Face datasets"], names)
    assert {(np.asarray(row["image"]).tobytes(), row["label"]) for row in names["data"]} == expected
    assert len(names["data"].features["label"].names) == len(classes)


def test_notes_say_what_a_reader_has_to_know(tmp_path: Path) -> None:
    whole = random_dataset(6, classes=("b/x", "a")).with_labels(torch.zeros(6, dtype=torch.int64))
    notes = data.export(whole, tmp_path / "set", "folder", card="# Mine")
    assert [note.split(".")[0] for note in notes] == [
        "No image has the label a",
        "Readers of image folders sort the classes by name, which is not their order here",
        "1 classes have names that no folder can have",
    ]
    card = (tmp_path / "set/README.md").read_text()
    assert all(f"\n- {note}\n" in card for note in notes)
    assert "index\timages\tclass\tfolder\n0\t6\tb/x\tb_x\n1\t0\ta\ta\n" in card
    assert front(tmp_path / "set")["notbugs"] == {"classes": ["b/x", "a"]}
    assert data.export(random_dataset(), tmp_path / "usual", "folder", card="") == ()


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_the_list_of_classes_is_whole_where_the_card_is_read(tmp_path: Path, form: str) -> None:
    """load_dataset takes it from the parquet file, or from the card; only readers of image folders number what they find."""
    whole = random_dataset(6, classes=("10", "9", "none")).with_labels(torch.arange(6) % 2)
    data.export(whole, tmp_path / "set", form, card="")
    rows = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))["train"]
    column = "label" if form == "parquet" else "cls"
    assert rows.features[column].names == ["10", "9", "none"] and list(rows[column]) == whole.labels.tolist()


def test_sets_in_folders_of_one_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    """With `configs` in the front matter Hugging Face takes a set in another folder of the same name from its cache."""
    for form in ("folder", "parquet", "webdataset"):
        for channels in (1, 3):
            folder = tmp_path / form / str(channels) / "robust"
            data.export(random_dataset(6, channels), folder, form, card="")
            row = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"][0]
            assert row.get("image", row.get("png")).mode == {1: "L", 3: "RGB"}[channels]


def test_the_origin_and_its_license(tmp_path: Path) -> None:
    source = tmp_path / "my images"
    data.export(random_dataset(40), source, "folder", card="")
    splits = data.load(str(source))
    for license, said in (("unknown", "unknown. Look it up"), ("cc-by-4.0", "`cc-by-4.0`, as its card says.")):
        card = source / "README.md"
        card.write_text(card.read_text().replace("license: unknown", f"license: {license}"))
        origin = data.origin_of(str(source), splits)
        assert origin == ("my images", data.fingerprint(splits.train, splits.test), license)
        data.export(splits.train, tmp_path / license, "npz", card="", origin=origin)
        assert front(tmp_path / license)["license"] == license
        assert front(tmp_path / license)["notbugs"] == {"input": "my images", "fingerprint": origin.fingerprint}
        assert said in (tmp_path / license / "README.md").read_text()
    assert data.origin_of("uoft-cs/cifar10", splits).name == "uoft-cs/cifar10"


@pytest.mark.parametrize(
    "text", ["", "license: mit", "---\n- 1\n---\n", "---\nlicense: [mit]\n---\n", "---\nlicense: 'a b'\n---\n", "---\n{\n---\n"]
)
def test_a_card_that_states_no_license_is_unknown(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert license_of(str(tmp_path)) == "unknown" == license_of(str(tmp_path / "none"))
