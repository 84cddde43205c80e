"""The sample is blinded, balanced and reproducible; what cannot be reviewed is an error that writes nothing."""

import base64
import io
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from review.conftest import SETS, page_content, read_key, write_review

from notbugs import data
from notbugs.errors import InputError


def test_the_page_gives_nothing_away(digits_page: Path) -> None:
    text, key = digits_page.read_text(encoding="utf-8"), read_key(digits_page.parent.parent)
    assert not [word for word in ("robust", "original", "random-label", "digits") if word in text.lower()]
    assert not [row["file"] for row in key if row["file"] in text] and ".png" not in text
    assert sum(row["id"] in text for row in key) == 60 and all(len(row["id"]) == 10 for row in key)
    content = page_content(digits_page)
    assert set(content) == {"id", "classes", "images"} and all(set(image) == {"id", "source"} for image in content["images"])
    encoded = [base64.b64decode(image["source"].removeprefix("data:image/png;base64,")) for image in content["images"]]
    pictures = [Image.open(io.BytesIO(one)) for one in encoded]
    assert {(one.size, one.mode, repr(one.info)) for one in pictures} == {((8, 8), "L", "{}")}
    assert len({len(one) for one in encoded}) == 1  # nor does a picture's length in bytes
    assert [image["id"] for image in content["images"]] == [row["id"] for row in key]
    sets = [row["set"] for row in key]
    runs = 1 + sum(one != other for one, other in pairwise(sets))
    assert runs > 25  # by chance 41; three groups would be 3


@pytest.mark.slow
def test_what_is_shown_is_the_file_of_the_key(digits_page: Path) -> None:
    run = digits_page.parent.parent
    parts = {name: data.load_part(run / "datasets" / name, "folder") for name in ("robust", "nonrobust")}
    parts["original"] = data.load("digits", limit=300).train
    for row, image in zip(read_key(run), page_content(digits_page)["images"], strict=True):
        part = parts[row["set"]]
        place = part.names.index(row["file"])
        picture = Image.open(io.BytesIO(base64.b64decode(image["source"].split(",")[1])))
        assert np.array_equal(np.asarray(picture), part.images[[place]][0, 0].numpy())
        assert row["label"] == part.classes[int(part.labels[place])]


def test_no_file_is_in_two_sets_and_classes_are_even(digits_page: Path) -> None:
    key = read_key(digits_page.parent.parent)
    assert len({row["file"] for row in key}) == 60
    assert set(Counter((row["set"], row["label"]) for row in key).values()) == {2} and len({row["label"] for row in key}) == 10


def test_uneven_counts_are_uneven_alike(run: Path) -> None:
    """Of seven images a set shows seven classes, the same ones in each set."""
    write_review(run, count=7, seed=3)
    key = read_key(run)
    by_set = {name: Counter(row["label"] for row in key if row["set"] == name) for name in SETS}
    assert by_set["original"] == by_set["robust"] == by_set["nonrobust"] and set(by_set["robust"].values()) == {1}
    assert sorted(by_set["robust"]) != list("0123456")  # nor the first ones


@pytest.mark.slow
def test_the_same_seed_writes_the_same_bytes_and_another_none(run: Path, digits_page: Path) -> None:
    path = write_review(run, count=20)
    was = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    assert was == {one.name: one.read_bytes() for one in digits_page.parent.iterdir()} and {*was} == {"review.html", "key.csv"}
    path.unlink()
    (path.parent / "anna.csv").write_text("reviewer,id,answer,seconds\n")
    assert write_review(run, count=20).read_bytes() == was["review.html"]
    for other in ({"seed": 1}, {"count": 19}, {"sets": ("original", "robust")}, {"sets": ("robust", "original", "nonrobust")}):
        with pytest.raises(InputError, match="other sets, count or seed"):
            write_review(run, **({"count": 20} | other))  # type: ignore[arg-type]
    assert {one.name: one.read_bytes() for one in path.parent.iterdir() if one.name != "anna.csv"} == was
    path.parent.rename(run / "earlier")
    write_review(run, count=19)  # other images, other ids: answers to one page are no answers to another
    assert not {row["id"] for row in read_key(run)} & {row["id"] for row in read_key(digits_page.parent.parent)}


UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"sets": ("original", "next-labels")}, "--sets: must be finished sets, got next-labels"),
    ({"sets": ("robust", "test")}, "--sets: must be of original, robust, nonrobust, .* got 'test'"),
    ({"sets": ("robust", "robust")}, "--sets: must be one set or several different ones, got robust, robust"),
    ({"sets": ()}, "--sets: must be one set or several different ones, got none"),
    ({"count": 0}, "--count: must be 1 or more, got 0"),
    ({"seed": -1}, "--seed: must be 0 or more, got -1"),
    ({"count": 101}, "--count: must be at most 100 for these sets, no file being shown in two, got 101"),
]


@pytest.mark.parametrize(("arguments", "words"), UNUSABLE, ids=[words[:30] for _, words in UNUSABLE])
def test_unusable_arguments_write_nothing(run: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        write_review(run, **({"count": 20} | arguments))
    assert not (run / "review").exists()


def test_only_a_study_whose_data_are_there_can_be_reviewed(run: Path, tmp_path: Path) -> None:
    text = (run / "run.json").read_text()
    damaged = [
        (text.replace('"kind": "study"', '"kind": "audit"'), "must be a study's folder"),
        (text.replace('"invert_steps": 3', '"invert_steps": "3"', 1), "must be a study's folder"),
        (text.replace('"norm": "l2"', '"norm": 2', 1), "must be a study's folder"),
        (text.replace('"resize"', '"rezise"', 1), "must be a study's folder"),
        (text.replace('"limit": 300', '"limit": 290', 1), "must hold the same images as when the run began"),
    ]
    for changed, words in damaged:
        assert changed != text
        (run / "run.json").write_text(changed)
        with pytest.raises(InputError, match=words):
            write_review(run, count=20)
    (run / "run.json").write_text(text)
    shutil.rmtree(run / "datasets/robust")
    with pytest.raises(InputError, match="robust: must be where this run wrote it, got nothing; put it back"):
        write_review(run, count=20)
    with pytest.raises(InputError, match=r"must hold a run\.json"):
        write_review(tmp_path / "nowhere", count=20)
    assert not (run / "review").exists()
