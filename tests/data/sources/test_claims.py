"""Sizes that files claim inside of their packed parts: no memory is set aside for what is not there."""

import io
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from data.conftest import load_error
from data.sources.forms import arrays, png

from notbugs import data
from notbugs.data.sources import limits, parquet_pages
from notbugs.data.sources.arrow_files import is_packed
from notbugs.data.sources.parquet_pages import I32, STRUCT, Claims, _Reader, claims
from notbugs.errors import InputError

BIG = 2**31 - 1


def rows(**columns: Any) -> pyarrow.Table:
    return pyarrow.table({"image": [png(i) for i in range(8)], "label": [i % 2 for i in range(8)]} | columns)


def parquet(table: pyarrow.Table, **options: Any) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream, **options)
    return stream.getvalue()


def claimed(content: bytes, most: int = limits.FREE) -> Claims:
    file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
    path = Path(file_of(content))
    return claims(path, file.schema, most)


def file_of(content: bytes) -> Path:
    path = Path("set.parquet")  # in the working directory of a test
    path.write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def number(value: int) -> bytes:
    """As Thrift writes a number above 0."""
    value, found = 2 * value, bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


# ---- parquet -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
@pytest.mark.parametrize("options", [{}, {"data_page_version": "2.0"}, {"use_dictionary": False, "write_page_index": True}])
def test_the_pages_of_a_whole_file_claim_what_it_holds(packing: str, options: dict[str, Any]) -> None:
    table = rows(words=["a", "b"] * 4, lists=[[1, 2]] * 8)
    content = parquet(table, compression=packing, row_group_size=3, data_page_size=100, **options)
    about = pyarrow.parquet.ParquetFile(io.BytesIO(content)).metadata
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    found = claimed(content)
    packed = packing in ("snappy", "lz4")  # those take more than nothing for what cannot be packed
    assert found.pages <= sum(group.total_byte_size for group in groups) * (2 if packed else 1)
    assert max(map(len, table["image"].to_pylist())) <= found.largest <= found.pages
    assert found.lists == 16 * 12
    assert len(data.load(file_of(content)).train) > 0


HEADERS = {"data": b"\x15\x00\x15", "dictionary": b"\x15\x04\x15"}  # of pages: type, then the two sizes


@pytest.mark.parametrize(
    ("kind", "skipped", "says"),
    [
        ("data", 0, "must not expand to more than 100 times its size, got 2,14"),
        ("dictionary", 0, "must not expand to more than 100 times its size, got 2,14"),
        ("data", 1, "a page claims more bytes than its column has"),
        ("dictionary", 1, "a page claims more bytes than its column has"),
        ("dictionary", 2, "a dictionary claims more values than it has bytes"),
    ],
)
def test_a_page_that_claims_two_gigabytes(kind: str, skipped: int, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow sets them aside before it looks for them."""
    content = parquet(rows(), use_dictionary=kind == "dictionary", write_statistics=False, compression="none")
    place = content.index(HEADERS[kind]) + len(HEADERS[kind])
    for _ in range(skipped):
        while content[place] & 128:
            place += 1
        place += 3 if content[place + 1 : place + 2] == b"\x4c" else 2  # a struct begins, with a number
    end = place
    while content[end] & 128:
        end += 1
    claim = number(BIG)
    cut = end + 61 + len(claim) - (end + 1 - place)  # as many bytes of the page are left out: all else stays in its place
    path = file_of(content[:place] + claim + content[end + 1 : end + 61] + content[cut:])
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("pages are read"))
    assert says in load_error(path)


@pytest.mark.parametrize("packing", ["none", "zstd"])
def test_one_word_that_stands_in_a_list_many_times(packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of a list may have any number of values, which are one in a dictionary."""
    monkeypatch.setattr(limits, "FREE", 2**18)
    monkeypatch.setattr(limits, "MOST_RATIO", 10)
    content = parquet(rows(tags=[["a" * 10_000] * 100] + [["b"]] * 7), compression=packing)
    assert 100 * 10_000 < claimed(content).lists < 150 * 10_000 and claimed(content, 0).lists == 0
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("pages are read"))
    assert "must not expand to more than 10 times its size" in load_error(file_of(content))


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_an_encoding_that_says_its_sizes_inside(encoding: str) -> None:
    content = parquet(rows(words=["a", "b"] * 4), use_dictionary=False, column_encoding={"words": encoding})
    assert "a column is encoded as DELTA_LENGTH_BYTE_ARRAY or DELTA_BYTE_ARRAY" in load_error(file_of(content))


def test_columns_that_share_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = parquet_pages._footer

    def longer(*given: Any) -> Any:
        found: Any = usual(*given)
        for column in found[4, 9][0][1, 9]:
            column[3, STRUCT][7, 6] = given[1] // 2 + 1
        return found

    monkeypatch.setattr(parquet_pages, "_footer", longer)
    assert "its columns claim more bytes than it has" in load_error(file_of(parquet(rows())))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(4) + b"PAR1", b"PAR1" + b"\xff" * 8 + b"PAR1"])
def test_an_end_that_is_none(content: bytes) -> None:
    path = file_of(content)
    schema = pyarrow.parquet.ParquetFile(io.BytesIO(parquet(rows()))).schema
    with pytest.raises(ValueError, match=r"damaged|lacks|unknown"):
        claims(path, schema, 1)


