"""HDF5 files: data sets by their names, as in .npz files. What points to other files is refused."""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from notbugs.data.names import printable
from notbugs.data.pixel_arrays import StoredArray, rows_of_piece
from notbugs.data.sources.arrays import LazyArrays, check_one_of_each, reading, whole
from notbugs.data.sources.class_names import is_naming, named_array
from notbugs.data.sources.limits import check_expansion, most_bytes, words_array
from notbugs.errors import InputError

if TYPE_CHECKING:
    import h5py

LZF, GZIP = 32000, 1  # numbers of packings
SAME_SIZE = (2, 3, 5, 6)  # those of shuffle, checksum, N bits and scaled whole numbers
CHECKSUM = 4  # bytes that a piece may have besides its values
PLAIN = "write plain arrays with h5py: images, labels, …"


def read_hdf5(path: Path) -> Mapping[str, np.ndarray]:
    """The data sets of an HDF5 file by their paths in it, each of which is read when it is asked for.

    Raises
    ------
    InputError
        If h5py is not installed, the file is damaged, or it points to other files.
    """
    try:
        import h5py
    except ImportError:
        raise InputError(printable(str(path)), "needs h5py to be read", remedy="pip install 'notbugs[hdf5]'") from None
    with reading(path, "an HDF5 file", PLAIN), h5py.File(path, "r") as file:
        names = tuple(_names(path, file, set()))
        check_expansion(path, sum((file[name].size or 0) * file[name].dtype.itemsize for name in names))
        namings = {
            f"{place}/{key}".strip("/"): named_array(f"{path}: {place}/{key}", value)
            for place, key, value in _namings(file, names)
        }
        check_one_of_each(path, [*names, *namings])
        return LazyArrays((*names, *namings), lambda name: whole(_stored(path, name)), partial(_stored, path), dict(namings))


def _names(path: Path, group: "h5py.Group", seen: set[int]) -> list[str]:
    """The data sets in a group and in those in it. A group can contain itself: each is listed once."""
    import h5py

    names = []
    for name in list(group):
        place = printable(f"{path}: {name}")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise InputError(place, "must not be a link", remedy=PLAIN)
        value = group[name]
        address = h5py.h5o.get_info(value.id).addr
        if isinstance(value, h5py.Dataset):
            if value.external or value.is_virtual:
                raise InputError(place, "must not be stored in other files", remedy=PLAIN)
            names.append(f"{group.name}/{name}".strip("/"))
        elif isinstance(value, h5py.Group) and address not in seen:
            seen.add(address)
            names += _names(path, value, seen)
    return names


def _namings(file: "h5py.File", names: Sequence[str]) -> Iterator[tuple[str, str, object]]:
    """Class names beside the data sets: where they are, how they are called, and what they are."""
    import h5py

    for name in names:
        if words := h5py.check_enum_dtype(file[name].dtype):
            yield name, "class_to_idx", words
    groups = {group for name in names for group in ("/", *(str(above) for above in PurePosixPath(name).parents if above.name))}
    for place in (*sorted(groups), *names):
        # A list: h5py holds its lock for all threads while it lists, and for ever if an error of ours ends that
        for key, value in list(file[place].attrs.items()):
            if is_naming(key) and not isinstance(value, int | float | np.number):  # classes = 10 is how many there are
                yield place.strip("/"), key, value


def _check_packing(dataset: "h5py.Dataset") -> None:
    """Raises an error where a piece of a data set unpacks to more than it holds: HDF5 would go on to the end of it.

    Of the other packings, lzf expands to at most 100 times its size, and shuffle and checksums to no more.
    """
    made = dataset.id.get_create_plist()
    packings = tuple(made.get_filter(number)[0] for number in range(made.get_nfilters()))
    if not packings:
        return
    if not set(packings) <= {GZIP, LZF, *SAME_SIZE} or len([each for each in packings if each in (GZIP, LZF)]) > 1:
        raise ValueError("it is packed in another way than by gzip or lzf")
    if GZIP not in packings:
        return
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize + CHECKSUM
    for number in range(dataset.id.get_num_chunks()):
        place = dataset.id.get_chunk_info(number)
        skipped, content = dataset.id.read_direct_chunk(place.chunk_offset)
        if not skipped >> packings.index(GZIP) & 1 and len(zlib.decompressobj().decompress(content, size + 1)) > size:
            raise ValueError("a piece of it unpacks to more than it may hold")


def _words(path: Path, dataset: "h5py.Dataset") -> list[str]:
    """The words of a data set, a few at a time: each may be as long as the file, and stand in any number of rows."""
    if not dataset.shape:
        return [str(dataset.asstr()[()])]
    stored, found, size = path.stat().st_size, list[str](), 0
    step = max(1, most_bytes(stored) // max(1, stored) // max(1, math.prod(dataset.shape[1:])))
    for start in range(0, dataset.shape[0], step):
        words = np.asarray(dataset.asstr()[start : start + step]).ravel().tolist()
        size += sum(map(len, words))
        check_expansion(path, size)
        found += words
    return found


def _stored(path: Path, name: str) -> StoredArray:
    import h5py

    with reading(path, "an HDF5 file", PLAIN), h5py.File(path, "r") as file:
        dataset = file[name]
        if dataset.chunks:  # which may be larger than the data set
            check_expansion(path, math.prod(dataset.chunks) * dataset.dtype.itemsize)
        _check_packing(dataset)
        if dataset.shape is not None and h5py.check_string_dtype(dataset.dtype):
            return StoredArray.of(words_array(path, _words(path, dataset)).reshape(dataset.shape))
        if dataset.shape is None or dataset.dtype.kind not in "biufS":
            raise InputError(printable(f"{path}: {name}"), "must hold numbers or text", dataset.dtype, PLAIN)
        if not dataset.shape:
            return StoredArray.of(np.asarray(dataset[()]))
        shape, dtype, packed = dataset.shape, dataset.dtype, dataset.chunks[0] if dataset.chunks else 1
    step = -(-rows_of_piece(shape, dtype) // packed) * packed  # rows that are packed together are unpacked once

    def pieces() -> Iterator[np.ndarray]:
        with reading(path, "an HDF5 file", PLAIN), h5py.File(path, "r") as file:
            for start in range(0, shape[0], step):
                yield np.asarray(file[name][start : start + step])

    return StoredArray(shape, dtype, pieces)
