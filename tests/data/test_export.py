"""Export: whatever is written is loaded again, by this package and by others, and nothing is overwritten."""

import importlib
import json
import os
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pytest
import torch
from data.conftest import FORMS, equal, random_dataset, stored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from notbugs import data
from notbugs.data import batches
from notbugs.errors import InputError
from notbugs.runs import ranks

AWKWARD = [
    "..",
    ".",
    "../../x",
    "-rf",
    "<b>&amp;",
    "a b ",
    "/",
    "\\",
    "__x",
    "é",
    "e\u0301",
    "~",
    "a~2",
    "null",
    "1",
    "'",
    '"',
    "---",
]
awkward_names = st.one_of(
    st.sampled_from(AWKWARD), st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=90)
)


def pngs(root: Path, below: Path) -> list[str]:
    return sorted(path.relative_to(below).as_posix() for path in root.rglob("*.png"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_exported_is_loaded_again(tmp_path: Path, form: str, channels: int) -> None:
    whole = random_dataset(40, channels)
    data.export(whole, tmp_path / "set", form, card="# Mine\n\n---\n")
    assert equal(data.load_part(tmp_path / "set", form), whole)
    again = data.load(str(tmp_path / "set"))
    assert again.form == form
    pairs = {(image.numpy().tobytes(), int(label)) for image, label in zip(stored(whole), whole.labels, strict=True)}
    for part in again[:2]:
        assert {(image.numpy().tobytes(), int(label)) for image, label in zip(stored(part), part.labels, strict=True)} <= pairs
    assert len(again.train) + len(again.test) == 40
    card = (tmp_path / "set/README.md").read_text()
    assert card.startswith("---\nlicense: unknown\ntask_categories:\n- image-classification\n") and "# Mine" in card
    assert os.listdir(tmp_path) == ["set"]


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("form", [*FORMS, "webdataset"])
@given(drawn=st.data())
def test_any_names_and_pixels_are_preserved(tmp_path: Path, form: str, drawn: st.DataObject) -> None:
    classes = tuple(drawn.draw(st.lists(awkward_names, min_size=1, max_size=4, unique=True)))
    n = drawn.draw(st.integers(1, 6))
    names = tuple(drawn.draw(st.lists(awkward_names, min_size=n, max_size=n, unique=True)))
    shape = (n, drawn.draw(st.sampled_from([1, 3])), drawn.draw(st.integers(1, 5)), drawn.draw(st.integers(4, 6)))
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    draw_labels = st.lists(st.integers(0, len(classes) - 1), min_size=n, max_size=n)
    original = data.Dataset(images, torch.tensor(drawn.draw(draw_labels)), classes, names)
    whole = original.with_labels(torch.tensor(drawn.draw(draw_labels)))
    home = tmp_path / f"{len(os.listdir(tmp_path))}" / "inner"
    data.export(whole, home / "set", form, card="x", original=original)
    assert equal(data.load_part(home / "set", form), whole)
    assert os.listdir(home) == ["set"] and os.listdir(home.parent) == ["inner"]


def test_a_folder_of_the_worst_names(tmp_path: Path) -> None:
    """Nothing leaves the folder, is hidden from a reader, is too long for a path, or takes the name of something else."""
    long = ("é" * 300, "é" * 301)
    names = ("..", "../../x.png", "/etc/x.png", ".hidden.png", "__x.png", "x.png", "x.png/", "-rf.png", *long, "\\")
    classes = ("..", ".", "/", "__a", "_a", "a" * 300, "<b>", "x~2", "x", "_", "y/")
    for shift in (0, 1):
        labels = torch.arange(len(names)) // (1 + shift)
        whole = data.Dataset(random_dataset(len(names)).images, labels, classes, names)
        data.export(whole, tmp_path / f"{shift}" / "set", "folder", card="")
        assert equal(data.load_part(tmp_path / f"{shift}" / "set", "folder"), whole)
        files = [path.relative_to(tmp_path / f"{shift}/set/train") for path in (tmp_path / f"{shift}").rglob("*.png")]
        assert len(files) == len(names)
        assert all(len(file.parts) == 2 and not part.startswith((".", "__")) for file in files for part in file.parts)
        assert len(os.listdir(tmp_path / f"{shift}/set/train")) == len(classes)
    assert sorted(os.listdir(tmp_path)) == ["0", "1"]


def test_other_readers_of_image_folders_see_the_same(tmp_path: Path) -> None:
    """A plain loop and Hugging Face's reader load the same pixels under the same class names."""
    import datasets

    classes = ("<i>", "a b", "dog", "é..")
    whole = random_dataset(12, classes=classes)
    data.export(whole, tmp_path / "set", "folder", card="x")
    expected = {
        (classes[int(label)], image.permute(1, 2, 0).numpy().tobytes())
        for image, label in zip(stored(whole), whole.labels, strict=True)
    }
    files = sorted((tmp_path / "set/train").rglob("*.png"))
    assert {(path.parent.name, np.asarray(Image.open(path)).tobytes()) for path in files} == expected
    assert {path.relative_to(tmp_path / "set/train").as_posix() for path in files} == set(whole.names)
    rows = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))["train"]
    named = rows.features["label"].names
    assert tuple(named) == classes
    assert {(named[row["label"]], np.asarray(row["image"]).tobytes()) for row in rows} == expected