def test_values_of_thrift() -> None:
    content = bytes.fromhex("15 06 18 01 61 11 12 29 25 02 04 1c 15 02 00 1b 01 85 01 62 02 17 0000000000000040 03 28 07 00")
    found = _Reader(content).struct()
    assert found[1, I32] == 3 and found[2, 8] == b"a" and found[3, 1] is True and found[4, 2] is False
    assert found[6, 9] == [1, 2] and found[7, STRUCT] == {(1, I32): 1} and found[8, 11] == [b"b", 1]
    assert found[9, 7] == 2.0 and found[20, 3] == 7
    with pytest.raises(ValueError, match="nested too deeply"):
        _Reader(b"\x1c" * 40).struct()
    with pytest.raises(ValueError, match="too long a number"):
        _Reader(b"\x15" + b"\xff" * 12).struct()


# ---- Arrow, HDF5, zip ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", ["lz4", "zstd"])
def test_a_packed_arrow_file(packing: str) -> None:
    import datasets

    table = datasets.Dataset.from_dict({"image": [png(i) for i in range(8)], "label": [0, 1] * 4})
    table.save_to_disk("set")
    (path,) = Path("set").glob("*.arrow")
    with pyarrow.ipc.new_stream(path, table.data.schema, options=pyarrow.ipc.IpcWriteOptions(compression=packing)) as writer:
        writer.write_table(table.data.table)
    assert "it is packed, unlike the files of save_to_disk" in load_error(Path("set"))


@pytest.mark.parametrize("packing", [None, "lz4", "zstd"])
def test_messages_of_arrow_say_whether_they_are_packed(packing: str | None) -> None:
    table, stream = pyarrow.table({"a": ["x" * 99] * 9, "b": pyarrow.array(["y" * 99] * 9).dictionary_encode()}), io.BytesIO()
    with pyarrow.ipc.new_stream(stream, table.schema, options=pyarrow.ipc.IpcWriteOptions(compression=packing)) as writer:
        writer.write_table(table)
    messages = list(pyarrow.MessageReader.open_stream(io.BytesIO(stream.getvalue())))
    assert [is_packed(each.metadata.to_pybytes()) for each in messages] == [False, *[packing is not None] * 2]


def hdf5(content: bytes | None, **options: Any) -> Path:
    h5py = pytest.importorskip("h5py")
    images = arrays()["x_train"]
    with h5py.File("set.h5", "w") as file:
        stored = file.create_dataset("images", data=images, chunks=images.shape, **options)
        if content is not None:
            stored.id.write_direct_chunk((0,) * images.ndim, content)
        file["labels"] = np.arange(len(images)) % 2
    return Path("set.h5")


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip"},
        {"compression": "lzf"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"scaleoffset": 8},
    ],
)
def test_packed_pieces_of_hdf5_are_read(options: dict[str, Any]) -> None:
    loaded = data.load(hdf5(None, **options))
    assert len(loaded.train) + len(loaded.test) == len(arrays()["x_train"])


def test_a_piece_of_hdf5_that_unpacks_to_more_than_it_may_hold() -> None:
    """HDF5 unpacks to the end: a file of 1 MB took 1 GB."""
    path = hdf5(zlib.compress(arrays()["x_train"].tobytes() + bytes(100)), compression="gzip")
    assert "a piece of it unpacks to more than it may hold" in load_error(path)


def test_pieces_of_hdf5_that_are_larger_than_the_data_set() -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File("set.h5", "w") as file:
        file.create_dataset("images", (8, 4, 4), np.uint8, chunks=(2**20, 32, 64), maxshape=(None, None, None))
        file["labels"] = np.arange(8) % 2
    assert "must not expand to more than 100 times its size" in load_error(Path("set.h5"))


def test_a_word_of_hdf5_that_stands_in_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(limits, "FREE", 2**13)
    monkeypatch.setattr(limits, "MOST_RATIO", 0)
    with h5py.File("set.h5", "w") as file:
        file["images"] = np.zeros((400, 1, 1), np.uint8)
        file.create_dataset("labels", data=["a" * 100] * 400, dtype=h5py.string_dtype())
    assert "must not expand to more than 0 times its size, got 8,200 bytes" in load_error(Path("set.h5")), "reading stops there"


def test_a_refused_hdf5_file_leaves_other_threads_their_lock() -> None:
    """h5py's lock stayed with the thread that was refused a file, until its error was collected: others waited for ever."""
    h5py = pytest.importorskip("h5py")
    with h5py.File("set.h5", "w") as file:
        file["images"], file["labels"] = arrays()["x_train"], arrays()["y_train"]
        file["images"].attrs["classes"] = 0.5 * np.ones((2, 2))
        file["images"].attrs["more"] = 1
    with pytest.raises(InputError, match="classes: must be") as refused:
        data.load("set.h5")
    lock, taken = h5py._objects.phil, list[bool]()

    def take() -> None:
        taken.append(lock.acquire(blocking=False))
        if taken[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert refused.tb and taken == [True]


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("ending", ["npz", "zip"])
def test_zip_files_of_other_packings(packing: int, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python unpacks these without regard to the size that a member claims: 840 bytes took 1 GB."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").absolute()))
    with zipfile.ZipFile(f"set.{ending}", "w", packing) as archive:
        for name, array in arrays().items():
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{name}.npy", stream.getvalue())
    assert "must be packed by deflate" in load_error(Path(f"set.{ending}"))


# ---- tar -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_name_that_claims_a_terabyte(kind: bytes) -> None:
    """Python asks for all of it at once: MemoryError."""
    about = tarfile.TarInfo("x")
    about.type, about.size = kind, 2**40
    Path("set.tar").write_bytes(about.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "set.tar: cannot be read as a tar archive" in load_error(Path("set.tar"))
