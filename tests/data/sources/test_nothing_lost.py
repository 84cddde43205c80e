"""Files, parts and labels that were lost, merged or read as others in silence: they are read, said, listed or refused."""

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from data.conftest import image_folder, load_error, random_image, save
from data.sources.forms import archive, arrays, idx, png, shard, tar

from notbugs import data

NFC, NFD = "caf\u00e9", "cafe\u0301"  # two names of files, one word


def parquet(path: Path, count: int = 4, kind: type = int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"image": [png(i) for i in range(count)], "label": [kind(i % 2) for i in range(count)]}
    pyarrow.parquet.write_table(pyarrow.table(rows), path)
    return path


def npz(path: Path, part: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, images=arrays()[f"x_{part}"], labels=arrays()[f"y_{part}"])
    return path


def saved(path: Path, classes: tuple[str, ...] = ()) -> Path:
    cells = {"image": [{"bytes": png(i), "path": None} for i in range(4)], "label": [0, 1, 0, 1]}
    labels = datasets.ClassLabel(names=list(classes)) if classes else datasets.Value("int64")
    datasets.Dataset.from_dict(cells, datasets.Features(image=datasets.Image(), label=labels)).save_to_disk(path)
    return path


def reasons(found: data.Splits) -> dict[str, str]:
    return dict(found.left_out)


# ---- parts ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("cifar10_train", "cifar10_test"),
        ("2023_train", "2023_test"),
        ("2024-train-0", "2024-val-0"),
        ("train-00000-of-00001-0c1d2e3f", "test-00000-of-00001-a9b8c7d6"),
    ],
)
def test_numbers_in_names_of_parquet_files(tmp_path: Path, train: str, test: str) -> None:
    parquet(tmp_path / f"{train}.parquet", 6)
    parquet(tmp_path / f"{test}.parquet", 4)
    found = data.load(tmp_path)
    assert (len(found.train), len(found.test)) == (6, 4)


@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_files_of_several_names_that_are_read_as_one_part_are_said(tmp_path: Path, form: str) -> None:
    for name in ("clean", "noisy"):
        parquet(tmp_path / f"train/{name}.parquet") if form == "parquet" else shard(tmp_path / f"train/{name}.tar", 4)
    assert "files of several names are read as one part, train: clean, noisy" in data.load(tmp_path).notes


def test_two_sets_of_idx_files_with_the_same_names(tmp_path: Path) -> None:
    idx(tmp_path / "digits"), idx(tmp_path / "fashion")
    error = load_error(tmp_path)
    assert "several data sets" in error and "digits/t10k-images" in error and "fashion/t10k-images" in error


def test_private_test_without_public_test_is_the_test_part(tmp_path: Path) -> None:
    rows = [f"{i % 2},{' '.join('7' * 16)},{part}" for part in ("Training", "PrivateTest") for i in range(4)]
    found = data.load(table(tmp_path, "emotion,pixels,Usage", *rows, name="fer2013.csv"))
    assert (len(found.train), len(found.test)) == (4, 4)


def test_a_column_of_labels_is_refused_where_there_is_none(tmp_path: Path) -> None:
    assert load_error(idx(tmp_path), label_column="species").startswith("--label-column: is for tables, got")


# ---- links ---------------------------------------------------------------------------------------------------------------------


def linked(root: Path, form: str, *, inside: bool = False) -> Path:
    """A folder with its training part and a link to its test part, which is in or outside of it."""
    elsewhere = (root / "set/more") if inside else root / "elsewhere"
    make = {"npz": npz, "parquet": lambda path, _: parquet(path), "tar": lambda path, _: shard(path, 4)}[form]
    make(root / f"set/train.{form}", "train")
    make(elsewhere / f"0.{form}", "test")
    (root / f"set/test.{form}").symlink_to(elsewhere / f"0.{form}")
    return root / "set"


@pytest.mark.parametrize("form", ["npz", "parquet", "tar"])
def test_a_linked_file_of_arrays_is_refused_or_followed(tmp_path: Path, form: str) -> None:
    root = linked(tmp_path, form)
    assert load_error(root).startswith(f"test.{form}: is a link that leaves the folder (to follow it: --follow-links)")
    assert len(data.load(root, follow_links=True).test) == 4
    assert reasons(data.load(root, skip_unreadable=True))[f"test.{form}"].startswith("is a link that leaves")


def test_a_link_to_a_file_in_the_folder_is_read(tmp_path: Path) -> None:
    assert len(data.load(linked(tmp_path, "npz", inside=True)).test) == 4