@pytest.mark.parametrize("form", ["folder", "parquet", "saved"])
def test_hugging_face_loads_the_whole_folder_with_its_card(tmp_path: Path, form: str) -> None:
    import datasets

    whole = random_dataset(12, 1)
    data.export(whole, tmp_path / "set", form, card="x")
    if form == "saved":
        rows = datasets.load_from_disk(str(tmp_path / "set"))["train"]
    else:
        rows = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))["train"]
    assert tuple(rows.features["label"].names) == whole.classes
    found = {(row["label"], np.asarray(row["image"]).tobytes()) for row in rows}
    assert found == {(int(label), image.numpy().tobytes()) for image, label in zip(stored(whole), whole.labels, strict=True)}


def test_relabeled_files_of_one_name_get_their_old_class_as_prefix(tmp_path: Path) -> None:
    original = random_dataset(4)
    original = data.Dataset(original.images, original.labels, ("a", "b"), ("a/0.png", "b/0.png", "a/1.jpg", "b/2.png"))
    data.export(original.with_labels(torch.tensor([1, 1, 1, 0])), tmp_path / "meet", "folder", card="", original=original)
    assert pngs(tmp_path / "meet", tmp_path / "meet/train") == ["a/b--2.png", "b/a--0.png", "b/a--1.png", "b/b--0.png"]
    swapped = original.with_labels(1 - original.labels)
    data.export(swapped, tmp_path / "apart", "folder", card="", original=original)
    assert pngs(tmp_path / "apart", tmp_path / "apart/train") == ["a/0.png", "a/2.png", "b/0.png", "b/1.png"]
    assert equal(data.load_part(tmp_path / "apart", "folder"), swapped)
    rows = (tmp_path / "apart/manifest.csv").read_text().splitlines()
    assert rows[0] == "file,label,original_label,original_name" and rows[3] == "train/b/1.png,b,a,a/1.jpg"


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 5, 1, 4, 3]])
def test_a_file_keeps_its_name_whatever_the_order_of_the_files(tmp_path: Path, order: list[int]) -> None:
    """0.jpg and 0.png once became 0.png and 0~2.png, or the other way round."""
    names = ("a/0.jpg", "a/0.png", "a/0.jpg.png", "a/s/0.png", "a/s--0.png", "a/1.jpg")
    expected = ("0.jpg~2.png", "0.png", "0.jpg.png", "s--0~2.png", "s--0.png", "1.png")
    whole = data.Dataset(stored(random_dataset(6)), torch.zeros(6, dtype=torch.int64), ("a", "b"), names).select(order)
    data.export(whole, tmp_path / "set", "folder", card="")
    for index, image in zip(order, stored(whole), strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "set/train/a" / expected[index])), image.permute(1, 2, 0))
    assert equal(data.load_part(tmp_path / "set", "folder"), whole)


