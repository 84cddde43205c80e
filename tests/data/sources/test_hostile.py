"""Files that were made to do harm: what they claim, repeat or point at is refused in one sentence, and takes no memory."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from data.conftest import image_folder, load_error, random_image, save
from data.sources.forms import archive, arrays, pixel_table, png, tar

from notbugs import data
from notbugs.data import DataConfig
from notbugs.data.sources import label_table, limits, tensors
from notbugs.errors import InputError
from notbugs.report.use import _suffixes

HUGE = 10**18


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE", 2**18)


def table(path: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    return path


def rows(count: int = 8, **columns: Any) -> dict[str, Any]:
    return {"image": [png(i) for i in range(count)], "label": [i % 2 for i in range(count)]} | columns


# ---- parquet and saved sets ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("column", ["image", "label"])
def test_a_value_that_stands_in_all_rows_of_a_parquet_file(tmp_path: Path, column: str) -> None:
    """One value of 64 kB is stored; 4 MB would be read. The file claims no more than it stores."""
    cells = {"image": [bytes(2**16)] * 64, "label": ["a" * 2**16] * 64}[column]
    path = table(
        tmp_path / "set.parquet", **(rows(64) | {column: cells} if column == "image" else {"label": cells, "image": cells})
    )
    claimed = pyarrow.parquet.ParquetFile(path).metadata
    assert sum(claimed.row_group(i).total_byte_size for i in range(claimed.num_row_groups)) < 2**18
    text = load_error(path)
    assert "must not expand to more than 100 times its size" in text
    assert int(text.split("got ")[1].split(" ")[0].replace(",", "")) < 2**20, "reading stops at the limit"


@pytest.mark.usefixtures("small_limits")
def test_a_parquet_file_that_claims_too_much(tmp_path: Path) -> None:
    path = table(tmp_path / "set.parquet", **rows(20, image=[bytes(2**16 + i) for i in range(20)]))
    assert "must not expand to more than 100 times its size, got 1,310,990 bytes" in load_error(path)
    (tmp_path / "parts").mkdir()
    for i in range(4):  # together
        table(tmp_path / "parts" / f"train-{i}.parquet", **rows(2, image=[bytes(2**16 + i)] * 2))
    assert "must not expand" in load_error(tmp_path / "parts")


def test_a_parquet_file_is_read_whole_in_few_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 1,250 pieces a file of 20,000 images took over 60 s instead of 12."""
    cells = [bytes([i]) * 500 for i in range(100)]
    kinds = pyarrow.array(["cat", "dog"] * 50).dictionary_encode()
    path = table(tmp_path / "set.parquet", image=cells, label=kinds, empty=pyarrow.nulls(100))
    monkeypatch.setattr(limits, "FREE", 2**17)  # batches of two rows
    monkeypatch.setattr(limits, "PIECE", 2**14)
    (read,) = limits.read_parquet([path])
    assert read.equals(pyarrow.parquet.read_table(path)) and 2 <= read.column("image").num_chunks <= 6
    (none,) = limits.read_parquet([table(tmp_path / "none.parquet", image=cells[:0])])
    assert none.num_rows == 0 and none.column_names == ["image"]


def test_a_table_beside_images_that_expands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(random_image(0), tmp_path / "a.png")
    table(tmp_path / "metadata.parquet", file_name=["a.png"] * 5000, label=["x"] * 5000)
    monkeypatch.setattr(label_table, "MOST_CELLS", 9999)
    assert "metadata.parquet: must have at most 9,999 cells, got 5,000 rows of 2" in load_error(tmp_path)
    monkeypatch.setattr(label_table, "MOST_BYTES", 2**15)
    assert "metadata.parquet: must hold at most 32,768 bytes" in load_error(tmp_path)


def test_a_folder_called_like_a_file(tmp_path: Path) -> None:
    for name in ("x.parquet", "x.csv", "x.npz", "train-images-idx3-ubyte", "a.tar"):
        (image_folder(tmp_path / "images") / name).mkdir()
    assert len(data.load(tmp_path / "images").train) == 6
    (tmp_path / "alone" / "x.parquet").mkdir(parents=True)
    assert "got no images" in load_error(tmp_path / "alone")


