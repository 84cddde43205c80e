"""Well-known data sets as they are published: read with their official parts, or refused with a remedy that works."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from data.conftest import load_error, random_image, save
from data.sources.test_layouts import counted, pets, tree
from data.sources.test_said import numbered, table

from notbugs import data


def jpg(root: Path, names: Sequence[str], form: str = ".jpg") -> None:
    for number, name in enumerate(names):
        save(random_image(number), root / f"{name}{form}", format="JPEG")


def test_describable_textures_are_read_with_their_first_partition(tmp_path: Path) -> None:
    names = [f"{name}/{name}_{i}" for name in ("banded", "dotted") for i in range(6)]
    jpg(tmp_path / "images", names)
    (tmp_path / "labels").mkdir()
    for number in (1, 2, 10):
        for j, part in enumerate(("train", "val", "test")):
            rows = [name for name in names if (int(name[-1]) + number) % 3 == j]
            (tmp_path / "labels" / f"{part}{number}.txt").write_text("".join(f"{name}.jpg\n" for name in rows))
    loaded = data.load(tmp_path)
    assert sorted(loaded.train.names)[:2] == ["banded/banded_2.jpg", "banded/banded_5.jpg"] and len(loaded.test) == 4
    said = "parts from labels/test1.txt and labels/train1.txt and labels/val1.txt (--all-classes: all images as one); not read: "
    assert any(note.startswith(f"{said}test10.txt, test2.txt") for note in loaded.notes)
    assert "not used: val1 (4 images); to test on it: --test val1" in loaded.notes
    assert sum(reason == "is a part that is not used" for _, reason in loaded.left_out) == 4
    assert len(data.load(tmp_path, all_classes=True).train) == 10


def test_aircraft_are_read_by_the_list_that_the_option_names(tmp_path: Path) -> None:
    root = tmp_path / "data"
    jpg(root / "images", [f"{i:07d}" for i in range(12)])
    names = {"variant": ("707-320", "DC 10"), "family": ("Boeing 707", "DC-10")}
    for part, rows in (("train", range(4)), ("val", range(4, 8)), ("trainval", range(8)), ("test", range(8, 12))):
        for kind, classes in names.items():
            text = "".join(f"{i:07d} {classes[i % 2]}\n" for i in rows)
            (root / f"images_{kind}_{part}.txt").write_text(text)
        (root / f"images_{part}.txt").write_text("".join(f"{i:07d}\n" for i in rows))
    (root / "images_box.txt").write_text("".join(f"{i:07d} 1 2 3 4\n" for i in range(12)))
    text = load_error(tmp_path)
    assert "several tables with labels, got images_family_test.txt" in text and "choose one with --labels FILE" in text
    for kind, classes in names.items():
        loaded = data.load(tmp_path, labels=f"data/images_{kind}_train.txt")
        assert loaded.train.classes == classes and (len(loaded.train), len(loaded.test)) == (8, 4)


def test_pets_are_read_by_their_names_and_official_lists_without_their_masks(tmp_path: Path) -> None:
    names = [f"{name}_{i}" for name in ("Abyssinian", "american_bulldog") for i in range(1, 7)]
    jpg(tmp_path / "images", names)
    jpg(tmp_path / "annotations" / "trimaps", names, ".png")
    for part, rows in (("trainval", "1234"), ("test", "56")):
        text = "".join(f"{name} {1 + name.startswith('am')} 1 1\n" for name in names if name[-1] in rows)
        (tmp_path / "annotations" / f"{part}.txt").write_text(text)
    (tmp_path / "annotations" / "list.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n")
    option = load_error(tmp_path).partition("--label-regex '")[2].partition("'")[0]
    loaded = data.load(tmp_path, label_regex=option)
    assert (
        counted(loaded.train) == "Abyssinian 4 american_bulldog 4" and counted(loaded.test) == "Abyssinian 2 american_bulldog 2"
    )
    assert "called like annotations, and left out: annotations (12 images)" in loaded.notes
    assert "parts from annotations/test.txt and annotations/trainval.txt" in loaded.notes


def test_imagenet_is_validated_by_its_table_of_boxes(tmp_path: Path) -> None:
    root, words = tmp_path / "ILSVRC/Data/CLS-LOC", ("n01440764", "n01443537")
    jpg(root / "train", [f"{word}/{word}_{i}" for word in words for i in range(3)], ".JPEG")
    jpg(root / "val", [f"val_{i}" for i in range(4)], ".JPEG")
    rows = [f"val_{i},{words[i % 2]} 1 2 3 4 {words[i % 2] + ' 5 6 7 8 ' if i > 1 else ''}\n" for i in range(4)]
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(rows))
    loaded = data.load(tmp_path)
    assert counted(loaded.test) == "n01440764 2 n01443537 2"
    assert "val: of the column PredictionString the classes are read, and not the boxes" in loaded.notes
    several = rows[0].replace("\n", f"{words[1]} 5 6 7 8\n")
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + several + "".join(rows[1:]))
    assert "n01440764 1 2 3 4 n01443537 5 6 7 8" in load_error(tmp_path), "an image of two classes"


COCO = {
    "images": [{"id": i, "file_name": f"{i}.png"} for i in range(4)],
    "annotations": [{"image_id": i, "category_id": k, "bbox": [0, 0, 1, 1]} for i in range(4) for k in (0, 1)],
    "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
}
BOXES = {
    "YOLO": ({"images/train": 4, "images/val": 4, "labels/train/0.txt": "0 0.5 0.5 .1 .1\n1 .2 .2 1 1\n"}, "labels/train/0.txt"),
    "Pascal VOC": ({"JPEGImages": 4, "Annotations/0.xml": "<annotation><object></object></annotation>"}, "Annotations/0.xml"),
    "COCO": ({"train2017": 4, "val2017": 4, "annotations/instances_train2017.json": json.dumps(COCO)}, "annotations/instances"),
}


@pytest.mark.parametrize("form", BOXES)
def test_boxes_of_objects_are_refused_with_what_they_are(tmp_path: Path, form: str) -> None:
    layout, seen = BOXES[form]
    root = tree(tmp_path, layout)
    text = load_error(root)
    assert f"has boxes of objects ({form}), and one label for each image is needed, got {seen}" in text
    assert text.endswith(
        "cut the objects out and save each as CLASS/file.png, or give each image one label in a table: --labels FILE"
    )
    files = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    table(root, "file,label", files, ["cat", "dog"] * (len(files) // 2), name="my.csv")
    assert data.load(root, labels="my.csv").train.classes == ("cat", "dog")


@pytest.mark.parametrize("form", ["{part}_{name}", "{name}_{part}", "{part}{Name}"])
def test_names_of_folders_that_say_part_and_class(tmp_path: Path, form: str) -> None:
    folders = {
        (part, name): form.format(part=part, name=name, Name=name.title())
        for part in ("train", "test")
        for name in ("cat", "dog")
    }
    root = tree(tmp_path, {folder: 3 if part == "train" else 2 for (part, _), folder in folders.items()})
    loaded = data.load(root)
    assert counted(loaded.train).casefold() == "cat 3 dog 3" and counted(loaded.test).casefold() == "cat 2 dog 2"
    assert any(note.startswith("the names of folders say part and class: ") for note in loaded.notes)


def test_names_that_say_part_and_class_are_no_guess(tmp_path: Path) -> None:
    root = tree(tmp_path, {f"{part}_{name}": 3 for part in ("train", "test") for name in ("left", "right")})
    assert "called like modalities" in load_error(root)
    stations = tree(tmp_path / "stations", {"train_station": 3, "bus_station": 3})
    assert data.load(stations).train.classes == ("bus_station", "train_station")
    assert data.load(tree(tmp_path / "asl", {**pets("asl_train"), **pets("asl_test")})).train.classes == ("cat", "dog")
    labeled = numbered(numbered(tmp_path / "sites", 4, "a_train"), 4, "a_test")
    assert "--labels" in load_error(labeled)
