"""Labels in nested JSON: what is clear is read as it is meant, the rest is refused with what was seen and what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from data.conftest import load_error, random_image, save

from notbugs import data

FILES, WORDS = [f"{i}.png" for i in range(8)], ["cat", "dog"] * 4
PAIRS = list(zip(FILES, WORDS, strict=True))
NUMBERED = [{"file": file, "label": i % 2} for i, file in enumerate(FILES)]
IMAGES = [{"id": i, "file_name": file} for i, file in enumerate(FILES)]
BY_CLASS = {"cat": FILES[::2], "dog": FILES[1::2]}


def with_json(root: Path, content: object) -> Path:
    for i in range(8):
        save(random_image(i), root / "images" / f"{i}.png")
    (root / "about.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return root


@pytest.mark.parametrize(
    "content",
    [
        [{"image": {"file_name": file, "width": 6}, "label": {"id": WORDS.index(word), "name": word}} for file, word in PAIRS],
        {file: {"label": word, "by": "me"} for file, word in PAIRS} | {"0.png": {"label": "cat", "by": "you"}},
        {file: [word] for file, word in PAIRS},
        BY_CLASS,
        {"images": IMAGES, "annotations": [{"id": 7 - i, "image_id": i, "label": word} for i, word in enumerate(WORDS)]},
        {
            "images": [{**image, "category_id": i % 2} for i, image in enumerate(IMAGES)],
            "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        },
        {"file": FILES, "label": WORDS},
        {"image_names": FILES, "image_labels": [0, 1] * 4, "label_names": ["cat", "dog"]},
        {"columns": ["file", "label"], "index": list(range(8)), "data": PAIRS},
        {"file": dict(enumerate(FILES)), "label": dict(enumerate(WORDS))},
        {"info": {"version": 1}, "classes": ["cat", "dog"], "annotations": NUMBERED},
        {"data": {"items": [{"path": file, "class": [{"label": word}]} for file, word in PAIRS]}},
        [[i, file, word] for i, (file, word) in enumerate(PAIRS)],
    ],
    ids=[
        "objects in records", "file: object", "file: list", "class: files", "images and annotations", "categories of images",
        "lists", "lists and class names", "pandas split", "pandas columns", "around records", "object in object", "rows",
    ],
)  # fmt: skip
def test_clear_json_is_read(tmp_path: Path, content: object) -> None:
    loaded = data.load(with_json(tmp_path, content), test=".")
    read = {
        Path(name).name: loaded.test.classes[label] for name, label in zip(loaded.test.names, loaded.test.labels, strict=True)
    }
    assert read == dict(PAIRS) and any("labels from about.json" in note for note in loaded.notes)


@pytest.mark.parametrize(
    "of_files",
    [
        lambda pairs: [{"file": file, "label": word} for file, word in pairs],
        lambda pairs: [[file, WORDS.index(word), word] for file, word in pairs],
        lambda pairs: {word: [file for file, other in pairs if other == word] for word in ("cat", "dog")},
    ],
    ids=["records", "rows", "class: files"],
)
def test_parts_in_json(tmp_path: Path, of_files: Callable[[list[tuple[str, str]]], object]) -> None:
    content = {"data": {"train": of_files(PAIRS[:4]), "val": [], "test": of_files(PAIRS[4:])}}
    loaded = data.load(with_json(tmp_path, content))
    assert [Path(name).name for name in loaded.test.names] == FILES[4:] and loaded.train.classes == ("cat", "dog")
    assert [loaded.train.classes[label] for label in loaded.train.labels] == WORDS[:4]


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ({"images": FILES[::2], "masks": FILES[1::2]}, "lists of files called images, masks, which are no classes"),
        ({"fold1": FILES[::2], "fold2": FILES[1::2]}, "lists of files called fold1, fold2, which may be no classes"),
        ({"train": FILES[:4], "test": FILES[4:]}, "files of the part train, without labels"),
        ({"train": [{"file": "0.png", "split": "x"}]}, "parts of parts"),
        ({"classes": ["cat"], "annotations": NUMBERED}, "annotations: the label 1, which has no class name"),
        ({"images": IMAGES, "annotations": [{"image_id": 99, "label": 1}]}, "images and annotations of which some lack 99"),
        ({"a": NUMBERED, "b": NUMBERED}, "an object with a, b"),
        ({file: [{"label": "cat"}] for file in FILES}, "files with lists"),
        (FILES, "a list of 8 values"),
        ("{", "no JSON"),
        ("3", "one int"),
    ],
)
def test_unclear_json_is_refused_and_the_remedy_works(tmp_path: Path, content: object, seen: str) -> None:
    root = with_json(tmp_path, content)
    remedy = "save the labels as labels.csv with the columns file and label"
    assert seen in (text := load_error(root)) and text.endswith(remedy)
    assert seen in (text := load_error(root, labels="about.json")) and text.endswith(remedy)
    (root / "labels.csv").write_text("\n".join(["file,label", *(f"{file},{word}" for file, word in PAIRS)]))
    assert len(data.load(root, test=".").test) == 8


def test_unclear_columns_are_listed_and_each_can_be_chosen(tmp_path: Path) -> None:
    animal = {file: {"by": f"user {i}", "attributes": {"animal": word, "age": i}} for i, (file, word) in enumerate(PAIRS)}
    assert "columns file, by, attributes.animal, attributes.age; choose it with --label-column" in load_error(
        with_json(tmp_path, animal)
    )
    assert data.load(tmp_path, label_column="attributes.animal").train.classes == ("cat", "dog")


def test_several_labels_in_json_are_refused(tmp_path: Path) -> None:
    root = with_json(tmp_path, {file: [word, "pet"] for file, word in PAIRS})
    assert "(multi-label), which is not supported, got ['cat', 'pet'], ['dog', 'pet']" in load_error(root)
    assert data.load(root, label_column="label").train.classes == ("['cat', 'pet']", "['dog', 'pet']")


def test_a_file_of_each_image_is_named(tmp_path: Path) -> None:
    """As Supervisely exports them."""
    for file in FILES:
        save(random_image(0), tmp_path / "set" / "img" / file)
        (tmp_path / "set" / "ann").mkdir(exist_ok=True)
        (tmp_path / "set" / "ann" / f"{file}.json").write_text('{"tags": [{"name": "cat"}]}')
    text = load_error(tmp_path)
    assert "beside images of their names; save all labels as one labels.csv with the columns file and label" in text


def test_ndjson(tmp_path: Path) -> None:
    root = with_json(tmp_path, "{}")
    (root / "labels.ndjson").write_text("\n".join(json.dumps({"row": {"id": file}, "label": word}) for file, word in PAIRS))
    assert data.load(root).train.classes == ("cat", "dog")