@pytest.mark.parametrize("place", ["../other", "../other/data-00000-of-00001.arrow", "/etc/passwd"])
def test_a_saved_set_does_not_lead_out_of_its_folder(tmp_path: Path, place: str) -> None:
    import datasets

    whole = datasets.Dataset.from_dict(rows())
    whole.save_to_disk(tmp_path / "set")
    whole.save_to_disk(tmp_path / "other")
    assert len(data.load(tmp_path / "set").train) == 6
    if place.endswith("other"):
        (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": [place]}))
    else:
        state = json.loads((tmp_path / "set" / "state.json").read_text()) | {"_data_files": [{"filename": place}]}
        (tmp_path / "set" / "state.json").write_text(json.dumps(state))
    assert "must hold all of its files" in load_error(tmp_path / "set")


@pytest.mark.parametrize("odd", [{"_output_all_columns": []}, {"_format_type": {"a": [{}]}}])
def test_a_saved_set_of_another_kind_prints_nothing_of_its_own(
    tmp_path: Path, odd: dict[str, Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets

    datasets.Dataset.from_dict(rows()).save_to_disk(tmp_path / "set")
    capfd.readouterr()
    state = json.loads((tmp_path / "set" / "state.json").read_text()) | odd
    (tmp_path / "set" / "state.json").write_text(json.dumps(state))
    assert "its state.json is damaged" in load_error(tmp_path / "set")
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_a_damaged_saved_set_does_not_end_the_process(tmp_path: Path) -> None:
    """Offsets are checked before anything follows them: random damage ended the process (docs/lab-log.md)."""
    import datasets

    datasets.Dataset.from_dict(rows()).save_to_disk(tmp_path / "set")
    (file,) = (tmp_path / "set").glob("*.arrow")
    sizes = np.cumsum([0, *(len(png(i)) for i in range(8))]).astype(np.int32).tobytes()
    content = file.read_bytes()
    assert sizes in content
    file.write_bytes(content.replace(sizes, sizes[:-4] + (2**30).to_bytes(4, "little")))
    assert "cannot be read as a saved Hugging Face set" in load_error(tmp_path / "set")


# ---- arrays --------------------------------------------------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["y_train.npy", "y_train"])
def test_two_arrays_of_one_name(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays())  # type: ignore[arg-type]
    with zipfile.ZipFile(tmp_path / "set.npz", "a") as opened:
        opened.writestr(name, npy(1 - arrays()["y_train"]))
    assert "holds two arrays of one name, got y_train" in load_error(tmp_path / "set.npz")


@pytest.mark.parametrize("ending", ["npz", "zip"])
def test_sizes_that_a_zip_cannot_have(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / f"set.{ending}"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("X.npy", npy(arrays()["x_train"]))
        opened.writestr("y.npy", npy(arrays()["y_train"]))
        opened.filelist[0].file_size = opened.filelist[0].compress_size = 2**33
    assert "is damaged, got files that claim more bytes than it has" in load_error(path)


def test_many_empty_files_take_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(limits, "FREE", 2**19)
    path = archive(tmp_path / "set.zip", {f"{i}": b"" for i in range(129)})
    monkeypatch.setattr(limits, "MOST_RATIO", 1)
    assert "must not expand to more than 1 times its size, got 528,384 bytes" in load_error(path)


def labels_in(form: str, path: Path, labels: list[int]) -> Path:
    if form == "npz":
        np.savez(path, X=arrays()["x_train"], y=np.array(labels, dtype=object if max(labels) > 2**64 else None))
    elif form == "parquet":
        table(path, **rows(label=labels))
    elif form == "pt":
        torch.save({"images": torch.from_numpy(arrays()["x_train"]), "labels": labels}, path)
    elif form == "tar":
        tar(
            path,
            {
                f"{i}.{end}": png(i) if end == "png" else str(label).encode()
                for i, label in enumerate(labels)
                for end in ("png", "cls")
            },
        )
    return path


@pytest.mark.parametrize("form", ["npz", "parquet", "pt", "tar"])
@pytest.mark.parametrize("label", [HUGE // 10**5, 2**62, -(2**62)])
def test_a_huge_label_is_no_list_of_classes(tmp_path: Path, form: str, label: int) -> None:
    text = load_error(labels_in(form, tmp_path / f"set.{form}", [0, 1] * 3 + [0, label]))
    assert "must be below 1,048,576" in text or "must be from 0 to 1" in text or (form == "tar" and "least two training" in text)


def test_numbers_in_a_table_of_pixels_are_names(tmp_path: Path) -> None:
    path = pixel_table(tmp_path / "train.csv")
    path.write_text(path.read_text().replace("\n3,", f"\n{HUGE},"))
    assert data.load(path).train.classes == ("0", str(HUGE))


@pytest.mark.usefixtures("small_limits")
def test_tensors_that_stand_in_a_list_many_times(tmp_path: Path) -> None:
    image = torch.zeros(64, 64, dtype=torch.uint8)
    torch.save([(image, i % 2) for i in range(50)], tmp_path / "set.pt")
    assert len(data.load(tmp_path / "set.pt").train) == 40
    torch.save([(image, i % 2) for i in range(2000)], tmp_path / "set.pt")
    assert "must not expand to more than 100 times its size, got 8,192,000 bytes" in load_error(tmp_path / "set.pt")


@pytest.mark.usefixtures("small_limits")
def test_words_that_are_too_long_for_an_array(tmp_path: Path) -> None:
    words = ["cat"] * 6 + ["dog", "d" * 4000]
    content = {"images": torch.from_numpy(arrays()["x_train"]), "labels": words}
    torch.save(content, tmp_path / "set.pt")
    assert "a class name: must have at most 1,000 characters, got 4,000: ddd" in load_error(tmp_path / "set.pt")
    torch.save(content | {"names": ["x"] * 400 + ["y" * 1000]}, tmp_path / "set.pt")
    assert "must not expand to more than 100 times its size, got 1,604,000 bytes" in load_error(tmp_path / "set.pt")
    path = pixel_table(tmp_path / "train.csv", 200)
    path.write_text(path.read_text().replace("\n3,", f"\n{words[-1]},", 1))
    assert "train.csv: must not expand to more than 100 times its size, got 3,200,000 bytes" in load_error(path)


def test_dictionaries_that_stand_in_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "MOST_ENTRIES", 100)
    content: dict[str, Any] = {}
    for _ in range(3):
        content = {str(i): content for i in range(30)}
    torch.save(content, tmp_path / "set.pt")
    assert "must have at most 100 entries" in load_error(tmp_path / "set.pt")


@pytest.mark.parametrize("shape", [(8, 0, 0), (8, 5, 0, 3), (8, 3, 0, 5)])
def test_images_without_pixels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "set.npz", X=np.zeros(shape, np.uint8), y=np.arange(8) % 2)
    assert f"must have pixels, got shape {shape}" in load_error(tmp_path / "set.npz")


@pytest.mark.parametrize("names", [["a.png"] * 8, ["a.png", "b.png"], [""] * 8])
def test_names_that_are_not_used_are_said(tmp_path: Path, names: list[str]) -> None:
    np.savez(tmp_path / "set.npz", X=arrays()["x_train"], y=arrays()["y_train"], names=np.array(names))
    loaded = data.load(tmp_path / "set.npz")
    said = "is not used, images are numbered: it does not name each image, and each by another name"
    assert loaded.notes[0] == f"the array names {said}" and loaded.train.names[0] == "00000.png"
    padded = (names * 8)[:8]
    loaded = data.load(table(tmp_path / "set.parquet", **rows(file_name=padded)))
    assert loaded.notes[0] == f"train: the column file_name {said}"


def test_the_classes_of_words_are_those_that_are_given(tmp_path: Path) -> None:
    words = np.array(["cat", "dog"] * 4)
    np.savez(tmp_path / "set.npz", X=arrays()["x_train"], y=words, classes=np.array(["dog", "cat"]))
    loaded = data.load(tmp_path / "set.npz")
    assert loaded.train.classes == ("dog", "cat") and loaded.train.labels[0] == 1
    np.savez(tmp_path / "set.npz", X=arrays()["x_train"], y=words, classes=np.array(["dog", "Cat"]))
    assert "set.npz: y: must be one of the classes dog, Cat, got cat" in load_error(tmp_path / "set.npz")


def test_hdf5_sizes_count_together_and_nothing_is_no_array(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "set.h5", "w") as file:
        for name in ("X", "y", "more"):
            file.create_dataset(name, (400, 1000, 1000), np.uint8, chunks=(1, 1000, 1000), compression="gzip")
    assert "must not expand to more than 100 times its size, got 1,200,000,000 bytes" in load_error(tmp_path / "set.h5")
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["X"], file["y"] = arrays()["x_train"], h5py.Empty("i4")
    assert "set.h5: y: must hold numbers or text" in load_error(tmp_path / "set.h5")
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["X"], file["y"] = arrays()["x_train"], np.array([b"cat", b"dog"] * 4, "S3")
    assert data.load(tmp_path / "set.h5").train.classes == ("cat", "dog")


# ---- archives ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["../", "/", "a/../"])
def test_names_in_a_tar_that_lead_out_of_the_folder(tmp_path: Path, begin: str) -> None:
    path = tar(tmp_path / "set.tar", {f"{begin}{name}/{i}.png": png(i) for name in "ab" for i in range(3)})
    assert "leads out of the folder" in load_error(path)


def test_a_file_that_is_twice_in_a_tar(tmp_path: Path) -> None:
    tar(tmp_path / "set.tar", {f"{name}/{i}.png": png(i) for name in "ab" for i in range(3)})
    with tarfile.open(tmp_path / "set.tar", "a") as opened:
        opened.addfile(info := tarfile.TarInfo("a/1.png"), io.BytesIO())
    assert info.size == 0 and "set.tar: a/1.png: is twice in the archive" in load_error(tmp_path / "set.tar")


def test_all_formats_of_images_in_a_tar(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    random_image(0, size=(16, 16)).save(buffer, "JPEG2000")
    tar(tmp_path / "set.tar", {f"{name}/{i}.jp2": buffer.getvalue() for name in "ab" for i in range(3)})
    assert data.load(tmp_path / "set.tar").train.names[0] == "a/0.jp2"


# ---- what cannot be opened -----------------------------------------------------------------------------------------------------


def refuse(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, path: Path) -> None:
    """As for a user without permission: the tests may run as root."""
    whole: Callable[..., Any] = getattr(where, name)

    def opened(place: Any = ".", *rest: Any, **options: Any) -> Any:
        if os.fspath(place) == str(path):
            raise PermissionError(13, "Permission denied")
        return whole(place, *rest, **options)

    monkeypatch.setattr(where, name, opened)


def test_what_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table_file = pixel_table(image_folder(tmp_path / "set") / "x.csv")
    refuse(monkeypatch, Path, "open", table_file)
    assert "x.csv: cannot be read, got Permission denied; make it readable" in load_error(table_file)
    assert "x.csv: cannot be read, got Permission denied; make it readable" in load_error(tmp_path / "set")
    table_file.unlink()
    refuse(monkeypatch, os, "scandir", tmp_path / "set" / "train" / "cat")
    assert "train/cat: cannot be opened, got Permission denied" in load_error(tmp_path / "set")
    assert "does not exist" in load_error("a\0b")
    with pytest.raises(InputError, match="cannot be opened, got File name too long; check the path"):
        data.load("a" * 5000)


def test_a_page_is_written_beside_a_damaged_shard(tmp_path: Path) -> None:
    (tmp_path / "train-000000.tar").write_bytes(b"x" * 1000)
    assert _suffixes(tmp_path) == set()


@pytest.mark.parametrize("name", ["digits", "planted"])
def test_a_folder_called_like_a_built_in_set_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / name)
    notes = data.load_dataset(DataConfig(name, limit=40)).notes
    assert f"{name} is the built-in set: what is called so in this folder is read as ./{name}" in notes
    assert len(data.load(f"./{name}").train) == 6