def test_names_that_become_equal_are_numbered(tmp_path: Path) -> None:
    names = ("a/x.jpg", "a/x.png", "a/s/x.png", "b/X.PNG")
    whole = data.Dataset(stored(random_dataset(4)), torch.tensor([0, 0, 0, 1]), ("a", "b"), names)
    data.export(whole, tmp_path / "set", "folder", card="")
    files = [path.relative_to(tmp_path / "set/train").as_posix() for path in sorted((tmp_path / "set").rglob("*.[pP]*"))]
    assert files == ["a/s--x.png", "a/x.jpg.png", "a/x.png", "b/X.PNG"]
    assert equal(data.load_part(tmp_path / "set", "folder"), whole)


@pytest.mark.parametrize("form", [*FORMS, "webdataset"])
def test_a_class_without_images_keeps_its_number(tmp_path: Path, form: str) -> None:
    whole = random_dataset(6, classes=("a", "b", "c")).with_labels(torch.tensor([0, 2, 2, 0, 2, 2]))
    (note,) = data.export(whole, tmp_path / "set", form, card="")
    assert note.startswith("No image has the label b.") and f"- {note}\n" in (tmp_path / "set/README.md").read_text()
    assert equal(data.load_part(tmp_path / "set", form), whole)
    if form == "folder":
        assert sorted(os.listdir(tmp_path / "set/train")) == ["a", "b", "c"]


def test_nothing_is_overwritten_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        data.export(random_dataset(), tmp_path / "full", "folder", card="")
    with pytest.raises(InputError, match="cannot be written"):
        data.export(random_dataset(), tmp_path / "full/mine.txt/set", "npz", card="")
    with pytest.raises(InputError, match="form"):
        data.export(random_dataset(), tmp_path / "new", "zip", card="")
    assert os.listdir(tmp_path) == ["full"] and os.listdir(tmp_path / "full") == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    data.export(random_dataset(), tmp_path / "empty", "npz", card="")
    assert equal(data.load_part(tmp_path / "empty", "npz"), random_dataset())


