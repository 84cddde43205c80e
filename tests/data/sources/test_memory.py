"""Reading holds the pixels once, in every form of file: what is read beside them is a few rows at a time."""

import errno
import gzip
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from data.conftest import load_error
from data.sources.forms import pixel_table, png, tar
from fuzz.doors import try_case
from safetensors.numpy import save_file

from notbugs import data
from notbugs.data import pixel_arrays
from notbugs.data.sources import image_cells, limits, pixels, tables
from notbugs.data.sources.arrays import opened

N, SIDE = 400, 32
BYTES = N * SIDE * SIDE * 3  # of the pixels


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)


def channels_first() -> np.ndarray:
    return np.ascontiguousarray(images().transpose(0, 3, 1, 2))


def named(array: np.ndarray) -> dict[str, np.ndarray]:
    return {"images": array, "labels": np.arange(N) % 2}


def npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", **named(images()))  # type: ignore[arg-type]
    return folder / "a.npz"


def packed_parts(folder: Path) -> Path:
    array, labels = images(), np.arange(N) % 2
    half = N // 2
    np.savez_compressed(
        folder / "a.npz",
        train_images=array[:half],
        train_labels=labels[:half],
        test_images=array[half:],
        test_labels=labels[half:],
    )
    return folder / "a.npz"


def npy(folder: Path) -> Path:
    for name, array in named(channels_first()).items():
        np.save(folder / f"{name}.npy", array)
    return folder


def floats(folder: Path) -> Path:
    for name, array in named(images() / np.float32(255)).items():
        np.save(folder / f"{name}.npy", array)
    return folder


def hdf5(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["labels"] = np.arange(N) % 2
        file.create_dataset("images", data=images(), chunks=(7, SIDE, SIDE, 3), compression="gzip")
    return folder / "a.h5"


def safetensors(folder: Path) -> Path:
    save_file(named(channels_first()), folder / "a.safetensors")
    return folder / "a.safetensors"


def idx(folder: Path) -> Path:
    gray = images()[..., 0].repeat(3, 0)
    for name, array in (("images-idx3", gray), ("labels-idx1", (np.arange(3 * N) % 2).astype(np.uint8))):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes(), 1))
    return folder


def cifar(folder: Path) -> Path:
    for name, count in (("data_batch_1.bin", 300), ("test_batch.bin", 100)):
        labels = (np.arange(count) % 2).astype(np.uint8)[:, None]
        (folder / name).write_bytes(np.hstack([labels, images()[:count].reshape(count, -1)]).tobytes())
    (folder / "batches.meta.txt").write_text("cat\ndog\n")
    return folder


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(npz(folder), "inner/a.npz")
    return folder / "a.zip"


def tarred(folder: Path) -> Path:
    return tar(folder / "a.tar", {"a.npz": npz(folder).read_bytes()})


FORMS = (npz, packed_parts, npy, floats, hdf5, safetensors, idx, cifar, zipped, tarred)


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pixel_arrays, "PIECE", 2**15)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def loaded(path: Path) -> tuple[data.Dataset, data.Dataset, int]:
    """Both parts, and the most memory that NumPy and Python held meanwhile."""
    tracemalloc.start()
    try:
        found = data.load(path)
        return found.train, found.test, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("form", FORMS)
def test_pixels_are_in_memory_once(tmp_path: Path, form: Callable[[Path], Path]) -> None:
    (folder := tmp_path / "set").mkdir()
    data.load(form(folder))  # imports
    train, test, most = loaded(folder if form in (npy, floats, idx, cifar) else next(folder.glob("a.*[!y]")))
    size, count = train.images[:].numel() + test.images[:].numel(), len(train) + len(test)
    assert most < 1.2 * size + 300 * count + 2**19, f"{most / size:.2f} times the pixels"


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("form", FORMS[:8])
def test_what_is_read_in_pieces_is_what_was_written(tmp_path: Path, form: Callable[[Path], Path]) -> None:
    found = data.load(form(tmp_path), test=None if form in (packed_parts, cifar) else ".")
    wanted = images()[..., 0].repeat(3, 0)[:, None] if form is idx else channels_first()
    wanted = images()[:100].reshape(100, 3, SIDE, SIDE) if form is cifar else wanted
    assert np.array_equal(found.test.images[:].numpy(), wanted[-len(found.test) :])
    if form is packed_parts:
        assert np.array_equal(found.train.images[:].numpy(), wanted[: len(found.train)])


def test_tables_of_pixels_are_read_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "BLOCK", 2**12)
    path = pixel_table(tmp_path / "a.csv", 200)
    images = opened(pixels.read_pixels(path), "images")
    pieces = list(images.pieces())
    assert images.shape == (200, 5, 5) and max(map(len, pieces)) < 60
    wanted = np.loadtxt(path, delimiter=",", skiprows=1, dtype=int)[:, 1:]
    assert np.array_equal(np.concatenate(pieces).reshape(200, 25), wanted)