def test_linked_folders_beside_arrays(tmp_path: Path) -> None:
    shard(tmp_path / "set/train/0.tar", 6), shard(tmp_path / "elsewhere/0.tar", 4)
    (tmp_path / "set/test").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    assert "is a linked folder (to follow it: --follow-links)" in load_error(tmp_path / "set")
    found = data.load(tmp_path / "set", follow_links=True)
    assert len(found.test) == 4
    assert "loop" in reasons(found)


def test_a_snapshot_of_the_hub_is_read_with_its_links_as_the_error_says(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--me--set/snapshots/abc"
    snapshot.mkdir(parents=True)
    npz(tmp_path / "datasets--me--set/blobs/0.npz", "train")
    (snapshot / "set.npz").symlink_to(Path("../../blobs/0.npz"))
    assert f"pass {snapshot} with --follow-links" in load_error(snapshot.parents[1])
    assert load_error(snapshot).startswith(f"{snapshot}/set.npz: is a link that leaves the folder")
    assert len(data.load(snapshot, follow_links=True).train) == 6


def test_a_saved_set_whose_file_is_a_link_out_of_it(tmp_path: Path) -> None:
    (file,) = saved(tmp_path / "set").glob("*.arrow")
    shutil.move(file, tmp_path / "elsewhere.arrow")
    file.symlink_to(tmp_path / "elsewhere.arrow")
    assert "is a link that leaves the folder (to follow it: --follow-links)" in load_error(tmp_path / "set")
    assert len(data.load(tmp_path / "set", follow_links=True, test=".").test) == 4


# ---- what else is in the folder ------------------------------------------------------------------------------------------------


def test_files_of_several_forms_of_which_one_is_parquet_or_saved(tmp_path: Path) -> None:
    parquet(tmp_path / "tables/train.parquet")
    npz(tmp_path / "tables/other.npz", "train")
    assert "holds data sets of several forms, got other.npz, train.parquet" in load_error(tmp_path / "tables")
    saved(tmp_path / "set")
    npz(tmp_path / "set/test.npz", "test")
    assert "holds a saved Hugging Face set and other data sets, got test.npz" in load_error(tmp_path / "set")


@pytest.mark.parametrize("form", ["parquet", "npz", "saved"])
def test_what_lies_beside_files_of_data_is_listed(tmp_path: Path, form: str) -> None:
    root = tmp_path / "set"
    if form == "saved":
        saved(root)
    elif form == "npz":
        npz(root / "set.npz", "train")
    else:
        parquet(root / "data/train.parquet")
        (root / "data/notes.txt").touch()
    (root / "metadata.parquet").write_bytes(b"no table of images")
    (root / ".DS_Store").touch()
    found = reasons(data.load(root))
    assert found["metadata.parquet"] == "is no part of the data set that is read"
    assert found[".DS_Store"] == "is a hidden or system file"
    assert ("data/notes.txt" in found) == (form == "parquet")
    assert not any("arrow" in name or "json" in name or "set.npz" in name for name in found)


def test_archives_beside_a_folder_without_images(tmp_path: Path) -> None:
    for part in ("train", "test"):
        archive(tmp_path / f"{part}.zip", {"cat/1.png": png(0)})
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/about.txt").touch()
    assert "holds archives, got test.zip, train.zip; unpack all into this folder" in load_error(tmp_path)


def test_an_archive_beside_images_with_labels_is_left_out(tmp_path: Path) -> None:
    for i in range(4):
        save(random_image(i), tmp_path / f"{i}.png")
    (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join(f"{i}.png,{i % 2}" for i in range(4)))
    archive(tmp_path / "backup.zip", {"1.png": png(0)})
    assert "backup.zip" in reasons(data.load(tmp_path))


# ---- names of classes ----------------------------------------------------------------------------------------------------------


def test_labels_of_parquet_files_that_are_booleans(tmp_path: Path) -> None:
    found = data.load(parquet(tmp_path / "set.parquet", kind=bool), test=".")
    assert (found.test.classes, found.test.labels.tolist()) == (("False", "True"), [0, 1, 0, 1])


def test_a_list_of_classes_that_is_no_json(tmp_path: Path) -> None:
    image_folder(tmp_path, ("0", "1"))
    (tmp_path / "classes.json").write_text("['cat', 'dog']")
    found = data.load(tmp_path)
    assert found.train.classes == ("0", "1")
    assert [note for note in found.notes if "classes.json is not read" in note][1:] == []
    assert any("classes.json is not read" in note for note in found.notes)


def test_a_file_that_does_not_name_each_class_is_said_once(tmp_path: Path) -> None:
    image_folder(tmp_path, ("0", "1"))
    (tmp_path / "classes.txt").write_text("cat\ndog\nfox\n")
    assert len([note for note in data.load(tmp_path).notes if "is not read" in note]) == 1


def test_names_that_stand_twice_in_json(tmp_path: Path) -> None:
    image_folder(tmp_path / "a", ("0", "1"))
    (tmp_path / "a/classes.json").write_text('{"0": "cat", "1": "dog", "0": "fox"}')
    assert data.load(tmp_path / "a").train.classes == ("0", "1")
    error = load_error(tar(tmp_path / "b.tar", {"0.png": png(0), "0.json": b'{"label": 0, "label": 1}'}))
    assert "must hold a label as text or JSON, got the name label stands twice in an object" in error
    root = table(images(tmp_path / "c", ["0.png", "1.png"]), '{"file": "0.png", "label": 0, "label": 1}', name="labels.jsonl")
    assert "the name label stands twice in an object" in load_error(root)


def test_two_categories_of_one_number(tmp_path: Path) -> None:
    root, about = images(tmp_path, [f"{i}.png" for i in range(4)]), [{"id": i, "file_name": f"{i}.png"} for i in range(4)]
    names = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 1, "name": "fox"}]
    labels = [{"image_id": i, "category_id": i % 2} for i in range(4)]
    (root / "labels.json").write_text(json.dumps({"images": about, "annotations": labels, "categories": names}))
    assert "4 images without labels" in load_error(root)
    assert "two categories of one id" in load_error(root, labels="labels.json")
    (root / "labels.json").write_text(json.dumps({"images": about, "annotations": labels, "categories": names[:2]}))
    assert data.load(root, test=".").test.classes == ("cat", "dog")