@pytest.mark.parametrize("form", [*FORMS, "webdataset"])
def test_a_disk_without_room(tmp_path: Path, form: str) -> None:
    """A limit on the size of a file fails a write half-way, as a full disk does."""
    import resource
    import signal

    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    large = data.Dataset(images, torch.tensor([0, 1]), ("a", "b"), ("0", "1"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(InputError, match="set: cannot be written"):
            data.export(large, tmp_path / "set", form, card="")
        with pytest.raises(InputError, match="must be on a disk with room"):
            data.save_arrays({"images": images.numpy()}, tmp_path / "arrays.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("form", ["parquet", "saved"])
def test_rows_are_written_a_few_at_a_time(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, held = random_dataset(9), list[int]()
    export = importlib.import_module("notbugs.data.export")  # `data.export` is the function
    monkeypatch.setattr(export, "MOST_ROWS", 2)
    monkeypatch.setattr(export, "AT_ONCE", 1000)
    writer = pyarrow.parquet.ParquetWriter if form == "parquet" else pyarrow.ipc.RecordBatchStreamWriter
    write = writer.write_batch
    monkeypatch.setattr(writer, "write_batch", lambda self, batch: (held.append(batch.num_rows), write(self, batch))[1])
    data.export(whole, tmp_path / "set", form, card="")
    assert held == [2, 2, 2, 2, 1] and not list((tmp_path / "set").glob("*.part"))
    assert equal(data.load_part(tmp_path / "set", form), whole)
    monkeypatch.setattr(export, "MOST_ROWS", 1000)
    for name, dataset in (("same", whole), ("other", whole.with_labels(1 - whole.labels))):
        data.export(dataset, tmp_path / name, form, card="")
    if form == "saved":
        states = [
            json.loads((tmp_path / name / "train/state.json").read_text())["_fingerprint"] for name in ("set", "same", "other")
        ]
        assert states[0] == states[1] != states[2], "by it Hugging Face finds what it computed of a set"
    assert equal(data.load_part(tmp_path / "same", form), whole)


def test_large_sets_are_several_parquet_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = importlib.import_module("notbugs.data.export")
    monkeypatch.setattr(export, "MOST_ROWS", 2)
    monkeypatch.setattr(export, "SHARD_BYTES", 500)
    whole = random_dataset(9)
    data.export(whole, tmp_path / "set", "parquet", card="", split="test")
    names = sorted(path.name for path in (tmp_path / "set").glob("*.p*"))
    assert names[0] == f"test-00000-of-{len(names):05d}.parquet" and len(names) > 2
    assert equal(data.load_part(tmp_path / "set", "parquet", "test"), whole)
    found = datasets.load_dataset(
        "parquet", data_files=f"{tmp_path}/set/test*.parquet", split="train", cache_dir=str(tmp_path / "c")
    )
    assert found["file_name"][:] == [*whole.names] and found.features["label"].names == [*whole.classes]
    assert data.load(tmp_path / "set").test.names == whole.names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "reader", "files"),
    [
        ("parquet", "parquet", "train*.parquet"),
        ("webdataset", "webdataset", "train-*.tar"),
        ("folder", "imagefolder", "train/**"),
    ],
)
def test_hugging_face_opens_shards_that_were_made_one_by_one(
    form: str, reader: str, files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "LARGE", 0)
    monkeypatch.setattr(batches, "BLOCK_BYTES", 1)
    whole = random_dataset(7)
    rows = data.Rows(whole.labels, whole.classes, whole.names)
    with ranks.in_stage(tmp_path / "stage"), data.made_as(form):
        images, _ = data.map_to_images(lambda images, index: (data.to_8bit(images), index), whole, batch_size=3, rows=rows)
        data.export(whole.with_images(images), tmp_path / "set", form, card="")
    assert len([*(tmp_path / "stage").rglob("*.pt")]) == 3
    place = f"{tmp_path}/set/{files}"
    found = datasets.load_dataset(reader, data_files=place, split="train", cache_dir=str(tmp_path / "cache"))
    column = "png" if form == "webdataset" else "image"
    expected = [np.asarray(pixels.permute(1, 2, 0)).tobytes() for pixels in stored(whole)]
    assert sorted(np.asarray(image).tobytes() for image in found[column]) == sorted(expected)


@pytest.mark.parametrize(("form", "count"), [("npz", 6), ("folder", 6), ("folder", 70)])
def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, form: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few files one by one, many at once."""
    synced: list[str] = []
    names = {}
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}")))
    monkeypatch.setattr(os, "sync", lambda: synced.append("all"))
    monkeypatch.setattr(os, "replace", lambda old, new: names.update({str(new): [*synced]}))
    data.export(random_dataset(count), tmp_path / "set", form, card="")
    (said,) = names.values()
    if count > 64:
        assert said == ["all"]
    else:
        assert any(name.endswith("README.md") for name in said) and len(said) == len({*said})
        assert sum(name.endswith((".png", ".npz")) for name in said) == (1 if form == "npz" else count)


@pytest.mark.parametrize("form", ["npz", "npz-channels-first"])
def test_arrays_are_written_a_few_images_at_a_time(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = random_dataset(7)
    data.export(whole, tmp_path / "once", form, card="")
    monkeypatch.setattr(importlib.import_module("notbugs.data.export"), "MOST_ROWS", 3)
    data.export(whole, tmp_path / "parts", form, card="")
    once, parts = (np.load(tmp_path / name / "data.npz") for name in ("once", "parts"))
    assert sorted(once) == sorted(parts) and all(np.array_equal(once[name], parts[name]) for name in once)
    first = whole.images[:].numpy()
    assert np.array_equal(parts["train_images"], first if form == "npz-channels-first" else first.transpose(0, 2, 3, 1))