@pytest.mark.usefixtures("_small_pieces")
def test_tensors_are_put_together_a_few_at_a_time(tmp_path: Path) -> None:
    array = channels_first()
    torch.save([(torch.from_numpy(image), number % 2) for number, image in enumerate(array)], tmp_path / "a.pt")
    found = data.load(tmp_path / "a.pt", test=".").test
    assert np.array_equal(found.images[:].numpy(), array) and found.labels.tolist() == [0, 1] * (N // 2)


def test_rows_that_do_not_lie_together(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.asfortranarray(images()[:8]))
    np.save(tmp_path / "labels.npy", np.arange(8) % 2)
    np.savez(tmp_path / "a.npz", **named(np.asfortranarray(images())))  # type: ignore[arg-type]
    (tmp_path / "npy").mkdir()
    for name in ("images.npy", "labels.npy"):
        (tmp_path / name).rename(tmp_path / "npy" / name)
    assert np.array_equal(data.load(tmp_path / "npy", test=".").test.images[:].numpy(), channels_first()[:8])
    assert np.array_equal(data.load(tmp_path / "a.npz", test=".").test.images[:].numpy(), channels_first())


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize(
    ("row", "value", "said"),
    [
        (-1, np.nan, "NaN or infinite"),
        (-1, 200.0, "floats from 0 to 200"),
        (0, 200.0, "floats from 0 to 200"),
        (-1, 0.123, "no multiples of 1/255"),
    ],
)
def test_floats_in_any_piece_are_checked_by_all_of_them(tmp_path: Path, row: int, value: float, said: str) -> None:
    array = np.zeros((N, SIDE, SIDE), np.float32)
    array[row, 0, 0] = value
    np.savez(tmp_path / "a.npz", **named(array))  # type: ignore[arg-type]
    assert said in load_error(tmp_path / "a.npz")


@pytest.mark.parametrize("form", ["npz", "npy", "columns first"])
def test_text_of_characters_that_do_not_exist(tmp_path: Path, form: str) -> None:
    words = np.array(["cat", "dog"] * 4)
    words.view(np.uint32)[3] = 0x7FFFFFFF
    array = images()[:8]
    if form == "npy":
        np.save(tmp_path / "images.npy", array)
        np.save(tmp_path / "labels.npy", words)
    else:
        labels = words if form == "npz" else np.asfortranarray(words.reshape(4, 2))
        np.savez(tmp_path / "a.npz", images=array, labels=labels)
    assert "characters that do not exist" in load_error(tmp_path if form == "npy" else tmp_path / "a.npz")


# ---- tables of encoded images --------------------------------------------------------------------------------------------------


def parquet(path: Path, cells: list[bytes | None], group: int = 1000) -> Path:
    table = pyarrow.table({"n": range(len(cells)), "image": cells, "label": [i % 2 for i in range(len(cells))]})
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path


@pytest.mark.parametrize("few", [True, False])
def test_encoded_images_of_parquet_files_are_read_once_and_wait_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(image_cells, "IN_MEMORY", 10**6 if few else 1000)
    monkeypatch.setattr(limits, "BATCH_ROWS", 7)
    cells = [png(i) for i in range(30)]
    read: list[str] = []
    original = tables.read_column
    monkeypatch.setattr(tables, "read_column", lambda paths, name: read.append(name) or original(paths, name))
    located = tables.locate_parquet("set", [parquet(tmp_path / "train.parquet", cells, 11)], data.DataConfig("set"))
    assert read == ["image"] and [located.files[i] for i in (3, 29, 0, 3)] == [
        {"bytes": cells[i], "path": None} for i in (3, 29, 0, 3)
    ]
    assert [cell["bytes"] for cell in located.files[-2:]] == cells[-2:]  # type: ignore[index]
    assert few or list((tmp_path / "cache" / "notbugs").iterdir()) == [], "its file has no name, and ends with the run"


def test_the_table_without_its_images_takes_no_memory_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "a.parquet", [bytes([i]) * 100_000 for i in range(200)], 10)
    (table,) = limits.read_parquet([path], without="image")
    whole = pyarrow.parquet.read_table(path)
    assert table.nbytes < 10_000 < whole.nbytes and table.schema == whole.schema
    assert table.column("image").null_count == 200 and table.column("n").equals(whole.column("n"))
    monkeypatch.setattr(limits, "BATCH", 2**19)
    before = pyarrow.total_allocated_bytes()
    most = max(pyarrow.total_allocated_bytes() - before for _ in limits.read_column([path], "image"))
    assert most < 4 * 10**6, "ten images take 1 MB, all 20 MB"


def test_rows_without_an_image_keep_the_others_in_place(tmp_path: Path) -> None:
    cells = [png(i) if i not in (2, 5) else None for i in range(12)]
    found = data.load(parquet(tmp_path / "a.parquet", cells), skip_unreadable=True, test=".").test
    whole = data.load(parquet(tmp_path / "b.parquet", [png(i) for i in range(12)]), test=".").test
    assert torch.equal(found.images[:], whole.images[:][[i for i in range(12) if i not in (2, 5)]])
    assert found.labels.tolist() == [i % 2 for i in range(12) if i not in (2, 5)]


def test_a_disk_without_room_for_the_images_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int, content: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(image_cells, "IN_MEMORY", 100)
    monkeypatch.setattr(os, "write", full)
    said = load_error(parquet(tmp_path / "a.parquet", [png(i) for i in range(8)]))
    assert "has no room for the images of the table, got No space left" in said and "set XDG_CACHE_HOME" in said


def test_saved_sets_stay_in_their_files(tmp_path: Path) -> None:
    import datasets

    cells = [b"%d" % i for i in range(2500)]  # in several batches
    datasets.Dataset.from_dict({"image": cells, "label": [i % 2 for i in range(2500)]}).save_to_disk(tmp_path / "set")
    located = tables.locate_saved(tmp_path / "set", data.DataConfig("set"))
    assert [located.files[i]["bytes"] for i in (0, 999, 1000, 2499)] == [cells[i] for i in (0, 999, 1000, 2499)]  # type: ignore[index]


def test_damaged_statistics_of_a_parquet_file_do_not_end_the_process(tmp_path: Path) -> None:
    """pyarrow ended it with SIGABRT when a column's description was asked for. Case 1002005 of the door has such statistics."""
    assert try_case("parquet", 1002005, tmp_path / "case") in ("works", "refused")
