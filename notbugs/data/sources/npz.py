"""NumPy files: .npz with train_images, train_labels, test_images, test_labels, or x_train, y_train, …; or folders of .npy."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from notbugs.data.pixel_arrays import StoredArray, check_text, read_pieces
from notbugs.data.sources.arrays import LazyArrays, check_one_of_each, locate_array_files, reading
from notbugs.data.sources.base import Located
from notbugs.data.sources.limits import check_members
from notbugs.data_config import DataConfig
from notbugs.errors import InputError

PLAIN = "write it with numpy.savez from plain arrays: uint8 images, integer labels, text classes"
Header = tuple[tuple[int, ...], bool, np.dtype]


def locate_npz(path: Path, config: DataConfig) -> Located:
    """The images of an .npz file. Raises InputError."""
    return locate_array_files(path, [path], read_npz, config)


def read_npz(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of an .npz file, each of which is read when it is asked for. Raises InputError."""
    with _archive(path) as archive:
        check_members(path, archive.zip.infolist())
        check_one_of_each(path, archive.files)
        return LazyArrays.of(partial(_stored, path), archive.files)


@contextmanager
def _archive(path: Path) -> Iterator[Any]:
    with reading(path, "an .npz file", PLAIN), path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        yield archive


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[BinaryIO, Header, int]]:
    """One array of the file: a stream that is at its values, what it says of them, and the bytes that they take."""
    with _archive(path) as archive:
        member = next(info for info in archive.zip.infolist() if info.filename in (name, f"{name}.npy"))
        with archive.zip.open(member) as stream:
            yield stream, _header(stream), member.file_size - stream.tell()


def _header(stream: BinaryIO) -> Header:
    """Shape, whether the first axis varies fastest, and type."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _stored(path: Path, name: str) -> StoredArray:
    with _member(path, name) as (_, (shape, columns_first, dtype), size):
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize != size:
            raise InputError(f"{path}: {name}", "is damaged", f"shape {shape}, other than its {size:,} bytes", PLAIN)
    if dtype.hasobject or not shape or columns_first:  # refused, or a single value, or rows that do not lie together
        with _archive(path) as archive:
            found = np.asarray(archive[name])
            check_text(found)
            return StoredArray.of(found)

    @contextmanager
    def values() -> Iterator[BinaryIO]:
        with _member(path, name) as (stream, *_):
            yield stream

    return StoredArray(shape, dtype, lambda: read_pieces(values, shape, dtype))


def read_npy(path: Path) -> Mapping[str, np.ndarray]:
    """The array of an .npy file, by the file's name; it stays on disk until it is used. Raises InputError."""
    return LazyArrays.of(lambda _: _stored_npy(path), [path.stem])


def _stored_npy(path: Path) -> StoredArray:
    with _reading_npy(path):
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # which compares its claims with its size
        shape, dtype = mapped.shape, mapped.dtype
        if not shape or not mapped.flags.c_contiguous:
            check_text(mapped)
            return StoredArray.of(np.array(mapped))
        begin = mapped.offset

    @contextmanager
    def values() -> Iterator[BinaryIO]:
        with _reading_npy(path), path.open("rb") as stream:
            stream.seek(begin)
            yield stream

    return StoredArray(shape, dtype, lambda: read_pieces(values, shape, dtype))


def _reading_npy(path: Path) -> AbstractContextManager[None]:
    return reading(path, "an .npy file", "write it with numpy.save from a plain array")