@pytest.mark.parametrize("content", [{"train/images": 0, "train": {"images": 1}}, {0: 0, "0": 1}])
def test_two_tensors_of_one_name(tmp_path: Path, content: dict[object, object]) -> None:
    def tensors(value: object) -> object:
        return {k: tensors(v) for k, v in value.items()} if isinstance(value, dict) else torch.zeros(2, 4, 4, dtype=torch.uint8)

    torch.save(tensors(content), tmp_path / "set.pt")
    assert "holds two arrays of one name, got" in load_error(tmp_path / "set.pt")


def test_class_names_in_metadata_beside_a_tensor_of_that_name(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    about = {"classes": json.dumps(["cat", "dog"])}
    save_file(arrays(channels=3) | {"classes": np.zeros(2)}, tmp_path / "set.safetensors", about)
    assert "holds two arrays of one name, got classes" in load_error(tmp_path / "set.safetensors")
    save_file(arrays(channels=3), tmp_path / "set.safetensors", {"classes": "['cat', 'dog']"})
    assert "must be a list of words" in load_error(tmp_path / "set.safetensors")


# ---- two forms of one name -----------------------------------------------------------------------------------------------------

LABELS = "labels are read without blanks around them and in one Unicode form"
FOLDERS = f"folders whose names differ only in their Unicode form are one class: {NFC}"


def images(root: Path, names: list[str]) -> Path:
    for i, name in enumerate(names):
        save(random_image(i), root / name)
    return root


def table(root: Path, *lines: str, name: str = "labels.csv") -> Path:
    (root / name).write_text("\n".join(lines))
    return root


def test_labels_of_shards_in_two_unicode_forms(tmp_path: Path) -> None:
    words = [NFC, NFD, "tea", "tea"]
    files = {f"{i}.png": png(i) for i in range(4)} | {f"{i}.cls": words[i].encode() for i in range(4)}
    found = data.load(tar(tmp_path / "set.tar", files), test=".")
    assert found.test.classes == (NFC, "tea")
    assert any(note.startswith(f"{LABELS}: 1 of 4") for note in found.notes)


def test_class_folders_in_an_archive_in_two_unicode_forms(tmp_path: Path) -> None:
    names = [f"{name}/{name}{i}.png" for name in (NFC, NFD, "tea") for i in range(2)]
    found = data.load(tar(tmp_path / "set.tar", {name: png(i) for i, name in enumerate(names)}), test=".")
    assert found.test.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert FOLDERS in found.notes


def test_labels_from_names_of_files_in_two_unicode_forms(tmp_path: Path) -> None:
    root = images(tmp_path, [f"{name}_{i}.png" for name in (NFC, NFD, "tea", "tea ") for i in range(2)])
    found = data.load(root, label_regex=r"(.*)_", test=".")
    assert found.test.classes == (NFC, "tea")
    assert any(note.startswith(f"{LABELS}: 4 of 8") for note in found.notes)


@pytest.mark.parametrize("layout", ["{name}/{part}/{i}.png", "{part}_{name}/{i}.png"])
def test_class_folders_with_parts_in_two_unicode_forms(tmp_path: Path, layout: str) -> None:
    places = [(name, part, i) for name in (NFC, NFD, "tea") for part in ("train", "test") for i in range(2)]
    root = images(tmp_path, [layout.format(name=name, part=part, i=i) for name, part, i in places])
    found = data.load(root)
    assert found.train.classes == (NFC, "tea")
    assert any(note.startswith(FOLDERS.removesuffix(NFC)) for note in found.notes)
    assert len(set(found.train.names)) == len(found.train) == 6


def test_a_class_whose_name_ends_in_a_combining_vowel_keeps_it(tmp_path: Path) -> None:
    hindi = "\u0917\u093e\u0921\u093c\u0940"
    root = images(tmp_path, [f"{part}_{name}/{i}.png" for part in ("train", "test") for name in (hindi, "tea") for i in range(2)])
    assert data.load(root).train.classes == ("tea", hindi)


def test_columns_that_are_classes_in_another_unicode_form(tmp_path: Path) -> None:
    root = images(tmp_path, [f"{i}.png" for i in range(4)])
    table(root, f"file,{NFD},tea,milk", "0.png,1,0,0", "1.png,0,1,0", "2.png,0,0,1", "3.png,1,0,0")
    found = data.load(root, test=".")
    assert found.test.classes == (NFC, "tea", "milk")
    assert any(note.startswith(f"{LABELS}: 1 of 3") for note in found.notes)


def test_a_part_that_writes_its_classes_in_another_unicode_form(tmp_path: Path) -> None:
    saved(tmp_path / "train", (NFC, "tea")), saved(tmp_path / "test", (NFD, "tea"))
    found = data.load(tmp_path)
    assert found.test.classes == (NFC, "tea")
    assert f"classes are matched in one Unicode form: test writes {NFD} in another one" in found.notes


def test_labels_with_and_without_decimals(tmp_path: Path) -> None:
    root = images(tmp_path, [f"{i}.png" for i in range(4)])
    found = data.load(table(root, "file,label", "0.png,1", "1.png,1.0", "2.png,2", "3.png,2.0"), test=".")
    assert found.test.classes == ("1", "2")
    assert "labels are read as whole numbers: 1.0 as 1" in found.notes


# ---- tables --------------------------------------------------------------------------------------------------------------------


def test_images_of_one_name_in_a_folder_called_like_their_label(tmp_path: Path) -> None:
    root = images(tmp_path, ["1.png", "a/1.png", "b/2.png", "b/3.png"])
    found = data.load(table(root, "file,label", "1.png,a", "a/1.png,a", "b/2.png,b", "b/3.png,b"), labels="labels.csv", test=".")
    assert sorted(found.test.names) == ["a/1.png", "a/a/1.png", "b/b/2.png", "b/b/3.png"]


def test_a_table_of_another_part_that_names_these_files(tmp_path: Path) -> None:
    root = images(tmp_path, [*(f"train/{i}.png" for i in range(6)), "test/9.png"])
    table(root, "file,label", *(f"{i}.png,{i % 2}" for i in range(4)), name="train.csv")
    table(root, "file,label", "4.png,0", "5.png,1", name="val.csv")
    table(root, "file,label", "9.png,0", name="test.csv")
    said = "val.csv has labels for 2 images in train, which are left out: join it with train.csv in one table with a column split"
    assert [note for note in data.load(root).notes if "val.csv" in note] == [f"train: {said}"]


def test_rows_without_a_part(tmp_path: Path) -> None:
    root = images(tmp_path, [f"{i}.png" for i in range(8)])
    parts = ["train"] * 4 + ["test"] * 2 + [""] * 2
    found = data.load(table(root, "file,label,split", *(f"{i}.png,{i % 2},{part}" for i, part in enumerate(parts))))
    assert "not used: no part in column split (2 images)" in found.notes
    assert set(reasons(found)) == {"6.png", "7.png"}


# ---- names that a terminal would obey ------------------------------------------------------------------------------------------


def test_escapes_in_the_name_of_an_archive_do_not_reach_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = archive(tmp_path / "a\x1b[31mb.zip", {f"{i % 2}/{i}.png": png(i) for i in range(4)})
    assert any("a\\x1b[31mb" in note for note in data.load(path).notes)
    error = load_error(archive(tmp_path / "c\x1b[31md.zip", {"0/0.png": png(0)}))
    assert error.startswith(f"{tmp_path}/c\\x1b[31md.zip: needs at least two class folders")
