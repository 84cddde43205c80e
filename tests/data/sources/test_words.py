"""The words for labels and parts: one list for each meaning, and every form of a data set that is read by them."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.conftest import load_error
from data.sources.forms import arrays, pixel_table, png, tar
from data.sources.test_said import numbered, table
from datasets import ClassLabel, Dataset, Features, Image, Value

from notbugs import data
from notbugs.data.sources import words

PETS = ["cat", "dog"] * 4


def parquet(path: Path, *, typed: tuple[str, ...] = (), **columns: list[Any]) -> Path:
    kinds = {name: ClassLabel(names=["a", "b"]) if name in typed else Value("string") for name in columns}
    images = [{"bytes": png(i), "path": None} for i in range(8)]
    Dataset.from_dict({"image": images, **columns}, features=Features(image=Image(), **kinds)).to_parquet(path)
    return path


def pixels(path: Path, header: str, values: list[Any]) -> Path:
    first, *rows = pixel_table(path, label=False).read_text().splitlines()
    path.write_text("\n".join([f"{header},{first}", *(f"{value},{row}" for value, row in zip(values, rows, strict=True))]) + "\n")
    return path


def beside(root: Path, header: str, *columns: list[Any]) -> Path:
    return table(numbered(root), f"file,{header}", [f"{i}.png" for i in range(8)], *columns)


def shards(path: Path, text: str = "", **fields: list[Any]) -> Path:
    about = [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]
    files = {f"{i}.png": png(i) for i in range(8)} | {f"{i}.json": json.dumps(each).encode() for i, each in enumerate(about)}
    return tar(path, files | ({f"{i}.txt": PETS[i].encode() for i in range(8)} if text else {}))


READ: dict[str, tuple[Callable[[Path], Path], str]] = {
    "parquet, category": (lambda root: parquet(root / "a.parquet", category=PETS), "labels from the column category"),
    "parquet, Species": (lambda root: parquet(root / "a.parquet", Species=PETS), "labels from the column Species"),
    "parquet, class before species": (lambda root: parquet(root / "a.parquet", species=["x"] * 8, cls=PETS), "column cls"),
    "parquet, label before class": (lambda root: parquet(root / "a.parquet", label=PETS, **{"class": ["x", "y"] * 4}), ""),
    "pixels, Class_ID": (lambda root: pixels(root / "a.csv", "Class_ID", PETS), "labels from the column Class_ID"),
    "pixels, emotion": (lambda root: pixels(root / "a.csv", "emotion", PETS), "labels from the column emotion"),
    "pixels, class_name": (lambda root: pixels(root / "a.csv", "class_name", PETS), "labels from the column class_name"),
    "pixels, label": (lambda root: pixels(root / "a.csv", "Label", PETS), ""),
    "a table, cls": (lambda root: beside(root, "cls,note", PETS, list(range(8))), "column cls"),
    "a table, emotion": (lambda root: beside(root, "emotion,note", PETS, list(range(8))), "column emotion"),
    "shards, Class-ID": (lambda root: shards(root / "a.tar", **{"Class-ID": PETS}), "labels are read from .json"),
    "shards, class_label": (lambda root: shards(root / "a.tar", class_label=PETS, y=[7] * 8), "labels are read from .json"),
    # What else is known of an image is no label: the one of the .txt is read
    "shards, a place": (lambda root: shards(root / "a.tar", "txt", x=[1] * 8, y=[2] * 8), "labels are read from .txt"),
    "shards, tags": (lambda root: shards(root / "a.tar", "txt", tag=["x", "y"] * 4), "labels are read from .txt"),
    "shards, a list": (lambda root: shards(root / "a.tar", "txt", labels=[["x", "y"]] * 8), "labels are read from .txt"),
}


@pytest.mark.parametrize("case", READ)
def test_labels_are_called_so(tmp_path: Path, case: str) -> None:
    make, said = READ[case]
    loaded = data.load(make(tmp_path))
    assert loaded.train.classes == ("cat", "dog")
    assert any(said in note for note in loaded.notes) if said else not any("labels from" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: parquet(root / "a.parquet", cls=PETS, category=PETS), "columns cls, category; choose it with"),
        (lambda root: pixels(root / "a.csv", "class,category", [f"{name},x" for name in PETS]), "choose it with --label-column"),
        (lambda root: beside(root, "class,species", PETS, ["x", "x", "y", "y"] * 2), "choose it with --label-column"),
        (lambda root: shards(root / "a.tar", label=PETS, Class=PETS), "got label, Class; choose it with --label-column"),
    ],
)  # fmt: skip
def test_which_of_two_is_meant_is_not_guessed(tmp_path: Path, make: Callable[[Path], Path], says: str) -> None:
    assert says in load_error(make(tmp_path))


def test_a_column_of_class_labels_needs_no_word_and_of_several_the_words_decide(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", typed=("digit",), digit=[0, 1] * 4, category=PETS)
    loaded = data.load(path)
    assert loaded.train.classes == ("a", "b") and not any("labels from" in note for note in loaded.notes)
    both = parquet(tmp_path / "b.parquet", typed=("digit", "target"), digit=[0, 0, 1, 1] * 2, target=[0, 1] * 4)
    assert data.load(both, test=".").test.labels.tolist() == [0, 1] * 4


def test_an_array_called_class_is_no_array_of_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(), train_class=np.arange(8))  # type: ignore[arg-type]
    assert [item.reason for item in data.load(tmp_path / "a.npz").left_out] == ["is an array of unknown use"]


def test_lists_that_differ_are_parts_of_the_whole_one() -> None:
    every = {*words.LABEL_COLUMNS}
    assert len(words.LABEL_COLUMNS) == len(every) and {*words.NOT_IN_SHARDS} < every
    assert {word.removesuffix("s") for word in words.ARRAYS["labels"]} < every
    assert {*words.FLAGS} < {*words.SPLIT_COLUMNS} and {*words.SHORT_SPLITS.values()} < {*words.SPLITS}


def test_no_reader_has_a_list_of_its_own() -> None:
    """Three words for labels or parts in one literal, anywhere else in `data`, are such a list."""
    folder, found = Path(data.__file__).parent, []
    kinds = ({*words.LABEL_COLUMNS}, {word for each in words.SPLITS.values() for word in each}, {*words.FILE_COLUMNS})
    for path in folder.rglob("*.py"):
        text = path.read_text()
        if path.name == "words.py" or not any(len(kind.intersection(re.findall(r'"(\w+)"', text))) > 2 for kind in kinds):
            continue  # parsing takes most of the time
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Tuple | ast.List | ast.Set):
                texts = {each.value for each in node.elts if isinstance(each, ast.Constant)}
                if any(len(texts & kind) > 2 for kind in kinds):
                    found.append(f"{path.relative_to(folder)}:{node.lineno}")
    assert found == []
